"""What every sink is."""

from typing import Protocol

from stream.channel import Channel
from stream.messages import Score


class Sink(Protocol):
    """Shows or sends scores."""

    async def run(self, scores: Channel[Score]) -> None:
        """Take scores until there are no more, or until there is nobody left to show them to."""
        ...
