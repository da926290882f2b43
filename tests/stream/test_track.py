import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream.track import Estimate, Request, Step, Track, advance
from tests.stream.test_engine import CLOSE, DEVICES, GPU_CLOSE, RING, TAIL, assert_close, counted, made, truth, window, windows

SESSIONS = 3


@pytest.fixture(scope="module", params=DEVICES)
def device(request: pytest.FixtureRequest) -> str:
    return request.param


def test_a_window_more_costs_a_call_of_one_window_and_settling_it_nothing(device: str) -> None:
    engine, calls = counted(device)
    track, inputs = Track(engine), windows(RING + 6, restarts=[0, 9])
    provisional = [track.speculate(inputs[: 1 + seq])[-1] for seq in range(3)]
    for seq in range(RING):
        provisional.append(track.speculate(inputs[seq : seq + 4])[-1])
        assert track.commit(inputs[seq]) == provisional[seq]
    assert calls == [1] * (RING + 3)


@pytest.mark.parametrize("depth", range(TAIL))
def test_a_changed_window_is_run_again_with_those_after_it_in_one_call(device: str, depth: int) -> None:
    engine, calls = counted(device)
    track, inputs = Track(engine), windows(TAIL)
    before = track.speculate(inputs)
    calls.clear()
    after = track.speculate([*inputs[:depth], window(depth, seed=1), *inputs[depth + 1 :]])
    assert calls == [TAIL - depth]
    assert after[:depth] == before[:depth]
    assert all(one != other for one, other in zip(after[depth:], before[depth:], strict=True))


def test_a_tail_that_is_unchanged_or_shorter_costs_no_call(device: str) -> None:
    engine, calls = counted(device)
    track, inputs = Track(engine), windows(TAIL)
    before = track.speculate(inputs)
    calls.clear()
    assert [track.speculate(inputs[:count]) for count in (TAIL, 3, 1)] == [before, before[:3], before[:1]]
    assert track.speculate([]) == []
    assert calls == []
    track.speculate(inputs)
    assert calls == [TAIL]


def test_a_tail_is_cut_into_calls_at_its_restarts(device: str) -> None:
    engine, calls = counted(device)
    Track(engine).speculate(windows(TAIL, restarts=[0, 2, 3]))
    assert calls == [2, 1, 2]


def test_a_changed_restart_counts_as_a_change(device: str) -> None:
    engine, calls = counted(device)
    track = Track(engine)
    track.speculate(windows(TAIL))
    calls.clear()
    track.speculate(windows(TAIL, restarts=[3]))
    assert calls == [2]


@pytest.mark.parametrize("settled", [window(0, seed=1), window(0, restart=True)], ids=["input", "restart"])
def test_what_is_settled_counts_whatever_the_tail_said(device: str, settled: Step) -> None:
    engine, calls = counted(device)
    track, tail = Track(engine), windows(3)
    track.speculate(tail[:1])
    track.speculate(tail)
    calls.clear()
    fresh = Track(made(device, bucket=1))
    assert track.commit(settled) == fresh.commit(settled)
    assert calls == [1]
    assert track.speculate(tail[1:]) == fresh.speculate(tail[1:])
    assert calls == [1, 2]


def test_what_was_run_in_a_longer_call_is_run_once_more_when_it_is_settled(device: str) -> None:
    engine, calls = counted(device)
    track, inputs = Track(engine), windows(4, restarts=[0, 3])
    tail = track.speculate(inputs)
    calls.clear()
    finals = [track.commit(step) for step in inputs]
    assert calls == [1, 1, 1]  # the last one began anew, in a call of its own
    assert_close([[each.sentiment, *each.weights] for each in finals], [[each.sentiment, *each.weights] for each in tail])


@pytest.mark.parametrize("restart", [True, False])
def test_a_first_window_that_changed_is_settled_for_nothing(device: str, restart: bool) -> None:
    engine, calls = counted(device)
    track = Track(engine)
    track.speculate([window(0, restart, seed=1)])
    provisional = track.speculate([window(0, restart)])
    assert track.commit(window(0, restart)) == provisional[0]
    assert calls == [1, 1]


# --- several tracks at once


def numbers(estimates: list[Estimate]) -> list[list[float]]:
    return [[each.sentiment, each.uncertainty, *each.weights] for each in estimates]


@pytest.mark.parametrize("count", [1, TAIL])
def test_what_sessions_want_in_one_shape_is_one_call(device: str, count: int) -> None:
    engine, calls = counted(device, bucket=SESSIONS)
    tracks = [Track(engine) for _ in range(SESSIONS)]
    tails = [windows(count, seed=who) for who in range(SESSIONS)]
    advance([Request(track, tail, settle=False) for track, tail in zip(tracks, tails, strict=True)])
    assert calls == [count]
    calls.clear()
    advance([Request(track, [tail[0]], settle=True) for track, tail in zip(tracks, tails, strict=True)])
    assert calls == ([] if count == 1 else [1])  # from a longer call: run again, all of them together
    calls.clear()
    advance([Request(track, [window(1, seed=9)], settle=True) for track in tracks])
    assert calls == [1]


def test_tails_of_different_lengths_and_finals_are_two_calls(device: str) -> None:
    engine, calls = counted(device, bucket=5)
    tracks = [Track(engine) for _ in range(5)]
    advance([Request(track, [window(0, seed=who)], settle=True) for who, track in enumerate(tracks)])
    calls.clear()
    advance(
        [
            Request(tracks[0], [window(1, seed=0)], settle=True),
            Request(tracks[1], windows(4, first=1, seed=1), settle=False),
            Request(tracks[2], [window(1, seed=2)], settle=False),
            Request(tracks[3], windows(3, first=1, seed=3), settle=False),
            Request(tracks[4], [], settle=False),
        ]
    )
    assert calls == [1, 4]
    calls.clear()
    advance([Request(tracks[who], windows(4, first=1, seed=who), settle=False) for who in (1, 2, 3)])
    assert calls == [1, 3]  # only what is new: nothing, three windows, and one


def test_answers_come_in_the_order_of_the_requests(device: str) -> None:
    tails = [windows(length, seed=length) for length in (2, 1, 3, 1)]
    expected = [Track(made(device)).speculate(tail) for tail in tails]
    engine = made(device, bucket=4)
    tracks = [Track(engine) for _ in tails]
    for order in ([3, 1, 0, 2], [0, 1, 2, 3]):
        found = advance([Request(tracks[who], tails[who], settle=False) for who in order])
        assert [len(each) for each in found] == [len(tails[who]) for who in order]
        for who, each in zip(order, found, strict=True):
            assert_close(numbers(each), numbers(expected[who]))
    assert advance([]) == []


COMMIT = "commit"
WANTS = st.none() | st.just(COMMIT) | st.tuples(st.integers(0, TAIL), st.integers(0, TAIL))


def guessed(track: int, first: int, length: int, right: int) -> list[Step]:
    """The windows to come, of which so many are as they will be settled."""
    steps = [truth(seq, track) for seq in range(first, first + length)]
    wrong = [Step(step.seq, step.restart ^ (step.seq % 3 == 0), step.inputs[::-1].copy()) for step in steps]
    return steps[:right] + wrong[right:]


@settings(deadline=None, max_examples=30)
@given(st.lists(st.tuples(*[WANTS] * SESSIONS), max_size=12), st.permutations(range(SESSIONS)))
def test_sessions_together_are_to_the_bit_what_each_is_alone(
    device: str, rounds: list[tuple[str | tuple[int, int] | None, ...]], order: list[int]
) -> None:
    engine = made(device, bucket=SESSIONS, graphs=False)
    together = [Track(engine) for _ in range(SESSIONS)]
    alone = []
    for who in range(SESSIONS):
        engine = made(device, bucket=SESSIONS, graphs=False)
        alone.append([Track(engine) for _ in range(SESSIONS)][who])  # the same row
    settled = [0] * SESSIONS
    for wants in [*rounds, (COMMIT,) * SESSIONS, (None, COMMIT, (TAIL, TAIL)), (COMMIT,) * SESSIONS]:
        requests, expected, finals = [], [], []
        for who in order:
            match wants[who]:
                case None:
                    continue
                case (length, right):
                    steps = guessed(who, settled[who], length, right)
                    requests.append(Request(together[who], steps, settle=False))
                    expected.append(alone[who].speculate(steps))
                case _:
                    step = truth(settled[who], who)
                    requests.append(Request(together[who], [step], settle=True))
                    expected.append([alone[who].commit(step)])
                    settled[who] += 1
            finals.append(wants[who] == COMMIT)
        for found, each, final in zip(advance(requests), expected, finals, strict=True):
            if final:
                assert found == each
            elif each:  # a call may be longer for a neighbour's sake
                np.testing.assert_allclose(numbers(found), numbers(each), rtol=0, atol=CLOSE if device == "cpu" else GPU_CLOSE)
            else:
                assert found == []
        assert [len(track.tail) for track in together] == [len(track.tail) for track in alone]
