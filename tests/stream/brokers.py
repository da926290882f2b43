"""A real broker and a real subscriber, each a process of its own."""

import contextlib
import json
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.conftest import ROOT
from tests.stream.wiring import wait_for

# Where Debian has it, which not everybody's path does.
MOSQUITTO = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin")
needs_mosquitto = pytest.mark.skipif(MOSQUITTO is None, reason="mosquitto is not installed (Debian: mosquitto)")


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def listens(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=0.2):
        return True
    return False


class Mosquitto:
    """The broker on a port of its own, which it keeps over restarts."""

    def __init__(self, folder: Path, *settings: str) -> None:
        assert MOSQUITTO
        self.port = free_port()
        self._settings = folder / "mosquitto.conf"
        lines = settings or ("allow_anonymous true",)
        self._settings.write_text("\n".join([f"listener {self.port} 127.0.0.1", "log_dest none", "user root", *lines, ""]))
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    def start(self) -> None:
        assert MOSQUITTO
        self._process = subprocess.Popen([MOSQUITTO, "-c", str(self._settings)], stderr=subprocess.DEVNULL)
        wait_for(lambda: listens(self.port))

    def kill(self) -> None:
        assert self._process
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()


@pytest.fixture
def mosquitto(tmp_path: Path) -> Iterator[Mosquitto]:
    if MOSQUITTO is None:
        pytest.skip("mosquitto is not installed (Debian: mosquitto)")
    broker = Mosquitto(tmp_path)
    yield broker
    broker.kill()


class Received(NamedTuple):
    topic: str
    payload: str
    qos: int
    retain: bool
    at_s: float
    properties: dict[str, Any]

    @property
    def json(self) -> dict[str, Any]:
        return json.loads(self.payload)


class Subscriber:
    """Listens to everything on a broker, and connects again at once when that goes away."""

    def __init__(self, port: int, version: str = "3.1.1", topic: str = "#") -> None:
        command = [sys.executable, "-m", "tests.stream.subscriber", str(port), version, topic]
        self._process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout
        assert self._process.stdout.readline().strip() == "subscribed"
        self._messages: list[Received] = []
        self.subscribed = 1  # how often
        self._reading = threading.Thread(target=self._read, daemon=True)
        self._reading.start()

    def _read(self) -> None:
        assert self._process.stdout
        for line in self._process.stdout:
            if line.strip() == "subscribed":
                self.subscribed += 1
            else:
                self._messages.append(Received(**json.loads(line)))

    def heard(self, *endings: str) -> list[Received]:
        """The messages whose topics end so, in their order; all without."""
        return [each for each in list(self._messages) if not endings or each.topic.endswith(endings)]

    def wait(self, ending: str, count: int = 1, within_s: float = 20.0) -> list[Received]:
        """Wait until there are so many."""
        wait_for(lambda: len(self.heard(ending)) >= count, within_s)
        return self.heard(ending)

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        self._reading.join(5)
        assert self._process.stdout
        self._process.stdout.close()


@contextlib.contextmanager
def subscriber(port: int, version: str = "3.1.1", topic: str = "#") -> Iterator[Subscriber]:
    found = Subscriber(port, version, topic)
    try:
        yield found
    finally:
        found.close()
