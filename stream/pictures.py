"""Coded video and back: single pictures as JPEG by OpenCV, and packets of any codec by PyAV, in the way it came."""

from collections.abc import Iterator

import av
import av.error
import numpy as np
import numpy.typing as npt
from av.video.codeccontext import VideoCodecContext

from stream.errors import SourceError
from stream.messages import Coded, VideoFrame

JPEG = "jpeg"
_QUALITY = 95


def encode_jpeg(frame: VideoFrame) -> Coded:
    """A picture, coded by itself; some detail is lost."""
    import cv2

    done, data = cv2.imencode(".jpg", frame.image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
    if not done:
        raise ValueError("OpenCV cannot code the picture")
    return Coded(frame.t_ns, JPEG, data.tobytes())


def decode_jpeg(coded: Coded) -> VideoFrame:
    """Such a picture; raises SourceError."""
    import cv2

    image = cv2.imdecode(np.frombuffer(coded.data, np.uint8), cv2.IMREAD_COLOR_RGB)
    if image is None:
        raise SourceError(f"the picture at {coded.t_ns / 1e9:.2f} s cannot be decoded")
    return VideoFrame(coded.t_ns, image.astype(np.uint8, copy=False), coded)


def upright(frame: av.VideoFrame, turns: int) -> npt.NDArray[np.uint8]:
    """A picture, RGB (H, W, 3), turned by so many times 90 degrees against the clock: a phone held upright stores it lying."""
    image = frame.to_ndarray(format="rgb24").astype(np.uint8, copy=False)
    return np.ascontiguousarray(np.rot90(image, turns))


def _decoder(name: str) -> VideoCodecContext:
    try:
        codec = av.CodecContext.create(name, "r")
    except (ValueError, av.error.FFmpegError) as error:
        raise SourceError(f"video coded as {name} cannot be decoded here") from error
    assert isinstance(codec, VideoCodecContext)
    return codec


class Decoder:
    """Decodes coded video, packet by packet."""

    def __init__(self) -> None:
        """Nothing has come; the first packet says what it is."""
        self._codec: VideoCodecContext | None = None
        self._turns = 0

    def push(self, coded: Coded) -> Iterator[VideoFrame]:
        """The pictures that can be had now, in the order of view."""
        if coded.format == JPEG:
            yield decode_jpeg(coded)
            return
        if self._codec is None:
            self._codec = _decoder(coded.format)
            if coded.extradata:
                self._codec.extradata = coded.extradata
        self._turns = coded.turns
        packet = av.Packet(coded.data)
        packet.pts = coded.t_ns
        yield from self._frames(packet)

    def finish(self) -> Iterator[VideoFrame]:
        """Those that were held back."""
        if self._codec is not None:
            yield from self._frames(None)

    def _frames(self, packet: av.Packet | None) -> Iterator[VideoFrame]:
        assert self._codec is not None
        try:
            frames = self._codec.decode(packet)
        except av.error.FFmpegError:  # as when the packets that it refers to were not recorded
            return
        for frame in frames:
            if frame.pts is not None:
                yield VideoFrame(frame.pts, upright(frame, self._turns))
