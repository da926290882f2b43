import asyncio

import pytest

from stream.clock import PacedClock, UnpacedClock


def test_a_paced_clock_never_wakes_early_and_ties_session_time_to_the_wall() -> None:
    async def scenario() -> None:
        clock = PacedClock(10.0)
        await clock.sleep_until(300_000_000)
        assert clock.age_ns(300_000_000) >= 0
        assert clock.age_ns(0) - clock.age_ns(300_000_000) == pytest.approx(30_000_000, rel=0.1)
        assert clock.unix_ns(1_000_000_000) - clock.unix_ns(0) == 100_000_000

    asyncio.run(scenario())


def test_an_unpaced_clock_has_no_present() -> None:
    clock = UnpacedClock()
    asyncio.run(clock.sleep_until(10**18))
    assert not clock.paced
    with pytest.raises(RuntimeError, match="no wall time"):
        clock.unix_ns(1)
    with pytest.raises(RuntimeError, match="no age"):
        clock.age_ns(1)
