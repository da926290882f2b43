"""Session time: integer nanoseconds since the session began."""

import asyncio
import time
from typing import Protocol


class Clock(Protocol):
    """How fast session time passes.

    Attributes:
        paced: Whether session time has to do with the wall's; if not, there is no present, and no latency to speak of.
    """

    paced: bool

    def unix_ns(self, t_ns: int) -> int:
        """The wall time of a session time, nanoseconds since 1970."""
        ...

    def age_ns(self, t_ns: int) -> int:
        """How long ago on the wall's clock a session time was, nanoseconds."""
        ...

    async def sleep_until(self, t_ns: int) -> None:
        """Return when session time has come to `t_ns`, at once if it is past."""
        ...


class PacedClock:
    """Session time runs with the machine's monotonic clock, `speed` times as fast."""

    def __init__(self, speed: float = 1.0) -> None:
        """Start at 0 now."""
        self.paced = True
        self._speed = speed
        self._start_ns = time.monotonic_ns()
        self._start_unix_ns = time.time_ns()

    def unix_ns(self, t_ns: int) -> int:
        """The wall time of a session time."""
        return self._start_unix_ns + round(t_ns / self._speed)

    def age_ns(self, t_ns: int) -> int:
        """How long ago a session time was."""
        return time.monotonic_ns() - self._start_ns - round(t_ns / self._speed)

    async def sleep_until(self, t_ns: int) -> None:
        """Return when session time has come to `t_ns`."""
        while (age_ns := self.age_ns(t_ns)) < 0:
            await asyncio.sleep(-age_ns / 1e9)


class UnpacedClock:
    """As fast as the pipeline takes it: the input's own times are all there is."""

    def __init__(self) -> None:
        """There is nothing to start."""
        self.paced = False

    def unix_ns(self, t_ns: int) -> int:
        """There is none; raises RuntimeError."""
        raise RuntimeError(f"session time {t_ns} ns has no wall time in an unpaced session")

    def age_ns(self, t_ns: int) -> int:
        """There is none; raises RuntimeError."""
        raise RuntimeError(f"session time {t_ns} ns has no age in an unpaced session")

    async def sleep_until(self, t_ns: int) -> None:
        """Return at once, after letting other tasks run."""
        await asyncio.sleep(0)
