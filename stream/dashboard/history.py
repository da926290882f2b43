"""What the page shows of a session, and the summary of it that can be downloaded."""

import csv
import io
import itertools
from collections import deque
from collections.abc import Iterator
from typing import Any

from stream.messages import LANES, Event, Output, Score, SessionInfo, Utterance
from stream.sinks.payload import payload
from stream.sinks.state import SessionState

_SHOWN_NS = 300_000_000_000  # final scores that a page starts with
_KEPT_NS = 12 * 3_600_000_000_000  # final scores in the summary
_UTTERANCES, _EVENTS = 5000, 1000
BINS = 16  # of a lane's mask, each the mean of neighbouring columns

Message = dict[str, Any]
_COLUMNS = ("seq", "t_start_s", "t_end_s", "sentiment", "uncertainty", "smooth", *(f"weight_{lane}" for lane in LANES), "words")


class History:
    """One session, from the view of who watches it.

    Attributes:
        info: What holds for all of it.
        state: How it is.
    """

    def __init__(self, info: SessionInfo) -> None:
        """Before the first window."""
        self.info, self.state = info, SessionState(info)
        self._shown: deque[Message] = deque()
        self._newest: Message | None = None
        self._kept: deque[tuple[Any, ...]] = deque()
        self._utterances: deque[Message] = deque(maxlen=_UTTERANCES)
        self._events: deque[Message] = deque(maxlen=_EVENTS)

    def take(self, output: Output) -> Iterator[Message]:
        """Remember an output; yields what a page that is open is told."""
        if self.state.take(output):
            yield self.told("state", **self.state.payload())
        match output:
            case Score():
                message = self._newest = self.told("score", **_score(output, self.info))
                if output.kind == "final":
                    self._shown.append(message)
                    self._kept.append(_row(output))
                    while self._shown[0]["t_end_s"] * 1e9 < output.t_end_ns - _SHOWN_NS:
                        self._shown.popleft()
                    while self._kept[0][2] * 1e9 < output.t_end_ns - _KEPT_NS:
                        self._kept.popleft()
                yield message
            case Utterance():
                words = " ".join(word.text for word in output.words)
                message = self.told("utterance", **payload(output, self.info), text=words)
                self._utterances.append(message)
                yield message
            case Event():
                message = self.told("event", **payload(output, self.info))
                self._events.append(message)
                yield message

    def end(self) -> Message:
        """There will be no more outputs; what a page is told."""
        self.state.end()
        return self.told("state", **self.state.payload())

    def snapshot(self) -> Message:
        """What a page is told first."""
        info = self.info
        return self.told(
            "session",
            source=info.source,
            live=info.live,
            scripted=info.scripted,
            model=info.model,
            trained=bool(info.trained_on),
            device=info.device,
            notices=list(info.notices),
            scores=list(self._shown),
            newest=self._newest,
            utterances=list(self._utterances)[-20:],
            events=list(self._events)[-20:],
            **self.state.payload(),
        )

    def told(self, what: str, **about: Any) -> Message:
        """A message to pages."""
        return {**about, "type": what, "session": self.info.session}

    def summary(self) -> Message:
        """The session so far, or all of it: figures, utterances, events, and the final scores of the last twelve hours."""
        sentiments = [row[3] for row in self._kept]
        count = len(sentiments)
        return {
            "session": self.info.session,
            "source": self.info.source,
            "model": self.info.model,
            "trained": bool(self.info.trained_on),
            **self.state.payload(),
            "windows": count,
            "mean": round(sum(sentiments) / count, 4) if count else None,
            "most_positive": max(sentiments, default=None),
            "most_negative": min(sentiments, default=None),
            "positive_share": round(sum(each > 0 for each in sentiments) / count, 4) if count else None,
            "utterances": list(self._utterances),
            "events": list(self._events),
            "scores": [dict(zip(_COLUMNS, row, strict=True)) for row in self._kept],
        }

    def table(self) -> str:
        """The final scores of the last twelve hours as CSV."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(_COLUMNS)
        writer.writerows(self._kept)
        return text.getvalue()


def _row(score: Score) -> tuple[Any, ...]:
    weights = (round(score.lanes[lane].weight, 3) for lane in LANES)
    return (
        score.seq,
        score.t_start_ns / 1e9,
        score.t_end_ns / 1e9,
        round(score.sentiment, 4),
        round(score.uncertainty, 4),
        round(score.smooth, 4),
        *weights,
        _spreadsheet_safe(" ".join(word.text for word in score.words)),
    )


def _spreadsheet_safe(text: str) -> str:
    """Words that a spreadsheet would take for a formula are not one."""
    return f"'{text}" if text[:1] in ("=", "+", "-", "@") else text


def _score(score: Score, info: SessionInfo) -> Message:
    found = payload(score, info)
    found["words"] = [word.text for word in score.words]
    found["masks"] = {lane: _binned(mask) for lane, mask in score.masks.items()}
    return found


def _binned(mask: tuple[float, ...]) -> list[float]:
    """A mask in few numbers."""
    edges = [round(number * len(mask) / BINS) for number in range(BINS + 1)]
    pieces = [mask[first:last] for first, last in itertools.pairwise(edges) if last > first]
    return [round(sum(piece) / len(piece), 3) for piece in pieces]
