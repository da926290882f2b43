"""A recording as a source: the session's packets again, or in their place what its lanes said of them.

What came is brought as it came (`recorded`), with the moments of provisional scores; or as if every lane had been in time,
words late by a fixed delay or not at all (`ideal`).
"""

from collections import OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal, cast

import numpy as np

from extractors.text import WIDTH
from stream.clock import Clock
from stream.cropping import Cut
from stream.errors import SourceError
from stream.mcap import RecordingReader
from stream.messages import (
    END_NS,
    Anew,
    Coded,
    Due,
    Ended,
    Entry,
    Event,
    Given,
    Lane,
    LaneUpdate,
    Packet,
    Part,
    PartEnded,
    Replayed,
    Score,
    Scored,
    Text,
    Tick,
    VideoFrame,
    lane_of,
    part_of,
    taker_of,
)
from stream.pictures import Decoder
from stream.records import ENTRY_TOPICS, PACKETS, TAKEN, TEXTS, VECTOR, VECTORS, Record, TakenRecord, Texts
from stream.sources.source import Provides
from stream.windows import feature_contracts

Origin = Literal["features", "media"]
_PICTURES = 256  # decoded ones that wait to be taken; those that were passed over are let go


class RecordingSource:
    """Plays back an MCAP recording of this program.

    Attributes:
        about: What the recording, or the part of it, says of itself.
        known: What the words of windows came to, by number, where words themselves are not asked for; filled by `packets`.
    """

    live = False

    def __init__(
        self,
        path: Path,
        *,
        origin: Origin | None = None,
        arrivals: Literal["recorded", "ideal"] = "recorded",
        delay_ns: int = 0,
        start_ns: int | None = None,
        end_ns: int | None = None,
    ) -> None:
        """Open it.

        Args:
            path: The file.
            origin: What to begin with; None for features where they are there.
            arrivals: When things come, see above.
            delay_ns: With `ideal`, how much later than they were spoken words come.
            start_ns: From about here, see `Cut`; None for the beginning.
            end_ns: Up to here; None for the end.

        Raises:
            SourceError: As `RecordingReader` does, or it does not hold what is asked for.
        """
        self._reader = RecordingReader(path)
        whole = self._reader.about
        features = whole.replayable and origin != "media"
        if not features and not whole.packets:
            raise SourceError(f"{path}: holds {_holds(whole.level)}; record with --record-level {origin or 'features'}")
        if origin == "features" and not features:
            raise SourceError(f"{path}: packets alone, no features; leave --from out")
        lanes = set(whole.contracts) | set(feature_contracts()) if features else _ready_made(whole.packets)
        if any(whole.contracts.get(lane) != feature_contracts().get(lane) for lane in lanes):
            way = ", or replay --from media" if features and whole.packets else ""
            raise SourceError(f"{path}: its features are of another version of the extractors; record it again{way}")
        self._cut = Cut(self._reader, start_ns, end_ns)
        self.about = self._cut.about
        self._recorded = arrivals == "recorded" and whole.replayable
        if self._recorded and not features and self.about.begin.seq:
            raise SourceError(
                f"{path}: from the middle of a session its pictures and sound cannot give the very same again; "
                "replay --from features, or with --arrivals ideal"
            )
        if delay_ns and not features:
            raise SourceError(f"{path}: --arrivals delay= needs features; leave --from media out")
        self._features, self._delay_ns = features, delay_ns
        self._end_ns = end_ns
        self._end = None if end_ns is None else -(-end_ns // whole.config.windows.hop_ns)  # the first window after it
        self.name, self.scripted = whole.name, whole.scripted
        provides = {"updates"} if features else set(whole.packets)
        self.provides = cast(frozenset[Provides], frozenset(provides | ({"script"} if self._recorded else set())))
        self.known: dict[int, Text] | None = {} if features and (self._recorded or not whole.words) else None
        self.problems: list[str] = []
        self.tap: Callable[[Coded], object] | None = None  # is given coded video as it comes

    def packets(self, clock: Clock) -> Iterator[Packet]:
        """The packets by time; see `Source.packets`."""
        if self._recorded:
            yield from self._as_recorded()
        elif self._features:
            yield from self._in_time()
        else:
            yield from (packet for packet in self._packets() if self._end_ns is None or packet.t_ns < self._end_ns)
        if self._reader.problem:
            self.problems.append(self._reader.problem)

    def close(self) -> None:
        """Nothing is held open between readings."""

    # --- packets alone

    def _packets(self) -> Iterator[Packet]:
        decoder = Decoder()
        for record in self._cut.records():
            if isinstance(record.value, Coded):
                self._show(record.value)
                yield from decoder.push(record.value)
            elif record.kind.topic in PACKETS:
                yield record.value
        yield from decoder.finish()

    def _show(self, coded: Coded) -> None:
        if self.tap:
            self.tap(coded)

    # --- as it was

    def _as_recorded(self) -> Iterator[Packet]:
        """Each entry with the scores that it gave; from packets, with what the lanes took before it."""
        taker = _Taker()
        vectors = _Vectors()
        entry: Record | None = None
        scores: list[Scored] = []
        texts: tuple[Text, ...] | None = None
        end = self.about.begin.seq  # the window after the last one that was settled
        for record in self._cut.records():
            kind, value = record.kind, record.value
            if isinstance(value, Coded):
                self._show(value)
            if kind is VECTOR:
                vectors.add(value.number, value.vector)
            elif kind is TEXTS:
                texts = vectors.texts(value)
            elif isinstance(value, Score):
                scores.append(Scored(value, texts))
                end = value.seq + 1 if value.kind == "final" else end
            elif kind.topic in ENTRY_TOPICS:
                if entry:
                    yield self._replayed(entry, scores, self._end)
                entry, scores = record, []
            elif not self._features and (given := taker.push(record)):
                yield given
        if entry:  # it may end within what this gave
            yield self._replayed(entry, scores, end)

    def _replayed(self, record: Record, scores: list[Scored], end: int | None) -> Replayed:
        entry: Entry | Due = record.value
        if not self._features and isinstance(entry, LaneUpdate):
            entry = Due(lane_of(entry))
        return Replayed(record.t_ns, entry, tuple(scores), end)

    # --- as if it had come in time

    def _in_time(self) -> Iterator[Packet]:
        """All entries in the order in which they would have come; what hung on the machine's speed is left out."""
        vectors = _Vectors()
        texts: tuple[Text, ...] | None = None
        found: list[tuple[int, Entry]] = []
        reached_ns: dict[Part, int] = {}  # when the last that each part has said would have come
        end, ended = self.about.begin.seq, False
        for record in self._cut.records():
            value = record.value
            if record.kind is VECTOR:
                vectors.add(value.number, value.vector)
            elif record.kind is TEXTS:
                texts = vectors.texts(value)
            elif isinstance(value, Score):
                if value.kind == "final":
                    end = value.seq + 1
                    if texts and self.known is not None:
                        self.known[value.seq] = texts[0]
            elif isinstance(value, Ended):
                ended = True
            elif record.kind.topic in ENTRY_TOPICS and not isinstance(value, Tick):
                found.append((self._due_ns(record, reached_ns), value))
        found.sort(key=lambda pair: pair[0])  # stable: so what a part says stays in its order
        for due_ns, entry in found:
            yield Replayed(due_ns, entry, end=end)
        if ended:
            yield Replayed(found[-1][0] if found else 0, Ended(), end=end)

    def _due_ns(self, record: Record, reached_ns: dict[Part, int]) -> int:
        """When it would have come; nothing that a part says comes before what it has said already."""
        entry = record.value
        if isinstance(entry, Anew | Event):
            return entry.t_ns
        part = part_of(entry)
        due_ns = record.t_ns if isinstance(entry, PartEnded) or entry.watermark_ns >= END_NS else entry.watermark_ns
        reached_ns[part] = max(reached_ns.get(part, 0), due_ns + (self._delay_ns if part == "text" else 0))
        return reached_ns[part]


class _Taker:
    """Puts together what a lane took: the packet, and how it was taken."""

    def __init__(self) -> None:
        self._decoder = Decoder()
        self._pictures: OrderedDict[int, VideoFrame] = OrderedDict()
        self._packet: dict[Lane, Packet] = {}

    def push(self, record: Record) -> Given | None:
        """Take a record of a packet, or of one that was taken."""
        value = record.value
        if isinstance(value, Coded):
            for frame in self._decoder.push(value):
                self._pictures[frame.t_ns] = frame
                if len(self._pictures) > _PICTURES:
                    self._pictures.popitem(last=False)
        elif record.kind.topic in PACKETS:
            self._packet[taker_of(value)] = value
        elif record.kind is TAKEN:
            return self._given(record.t_ns, value)
        return None

    def _given(self, t_ns: int, taken: TakenRecord) -> Given | None:
        packet = self._packet.pop(taken.lane, None)
        if packet is None and taken.lane == "text":
            return Given(t_ns, taken.lane, taken.key, taken.behind, taken.lost, taken.failed)
        if packet is None:
            if taken.key not in self._pictures:  # the decoder still holds it
                for frame in self._decoder.finish():
                    self._pictures[frame.t_ns] = frame
            packet = self._pictures.get(taken.key)
            for passed in [each for each in self._pictures if each <= taken.key]:
                del self._pictures[passed]
        if packet is None:
            return None
        return Given(t_ns, taken.lane, packet, taken.behind, taken.lost, taken.failed)  # type: ignore[arg-type]


class _Vectors:
    """The newest vectors by number, as many as texts refer to."""

    def __init__(self) -> None:
        self._found: OrderedDict[int, np.ndarray[tuple[int], np.dtype[np.float32]]] = OrderedDict()
        self._none = np.zeros(WIDTH, np.float32)

    def add(self, number: int, vector: "np.ndarray[tuple[int], np.dtype[np.float32]]") -> None:
        self._found[number] = vector
        if len(self._found) > 2 * VECTORS:
            self._found.popitem(last=False)

    def texts(self, texts: Texts) -> tuple[Text, ...] | None:
        """What they refer to; None if the recording lacks it."""
        if any(number is not None and number not in self._found for number in texts.vectors):
            return None
        return tuple(
            Text(self._none if number is None else self._found[number], told)
            for number, told in zip(texts.vectors, texts.told, strict=True)
        )


def _ready_made(packets: tuple[str, ...]) -> set[str]:
    """Lanes whose features came from the source itself."""
    return {"vision"} if "vision_rows" in packets else set()


def _holds(level: str) -> str:
    return "scores alone" if level == "scores" else "features, but no pictures and no sound"
