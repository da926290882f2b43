"""A recording as a source: the session's packets again."""

from collections.abc import Iterator
from pathlib import Path

from stream.clock import Clock
from stream.errors import SourceError
from stream.mcap import RecordingReader
from stream.messages import Packet
from stream.sources.source import Provides


class RecordingSource:
    """Plays back an MCAP recording of this program."""

    def __init__(self, path: Path) -> None:
        """Open it; raises `SourceError` as `RecordingReader` does, or if there is no such file."""
        try:
            self._reader = RecordingReader(path)
        except OSError as error:
            raise SourceError(f"{path}: cannot be opened ({error.strerror}); check the path") from error
        self.live = False
        self.name, self.scripted = self._reader.name, self._reader.scripted
        kinds: tuple[Provides, ...] = ("audio", "vision_rows", "words")
        self.provides: frozenset[Provides] = frozenset(kind for kind in kinds if kind in self._reader.topics)
        self.problems: list[str] = []

    def packets(self, clock: Clock) -> Iterator[Packet]:
        """The packets by time; see `Source.packets`."""
        try:
            yield from self._reader.packets()
        except SourceError as error:
            self.problems.append(str(error))

    def close(self) -> None:
        """Close the file."""
        self._reader.close()
