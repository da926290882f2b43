"""Lanes: packets in event time to feature rows, voice activity and words, each with its watermark.

Plain synchronous objects, the same live and offline; the session gives each its thread. The audio lane's voice updates are also
what the text lane hears. A gap in the input is known to be one: what was open before it is closed, and the watermark moves on.
"""

from collections.abc import Sequence
from typing import Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from extractors.asr.recogniser import Recogniser, Recognition, Word
from extractors.audio import AudioExtractor
from extractors.contract import FeatureRows
from extractors.face import FaceExtractor
from extractors.sound import SAMPLE_NS, continues
from extractors.text import normalise
from extractors.vad import VoiceActivity, VoiceChunk
from stream.messages import (
    AudioBlock,
    Gap,
    LaneUpdate,
    PartUnknown,
    RowsUpdate,
    Transcript,
    VideoFrame,
    VisionRows,
    VoiceUpdate,
    WordsUpdate,
)

HOLE = "a gap in the sound"
SKIPPED = "recognition fell behind"

T_contra = TypeVar("T_contra", contravariant=True)


class LaneLike(Protocol[T_contra]):
    """What every lane is."""

    def push(self, packet: T_contra, *, behind: bool = False) -> Sequence[LaneUpdate]:
        """Take the next packet and return what is known now; `behind` asks to leave out what does not have to be done."""
        ...

    def skip(self, packet: T_contra, reason: str) -> Sequence[LaneUpdate]:
        """Let a packet pass unseen, and say why what was in it will stay unknown."""
        ...

    def finish(self) -> Sequence[LaneUpdate]:
        """Return what was still open when the packets ended."""
        ...

    def close(self) -> None:
        """Free models and processes, from any thread."""
        ...


class VisionLane:
    """Pictures to face rows.

    Attributes:
        view: The last picture, RGB (H, W, 3), and the face's outline as in `FaceExtractor`; None if it was not looked at.
    """

    def __init__(self, extractor: FaceExtractor | None) -> None:
        """Use `extractor`, which this lane closes; None if the source brings the rows."""
        self._extractor = extractor
        self.view: tuple[npt.NDArray[np.uint8], npt.NDArray[np.float32] | None] | None = None

    def push(self, packet: VideoFrame | VisionRows | Gap, *, behind: bool = False) -> list[LaneUpdate]:
        """Look at the next picture, or take the next rows."""
        match packet:
            case Gap():
                return self.skip(packet, packet.reason)
            case VisionRows(t_ns, rows):
                return [RowsUpdate("vision", rows, t_ns)]
            case VideoFrame(t_ns, image):
                assert self._extractor is not None
                rows = self._extractor.push(t_ns, image)
                self.view = image, self._extractor.outline
                return [RowsUpdate("vision", rows, t_ns + 1)]

    def skip(self, packet: VideoFrame | VisionRows | Gap, reason: str) -> list[LaneUpdate]:
        """Let a picture pass unseen."""
        self.view = None
        return [PartUnknown("vision", packet.t_ns + isinstance(packet, VideoFrame), reason)]

    def finish(self) -> list[LaneUpdate]:
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
        self._end_ns = 0  # of the last block

    def push(self, packet: AudioBlock | Gap, *, behind: bool = False) -> list[LaneUpdate]:
        """Hear the next block."""
        if isinstance(packet, Gap):
            return self.skip(packet, packet.reason)
        missing: list[LaneUpdate] = []
        if self._end_ns and not continues(packet.t_ns, self._end_ns):
            missing = self.skip(Gap("audio", packet.t_ns, HOLE), HOLE)
        rows = self._extractor.push(packet.t_ns, packet.samples)
        self._end_ns = packet.t_ns + len(packet.samples) * SAMPLE_NS
        return [*missing, *self._updates(rows, self._voice.push(packet.t_ns, packet.samples))]

    def skip(self, packet: AudioBlock | Gap, reason: str) -> list[LaneUpdate]:
        """Let a block pass unheard; what was heard before it is complete."""
        open_updates = self.finish() if self._end_ns else []
        end_ns = packet.t_ns + (len(packet.samples) * SAMPLE_NS if isinstance(packet, AudioBlock) else 0)
        self._end_ns = max(self._end_ns, end_ns)
        return [*open_updates, PartUnknown("audio", end_ns, reason), PartUnknown("voice", end_ns, reason)]

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
        self._heard_ns = 0  # where the last chunk or gap ended

    def push(self, packet: Transcript | VoiceUpdate | PartUnknown, *, behind: bool = False) -> list[LaneUpdate]:
        """Take the next words, or hear the next chunks, or learn that there is nothing to hear."""
        if isinstance(packet, Transcript):
            return [WordsUpdate(_spoken(packet.words), (), packet.t_ns)]
        if self._recogniser is None:
            return []
        if isinstance(packet, PartUnknown):
            return self.skip(packet, packet.reason)
        updates: list[LaneUpdate] = []
        for chunk in packet.chunks:
            if chunk.t_ns - self._heard_ns >= SAMPLE_NS and self._heard_ns:
                updates += [*self.finish(), PartUnknown("text", chunk.t_ns, SKIPPED)]
            self._heard_ns = chunk.end_ns
            updates.append(_update(self._recogniser.push(chunk, behind=behind)))
        return updates

    def skip(self, packet: Transcript | VoiceUpdate | PartUnknown, reason: str) -> list[LaneUpdate]:
        """Let chunks pass unheard; what was heard before them is complete."""
        if isinstance(packet, VoiceUpdate):
            end_ns = packet.chunks[-1].end_ns if packet.chunks else self._heard_ns
        else:
            end_ns = packet.watermark_ns if isinstance(packet, PartUnknown) else packet.t_ns
        updates = self.finish()
        self._heard_ns = max(self._heard_ns, end_ns)
        return [*updates, PartUnknown("text", self._heard_ns, reason)]

    def finish(self) -> list[LaneUpdate]:
        """Report the words that were still open when the sound ended."""
        return [_update(self._recogniser.finish())] if self._recogniser and self._heard_ns else []

    def close(self) -> None:
        """Free the recogniser."""
        if self._recogniser:
            self._recogniser.close()


def _update(found: Recognition) -> WordsUpdate:
    return WordsUpdate(_spoken(found.final), _spoken(found.provisional), found.watermark_ns)


def _spoken(words: tuple[Word, ...]) -> tuple[Word, ...]:
    """The words without recognisers' marks for noise and pauses."""
    return tuple(word for word in words if normalise(word.text))
