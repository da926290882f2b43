"""Where the time of a score went, against what really happened in small made-up sessions."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream.latency import Arrivals
from stream.messages import END_NS, PARTS, Latency, Part

MS = 1_000_000
HOP = 250 * MS
EVENTS = st.lists(st.tuples(st.sampled_from(PARTS), st.integers(0, 12), st.integers(0, 400)), max_size=40)


def arrivals(**moments_ms: int) -> Arrivals:
    """Each part passed the end of the first window at that time."""
    made = Arrivals()
    for part, moment_ms in moments_ms.items():
        made.note(part, HOP, moment_ms * MS)  # type: ignore[arg-type]
    return made


def split(made: Arrivals, asked_ms: int, now_ms: int) -> tuple[float, float, float, float]:
    found = made.split(HOP, due_ns=HOP, asked_ns=asked_ms * MS, now_ns=now_ms * MS)
    return (found.total_ns / MS, found.feature_ns / MS, found.text_ns / MS, found.model_ns / MS)


def test_a_final_waits_for_the_slowest_lane_then_for_the_words_then_for_the_model() -> None:
    made = arrivals(vision=290, audio=330, voice=350, text=900)
    assert split(made, asked_ms=910, now_ms=915) == (665, 100, 560, 5)


def test_where_words_were_first_nobody_waited_for_them() -> None:
    assert split(arrivals(vision=290, audio=330, voice=700, text=300), asked_ms=700, now_ms=705) == (455, 450, 0, 5)


def test_a_provisional_score_waits_for_nothing() -> None:
    assert split(arrivals(), asked_ms=250, now_ms=254) == (4, 0, 0, 4)
    assert split(arrivals(vision=200, audio=240), asked_ms=250, now_ms=254) == (4, 0, 0, 4)


def test_a_part_that_a_window_was_settled_without_was_not_waited_for() -> None:
    assert split(arrivals(vision=290, audio=330, text=340), asked_ms=2250, now_ms=2255) == (2005, 80, 1920, 5)
    assert split(arrivals(vision=290, audio=330, voice=9000, text=340), asked_ms=2250, now_ms=2255)[1] <= 2000


def test_what_came_before_the_window_was_over_took_no_time() -> None:
    assert split(arrivals(vision=10, audio=20, voice=30, text=40), asked_ms=250, now_ms=260) == (10, 0, 0, 10)


def test_each_window_goes_by_when_its_own_end_was_passed() -> None:
    made = Arrivals()
    for part in PARTS:
        for k in range(1, 9):
            made.note(part, k * 2 * HOP, (2 * k * 250 + (50 if part == "audio" else 20)) * MS)
        made.note(part, 3, 10**15)  # a watermark does not go back
    for window in range(1, 17):
        due = window * HOP
        passed = -(-window // 2) * 2 * HOP
        found = made.split(due, due_ns=due, asked_ns=passed + 60 * MS, now_ns=passed + 70 * MS)
        assert found == Latency(passed - due + 70 * MS, passed - due + 50 * MS, 10 * MS, 10 * MS)
        made.forget(due)


def test_what_is_forgotten_is_what_was_before() -> None:
    made = Arrivals()
    made.note("audio", HOP, 300 * MS)
    made.note("audio", 2 * HOP, 600 * MS)
    made.forget(HOP)
    assert split(made, asked_ms=700, now_ms=700) == (450, 50, 400, 0)


@given(EVENTS, st.integers(1, 12), st.integers(0, 500), st.integers(0, 50))
def test_the_three_add_up_and_none_is_negative(events: list[tuple[Part, int, int]], window: int, asked: int, took: int) -> None:
    made, asked_ns, due_ns = Arrivals(), asked * 10 * MS, window * HOP
    for part, watermark, moment in sorted(events, key=lambda event: event[2]):
        made.note(part, watermark * HOP, moment * 10 * MS)
    now_ns = max(asked_ns, due_ns) + took * MS
    found = made.split(due_ns, due_ns=due_ns, asked_ns=asked_ns, now_ns=now_ns)
    assert found.total_ns == now_ns - due_ns
    assert found.feature_ns + found.text_ns + found.model_ns == found.total_ns
    assert min(found.feature_ns, found.text_ns, found.model_ns) >= 0
    assert found.feature_ns <= max(0, asked_ns - due_ns)


@given(EVENTS, st.integers(0, 12))
def test_what_is_forgotten_is_missed_by_nobody(events: list[tuple[Part, int, int]], forgotten: int) -> None:
    kept, pruned = Arrivals(), Arrivals()
    for index, (part, watermark, moment) in enumerate(sorted(events, key=lambda event: event[2])):
        for made in (kept, pruned):
            made.note(part, watermark * HOP, moment * 10 * MS)
        if index == len(events) // 2:
            pruned.forget(forgotten * HOP)
    for window in range(max(forgotten, 1), 14):
        moments = {"due_ns": window * HOP, "asked_ns": 14 * HOP, "now_ns": 16 * HOP}
        assert pruned.split(window * HOP, **moments) == kept.split(window * HOP, **moments)


@pytest.mark.parametrize("end_ns", [END_NS, 10**18])
def test_an_hour_of_windows_is_not_kept(end_ns: int) -> None:
    made = Arrivals()
    for window in range(1, 3 * 3600):
        made.note("vision", end_ns, window * HOP)
        for part in ("audio", "voice", "text"):
            made.note(part, window * HOP, window * HOP)
        made.forget((window - 80) * HOP)
    assert max(len(steps) for steps in made._steps.values()) < 100
