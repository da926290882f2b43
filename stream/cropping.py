"""A part of a recording that replays as the whole does: from a window that starts anew up to the end of another.

What windows from there on depend on is found by following the session (`stream.progress`), without a model.
"""

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import replace

from stream.errors import SourceError
from stream.mcap import About, RecordingReader
from stream.messages import Begin, Coded, Score
from stream.progress import Progress
from stream.records import ENTRY_TOPICS, OUTPUT_TOPICS, OUTPUTS, PACKETS, TAKEN, TEXTS, VECTOR, VECTORS, VIDEO, Record


class Cut:
    """A recording between two moments.

    Attributes:
        about: What is said of the part: it begins at the last window up to `start_ns` that starts anew.
    """

    def __init__(self, reader: RecordingReader, start_ns: int | None = None, end_ns: int | None = None) -> None:
        """Look where it begins.

        Args:
            reader: Of the whole.
            start_ns: Not before the window that starts anew last up to here; None for the beginning.
            end_ns: Up to the final score of the window that starts here or after, without it; None for the end.

        Raises:
            SourceError: There is nothing between them.
        """
        self._reader, self._end_ns = reader, end_ns
        self._lead: set[int] = set()  # the numbers of earlier records that windows of the part depend on
        self._first = 0  # the number of the first record after the lead
        self.about: About = reader.about
        hop_ns = reader.about.config.windows.hop_ns
        if start_ns is not None:
            if not self._lasts(start_ns):
                raise SourceError(f"{reader.path}: ends before {start_ns / 1e9:g} s; begin earlier")
            if reader.about.session is None:
                self.about = reader.about.model_copy(update={"begin": replace(reader.about.begin, seq=start_ns // hop_ns)})
            else:
                self._find(start_ns)
        begin_ns = self.about.begin.seq * hop_ns
        if end_ns is not None and end_ns <= begin_ns:
            raise SourceError(f"{reader.path}: begins at {begin_ns / 1e9:g} s; end after that")

    def _lasts(self, t_ns: int) -> bool:
        """Whether there is a window or a packet then or after it."""
        if self.about.session is None:
            return any(record.value.t_ns >= t_ns for record in self._reader.records(frozenset(PACKETS)))
        scores = (record.value for record in self._reader.records(frozenset({OUTPUTS[Score].topic})))
        return any(score.kind == "final" and score.t_end_ns > t_ns for score in scores)

    def _find(self, start_ns: int) -> None:
        windows = self.about.config.windows
        progress = Progress(
            hop_ns=windows.hop_ns, gap_windows=windows.gap_windows, max_windows=windows.max_windows, begin=self.about.begin
        )
        texts = 0  # the number of those of the next score
        begin: Begin | None = None
        lead: list[Record] = []
        for record in self._reader.records(frozenset({*ENTRY_TOPICS, *OUTPUT_TOPICS, TEXTS.topic})):
            if record.kind is TEXTS:
                texts = record.number
            elif record.kind.topic in ENTRY_TOPICS:
                progress.entry(record)
            elif isinstance(record.value, Score) and record.value.kind == "final" and record.value.t_start_ns > start_ns:
                break
            elif progress.output(record.value):
                begin, lead, self._first = progress.begin, progress.lead(), texts or record.number
        if begin is not None:
            self._lead = {record.number for record in lead}
            self.about = self.about.model_copy(update={"begin": begin})

    def records(self) -> Iterator[Record]:
        """The part's records, in their order."""
        begin_ns = self.about.begin.seq * self.about.config.windows.hop_ns
        vectors: OrderedDict[int, Record] = OrderedDict()
        written: set[int] = set()
        shown: list[Record] = []  # coded video since the last picture that stands by itself, before the part
        for record in self._reader.records():
            kind, value = record.kind, record.value
            if kind is VECTOR:
                vectors[value.number] = record
                if len(vectors) > 2 * VECTORS:
                    written.discard(vectors.popitem(last=False)[0])
                continue
            if self._end_ns is not None and self._past(record, self._end_ns):
                return
            if kind.topic in PACKETS or kind is TAKEN:
                if value.t_ns >= begin_ns if kind is not TAKEN else record.number >= self._first:
                    yield from (replace(each, t_ns=record.t_ns) for each in shown)
                    shown = []
                    yield record
                elif isinstance(value, Coded):
                    shown = [record] if value.key else [*shown, record]
                continue
            if record.number < self._first and record.number not in self._lead:
                continue
            if kind is TEXTS:
                for number in value.vectors:
                    if number is not None and number not in written and number in vectors:
                        written.add(number)
                        yield replace(vectors[number], number=record.number, t_ns=record.t_ns)
            yield record

    def _past(self, record: Record, end_ns: int) -> bool:
        value = record.value
        if isinstance(value, Score):
            return value.kind == "final" and value.t_start_ns >= end_ns
        return self.about.session is None and record.kind is not VIDEO and value.t_ns >= end_ns
