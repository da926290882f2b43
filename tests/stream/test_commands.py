"""Commands do what they say, and hostile ones are answered and do nothing."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream.commands import VERBS, Commands
from stream.errors import UsageError


class Session:
    name = ""

    def __init__(self, file: bool = False) -> None:
        self.done: list[str] = []
        self._file = file

    def reset(self) -> None:
        self.done.append("reset")

    def pause(self) -> None:
        if self._file:
            raise UsageError("a reads a file, and cannot be paused; stop it instead")
        self.done.append("pause")

    def resume(self) -> None:
        self.done.append("resume")

    def record(self, *, on: bool) -> None:
        if self._file:
            raise UsageError("a has no file to record to; start it with --record FILE")
        self.done.append("record/start" if on else "record/stop")

    def mark(self, label: str) -> None:
        self.done.append(f"mark {label}")


def commands(**sessions: Session) -> Commands:
    made = Commands()
    for name, session in sessions.items():
        session.name = name
        made.add(session)  # type: ignore[arg-type]
    return made


@pytest.mark.parametrize("verb", ["reset", "pause", "resume", "record/start", "record/stop"])
def test_an_empty_command_is_for_all_sessions(verb: str) -> None:
    a, b = Session(), Session()
    assert commands(a=a, b=b).obey(verb, b"") == {"id": None, "verb": verb, "ok": True, "sessions": ["a", "b"]}
    assert a.done == b.done == [verb]


def test_one_session_a_label_and_an_id() -> None:
    a, b = Session(), Session()
    answer = commands(a=a, b=b).obey("mark", b'{"id": "x1", "session": "b", "label": "the joke"}')
    assert answer == {"id": "x1", "verb": "mark", "ok": True, "sessions": ["b"]}
    assert (a.done, b.done) == ([], ["mark the joke"])


@pytest.mark.parametrize(
    ("verb", "payload", "error"),
    [
        ("dance", b"", "no such command; there are reset, pause, resume, mark, record/start, record/stop"),
        ("reset", b"{", "Invalid JSON"),
        ("reset", b"[1]", "object"),
        ("reset", b'{"sesion": "a"}', "sesion"),
        ("reset", b'{"session": "z"}', "no such session; there are a"),
        ("mark", b'{"label": "%s"}' % (b"x" * 201), "label"),
        ("reset", b"\xff\xfe", ""),
        ("pause", b'{"id": 5}', "cannot be paused"),
    ],
)
def test_what_cannot_be_done_is_answered_and_does_nothing(verb: str, payload: bytes, error: str) -> None:
    session = Session(file=True)
    answer = commands(a=session).obey(verb, payload)
    assert not answer["ok"]
    assert error in answer["error"]
    assert session.done == []
    json.dumps(answer, allow_nan=False)


@given(st.sampled_from([*VERBS, "", "../x"]), st.binary(max_size=200))
def test_nothing_that_may_come_raises(verb: str, payload: bytes) -> None:
    answer = commands(a=Session()).obey(verb, payload)
    assert answer["ok"] in (True, False)
    json.dumps(answer, allow_nan=False)
