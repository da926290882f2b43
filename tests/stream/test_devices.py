"""The list of cameras and microphones, and that what it says to type is understood."""

import json
import subprocess
import sys

import pytest

from stream import devices
from stream.devices import main, source_text
from stream.errors import SourceError
from stream.sources import camera, microphone
from stream.sources.camera import Camera
from stream.sources.microphone import NONE_FOUND, Microphone, choose

CAMERAS = [
    Camera(0, "/dev/video0", "Integrated Camera", None),
    Camera(2, "/dev/video2", "USB camera", "another program uses it; close that"),
]
MICROPHONES = [
    Microphone(0, "HDA Intel PCH: ALC257 Analog (hw:0,0)", False, 48_000, 2),
    Microphone(4, "Twin", False, 48_000, 1),
    Microphone(5, "Twin", False, 48_000, 1),
    Microphone(6, "default", True, 44_100, 32),
    Microphone(7, "9", False, 44_100, 32),
    Microphone(8, "A+mic", False, 44_100, 32),
]


@pytest.fixture
def some(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(camera, "cameras", lambda: CAMERAS)
    monkeypatch.setattr(microphone, "microphones", lambda: MICROPHONES)


@pytest.fixture
def none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(camera, "cameras", list)
    monkeypatch.setattr(microphone, "microphones", list)


@pytest.mark.usefixtures("some")
def test_each_is_listed_with_what_to_type(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "cameras",
        "  --source camera:0  Integrated Camera, /dev/video0, the default",
        "  --source camera:2  USB camera, /dev/video2: another program uses it; close that",
        "microphones",
        "  --source 'mic:HDA Intel PCH: ALC257 Analog (hw:0,0)'  HDA Intel PCH: ALC257 Analog (hw:0,0)",
        "  --source mic:4                                        Twin",
        "  --source mic:5                                        Twin",
        "  --source mic:default                                  default, the default",
        "  --source mic:7                                        9",
        "  --source mic:8                                        A+mic",
    ]


@pytest.mark.usefixtures("some")
def test_json_has_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [device["source"] for device in found["cameras"]["devices"]] == ["camera:0", "camera:2"]
    assert found["cameras"]["devices"][1]["problem"] == "another program uses it; close that"
    assert found["microphones"]["devices"][3] == {
        "source": "mic:default",
        "name": "default",
        "path": None,
        "default": True,
        "problem": None,
    }
    assert found["microphones"]["complete"] is True


def test_what_is_to_be_typed_means_that_microphone() -> None:
    for one in MICROPHONES:
        which = source_text(one, MICROPHONES).removeprefix("mic:")
        assert choose(int(which) if which.isdecimal() else which, MICROPHONES) == one


@pytest.mark.usefixtures("none")
def test_where_there_are_none_the_next_step_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    assert capsys.readouterr().out.splitlines() == ["cameras", f"  {devices._NO_CAMERA}", "microphones", f"  {NONE_FOUND}"]


def test_a_missing_library_is_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def fail() -> list[Microphone]:
        raise SourceError("the microphone needs PortAudio; on Debian: sudo apt install libportaudio2")

    monkeypatch.setattr(camera, "cameras", list)
    monkeypatch.setattr(microphone, "microphones", fail)
    assert main([]) == 1
    assert capsys.readouterr().out.splitlines()[-1] == (
        "  the microphone needs PortAudio; on Debian: sudo apt install libportaudio2"
    )


def test_this_machine_s_are_listed() -> None:
    run = subprocess.run([sys.executable, "-m", "stream.devices"], capture_output=True, text=True, check=False, timeout=60)
    assert run.returncode in (0, 1)
    assert run.stdout.startswith("cameras\n  ")
    assert "\nmicrophones\n  " in run.stdout
    assert "Traceback" not in run.stderr
