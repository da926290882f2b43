from itertools import groupby

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from extractors.asr.recogniser import Recognition, StretchRecogniser, Word
from extractors.errors import ExtractorError
from extractors.sound import SAMPLE_NS
from extractors.vad import CHUNK, VoiceChunk

START_NS = 1_700_000_000_000_000_000
CHUNK_NS = CHUNK * SAMPLE_NS


class Scripted(StretchRecogniser):
    """Says the same words, timed from the stretch's start, about every stretch when it has ended; keeps what it heard."""

    name = "scripted"

    def __init__(self, *words: tuple[str, int, int], interval_ns: int = CHUNK_NS, max_stretch_ns: int = 30_000_000_000) -> None:
        super().__init__(interval_ns=interval_ns, max_stretch_ns=max_stretch_ns)
        self.words = words
        self.heard: list[tuple[int, np.ndarray]] = []
        self.looks: list[int] = []
        self.broken = False

    def close(self) -> None:
        pass

    def _listen(self) -> tuple[Word, ...]:
        self.looks.append(int(self._samples[-1]))
        self._guess = self._placed([Word("maybe", self._start_ns, self._start_ns)])
        return ()

    def _conclude(self) -> tuple[Word, ...]:
        if self.broken:
            raise ExtractorError("broken")
        self.heard.append((self._start_ns, self._samples))
        return self._placed([Word(text, self._start_ns + start, self._start_ns + end, 0.5) for text, start, end in self.words])


def chunks(pattern: str, t_ns: int = START_NS) -> list[VoiceChunk]:
    """A chunk for each character: `s` speech, `.` none, `|` a gap of one chunk instead. Samples count up."""
    made = []
    for index, kind in enumerate(pattern):
        if kind != "|":
            samples = np.full(CHUNK, index, np.int16)
            made.append(VoiceChunk(t_ns + index * CHUNK_NS, samples, kind == "s", kind == "s"))
    return made


def at(index: int) -> int:
    return START_NS + index * CHUNK_NS


def heard(recogniser: Scripted) -> list[tuple[int, int]]:
    """The first and last chunk of each stretch."""
    assert all(t_ns == at(int(samples[0])) for t_ns, samples in recogniser.heard)
    return [(int(samples[0]), int(samples[-1])) for _, samples in recogniser.heard]


def test_silence_moves_the_watermark_at_once():
    recogniser = Scripted(("yes", 0, CHUNK_NS))
    assert [recogniser.push(chunk) for chunk in chunks("...")] == [Recognition((), (), at(index)) for index in (1, 2, 3)]
    assert recogniser.finish() == Recognition((), (), at(3))
    assert recogniser.heard == []


def test_the_watermark_waits_at_the_start_of_the_speech():
    recogniser = Scripted(("yes", CHUNK_NS, 2 * CHUNK_NS))
    known = [recogniser.push(chunk) for chunk in chunks("..sss..")]
    assert [part.watermark_ns for part in known] == [at(1), at(2), at(2), at(2), at(2), at(6), at(7)]
    assert [len(part.final) for part in known] == [0, 0, 0, 0, 0, 1, 0]
    assert known[5].final == (Word("yes", at(3), at(4), 0.5),)
    assert [len(part.provisional) for part in known] == [0, 0, 1, 1, 1, 0, 0]


def test_finish_ends_the_stretch_and_more_may_follow():
    recogniser = Scripted(("yes", 0, CHUNK_NS))
    for chunk in chunks("ss"):
        recogniser.push(chunk)
    assert recogniser.finish() == Recognition((Word("yes", at(0), at(1), 0.5),), (), at(2))
    assert recogniser.finish() == Recognition((), (), at(2))
    known = [recogniser.push(chunk) for chunk in chunks("ss.", at(2))]
    assert [len(part.final) for part in known] == [0, 0, 1]


def test_a_gap_ends_a_stretch():
    recogniser = Scripted(("yes", 0, CHUNK_NS))
    known = [recogniser.push(chunk) for chunk in chunks("ss|ss.")]
    assert heard(recogniser) == [(0, 1), (3, 4)]
    assert known[2].final == (Word("yes", at(0), at(1), 0.5),)
    assert known[2].watermark_ns == at(3)


def test_too_long_a_stretch_is_cut():
    recogniser = Scripted(("yes", 0, CHUNK_NS), max_stretch_ns=3 * CHUNK_NS)
    known = [recogniser.push(chunk) for chunk in chunks("sssssss.")]
    assert heard(recogniser) == [(0, 2), (3, 5), (6, 6)]
    assert [part.watermark_ns for part in known] == [at(0)] * 3 + [at(3)] * 3 + [at(6), at(8)]


def test_words_are_looked_at_after_so_much_sound_of_each_stretch():
    recogniser = Scripted(interval_ns=2 * CHUNK_NS + 1)
    known = [recogniser.push(chunk) for chunk in chunks("sssssss..ssssss")]
    assert recogniser.looks == [2, 5, 11, 14]
    assert recogniser.skipped == 0
    assert ["".join(word.text for word in part.provisional) for part in known[:8]] == ["", ""] + ["maybe"] * 5 + [""]


def test_a_look_is_left_out_and_counted_when_more_sound_waits():
    recogniser = Scripted(("yes", 0, CHUNK_NS), interval_ns=2 * CHUNK_NS)
    for index, chunk in enumerate(chunks("ssssssss")):
        recogniser.push(chunk, behind=index in (2, 3, 4, 7))  # looks are due at 1, 3, 5, 7
    assert recogniser.looks == [1, 5]
    assert recogniser.skipped == 2
    assert len(recogniser.push(chunks(".", at(8))[0], behind=True).final) == 1  # the end of a stretch is never left out
    assert recogniser.skipped == 2


def test_a_failure_costs_its_stretch_and_no_more():
    recogniser = Scripted(("yes", 0, CHUNK_NS))
    for chunk in chunks("..ss"):
        recogniser.push(chunk)
    recogniser.broken = True
    with pytest.raises(ExtractorError):
        recogniser.push(chunks(".", at(4))[0])
    recogniser.broken = False
    known = [recogniser.push(chunk) for chunk in chunks(".s.", at(5))]
    assert [part.watermark_ns for part in known] == [at(6), at(6), at(8)]
    assert known[0].provisional == ()
    assert [len(part.final) for part in known] == [0, 0, 1]
    recogniser.push(chunks("s", at(8))[0])
    recogniser.broken = True
    with pytest.raises(ExtractorError):
        recogniser.finish()
    assert recogniser.finish() == Recognition((), (), at(9))


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ([(-5, CHUNK_NS)], [(0, CHUNK_NS)]),
        ([(CHUNK_NS, 3 * CHUNK_NS)], [(CHUNK_NS, 2 * CHUNK_NS)]),
        ([(-5, 3 * CHUNK_NS)], [(0, 2 * CHUNK_NS)]),
        ([(100, 100)], [(100, 101)]),
        ([(100, 50)], [(100, 101)]),
        ([(-10, 0)], [(0, 1)]),
        ([(2 * CHUNK_NS, 3 * CHUNK_NS)], [(2 * CHUNK_NS - 1, 2 * CHUNK_NS)]),
        ([(100, 200), (150, 300)], [(100, 200), (200, 300)]),
        ([(100, 200), (100, 150)], [(100, 200), (200, 201)]),
        ([(100, 5 * CHUNK_NS), (9 * CHUNK_NS,) * 2], [(100, 2 * CHUNK_NS - 1), (2 * CHUNK_NS - 1, 2 * CHUNK_NS)]),
    ],
)
def test_words_lie_inside_the_stretch_one_after_the_other(given, expected):
    recogniser = Scripted(*(("yes", start, end) for start, end in given))
    for chunk in chunks("ss"):
        recogniser.push(chunk)
    words = [(word.start_ns - START_NS, word.end_ns - START_NS) for word in recogniser.finish().final]
    assert words == expected


PATTERNS = st.text("ss.|", max_size=40)


@given(PATTERNS, st.integers(1, 12))
def test_every_sample_of_speech_is_heard_once_in_order(pattern, longest):
    recogniser = Scripted(max_stretch_ns=longest * CHUNK_NS)
    given = chunks(pattern)
    for chunk in given:
        recogniser.push(chunk)
    recogniser.finish()
    speech = [chunk.samples for chunk in given if chunk.speech]
    assert np.array_equal(
        np.concatenate([np.empty(0, np.int16), *(samples for _, samples in recogniser.heard)]), np.ravel(speech)
    )
    runs = ["".join(run) for is_speech, run in groupby(pattern, "s".__eq__) if is_speech]
    assert len(recogniser.heard) == sum(-(-len(run) // longest) for run in runs)


@given(PATTERNS, st.integers(1, 12), st.lists(st.tuples(st.integers(-3, 9), st.integers(-3, 9)), max_size=4))
def test_the_watermark_is_a_promise(pattern, longest, edges):
    words = sorted((f"w{first}", first * CHUNK_NS // 2, last * CHUNK_NS // 2) for first, last in edges)
    recogniser = Scripted(*words, max_stretch_ns=longest * CHUNK_NS)
    promised = START_NS
    given = chunks(pattern)
    for known in [recogniser.push(chunk) for chunk in given] + ([recogniser.finish()] if given else []):
        ends = [promised]
        for word in known.final:
            assert ends[-1] <= word.start_ns < word.end_ns
            ends.append(word.end_ns)
        assert all(word.end_ns > known.watermark_ns for word in known.provisional)
        assert known.watermark_ns >= max(ends)
        promised = known.watermark_ns
    assert not given or promised == given[-1].end_ns
