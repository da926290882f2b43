"""PocketSphinx: a recogniser that works offline everywhere, since its wheel carries the English model.

Source: https://pocketsphinx.readthedocs.io. Its quality is far below Whisper's; it is here so that the text lane always runs.
"""

import contextlib
import importlib.util
import json
import re
import struct
import subprocess
import sys
from pathlib import Path
from typing import IO

import numpy as np
import numpy.typing as npt

from extractors.asr.recogniser import StretchRecogniser, Word
from extractors.errors import ExtractorError, Unavailable

_FRAME_NS = 10_000_000
_ALTERNATIVE = re.compile(r"\(\d+\)$")  # "the(2)": the dictionary's second pronunciation of "the"


class SphinxRecogniser(StretchRecogniser):
    """Recognises English in a child process, because PocketSphinx would hold up every thread of this one."""

    name = "pocketsphinx"

    def __init__(self) -> None:
        """Start the child process and wait until its model is loaded.

        Raises:
            Unavailable: PocketSphinx is not installed or does not load.
        """
        super().__init__()
        if importlib.util.find_spec("pocketsphinx") is None:
            raise Unavailable("PocketSphinx is not installed; run: pip install pocketsphinx")
        # A session of its own keeps the terminal's Ctrl-C from the child: it ends with its input, after the last words.
        self._child = subprocess.Popen(
            [sys.executable, "-P", str(Path(__file__).with_name("sphinx_worker.py"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        if self._pipes()[1].readline() != b"ready\n":
            raise Unavailable(f"PocketSphinx does not load (exit code {self._child.wait()}); run: pip install pocketsphinx")

    def close(self) -> None:
        """End the child process."""
        requests, answers = self._pipes()
        with contextlib.suppress(BrokenPipeError):  # what a dead child did not take
            requests.close()
        answers.close()
        self._child.wait()

    def _recognise(self, t_ns: int, samples: npt.NDArray[np.int16]) -> list[Word]:
        requests, answers = self._pipes()
        try:
            requests.write(struct.pack("<I", samples.nbytes) + samples.tobytes())
            requests.flush()
            answer = answers.readline()
        except BrokenPipeError:
            answer = b""
        if not answer:
            raise ExtractorError(f"PocketSphinx ended unexpectedly (exit code {self._child.wait()})")
        return [
            Word(_ALTERNATIVE.sub("", text), t_ns + first * _FRAME_NS, t_ns + (last + 1) * _FRAME_NS, min(1.0, posterior))
            for text, first, last, posterior in json.loads(answer)
            if not text.startswith("<")  # <s>, </s> and <sil> are no words
        ]

    def _pipes(self) -> tuple[IO[bytes], IO[bytes]]:
        assert self._child.stdin is not None
        assert self._child.stdout is not None
        return self._child.stdin, self._child.stdout
