"""One session: wires sources, lanes, windows, scorer and sinks with bounded channels. It computes nothing itself.

Blocking work runs on a thread of its own for each part. A lane that fails is lost for a while, with a word about it, and the
session goes on with the others. A live session never waits for what is late: its edges give up what they must, and count it.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeVar

import numpy as np
import numpy.typing as npt

from stream.backoff import Backoff
from stream.batcher import Batcher
from stream.channel import Channel, everything, oldest
from stream.clock import Clock
from stream.errors import UsageError
from stream.feed import Feed, FileFeed, LiveFeed
from stream.lanes import LaneLike
from stream.latency import Arrivals
from stream.messages import (
    END_NS,
    PARTS,
    AudioBlock,
    Event,
    Gap,
    Lane,
    LaneUpdate,
    Output,
    Packet,
    Part,
    PartEnded,
    PartUnknown,
    Score,
    Transcript,
    VideoFrame,
    VisionRows,
    VoiceUpdate,
    Window,
)
from stream.parts import Parts
from stream.scorer import Job
from stream.sinks.sink import WAITING, Sink, provisional_first
from stream.sources.source import Source
from stream.utterances import UtteranceLog
from stream.worker import Worker

log = logging.getLogger(__name__)

_PARTS: dict[Lane, tuple[Part, ...]] = {"vision": ("vision",), "audio": ("audio", "voice"), "text": ("text",)}
_BEHIND_NS = 2_000_000_000  # a lane so late leaves out what it need not do
_PAUSE_NS, _LONGEST_PAUSE_NS = 1_000_000_000, 30_000_000_000  # how long a lane that failed is left alone, at first and at most
_STEADY_NS = 60_000_000_000  # a lane that has worked so long is well again
_DRAIN_S, _FLUSH_S = 2.0, 0.7  # after `stop`: for what was read to come through, and then for sinks to take the last scores

LanePacket = VideoFrame | VisionRows | AudioBlock | Gap | Transcript | VoiceUpdate | PartUnknown
T = TypeVar("T", bound=LanePacket)


@dataclass(frozen=True)
class Tick:
    """The present has come to `t_ns`, the end of a window: time for a provisional score of it."""

    t_ns: int


class Session:
    """Runs until its sources end or `stop` is called, and everything that was read has its final score.

    Example:
        session = Session([source], parts, batcher, clock, [JsonLines(sys.stdout)], hop_ns=250_000_000)
        problems = await session.run()
    """

    def __init__(
        self,
        sources: Sequence[Source],
        parts: Parts,
        batcher: Batcher,
        clock: Clock,
        sinks: Sequence[Sink],
        *,
        hop_ns: int,
        lateness_ns: Mapping[Lane, int] | None = None,
    ) -> None:
        """Wire the parts; nothing runs yet.

        Args:
            sources: One file, or the devices of a live session.
            parts: Lanes, windows and scorer.
            batcher: Of the engine that the scorer has a slot of.
            clock: Whose present the devices stamp by.
            sinks: Where scores go.
            hop_ns: The length of a window.
            lateness_ns: How far a lane of a live session may be behind the present before windows are settled without it.
        """
        self._parts, self._batcher, self._clock, self._sinks, self._hop_ns = parts, batcher, clock, sinks, hop_ns
        self._sources = sources
        self._live = any(source.live for source in sources)
        self._lateness_ns = (
            {part: ns for lane, ns in (lateness_ns or {}).items() for part in _PARTS[lane]} if self._live else {}
        )
        # A frame waits for the one before it, no longer; sound and words are small and may pile up for some seconds.
        self._to_vision: Channel[VideoFrame | VisionRows | Gap] = Channel(1, oldest) if self._live else Channel(2)
        self._to_audio: Channel[AudioBlock | Gap] = Channel(250, oldest) if self._live else Channel(64)
        self._to_text: Channel[Transcript | VoiceUpdate | PartUnknown] = (
            Channel(1500, everything) if self._live else Channel(256)
        )
        self._to_windows: Channel[LaneUpdate | Tick] = Channel(256)
        self._to_sinks: list[Channel[Output]] = [Channel(WAITING, provisional_first if self._live else None) for _ in sinks]
        self._feeds: list[Feed] = []
        self._stopping = asyncio.Event()
        self._arrivals = Arrivals()
        self._utterances = UtteranceLog()
        self._ticked_ns = 0  # up to here the display is
        self._ended = False  # there is no more input, and so no present
        self._paused = False
        self._forced: set[Part] = set()  # what windows are being settled without
        self._told: dict[str, int] = {}  # what was given up or came late, as far as it has been told
        self._happened: deque[Event] = deque(maxlen=1000)  # waiting to be told; from any thread
        self._shown = len(sinks)
        self.problems: list[str] = []

    @property
    def name(self) -> str:
        """The session's."""
        return self._parts.info.session

    @property
    def edges(self) -> "dict[str, Channel[Any]]":
        """The channels, by the name of what they lead to."""
        names = [*self._inboxes(), "windows", *(sink.name for sink in self._sinks)]
        return dict(zip(names, [*self._inboxes().values(), self._to_windows, *self._to_sinks], strict=True))

    def view(self) -> "tuple[npt.NDArray[np.uint8], npt.NDArray[np.float32] | None] | None":
        """The picture that was looked at last, and the face's outline; None if there is none. From any thread."""
        lane = self._parts.vision
        return None if lane is None or self._paused else lane.view

    def pause(self) -> None:
        """Let go of the devices until `resume`; time goes on, and its windows hold nothing.

        Raises:
            UsageError: The session reads a file, which is stopped, not paused.
        """
        feeds = [feed for feed in self._feeds if isinstance(feed, LiveFeed)]
        if not feeds:
            raise UsageError(f"{self.name} reads a file, and cannot be paused; stop it instead")
        if not self._paused:
            self._paused = True
            for feed in feeds:
                feed.pause()
            self._ask("paused", "paused by command")

    def resume(self) -> None:
        """Take the devices up again after `pause`."""
        if self._paused:
            self._paused = False
            for feed in self._feeds:
                if isinstance(feed, LiveFeed):
                    feed.resume()
            self._ask("resumed", "resumed by command")

    def reset(self) -> None:
        """Let an utterance begin with the next window, whatever was said before: the model and its text start anew."""
        seq = self._parts.windows.start_anew(self._now_ns())
        self._happen(Event(seq * self._hop_ns, "reset", "session", "an utterance begins here by command"))

    def mark(self, label: str) -> None:
        """Note that something has happened now; `label` says what."""
        self._ask("marked", label)

    def stop(self) -> None:
        """Read no more; what has been read is still scored, for at most three seconds."""
        self._stopping.set()
        for feed in self._feeds:
            feed.stop()

    async def run(self) -> list[str]:
        """Run to the end; returns what went wrong on the way, a line each, logged when it happened."""
        self._feeds = [self._feed(source) for source in self._sources]
        if self._stopping.is_set():
            self.stop()
        async with asyncio.TaskGroup() as group:
            sinks = [
                group.create_task(self._show(sink, channel)) for sink, channel in zip(self._sinks, self._to_sinks, strict=True)
            ]
            scoring = group.create_task(self._score())
            lanes = group.create_task(self._lanes())
            ticking = group.create_task(self._tick())
            group.create_task(self._read(ticking))
            deadline = group.create_task(self._deadline(lanes, [scoring, *sinks]))
            await asyncio.wait([scoring, *sinks])
            deadline.cancel()
        return self.problems

    async def _deadline(self, lanes: "asyncio.Task[None]", last: "Sequence[asyncio.Task[None]]") -> None:
        """Once it is to stop, wait only so long for what hangs."""
        await self._stopping.wait()
        await asyncio.sleep(_DRAIN_S)
        if not lanes.done():
            lanes.cancel()
        await asyncio.sleep(_FLUSH_S)
        for task in last:
            task.cancel()

    # --- sources

    def _feed(self, source: Source) -> Feed:
        if source.live:
            return LiveFeed(source, self._clock, self._offer, self._happen)
        return FileFeed(source, self._clock, self._put)

    async def _read(self, ticking: "asyncio.Task[None]") -> None:
        """Read until the end or `stop`; then nothing more will come to the lanes."""
        ended = await asyncio.gather(*(feed.run() for feed in self._feeds), return_exceptions=True)
        ticking.cancel()
        self._ended = True
        for source, error in zip(self._sources, ended, strict=True):
            if isinstance(error, Exception):
                self._fail(f"{source.name} broke off", error)
            for problem in source.problems:
                self._note(problem)
        self._to_vision.close()
        self._to_audio.close()

    async def _put(self, packet: Packet) -> None:
        match packet:
            case AudioBlock():
                await self._to_audio.put(packet)
            case Transcript():
                await self._to_text.put(packet)
            case VideoFrame() | VisionRows():
                await self._to_vision.put(packet)

    def _offer(self, packet: Packet) -> None:
        """Without waiting, from any thread."""
        match packet:
            case VideoFrame() | Gap(kind="video"):
                self._to_vision.offer(packet)
            case AudioBlock() | Gap():
                self._to_audio.offer(packet)

    async def _tick(self) -> None:
        """Ask for a provisional score whenever a window has passed; without a present there is nothing provisional."""
        t_ns = self._hop_ns
        while self._clock.paced:
            await self._clock.sleep_until(t_ns)
            await self._to_windows.put(Tick(t_ns))
            t_ns = max(t_ns, self._clock.now_ns() // self._hop_ns * self._hop_ns) + self._hop_ns

    # --- lanes

    async def _lanes(self) -> None:
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._run_lane("vision", self._parts.vision, self._to_vision))
                group.create_task(self._run_lane("text", self._parts.text, self._to_text))
                await self._run_lane("audio", self._parts.audio, self._to_audio)
                self._to_text.close()  # the audio lane was the last to have something for it
        finally:
            self._to_windows.close()

    async def _run_lane(self, name: Lane, lane: LaneLike[T] | None, inbox: Channel[T]) -> None:
        """Run a lane on its thread; whatever fails in it loses the lane for a while, not the session."""
        if lane is None:
            await self._report(self._without(name, END_NS, self._parts.info.unavailable[name]))
            async for _ in inbox:  # nobody wants it, and the sender must not wait
                pass
            return
        worker = Worker(name)
        failures, failed_ns, lost = 0, 0, ""
        try:
            async for packet in inbox:
                t_ns = packet.watermark_ns if isinstance(packet, VoiceUpdate | PartUnknown) else packet.t_ns
                pause_ns = min(_PAUSE_NS * 2 ** (failures - 1), _LONGEST_PAUSE_NS) if failures else 0
                paused = t_ns < failed_ns + pause_ns
                try:
                    if paused:
                        updates = await worker.call(lane.skip, packet, lost)
                    else:
                        updates = await worker.call(lane.push, packet, behind=self._behind(t_ns))
                except Exception as error:
                    failures, failed_ns = min(failures + 1, 16), t_ns
                    lost = lost or self._lose_lane(name, error)
                    updates = self._without(name, t_ns, lost)
                else:
                    if lost and not paused:
                        self._happen(Event(t_ns, "recovered", name, f"the {name} lane works again"))
                        lost = ""
                    failures = failures if t_ns < failed_ns + _STEADY_NS else 0
                await self._report(updates)
            try:
                await self._report(await worker.call(lane.finish))
            except Exception as error:
                self._lose_lane(name, error)
        finally:
            await worker.close(0.1 if self._stopping.is_set() else 1.0)
        await self._report([PartEnded(part) for part in _PARTS[name]])

    def _behind(self, t_ns: int) -> bool:
        return self._live and self._clock.now_ns() - t_ns > _BEHIND_NS

    def _without(self, name: Lane, t_ns: int, reason: str) -> list[LaneUpdate]:
        return [PartUnknown(part, t_ns, reason) for part in _PARTS[name]]

    def _lose_lane(self, name: Lane, error: Exception) -> str:
        what = f"the {name} lane was lost on the way"
        reason = str(error) or type(error).__name__
        if self._live:
            log.debug("%s", what, exc_info=error)
            self._happen(Event(self._clock.now_ns(), "lost", name, f"{what}: {reason}; trying again"))
        else:
            self._fail(what, error)
        return reason

    async def _report(self, updates: Sequence[LaneUpdate]) -> None:
        for update in updates:
            await self._to_windows.put(update)
            if isinstance(update, VoiceUpdate) or (isinstance(update, PartUnknown) and update.part == "voice"):
                await self._to_text.put(update)

    # --- scores

    async def _score(self) -> None:
        """Settle windows as the lanes pass them, and score the tail whenever a window has passed."""
        windows = self._parts.windows
        try:
            async for message in self._to_windows:
                if not isinstance(message, Tick):
                    windows.update(message)
                elif self._live:
                    windows.reach(message.t_ns)
                    for part, lateness_ns in self._lateness_ns.items():
                        windows.force(part, message.t_ns - lateness_ns)
                await self._settle()
                await self._tell()
            for part in PARTS:  # what has not come to its end by now hangs
                windows.force(part, END_NS)
            await self._settle()
            await self._tell()
            if over := self._utterances.finish():
                await self._emit(over)
        finally:
            for channel in self._to_sinks:
                channel.close()

    async def _settle(self) -> None:
        windows = self._parts.windows
        if self._clock.paced:
            for part in PARTS:
                self._arrivals.note(part, windows.watermark_ns(part), self._clock.elapsed_ns(0))
        settled = deque(windows.settle())
        while settled:
            window = settled.popleft()
            if not self._clock.paced:
                self._ticked_ns = window.t_end_ns
            self._overtake(window)
            final = await self._scored([window], final=True)
            await self._emit(final)
            if over := self._utterances.take(final, restart=window.restart):
                await self._emit(over)
            self._arrivals.forget(window.t_end_ns)
            await self._speculate(list(settled))  # the display does not wait for a long row of finals
        await self._speculate([])

    async def _speculate(self, settled: list[Window]) -> None:
        """Score the newest window that has passed, unless it has been; without a present there is none."""
        t_ns = self._clock.now_ns() // self._hop_ns * self._hop_ns if self._clock.paced else 0
        if t_ns <= self._ticked_ns or self._ended:
            return
        self._ticked_ns = t_ns
        if tail := [*settled, *self._parts.windows.tail(t_ns, self._parts.scorer.longest)]:
            await self._emit(await self._scored(tail, final=False))

    async def _scored(self, windows: list[Window], *, final: bool) -> Score:
        asked_ns = self._clock.elapsed_ns(0) if self._clock.paced else 0
        score = await self._batcher.score(Job(self._parts.scorer, windows, final))
        dropped: dict[Lane, int] = {lane: channel.dropped for lane, channel in self._inboxes().items()}
        if not self._clock.paced:
            return replace(score, dropped=dropped)
        now_ns = self._clock.elapsed_ns(0)
        # The last window of a file may be settled before its end.
        due_ns = min(now_ns, now_ns - self._clock.elapsed_ns(score.t_end_ns))
        text_ns = self._parts.windows.watermark_ns("text")
        return replace(
            score,
            t_end_unix_ns=self._clock.unix_ns(score.t_end_ns),
            latency=self._arrivals.split(
                score.t_end_ns,
                due_ns=due_ns,
                asked_ns=max(asked_ns, due_ns) if final else due_ns,  # a provisional score waits for no words
                now_ns=now_ns,
            ),
            text_lag_ns=max(0, self._clock.elapsed_ns(text_ns)) if text_ns < END_NS else None,
            dropped=dropped,
        )

    # --- what happens to the session

    def _inboxes(self) -> "dict[Lane, Channel[Any]]":
        return {"text": self._to_text, "audio": self._to_audio, "vision": self._to_vision}

    def _happen(self, event: Event) -> None:
        """Let it be told with the next scores; from any thread."""
        self._happened.append(event)

    def _overtake(self, window: Window) -> None:
        """Tell of a window that was settled without a part that is late; the log says so once, and once when it is over."""
        for part in window.forced:
            reason = f"{part} is too far behind: windows are scored without it"
            if part not in self._forced:
                log.warning("%s", reason)
            self._happen(Event(window.t_end_ns, "forced", part, reason))
        for part in self._forced.difference(window.forced):
            self._happen(Event(window.t_end_ns, "recovered", part, f"{part} keeps up again"))
        self._forced = set(window.forced)

    async def _tell(self) -> None:
        """Hand on what has happened, and what was given up or came too late since the last time."""
        for lane, channel in self._inboxes().items():
            self._count("dropped", lane, channel.dropped, "more came than could be dealt with")
        for sink, outputs in zip(self._sinks, self._to_sinks, strict=True):
            self._count("dropped", sink.name, outputs.dropped, "scores wait for it")
        for part, late in self._parts.windows.late.items():
            self._count("late", part, late, "it came when its window was settled")
        while self._happened:
            event = self._happened.popleft()
            if event.kind in ("lost", "recovered"):
                log.warning("%s", event.reason)
            else:
                log.info("%s %s (%d): %s", event.part, event.kind, event.count, event.reason)
            await self._emit(event)

    def _count(self, kind: Literal["dropped", "late"], what: str, total: int, reason: str) -> None:
        new = total - self._told.get(f"{kind} {what}", 0)
        if new:
            self._told[f"{kind} {what}"] = total
            self._happen(Event(self._now_ns(), kind, what, reason, new))

    def _ask(self, kind: Literal["paused", "resumed", "marked"], reason: str) -> None:
        self._happen(Event(self._now_ns(), kind, "session", reason))

    def _now_ns(self) -> int:
        """The present; where there is none, how far the display is."""
        return self._clock.now_ns() if self._clock.paced else self._ticked_ns

    # --- sinks

    async def _emit(self, output: Output) -> None:
        for channel in self._to_sinks:
            await channel.put(output)

    async def _show(self, sink: Sink, outputs: Channel[Output]) -> None:
        """Let a sink show what comes; one that fails in a live session is begun anew after a while."""
        backoff = Backoff()
        while True:
            try:
                await sink.run(self._parts.info, outputs)
                break
            except Exception as error:
                what = f"{sink.name} can no longer show scores"
                if not self._live or self._stopping.is_set():
                    self._fail(what, error)
                    break
                log.debug("%s", what, exc_info=error)
                self._happen(Event(self._clock.now_ns(), "lost", sink.name, f"{what}: {error or type(error).__name__}"))
                await asyncio.sleep(backoff.next_s())
        self._shown -= 1
        if not self._shown:  # as when a pipe was closed: there is nobody to analyse for
            self.stop()
        async for _ in outputs:
            pass

    def _fail(self, what: str, error: BaseException) -> None:
        """Note that a part has failed while the others go on."""
        log.debug("%s", what, exc_info=error)
        self._note(f"{what}: {error or type(error).__name__}")

    def _note(self, problem: str) -> None:
        log.error("%s", problem)
        self.problems.append(problem)
