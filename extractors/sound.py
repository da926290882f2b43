"""The one form in which sound travels: 16 kHz, mono, int16, so that what is recorded replays to the bit."""

SAMPLE_RATE = 16_000  # Hz
SAMPLE_NS = 1_000_000_000 // SAMPLE_RATE  # 62,500 ns, exactly
