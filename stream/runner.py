"""A lane on a thread of its own: whatever fails in it loses the lane for a while, with a word about it, not the session."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from stream.clock import Clock
from stream.lanes import LaneLike
from stream.messages import Event, Given, Lane, LaneUpdate, Part, PartUnknown
from stream.worker import Worker

log = logging.getLogger(__name__)

LANE_PARTS: dict[Lane, tuple[Part, ...]] = {"vision": ("vision",), "audio": ("audio", "voice"), "text": ("text",)}
_BEHIND_NS = 2_000_000_000  # a lane so late leaves out what it need not do
_PAUSE_NS, _LONGEST_PAUSE_NS = 1_000_000_000, 30_000_000_000  # how long a lane that failed is left alone, at first and at most
_STEADY_NS = 60_000_000_000  # a lane that has worked so long is well again

T = TypeVar("T")


def without(lane: Lane, t_ns: int, reason: str) -> list[LaneUpdate]:
    """What there is to say of a lane that could not be had up to `t_ns`."""
    return [PartUnknown(part, t_ns, reason) for part in LANE_PARTS[lane]]


@dataclass(frozen=True, eq=False)
class Taken:
    """What became of a packet.

    Attributes:
        updates: What the lane says now.
        behind: Whether it was to leave out what it need not do.
        lost: Why the packet was left out or failed; None if it was looked at or heard.
        failed: Whether it failed.
    """

    updates: Sequence[LaneUpdate]
    behind: bool
    lost: str | None
    failed: bool


class LaneRunner(Generic[T]):
    """Runs one lane of a session."""

    def __init__(
        self,
        name: Lane,
        lane: LaneLike[T],
        clock: Clock,
        *,
        live: bool,
        tell: Callable[[Event], object],
        fail: Callable[[str, BaseException], object],
    ) -> None:
        """Start the thread.

        Args:
            name: Of the lane.
            lane: What runs.
            clock: Whose present a live lane may be behind.
            live: What is late is behind; what fails is tried again with growing pauses of event time.
            tell: Is told of a live lane that is lost or back.
            fail: Is told of a failure otherwise.
        """
        self.name, self._lane, self._clock, self._live, self._tell, self._fail = name, lane, clock, live, tell, fail
        self._worker = Worker(name)
        self._failures, self._failed_ns, self._lost = 0, 0, ""

    async def call(self, function: Callable[[Any], Any], argument: Any) -> Any:
        """Something else to be done on the lane's thread."""
        return await self._worker.call(function, argument)

    async def take(self, packet: T, t_ns: int) -> Taken:
        """Let the lane take the next packet, which is of `t_ns`."""
        pause_ns = min(_PAUSE_NS * 2 ** (self._failures - 1), _LONGEST_PAUSE_NS) if self._failures else 0
        paused = t_ns < self._failed_ns + pause_ns
        behind = self._live and self._clock.now_ns() - t_ns > _BEHIND_NS
        try:
            if paused:
                return Taken(await self._worker.call(self._lane.skip, packet, self._lost), behind, self._lost, False)
            updates = await self._worker.call(self._lane.push, packet, behind=behind)
        except Exception as error:
            self._failures, self._failed_ns = min(self._failures + 1, 16), t_ns
            self._lost = self._lost or self._lose(error)
            return Taken(without(self.name, t_ns, self._lost), behind, self._lost, True)
        if self._lost:
            self._tell(Event(t_ns, "recovered", self.name, f"the {self.name} lane works again"))
            self._lost = ""
        self._failures = self._failures if t_ns < self._failed_ns + _STEADY_NS else 0
        return Taken(updates, behind, None, False)

    async def again(self, packet: T, t_ns: int, given: Given) -> Sequence[LaneUpdate]:
        """Let the lane take a packet as it was taken when the session was recorded."""
        if given.failed:
            return without(self.name, t_ns, given.lost or "")
        try:
            if given.lost is not None:
                return await self._worker.call(self._lane.skip, packet, given.lost)
            return await self._worker.call(self._lane.push, packet, behind=given.behind)
        except Exception as error:
            return without(self.name, t_ns, self._lose(error))

    async def finish(self) -> Sequence[LaneUpdate]:
        """What was still open when the packets ended."""
        try:
            return await self._worker.call(self._lane.finish)
        except Exception as error:
            self._lose(error)
            return []

    async def close(self, patience_s: float) -> None:
        """End the thread; one that hangs is left after so long."""
        await self._worker.close(patience_s)

    def _lose(self, error: Exception) -> str:
        what = f"the {self.name} lane was lost on the way"
        reason = str(error) or type(error).__name__
        if self._live:
            log.debug("%s", what, exc_info=error)
            self._tell(Event(self._clock.now_ns(), "lost", self.name, f"{what}: {reason}; trying again"))
        else:
            self._fail(what, error)
        return reason
