"""What every source is, whether a file, a recording, a camera or a microphone."""

import re
from collections.abc import Iterator
from typing import Literal, Protocol

from stream.clock import Clock
from stream.messages import Packet

# "updates": a recording's, in place of what the lanes would say of packets; "script": it says as well what was scored when.
Provides = Literal["video", "audio", "vision_rows", "words", "updates", "script"]


class Source(Protocol):
    """Something that brings packets in event time.

    Attributes:
        name: For display.
        scripted: It is a script, not a recording of anybody.
        live: It brings what happens now: it does not wait, may fall silent, and is begun anew after a failure.
        provides: The kinds of packets that it brings. A lane that none of them feeds is unavailable in the session.
        problems: What was found wrong while reading, a line each for the user; grows until `packets` ends.
    """

    name: str
    scripted: bool
    live: bool
    provides: frozenset[Provides]
    problems: list[str]

    def packets(self, clock: Clock) -> Iterator[Packet]:
        """The packets: each kind in time order, kinds roughly interleaved by time.

        Runs on a thread of its own and may block. A file tells what goes wrong on the way in `problems`, and ends. A live
        source stamps by `clock`, ends only when it is closed, and raises when the device is gone; it is then called again,
        later.

        Raises:
            SourceError: Of a live source: why nothing comes, a line for the user.
        """
        ...

    def close(self) -> None:
        """Let go of the file or device, from any thread; `packets` ends soon after."""
        ...


def without_secrets(location: str) -> str:
    """A location for display and for recordings: a URL without user, password, query and fragment, a path as it is."""
    scheme, separator, rest = location.partition("://")
    if not separator:
        return location
    address, *hidden = re.split("[?#]", rest, maxsplit=1)
    if "@" in "".join(hidden):  # what stands before may be the beginning of a password
        return f"{scheme}://…"
    # Up to the last @ of all, since passwords hold what they should not.
    return f"{scheme}://{address.rpartition('@')[2]}{'?…' if hidden else ''}"
