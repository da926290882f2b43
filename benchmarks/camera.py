"""A network camera to measure with: a clip's pictures over and over, as MJPEG over HTTP on loopback.

    python -m benchmarks.camera CLIP

It says its address on a line, and ends when its standard input does.
"""

import contextlib
import itertools
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

from stream.clock import UnpacedClock
from stream.messages import VideoFrame
from stream.pictures import encode_jpeg
from stream.sources.media import MediaSource


@contextlib.contextmanager
def camera(clip: Path) -> Iterator[str]:
    """The address of a camera that films the clip at its own pace, in a process of its own that is nobody's child."""
    command = [sys.executable, "-m", "benchmarks.camera", str(clip)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        yield process.stdout.readline().strip()


def serve(clip: Path) -> ThreadingHTTPServer:
    """A server of the clip's pictures, each coded once."""
    packets = MediaSource(str(clip)).packets(UnpacedClock())
    pictures = [encode_jpeg(packet) for packet in packets if isinstance(packet, VideoFrame)]
    period_s = (pictures[-1].t_ns - pictures[0].t_ns) / 1e9 / (len(pictures) - 1)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=picture")
            self.end_headers()
            begun_s = time.monotonic()
            with contextlib.suppress(ConnectionError):  # the other end has hung up
                for number, picture in enumerate(itertools.cycle(pictures)):
                    time.sleep(max(0.0, begun_s + number * period_s - time.monotonic()))
                    head = f"--picture\r\nContent-Type: image/jpeg\r\nContent-Length: {len(picture.data)}\r\n\r\n"
                    self.wfile.write(head.encode() + picture.data + b"\r\n")

        def log_message(self, *_: Any) -> None:
            pass

    return ThreadingHTTPServer(("127.0.0.1", 0), Handler)


def main() -> None:
    """Serve until the standard input ends."""
    if os.fork():
        os._exit(0)  # who measures counts what its children do, and this is not to be counted
    server = serve(Path(sys.argv[1]))
    Thread(target=server.serve_forever, daemon=True).start()
    print(f"http://127.0.0.1:{server.server_port}/camera", flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main()
