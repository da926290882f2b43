"""The console: the current score, the last minute, the words, each lane's state, latency."""

import sys
from collections import deque
from typing import TYPE_CHECKING

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from stream.channel import Channel
from stream.messages import LANES, Lane, LaneScore, Score, SessionInfo
from stream.sinks.payload import SCORE_RANGE, polarity

if TYPE_CHECKING:
    from extractors.asr.recogniser import Word

_BARS = "▁▂▃▄▅▆▇█"
_MINUTE_NS = 60_000_000_000
_SPARKLINE = 60  # characters, a second each
_WORDS = 14
_HALF_BAR = 24  # characters from 0 to 3
_STATUS_STYLE = {"ok": "green", "partial": "green", "missing": "yellow", "unknown": "yellow", "unavailable": "red"}


class ConsoleDisplay:
    """Redraws one panel in place; on an output that is no terminal, prints it once at the end."""

    def __init__(self, console: Console, info: SessionInfo) -> None:
        """Draw on `console`."""
        self._console, self._info = console, info
        self._finals: deque[Score] = deque()
        self._words: deque[Word] = deque(maxlen=_WORDS)
        self._count = 0
        self._newest: Score | None = None

    async def run(self, scores: Channel[Score]) -> None:
        """Draw until there are no more scores."""
        # Log lines that go to the same terminal are printed above the panel; those that go elsewhere still go there.
        shared = sys.stderr.isatty()
        with Live(
            self.render(), console=self._console, refresh_per_second=8, redirect_stderr=shared, redirect_stdout=False
        ) as live:
            async for score in scores:
                self.take(score)
                live.update(self.render())

    def take(self, score: Score) -> None:
        """Remember what the display shows of a score."""
        self._newest = score
        if score.kind == "final":
            self._count += 1
            self._words.extend(score.words)
            self._finals.append(score)
            while self._finals[0].t_end_ns <= score.t_end_ns - _MINUTE_NS:
                self._finals.popleft()

    def render(self) -> RenderableType:
        """The whole panel."""
        title = Text(self._info.source, style="bold")
        if self._info.scripted:
            title.append(" ").append(" scripted ", style="reverse")
        footer = "\n".join(f"! {notice}" for notice in self._info.notices)
        body: list[RenderableType] = [self._score(), self._sparkline(), self._spoken(), self._lanes(), self._facts()]
        if footer:
            body.append(Text(footer, style="yellow"))
        return Panel(Group(*body), title=title, subtitle=f"{self._info.model} on {self._info.device}", width=92)

    def _score(self) -> RenderableType:
        if not self._newest:
            return Text("waiting for the first window …", style="dim")
        value = self._newest.smooth
        filled = round(abs(value) / SCORE_RANGE[1] * _HALF_BAR)
        left, right = ("█" * filled, "") if value < 0 else ("", "█" * filled)
        bar = f"{left:>{_HALF_BAR}}│{right:<{_HALF_BAR}}"
        label = f"{value:+.2f} {polarity(value)}" + (" provisional" if self._newest.kind == "provisional" else "")
        return Text.assemble((bar, _colour(value)), "  ", (label, f"bold {_colour(value)}"))

    def _sparkline(self) -> RenderableType:
        """The last minute's finals, a second a character, from -3 at the bottom to +3."""
        line = Text()
        by_second: dict[int, list[float]] = {}
        for score in self._finals:
            by_second.setdefault(score.t_start_ns // 1_000_000_000, []).append(score.smooth)
        for values in list(by_second.values())[-_SPARKLINE:]:
            mean = sum(values) / len(values)
            low, high = SCORE_RANGE
            level = min(len(_BARS) - 1, int((mean - low) / (high - low) * len(_BARS)))
            line.append(_BARS[level], style=_colour(mean))
        return Text.assemble("last minute  ", line)

    def _spoken(self) -> RenderableType:
        text = " ".join(word.text for word in self._words) or "–"
        guess = [] if not self._newest or self._newest.kind == "final" else [word.text for word in self._newest.words]
        return Text.assemble(
            "words        ", text, (" " + " ".join(guess) if guess else "", "dim"), overflow="ellipsis", no_wrap=True
        )

    def _lanes(self) -> RenderableType:
        table = Table(box=None, padding=(0, 2, 0, 0), show_header=False)
        for lane in LANES:
            table.add_row(lane.ljust(11), *self._lane(lane))
        return table

    def _lane(self, lane: Lane) -> tuple[Text, str, str, Text]:
        reason = self._info.unavailable.get(lane)
        found = LaneScore("unavailable", reason, None, 0.0) if reason else None
        if self._newest and not reason:
            found = self._newest.lanes[lane]
        if not found:
            return Text("…", style="dim"), "", "", Text()
        weight = f"weight {found.weight:.2f}" if self._newest and found.status != "unavailable" else ""
        age = "" if found.age_ns is None else f"{found.age_ns / 1e9:.1f} s old"
        reason = (found.reason or "").replace("_", " ")
        return Text(found.status, style=_STATUS_STYLE[found.status]), weight, age, Text(reason)

    def _facts(self) -> RenderableType:
        if not self._newest:
            return Text()
        facts = [f"{self._newest.t_end_ns / 1e9:.2f} s", f"{self._count} finals"]
        if self._newest.latency_ns is not None and self._newest.model_ns is not None:
            facts.append(f"{self._newest.kind} latency {self._newest.latency_ns / 1e6:.0f} ms")
            facts.append(f"model {self._newest.model_ns / 1e6:.1f} ms")
        return Text("  ·  ".join(facts), style="dim")


def _colour(value: float) -> str:
    return "green" if value > 0.25 else "red" if value < -0.25 else "white"
