"""What every speech recogniser here is: the interface, and the wiring by stretches of speech that all engines share."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from extractors.sound import SAMPLE_NS
from extractors.vad import VoiceChunk

MAX_STRETCH_NS = 15_000_000_000  # the longest that words can be outstanding where nobody stops for breath


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
        watermark_ns: No further word will end at or before this time. It never goes back.
    """

    final: tuple[Word, ...]
    provisional: tuple[Word, ...]
    watermark_ns: int


class Recogniser(Protocol):
    """A streaming recogniser, fed with decided voice chunks in time order.

    Attributes:
        name: The engine and its model.
        skipped: How many decodes were left out because the caller was behind.
    """

    name: str
    skipped: int

    def push(self, chunk: VoiceChunk, *, behind: bool = False) -> Recognition:
        """Hear the next chunk.

        Args:
            chunk: It starts at or after the end of the one before.
            behind: More sound waits already: leave out a decode whose words a later one brings as well, and count it.

        Raises:
            extractors.errors.ExtractorError: The engine failed. If it did so at the end of a stretch of speech, that stretch is
                lost; push the next chunk and it goes on.
        """
        ...

    def finish(self) -> Recognition:
        """Make the words of what has been heard final; more may follow. Raises as `push` does."""
        ...

    def close(self) -> None:
        """Free the engine."""
        ...


class StretchRecogniser(ABC):
    """Hears one stretch of speech after the other, and keeps what `Recognition` promises.

    A stretch ends with the first chunk that is no speech, at a gap in the sound, or where it would last too long. Its words are
    looked at whenever so much *sound* has come, whatever the clock says: the same chunks give the same words on any machine,
    unless the caller says that it is behind.
    """

    name: str

    def __init__(self, *, interval_ns: int, max_stretch_ns: int = MAX_STRETCH_NS) -> None:
        """Wait for speech.

        Args:
            interval_ns: After how much sound the words of a stretch are looked at, while it lasts.
            max_stretch_ns: The longest stretch; speech that lasts longer is cut, maybe inside a word.
        """
        self.skipped = 0
        self._interval_ns = interval_ns
        self._max_stretch_ns = max_stretch_ns
        self._samples = np.empty(0, np.int16)  # the stretch that lasts, from `_start_ns` on
        self._start_ns = 0
        self._unseen_ns = 0  # how much of it has come since a look at its words was due
        self._guess: tuple[Word, ...] = ()
        self._end_ns = 0  # of all sound so far
        self._watermark_ns = 0

    def push(self, chunk: VoiceChunk, *, behind: bool = False) -> Recognition:
        """Hear the next chunk; see `Recogniser`."""
        final: tuple[Word, ...] = ()
        if len(self._samples):
            too_long = chunk.end_ns - self._start_ns > self._max_stretch_ns
            if too_long or not chunk.speech or chunk.t_ns != self._end_ns:
                final = self._finish()
        self._end_ns = chunk.end_ns
        if chunk.speech:
            final += self._hear(chunk, behind)
        if not len(self._samples):
            self._watermark_ns = max(self._watermark_ns, self._end_ns)
        return Recognition(final, self._guess, self._watermark_ns)

    def finish(self) -> Recognition:
        """Make the words of what has been heard final; more may follow."""
        final = self._finish() if len(self._samples) else ()
        self._watermark_ns = max(self._watermark_ns, self._end_ns)
        return Recognition(final, (), self._watermark_ns)

    @abstractmethod
    def close(self) -> None:
        """Free the engine."""

    @abstractmethod
    def _listen(self) -> tuple[Word, ...]:
        """Look at the words of `_samples` while the stretch lasts: set `_guess`, and return those that are final now."""

    @abstractmethod
    def _conclude(self) -> tuple[Word, ...]:
        """The words of the stretch, now that it has ended, without those that were final before."""

    def _hear(self, chunk: VoiceChunk, behind: bool) -> tuple[Word, ...]:
        if not len(self._samples):
            self._start_ns = chunk.t_ns
            self._watermark_ns = max(self._watermark_ns, chunk.t_ns)
        self._samples = np.concatenate([self._samples, chunk.samples])
        self._unseen_ns += chunk.end_ns - chunk.t_ns
        if self._unseen_ns < self._interval_ns:
            return ()
        self._unseen_ns = 0
        if behind:
            self.skipped += 1
            return ()
        final = self._listen()
        if final:
            self._watermark_ns = final[-1].end_ns
        return final

    def _finish(self) -> tuple[Word, ...]:
        try:
            return self._conclude()
        finally:  # even where the engine fails, the next stretch starts afresh
            self._samples = np.empty(0, np.int16)
            self._unseen_ns = 0
            self._guess = ()

    @property
    def _end_of_samples_ns(self) -> int:
        return self._start_ns + len(self._samples) * SAMPLE_NS

    def _placed(self, words: Sequence[Word]) -> tuple[Word, ...]:
        """The words moved, where they must be, to lie one after the other between the watermark and the end of the stretch.

        An engine may place edges outside of what it heard or over each other, or both edges at one moment.
        """
        placed: list[Word] = []
        after_ns = self._watermark_ns
        until_ns = self._end_of_samples_ns - len(words)  # a nanosecond is kept for each word to come
        for word in words:
            until_ns += 1
            end_ns = min(max(word.end_ns, word.start_ns + 1, after_ns + 1), until_ns)
            placed.append(Word(word.text, min(max(word.start_ns, after_ns), end_ns - 1), end_ns, word.confidence))
            after_ns = end_ns
        return tuple(placed)
