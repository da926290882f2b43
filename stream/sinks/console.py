"""The console: the current score, the last minute, the words, each lane's state, latency."""

import asyncio
import contextlib
import sys
import time
from collections import deque
from typing import TYPE_CHECKING

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from stream.channel import Channel
from stream.messages import LANES, Event, Lane, LaneScore, Output, Score, SessionInfo
from stream.sinks.payload import SCORE_RANGE, polarity
from stream.worker import Worker

if TYPE_CHECKING:
    from extractors.asr.recogniser import Word

_BARS = "▁▂▃▄▅▆▇█"
_MINUTE_NS = 60_000_000_000
_REDRAW_S = 0.12  # at most so often
_LEAVE_S = 0.5  # for a terminal that is stuck to take the last panel
_SPARKLINE = 60  # characters, a second each
_WORDS = 14
_HALF_BAR = 24  # characters from 0 to 3
_STATUS_STYLE = {"ok": "green", "partial": "green", "missing": "yellow", "unknown": "yellow", "unavailable": "red"}


class ConsoleDisplay:
    """Redraws a panel for each session in place; on an output that is no terminal, prints them once at the end."""

    name = "console"

    def __init__(self, console: Console) -> None:
        """Draw on `console`."""
        self._console = console
        self._live: Live | None = None
        self._worker: Worker | None = None
        self._views: dict[str, SessionView] = {}
        self._running = 0
        self._drawn_s = 0.0

    async def run(self, info: SessionInfo, outputs: Channel[Output]) -> None:
        """Draw until there are no more outputs; a terminal that is stuck holds up nobody else."""
        view = SessionView(info)
        self._views[info.session] = view  # one that is begun anew takes its own place
        self._running += 1
        self._worker = worker = self._worker or Worker("console")
        try:
            async for output in outputs:
                view.take(output)
                if self._console.is_terminal and time.monotonic() - self._drawn_s > _REDRAW_S:
                    self._drawn_s = time.monotonic()
                    await worker.call(self._draw, self._render())
        finally:
            self._running -= 1
            if not self._running:
                try:
                    with contextlib.suppress(TimeoutError):
                        await asyncio.wait_for(worker.call(self._leave, self._render()), _LEAVE_S)
                finally:
                    await worker.close(_LEAVE_S)
                    self._worker = None
                    self._views.clear()

    def _render(self) -> RenderableType:
        return Group(*(view.render() for view in self._views.values()))

    def _draw(self, views: RenderableType) -> None:
        if self._live:
            self._live.update(views, refresh=True)
            return
        # Log lines that go to the same terminal are printed above the panel; those that go elsewhere still go there.
        shared = sys.stderr.isatty()
        live = Live(views, console=self._console, auto_refresh=False, redirect_stderr=shared, redirect_stdout=False)
        live.start(refresh=self._console.is_terminal)
        self._live = live

    def _leave(self, views: RenderableType) -> None:
        """Draw for the last time, and give the terminal back."""
        self._draw(views)
        if self._live:
            self._live.stop()
            self._live = None


class SessionView:
    """What the console shows of one session."""

    def __init__(self, info: SessionInfo) -> None:
        """Before the first window."""
        self._info = info
        self._finals: deque[Score] = deque()
        self._words: deque[Word] = deque(maxlen=_WORDS)
        self._count = 0
        self._newest: Score | None = None
        self._event: Event | None = None

    def take(self, output: Output) -> None:
        """Remember what is shown of an output."""
        match output:
            case Score(kind="final"):
                self._newest = output
                self._count += 1
                self._words.extend(output.words)
                self._finals.append(output)
                while self._finals[0].t_end_ns <= output.t_end_ns - _MINUTE_NS:
                    self._finals.popleft()
            case Score():
                self._newest = output
            case Event(kind="lost" | "recovered"):
                self._event = output

    def render(self) -> RenderableType:
        """The whole panel."""
        title = Text(f"{self._info.session}: {self._info.source}", style="bold")
        if self._info.scripted:
            title.append(" ").append(" scripted ", style="reverse")
        footer = "\n".join(f"! {notice}" for notice in self._info.notices)
        body: list[RenderableType] = [self._score(), self._sparkline(), self._spoken(), self._lanes(), self._facts()]
        if self._event:
            style = "red" if self._event.kind == "lost" else "green"
            body.append(Text(f"{self._event.t_ns / 1e9:.0f} s  {self._event.reason}", style=style))
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
        label = f"{value:+.2f} ± {self._newest.uncertainty:.1f} {polarity(value)}"
        label += " provisional" if self._newest.kind == "provisional" else ""
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
        if latency := self._newest.latency:
            facts.append(
                f"{self._newest.kind} latency {latency.total_ns / 1e6:.0f} ms, of it model {latency.model_ns / 1e6:.1f}"
            )
        if self._newest.text_lag_ns is not None:
            facts.append(f"words {self._newest.text_lag_ns / 1e9:.1f} s behind")
        facts += [f"{count} {lane} dropped" for lane, count in self._newest.dropped.items() if count]
        return Text("  ·  ".join(facts), style="dim")


def _colour(value: float) -> str:
    return "green" if value > 0.25 else "red" if value < -0.25 else "white"
