from hypothesis import given
from hypothesis import strategies as st

from stream.utterances import UtteranceSplitter


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
