"""What every source is, whether a file, a recording, a camera or a microphone."""

from collections.abc import Iterator
from typing import Literal, Protocol

from stream.messages import Packet

Provides = Literal["video", "audio", "vision_rows", "words"]


class Source(Protocol):
    """Something that brings packets in event time.

    Attributes:
        name: For display.
        scripted: It is a script, not a recording of anybody.
        provides: The kinds of packets that it brings. A lane that none of them feeds is unavailable in the session.
        problems: What was found wrong while reading, a line each for the user; grows until `packets` ends.
    """

    name: str
    scripted: bool
    provides: frozenset[Provides]
    problems: list[str]

    def packets(self) -> Iterator[Packet]:
        """The packets: each kind in time order, kinds roughly interleaved by time.

        Runs on a thread of its own and may block. What goes wrong on the way ends the packets and is told in `problems`.
        """
        ...

    def close(self) -> None:
        """Let go of the file or device."""
        ...
