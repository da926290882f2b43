"""What every sink is."""

from typing import Protocol

from stream.channel import Channel
from stream.messages import Output, SessionInfo


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
