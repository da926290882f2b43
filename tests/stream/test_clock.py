import asyncio
import threading
import time
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream import clock as module
from stream.clock import ManualClock, PacedClock, UnpacedClock
from tests.stream.test_channel import quiet

SECOND = 1_000_000_000


class Wall:
    """Stands in for `time`: it is what it is set to."""

    def __init__(self) -> None:
        self.monotonic, self.unix = 5_000 * SECOND, 1_800_000_000 * SECOND

    def monotonic_ns(self) -> int:
        return self.monotonic

    def time_ns(self) -> int:
        return self.unix


@pytest.fixture
def wall(monkeypatch: pytest.MonkeyPatch) -> Wall:
    wall = Wall()
    monkeypatch.setattr(module, "time", wall)
    return wall


@pytest.mark.parametrize("speed", [0.5, 1.0, 4.0])
def test_session_time_is_wall_time_since_the_start_times_the_speed(wall: Wall, speed: float) -> None:
    clock = PacedClock(speed)
    assert (clock.paced, clock.now_ns(), clock.elapsed_ns(0)) == (True, 0, 0)
    wall.monotonic += 3 * SECOND
    wall.unix += 99 * SECOND  # somebody sets the machine's clock
    assert clock.now_ns() == 3 * speed * SECOND
    assert clock.elapsed_ns(0) == 3 * SECOND
    assert clock.elapsed_ns(clock.now_ns()) == 0
    assert clock.elapsed_ns(2 * SECOND) == 3 * SECOND - 2 * SECOND / speed
    assert clock.elapsed_ns(60 * SECOND) < 0
    assert clock.unix_ns(0) == 1_800_000_000 * SECOND
    assert clock.unix_ns(2 * SECOND) == 1_800_000_000 * SECOND + 2 * SECOND / speed


@pytest.mark.parametrize("speed", [1.0, 10.0, 1000.0])
def test_a_paced_clock_never_wakes_early(speed: float) -> None:
    async def scenario() -> None:
        clock = PacedClock(speed)
        for t_ns in (20_000_000, 30_000_000, 30_000_001, 0, 50_000_000):
            await asyncio.wait_for(clock.sleep_until(t_ns), 10)
            assert clock.elapsed_ns(t_ns) >= 0
            assert clock.now_ns() >= t_ns

    asyncio.run(scenario())


def test_an_unpaced_clock_has_no_present_and_makes_nobody_wait() -> None:
    async def scenario() -> list[str]:
        said: list[str] = []

        async def other() -> None:
            said.append("other")

        task = asyncio.create_task(other())
        await clock.sleep_until(10**18)
        said.append("awake")
        await task
        return said

    clock = UnpacedClock()
    assert asyncio.run(scenario()) == ["other", "awake"]
    assert not clock.paced
    with pytest.raises(RuntimeError, match="no present"):
        clock.now_ns()
    with pytest.raises(RuntimeError, match="no wall time"):
        clock.unix_ns(1)
    with pytest.raises(RuntimeError, match="no age"):
        clock.elapsed_ns(1)


def test_a_manual_clock_stands_until_it_is_told() -> None:
    clock = ManualClock(start_unix_ns=100)
    assert (clock.paced, clock.now_ns(), clock.unix_ns(7), clock.elapsed_ns(0)) == (True, 0, 107, 0)
    clock.advance(50)
    assert (clock.now_ns(), clock.elapsed_ns(20), clock.elapsed_ns(60), clock.unix_ns(7)) == (50, 30, -10, 107)
    clock.advance(40)
    assert clock.now_ns() == 50


@settings(deadline=None)
@given(st.lists(st.integers(0, 20), max_size=12), st.lists(st.integers(0, 25), max_size=8), st.booleans())
def test_sleepers_wake_when_it_is_time_earliest_first(wanted: list[int], told: list[int], from_thread: bool) -> None:
    async def scenario() -> None:
        clock, woken = ManualClock(), list[int]()

        async def sleep(number: int) -> None:
            await clock.sleep_until(wanted[number])
            assert clock.now_ns() >= wanted[number]
            woken.append(number)

        sleepers = [asyncio.create_task(sleep(number)) for number in range(len(wanted))]
        await quiet()
        expected = [number for number, t_ns in enumerate(wanted) if t_ns == 0]  # at once
        assert woken == expected
        for before, now in pairwise([0, *told]):
            now_ns = max(before, clock.now_ns(), now)
            if from_thread:
                thread = threading.Thread(target=clock.advance, args=(now,))
                thread.start()
                thread.join()
            else:
                clock.advance(now)
            await quiet()
            due = [number for number, t_ns in enumerate(wanted) if number not in expected and t_ns <= now_ns]
            expected += sorted(due, key=wanted.__getitem__)
            assert woken == expected
        clock.advance(100)
        await asyncio.wait_for(asyncio.gather(*sleepers), 5)

    asyncio.run(scenario())


def test_a_thread_wakes_a_loop_where_all_sleep() -> None:
    async def scenario() -> None:
        clock = ManualClock()
        threading.Timer(0.05, clock.advance, (5,)).start()
        await asyncio.wait_for(clock.sleep_until(5), 30)

    begun_s = time.monotonic()
    asyncio.run(scenario())
    assert time.monotonic() - begun_s < 10


def test_a_sleeper_that_was_cancelled_disturbs_no_other() -> None:
    async def scenario() -> None:
        clock = ManualClock()
        impatient, patient = (asyncio.create_task(clock.sleep_until(t_ns)) for t_ns in (5, 6))
        await quiet()
        impatient.cancel()
        await quiet()
        clock.advance(10)
        await asyncio.wait_for(patient, 5)

    asyncio.run(scenario())
