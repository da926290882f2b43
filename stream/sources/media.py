"""A media file or URL, read with PyAV: video and audio by their presentation times.

Source: https://pyav.basswood-io.com/docs/stable/
"""

import heapq
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import count
from pathlib import Path

import av
import av.error
from av.audio.resampler import AudioResampler
from av.audio.stream import AudioStream
from av.bitstream import BitStreamFilterContext
from av.stream import Disposition
from av.video.stream import VideoStream

from extractors.sound import SAMPLE_NS, SAMPLE_RATE
from stream.clock import Clock
from stream.errors import SourceError
from stream.messages import AudioBlock, Coded, Packet, VideoFrame
from stream.pictures import upright
from stream.sources.source import Provides, without_secrets

_GAP_NS = 40_000_000  # audio times that differ by less from a steady count are the container's rounding
_SHORT_NS = 500_000_000  # a file that ends so much before its announced end was cut
_LOOK_AHEAD_NS = 1_000_000_000  # how long decoded packets may wait for another stream to catch up
_ANNEX_B = ("h264", "hevc")
_TIMEOUT_S = (10.0, 10.0)  # to open a network stream, and for each read from it


class MediaSource:
    """One media file or URL: its first video and its first audio stream."""

    scripted = live = False

    def __init__(self, location: str) -> None:
        """Open it and look which streams there are.

        Raises:
            SourceError: There is no such file, it is no media file, or it has neither video nor audio.
        """
        shown = without_secrets(location)
        self.name = shown if "://" in location else Path(location).name
        self.problems: list[str] = []
        try:
            self._container = av.open(location, timeout=_TIMEOUT_S, metadata_errors="replace")
        except av.error.FFmpegError as error:
            raise SourceError(f"{shown}: {_explain(location, error)}") from error
        # FFmpeg takes any text file for a picture of a terminal, and the cover of an album for a video.
        streams = () if self._container.format.name == "tty" else self._container.streams
        pictures = [s for s in streams if isinstance(s, VideoStream) and not s.disposition & Disposition.attached_pic]
        sounds = [s for s in streams if isinstance(s, AudioStream)]
        self._streams: list[VideoStream | AudioStream] = [*pictures[:1], *sounds[:1]]
        if not self._streams:
            self._container.close()
            raise SourceError(f"{shown}: no video and no audio in it; give a media file such as talk.mp4")
        self.provides: frozenset[Provides] = frozenset(
            "video" if isinstance(stream, VideoStream) else "audio" for stream in self._streams
        )
        self._reading = self._closed = False
        self.tap: Callable[[Coded], object] | None = None  # is given the video as it is coded
        start_us = self._container.start_time
        self._origin_ns = None if start_us is None else max(0, start_us) * 1000

    def packets(self, clock: Clock) -> Iterator[Packet]:
        """Pictures and sound in time order; see `Source.packets`."""
        self._reading = True
        waiting: list[tuple[int, int, Packet | Picture]] = []
        numbers = count()
        reached_ns = {stream.index: -1 for stream in self._streams}
        try:
            for stream, packet in self._decode():
                reached_ns[stream] = packet.t_ns
                heapq.heappush(waiting, (packet.t_ns, next(numbers), packet))
                due_ns = max(min(reached_ns.values()), max(reached_ns.values()) - _LOOK_AHEAD_NS)
                while waiting and waiting[0][0] <= due_ns:
                    yield _ready(heapq.heappop(waiting)[2])
            while waiting:
                yield _ready(heapq.heappop(waiting)[2])
        finally:
            self._container.close()

    def close(self) -> None:
        """Close the file; while it is being read, its reader does, as FFmpeg must not be closed under it."""
        self._closed = True
        if not self._reading:
            self._container.close()

    def _decode(self) -> Iterator[tuple[int, "AudioBlock | Picture"]]:
        """All packets, each with its stream's number, in the order of decoding, up to where the file ends."""
        sound, coding = _Sound(), _Coding(self.tap) if self.tap else None
        damaged, end_ns, broken = 0, 0, ""
        chunks = self._container.demux(self._streams)
        while not self._closed:
            try:
                chunk = next(chunks)
            except StopIteration:
                break
            except av.error.FFmpegError as error:
                broken = error.strerror or type(error).__name__
                break
            if coding and isinstance(chunk.stream, VideoStream):
                coding.push(chunk, 0 if chunk.pts is None else self._since_start_ns(chunk.pts, chunk.time_base))
            try:
                frames = chunk.decode()
            except av.error.FFmpegError:
                damaged += 1
                continue
            if coding and frames and isinstance(frames[0], av.VideoFrame):
                coding.show(_turns(frames[0]))
            for frame in frames:
                if not isinstance(frame, av.VideoFrame | av.AudioFrame) or (t_ns := self._time(frame)) is None:
                    damaged += 1
                elif isinstance(frame, av.VideoFrame):
                    end_ns = max(end_ns, t_ns + _nanoseconds(frame.duration, frame.time_base))
                    if t_ns >= 0:
                        yield chunk.stream.index, Picture(t_ns, frame)
                else:
                    end_ns = max(end_ns, t_ns + frame.samples * 1_000_000_000 // frame.sample_rate)
                    for block in sound.push(t_ns, frame):
                        yield chunk.stream.index, block
        for block in sound.finish():
            yield self._streams[-1].index, block
        announced_ns = max(_nanoseconds(stream.duration, stream.time_base) for stream in self._streams)
        if not announced_ns:  # Matroska tells only of the whole
            announced_ns = _nanoseconds(self._container.duration, Fraction(1, av.time_base))
        if self._closed:
            return
        if announced_ns - end_ns > _SHORT_NS:
            self.problems.append(
                f"{self.name}: cut short at {end_ns / 1e9:.1f} s of {announced_ns / 1e9:.1f} s; what could be read was "
                "analysed, get the whole file for the rest"
            )
        elif broken:
            self.problems.append(f"{self.name}: broke off at {end_ns / 1e9:.1f} s ({broken}); what came before was analysed")
        elif damaged:
            self.problems.append(f"{self.name}: {damaged} damaged packets were skipped; get an undamaged file for the rest")

    def _time(self, frame: av.VideoFrame | av.AudioFrame) -> int | None:
        """Presentation time since the file's start; negative for what lies before it, None if the frame has none."""
        return None if frame.pts is None else self._since_start_ns(frame.pts, frame.time_base)

    def _since_start_ns(self, pts: int, tick_s: Fraction | None) -> int:
        t_ns = _nanoseconds(pts, tick_s)
        if self._origin_ns is None:  # a live stream that does not say where it starts
            self._origin_ns = t_ns
        return t_ns - self._origin_ns


def _nanoseconds(ticks: int | None, tick_s: Fraction | None) -> int:
    """A time of the container, 0 if it does not say."""
    return round((ticks or 0) * (tick_s or 0) * 1_000_000_000)


@dataclass(frozen=True, eq=False)
class Picture:
    """A decoded video frame, not yet turned into the large RGB array."""

    t_ns: int
    frame: av.VideoFrame


def _ready(packet: Packet | Picture) -> Packet:
    if not isinstance(packet, Picture):
        return packet
    return VideoFrame(packet.t_ns, upright(packet.frame, _turns(packet.frame)))


def _turns(frame: av.VideoFrame) -> int:
    return round(frame.rotation / 90) % 4


class _Coding:
    """Hands on packets of video as they come, with start codes where the container has lengths instead."""

    def __init__(self, take: Callable[[Coded], object]) -> None:
        self._take = take
        self._filter: BitStreamFilterContext | None = None
        self._begun = False
        self._waiting: list[Coded] = []  # until a picture has shown how it is turned
        self._turns: int | None = None

    def push(self, chunk: av.Packet, t_ns: int) -> None:
        """Take a packet before it is decoded."""
        if not chunk.size:  # the end
            return
        codec = chunk.stream.codec_context
        if not self._begun:
            self._begun = True
            if codec.name in _ANNEX_B and (codec.extradata or b"")[:1] == b"\x01":
                self._filter = BitStreamFilterContext(f"{codec.name}_mp4toannexb", chunk.stream)
        extradata = b"" if self._filter else codec.extradata or b""
        for packet in self._filter.filter(_copy(chunk)) if self._filter else [chunk]:
            self._waiting.append(Coded(t_ns, codec.name, bytes(packet), extradata, 0, chunk.is_keyframe))
        if self._turns is not None:
            self.show(self._turns)

    def show(self, turns: int) -> None:
        """A picture was decoded that is turned so."""
        self._turns = turns
        for coded in self._waiting:
            self._take(replace(coded, turns=turns))
        self._waiting.clear()


def _copy(chunk: av.Packet) -> av.Packet:
    """A filter keeps what it is given."""
    copy = av.Packet(bytes(chunk))
    copy.pts, copy.dts, copy.time_base, copy.is_keyframe = chunk.pts, chunk.dts, chunk.time_base, chunk.is_keyframe
    return copy


class _Sound:
    """Resamples to 16 kHz mono and counts samples, so that neighbouring blocks meet exactly; a real gap starts a new count."""

    def __init__(self) -> None:
        self._resampler: AudioResampler | None = None
        self._format: tuple[str, str, int] | None = None
        self._next_in_ns = 0
        self._next_out_ns = 0

    def push(self, t_ns: int, frame: av.AudioFrame) -> Iterator[AudioBlock]:
        """Take a decoded frame that starts at `t_ns`."""
        same = self._format == (frame.format.name, frame.layout.name, frame.sample_rate)
        if self._resampler is None or not same or abs(t_ns - self._next_in_ns) > _GAP_NS:
            yield from self.finish()
            self._resampler = AudioResampler(format="s16", layout="mono", rate=SAMPLE_RATE)
            self._format = (frame.format.name, frame.layout.name, frame.sample_rate)
            self._next_in_ns = t_ns
            # Whole samples since the session began; never before what has been given out.
            self._next_out_ns = max(round(t_ns / SAMPLE_NS) * SAMPLE_NS, self._next_out_ns)
        self._next_in_ns += frame.samples * 1_000_000_000 // frame.sample_rate
        frame.pts = None  # the count below is the time; the resampler's own idea of it is not asked for
        yield from self._blocks(self._resampler.resample(frame))

    def finish(self) -> Iterator[AudioBlock]:
        """Give out what the resampler still holds."""
        if self._resampler is not None:
            yield from self._blocks(self._resampler.resample(None))
        self._resampler = None

    def _blocks(self, frames: list[av.AudioFrame]) -> Iterator[AudioBlock]:
        for frame in frames:
            samples = frame.to_ndarray()[0]  # (N,)
            start_ns = self._next_out_ns
            self._next_out_ns += len(samples) * SAMPLE_NS
            early = min(len(samples), max(0, -start_ns // SAMPLE_NS))  # before the file's start: an encoder's run-up
            if early < len(samples):
                yield AudioBlock(start_ns + early * SAMPLE_NS, samples[early:])


def _explain(location: str, error: av.error.FFmpegError) -> str:
    """Why it could not be opened, and what to do."""
    if isinstance(error, FileNotFoundError):
        return "no such file; check the path, or give demo for the bundled session"
    if isinstance(error, IsADirectoryError):
        return "a folder; give one media file in it"
    if isinstance(error, av.error.InvalidDataError):
        path = Path(location)
        if path.is_file() and path.open("rb").read(12)[4:8] == b"ftyp":
            return "an mp4 without its index, as when a copy was cut short; nothing in it can be read, copy it again"
        return "not a media file that FFmpeg can read; give a file such as talk.mp4"
    return f"cannot be opened ({error.strerror}); check the address and the permissions"
