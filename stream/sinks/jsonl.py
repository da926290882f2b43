"""JSON lines: one score payload a line."""

import os
import sys
from typing import TextIO

from stream.channel import Channel
from stream.messages import Score, SessionInfo
from stream.sinks.payload import encode


class JsonLines:
    """Writes each score at once, so that a reader at the other end of a pipe is never behind."""

    def __init__(self, out: TextIO, info: SessionInfo) -> None:
        """Write to `out`."""
        self._out, self._info = out, info

    async def run(self, scores: Channel[Score]) -> None:
        """Write until there are no more scores, or until the reader has gone."""
        try:
            async for score in scores:
                self._out.write(encode(score, self._info) + "\n")
                self._out.flush()
        except BrokenPipeError:
            # The interpreter flushes the standard output once more at its end; that must not fail again.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
