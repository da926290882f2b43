"""A camera: one of this machine's, or a network stream (RTSP, MJPEG over HTTP), read with OpenCV.

Pictures that come as JPEG are decoded here, so that they can be recorded as they came; FFmpeg would also take longer.

Sources: https://docs.opencv.org/5.x/d8/dfe/classcv_1_1VideoCapture.html, and for the questions that are put to a device itself
https://docs.kernel.org/userspace-api/media/v4l/user-func.html
"""

import errno
import fcntl
import os
import socket
import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import numpy as np

from stream.clock import Clock, ManualClock
from stream.errors import SourceError
from stream.messages import Coded, VideoFrame
from stream.pictures import JPEG, decode_jpeg
from stream.sources.source import Provides, without_secrets

if TYPE_CHECKING:
    import cv2
    from cv2.typing import MatLike

_DEVICES = Path("/sys/class/video4linux")
_TIMEOUT_S = 5.0  # to open a network stream, for each read from a stream or a device, and for a picture that is whole
_MJPG = int.from_bytes(b"MJPG", "little")  # OpenCV's name of a row of JPEG pictures
_LIST = "python -m stream.devices lists those there are"

# linux/videodev2.h
_QUERYCAP, _CAPABILITY_BYTES, _DEVICE_CAPS_AT = 0x80685600, 104, 88
_VIDEO_CAPTURE = 0x1
_REQBUFS, _REQUEST = 0xC0145608, struct.Struct("5I")  # count, type, memory, and what the driver fills in
_TYPE_CAPTURE, _MEMORY_MMAP = 1, 1


@dataclass(frozen=True)
class Camera:
    """A camera of this machine.

    Attributes:
        index: What `CameraSource` takes.
        path: The device.
        name: What the driver calls it.
        obstacle: Why it cannot be opened now; None if it can.
    """

    index: int
    path: str
    name: str
    obstacle: str | None


def cameras() -> list[Camera]:
    """The cameras of this machine by index, without the devices that give no pictures."""
    found = []
    for folder in _DEVICES.glob("video*"):
        index = int(folder.name.removeprefix("video"))
        obstacle = _obstacle(_path(index))
        if obstacle != _NO_CAMERA:
            found.append(Camera(index, _path(index), (folder / "name").read_text(encoding="utf-8").strip(), obstacle))
    return sorted(found, key=lambda camera: camera.index)


class CameraSource:
    """Pictures from one camera, each stamped as it is taken from the driver or the network.

    OpenCV hands out old pictures unless it is asked all the time: `packets` is that asking. Whoever iterates must take each
    picture at once, and give up what it has no time for.

    Example:
        source = CameraSource(0)  # or "/dev/video2", "rtsp://user:password@host/stream", "http://host:8080/video"
        for frame in source.packets(clock): ...
    """

    scripted = False
    live = True
    provides: frozenset[Provides] = frozenset({"video"})

    def __init__(self, device: int | str) -> None:
        """Open the camera, look at a picture, and close it again.

        Args:
            device: An index, as a number or in digits; the path of a device; or the URL of a stream.

        Raises:
            SourceError: There is no such camera, or it gives no pictures, or not to us.
        """
        self.problems: list[str] = []
        self._last_ns = -1
        self._closed = False
        self._url = device if isinstance(device, str) and "://" in device else None
        self._device = str(device)
        self.name = f"camera {without_secrets(self._device)}"
        if self._device.isdecimal():
            self._device = _path(int(device))
        capture = self._open()
        try:
            if self._look(capture, ManualClock()) is None:
                raise SourceError(f"{self.name}: it opens, but gives no picture; check it with another program")
        finally:
            capture.release()

    def packets(self, clock: Clock) -> Iterator[VideoFrame]:
        """Pictures until the source is closed; see `Source.packets`. Times increase strictly."""
        capture = self._open()
        try:
            while not self._closed:
                frame = self._look(capture, clock)
                if frame:
                    self._last_ns = frame.t_ns
                    yield frame
                elif not self._closed:
                    raise SourceError(f"{self.name}: no more pictures; check that it is on and connected")
        finally:
            capture.release()

    def close(self) -> None:
        """Let `packets` end after the read that it is in, which takes `_TIMEOUT_S` if the camera has stalled."""
        self._closed = True

    def _look(self, capture: "cv2.VideoCapture", clock: Clock) -> VideoFrame | None:
        """The next picture that is whole, stamped as it is grabbed; None if none comes in time.

        A cable or a network that is at its limit cuts pictures short now and then, and those after them are whole.
        """
        begun_s = time.monotonic()
        while capture.grab():
            t_ns = max(self._last_ns + 1, clock.now_ns())
            frame = _picture(t_ns, capture.retrieve()[1])
            if frame or time.monotonic() - begun_s > _TIMEOUT_S:
                return frame
        return None

    def _open(self) -> "cv2.VideoCapture":
        """The opened device or stream; raises SourceError."""
        cv2 = _opencv()
        if self._url:
            timeout_ms = round(_TIMEOUT_S * 1000)
            settings = {
                cv2.CAP_PROP_OPEN_TIMEOUT_MSEC: timeout_ms,
                cv2.CAP_PROP_READ_TIMEOUT_MSEC: timeout_ms,
                cv2.CAP_PROP_N_THREADS: 1,  # each further thread of the decoder holds back one more picture
            }
            started_s = time.monotonic()
            capture = cv2.VideoCapture(self._url, cv2.CAP_FFMPEG, [number for pair in settings.items() for number in pair])
            if not capture.isOpened():
                raise SourceError(f"{self.name}: {_silence(self._url, time.monotonic() - started_s)}")
            if capture.get(cv2.CAP_PROP_FOURCC) == _MJPG:
                capture.set(cv2.CAP_PROP_FORMAT, -1)  # the packets as they come
            return capture
        if obstacle := _obstacle(self._device):
            raise SourceError(f"{self.name}: {obstacle}")
        capture = cv2.VideoCapture(self._device, cv2.CAP_V4L2)
        if not capture.isOpened():
            raise SourceError(f"{self.name}: OpenCV cannot read its pictures; check it with another program")
        # One buffer to read from while the driver fills the other; with one alone every second picture would be missed.
        capture.set(cv2.CAP_PROP_BUFFERSIZE, 2)
        capture.set(cv2.CAP_PROP_FOURCC, _MJPG)
        if capture.get(cv2.CAP_PROP_FOURCC) == _MJPG:  # a driver that has none chooses another format
            capture.set(cv2.CAP_PROP_CONVERT_RGB, 0)  # the buffers as they come
        return capture


def _picture(t_ns: int, found: "MatLike | None") -> VideoFrame | None:
    """What OpenCV has found, a picture in BGR or the bytes of a JPEG in a row; None if that is nothing, or damaged."""
    import cv2

    if found is None:
        return None
    if found.ndim == 3:
        return VideoFrame(t_ns, cv2.cvtColor(found, cv2.COLOR_BGR2RGB).astype(np.uint8, copy=False))
    try:
        return decode_jpeg(Coded(t_ns, JPEG, found.tobytes()))
    except SourceError:
        return None


def _opencv() -> ModuleType:
    """OpenCV, and FFmpeg in it, set to keep what they would write to the standard error to themselves."""
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    os.environ.setdefault("OPENCV_VIDEOIO_V4L_SELECT_TIMEOUT", f"{_TIMEOUT_S:.0f}")
    import cv2

    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    return cv2


# --- cameras of this machine

_NO_CAMERA = f"it is not a camera; {_LIST}, and a media file is given as --source FILE"
_BUSY = "another program uses it; close that (fuser -v tells which it is)"


def _path(index: int) -> str:
    return f"/dev/video{index}"


def _obstacle(path: str) -> str | None:
    """Why a device cannot be opened for pictures now, and what to do; None if it can.

    OpenCV does not tell why it failed, and tries for a long time to open a camera that is in use.
    """
    try:
        device = os.open(path, os.O_RDWR | os.O_NONBLOCK)
    except OSError as error:
        match error.errno:
            case errno.ENOENT | errno.ENODEV | errno.ENXIO:
                return f"there is no such camera; {_LIST}"
            case errno.EACCES | errno.EPERM:
                return "not permitted; join the group video (sudo usermod -aG video $USER) and log in again"
            case errno.EBUSY:
                return _BUSY
            case errno.EISDIR | errno.ENOTDIR:
                return _NO_CAMERA
            case _:
                return f"it cannot be opened ({error.strerror}); {_LIST}"
    try:
        about = bytearray(_CAPABILITY_BYTES)
        fcntl.ioctl(device, _QUERYCAP, about)
        if not struct.unpack_from("I", about, _DEVICE_CAPS_AT)[0] & _VIDEO_CAPTURE:
            return _NO_CAMERA
        # No buffers are wanted; the driver refuses even that while another program has some.
        fcntl.ioctl(device, _REQBUFS, bytearray(_REQUEST.pack(0, _TYPE_CAPTURE, _MEMORY_MMAP, 0, 0)))
    except OSError as error:
        match error.errno:
            case errno.ENOTTY | errno.EINVAL:
                return _NO_CAMERA
            case errno.EBUSY:
                return _BUSY
            case _:
                return f"it does not answer ({error.strerror}); plug it out and in again"
    finally:
        os.close(device)
    return None


# --- network streams


def _silence(url: str, waited_s: float) -> str:
    """Why a stream could not be opened, and what to do; OpenCV does not tell."""
    check = "check the address, with the user and password in it, and that the camera is on"
    if waited_s >= _TIMEOUT_S:
        return f"no pictures within {_TIMEOUT_S:.0f} s; {check}"
    import av
    import av.error

    try:
        host = urlsplit(url).hostname
        if host:
            socket.getaddrinfo(host, None)
        av.open(url, timeout=_TIMEOUT_S).close()
    except ValueError:
        return f"not an address; {check}"
    except socket.gaierror:
        return f"there is no host {host}; {check}"
    except av.error.FFmpegError as error:
        return f"{error.strerror}; {check}"
    return f"it answers, but not with pictures; {check}"
