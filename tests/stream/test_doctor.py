"""The doctor: what it says of parts that work, fail, hang or are not asked for, and when a session can run."""

import argparse
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from extractors.errors import Unavailable
from stream import doctor
from stream.doctor import LANES, PARTS, Finding, examine, lanes, main, parser
from stream.errors import SourceError
from tests.stream.sources.mjpeg import MjpegServer, numbered
from tests.stream.sources.pulse import PulseServer, missing

Check = Callable[[argparse.Namespace], str]


def fail(error: BaseException) -> Check:
    def check(_: argparse.Namespace) -> str:
        raise error

    return check


def works(_: argparse.Namespace) -> str:
    return "fine"


@pytest.fixture
def healthy(monkeypatch: pytest.MonkeyPatch) -> None:
    for part in PARTS:
        monkeypatch.setitem(PARTS, part, works)


# --- one part


@pytest.mark.parametrize(
    ("check", "state", "found"),
    [
        (works, "ok", "fine"),
        (fail(SourceError("camera 0: gone; plug it in")), "not", "camera 0: gone; plug it in"),
        (fail(Unavailable("no model; fetch it")), "not", "no model; fetch it"),
        (fail(doctor._Skipped("not asked for")), "skipped", "not asked for"),
        (fail(KeyError("a\nb")), "not", "KeyError: 'a\\nb'; this should not happen, please report it"),
    ],
)
def test_whatever_a_part_does_is_a_finding(monkeypatch: pytest.MonkeyPatch, check: Check, state: str, found: str) -> None:
    monkeypatch.setitem(PARTS, "camera", check)
    assert examine("camera", parser().parse_args([])) == Finding("camera", state, found)  # type: ignore[arg-type]


def test_a_part_that_hangs_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    over = threading.Event()
    monkeypatch.setitem(PARTS, "camera", lambda _: str(over.wait()))
    started_s = time.monotonic()
    assert examine("camera", parser().parse_args([]), timeout_s=0.2).found.startswith("no answer within 0 s")
    assert time.monotonic() - started_s < 2
    over.set()


# --- the whole


def test_lanes_run_on_what_works() -> None:
    def without(*parts: str) -> list[str]:
        return lanes([Finding(part, "not" if part in parts else "ok", "") for part in PARTS])

    assert without() == ["vision", "audio", "text"]
    assert without("camera") == ["audio", "text"]
    assert without("words") == ["vision", "audio"]
    assert without("voice") == without("microphone") == ["vision"]
    assert without("face", "microphone") == []
    assert without("GPU", "broker") == list(LANES)


@pytest.mark.usefixtures("healthy")
def test_one_line_a_part(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PARTS, "words", fail(Unavailable("a reason " * 30 + "[brackets]")))
    assert main([]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:2] for line in lines[:-1]] == [["not" if part == "words" else "ok", part] for part in PARTS]
    assert lines[0] == "ok       camera      fine"
    assert lines[list(PARTS).index("words")].endswith("[brackets]")
    assert lines[-1] == "a live session can run on: vision, audio"


@pytest.mark.usefixtures("healthy")
def test_json_has_the_same(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PARTS, "camera", fail(SourceError("no camera; plug one in")))
    monkeypatch.setitem(PARTS, "microphone", fail(SourceError("no microphone; plug one in")))
    assert main(["--json"]) == 1
    report = json.loads(capsys.readouterr().out)
    assert report["lanes"] == []
    assert report["parts"][0] == {"part": "camera", "state": "not", "found": "no camera; plug one in"}
    assert [finding["part"] for finding in report["parts"]] == list(PARTS)


@pytest.mark.usefixtures("healthy")
def test_a_device_that_is_asked_for_must_be_there(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PARTS, "GPU", fail(SourceError("no GPU")))
    assert main([]) == 0
    assert main(["--device", "cuda"]) == 1
    assert capsys.readouterr().out.splitlines()[-1] == "no live session can run on cuda"


# --- the real parts


@pytest.fixture
def broker() -> Iterator[Callable[[bytes], str]]:
    """Starts what answers an MQTT client with some bytes, and returns where."""
    servers = []

    def start(answer: bytes) -> str:
        servers.append(server := socket.create_server(("127.0.0.1", 0)))

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(1000)
                connection.sendall(answer)
                connection.recv(1000)

        threading.Thread(target=serve, daemon=True).start()
        return f"127.0.0.1:{server.getsockname()[1]}"

    yield start
    for server in servers:
        server.close()


def ask_broker(where: str) -> Finding:
    return examine("broker", parser().parse_args(["--mqtt", where]))


def test_a_broker_that_accepts_is_ok(broker: Callable[[bytes], str]) -> None:
    where = broker(b"\x20\x02\x00\x00")  # CONNACK: accepted
    assert ask_broker(where).state == "ok"


def test_what_a_broker_refuses_for_is_one_line(broker: Callable[[bytes], str], monkeypatch: pytest.MonkeyPatch) -> None:
    where = broker(b"\x20\x02\x00\x05")  # CONNACK: not authorised
    refused = ask_broker(where)
    assert refused.state == "not"
    assert refused.found.startswith(f"mqtt://{where} refuses: this user may not connect; set MMLATCH_MQTT_USERNAME")
    assert "nobody answers at that port" in ask_broker("127.0.0.1:9").found
    assert "there is no such host" in ask_broker("broker.invalid").found
    assert "expected HOST, HOST:PORT" in ask_broker("http://broker").found
    monkeypatch.setattr(doctor, "_BROKER_S", 0.3)
    assert "does not answer" in ask_broker(broker(b"")).found


@pytest.mark.usefixtures("with_assets")
@pytest.mark.parametrize("part", ["face", "voice", "words", "embeddings"])
def test_models_run(part: str) -> None:
    finding = examine(part, parser().parse_args([]), timeout_s=120)
    assert finding.state == "ok", finding.found


def test_what_is_not_here_is_not_downloaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("extractors.assets.locate", lambda _: None)
    assert examine("face", parser().parse_args([])) == Finding(
        "face",
        "not",
        "face_landmarker.task: not on this machine; run: python -m extractors.assets fetch face_landmarker.task",
    )
    assert "run: python -m extractors.assets fetch all-MiniLM" in examine("embeddings", parser().parse_args([])).found


def test_a_gpu_that_is_not_there_is_said() -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is one")
    assert examine("GPU", parser().parse_args([])).state == "skipped"
    found = examine("GPU", parser().parse_args(["--device", "cuda"]))
    assert found.state == "not"
    assert "--device cuda" in found.found


@pytest.mark.cuda
def test_a_gpu_is_named() -> None:
    import torch

    if not torch.cuda.is_available():
        pytest.skip("no NVIDIA GPU")
    finding = examine("GPU", parser().parse_args(["--device", "cuda"]))
    assert finding.state == "ok"
    assert "GiB free" in finding.found


@pytest.mark.usefixtures("with_assets")
def test_a_camera_and_a_microphone_that_work(tmp_path: Path, shared: Path) -> None:
    """As a user runs it, with devices that are real to OpenCV and PortAudio."""
    if lacking := missing():
        pytest.skip(f"no sound server to test on: apt-get install {lacking}")
    server = PulseServer(tmp_path)
    server.start()
    try:
        with MjpegServer(numbered(240, 320), fps=20) as camera:
            server.play(shared / "speech" / "jfk.wav")
            run = subprocess.run(
                [sys.executable, "-m", "stream.doctor", "--camera", camera.url],
                env={**os.environ, **server.env},
                capture_output=True,
                text=True,
                check=False,
                timeout=240,
            )
    finally:
        server.stop()
    found = run.stdout.splitlines()
    assert found[0].startswith(f"ok       camera      camera {camera.url}: 320x240, ")
    assert found[1].startswith("ok       microphone  microphone default: ")
    assert found[1].endswith(("dB of full scale", "python -m stream.devices"))
    assert found[-1] == "a live session can run on: vision, audio, text"
    assert run.returncode == 0
    assert "Traceback" not in run.stderr
