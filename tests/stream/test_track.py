import pytest

from stream.track import Step, Track
from tests.stream.test_engine import DEVICES, RING, TAIL, assert_close, counted, made, window, windows


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
