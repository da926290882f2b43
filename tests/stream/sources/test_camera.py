"""Cameras: a network camera on loopback through OpenCV, and what a machine's devices answer, by stand-ins for the kernel."""

import errno
import itertools
import os
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest

from stream.clock import ManualClock, PacedClock
from stream.errors import SourceError
from stream.messages import VideoFrame
from stream.sources import camera
from stream.sources.camera import Camera, CameraSource, cameras
from tests.stream.sources.mjpeg import MjpegServer, number, numbered

MS = 1_000_000


@pytest.fixture
def server() -> Iterator[MjpegServer]:
    with MjpegServer(numbered(), fps=20) as running:
        yield running


def opening_fails_with(device: int | str) -> str:
    with pytest.raises(SourceError) as caught:
        CameraSource(device)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# --- network cameras


def test_pictures_come_in_order_and_with_the_time_at_which_they_were_sent(server: MjpegServer) -> None:
    source = CameraSource(server.url)
    assert source.name == f"camera {server.url}"
    assert (source.live, source.scripted, source.provides, source.problems) == (True, False, {"video"}, [])
    start_ns = time.monotonic_ns()
    clock = PacedClock()
    frames = []
    for frame in itertools.islice(source.packets(clock), 30):
        frames.append(frame)
        sent_ns = server.sent_ns[number(frame.image)] - start_ns
        # The first ones waited while the stream was opened.
        assert -5 * MS < frame.t_ns - sent_ns < (50 if len(frames) > 5 else 300) * MS
    assert all(one.t_ns < other.t_ns for one, other in itertools.pairwise(frames))
    assert {(frame.image.shape, frame.image.dtype, frame.image.flags.c_contiguous) for frame in frames} == {
        ((48, 64, 3), np.dtype(np.uint8), True)
    }
    assert [number(frame.image) for frame in frames] == list(range(number(frames[0].image), number(frames[0].image) + 30))


def test_pictures_are_red_where_they_are_red() -> None:
    red = np.zeros((48, 64, 3), np.uint8)
    red[..., 0] = 200
    with MjpegServer([red], fps=20) as server:
        frame = next(CameraSource(server.url).packets(PacedClock()))
    assert frame.image.mean((0, 1)) == pytest.approx([200, 0, 0], abs=3)


def test_jpeg_comes_with_the_picture_as_it_was_sent(server: MjpegServer) -> None:
    for frame in itertools.islice(CameraSource(server.url).packets(PacedClock()), 10):
        assert frame.jpeg
        assert (frame.jpeg.t_ns, frame.jpeg.data) == (frame.t_ns, server.jpegs[number(frame.image)])


def test_a_stream_of_another_codec_is_decoded_as_ever(tmp_path: Path) -> None:
    blue = np.zeros((48, 64, 3), np.uint8)
    blue[..., 2] = 200
    with av.open(tmp_path / "film.mkv", "w") as container:
        film = container.add_stream("mpeg4", rate=20, width=64, height=48)
        for _ in range(5):
            container.mux(film.encode(av.VideoFrame.from_ndarray(blue, format="rgb24")))
        container.mux(film.encode(None))
    frames = list(itertools.islice(CameraSource(f"file://{tmp_path}/film.mkv").packets(PacedClock()), 5))
    assert {frame.jpeg for frame in frames} == {None}
    assert frames[0].image.mean((0, 1)) == pytest.approx([0, 0, 200], abs=8)


def test_damaged_pictures_are_left_out(server: MjpegServer) -> None:
    for index in range(0, len(server.jpegs), 2):
        server.jpegs[index] = server.jpegs[index][: 1 + index * len(server.jpegs[index]) // len(server.jpegs)]
    frames = list(itertools.islice(CameraSource(server.url).packets(PacedClock()), 20))
    assert [number(frame.image) for frame in frames] == list(range(number(frames[0].image), number(frames[0].image) + 40, 2))
    assert number(frames[0].image) % 2 == 1


def test_a_camera_that_gives_nothing_but_damaged_pictures_is_an_error(
    server: MjpegServer, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(camera, "_TIMEOUT_S", 1.0)
    frames = CameraSource(server.url).packets(PacedClock())
    next(frames)
    server.jpegs = [jpeg[:-100] for jpeg in server.jpegs]
    started_s = time.monotonic()
    with pytest.raises(SourceError, match="no more pictures; check"):
        list(frames)
    assert 0.9 < time.monotonic() - started_s < 3
    assert "it opens, but gives no picture" in opening_fails_with(server.url)
    assert capfd.readouterr().err == ""


def test_times_increase_where_the_clock_stands_still(server: MjpegServer) -> None:
    source = CameraSource(server.url)
    first = list(itertools.islice(source.packets(ManualClock()), 3))
    again = list(itertools.islice(source.packets(ManualClock()), 3))
    assert [frame.t_ns for frame in (*first, *again)] == list(range(6))


def test_who_looks_seldom_sees_the_present(server: MjpegServer) -> None:
    source = CameraSource(server.url)
    clock, start_ns = PacedClock(), time.monotonic_ns()
    newest: list[VideoFrame] = []

    def drain() -> None:
        for frame in source.packets(clock):
            newest[:] = [frame]

    reader = threading.Thread(target=drain, daemon=True)
    reader.start()
    for _ in range(4):
        time.sleep(0.4)  # as if each picture took that long to look at
        frame = newest[0]
        now_ns = time.monotonic_ns() - start_ns
        assert now_ns - frame.t_ns < 110 * MS
        assert frame.t_ns - (server.sent_ns[number(frame.image)] - start_ns) < 50 * MS
    source.close()
    reader.join(2)
    assert not reader.is_alive()


def test_a_camera_that_goes_away_is_an_error_and_can_come_back(server: MjpegServer) -> None:
    source = CameraSource(server.url)
    frames = source.packets(PacedClock())
    next(frames)
    server.stop()
    with pytest.raises(SourceError, match="no more pictures; check"):
        list(frames)
    with pytest.raises(SourceError, match="Connection refused; check"):
        next(source.packets(PacedClock()))
    server.start()
    assert len(list(itertools.islice(source.packets(PacedClock()), 5))) == 5


def test_a_camera_that_stalls_is_an_error(server: MjpegServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(camera, "_TIMEOUT_S", 1.0)
    frames = CameraSource(server.url).packets(PacedClock())
    next(frames)
    server.pause()
    started_s = time.monotonic()
    with pytest.raises(SourceError, match="no more pictures"):
        list(frames)
    assert 0.5 < time.monotonic() - started_s < 3


def test_a_closed_camera_ends_soon_and_stays_closed(server: MjpegServer) -> None:
    source = CameraSource(server.url)
    frames = source.packets(PacedClock())
    next(frames)
    closer = threading.Timer(0.2, source.close)
    closer.start()
    started_s = time.monotonic()
    assert all(isinstance(frame, VideoFrame) for frame in frames)
    assert time.monotonic() - started_s < 1
    assert list(source.packets(PacedClock())) == []


def test_an_address_that_is_wrong_is_one_line_with_the_reason(
    server: MjpegServer, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    assert "Server returned 404 Not Found; check the address" in opening_fails_with(server.url + "s")
    assert "Connection refused; check the address" in opening_fails_with("rtsp://127.0.0.1:9/stream")
    assert "there is no host camera.invalid" in opening_fails_with("rtsp://camera.invalid/stream")
    assert "Protocol not found" in opening_fails_with("foo://127.0.0.1/stream")
    assert "not an address" in opening_fails_with("rtsp://[::1/stream")
    monkeypatch.setattr(camera, "_TIMEOUT_S", 1.0)
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        assert "no pictures within 1 s" in opening_fails_with(f"http://127.0.0.1:{deaf.getsockname()[1]}/")
    assert capfd.readouterr().err == ""


def test_what_answers_without_pictures_is_named() -> None:
    with MjpegServer([np.zeros((48, 64, 3), np.uint8)], fps=20) as server:
        server.jpegs = [b"no picture"]
        started_s = time.monotonic()
        message = opening_fails_with(server.url)
    assert "it opens, but gives no picture" in message
    assert time.monotonic() - started_s < 12


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("rtsp://user:secret@127.0.0.1:9/a/b", "rtsp://127.0.0.1:9/a/b"),
        ("http://user:se/cr@et@127.0.0.1:9/a", "http://127.0.0.1:9/a"),
        ("rtsp://user:se#cr@et@127.0.0.1:9/a", "rtsp://…"),
        ("http://127.0.0.1:9/a?user=user&password=secret", "http://127.0.0.1:9/a?…"),
        ("http://127.0.0.1:9/a#password=secret", "http://127.0.0.1:9/a?…"),
    ],
)
def test_passwords_are_not_shown(url: str, shown: str) -> None:
    message = opening_fails_with(url)
    assert message.startswith(f"camera {shown}: ")
    assert "secret" not in message.replace("password in it", "")


# --- cameras of this machine


def test_devices_that_are_none_are_one_line_with_the_next_step(tmp_path: Path) -> None:
    assert "camera 63: there is no such camera; python -m stream.devices lists" in opening_fails_with(63)
    assert opening_fails_with("63") == opening_fails_with(63)
    assert "camera /dev/nothing: there is no such camera" in opening_fails_with("/dev/nothing")
    film = tmp_path / "talk.mp4"
    film.touch()
    for path in (film, tmp_path, Path("/dev/null")):
        assert "it is not a camera" in opening_fails_with(str(path))
        assert "--source FILE" in opening_fails_with(str(path))


class Kernel:
    """Answers what a video device is asked: an error number, or its capabilities, for each path."""

    def __init__(self, answers: dict[str, int | None], capabilities: int = 0x04000001, streaming: int | None = None) -> None:
        self._answers, self._capabilities, self._streaming = answers, capabilities, streaming

    def open(self, path: str, _: int) -> int:
        if (error := self._answers.get(path, errno.ENOENT)) is not None:
            raise OSError(error, os.strerror(error))
        return os.memfd_create("device")

    def ioctl(self, _: int, request: int, argument: bytearray) -> None:
        if request == camera._QUERYCAP:
            struct.pack_into("II", argument, 84, 0x84A00001, self._capabilities)
        elif self._streaming is not None:
            raise OSError(self._streaming, os.strerror(self._streaming))


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[Kernel], None]:
    for index, name in ((0, "Integrated Camera"), (1, "Integrated Camera"), (10, "USB camera")):
        (tmp_path / f"video{index}").mkdir()
        (tmp_path / f"video{index}" / "name").write_text(f"{name}\n")
    monkeypatch.setattr(camera, "_DEVICES", tmp_path)

    def put(stand_in: Kernel) -> None:
        monkeypatch.setattr(camera.os, "open", stand_in.open)
        monkeypatch.setattr(camera.fcntl, "ioctl", stand_in.ioctl)

    return put


def test_cameras_are_listed_with_what_is_in_their_way(kernel: Callable[[Kernel], None]) -> None:
    kernel(Kernel({"/dev/video0": None, "/dev/video1": errno.EACCES, "/dev/video10": None}))
    first, second, third = cameras()
    assert first == Camera(0, "/dev/video0", "Integrated Camera", None)
    assert (second.index, third.index) == (1, 10)
    assert second.obstacle is not None
    assert "group video" in second.obstacle


def test_devices_that_give_no_pictures_are_not_listed(kernel: Callable[[Kernel], None]) -> None:
    kernel(Kernel({"/dev/video0": None}, capabilities=0x00800000))  # a UVC camera's second device brings metadata alone
    assert [camera.index for camera in cameras()] == [1, 10]


@pytest.mark.parametrize(
    ("answer", "streaming", "line"),
    [
        (errno.EACCES, None, "camera 0: not permitted; join the group video"),
        (errno.EBUSY, None, "camera 0: another program uses it; close that"),
        (None, errno.EBUSY, "camera 0: another program uses it; close that"),
        (errno.ENODEV, None, "camera 0: there is no such camera"),
        (errno.EIO, None, "camera 0: it cannot be opened (Input/output error)"),
        (None, errno.EIO, "camera 0: it does not answer (Input/output error)"),
    ],
)
def test_what_is_in_the_way_is_one_line(
    kernel: Callable[[Kernel], None], answer: int | None, streaming: int | None, line: str
) -> None:
    kernel(Kernel({"/dev/video0": answer}, streaming=streaming))
    assert opening_fails_with(0).startswith(line)


def test_a_camera_that_opencv_cannot_read_is_said(kernel: Callable[[Kernel], None]) -> None:
    kernel(Kernel({"/dev/video63": None}))
    assert "OpenCV cannot read its pictures" in opening_fails_with(63)


class Driver:
    """Stands in for OpenCV's capture: JPEG pictures one after the other, as they are if that is asked for and granted."""

    def __init__(self, jpegs: Sequence[bytes], *, grants: bool) -> None:
        self._left, self._grants = iter(jpegs), grants
        self._settings = {cv2.CAP_PROP_FOURCC: cv2.VideoWriter.fourcc(*"YUYV"), cv2.CAP_PROP_CONVERT_RGB: 1}
        self._jpeg = b""

    def isOpened(self) -> bool:  # noqa: N802
        return True

    def set(self, setting: int, value: float) -> bool:
        if setting != cv2.CAP_PROP_FOURCC or self._grants:
            self._settings[setting] = int(value)
        return True

    def get(self, setting: int) -> float:
        return self._settings[setting]

    def grab(self) -> bool:
        self._jpeg = next(self._left, b"none")
        return self._jpeg != b"none"

    def retrieve(self) -> tuple[bool, Any]:
        row = np.frombuffer(self._jpeg, np.uint8)[None]
        if self._settings[cv2.CAP_PROP_CONVERT_RGB]:
            return True, cv2.imdecode(row, cv2.IMREAD_COLOR)
        assert self._settings[cv2.CAP_PROP_FOURCC] == cv2.VideoWriter.fourcc(*"MJPG")
        return True, row if row.size else None

    def release(self) -> None:
        pass


@pytest.mark.parametrize("grants", [True, False], ids=["JPEG", "another format"])
def test_a_device_is_asked_for_jpeg(kernel: Callable[[Kernel], None], monkeypatch: pytest.MonkeyPatch, grants: bool) -> None:
    kernel(Kernel({"/dev/video0": None}))
    with MjpegServer(numbered(), fps=20) as server:
        whole = server.jpegs[:8]
    sent = [*whole[:4], b"", whole[4][:-100], *whole[5:]] if grants else whole
    monkeypatch.setattr(cv2, "VideoCapture", lambda *_: Driver(sent, grants=grants))
    frames: list[VideoFrame] = []
    with pytest.raises(SourceError, match="camera 0: no more pictures"):
        frames.extend(CameraSource(0).packets(PacedClock()))
    assert [number(frame.image) for frame in frames] == ([0, 1, 2, 3, 5, 6, 7] if grants else list(range(8)))
    assert [frame.jpeg and frame.jpeg.data for frame in frames] == ([*whole[:4], *whole[5:]] if grants else [None] * 8)


def test_there_may_be_no_camera(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(camera, "_DEVICES", tmp_path / "none")
    assert cameras() == []
