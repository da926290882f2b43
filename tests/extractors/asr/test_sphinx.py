import os
import signal
import sys
import threading
import time
from collections.abc import Iterator

import numpy as np
import pytest

from extractors.asr.recogniser import Recognition, Word
from extractors.asr.sphinx import SphinxRecogniser
from extractors.errors import ExtractorError, Unavailable
from extractors.sound import SAMPLE_NS
from extractors.text import normalise
from extractors.vad import CHUNK, VoiceActivity, VoiceChunk

CHUNK_NS = CHUNK * SAMPLE_NS
MINUTE_NS = 60_000_000_000


@pytest.fixture
def recogniser() -> Iterator[SphinxRecogniser]:
    recogniser = SphinxRecogniser()
    yield recogniser
    recogniser.close()


@pytest.fixture(scope="module")
def speech(jfk: np.ndarray) -> list[VoiceChunk]:
    """Four stretches."""
    activity = VoiceActivity()
    return activity.push(0, jfk) + activity.close()


@pytest.fixture(scope="module")
def sentence(speech: list[VoiceChunk]) -> list[VoiceChunk]:
    """The last stretch, "ask what you can do for your country", and what is silent before it."""
    return [chunk for chunk in speech if chunk.t_ns >= 7_700_000_000]


def later(chunks: list[VoiceChunk]) -> list[VoiceChunk]:
    """The same sound a minute later."""
    return [VoiceChunk(c.t_ns + MINUTE_NS, c.samples, c.voiced, c.speech) for c in chunks]


def quiet(first: int, count: int, *, speech: bool = True) -> list[VoiceChunk]:
    """Chunks without any sound that pass for speech, or for silence."""
    return [VoiceChunk(index * CHUNK_NS, np.zeros(CHUNK, np.int16), speech, speech) for index in range(first, first + count)]


def hear(recogniser: SphinxRecogniser, chunks: list[VoiceChunk], *, behind: bool = False) -> list[Recognition]:
    """What is known after each chunk and at the end; the promises of `Recognition` are held to."""
    known = [*(recogniser.push(chunk, behind=behind) for chunk in chunks), recogniser.finish()]
    promised = 0
    for part in known:
        ends = [promised]
        for word in part.final:
            assert ends[-1] <= word.start_ns < word.end_ns
            ends.append(word.end_ns)
        assert part.watermark_ns >= max(ends)
        promised = part.watermark_ns
        assert all(promised <= word.start_ns < word.end_ns for word in part.provisional)
    assert promised == chunks[-1].end_ns
    return known


def finals(known: list[Recognition]) -> list[Word]:
    return [word for part in known for word in part.final]


def test_it_recognises_a_real_sentence_at_its_times(speech, recogniser):
    words = finals(hear(recogniser, speech))
    texts = [word.text for word in words if word.start_ns > 7_700_000_000]
    assert len(set(texts) & set("ask what you can do for your country".split())) >= 5
    (country,) = (word for word in words if word.text == "country")
    assert 9.8e9 < country.start_ns < country.end_ns < 10.7e9
    assert all(word.confidence is not None and 0 <= word.confidence <= 1 for word in words)
    assert all(normalise(word.text) == [word.text] for word in words if not word.text.startswith(("[", "+")))


def test_words_are_provisional_while_the_stretch_lasts(sentence, recogniser):
    known = hear(recogniser, sentence)
    guesses = [part.provisional for part in known]
    lengths = [len(guess) for guess in guesses]
    assert lengths[0] == 0
    assert max(lengths[: len(lengths) // 2]) > 0  # long before the end
    assert lengths[-2] >= 8
    assert lengths[-1] == 0
    assert len(set(guesses)) >= 8  # of 3 s, heard every quarter
    assert {"do", "you", "for", "your", "country", "can", "and"} & {word.text for word in guesses[-2]}
    assert all(word.confidence is None and not word.text.startswith("<") for guess in guesses for word in guess)
    assert all(word.end_ns <= chunk.end_ns for chunk, guess in zip(sentence, guesses, strict=False) for word in guess)


def test_final_words_are_the_same_however_far_behind(sentence, recogniser):
    at_ease = hear(recogniser, sentence)
    assert recogniser.skipped == 0
    behind = hear(recogniser, later(sentence), behind=True)  # after other sound: words depend on their stretch alone
    looks = sum(chunk.speech for chunk in sentence) // 8
    assert recogniser.skipped == looks >= 10
    assert not any(part.provisional for part in behind)
    assert [(word.text, word.confidence) for word in finals(behind)] == [
        (word.text, word.confidence) for word in finals(at_ease)
    ]
    assert [word.end_ns - MINUTE_NS for word in finals(behind)] == [word.end_ns for word in finals(at_ease)]


def test_what_was_left_out_is_heard_with_the_next_piece(sentence, recogniser):
    stretch = [chunk for chunk in sentence if chunk.speech]
    known = [recogniser.push(chunk, behind=index < len(stretch) - 10) for index, chunk in enumerate(stretch)]
    (words,) = {part.provisional for part in known if part.provisional}
    assert len(words) >= 6
    assert words[0].start_ns < stretch[0].t_ns + 1_000_000_000


def test_a_stretch_too_short_for_a_word_gives_none(recogniser):
    assert finals(hear(recogniser, quiet(0, 1))) == []


@pytest.mark.parametrize("count", [1, 300], ids=["short", "longer than the pipe takes"])
def test_a_dead_child_is_one_error_and_the_next_speech_starts_another(sentence, recogniser, count):
    for chunk in quiet(0, count):
        recogniser.push(chunk, behind=True)
    dead = recogniser._child
    os.kill(dead.pid, signal.SIGKILL)
    dead.wait()
    after, more = quiet(count, 2, speech=False)
    with pytest.raises(ExtractorError, match=r"^PocketSphinx ended unexpectedly \(exit code -9\)$"):
        recogniser.push(after)
    assert recogniser.push(more) == Recognition((), (), more.end_ns)
    assert len(finals(hear(recogniser, later(sentence), behind=True))) >= 8


def test_a_child_that_dies_while_the_stretch_lasts_costs_no_word(sentence, recogniser):
    expected = finals(hear(recogniser, sentence))
    again = [chunk for chunk in later(sentence) if chunk.speech]
    for chunk in again[:40]:
        recogniser.push(chunk)
    os.kill(recogniser._child.pid, signal.SIGKILL)
    errors = 0
    for chunk in again[40:]:
        try:
            guess = recogniser.push(chunk).provisional
        except ExtractorError:
            errors += 1
    assert errors == 1
    assert len(guess) >= 8  # the new child has heard all of the stretch
    assert [word.text for word in recogniser.finish().final] == [word.text for word in expected]


@pytest.mark.parametrize("count", [8, 300], ids=["before its answer", "before it takes the sound"])
def test_a_child_that_hangs_is_given_up(sentence, recogniser, count, monkeypatch):
    for chunk in quiet(0, count):
        recogniser.push(chunk, behind=True)
    os.kill(recogniser._child.pid, signal.SIGSTOP)
    monkeypatch.setattr(recogniser, "_timeout_s", 1.0)
    began = time.monotonic()
    with pytest.raises(ExtractorError, match=r"^PocketSphinx gave no answer within 1 s$"):
        recogniser.finish()
    assert 0.9 < time.monotonic() - began < 2
    monkeypatch.undo()
    assert len(finals(hear(recogniser, later(sentence), behind=True))) >= 8


def test_close_ends_the_child():
    recogniser = SphinxRecogniser()
    child = recogniser._child
    assert child.poll() is None
    recogniser.close()
    assert child.returncode is not None
    recogniser.close()
    recogniser.push(quiet(0, 1)[0])
    with pytest.raises(ExtractorError, match=r"^PocketSphinx has been closed$"):
        recogniser.finish()


@pytest.mark.parametrize("count", [1, 300], ids=["for an answer", "for room in the pipe"])
def test_close_ends_a_call_that_waits(count):
    recogniser = SphinxRecogniser()
    for chunk in quiet(0, count):
        recogniser.push(chunk, behind=True)
    os.kill(recogniser._child.pid, signal.SIGSTOP)
    raised: list[BaseException] = []

    def wait() -> None:
        try:
            recogniser.finish()
        except ExtractorError as error:
            raised.append(error)

    waiting = threading.Thread(target=wait)
    waiting.start()
    time.sleep(0.3)
    assert waiting.is_alive()
    began = time.monotonic()
    recogniser.close()
    waiting.join(1)
    assert not waiting.is_alive()
    assert time.monotonic() - began < 1
    assert [str(error) for error in raised] == ["PocketSphinx was closed while it recognised"]


def test_a_child_that_does_not_start_is_unavailable(monkeypatch):
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(Unavailable, match=r"^PocketSphinx ended unexpectedly \(exit code 1\) while it loaded; run: pip"):
        SphinxRecogniser()
