"""A network camera to test with: pictures over HTTP on loopback, as many IP cameras and phone apps send them."""

import itertools
import threading
import time
from collections.abc import Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
import numpy.typing as npt

Picture = npt.NDArray[np.uint8]
_LEVELS, _STEP = 60, 4  # brightnesses that survive JPEG, and so how many pictures can be told apart


def numbered(height: int = 48, width: int = 64) -> list[Picture]:
    """Grey RGB pictures, each of another brightness; `number` tells which one it is."""
    return [np.full((height, width, 3), 8 + _STEP * level, np.uint8) for level in range(_LEVELS)]


def number(image: Picture) -> int:
    """Which of the numbered pictures this is."""
    return round((float(image.mean()) - 8) / _STEP)


class MjpegServer:
    """Sends its pictures round and round, at a steady rate, to everybody who asks.

    Example:
        with MjpegServer(numbered(), fps=20) as server:
            source = CameraSource(server.url)

    Attributes:
        jpegs: What is sent.
        sent_ns: When each of the pictures was sent last, by the monotonic clock; 0 if never.
    """

    def __init__(self, pictures: Sequence[Picture], fps: float) -> None:
        import cv2

        self.jpegs = [cv2.imencode(".jpg", np.ascontiguousarray(picture[..., ::-1]))[1].tobytes() for picture in pictures]
        self._period_s = 1 / fps
        self._port = 0
        self._flowing = threading.Event()
        self._server: ThreadingHTTPServer | None = None
        self.sent_ns = [0] * len(pictures)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}/camera"

    def start(self) -> None:
        """Serve, on the same port as before."""
        outer, running = self, threading.Event()

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer._send(self, running)

            def log_message(self, *_: Any) -> None:
                pass

        class Server(ThreadingHTTPServer):
            def shutdown(self) -> None:
                running.clear()
                super().shutdown()

            def handle_error(self, *_: Any) -> None:
                pass

        running.set()
        self._flowing.set()
        self._server = Server(("127.0.0.1", self._port), Handler)
        self._port = self._server.server_port
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def stop(self) -> None:
        """Hang up on everybody, and refuse whoever calls."""
        if self._server:
            self._flowing.set()
            self._server.shutdown()
            self._server.server_close()  # waits for the connections' threads
            self._server = None

    def pause(self) -> None:
        """Keep the connections, and send nothing."""
        self._flowing.clear()

    def resume(self) -> None:
        self._flowing.set()

    def __enter__(self) -> "MjpegServer":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _send(self, request: BaseHTTPRequestHandler, running: threading.Event) -> None:
        if request.path != "/camera":
            request.send_error(404)
            return
        request.send_response(200)
        request.send_header("Content-Type", "multipart/x-mixed-replace; boundary=picture")
        request.end_headers()
        due_s = time.monotonic()
        for index in itertools.cycle(range(len(self.jpegs))):
            self._flowing.wait()
            if not running.is_set():
                return
            jpeg = self.jpegs[index]
            head = f"--picture\r\nContent-Type: image/jpeg\r\nContent-Length: {len(jpeg)}\r\n\r\n".encode()
            self.sent_ns[index] = time.monotonic_ns()
            try:
                request.wfile.write(head + jpeg + b"\r\n")
            except OSError:  # the other end has hung up
                return
            due_s = max(due_s + self._period_s, time.monotonic())
            time.sleep(due_s - time.monotonic() if due_s > time.monotonic() else 0)
