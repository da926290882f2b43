"""LocalAgreement-2: words from a recogniser that is made for whole recordings, while somebody still speaks.

Source: D. Macháček, R. Dabre, O. Bojar: "Turning Whisper into Real-Time Transcription System", IJCNLP-AACL 2023, system
demonstrations, https://aclanthology.org/2023.ijcnlp-demo.3
"""

import unicodedata
from abc import abstractmethod
from collections import deque
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from extractors.asr.recogniser import MAX_STRETCH_NS, StretchRecogniser, Word
from extractors.sound import SAMPLE_NS
from extractors.text import normalise
from extractors.vad import CHUNK

PROMPT_CHARACTERS = 200
# After so long a silence somebody else may speak about something else, and a prompt that does not fit misleads.
FORGET_NS = 10_000_000_000
_SEAM_WORDS = 5  # how far back a hypothesis is compared with what is committed
_MATCH_NS = 100_000_000  # by how much of misplacement a matching word is worth more than none


class LocalAgreement(StretchRecogniser):
    """Decodes the newest sound again and again, and commits the words on which two hypotheses in a row agree.

    The sound that a stretch of speech has brought is decoded after every interval; the words that a hypothesis begins with and
    shares with the one before are final, the others provisional. Words are compared as `extractors.text.normalise` writes
    them. The sound of committed words is let go from time to time, and their text is the next decode's prompt. At the end of
    the stretch what is new is decoded once more, and all of it is final.
    """

    def __init__(self, *, interval_ns: int = 1_000_000_000, max_stretch_ns: int = MAX_STRETCH_NS) -> None:
        """Wait for speech.

        Args:
            interval_ns: After how much sound of a stretch it is decoded again.
            max_stretch_ns: The most sound to decode. From two thirds of it on, the sound up to the end of the last committed
                sentence is let go; before it is reached, the sound of all committed words. Where there are none, all that has
                been recognised is committed, and what follows is decoded alone.
        """
        super().__init__(interval_ns=interval_ns, max_stretch_ns=max_stretch_ns)
        self._decoded_ns = 0  # the end of the sound that was decoded last
        self._committed: deque[Word] = deque(maxlen=300)  # the newest, far more than a buffer and a prompt hold

    @abstractmethod
    def _decode(self, samples: npt.NDArray[np.int16], prompt: str) -> list[Word]:
        """The words of a piece of sound, times relative to its start.

        Args:
            samples: int16 at 16 kHz, shape (N,).
            prompt: What was said before it; may be empty.
        """

    def _listen(self) -> tuple[Word, ...]:
        words = self._hypothesis()
        agreed = 0
        for word, before in zip(words, self._guess, strict=False):
            if normalise(word.text) != normalise(before.text):
                break
            agreed += 1
        self._committed += words[:agreed]
        self._guess = words[agreed:]
        self._trim()
        return words[:agreed]

    def _conclude(self) -> tuple[Word, ...]:
        words = self._hypothesis() if self._decoded_ns < self._end_of_samples_ns else self._guess
        self._committed += words
        return words

    def _hypothesis(self) -> tuple[Word, ...]:
        """What is said in the buffer after the committed words."""
        if self._committed and self._start_ns - self._committed[-1].end_ns > FORGET_NS:
            self._committed.clear()
        words = [
            replace(word, start_ns=self._start_ns + word.start_ns, end_ns=self._start_ns + word.end_ns)
            for word in self._decode(self._samples, self._prompt())
        ]
        self._decoded_ns = self._end_of_samples_ns
        return self._placed(words[self._repeated(words) :])

    def _prompt(self) -> str:
        """The end of the committed text before the buffer, in whole words."""
        text = " ".join(word.text for word in self._committed if word.start_ns < self._start_ns)
        return text if len(text) <= PROMPT_CHARACTERS else text[-PROMPT_CHARACTERS:].partition(" ")[2]

    def _repeated(self, words: Sequence[Word]) -> int:
        """How many of a hypothesis's first words only repeat committed ones.

        Word times move from decode to decode, and words may change. The place to cut is near the end of the last committed
        word, and the words before it are the committed ones: every word that matches makes up for some distance.
        """
        if not self._committed:
            return 0
        end_ns = self._committed[-1].end_ns
        committed = [normalise(word.text) for word in self._committed][-_SEAM_WORDS:]
        texts = [normalise(word.text) for word in words]

        def cost(cut: int) -> int:
            late_ns = words[cut - 1].end_ns - end_ns if cut else 0
            early_ns = end_ns - words[cut].start_ns if cut < len(words) else 0
            matching = 0
            for text, said in zip(reversed(texts[:cut]), reversed(committed), strict=False):
                if text != said:
                    break
                matching += 1
            return max(0, late_ns, early_ns) - matching * _MATCH_NS

        return min(range(len(words) + 1), key=cost)

    def _trim(self) -> None:
        """Let the sound of committed words go where there is much; at the end of a sentence, if there is still time."""
        length_ns = len(self._samples) * SAMPLE_NS
        if length_ns <= self._max_stretch_ns * 2 // 3:
            return
        urgent = length_ns + self._interval_ns + CHUNK * SAMPLE_NS > self._max_stretch_ns  # at the next look it is too late
        ends_ns = [word.end_ns for word in self._committed if urgent or _ends_sentence(word)]
        if ends_ns and ends_ns[-1] > self._start_ns:
            cut = (ends_ns[-1] - self._start_ns) // SAMPLE_NS
            self._samples = self._samples[cut:]
            self._start_ns += cut * SAMPLE_NS


def _ends_sentence(word: Word) -> bool:
    text = unicodedata.normalize("NFKC", word.text)  # makes full-width marks plain ones, and an ellipsis three dots
    return text.rstrip("\"'”’»)").endswith((".", "!", "?", "。"))
