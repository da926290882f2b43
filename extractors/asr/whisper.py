"""faster-whisper: the recogniser to use where its model is.

Source: https://github.com/SYSTRAN/faster-whisper. The weights come from the hub on first use.
"""

import os
from pathlib import Path

import numpy as np
import numpy.typing as npt

from extractors.asr.recogniser import StretchRecogniser, Word
from extractors.assets import FOLDER_VARIABLE
from extractors.errors import Unavailable


class WhisperRecogniser(StretchRecogniser):
    """Recognises each stretch of speech with word times."""

    def __init__(self, model: str = "base", *, device: str = "cpu", language: str | None = "en", download: bool = True) -> None:
        """Load the model.

        Args:
            model: A size that faster-whisper knows, as in `base` or `small`. A folder `faster-whisper-<model>` in the folder
                `MMLATCH_ASSETS` comes first, then the hub's cache.
            device: `cpu` (computes in int8) or `cuda` (in float16).
            language: The language spoken, as in `en`; None lets the model tell for each stretch.
            download: Whether it may be fetched from the hub.

        Raises:
            Unavailable: The package is not installed or the model cannot be had.
        """
        super().__init__()
        self.name = f"faster-whisper {model}"
        self._language = language
        try:
            import faster_whisper
        except ImportError as error:
            raise Unavailable("faster-whisper is not installed; run: pip install 'mmlatch-live[whisper]'") from error
        folder = Path(os.environ.get(FOLDER_VARIABLE, "")) / f"faster-whisper-{model}"
        try:
            self._model = faster_whisper.WhisperModel(
                str(folder) if folder.is_dir() else model,
                device=device,
                compute_type="int8" if device == "cpu" else "float16",
                local_files_only=not download,
            )
        except Exception as error:  # the hub client and CTranslate2 each raise kinds of their own
            tried = download or folder.is_dir()
            reason = f"could not be loaded ({type(error).__name__})" if tried else "is not on this machine"
            raise Unavailable(
                f"the Whisper model {model} {reason}; run with --asr whisper once while connected to the internet, or put its "
                f"files into the folder faster-whisper-{model} in the folder that {FOLDER_VARIABLE} names"
            ) from error

    def close(self) -> None:
        """Let the model go."""
        del self._model

    def _recognise(self, t_ns: int, samples: npt.NDArray[np.int16]) -> list[Word]:
        segments, _ = self._model.transcribe(
            samples.astype(np.float32) / 32768.0,
            language=self._language,
            word_timestamps=True,
            condition_on_previous_text=False,  # a wrong guess would otherwise breed more of its kind
        )
        return [
            Word(word.word.strip(), t_ns + round(word.start * 1e9), t_ns + round(word.end * 1e9), word.probability)
            for segment in segments
            for word in segment.words
        ]
