"""PocketSphinx: a recogniser that works offline everywhere, since its wheel carries the English model.

Source: https://pocketsphinx.readthedocs.io. Its quality is far below Whisper's; it is here so that the text lane always runs.
"""

import importlib.util
import json
import re
import struct
import sys
import threading
from pathlib import Path
from subprocess import PIPE, Popen

import numpy as np
import numpy.typing as npt

from extractors.asr.recogniser import MAX_STRETCH_NS, StretchRecogniser, Word
from extractors.errors import ExtractorError, Unavailable

INTERVAL_NS = 250_000_000  # of sound between two looks at a stretch that lasts
_FRAME_NS = 10_000_000
_ALTERNATIVE = re.compile(r"\(\d+\)$")  # "the(2)": the dictionary's second pronunciation of "the"


class SphinxRecogniser(StretchRecogniser):
    """Recognises English in a child process, because PocketSphinx would hold up every thread of this one.

    While a stretch of speech lasts, its words are provisional, from a quick decoder that hears the sound in pieces. When it has
    ended, another decoder hears the whole of it again, and its words are final: they do not depend on what the quick one did. A
    child that dies or hangs costs one error, and the next speech starts another.
    """

    name = "pocketsphinx"

    def __init__(self, *, max_stretch_ns: int = MAX_STRETCH_NS, timeout_s: float = 30.0) -> None:
        """Start the child process and wait until its models are loaded.

        Args:
            max_stretch_ns: Longer speech is cut.
            timeout_s: How long to wait for an answer before the child is given up.

        Raises:
            Unavailable: PocketSphinx is not installed or does not load.
        """
        super().__init__(interval_ns=INTERVAL_NS, max_stretch_ns=max_stretch_ns)
        if importlib.util.find_spec("pocketsphinx") is None:
            raise Unavailable("PocketSphinx is not installed; run: pip install pocketsphinx")
        self._timeout_s = timeout_s
        self._sent = 0  # how many samples of the stretch the child has heard in pieces
        self._lock = threading.Lock()  # `close` may come from another thread
        self._closed = False
        self._child: Popen[bytes] | None = None
        self._start()

    def close(self) -> None:
        """End the child process, whatever it does; a call that waits for it in another thread raises ExtractorError."""
        with self._lock:
            self._closed = True
        self._end()

    def _listen(self) -> tuple[Word, ...]:
        child = self._child or self._start()
        piece = self._samples[self._sent :]  # what was left out for being behind comes now: word times count from the start
        self._sent = len(self._samples)
        self._guess = self._placed(self._ask(child, b"p", piece))
        return ()

    def _conclude(self) -> tuple[Word, ...]:
        self._sent = 0
        return self._placed(self._ask(self._child or self._start(), b"w", self._samples))

    def _ask(self, child: Popen[bytes], kind: bytes, samples: npt.NDArray[np.int16]) -> list[Word]:
        answer = self._exchange(child, struct.pack("<cI", kind, samples.nbytes) + samples.tobytes())
        return [
            Word(
                _ALTERNATIVE.sub("", text),
                self._start_ns + first * _FRAME_NS,
                self._start_ns + (last + 1) * _FRAME_NS,
                min(1.0, posterior) if kind == b"w" else None,
            )
            for text, first, last, posterior in json.loads(answer)
            if not text.startswith("<")  # <s>, </s> and <sil> are no words
        ]

    def _start(self) -> Popen[bytes]:
        with self._lock:
            if self._closed:
                raise ExtractorError("PocketSphinx has been closed")
            # A session of its own keeps the terminal's Ctrl-C from the child: `close` ends it, after the last words.
            self._child = child = Popen(
                [sys.executable, "-P", str(Path(__file__).with_name("sphinx_worker.py"))],
                stdin=PIPE,
                stdout=PIPE,
                start_new_session=True,
            )
        self._sent = 0
        try:
            self._exchange(child, b"")
        except ExtractorError as error:
            raise Unavailable(f"{error} while it loaded; run: pip install pocketsphinx") from error
        return child

    def _exchange(self, child: Popen[bytes], request: bytes) -> bytes:
        """Send the child a request and wait for its line of answer; a child that gives none is ended."""
        assert child.stdin is not None
        assert child.stdout is not None
        late = threading.Event()

        def give_up() -> None:
            late.set()
            child.kill()  # ends the waiting below, be it for room in the pipe or for the answer

        timer = threading.Timer(self._timeout_s, give_up)
        timer.daemon = True
        timer.start()
        try:
            child.stdin.write(request)
            child.stdin.flush()
            answer = child.stdout.readline()
        except (BrokenPipeError, ValueError):  # the child has ended, or `close` has closed its pipes
            answer = b""
        finally:
            timer.cancel()
        if answer.endswith(b"\n"):
            return answer
        exit_code = self._end()
        if self._closed:
            raise ExtractorError("PocketSphinx was closed while it recognised")
        if late.is_set():
            raise ExtractorError(f"PocketSphinx gave no answer within {self._timeout_s:g} s")
        raise ExtractorError(f"PocketSphinx ended unexpectedly (exit code {exit_code})")

    def _end(self) -> int | None:
        """End the child, if there is one, and return its exit code."""
        with self._lock:
            child, self._child = self._child, None
            if child is None:
                return None
            child.kill()
            child.communicate()  # closes the pipes, whatever stands in them, and waits for the end
            return child.returncode
