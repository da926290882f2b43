"""Session time: integer nanoseconds since the session began."""

import asyncio
import time
from typing import Protocol


class Clock(Protocol):
    """How fast session time passes."""

    @property
    def paced(self) -> bool:
        """Whether session time has to do with the wall's; if not, there is no `now_ns`, and no latency to speak of."""
        ...

    @property
    def now_ns(self) -> int:
        """The session time now."""
        ...

    def unix_ns(self, t_ns: int) -> int:
        """The wall time of a session time, nanoseconds since 1970."""
        ...

    async def sleep_until(self, t_ns: int) -> None:
        """Return when session time has come to `t_ns`, at once if it is past."""
        ...


class PacedClock:
    """Session time runs with the machine's monotonic clock, `speed` times as fast."""

    paced = True

    def __init__(self, speed: float = 1.0) -> None:
        """Start at 0 now."""
        self._speed = speed
        self._start_ns = time.monotonic_ns()
        self._start_unix_ns = time.time_ns()

    @property
    def now_ns(self) -> int:
        """The session time now."""
        return round((time.monotonic_ns() - self._start_ns) * self._speed)

    def unix_ns(self, t_ns: int) -> int:
        """The wall time of a session time."""
        return self._start_unix_ns + round(t_ns / self._speed)

    async def sleep_until(self, t_ns: int) -> None:
        """Return when session time has come to `t_ns`."""
        while (left_ns := t_ns - self.now_ns) > 0:
            await asyncio.sleep(left_ns / self._speed / 1e9)


class UnpacedClock:
    """As fast as the pipeline takes it: the input's own times are all there is."""

    paced = False

    @property
    def now_ns(self) -> int:
        """There is none."""
        raise RuntimeError("an unpaced session has no present")

    def unix_ns(self, t_ns: int) -> int:
        """There is none."""
        raise RuntimeError(f"session time {t_ns} has no wall time in an unpaced session")

    async def sleep_until(self, t_ns: int) -> None:
        """Return at once, after letting other tasks run."""
        await asyncio.sleep(0)
