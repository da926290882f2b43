"""What every sink is, and what waits for one that is slow."""

from collections import deque
from typing import Protocol

from stream.channel import Channel
from stream.messages import Output, Score, SessionInfo

WAITING = 64  # outputs, before provisional scores are given up
_MOST = 2400  # outputs without those: ten minutes of final scores


def provisional_first(items: deque[Output]) -> None:
    """Give up the oldest provisional score; the rest only when there is far too much of it."""
    for index, item in enumerate(items):
        if isinstance(item, Score) and item.kind == "provisional":
            del items[index]
            return
    if len(items) >= _MOST:
        items.popleft()


class Sink(Protocol):
    """Shows or sends what sessions put out; one sink may serve several sessions at once.

    Attributes:
        name: For display.
    """

    name: str

    async def run(self, info: SessionInfo, outputs: Channel[Output]) -> None:
        """Take a session's outputs until there are no more, or until there is nobody left to show them to.

        What blocks belongs on a thread of the sink's own. If it raises, the session goes on, and calls it again later.
        """
        ...
