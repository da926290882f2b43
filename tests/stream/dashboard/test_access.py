"""Who may look: every request without the right is refused, over HTTP and over the websocket."""

from pathlib import Path

import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.testclient import TestClient
from starlette.websockets import WebSocket, WebSocketDisconnect

from stream.config import DashboardConfig
from stream.dashboard.access import TOKEN, Guard, address
from stream.errors import UsageError

SECRET = "correct horse battery"


def client(token: str | None, host: str = "localhost") -> TestClient:
    async def page(_: Request) -> Response:
        return PlainTextResponse("inside")

    async def live(websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.send_text("inside")
        await websocket.close()

    routes = [Route("/", page), WebSocketRoute("/live", live)]
    return TestClient(Starlette(routes=routes, middleware=[Middleware(Guard, token=token)]), base_url=f"http://{host}")


def hears(page: TestClient, **headers: str) -> bool:
    try:
        with page.websocket_connect(str(page.base_url).replace("http", "ws", 1) + "/live", headers=headers) as socket:
            return socket.receive_text() == "inside"
    except WebSocketDisconnect:
        return False


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1:8765", "127.5.5.5", "[::1]:8765"])
def test_on_this_machine_whoever_is_on_it(host: str) -> None:
    page = client(None, host)
    assert page.get("/").text == "inside"
    assert hears(page)
    assert hears(page, origin=f"http://{host}")


@pytest.mark.parametrize("host", ["evil.example", "localhost.evil.example", "10.0.0.7"])
def test_under_another_name_nobody(host: str) -> None:
    page = client(None, host)
    assert page.get("/").status_code == 401
    assert not hears(page)


def test_a_page_of_another_site_cannot_listen() -> None:
    page = client(None)
    assert not hears(page, origin="http://evil.example")
    assert page.get("/", headers={"origin": "http://evil.example"}).status_code == 401


def test_with_a_token_whoever_brings_it_and_then_its_cookie() -> None:
    page = client(SECRET, "sentiment.home")
    assert page.get("/").status_code == 401
    assert page.get("/", params={"token": "wrong"}).status_code == 401
    assert not hears(page)
    answer = page.get("/", params={"token": SECRET}, follow_redirects=False)
    assert answer.status_code == 307
    assert answer.headers["location"] == "/"
    cookie = answer.headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=strict" in cookie
    assert SECRET not in cookie
    assert page.get("/").text == "inside"
    assert hears(page)
    assert not hears(page, origin="http://evil.example")


def test_another_cookie_is_none() -> None:
    page = client(SECRET, "sentiment.home")
    page.cookies.set("mmlatch_dashboard", "0" * 64)
    assert page.get("/").status_code == 401


def test_an_address() -> None:
    found = address(DashboardConfig(address="127.0.0.1:8765"))
    assert (found.host, found.port, found.token, found.url) == ("127.0.0.1", 8765, None, "http://127.0.0.1:8765/")
    assert address(DashboardConfig(address="[::1]:80")).url == "http://[::1]:80/"
    assert address(DashboardConfig(address="localhost:80")).token is None


@pytest.mark.parametrize(
    "given", ["8765", "localhost", ":80", "host:0", "host:x", "http://host:80", "me@host:80", "host:80/page"]
)
def test_an_address_that_is_none(given: str) -> None:
    with pytest.raises(UsageError, match="expected HOST:PORT"):
        address(DashboardConfig(address=given))


def test_other_addresses_need_a_token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(TOKEN, raising=False)
    elsewhere = {"address": "0.0.0.0:8765"}
    with pytest.raises(UsageError, match="it needs a token; put one into MMLATCH_DASHBOARD_TOKEN"):
        address(DashboardConfig.model_validate(elsewhere))
    (tmp_path / "token").write_text(SECRET + "\n")
    found = address(DashboardConfig.model_validate(elsewhere | {"token_file": tmp_path / "token"}))
    assert found.token == SECRET
    assert SECRET not in found.url
    monkeypatch.setenv(TOKEN, "another token of mine")
    assert address(DashboardConfig.model_validate(elsewhere)).token == "another token of mine"
    monkeypatch.setenv(TOKEN, "short")
    with pytest.raises(UsageError, match="at least 12 characters"):
        address(DashboardConfig.model_validate(elsewhere))
    monkeypatch.delenv(TOKEN)
    with pytest.raises(UsageError, match=r"dashboard\.token_file nowhere"):
        address(DashboardConfig.model_validate(elsewhere | {"token_file": "nowhere"}))
