"""The page's server: Starlette (https://www.starlette.io) on uvicorn (https://uvicorn.dev), in the sessions' own event loop.

| path | what |
|---|---|
| `/` | the page; its script, style and chart library beside it |
| `/live` | a websocket: a snapshot of each session, then what happens |
| `/sessions/NAME/summary.json`, `.csv` | what there was, to download |
| `/sessions/NAME/picture` | the camera's picture with the face's outline, if that is allowed |
| `/metrics` | the node's figures for Prometheus |
"""

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import uvicorn
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import FileResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from stream.channel import Channel, everything
from stream.dashboard.access import Address, Guard
from stream.dashboard.history import History, Message
from stream.errors import UsageError

_PAGE = Path(__file__).with_name("page")
_FILES = {"/": "index.html", "/page.js": "page.js", "/style.css": "style.css"}
_CLIENTS = 200
_WAITING = 256  # messages to one page, a quarter of a minute of four sessions
_SEND_S = 20.0  # a page that takes nothing for so long is gone
_PICTURE_S = 0.2  # between two pictures
_LEAVE_S = 1.0
# Nothing from elsewhere, and nothing of this inside other pages.
_HEADERS = {
    "Content-Security-Policy": "; ".join(
        ("default-src 'self'", "style-src 'self' 'unsafe-inline'", "img-src 'self' data: blob:", "frame-ancestors 'none'")
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


class Pages:
    """The pages that are open, each with what it has not been told yet.

    Attributes:
        over: There will be no more to tell.
    """

    def __init__(self) -> None:
        """None is."""
        self.over = False
        self._waiting: set[Channel[Message]] = set()

    def tell(self, message: Message) -> None:
        """Tell all of them, waiting for none."""
        for waiting in self._waiting:
            waiting.offer(message)

    def close(self) -> None:
        """Tell no more; the pages are let go of."""
        self.over = True
        for waiting in self._waiting:
            waiting.close()

    @property
    def full(self) -> bool:
        """Whether there are as many as there may be."""
        return len(self._waiting) >= _CLIENTS

    @contextlib.contextmanager
    def joined(self) -> Iterator[Channel[Message]]:
        """What one more page is told from now on; all that waits is given up if it takes too little."""
        waiting = Channel[Message](_WAITING, everything)
        self._waiting.add(waiting)
        try:
            yield waiting
        finally:
            self._waiting.discard(waiting)


def application(
    address: Address,
    histories: dict[str, History],
    pages: Pages,
    figures: Callable[[], Message],
    picture: Callable[[str], bytes | None] | None,
    chart_library: Path,
    metrics: Callable[[], tuple[str, bytes]] | None,
) -> Starlette:
    """The application.

    Args:
        address: Where it will be served.
        histories: The sessions, by name; grows.
        pages: Who is told what happens.
        figures: The node's statistics.
        picture: The newest picture of a session as JPEG, None if there is none; None if pictures are not shown.
        chart_library: Plotly's script.
        metrics: The figures as Prometheus wants them, and their content type; None if its library is not there.
    """

    async def file(request: Request) -> Response:
        return FileResponse(_PAGE / _FILES[request.url.path], headers=_HEADERS)

    async def library(_: Request) -> Response:
        return FileResponse(chart_library, headers=_HEADERS | {"Cache-Control": "max-age=86400"})

    def download(kind: str, media_type: str, made: Callable[[History], str]) -> Route:
        async def answer(request: Request) -> Response:
            history = histories.get(request.path_params["name"])
            if not history:
                return PlainTextResponse("no such session\n", 404)
            name = f"{history.info.node}-{history.info.session}.{kind}"
            headers = _HEADERS | {"Content-Disposition": f'attachment; filename="{name}"'}
            return PlainTextResponse(made(history), headers=headers, media_type=media_type)

        return Route(f"/sessions/{{name}}/summary.{kind}", answer)

    async def pictures(request: Request) -> Response:
        name = request.path_params["name"]
        if not picture or name not in histories:
            return PlainTextResponse("pictures are not shown; see dashboard.picture\n", 404)

        async def frames() -> AsyncIterator[bytes]:
            while not pages.over:
                if found := await asyncio.to_thread(picture, name):
                    yield b"--frame\r\nContent-Type: image/jpeg\r\n\r\n" + found + b"\r\n"
                await asyncio.sleep(_PICTURE_S)

        return StreamingResponse(frames(), headers=_HEADERS, media_type="multipart/x-mixed-replace; boundary=frame")

    async def prometheus(_: Request) -> Response:
        if not metrics:
            return PlainTextResponse("prometheus_client is not installed\n", 404)
        kind, text = metrics()
        return Response(text, media_type=kind)

    async def live(websocket: WebSocket) -> None:
        if pages.full:
            await websocket.close(1013, "too many pages are open")
            return
        await websocket.accept()
        with pages.joined() as waiting, contextlib.suppress(WebSocketDisconnect, TimeoutError, RuntimeError):
            leaving = asyncio.create_task(_until_left(websocket))
            try:
                await _tell(websocket, waiting, leaving)
            finally:
                leaving.cancel()

    async def _tell(websocket: WebSocket, waiting: Channel[Message], leaving: "asyncio.Task[None]") -> None:
        async def send(message: Message) -> None:
            await asyncio.wait_for(websocket.send_text(json.dumps(message, allow_nan=False)), _SEND_S)

        async def snapshot() -> None:
            await send({"type": "node", "picture": picture is not None, "stats": figures()})
            for history in list(histories.values()):
                await send(history.snapshot())

        await snapshot()
        missed = 0
        async for message in waiting:
            if leaving.done():
                return
            if waiting.dropped > missed:
                missed = waiting.dropped
                await snapshot()  # it has missed some
            await send(message)

    routes = [
        *(Route(path, file) for path in _FILES),
        Route("/plotly.js", library),
        download("csv", "text/csv", History.table),
        download("json", "application/json", lambda history: json.dumps(history.summary(), allow_nan=False)),
        Route("/sessions/{name}/picture", pictures),
        Route("/metrics", prometheus),
        WebSocketRoute("/live", live),
    ]
    return Starlette(routes=routes, middleware=[Middleware(Guard, token=address.token)])


async def _until_left(websocket: WebSocket) -> None:
    """Read what a page says, which is nothing, until it has gone."""
    with contextlib.suppress(WebSocketDisconnect, RuntimeError):
        while True:
            await websocket.receive()


class _Server(uvicorn.Server):
    """Leaves Ctrl-C to the sessions."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@contextlib.asynccontextmanager
async def served(app: Starlette, address: Address) -> AsyncIterator[None]:
    """Serve an application.

    Raises:
        UsageError: The address cannot be had.
    """
    try:
        family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
        listening = socket.create_server((address.host, address.port), family=family)
    except OSError as error:
        raise UsageError(
            f"--dashboard {address.host}:{address.port}: {error.strerror}; choose another port or address"
        ) from error
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        log_level="error",
        ws_max_size=4096,
        timeout_graceful_shutdown=1,
        server_header=False,
    )
    server = _Server(config)
    running = asyncio.create_task(server.serve(sockets=[listening]))
    try:
        yield
    finally:
        server.should_exit = True
        await asyncio.wait({running}, timeout=_LEAVE_S + 1)
        running.cancel()
        listening.close()
