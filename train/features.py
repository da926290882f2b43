"""Features of corpora, by the very extractors, lanes and windows that serve live.

What an item gives depends on what it is:

| content | features |
|---|---|
| text | `vectors` (N, 768): after each word, that of the words so far; with times also `ends_ns` (N,) and `length_ns` (1,) |
| sound, clip | `inputs` (T, 958): its windows by `stream.inputs.model_input`; `restart` (T,): where utterances begin |
| picture | `face` (N, 58): a row for each look at it in which a face was found |

So words without times can be spoken at any rate, and a face held for any time, without being read anew. A picture is looked at
several times, each time a little larger, smaller, turned or shifted, as by a camera over a few frames: a row of one look at a
small picture is noisy, and a window is the mean of several frames in life too.
"""

from collections.abc import Iterator
from functools import cache
from typing import Any, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt
import torch

from extractors.audio import CONTRACT as AUDIO
from extractors.errors import ExtractorError
from extractors.face import CONTRACT as FACE
from extractors.face import FaceExtractor
from extractors.sound import SAMPLE_NS
from extractors.text import CONTRACT as TEXT
from extractors.text import TextEmbedder
from stream.clock import UnpacedClock
from stream.config import Config
from stream.errors import SourceError, UsageError
from stream.inputs import NO_WORDS, model_input, spoken
from stream.messages import (
    END_NS,
    PARTS,
    AudioBlock,
    Lane,
    LaneUpdate,
    Packet,
    PartEnded,
    PartUnknown,
    VideoFrame,
    VoiceUpdate,
    Window,
)
from stream.parts import Input, Lanes, load_lanes
from stream.sources.media import MediaSource
from stream.windows import contracts
from train.items import Clip, Content, Picture, Sound, Text, read_bytes

Features = dict[str, npt.NDArray[Any]]
"""By name, as in the table above."""

_FRAME_PIXELS = 288  # a picture of nothing but a face is enlarged and framed, or the detector misses it
_APART_NS = 1_000_000_000  # between two pictures that have nothing to do with each other
_LOOK_NS = 40_000_000  # between two looks at one


class Look(NamedTuple):
    """How a picture lies in its frame: its side and how far it is shifted, in pixels, and how far it is turned, in degrees."""

    side: int
    right: int = 0
    down: int = 0
    turn: int = 0


# The same look twice: from the second on the face is tracked, no longer searched for.
_LOOKS = (Look(192), Look(192), Look(184, 3, -2), Look(200, -3, 2), Look(192, 2, 3, 3), Look(192, -2, -3, -3))


class NoFeatures(Exception):
    """An item has no features; the text is the reason, in a few words."""


def contract(content: Content, config: Config) -> str:
    """What the features of an item are made by, in one line: part of what they are stored under."""
    match content:
        case Text():
            return f"words {TEXT.tag}"
        case Picture():
            return f"face {FACE.tag}, {_FRAME_PIXELS} pixels, {[tuple(look) for look in _LOOKS]}"
        case Sound():
            return f"sound {AUDIO.tag}, {contracts(config.windows.hop_ns)['windows']}, {config.windows!r}"
        case Clip():
            return f"clip {contracts(config.windows.hop_ns)}, {config.asr!r}, {config.windows!r}"


class Extractors:
    """What features are made by, each loaded when first needed."""

    def __init__(self, config: Config) -> None:
        """Make windows as a session of that configuration does; its recogniser must be a certain one, not `auto`."""
        torch.set_num_threads(1)
        self._config = config
        self._faces: FaceExtractor | None = None
        self._face_ns = 0
        self._embedder = cache(TextEmbedder)

    def features(self, content: Content) -> Features:
        """The features of an item.

        Raises:
            NoFeatures: There are none, as where no face is found or a file is damaged.
            ExtractorError: An extractor cannot be had on this machine.
            DataError: A file cannot be read.
        """
        match content:
            case Text():
                return self._text(content)
            case Picture():
                return self._picture(content)
            case Sound(path):
                silent = self._config.model_copy(update={"asr": self._config.asr.model_copy(update={"engine": "none"})})
                return self._windows(Clip(path), silent)
            case Clip():
                return self._windows(content, self._config)

    def close(self) -> None:
        """Free models."""
        if self._faces:
            self._faces.close()

    def _text(self, text: Text) -> Features:
        embed = self._embedder().embed
        vectors = np.stack([embed(text.words[: count + 1]) for count in range(len(text.words))])  # (N, 768)
        found: Features = {"vectors": vectors}
        if text.ends_ns:
            found |= {"ends_ns": np.array(text.ends_ns, np.int64), "length_ns": np.array([text.length_ns], np.int64)}
        return found

    def _picture(self, picture: Picture) -> Features:
        encoded = np.frombuffer(read_bytes(picture.archive, picture.offset, picture.size), np.uint8)
        image = cv2.imdecode(encoded, cv2.IMREAD_COLOR_RGB) if len(encoded) else None
        if image is None:
            raise NoFeatures("not a picture that can be read")
        self._faces = self._faces or FaceExtractor()
        # Nothing in view ends the tracking of the face before, so that rows depend on their own picture alone.
        self._faces.push(self._face_ns, np.zeros((_FRAME_PIXELS, _FRAME_PIXELS, 3), np.uint8))
        self._face_ns += _APART_NS
        found = []
        for number, look in enumerate(_LOOKS):
            found.append(self._faces.push(self._face_ns + number * _LOOK_NS, _framed(image, look)).values)  # (0 or 1, 58)
        self._face_ns += _APART_NS
        rows = np.concatenate(found)
        if not len(rows):
            raise NoFeatures("no face found")
        return {"face": rows}

    def _windows(self, clip: Clip, config: Config) -> Features:
        try:
            source = MediaSource(str(clip.path))
        except SourceError as error:
            raise NoFeatures(str(error)) from error
        try:
            lanes = self._lanes(source, config)
            try:
                windows = list(windows_of(_packets(source, clip), lanes))
            finally:
                lanes.close()
        finally:
            source.close()
        if source.problems:
            raise NoFeatures("; ".join(source.problems))
        if not windows:
            raise NoFeatures("nothing in it")
        inputs, vector = [], NO_WORDS
        words: tuple[str, ...] = ()
        for window in windows:
            before, words = words, spoken(words, window)
            if words != before:
                vector = self._embedder().embed(words) if words else NO_WORDS
            inputs.append(model_input(window, vector))
        return {"inputs": np.stack(inputs), "restart": np.array([window.restart for window in windows])}  # (T, 958), (T,)

    def _lanes(self, source: MediaSource, config: Config) -> Lanes:
        """The lanes of a file; a live session goes on without what this machine lacks, but no features are kept without it."""
        try:
            lanes = load_lanes(config, Input("clip", (source,)), torch.device("cpu"), self._embedder)
        except UsageError as error:
            raise ExtractorError(str(error)) from error
        words = "audio" in source.provides and config.asr.engine != "none"
        wanted: dict[Lane, bool] = {"vision": "video" in source.provides, "audio": "audio" in source.provides, "text": words}
        if lacking := [why for lane, why in lanes.unavailable.items() if wanted[lane]]:
            lanes.close()
            raise ExtractorError("; ".join(lacking))
        return lanes


def _framed(image: npt.NDArray[Any], look: Look) -> npt.NDArray[np.uint8]:
    """A picture in a frame that goes on as its edges do, (`_FRAME_PIXELS`, `_FRAME_PIXELS`, 3)."""
    border, middle = (_FRAME_PIXELS - look.side) // 2, (_FRAME_PIXELS / 2, _FRAME_PIXELS / 2)
    large = cv2.resize(image, (look.side, look.side), interpolation=cv2.INTER_CUBIC)
    framed = cv2.copyMakeBorder(large, border, border, border, border, cv2.BORDER_REPLICATE)
    if look == Look(look.side):
        return framed.astype(np.uint8)
    change = cv2.getRotationMatrix2D(middle, look.turn, 1.0)
    change[:, 2] += look.right, look.down
    moved = cv2.warpAffine(framed, change, framed.shape[:2], flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return moved.astype(np.uint8)


def windows_of(packets: Iterator[Packet], lanes: Lanes) -> Iterator[Window]:
    """The windows that a session over these packets settles, without its threads and clock."""
    windows = lanes.windows

    def report(updates: "list[LaneUpdate]") -> None:
        for update in updates:
            windows.update(update)
            if lanes.text and (isinstance(update, VoiceUpdate) or (isinstance(update, PartUnknown) and update.part == "voice")):
                report(lanes.text.push(update))

    by_part = {"vision": lanes.vision, "audio": lanes.audio, "voice": lanes.audio, "text": lanes.text}
    for part in PARTS:
        if by_part[part] is None:
            report([PartUnknown(part, END_NS, "no such lane")])
    for packet in packets:
        if isinstance(packet, VideoFrame) and lanes.vision:
            report(lanes.vision.push(packet))
        elif isinstance(packet, AudioBlock) and lanes.audio:
            report(lanes.audio.push(packet))
        yield from windows.settle()
    for lane in (lanes.vision, lanes.audio, lanes.text):
        if lane:
            report(lane.finish())
    for part in PARTS:
        windows.update(PartEnded(part))
    yield from windows.settle()


def _packets(source: MediaSource, clip: Clip) -> Iterator[Packet]:
    """What of the file is in the clip, as if it began there; sound to the sample."""
    end_ns = END_NS if clip.end_ns is None else clip.end_ns
    for packet in source.packets(UnpacedClock()):
        if packet.t_ns >= end_ns:
            return
        match packet:
            case VideoFrame(t_ns, image) if t_ns >= clip.start_ns:
                yield VideoFrame(t_ns - clip.start_ns, image)
            case AudioBlock(t_ns, samples):
                first = max(0, -(-(clip.start_ns - t_ns) // SAMPLE_NS))
                inside = samples[first : (end_ns - t_ns) // SAMPLE_NS]
                if len(inside):
                    yield AudioBlock(t_ns + first * SAMPLE_NS - clip.start_ns, inside)
