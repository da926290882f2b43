"""Session time: integer nanoseconds since the session began."""

import asyncio
import threading
import time
from typing import Protocol

from stream.futures import settle


class Clock(Protocol):
    """How fast session time passes.

    Attributes:
        paced: Whether session time has to do with the wall's; if not, there is no present, and no latency to speak of.
    """

    paced: bool

    def now_ns(self) -> int:
        """The present; may be asked from any thread."""
        ...

    def unix_ns(self, t_ns: int) -> int:
        """The wall time of a session time, nanoseconds since 1970."""
        ...

    def elapsed_ns(self, t_ns: int) -> int:
        """How long ago on the wall's clock a session time was, nanoseconds."""
        ...

    async def sleep_until(self, t_ns: int) -> None:
        """Return when session time has come to `t_ns`, at once if it is past."""
        ...


class PacedClock:
    """Session time runs with the machine's monotonic clock, `speed` times as fast; devices need 1."""

    paced = True

    def __init__(self, speed: float = 1.0, begin_ns: int = 0) -> None:
        """Let it be `begin_ns` now."""
        self._speed = speed
        passed_ns = round(begin_ns / speed)
        self._start_ns = time.monotonic_ns() - passed_ns
        self._start_unix_ns = time.time_ns() - passed_ns

    def now_ns(self) -> int:
        """The present."""
        return round((time.monotonic_ns() - self._start_ns) * self._speed)

    def unix_ns(self, t_ns: int) -> int:
        """The wall time of a session time."""
        return self._start_unix_ns + round(t_ns / self._speed)

    def elapsed_ns(self, t_ns: int) -> int:
        """How long ago a session time was."""
        return time.monotonic_ns() - self._start_ns - round(t_ns / self._speed)

    async def sleep_until(self, t_ns: int) -> None:
        """Return when session time has come to `t_ns`."""
        while (elapsed_ns := self.elapsed_ns(t_ns)) < 0:
            await asyncio.sleep(-elapsed_ns / 1e9)


class UnpacedClock:
    """As fast as the pipeline takes it: the input's own times are all there is."""

    paced = False

    def now_ns(self) -> int:
        """There is none; raises RuntimeError."""
        raise RuntimeError("there is no present in an unpaced session")

    def unix_ns(self, t_ns: int) -> int:
        """There is none; raises RuntimeError."""
        raise RuntimeError(f"session time {t_ns} ns has no wall time in an unpaced session")

    def elapsed_ns(self, t_ns: int) -> int:
        """There is none; raises RuntimeError."""
        raise RuntimeError(f"session time {t_ns} ns has no age in an unpaced session")

    async def sleep_until(self, t_ns: int) -> None:
        """Return at once, after letting other tasks run."""
        await asyncio.sleep(0)


class ManualClock:
    """Session time passes when told to: for tests, and wherever the order of events must not hang on the machine."""

    paced = True

    def __init__(self, start_unix_ns: int = 0) -> None:
        """Stand at 0, which is `start_unix_ns` on the wall."""
        self._start_unix_ns = start_unix_ns
        self._now_ns = 0
        self._lock = threading.Lock()
        self._sleepers: list[tuple[int, asyncio.Future[None]]] = []

    def advance(self, t_ns: int) -> None:
        """Let it be `t_ns`, from any thread; who slept until then wakes, earliest first."""
        with self._lock:
            self._now_ns = max(self._now_ns, t_ns)
            due = sorted((at for at in self._sleepers if at[0] <= self._now_ns), key=lambda sleeper: sleeper[0])
            self._sleepers = [at for at in self._sleepers if at[0] > self._now_ns]
        for _, sleeper in due:
            settle(sleeper)

    def now_ns(self) -> int:
        """The present."""
        return self._now_ns

    def unix_ns(self, t_ns: int) -> int:
        """The wall time of a session time."""
        return self._start_unix_ns + t_ns

    def elapsed_ns(self, t_ns: int) -> int:
        """How long ago a session time was."""
        return self._now_ns - t_ns

    async def sleep_until(self, t_ns: int) -> None:
        """Return when session time has come to `t_ns`."""
        with self._lock:
            if t_ns <= self._now_ns:
                return
            woken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._sleepers.append((t_ns, woken))
        await woken
