from stream.messages import Event, SessionInfo
from stream.sinks.state import SessionState
from tests.stream.sinks.test_payload import score

INFO = SessionInfo("cam0", "lab-1", "camera", True, False, "m", (), "cpu", 2.0, {"text": "no recogniser"})


def event(kind: str, part: str, reason: str = "why") -> Event:
    return Event(0, kind, part, reason)  # type: ignore[arg-type]


def test_a_session_starts_runs_and_ends() -> None:
    state = SessionState(INFO)
    assert state.payload()["state"] == "starting"
    assert state.take(score())
    assert not state.take(score())
    assert state.payload() == {
        "state": "running",
        "modalities": {
            "text": {"status": "disabled", "reason": "no recogniser"},
            "audio": {"status": "ok"},
            "vision": {"status": "ok"},
        },
    }
    state.end()
    assert state.payload()["state"] == "ended"


def test_it_is_degraded_as_long_as_a_lane_is_lost_or_late() -> None:
    state = SessionState(INFO)
    state.take(score())
    assert state.take(event("lost", "vision and audio", "the webcam is gone"))
    assert state.state == "degraded"
    assert state.lanes["vision"] == state.lanes["audio"] == ("lost", "the webcam is gone")
    state.take(event("recovered", "vision"))
    assert state.state == "degraded"
    state.take(event("recovered", "audio"))
    assert state.state == "running"
    state.take(event("forced", "voice", "too late"))
    assert state.lanes["audio"] == ("stale", "too late")
    state.take(event("recovered", "voice"))
    assert state.state == "running"


def test_a_lane_that_the_session_does_not_have_cannot_be_lost_and_sinks_are_no_lanes() -> None:
    state = SessionState(INFO)
    state.take(score())
    assert not state.take(event("forced", "text"))
    assert not state.take(event("lost", "console"))
    assert not state.take(event("dropped", "vision"))


def test_a_pause_stays_one_whatever_happens_meanwhile() -> None:
    state = SessionState(INFO)
    state.take(score())
    assert state.take(event("paused", "session"))
    state.take(event("lost", "vision"))
    state.take(score())
    assert state.state == "paused"
    state.take(event("resumed", "session"))
    assert state.state == "degraded"
