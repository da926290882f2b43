"""Voice activity: which 32 ms chunks are somebody speaking.

Silero VAD (MIT), its ONNX model as shipped in the package `silero-vad`: https://github.com/snakers4/silero-vad
"""

from collections import deque
from dataclasses import dataclass
from itertools import islice

import numpy as np
import numpy.typing as npt

from extractors.errors import Unavailable
from extractors.sound import SAMPLE_NS, SAMPLE_RATE, check_samples, continues

CHUNK = 512  # samples, 32 ms: the length that the model is made for
LEAD = 6  # chunks (192 ms) before a voiced chunk that belong to the speech: soft onsets
TRAIL = 10  # chunks (320 ms) after one: word ends and short pauses
_ON, _OFF = 0.5, 0.35  # the published thresholds: speech starts at the first, and lasts down to the second


@dataclass(frozen=True, eq=False)
class VoiceChunk:
    """A decided piece of sound.

    Attributes:
        t_ns: The time of its first sample, nanoseconds.
        samples: int16, 16 kHz mono, shape (512,), fewer at the end of the sound.
        voiced: The model heard a voice in this very chunk.
        speech: It lies within `LEAD` before or `TRAIL` after a voiced chunk: what a recogniser should hear.
    """

    t_ns: int
    samples: npt.NDArray[np.int16]
    voiced: bool
    speech: bool

    @property
    def end_ns(self) -> int:
        """The end of the chunk, exclusive."""
        return self.t_ns + len(self.samples) * SAMPLE_NS


class VoiceActivity:
    """Decides over a stream of sound, chunk by chunk, the same however it is cut into blocks."""

    def __init__(self) -> None:
        """Load the model.

        Raises:
            Unavailable: The package or its runtime does not load.
        """
        try:
            import silero_vad

            self._model = silero_vad.load_silero_vad(onnx=True)
        except (ImportError, OSError) as error:
            raise Unavailable(f"Silero VAD does not load ({error}); run: pip install silero-vad onnxruntime") from error
        self._next_ns = 0  # the time of the first sample that waits in `_pending`
        self._pending: npt.NDArray[np.int16]
        self._restart()

    def push(self, t_ns: int, samples: npt.NDArray[np.int16]) -> list[VoiceChunk]:
        """Hear the next block (as for `AudioExtractor.push`) and return the chunks that are decided now."""
        check_samples(samples)
        done = []
        heard = len(self._pending) or self._undecided
        if not heard:
            self._next_ns = t_ns
        elif not continues(t_ns, self._next_ns + len(self._pending) * SAMPLE_NS):
            done = self.close()
            self._next_ns = t_ns
        self._pending = np.concatenate([self._pending, samples])
        while len(self._pending) >= CHUNK:
            self._hear(self._pending[:CHUNK])
            self._pending = self._pending[CHUNK:]
            if len(self._undecided) > LEAD:
                done.append(self._decide())
        return done

    @property
    def watermark_ns(self) -> int:
        """No later chunk starts before this time."""
        if self._undecided:
            return self._undecided[0][0]
        return self._next_ns

    def close(self) -> list[VoiceChunk]:
        """Decide over what is left and start anew after it."""
        if len(self._pending):
            self._hear(self._pending)
        done = [self._decide() for _ in range(len(self._undecided))]
        self._restart()
        return done

    def _restart(self) -> None:
        self._model.reset_states()
        self._pending = np.empty(0, np.int16)
        self._undecided: deque[tuple[int, npt.NDArray[np.int16], bool]] = deque()
        self._voiced = False
        self._since_voiced = TRAIL + 1

    def _hear(self, samples: npt.NDArray[np.int16]) -> None:
        import torch

        chunk = np.zeros(CHUNK, np.float32)
        chunk[: len(samples)] = samples / np.float32(32768.0)
        probability = float(self._model(torch.from_numpy(chunk), SAMPLE_RATE))
        self._voiced = probability >= (_OFF if self._voiced else _ON)
        self._undecided.append((self._next_ns, samples, self._voiced))
        self._next_ns += len(samples) * SAMPLE_NS

    def _decide(self) -> VoiceChunk:
        """Settle the oldest chunk, which the next `LEAD` chunks or the end of the sound have made clear."""
        t_ns, samples, voiced = self._undecided.popleft()
        self._since_voiced = 0 if voiced else self._since_voiced + 1
        soon = any(coming for _, _, coming in islice(self._undecided, LEAD))
        return VoiceChunk(t_ns, samples, voiced, soon or self._since_voiced <= TRAIL)
