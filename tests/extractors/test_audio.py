from functools import cache
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from extractors.audio import COLUMNS, CONTRACT, FRAME, HOP, SILENCE_DB, VOICED, AudioExtractor
from extractors.contract import FeatureRows
from extractors.sound import SAMPLE_NS, SAMPLE_RATE

START_NS = 1_700_000_000_123_456_789
LENGTHS = st.lists(st.sampled_from([0, 0, 1, 1, 159, 160, 161, 399, 400, 401, 1600, 2240]) | st.integers(0, 4000), max_size=12)


def harmonics(hertz: float, seconds: float = 0.5) -> np.ndarray:
    """A voice-like tone: harmonics of falling strength up to 4 kHz."""
    t = np.arange(int(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    wave = sum(np.sin(2 * np.pi * k * hertz * t + k) / k for k in range(1, int(4000 / hertz)))
    return (8000 * wave / np.abs(wave).max()).astype(np.int16)


def sine(hertz: float, seconds: float = 0.3, peak: float = 32767) -> np.ndarray:
    return np.round(peak * np.sin(2 * np.pi * hertz * np.arange(int(seconds * SAMPLE_RATE)) / SAMPLE_RATE)).astype(np.int16)


def noise(seconds: float = 0.5, deviation: float = 3000) -> np.ndarray:
    return np.random.default_rng(1).normal(0, deviation, int(seconds * SAMPLE_RATE)).astype(np.int16)


# A voice, a digital silence, noise that fades away and another voice: rows and absences in turn.
SOUND = np.concatenate(
    [
        harmonics(120, 0.4),
        np.zeros(4000, np.int16),
        (noise(0.4) * np.linspace(1, 0, 6400)).astype(np.int16),
        harmonics(220, 0.3),
    ]
)


def blocks(sound: np.ndarray, lengths: list[int], t_ns: int = START_NS) -> list[tuple[int, np.ndarray]]:
    """The sound cut into blocks of these lengths, and the rest as a last one."""
    edges = np.minimum(np.cumsum([0, *lengths, len(sound)]), len(sound)).tolist()
    return [(t_ns + first * SAMPLE_NS, sound[first:last]) for first, last in pairwise(edges)]


def hear(*parts: tuple[int, np.ndarray]) -> FeatureRows:
    extractor = AudioExtractor()
    return FeatureRows.concatenate([*(extractor.push(*part) for part in parts), extractor.close()], len(COLUMNS))


@cache
def whole() -> FeatureRows:
    return hear((START_NS, SOUND))


def assert_same_bits(one: FeatureRows, other: FeatureRows) -> None:
    assert one.t_ns.tolist() == other.t_ns.tolist()
    assert one.absent_ns.tolist() == other.absent_ns.tolist()
    assert one.values.tobytes() == other.values.tobytes()


def settled(sound: np.ndarray, name: str) -> np.ndarray:
    """The column of the rows whose frames lie wholly inside the sound."""
    return hear((0, sound)).values[5:, COLUMNS.index(name)]


@settings(deadline=None, max_examples=25)
@given(LENGTHS)
def test_however_cut_the_rows_have_the_same_bits(lengths):
    assert len(whole().t_ns)
    assert len(whole().absent_ns)
    assert_same_bits(hear(*blocks(SOUND, lengths)), whole())


def test_single_samples_give_the_same_bits():
    assert_same_bits(hear(*blocks(SOUND[:3000], [1] * 3000)), hear((START_NS, SOUND[:3000])))


@settings(deadline=None, max_examples=20)
@given(LENGTHS, LENGTHS, st.integers(0, 6000), st.integers(SAMPLE_NS, 10**9))
def test_rows_never_reach_across_a_gap(before, after, edge, gap_ns):
    one, other = SOUND[:edge], SOUND[edge:]
    resumes_ns = START_NS + edge * SAMPLE_NS + gap_ns
    apart = [hear((START_NS, one)), hear((resumes_ns, other))]
    together = hear(*blocks(one, before), *blocks(other, after, resumes_ns))
    assert_same_bits(together, FeatureRows.concatenate(apart, len(COLUMNS)))


@settings(deadline=None, max_examples=20)
@given(st.integers(1, 3000), st.integers(1 - SAMPLE_NS, SAMPLE_NS - 1))
def test_less_than_a_sample_is_no_gap(edge, offset_ns):
    jittered = hear((START_NS, SOUND[:edge]), (START_NS + edge * SAMPLE_NS + offset_ns, SOUND[edge:]))
    assert_same_bits(jittered, whole())


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 5000))
def test_a_row_every_10_ms_from_25_ms_on(length):
    rows = hear((START_NS, SOUND[:length]))
    times = sorted([*rows.t_ns.tolist(), *rows.absent_ns.tolist()])
    assert times == [START_NS + last * SAMPLE_NS for last in range(FRAME - 1, length, HOP)]
    assert HOP * SAMPLE_NS == 10_000_000


def test_a_row_uses_no_sample_after_its_time():
    changed = SOUND.copy()
    changed[3000:] = 12345
    rows, others = hear((0, SOUND)), hear((0, changed))
    count = int((rows.t_ns < 3000 * SAMPLE_NS).sum())
    assert count == (3000 - FRAME) // HOP + 1
    np.testing.assert_allclose(rows.values[:count], others.values[:count], rtol=1e-5, atol=1e-4)
    assert not np.allclose(rows.values[count], others.values[count], rtol=1e-2, atol=1e-2)


@settings(deadline=None, max_examples=20)
@given(LENGTHS, LENGTHS, st.integers(SAMPLE_NS, 10**9))
def test_the_watermark_is_a_promise(before, after, gap_ns):
    extractor = AudioExtractor()
    promised, heard_ns = START_NS, START_NS
    resumes_ns = START_NS + len(SOUND) * SAMPLE_NS + gap_ns
    for t_ns, samples in blocks(SOUND, before) + blocks(SOUND, after, resumes_ns):
        rows = extractor.push(t_ns, samples)
        assert all(moment >= promised for moment in (*rows.t_ns.tolist(), *rows.absent_ns.tolist()))
        assert extractor.watermark_ns >= promised
        promised, heard_ns = extractor.watermark_ns, t_ns + len(samples) * SAMPLE_NS
        assert promised >= heard_ns - 100_000_000  # and it keeps up with the sound
    rows = extractor.close()
    assert all(moment >= promised for moment in (*rows.t_ns.tolist(), *rows.absent_ns.tolist()))
    assert extractor.watermark_ns >= heard_ns


def test_after_close_it_starts_anew():
    extractor = AudioExtractor()
    extractor.push(0, noise(0.2))
    extractor.close()
    again = FeatureRows.concatenate([extractor.push(START_NS, SOUND), extractor.close()], len(COLUMNS))
    assert_same_bits(again, whole())


def test_times_do_not_run_backwards():
    extractor = AudioExtractor()
    extractor.push(START_NS, SOUND[:1600])
    with pytest.raises(ValueError, match="before the last block's end"):
        extractor.push(START_NS + 1598 * SAMPLE_NS, SOUND[:1600])


@pytest.mark.parametrize("samples", [np.zeros(160, np.float32), np.zeros((160, 2), np.int16)], ids=["float", "stereo"])
def test_other_forms_are_refused(samples):
    with pytest.raises(ValueError, match="int16"):
        AudioExtractor().push(0, samples)


@pytest.mark.parametrize("hertz", [75, 120, 220, 400])
def test_pitch_of_a_voice(hertz):
    semitones = 12 * np.log2(hertz / 27.5)
    assert settled(harmonics(hertz), "pitch_semitones") == pytest.approx(semitones, abs=0.15)
    assert settled(harmonics(hertz), "voicing").min() > 0.97
    assert settled(harmonics(hertz), "hnr_db").min() > 15


def test_noise_has_no_pitch():
    assert (settled(noise(), "pitch_semitones") == 0).mean() > 0.95
    assert np.median(settled(noise(), "voicing")) < VOICED
    assert np.median(settled(noise(), "hnr_db")) < 0


def test_digital_silence_is_known_absence():
    rows = hear((0, np.zeros(SAMPLE_RATE, np.int16)))
    assert len(rows.t_ns) == 0
    assert rows.values.shape == (0, len(COLUMNS))
    assert len(rows.absent_ns) == 98


def test_silence_begins_at_the_threshold():
    def of_level(decibel: float) -> FeatureRows:
        return hear((0, sine(1000, peak=32768 * 2**0.5 * 10 ** (decibel / 20))))

    assert len(of_level(SILENCE_DB + 1).absent_ns) == 0
    assert len(of_level(SILENCE_DB - 1).t_ns) == 0


def test_level_of_a_full_scale_sine():
    assert settled(sine(1000), "level_db") == pytest.approx(-3.01, abs=0.05)
    assert settled(sine(1000, peak=3276.7), "level_db") == pytest.approx(-23.01, abs=0.05)


@pytest.mark.parametrize("hertz", [500, 1000, 3000])
def test_spectrum_of_a_sine(hertz):
    khz = hertz / 1000
    assert settled(sine(hertz), "centroid_khz") == pytest.approx(khz, abs=0.02)
    assert settled(sine(hertz), "rolloff_khz") == pytest.approx(khz, abs=0.04)
    assert settled(sine(hertz), "spread_khz").max() < 0.1
    assert settled(sine(hertz), "zero_crossing_rate") == pytest.approx(2 * hertz / SAMPLE_RATE, abs=0.01)
    assert settled(sine(hertz), "flatness_db").max() < -20
    low = hertz <= 500
    assert (settled(sine(hertz), "alpha_ratio_db") > 20).all() == low
    assert (settled(sine(hertz), "hammarberg_db") > 20).all() == (hertz < 2000)
    assert (settled(sine(hertz), "hammarberg_db") < -20).all() == (hertz > 2000)


def test_spectrum_of_white_noise():
    assert settled(noise(), "centroid_khz").mean() == pytest.approx(4, abs=0.2)
    assert settled(noise(), "spread_khz").mean() == pytest.approx(8 / 12**0.5, abs=0.2)
    assert settled(noise(), "rolloff_khz").mean() == pytest.approx(0.85 * 8, abs=0.2)
    assert settled(noise(), "zero_crossing_rate").mean() == pytest.approx(0.5, abs=0.03)
    assert settled(noise(), "alpha_ratio_db").mean() == pytest.approx(10 * np.log10(950 / 4000), abs=1)
    assert settled(noise(2), "slope_mid_db_per_khz").mean() == pytest.approx(0, abs=1.5)


def test_slopes_of_a_known_spectrum():
    # Twelve partials 125 Hz apart, each 1 dB weaker than the one before: peaks fall 8 dB a kHz, and so do the valleys' sides.
    t = np.arange(SAMPLE_RATE) / SAMPLE_RATE
    falling = sum(10 ** (-k / 20) * np.sin(2 * np.pi * 125 * k * t + k * k) for k in range(1, 25))
    level = sum(np.sin(2 * np.pi * 125 * k * t + k * k) for k in range(1, 25))
    slopes = [settled((2500 * wave).astype(np.int16), "slope_mid_db_per_khz").mean() for wave in (falling, level)]
    assert slopes[0] - slopes[1] == pytest.approx(-8, abs=1)


def test_flux_is_a_change_of_the_spectrum():
    steady, quieter, other = sine(1000), sine(1000, peak=3276), sine(3000)
    assert settled(steady, "flux").max() < 0.05
    assert settled(quieter, "flux").max() < 0.05
    assert settled(np.concatenate([steady, other]), "flux").max() > 0.7


def test_gain_moves_the_level_and_the_first_coefficient_only():
    quiet, loud = hear((0, noise(deviation=1000))).values, hear((0, noise(deviation=1000) * np.int16(4))).values
    moved = dict(zip(COLUMNS, (loud - quiet).mean(0), strict=True))
    assert moved.pop("level_db") == pytest.approx(20 * np.log10(4), abs=1e-3)
    assert moved.pop("mfcc_0") == pytest.approx(2 * np.log(4) * 40**0.5, abs=1e-3)  # an orthonormal DCT over 40 bands
    assert list(moved.values()) == pytest.approx([0] * len(moved), abs=1e-3)


@pytest.mark.parametrize(
    "samples",
    [
        np.tile(np.repeat(np.array([32767, -32768], np.int16), 40), 100),
        np.full(8000, -32768, np.int16),
        np.tile(np.array([32767, -32768], np.int16), 4000),
        np.where(np.arange(8000) % 1000 == 999, 32767, 0).astype(np.int16),
        np.where(np.arange(8000) == 4000, -32768, 0).astype(np.int16),
        np.ones(8000, np.int16),
    ],
    ids=["square", "constant", "Nyquist", "impulses", "one impulse", "offset"],
)
def test_extreme_sound_gives_finite_values(samples):
    rows = hear((0, samples))
    assert len(rows.t_ns) + len(rows.absent_ns) == (len(samples) - FRAME) // HOP + 1
    assert np.isfinite(rows.values).all()


def test_rows_have_the_columns_of_the_contract():
    rows = hear((0, SOUND))
    assert rows.values.shape == (len(rows.t_ns), len(CONTRACT.columns))
    assert (rows.t_ns.dtype, rows.values.dtype, rows.absent_ns.dtype) == (np.int64, np.float32, np.int64)


def test_real_speech_is_within_the_stated_ranges(jfk):
    rows = hear((0, jfk))
    column = dict(zip(COLUMNS, rows.values.T, strict=True))
    voiced = column["pitch_semitones"] > 0
    assert np.isfinite(rows.values).all()
    assert 0.2 < voiced.mean() < 0.9
    assert 27.5 * 2 ** (np.median(column["pitch_semitones"][voiced]) / 12) == pytest.approx(
        165, rel=0.35
    )  # a man's raised voice
    assert 0 <= column["voicing"].min() <= column["voicing"].max() <= 1
    assert -20.1 < column["hnr_db"].min() < column["hnr_db"].max() < 40.1
    assert 0 <= column["flux"].min() <= column["flux"].max() <= 2**0.5 + 1e-6
    assert column["level_db"].max() < 0
