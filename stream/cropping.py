"""A part of a recording that replays as the whole does: from a window that starts anew up to the end of another.

What windows from there on depend on is found by following the session (`stream.progress`), without a model. Of what came after
the end as little stays as can: what the last windows waited for, without what was said or seen.
"""

import math
from collections import Counter, OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from extractors.contract import FeatureRows
from stream.errors import SourceError
from stream.mcap import About, RecordingReader
from stream.messages import (
    END_NS,
    LANES,
    Anew,
    Begin,
    Coded,
    Event,
    Lane,
    LaneUpdate,
    Part,
    PartEnded,
    RowsUpdate,
    Score,
    VoiceUpdate,
    WordsUpdate,
    lane_of,
    part_of,
    taker_of,
)
from stream.progress import Progress
from stream.records import (
    ENTRY_TOPICS,
    OUTPUT_TOPICS,
    OUTPUTS,
    PACKETS,
    TAKEN,
    TEXTS,
    VECTOR,
    VECTORS,
    VIDEO,
    WORDS,
    Record,
    without_words,
)


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
            end_ns: Up to the final score of the last window that starts before; None for the end.

        Raises:
            SourceError: There is nothing between them.
        """
        self._reader = reader
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
        self._ending = None if end_ns is None else _ending(reader, self.about, end_ns)

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
        texts = first = 0  # the numbers of the next score's texts, and of what begins the part
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
                begin, lead, first = progress.begin, progress.lead(), texts or record.number
        if begin is not None and begin.seq > self.about.begin.seq:
            self._lead, self._first = {record.number for record in lead}, first
            self.about = self.about.model_copy(update={"begin": begin})

    def records(self) -> Iterator[Record]:
        """The part's records, in their order."""
        begin_ns = self.about.begin.seq * self.about.config.windows.hop_ns
        vectors: OrderedDict[int, Record] = OrderedDict()
        written: set[int] = set()
        texts: Record | None = None  # of the score that comes next
        shown: list[Record] = []  # coded video since the last picture that stands by itself, before the part
        for whole in self._reader.records():
            if self._ending and whole.number > self._ending.last:
                return
            if (record := self._ending.left(whole) if self._ending else whole) is None:
                continue
            kind, value = record.kind, record.value
            if kind is VECTOR:
                vectors[value.number] = record
                if len(vectors) > 2 * VECTORS:
                    written.discard(vectors.popitem(last=False)[0])
            elif kind.topic in PACKETS or kind is TAKEN:
                if value.t_ns >= begin_ns if kind is not TAKEN else record.number >= self._first:
                    yield from (replace(each, t_ns=record.t_ns) for each in shown)
                    shown = []
                    yield record
                elif isinstance(value, Coded):
                    shown = [record] if value.key else [*shown, record]
            elif record.number < self._first and record.number not in self._lead:
                continue
            elif kind is TEXTS:
                texts = record
            else:
                if isinstance(value, Score) and texts:
                    for number in texts.value.vectors:
                        if number is not None and number not in written and number in vectors:
                            written.add(number)
                            yield replace(vectors[number], number=texts.number, t_ns=texts.t_ns)
                    yield texts
                yield record


@dataclass(frozen=True)
class _Ending:
    """Where a part ends, in numbers of records.

    Attributes:
        end_ns: The end, session time.
        last: The last record of all.
        updates: Of each lane, the last one that it says.
        packets: Likewise the last one that it takes.
        video: The last one of coded video.
    """

    end_ns: int
    last: float
    updates: Mapping[Lane, float]
    packets: Mapping[Lane, float]
    video: float

    def left(self, record: Record) -> Record | None:
        """What is left of a record; None if nothing is."""
        kind, value, number = record.kind, record.value, record.number
        if kind is VIDEO:
            stays = number <= self.video
        elif kind is TAKEN or kind.topic in PACKETS:
            stays = number <= self.packets[value.lane if kind is TAKEN else taker_of(value)]
        elif isinstance(value, LaneUpdate):
            stays = number <= self.updates[lane_of(value)]
        elif isinstance(value, Score):
            stays = value.t_start_ns < self.end_ns
        else:
            stays = not isinstance(value, Event | Anew) or value.t_ns < self.end_ns
        return replace(record, value=_untold(value, self.end_ns)) if stays else None


def _untold(value: Any, end_ns: int) -> Any:
    """The same with stand-ins for words that end later, and of what was seen and heard later no features, only when it was."""
    match value:
        case WordsUpdate(final, provisional, watermark_ns):
            hidden = without_words(value)
            first, guess = (
                tuple(word if word.end_ns <= end_ns else stand_in for word, stand_in in zip(words, stand_ins, strict=True))
                for words, stand_ins in ((final, hidden.final), (provisional, hidden.provisional))
            )
            return WordsUpdate(first, guess, watermark_ns)
        case RowsUpdate(lane, rows, watermark_ns) if (later := rows.t_ns >= end_ns).any():
            absent_ns = np.sort(np.concatenate([rows.absent_ns, rows.t_ns[later]]))
            return RowsUpdate(lane, FeatureRows(rows.t_ns[~later], rows.values[~later], absent_ns), watermark_ns)
        case _:
            return value


class _Needed:
    """Follows a session up to the final score of the last window before an end, and finds what that and all before came of.

    Attributes:
        last: The number of that score's record.
        updates: Of each lane, that of the last update by which it passed the end, or which gave a score.
    """

    def __init__(self, end_ns: int) -> None:
        """Stand before the first record."""
        self.last = -1
        self.updates: dict[Lane, float] = dict.fromkeys(LANES, -1)
        self._end_ns = end_ns
        self._passed_ns: dict[Lane, dict[Part, int]] = {
            "text": {"text": 0}, "audio": {"audio": 0, "voice": 0}, "vision": {"vision": 0}
        }  # fmt: skip
        self._said: list[tuple[int, LaneUpdate]] = []
        self._taken: dict[Lane, list[Record]] = {lane: [] for lane in LANES}
        self._lane: Lane | None = None  # whose what came last is
        self._transcripts: list[Record] = []  # words that the text lane has taken, not heard
        self._transcript = False  # the packet that is taken next is of those

    def take(self, record: Record) -> bool:
        """Take the next record; returns whether it is that score."""
        number, value = record.number, record.value
        if isinstance(value, Score):
            if self._lane and value.t_start_ns < self._end_ns:
                self.updates[self._lane] = self._said[-1][0]
            self.last = number
            return value.kind == "final" and value.t_end_ns >= self._end_ns
        if record.kind is WORDS:
            self._transcript = True
        elif record.kind is TAKEN and value.lane == "text" and self._transcript:
            self._transcripts.append(record)
            self._transcript = False
        elif record.kind is TAKEN:
            self._taken[value.lane].append(record)
        elif isinstance(value, LaneUpdate):
            self._lane = lane_of(value)
            passed_ns, part = self._passed_ns[self._lane], part_of(value)
            if min(passed_ns.values()) < self._end_ns:
                self.updates[self._lane] = number
            passed_ns[part] = max(passed_ns[part], END_NS if isinstance(value, PartEnded) else value.watermark_ns)
            self._said.append((number, value))
        else:
            self._lane = None
        return False

    def taken(self) -> dict[Lane, Record | None]:
        """The last that each lane has to take to say so much, as it was taken.

        What is taken makes the vision lane say one thing, the audio lane one of sound and one of voices or more, and the text
        lane one of each chunk that it hears; or one of each transcript, and then it hears nothing.
        """
        said = Counter(part_of(update) for number, update in self._said if number <= self.updates[lane_of(update)])
        voices = [update for _, update in self._said if part_of(update) == "voice"]
        texts = words = heard = 0
        for record in self._taken["text"]:
            if words >= said["text"]:
                break
            texts += 1
            if record.value.key < len(voices):
                update, heard = voices[record.value.key], record.value.key + 1
                whole = isinstance(update, VoiceUpdate) and record.value.lost is None
                words += len(update.chunks) if whole else 1
        taken = {
            "text": self._transcripts[: said["text"]] or self._taken["text"][:texts],
            "audio": self._taken["audio"][: max(said["audio"], said["voice"], 0 if self._transcripts else heard)],
            "vision": self._taken["vision"][: said["vision"]],
        }
        return {lane: taken[lane][-1] if taken[lane] else None for lane in LANES}


def _ending(reader: RecordingReader, about: About, end_ns: int) -> _Ending:
    """Find where a part ends; `about` is the part's."""
    last, updates = math.inf, dict.fromkeys(LANES, math.inf)
    if about.session:
        hop_ns = about.config.windows.hop_ns
        end_ns = -(-end_ns // hop_ns) * hop_ns
        needed = _Needed(end_ns)
        topics = {*ENTRY_TOPICS, OUTPUTS[Score].topic, TAKEN.topic, WORDS.topic}
        if not any(needed.take(record) for record in reader.records(frozenset(topics))):
            return _Ending(end_ns, last, updates, updates, last)  # it has ended before
        last, updates = needed.last, needed.updates
        if not about.begin.seq:
            taken = needed.taken()
            packets = {lane: each.number if each else -1.0 for lane, each in taken.items()}
            seen_ns = taken["vision"].value.key if taken["vision"] else -1
            return _Ending(end_ns, last, updates, packets, _before(reader, {VIDEO.topic}, seen_ns + 1)["vision"])
    packets = _before(reader, PACKETS, end_ns)  # nobody takes them as they were taken
    return _Ending(end_ns, last, updates, packets, packets["vision"])


def _before(reader: RecordingReader, topics: Iterable[str], end_ns: int) -> dict[Lane, float]:
    """Of each lane, the last packet of those kinds that is of before `end_ns`."""
    found = dict.fromkeys(LANES, -1.0)
    for record in reader.records(frozenset(topics)):
        if record.value.t_ns < end_ns:
            found[taker_of(record.value)] = record.number
    return found
