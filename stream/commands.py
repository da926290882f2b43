"""What may be asked of running sessions from outside: `reset`, `pause`, `resume`, `mark`, `record/start`, `record/stop`."""

import logging
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from stream.errors import UsageError
from stream.session import Session

log = logging.getLogger(__name__)

VERBS = ("reset", "pause", "resume", "mark", "record/start", "record/stop")
Name = Annotated[str, Field(max_length=64)]


class Request(BaseModel):
    """What a command carries; all of it may be left out.

    Attributes:
        id: Is given back with the answer.
        session: Which session; None for all.
        label: What `mark` notes.
    """

    model_config = ConfigDict(extra="forbid")

    id: Name | int | None = None
    session: Name | None = None
    label: Annotated[str, Field(max_length=200)] = ""


class Commands:
    """Does what is asked."""

    def __init__(self) -> None:
        """Nothing can be asked of anybody yet."""
        self._sessions: dict[str, Session] = {}

    def add(self, session: Session) -> None:
        """Let something be asked of a session."""
        self._sessions[session.name] = session

    def obey(self, verb: str, payload: bytes) -> dict[str, Any]:
        """Do it, and say what was done, or what is wrong with it: `id`, `ok`, and `sessions` or `error`."""
        request = Request()
        try:
            request = Request.model_validate_json(payload or b"{}")
            chosen = self._obey(verb, request)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"])
            return self._refuse(verb, request, f"{where}: {first['msg']}" if where else first["msg"])
        except UsageError as error:
            return self._refuse(verb, request, str(error))
        log.info("%s by command: %s", verb, ", ".join(chosen))
        return {"id": request.id, "verb": verb, "ok": True, "sessions": chosen}

    def _obey(self, verb: str, request: Request) -> list[str]:
        if verb not in VERBS:
            raise UsageError(f"no such command; there are {', '.join(VERBS)}")
        if request.session is not None and request.session not in self._sessions:
            raise UsageError(f"no such session; there are {', '.join(self._sessions) or 'none'}")
        chosen = list(self._sessions) if request.session is None else [request.session]
        for name in chosen:
            session = self._sessions[name]
            match verb:
                case "mark":
                    session.mark(request.label)
                case "record/start" | "record/stop":
                    session.record(on=verb == "record/start")
                case _:
                    {"reset": session.reset, "pause": session.pause, "resume": session.resume}[verb]()
        return chosen

    def _refuse(self, verb: str, request: Request, why: str) -> dict[str, Any]:
        log.warning("the command %s was refused: %s", verb[:64], why)
        return {"id": request.id, "verb": verb, "ok": False, "error": why}
