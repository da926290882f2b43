"""The command on a camera and a microphone, as a user runs it: a network camera on loopback, PortAudio over PulseAudio."""

import itertools
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from stream.clock import UnpacedClock
from stream.messages import VideoFrame
from stream.sources.media import MediaSource
from tests.conftest import ROOT
from tests.stream.sources.mjpeg import MjpegServer
from tests.stream.sources.pulse import PulseServer, missing


class Live:
    """A running `python -m stream.live`, whose JSON lines are read as they come."""

    def __init__(self, environment: dict[str, str], *arguments: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "stream.live", "--format", "jsonl", *arguments],
            cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ | environment,
        )  # fmt: skip
        self.lines: list[dict[str, Any]] = []
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout
        for line in self.process.stdout:
            self.lines.append(json.loads(line))

    def wait_for(self, what: Callable[[dict[str, Any]], bool], seconds: float = 30) -> dict[str, Any]:
        """The first line from now on of which that is true."""
        begin, end_s = len(self.lines), time.monotonic() + seconds
        while time.monotonic() < end_s and self.process.poll() is None:
            if found := next((line for line in self.lines[begin:] if what(line)), None):
                return found
            time.sleep(0.05)
        raise AssertionError(f"it did not come; the last lines: {self.lines[-3:]}")

    def stop(self) -> tuple[int, str, float]:
        """Ctrl-C; returns exit code, standard error, and how many seconds it took."""
        begun_s = time.monotonic()
        self.process.send_signal(signal.SIGINT)
        code = self.process.wait(30)
        took_s = time.monotonic() - begun_s
        self._reader.join()
        assert self.process.stderr
        return code, self.process.stderr.read(), took_s


@pytest.fixture
def pulse(tmp_path: Path) -> Iterator[PulseServer]:
    if lacking := missing():
        pytest.skip(f"no sound server to test on: apt-get install {lacking}")
    server = PulseServer(tmp_path)
    server.start()
    yield server
    server.stop()


@pytest.fixture
def camera(shared: Path) -> Iterator[MjpegServer]:
    """A face that talks."""
    frames = (
        p for p in MediaSource(str(shared / "clips" / "address.mp4")).packets(UnpacedClock()) if isinstance(p, VideoFrame)
    )
    with MjpegServer([frame.image for frame in itertools.islice(frames, 100)], fps=25) as server:
        yield server


def status(line: dict[str, Any], lane: str) -> str:
    return line["modalities"][lane]["status"] if line["kind"] in ("provisional", "final") else ""


def event(line: dict[str, Any], what: str, part: str) -> bool:
    return line["kind"] == "event" and (line["event"], line["part"]) == (what, part)


def test_a_face_and_a_voice_are_analysed_lost_and_found_again(
    pulse: PulseServer, camera: MjpegServer, shared: Path, with_assets: None
) -> None:
    live = Live(pulse.env, "--source", f"door=camera:{camera.url}+mic", "--asr", "sphinx")
    try:
        live.wait_for(lambda line: line["kind"] == "provisional" and status(line, "vision") == "ok", 60)
        pulse.play(shared / "speech" / "jfk.wav")
        live.wait_for(lambda line: status(line, "text") == "partial")  # while he speaks
        final = live.wait_for(lambda line: line["kind"] == "final" and status(line, "text") == "ok")
        assert final["session"] == "door"
        assert {lane: status(final, lane) for lane in ("audio", "vision")} == {"audio": "ok", "vision": "ok"}
        assert final["latency_ms"]["text"] > 0

        camera.stop()
        lost = live.wait_for(lambda line: event(line, "lost", "vision"))
        assert "trying again" in lost["reason"]
        gone = live.wait_for(lambda line: line["kind"] == "final" and status(line, "vision") == "unavailable")
        assert "camera" in gone["modalities"]["vision"]["reason"]
        pulse.stop()
        live.wait_for(lambda line: event(line, "lost", "audio"))
        live.wait_for(lambda line: line["kind"] == "final" and status(line, "audio") == "unavailable")

        camera.start()
        live.wait_for(lambda line: event(line, "recovered", "vision"), 60)
        pulse.start()
        live.wait_for(lambda line: event(line, "recovered", "audio"), 60)
        back = live.wait_for(lambda line: line["kind"] == "final" and status(line, "vision") == "ok")
        assert back["seq"] > gone["seq"]
        pulse.play(shared / "speech" / "jfk.wav")
        live.wait_for(lambda line: line["kind"] == "final" and status(line, "text") == "ok")
        live.wait_for(lambda line: line["kind"] == "utterance", 40)
    finally:
        code, errors, took_s = live.stop()
    assert code == 0, errors
    assert took_s < 6  # three seconds where nothing else runs
    assert "Traceback" not in errors
    finals = [line["seq"] for line in live.lines if line["kind"] == "final"]
    assert finals == list(range(len(finals)))
    provisional = [line for line in live.lines if line["kind"] == "provisional"]
    assert len(provisional) > 0.8 * len(finals)


@pytest.mark.parametrize(
    ("source", "parts"),
    [
        ("camera:97", ("camera 97", "python -m stream.devices")),
        ("camera:/dev/nothing", ("camera /dev/nothing", "python -m stream.devices")),
        ("camera:97+mic:97", ("camera 97", "; ", "microphone")),
        ("camera:0+camera:1", ("one camera and one microphone a session",)),
    ],
)
def test_a_device_that_is_not_there_is_one_line(source: str, parts: tuple[str, ...]) -> None:
    run = subprocess.run(
        [sys.executable, "-m", "stream.live", "--source", source], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (run.returncode, run.stdout) == (2, "")
    assert run.stderr.count("\n") == 1
    for part in parts:
        assert part in run.stderr
