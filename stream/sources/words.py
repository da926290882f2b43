"""Words from a file beside a source that has none: a transcript with times, where the recogniser is too weak or not wanted.

A CSV table with a header and the columns `word`, `start_s` and `end_s` (seconds of the source), in the order of time.
"""

import csv
import math
from collections.abc import Iterator
from pathlib import Path

from extractors.asr.recogniser import Word
from stream.clock import Clock
from stream.errors import SourceError
from stream.messages import Packet, Transcript
from stream.sources.source import Provides, Source

COLUMNS = ("word", "start_s", "end_s")


def read_words(path: Path) -> list[Word]:
    """The words of such a file.

    Raises:
        SourceError: It cannot be read, lacks a column, or a line has times that cannot be.
    """
    try:
        with path.open(newline="", encoding="utf-8") as file:
            table = csv.DictReader(file, restval="")
            if missing := [column for column in COLUMNS if column not in (table.fieldnames or ())]:
                raise SourceError(f"{path} lacks the column {', '.join(missing)}; it must have {', '.join(COLUMNS)}")
            words: list[Word] = []
            for row in table:
                try:
                    start_s, end_s = float(row["start_s"]), float(row["end_s"])
                except ValueError:
                    start_s = end_s = math.nan
                if not 0 <= start_s < end_s < math.inf or (words and end_s * 1e9 < words[-1].end_ns):
                    raise SourceError(
                        f"{path}, line {table.line_num}: {row['start_s']} to {row['end_s']} cannot be; expected seconds, the "
                        "start before the end, and no word that ends before the one above it"
                    )
                words.append(Word(row["word"], round(start_s * 1e9), round(end_s * 1e9)))
            return words
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        reason = getattr(error, "strerror", None) or error
        raise SourceError(f"{path}: cannot be read ({reason}); give a CSV file with {', '.join(COLUMNS)}") from error


class TranscribedSource:
    """A source with words from a file.

    Attributes:
        source: The source.
    """

    def __init__(self, source: Source, path: Path) -> None:
        """Read the words; raises `SourceError`, also where the source is live or brings words of its own."""
        if source.live or {"words", "updates"} & source.provides:
            why = "is live" if source.live else "has words of its own"
            raise SourceError(f"--words {path}: {source.name} {why}; leave the option out")
        self.source, self._words = source, read_words(path)
        self.name, self.scripted, self.live = f"{source.name} with {path.name}", source.scripted, False
        self.provides: frozenset[Provides] = source.provides | {"words"}
        self.problems = source.problems

    def packets(self, clock: Clock) -> Iterator[Packet]:
        """The source's packets, and before each of them the words that have ended by then."""
        told = 0
        for packet in self.source.packets(clock):
            ended = told
            while ended < len(self._words) and self._words[ended].end_ns <= packet.t_ns:
                ended += 1
            yield Transcript(packet.t_ns, tuple(self._words[told:ended]))
            told = ended
            yield packet
        if told < len(self._words):
            yield Transcript(self._words[-1].end_ns, tuple(self._words[told:]))

    def close(self) -> None:
        """Close the source."""
        self.source.close()
