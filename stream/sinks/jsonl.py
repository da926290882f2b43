"""JSON lines: one payload a line."""

import os
import sys
import threading
from typing import TextIO

from stream.channel import Channel
from stream.messages import Output, SessionInfo
from stream.sinks.payload import encode
from stream.worker import Worker


class JsonLines:
    """Writes each payload at once, so that a reader at the other end of a pipe is never behind."""

    name = "JSON lines"

    def __init__(self, out: TextIO) -> None:
        """Write to `out`."""
        self._out = out
        self._lock = threading.Lock()
        self._gone = False

    async def run(self, info: SessionInfo, outputs: Channel[Output]) -> None:
        """Write until there are no more outputs, or until the reader has gone; a reader that is slow holds up nobody else."""
        worker = Worker("json lines")
        try:
            async for output in outputs:
                await worker.call(self._write, encode(output, info) + "\n")
        except BrokenPipeError:
            # The interpreter flushes the standard output once more at its end; that must not fail again.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        finally:
            await worker.close(0.1)

    def _write(self, line: str) -> None:
        with self._lock:  # sessions have a thread each
            if self._gone:
                raise BrokenPipeError
            try:
                self._out.write(line)
                self._out.flush()
            except BrokenPipeError:
                self._gone = True
                raise
