"""Lanes: packets in event time to feature rows, voice activity and words, each with its watermark.

Plain synchronous objects, the same live and offline; the session gives each its thread. The audio lane's voice updates are also
what the text lane hears.
"""

from collections.abc import Sequence
from typing import Protocol, TypeVar

from extractors.asr.recogniser import Recogniser, Word
from extractors.audio import AudioExtractor
from extractors.contract import FeatureRows
from extractors.face import FaceExtractor
from extractors.text import normalise
from extractors.vad import VoiceActivity, VoiceChunk
from stream.messages import (
    AudioBlock,
    LaneUpdate,
    RowsUpdate,
    Transcript,
    VideoFrame,
    VisionRows,
    VoiceUpdate,
    WordsUpdate,
)

T_contra = TypeVar("T_contra", contravariant=True)


class LaneLike(Protocol[T_contra]):
    """What every lane is."""

    def push(self, packet: T_contra) -> Sequence[LaneUpdate]:
        """Take the next packet and return what is known now."""
        ...

    def finish(self) -> Sequence[LaneUpdate]:
        """Return what was still open when the packets ended."""
        ...

    def close(self) -> None:
        """Free models and processes."""
        ...


class VisionLane:
    """Pictures to face rows."""

    def __init__(self, extractor: FaceExtractor | None) -> None:
        """Use `extractor`, which this lane closes; None if the source brings the rows."""
        self._extractor = extractor

    def push(self, packet: VideoFrame | VisionRows) -> list[RowsUpdate]:
        """Look at the next picture, or take the next rows."""
        if isinstance(packet, VisionRows):
            return [RowsUpdate("vision", packet.rows, packet.t_ns)]
        assert self._extractor is not None
        return [RowsUpdate("vision", self._extractor.push(packet.t_ns, packet.image), packet.t_ns + 1)]

    def finish(self) -> list[RowsUpdate]:
        """Nothing is ever open."""
        return []

    def close(self) -> None:
        """Free the extractor."""
        if self._extractor:
            self._extractor.close()


class AudioLane:
    """Sound to acoustic rows and voice activity."""

    def __init__(self) -> None:
        """Load the voice detector; raises `extractors.errors.Unavailable`."""
        self._extractor = AudioExtractor()
        self._voice = VoiceActivity()

    def push(self, packet: AudioBlock) -> list[LaneUpdate]:
        """Hear the next block."""
        rows = self._extractor.push(packet.t_ns, packet.samples)
        return self._updates(rows, self._voice.push(packet.t_ns, packet.samples))

    def finish(self) -> list[LaneUpdate]:
        """Report what was still open when the sound ended."""
        return self._updates(self._extractor.close(), self._voice.close())

    def close(self) -> None:
        """Nothing to free."""

    def _updates(self, rows: FeatureRows, chunks: list[VoiceChunk]) -> list[LaneUpdate]:
        return [
            RowsUpdate("audio", rows, self._extractor.watermark_ns),
            VoiceUpdate(tuple(chunks), self._voice.watermark_ns),
        ]


class TextLane:
    """Voice chunks to words, or words that a source brings to the same updates."""

    def __init__(self, recogniser: Recogniser | None) -> None:
        """Use `recogniser`, which this lane closes; None if the source brings the words."""
        self._recogniser = recogniser

    def push(self, packet: Transcript | VoiceUpdate) -> list[WordsUpdate]:
        """Take the next words, or hear the next chunks."""
        if isinstance(packet, Transcript):
            return [WordsUpdate(_spoken(packet.words), (), packet.t_ns)]
        if self._recogniser is None or not packet.chunks:
            return []
        parts = [self._recogniser.push(chunk) for chunk in packet.chunks]
        final = tuple(word for part in parts for word in part.final)
        return [WordsUpdate(_spoken(final), _spoken(parts[-1].provisional), parts[-1].watermark_ns)]

    def finish(self) -> list[WordsUpdate]:
        """Report the words that were still open when the sound ended."""
        if self._recogniser is None:
            return []
        rest = self._recogniser.finish()
        return [WordsUpdate(_spoken(rest.final), (), rest.watermark_ns)]

    def close(self) -> None:
        """Free the recogniser."""
        if self._recogniser:
            self._recogniser.close()


def _spoken(words: tuple[Word, ...]) -> tuple[Word, ...]:
    """The words without recognisers' marks for noise and pauses."""
    return tuple(word for word in words if normalise(word.text))
