import sys
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from extractors.errors import Unavailable
from extractors.sound import SAMPLE_NS, SAMPLE_RATE
from extractors.vad import CHUNK, LEAD, TRAIL, VoiceActivity, VoiceChunk

START_NS = 1_700_000_000_123_456_789
LENGTHS = st.lists(st.sampled_from([0, 1, 320, 480, 511, 512, 513, 1024]) | st.integers(0, 20_000), max_size=12)


def blocks(sound: np.ndarray, lengths: list[int], t_ns: int = START_NS) -> list[tuple[int, np.ndarray]]:
    """The sound cut into blocks of these lengths, and the rest as a last one."""
    edges = np.minimum(np.cumsum([0, *lengths, len(sound)]), len(sound)).tolist()
    return [(t_ns + first * SAMPLE_NS, sound[first:last]) for first, last in pairwise(edges)]


def hear(activity: VoiceActivity, *parts: tuple[int, np.ndarray]) -> list[VoiceChunk]:
    return [chunk for part in parts for chunk in activity.push(*part)] + activity.close()


def plain(chunks: list[VoiceChunk]) -> list[tuple[int, bytes, bool, bool]]:
    return [(chunk.t_ns, chunk.samples.tobytes(), chunk.voiced, chunk.speech) for chunk in chunks]


@pytest.fixture(scope="module")
def activity() -> VoiceActivity:
    """Used again and again: closing it must leave nothing behind."""
    return VoiceActivity()


@pytest.fixture(scope="module")
def speech(jfk):
    """Four seconds with words, a pause and words; no whole number of chunks."""
    return jfk[SAMPLE_RATE : 5 * SAMPLE_RATE - 100]


@pytest.fixture(scope="module")
def whole(speech) -> list[VoiceChunk]:
    return hear(VoiceActivity(), (START_NS, speech))


@settings(deadline=None, max_examples=15)
@given(lengths=LENGTHS)
def test_however_cut_the_chunks_are_the_same(activity, speech, whole, lengths):
    assert plain(hear(activity, *blocks(speech, lengths))) == plain(whole)


@pytest.mark.parametrize("length", [160, 320, 480, 1024])
def test_equal_blocks_give_the_same_chunks(activity, speech, whole, length):
    assert plain(hear(activity, *blocks(speech, [length] * (len(speech) // length)))) == plain(whole)


@settings(deadline=None, max_examples=10)
@given(edge=st.integers(1, 60_000), gap_ns=st.integers(SAMPLE_NS, 10**9), lengths=LENGTHS)
def test_nothing_reaches_across_a_gap(activity, speech, edge, gap_ns, lengths):
    resumes_ns = START_NS + edge * SAMPLE_NS + gap_ns
    apart = hear(activity, (START_NS, speech[:edge])) + hear(activity, (resumes_ns, speech[edge:]))
    together = hear(activity, *blocks(speech[:edge], lengths), *blocks(speech[edge:], lengths, resumes_ns))
    assert plain(together) == plain(apart)


def test_chunks_cover_the_sound_exactly(jfk, activity):
    chunks = hear(activity, (START_NS, jfk))
    assert chunks[0].t_ns == START_NS
    assert all(before.end_ns == after.t_ns for before, after in pairwise(chunks))
    assert {len(chunk.samples) for chunk in chunks[:-1]} == {CHUNK}
    assert np.array_equal(np.concatenate([chunk.samples for chunk in chunks]), jfk)


def test_speech_reaches_from_before_a_voice_to_after_it(jfk, activity):
    chunks = hear(activity, (0, jfk))
    voiced = [index for index, chunk in enumerate(chunks) if chunk.voiced]
    expected = [any(-LEAD <= index - at <= TRAIL for at in voiced) for index in range(len(chunks))]
    assert [chunk.speech for chunk in chunks] == expected
    assert not all(expected)


def test_it_hears_the_words_and_the_pauses(jfk, activity):
    chunks = hear(activity, (0, jfk))

    def voiced(start: float, end: float) -> float:
        return float(np.mean([chunk.voiced for chunk in chunks if start * 1e9 <= chunk.t_ns and chunk.end_ns <= end * 1e9]))

    assert voiced(0.5, 2.0) > 0.9  # "so, my fellow Americans"
    assert voiced(8.3, 10.3) > 0.9  # "what you can do for your country"
    assert voiced(2.6, 3.0) == 0


class Scripted:
    """Stands for the model: these probabilities, one after the other."""

    def __init__(self, *probabilities: float) -> None:
        self.coming = iter(probabilities)

    def __call__(self, *_: object) -> float:
        return next(self.coming)

    def reset_states(self) -> None:
        pass


def test_a_voice_starts_at_one_threshold_and_lasts_down_to_another():
    activity = VoiceActivity()
    activity._model = Scripted(0.4, 0.49, 0.5, 0.4, 0.36, 0.34, 0.4, 0.9)
    chunks = hear(activity, (0, np.zeros(8 * CHUNK, np.int16)))
    assert [chunk.voiced for chunk in chunks] == [False, False, True, True, True, False, False, True]


@pytest.mark.parametrize("deviation", [0, 1, 100], ids=["digital", "dither", "hiss"])
def test_silence_has_no_voice(activity, deviation):
    hiss = np.random.default_rng(0).normal(0, deviation, 3 * SAMPLE_RATE).astype(np.int16)
    assert not any(chunk.voiced or chunk.speech for chunk in hear(activity, (0, hiss)))


@settings(deadline=None, max_examples=10)
@given(before=LENGTHS, after=LENGTHS, gap_ns=st.integers(SAMPLE_NS, 10**9))
def test_the_watermark_is_a_promise(activity, speech, before, after, gap_ns):
    promised = START_NS
    for t_ns, samples in blocks(speech, before) + blocks(speech, after, START_NS + len(speech) * SAMPLE_NS + gap_ns):
        chunks = activity.push(t_ns, samples)
        assert all(chunk.t_ns >= promised for chunk in chunks)
        assert activity.watermark_ns >= promised
        promised, heard_ns = activity.watermark_ns, t_ns + len(samples) * SAMPLE_NS
        assert promised >= heard_ns - (LEAD + 1) * CHUNK * SAMPLE_NS  # and it keeps up with the sound
    assert all(chunk.t_ns >= promised for chunk in activity.close())
    assert activity.watermark_ns == heard_ns


def test_times_do_not_run_backwards():
    activity = VoiceActivity()
    activity.push(START_NS, np.zeros(100, np.int16))
    with pytest.raises(ValueError, match="before the last block's end"):
        activity.push(START_NS + 98 * SAMPLE_NS, np.zeros(100, np.int16))


@pytest.mark.parametrize("samples", [np.zeros(512, np.float32), np.zeros((512, 1), np.int16)], ids=["float", "two axes"])
def test_other_forms_are_refused(activity, samples):
    with pytest.raises(ValueError, match="int16"):
        activity.push(0, samples)


def test_without_the_package_it_is_unavailable(monkeypatch):
    monkeypatch.setitem(sys.modules, "silero_vad", None)
    with pytest.raises(Unavailable, match="pip install silero-vad onnxruntime"):
        VoiceActivity()
