"""faster-whisper: the recogniser to use where its model is.

Source: https://github.com/SYSTRAN/faster-whisper. The weights come from the hub on first use.
"""

import os
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from extractors.asr.agreement import LocalAgreement
from extractors.asr.recogniser import MAX_STRETCH_NS, Word
from extractors.assets import FOLDER_VARIABLE
from extractors.errors import ExtractorError, Unavailable

# By device: the model, what it computes in, and why. How long a decode takes on a CPU stands in docs/benchmarks.md.
DEFAULTS = {
    "few cores": ("tiny", "int8", "larger ones are too slow on fewer than four cores"),
    "cpu": ("base", "int8", "larger ones are too slow there"),
    "cuda": ("large-v3-turbo", "float16", "it is about as good as the largest, with 4 decoder layers instead of 32"),
}


class WhisperRecogniser(LocalAgreement):
    """Recognises speech in many languages, with word times, while it lasts.

    Attributes:
        notice: Which model was chosen and why; None where it was given.
    """

    def __init__(
        self,
        model: str | None = None,
        *,
        device: str = "cpu",
        compute_type: str | None = None,
        language: str | None = "en",
        download: bool = True,
        max_stretch_ns: int = MAX_STRETCH_NS,
    ) -> None:
        """Load the model.

        Args:
            model: A size that faster-whisper knows, as in `base` or `small`; None chooses by device (`DEFAULTS`). A folder
                `faster-whisper-<model>` in the folder `MMLATCH_ASSETS` comes first, then the hub's cache.
            device: `cpu` or `cuda`.
            compute_type: What CTranslate2 computes in, as in `int8` or `float16`; None chooses by device.
            language: The language spoken, as in `en`; None lets the model tell at each decode, at the price of a second pass of
                its encoder.
            download: Whether it may be fetched from the hub.
            max_stretch_ns: The most sound to decode at once; Whisper hears 30 s at most.

        Raises:
            Unavailable: The package is not installed or the model cannot be had.
        """
        super().__init__(max_stretch_ns=max_stretch_ns)
        few = device == "cpu" and (os.cpu_count() or 1) < 4
        default_model, default_type, reason = DEFAULTS["few cores" if few else device]
        self.notice: str | None = None
        if model is None:
            model = default_model
            place = {"cpu": "the CPU", "cuda": "the GPU"}[device]
            self.notice = (
                f"words come from Whisper {model}, because on {place} {reason}; choose another with --set asr.model=SIZE"
            )
        compute_type = compute_type or default_type
        self.name = f"faster-whisper {model} ({compute_type})"
        self._language = language
        try:
            import faster_whisper
        except ImportError as error:
            raise Unavailable("faster-whisper is not installed; run: pip install 'mmlatch-live[whisper]'") from error
        folder = Path(os.environ.get(FOLDER_VARIABLE, "")) / f"faster-whisper-{model}"
        try:
            self._model: Any = faster_whisper.WhisperModel(
                str(folder) if folder.is_dir() else model,
                device=device,
                compute_type=compute_type,
                # One core is left to the other lanes. Four threads are CTranslate2's own choice where there are more.
                cpu_threads=max(1, min(4, (os.cpu_count() or 1) - 1)),
                local_files_only=not download,
            )
        except Exception as error:  # the hub client and CTranslate2 each raise kinds of their own
            if isinstance(error, (RuntimeError, ValueError)) and not isinstance(error, OSError):  # not a file that is missing
                raise Unavailable(
                    f"{self.name} cannot be used on {device} ({_first_line(error)}); choose others with --set asr.model=SIZE "
                    f"or --set asr.compute_type=TYPE"
                ) from error
            tried = download or folder.is_dir()
            reason = f"could not be loaded ({type(error).__name__})" if tried else "is not on this machine"
            raise Unavailable(
                f"the Whisper model {model} {reason}; run with --asr whisper once while connected to the internet, or put its "
                f"files into the folder faster-whisper-{model} in the folder that {FOLDER_VARIABLE} names"
            ) from error

    def close(self) -> None:
        """Let the model go."""
        self._model = None

    def _decode(self, samples: npt.NDArray[np.int16], prompt: str) -> list[Word]:
        if self._model is None:
            raise ExtractorError("Whisper has been closed")
        try:
            segments, _ = self._model.transcribe(
                samples.astype(np.float32) / 32768.0,
                language=self._language,
                initial_prompt=prompt or None,
                word_timestamps=True,
                condition_on_previous_text=False,  # a wrong guess would otherwise breed more of its kind
                temperature=0.0,  # the warmer ones, tried where this one does badly, draw words at random
                vad_filter=False,  # it hears speech only
            )
            return [
                Word(word.word.strip(), round(word.start * 1e9), round(word.end * 1e9), float(word.probability))
                for segment in segments
                for word in segment.words
            ]
        except (RuntimeError, ValueError) as error:
            raise ExtractorError(f"Whisper failed ({_first_line(error)})") from error


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
