"""Who may look: on this machine whoever is on it, elsewhere whoever has the token."""

import hashlib
import os
import secrets
from dataclasses import dataclass
from http.cookies import SimpleCookie
from ipaddress import ip_address
from urllib.parse import parse_qs, urlsplit

from starlette.responses import PlainTextResponse, RedirectResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from stream.config import DashboardConfig
from stream.errors import UsageError

TOKEN = "MMLATCH_DASHBOARD_TOKEN"
_COOKIE = "mmlatch_dashboard"
_SHORTEST = 12  # characters of a token


@dataclass(frozen=True)
class Address:
    """Where the page is served.

    Attributes:
        token: What who looks must have; None on loopback.
    """

    host: str
    port: int
    token: str | None

    @property
    def url(self) -> str:
        """What to open; without the token."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}/"


def address(config: DashboardConfig) -> Address:
    """The address that is configured.

    Raises:
        UsageError: It is not understood, or others than this machine could see the page without a token.
    """
    given = config.address or ""
    parts = urlsplit(f"//{given}")
    try:
        port = parts.port
    except ValueError:
        port = None
    if not parts.hostname or not port or parts.path or parts.query or parts.username:
        raise UsageError(f"--dashboard {given}: expected HOST:PORT, as in 127.0.0.1:8765")
    if is_loopback(parts.hostname):
        return Address(parts.hostname, port, None)
    token = os.environ.get(TOKEN) or _read(config)
    if not token:
        raise UsageError(
            f"--dashboard {given}: others could see face, voice and words there, so it needs a token; put one into {TOKEN}"
        )
    if len(token) < _SHORTEST:
        raise UsageError(f"{TOKEN}: a token has at least {_SHORTEST} characters")
    return Address(parts.hostname, port, token)


def _read(config: DashboardConfig) -> str | None:
    if config.token_file is None:
        return None
    try:
        return config.token_file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not text"
        raise UsageError(f"dashboard.token_file {config.token_file}: {reason}; expected a file with the token") from error


def is_loopback(host: str) -> bool:
    """Whether a name or an address is this machine's own, whoever resolves it."""
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


class Guard:
    """Lets nobody else in.

    Without a token a page is given only under a name that is this machine's own, so that no other site, whose name may point
    here, can look. With one, to whoever brings it in the address, once: a cookie stands for it then.
    """

    def __init__(self, app: ASGIApp, token: str | None) -> None:
        """Stand before `app`."""
        self._app, self._token = app, token
        # The cookie is not the token: who sees it learns nothing that could be used elsewhere.
        self._cookie = hashlib.sha256(f"cookie {token}".encode()).hexdigest()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        allowed = self._has_cookie(headers) if self._token else self._is_here(headers)
        if allowed and self._same_site(headers):
            await self._app(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
        elif self._token and self._brings_token(scope):
            response = RedirectResponse(scope["path"])
            response.set_cookie(_COOKIE, self._cookie, httponly=True, samesite="strict")
            await response(scope, receive, send)
        else:
            wanted = "add ?token=… to the address" if self._token else "open it by the address that the program said"
            await PlainTextResponse(f"no access: {wanted}\n", 401)(scope, receive, send)

    def _has_cookie(self, headers: dict[str, str]) -> bool:
        found = SimpleCookie(headers.get("cookie", "")).get(_COOKIE)
        return found is not None and secrets.compare_digest(found.value.encode(), self._cookie.encode())

    def _brings_token(self, scope: Scope) -> bool:
        given = parse_qs(scope["query_string"].decode("latin-1")).get("token", [""])[0]
        return secrets.compare_digest(given.encode(), str(self._token).encode())

    @staticmethod
    def _is_here(headers: dict[str, str]) -> bool:
        return is_loopback(urlsplit(f"//{headers.get('host', '')}").hostname or "")

    @staticmethod
    def _same_site(headers: dict[str, str]) -> bool:
        """A browser says from which site a page asks; it must be this one."""
        origin = headers.get("origin")
        return origin is None or urlsplit(origin).netloc == headers.get("host")
