"""Where a recording of a session that goes on already can begin: folded from what comes and what is scored.

It can begin at every window that starts anew. There the model remembers nothing, so all that is needed of the past is in
`Begin`, and in those entries of the last seconds that tell of that window or of later ones. Whether a session is being recorded
when a new part is due, or a finished recording is cropped, it is the same.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from stream.messages import (
    END_NS,
    Anew,
    Begin,
    Ended,
    Entry,
    Event,
    Lane,
    LaneUpdate,
    Output,
    Part,
    PartUnknown,
    RowsUpdate,
    Score,
    Tick,
    VoiceUpdate,
    WordsUpdate,
    part_of,
)
from stream.records import Record
from stream.utterances import UtteranceLog, UtteranceSplitter

_PRUNE_EVERY = 512  # entries


def _until_ns(entry: LaneUpdate | Tick | Ended) -> int:
    """Windows that start at or after this moment do not depend on the entry, if it is not the last one of its part and kind."""
    match entry:
        case RowsUpdate(_, rows, watermark_ns):
            return max([watermark_ns, *(rows.t_ns[-1:] + 1).tolist(), *(rows.absent_ns[-1:] + 1).tolist()])
        case VoiceUpdate(chunks, watermark_ns):
            return max(watermark_ns, chunks[-1].end_ns if chunks else 0)
        case WordsUpdate(final, provisional, watermark_ns):
            return max([watermark_ns, *(word.end_ns for word in (*final, *provisional))])
        case PartUnknown(watermark_ns=t_ns) | Tick(t_ns=t_ns):
            return t_ns + 1
        case _:
            return END_NS


@dataclass(frozen=True)
class _Kept:
    record: Record
    until_ns: int


class Progress:
    """Follows a session.

    Attributes:
        begin: The last window that started anew, and what a recording that begins there has to know.
    """

    def __init__(self, *, hop_ns: int, gap_windows: int, max_windows: int, begin: Begin | None = None) -> None:
        """Stand where the session, or its recording, begins."""
        self.begin = begin or Begin()
        self._hop_ns = hop_ns
        self._splitter = UtteranceSplitter(gap_windows=gap_windows, max_windows=max_windows)
        self._splitter.state = self.begin.splitter
        self._utterances = UtteranceLog(self.begin.utterance)
        self._next = self.begin.seq
        self._anew: set[int] = set()
        self._last_ns: dict[Lane, int | None] = dict(self.begin.last_ns)
        self._smooth = self.begin.smooth
        self._said = dict(self.begin.said)
        self._kept: list[_Kept] = []

    def entry(self, record: Record) -> None:
        """Something has come."""
        entry: Entry = record.value
        if isinstance(entry, Event):
            return
        if isinstance(entry, Anew):
            seq = max(self._next, -(-entry.t_ns // self._hop_ns))  # where it takes effect, as in `Windows.start_anew`
            self._anew.add(seq)
            until_ns = (seq + 1) * self._hop_ns
        else:
            until_ns = _until_ns(entry)
        self._kept.append(_Kept(record, until_ns))
        if len(self._kept) % _PRUNE_EVERY == 0:
            self._kept = list(self._needed(self._next * self._hop_ns))

    def output(self, output: Output) -> bool:
        """Something was put out; whether it is the final score of a window that starts anew."""
        if not isinstance(output, Score):
            return False
        if output.kind == "provisional":
            self._said[output.seq] = (output.rev + 1, output.sentiment)
            return False
        state = self._splitter.state
        restart = self._splitter.next(bool(output.voiced), anew=output.seq in self._anew)
        if restart:
            self._utterances.finish()
            self.begin = Begin(
                seq=output.seq,
                splitter=state,
                last_ns=dict(self._last_ns),
                smooth=self._smooth,
                said={seq: said for seq, said in self._said.items() if seq >= output.seq},
                utterance=self._utterances.number,
            )
        self._utterances.take(output)
        self._next, self._smooth = output.seq + 1, output.smooth
        self._anew.discard(output.seq)
        self._said.pop(output.seq, None)
        self._last_ns = {
            lane: None if score.age_ns is None else output.t_end_ns - score.age_ns for lane, score in output.lanes.items()
        }
        return restart

    def lead(self) -> list[Record]:
        """What has come that windows from `begin` on depend on."""
        return [kept.record for kept in self._needed(self.begin.seq * self._hop_ns)]

    def _needed(self, start_ns: int) -> Iterator[_Kept]:
        last: dict[tuple[Part, type[LaneUpdate]], Record] = {}  # by kind as well: words withdrawn stay so when text is unknown
        for kept in self._kept:
            if isinstance(update := kept.record.value, LaneUpdate):
                last[part_of(update), type(update)] = kept.record
        for kept in self._kept:
            if kept.until_ns > start_ns or any(kept.record is record for record in last.values()):
                yield kept
