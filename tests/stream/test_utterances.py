from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extractors.asr.recogniser import Word
from stream.messages import Score, Utterance
from stream.utterances import UtteranceLog, UtteranceSplitter

HOP = 250_000_000
ANY = Score("final", 0, 0, 0, HOP, 0.0, 1.0, 0.0, {}, (), 0, None, None)


def restarts(voiced: list[bool], gap: int = 4, most: int = 10) -> list[int]:
    splitter = UtteranceSplitter(gap_windows=gap, max_windows=most)
    return [k for k, heard in enumerate(voiced) if splitter.next(heard)]


def test_an_utterance_begins_with_the_voice_and_ends_when_a_silence_has_lasted() -> None:
    voiced = [False] * 2 + [True] * 3 + [False] * 6 + [True] * 2
    assert restarts(voiced, most=100) == [0, 2, 9, 11]


def test_a_short_pause_does_not_part_an_utterance() -> None:
    assert restarts([True, False, False, False, True, True], most=100) == [0]


def test_a_long_one_is_cut_and_goes_on() -> None:
    assert restarts([True] * 25) == [0, 10, 20]
    assert restarts([False] * 25) == [0, 10, 20]


@pytest.mark.parametrize("voiced", [True, False])
def test_one_begins_where_somebody_asks_for_it_and_is_like_any_other(voiced: bool) -> None:
    splitter = UtteranceSplitter(gap_windows=4, max_windows=10)
    starts = [splitter.next(voiced, anew=k == 3) for k in range(15)]
    assert [k for k, start in enumerate(starts) if start] == [0, 3, 13]


@given(st.lists(st.booleans(), min_size=1, max_size=200), st.integers(1, 6), st.integers(5, 30))
def test_no_run_is_longer_than_the_limit_and_every_run_begins_for_a_reason(voiced: list[bool], gap: int, most: int) -> None:
    starts = restarts(voiced, gap, most)
    assert starts[0] == 0
    for start, following in zip(starts, [*starts[1:], len(voiced)], strict=True):
        assert following - start <= most
    for start, before in zip(starts[1:], starts, strict=False):
        silence_over = start >= gap and not any(voiced[start - gap : start])
        assert voiced[start] or silence_over or start - before == most


@given(st.lists(st.booleans(), max_size=60), st.lists(st.booleans(), max_size=60))
def test_a_copy_goes_on_alike_and_leaves_the_original_alone(past: list[bool], future: list[bool]) -> None:
    splitter = UtteranceSplitter(gap_windows=4, max_windows=10)
    for heard in past:
        splitter.next(heard)
    copy = splitter.copy()
    assert [copy.next(heard) for heard in future] == [splitter.next(heard) for heard in future]


def final(seq: int, sentiment: float, voiced: float | None, *words: str) -> Score:
    said = tuple(Word(word, seq * HOP, (seq + 1) * HOP) for word in words)
    return replace(ANY, seq=seq, t_start_ns=seq * HOP, t_end_ns=(seq + 1) * HOP, sentiment=sentiment, voiced=voiced, words=said)


def utterances(scores: Sequence[Score], restarts: Sequence[int]) -> list[Utterance]:
    log = UtteranceLog()
    found = []
    for score in scores:
        if score.seq in restarts:
            found.append(log.finish())
        log.take(score)
    return [over for over in (*found, log.finish()) if over]


def test_an_utterance_lasts_from_its_first_window_to_the_last_with_a_voice_or_a_word() -> None:
    scores = [
        final(0, 3.0, 0.0),
        final(1, 0.5, 0.2, "I"),
        final(2, -1.5, None),  # a pause
        final(3, 1.0, 1.0, "love", "it"),
        final(4, 0.6, 0.0, "all"),  # a word may end after the voice
        final(5, 2.9, 0.0),
        final(6, -2.9, None),
        final(7, 0.3, 0.0),
    ]
    (over,) = utterances(scores, [0, 1, 7])
    assert (over.number, over.t_start_ns, over.t_end_ns) == (0, HOP, 5 * HOP)
    assert (over.sentiment, over.peak) == (0.6, -1.5)
    assert over.mean == pytest.approx(0.15)
    assert [word.text for word in over.words] == ["I", "love", "it", "all"]


def test_each_is_finished_once() -> None:
    log = UtteranceLog()
    assert log.finish() is None
    cut, last = utterances([final(seq, seq + 1.0, 1.0) for seq in range(3)], [0, 2])  # one that was too long, and the rest
    assert (cut.number, cut.t_start_ns, cut.t_end_ns, cut.mean) == (0, 0, 2 * HOP, 1.5)
    assert (last.number, last.t_start_ns, last.t_end_ns, last.sentiment) == (1, 2 * HOP, 3 * HOP, 3.0)
    log.take(final(0, 1.0, 1.0))
    assert log.finish() is not None
    assert log.finish() is None


def test_a_run_without_a_voice_is_no_utterance_and_is_not_counted() -> None:
    scores = [final(0, 1.0, 1.0), final(1, 1.0, None), final(2, 1.0, 0.0, "ghost"), final(3, 1.0, 0.0), final(4, 1.0, 0.1)]
    found = utterances(scores, [0, 1, 3, 4])
    assert [(over.number, over.t_start_ns // HOP) for over in found] == [(0, 0), (1, 4)]


def test_the_peak_is_what_is_furthest_from_0_of_either_sign() -> None:
    for values, peak in (((1.0, -2.0, 1.5), -2.0), ((-1.0, 2.5, -2.0), 2.5), ((0.0, -0.1), -0.1)):
        (over,) = utterances([final(seq, value, 1.0) for seq, value in enumerate(values)], [0])
        assert over.peak == peak


@given(st.lists(st.tuples(st.booleans(), st.booleans(), st.floats(-3, 3)), max_size=80))
def test_every_voiced_window_is_in_one_utterance(windows: list[tuple[bool, bool, float]]) -> None:
    splitter = UtteranceSplitter(gap_windows=3, max_windows=8)
    restarts = [seq for seq, (voiced, _, _) in enumerate(windows) if splitter.next(voiced)]
    scores = [
        final(seq, sentiment, float(voiced), *(["word"] if spoken else []))
        for seq, (voiced, spoken, sentiment) in enumerate(windows)
    ]
    overs = utterances(scores, restarts)
    assert [over.number for over in overs] == list(range(len(overs)))
    spans = [range(over.t_start_ns // HOP, over.t_end_ns // HOP) for over in overs]
    inside = [seq for span in spans for seq in span]
    assert inside == sorted(set(inside))
    assert {seq for seq, (voiced, _, _) in enumerate(windows) if voiced} <= set(inside)
    for over, span in zip(overs, spans, strict=True):
        values = [windows[seq][2] for seq in span]
        assert windows[span[0]][0]
        assert any(windows[span[-1]][:2])
        assert over.sentiment == values[-1]
        assert over.mean == pytest.approx(sum(values) / len(values))
        assert len(over.words) == sum(windows[seq][1] for seq in span)
