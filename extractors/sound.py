"""The one form in which sound travels: 16 kHz, mono, int16, so that what is recorded replays to the bit."""

import numpy as np
import numpy.typing as npt

SAMPLE_RATE = 16_000  # Hz
SAMPLE_NS = 1_000_000_000 // SAMPLE_RATE  # 62,500 ns, exactly


def check_samples(samples: npt.NDArray[np.int16]) -> None:
    """Raise ValueError unless the block is (N,) int16."""
    if samples.ndim != 1 or samples.dtype != np.int16:
        raise ValueError(f"samples must be (N,) int16 at 16 kHz, got {samples.shape} {samples.dtype}")


def continues(t_ns: int, end_ns: int) -> bool:
    """Whether a block at `t_ns` continues sound that ended at `end_ns`, to within one sample; False if there is a gap.

    Raises:
        ValueError: The block starts before the end.
    """
    if end_ns - t_ns >= SAMPLE_NS:
        raise ValueError(f"audio at {t_ns} ns starts before the last block's end at {end_ns} ns")
    return t_ns - end_ns < SAMPLE_NS
