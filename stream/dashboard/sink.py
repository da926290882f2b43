"""The page as a sink: keeps each session's history, and tells the pages that are open."""

import contextlib
import importlib.util
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Self

import cv2
import numpy as np
import numpy.typing as npt

from stream.channel import Channel
from stream.dashboard.access import Address
from stream.dashboard.history import History
from stream.dashboard.server import Pages, application, served
from stream.messages import Output, SessionInfo
from stream.session import Session
from stream.sinks.statistics import Statistics

_WIDEST = 480  # pixels of a picture on the page
_QUALITY = 70

View = Callable[[], tuple[npt.NDArray[np.uint8], npt.NDArray[np.float32] | None] | None]
"""The newest picture of a session, RGB (H, W, 3), and the outline of the face in it, (N, 2) as shares of width and height."""


class Dashboard:
    """Serves the page.

    Example:
        async with Dashboard(Address("127.0.0.1", 8765, None), statistics) as sink:
            session = Session(..., sinks=[sink], ...)

    Attributes:
        address: Where.
    """

    name = "dashboard"

    def __init__(self, address: Address, statistics: Statistics, *, pictures: bool = False) -> None:
        """Serve nothing yet.

        Args:
            address: Where to.
            statistics: What the page says of how the node is doing.
            pictures: Whether the camera's picture is shown.
        """
        self.address = address
        self._views: dict[str, View] = {}
        self._histories: dict[str, History] = {}
        self._pages = Pages()
        self._statistics, self._pictures = statistics, pictures
        self._serving = contextlib.AsyncExitStack()

    async def __aenter__(self) -> Self:
        """Begin to serve; raises `UsageError` if the address cannot be had."""
        app = application(
            self.address,
            self._histories,
            self._pages,
            self._statistics.snapshot,
            self._picture if self._pictures else None,
            _chart_library(),
            _metrics(self._statistics.snapshot),
        )
        await self._serving.enter_async_context(served(app, self.address))
        return self

    async def __aexit__(self, *_: object) -> None:
        """Serve no more."""
        self._pages.close()
        await self._serving.aclose()

    def show(self, session: Session) -> None:
        """Let the pictures of a session be seen, if pictures are shown."""
        self._views[session.name] = session.view

    async def run(self, info: SessionInfo, outputs: Channel[Output]) -> None:
        """Tell the pages until there are no more outputs; none of them is waited for."""
        history = self._histories[info.session] = History(info)
        self._pages.tell(history.snapshot())
        try:
            async for output in outputs:
                for message in history.take(output):
                    self._pages.tell(message)
        finally:
            self._pages.tell(history.end())

    def _picture(self, session: str) -> bytes | None:
        """JPEG; from any thread."""
        view = self._views.get(session)
        found = view() if view else None
        if not found:
            return None
        image, outline = found
        height, width = image.shape[:2]
        scale = min(1.0, _WIDEST / width)
        small = cv2.resize(image, (round(width * scale), round(height * scale)), interpolation=cv2.INTER_AREA)
        shown = cv2.cvtColor(small, cv2.COLOR_RGB2BGR)
        if outline is not None:
            points = np.rint(outline * (shown.shape[1], shown.shape[0])).astype(np.int32)
            cv2.polylines(shown, [points], isClosed=True, color=(80, 220, 80), thickness=2, lineType=cv2.LINE_AA)
        done, encoded = cv2.imencode(".jpg", shown, [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
        return encoded.tobytes() if done else None


def _chart_library() -> Path:
    """Plotly's script, as its Python package brings it: nothing is fetched from anywhere."""
    found = importlib.util.find_spec("plotly")
    assert found
    assert found.origin
    return Path(found.origin).parent / "package_data" / "plotly.min.js"


def _metrics(figures: Callable[[], Mapping[str, Any]]) -> Callable[[], tuple[str, bytes]] | None:
    if not importlib.util.find_spec("prometheus_client"):
        return None
    from stream.dashboard.metrics import Metrics

    return Metrics(figures).text
