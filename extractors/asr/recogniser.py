"""What every speech recogniser here is: the interface, and the wiring by stretches of speech that both engines share."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from extractors.vad import VoiceChunk


@dataclass(frozen=True)
class Word:
    """One recognised word.

    Attributes:
        text: As the recogniser writes it; `extractors.text.normalise` makes it comparable.
        start_ns: Its start, nanoseconds.
        end_ns: Its end, exclusive, after `start_ns`.
        confidence: In [0, 1]; None where the recogniser gives none.
    """

    text: str
    start_ns: int
    end_ns: int
    confidence: float | None = None


@dataclass(frozen=True)
class Recognition:
    """What is known after a chunk.

    Attributes:
        final: Words that will not change, in time order, each reported once.
        provisional: The present guess at the words after the final ones; it replaces the guess before.
        watermark_ns: No further word will end at or before this time.
    """

    final: tuple[Word, ...]
    provisional: tuple[Word, ...]
    watermark_ns: int


class Recogniser(Protocol):
    """A streaming recogniser, fed with decided voice chunks in time order."""

    name: str

    def push(self, chunk: VoiceChunk) -> Recognition:
        """Hear the next chunk."""
        ...

    def finish(self) -> Recognition:
        """Make the words of what has been heard final; more may follow."""
        ...

    def close(self) -> None:
        """Free the engine."""
        ...


class StretchRecogniser(ABC):
    """Recognises one stretch of speech after the other, each as a whole when it has ended.

    A stretch ends with the first chunk that is no speech, at a gap in the sound, or after `max_stretch_ns`. Silence moves the
    watermark at once; during a stretch it stays at the stretch's start, and there are no provisional words.
    """

    name: str

    def __init__(self, *, max_stretch_ns: int = 30_000_000_000) -> None:
        """Wait for speech; `max_stretch_ns` bounds how long words can be outstanding."""
        self._max_stretch_ns = max_stretch_ns
        self._stretch: list[VoiceChunk] = []
        self._end_ns = 0

    def push(self, chunk: VoiceChunk) -> Recognition:
        """Hear the next chunk."""
        final: tuple[Word, ...] = ()
        if self._stretch:
            too_long = chunk.end_ns - self._stretch[0].t_ns > self._max_stretch_ns
            if not chunk.speech or chunk.t_ns != self._end_ns or too_long:
                final = self._finish()
        if chunk.speech:
            self._stretch.append(chunk)
        self._end_ns = chunk.end_ns
        return Recognition(final, (), self._stretch[0].t_ns if self._stretch else self._end_ns)

    def finish(self) -> Recognition:
        """Make the words of what has been heard final; more may follow."""
        return Recognition(self._finish() if self._stretch else (), (), self._end_ns)

    @abstractmethod
    def close(self) -> None:
        """Free the engine."""

    def _finish(self) -> tuple[Word, ...]:
        start_ns, end_ns = self._stretch[0].t_ns, self._end_ns
        samples = np.concatenate([chunk.samples for chunk in self._stretch])
        self._stretch = []
        words = []
        for word in self._recognise(start_ns, samples):
            # An engine may place a word's edges outside what it heard, or both at one moment. The watermark and `Word` promise
            # that they lie inside and apart.
            first, last = max(word.start_ns, start_ns), min(max(word.end_ns, word.start_ns + 1), end_ns)
            if first < last:
                words.append(Word(word.text, first, last, word.confidence))
        return tuple(words)

    @abstractmethod
    def _recognise(self, t_ns: int, samples: npt.NDArray[np.int16]) -> list[Word]:
        """The words of a whole stretch, int16 (N,), whose first sample is at `t_ns`."""
