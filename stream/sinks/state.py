"""How a session is: what the `state` topic and the page say of it, folded from its outputs."""

from typing import Any, Literal

from stream.messages import LANES, Event, Lane, Output, Score, SessionInfo

Condition = Literal["ok", "stale", "lost", "disabled"]
State = Literal["starting", "running", "degraded", "paused", "ended"]


class SessionState:
    """Follows one session.

    Attributes:
        state: `degraded` while a lane is lost or stale.
        lanes: Each lane's condition and, unless it is `ok`, why. `stale`: it is too late, and windows are settled without it.
            `lost`: its device or the lane itself is gone, and is tried again. `disabled`: the session has no such lane.
    """

    def __init__(self, info: SessionInfo) -> None:
        """As it is before the first window."""
        self.state: State = "starting"
        self.lanes: dict[Lane, tuple[Condition, str | None]] = {
            lane: ("disabled", info.unavailable[lane]) if lane in info.unavailable else ("ok", None) for lane in LANES
        }

    def take(self, output: Output) -> bool:
        """Follow an output; whether anything has changed."""
        before = (self.state, dict(self.lanes))
        match output:
            case Event(kind="paused"):
                self.state = "paused"
            case Event(kind="resumed"):
                self.state = "running"
            case Event(kind="lost", part=part, reason=reason):
                self._set(part, "lost", reason)
            case Event(kind="forced", part=part, reason=reason):
                self._set(part, "stale", reason)
            case Event(kind="recovered", part=part):
                self._set(part, "ok", None)
            case Score() if self.state == "starting":
                self.state = "running"
        if self.state in ("running", "degraded"):
            wrong = any(condition in ("stale", "lost") for condition, _ in self.lanes.values())
            self.state = "degraded" if wrong else "running"
        return before != (self.state, self.lanes)

    def end(self) -> None:
        """There will be no more outputs."""
        self.state = "ended"

    def payload(self) -> dict[str, Any]:
        """As it is published."""
        modalities = {}
        for lane, (condition, reason) in self.lanes.items():
            modalities[lane] = {"status": condition} | ({"reason": reason} if reason else {})
        return {"state": self.state, "modalities": modalities}

    def _set(self, part: str, condition: Condition, reason: str | None) -> None:
        """Of the lanes that a part's name speaks of: a device may feed two, and the voice detector is the audio lane's."""
        for lane in LANES:
            mentioned = lane in part or (lane == "audio" and part == "voice")
            if mentioned and self.lanes[lane][0] != "disabled":
                self.lanes[lane] = (condition, reason)
