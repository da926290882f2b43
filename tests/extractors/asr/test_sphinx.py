import os
import signal
import sys

import numpy as np
import pytest

from extractors.asr.sphinx import SphinxRecogniser
from extractors.errors import ExtractorError, Unavailable
from extractors.sound import SAMPLE_NS
from extractors.text import normalise
from extractors.vad import CHUNK, VoiceActivity, VoiceChunk


@pytest.fixture
def recogniser():
    recogniser = SphinxRecogniser()
    yield recogniser
    recogniser.close()


def speech(count: int) -> list[VoiceChunk]:
    return [VoiceChunk(index * CHUNK * SAMPLE_NS, np.zeros(CHUNK, np.int16), True, True) for index in range(count)]


def test_it_recognises_a_real_sentence_at_its_times(jfk, recogniser):
    activity = VoiceActivity()
    chunks = activity.push(0, jfk) + activity.close()
    t_ns = 7_700_000_000
    chunks = [chunk for chunk in chunks if chunk.t_ns >= t_ns]  # "ask what you can do for your country"
    words, watermark_ns = [], t_ns
    for known in [*map(recogniser.push, chunks), recogniser.finish()]:
        assert all(word.end_ns > watermark_ns for word in known.final)
        watermark_ns = known.watermark_ns
        words += known.final

    texts = [word.text for word in words]
    assert len(set(texts) & set("ask what you can do for your country".split())) >= 5
    country = words[texts.index("country")]
    assert 9.8e9 < country.start_ns < country.end_ns < 10.7e9
    edges = [edge for word in words for edge in (word.start_ns, word.end_ns)]
    assert edges == sorted(edges)
    assert t_ns <= edges[0]
    assert edges[-1] <= len(jfk) * SAMPLE_NS == watermark_ns
    assert all(word.confidence is not None and 0 <= word.confidence <= 1 for word in words)
    assert all(normalise(word.text) == [word.text] for word in words if not word.text.startswith(("[", "+")))


def test_a_stretch_too_short_for_a_word_gives_none(recogniser):
    (chunk,) = speech(1)
    recogniser.push(chunk)
    assert recogniser.finish().final == ()


def test_close_ends_the_child():
    recogniser = SphinxRecogniser()
    child = recogniser._child
    assert child.poll() is None
    recogniser.close()
    assert child.returncode == 0
    recogniser.close()


@pytest.mark.parametrize("count", [1, 100], ids=["short", "long"])
def test_a_dead_child_is_one_clear_error(count):
    recogniser = SphinxRecogniser()
    for chunk in speech(count):
        recogniser.push(chunk)
    os.kill(recogniser._child.pid, signal.SIGKILL)
    recogniser._child.wait()
    with pytest.raises(ExtractorError, match=r"^PocketSphinx ended unexpectedly \(exit code -9\)$"):
        recogniser.finish()
    recogniser.close()


def test_a_child_that_does_not_start_is_unavailable(monkeypatch):
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(Unavailable, match=r"^PocketSphinx does not load \(exit code 1\)"):
        SphinxRecogniser()
