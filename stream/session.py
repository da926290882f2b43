"""One session: wires sources, lanes, windows, scorer and sinks with bounded channels. It computes nothing itself.

Blocking work runs on a thread of its own for each part. A lane that fails is lost for a while, with a word about it, and the
session goes on with the others. A live session never waits for what is late: its edges give up what they must, and count it.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from extractors.asr.recogniser import Word
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
    Anew,
    AudioBlock,
    Due,
    Ended,
    Entry,
    Event,
    Gap,
    Given,
    Heard,
    Lane,
    LaneUpdate,
    Output,
    Packet,
    Part,
    PartEnded,
    PartUnknown,
    Replayed,
    Score,
    Scored,
    Text,
    Tick,
    Transcript,
    VideoFrame,
    VisionRows,
    VoiceUpdate,
    Window,
    WordsUpdate,
)
from stream.parts import Parts
from stream.recorder import Recorder
from stream.runner import LANE_PARTS, LaneRunner, without
from stream.scorer import Job
from stream.sinks.sink import WAITING, Sink, provisional_first
from stream.sources.source import Provides, Source
from stream.utterances import UtteranceLog

log = logging.getLogger(__name__)

_DRAIN_S, _FLUSH_S = 2.0, 0.7  # after `stop`: for what was read to come through, and then for sinks to take the last scores
_AGAIN = 1_000_000  # updates of a lane that takes its packets again may wait for their turn


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
        recorder: Recorder | None = None,
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
            recorder: Is told of all that the scores depend on.
        """
        self._parts, self._batcher, self._clock, self._sinks, self._hop_ns = parts, batcher, clock, sinks, hop_ns
        self._sources, self.recorder = sources, recorder
        self._live = any(source.live for source in sources)
        provides = frozenset[Provides]().union(*(source.provides for source in sources))
        self._updates_come = "updates" in provides  # a recording's, in place of what the lanes would say
        self._script = "script" in provides  # a recording says as well what was scored when
        self._finals_only = not clock.paced
        self._lateness_ns = {part: ns for lane, ns in (lateness_ns or {}).items() for part in LANE_PARTS[lane]}
        # A frame waits for the one before it, no longer; sound and words are small and may pile up for some seconds.
        self._to_vision: Channel[VideoFrame | VisionRows | Gap | Given] = Channel(1, oldest) if self._live else Channel(2)
        self._to_audio: Channel[AudioBlock | Gap | Given] = Channel(250, oldest) if self._live else Channel(64)
        self._to_text: Channel[Transcript | Heard | Given] = Channel(1500, everything) if self._live else Channel(256)
        # What lanes are to say again is waited for while the source must be read on, as its end is what lanes finish at.
        again = self._script and not self._updates_come
        self._to_windows: Channel[LaneUpdate | Tick | Replayed] = Channel(_AGAIN if again else 256)
        self._again: dict[Lane, Channel[LaneUpdate]] = {lane: Channel(_AGAIN) for lane in LANE_PARTS}
        self._voices: Channel[Heard] = Channel(_AGAIN)  # likewise, until the text lane has to hear them
        self._heard = 0  # how many there have been
        self._to_sinks: list[Channel[Output]] = [Channel(WAITING, provisional_first if self._live else None) for _ in sinks]
        self._feeds: list[Feed] = []
        self._stopping = asyncio.Event()
        self._arrivals = Arrivals()
        self._utterances = UtteranceLog(parts.begin.utterance)
        self._ticked_ns = 0  # up to here the display is
        self._ended = False  # there is no more input, and so no present
        self._paused = False
        self._guess: tuple[Word, ...] = ()  # the provisional words that have been looked up
        self._forced: set[Part] = set()  # what windows are being settled without
        self._told: dict[str, int] = {}  # what was given up or came late, as far as it has been told
        self._happened: deque[Event | Anew] = deque(maxlen=1000)  # waiting to be told; from any thread
        self._recorded: deque[Scored] = deque()  # the scores that the present entry gave when it was recorded
        self._end: int | None = None  # the window at which the recording ends
        self._shown = len(sinks)
        self.problems: list[str] = []
        if recorder:
            recorder.tell = self._happen

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
        self._happened.append(Anew(self._now_ns()))

    def record(self, *, on: bool) -> None:
        """Begin a recording with the next window that starts anew, or end it.

        Raises:
            UsageError: Nobody has said where to.
        """
        if self.recorder is None:
            raise UsageError(f"{self.name} has no file to record to; start it with --record FILE")
        (self.recorder.start if on else self.recorder.stop)()

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
            case Replayed():
                await self._to_windows.put(packet)
            case AudioBlock() | Given(lane="audio") | Gap(kind="audio"):
                await self._to_audio.put(packet)
            case Transcript() | Given(lane="text"):
                await self._to_text.put(packet)
            case _:
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
        while self._clock.paced and not self._script:
            await self._clock.sleep_until(t_ns)
            await self._to_windows.put(Tick(t_ns, self._live))
            t_ns = max(t_ns, self._clock.now_ns() // self._hop_ns * self._hop_ns) + self._hop_ns

    # --- lanes

    async def _lanes(self) -> None:
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._run_lane("vision", self._parts.vision, self._to_vision))
                group.create_task(self._run_lane("text", self._parts.text, self._to_text))
                await self._run_lane("audio", self._parts.audio, self._to_audio)
                self._to_text.close()  # the audio lane was the last to have something for it
                self._voices.close()
        finally:
            self._to_windows.close()

    async def _run_lane(self, name: Lane, lane: LaneLike[Any] | None, inbox: Channel[Any]) -> None:
        if lane is None:
            if not self._updates_come:
                await self._report(name, without(name, END_NS, self._parts.info.unavailable[name]))
            self._again[name].close()
            async for _ in inbox:  # nobody wants it, and the sender must not wait
                pass
            return
        runner = LaneRunner(name, lane, self._clock, live=self._live, tell=self._happen, fail=self._fail)
        try:
            async for message in inbox:
                packet = await self._voice(message) if isinstance(message, Given) else message
                heard = packet.update if isinstance(packet, Heard) else packet
                t_ns = packet.update.watermark_ns if isinstance(packet, Heard) else packet.t_ns
                if isinstance(message, Given):
                    updates = await runner.again(heard, t_ns, message)
                else:
                    if self.recorder and isinstance(packet, VideoFrame):
                        packet = heard = await runner.call(self.recorder.picture, packet)
                    taken = await runner.take(heard, t_ns)
                    updates = taken.updates
                    if self.recorder:
                        self.recorder.taken(self._now_ns(), name, packet, taken)
                await self._report(name, updates)
            await self._report(name, await runner.finish())
            await self._report(name, [PartEnded(part) for part in LANE_PARTS[name]])
        finally:
            self._again[name].close()
            await runner.close(0.1 if self._stopping.is_set() else 1.0)

    async def _voice(self, given: Given) -> Any:
        """The packet that is given; what the text lane is to hear is what the audio lane says now."""
        if not isinstance(given.packet, int):
            return given.packet
        async for heard in self._voices:
            if heard.number == given.packet:
                return heard
        return Heard(given.packet, PartUnknown("voice", given.t_ns, "the recording has no sound here"))

    async def _report(self, name: Lane, updates: Sequence[LaneUpdate]) -> None:
        for update in updates:
            await (self._again[name] if self._script else self._to_windows).put(update)
            if isinstance(update, VoiceUpdate) or (isinstance(update, PartUnknown) and update.part == "voice"):
                heard = Heard(self._heard, update)
                self._heard += 1
                if self._script:
                    await self._voices.put(heard)
                else:
                    await self._to_text.put(heard)

    # --- scores

    async def _score(self) -> None:
        """Settle windows as the lanes pass them, and score the tail whenever a window has passed."""
        try:
            async for message in self._to_windows:
                if isinstance(message, Replayed):
                    self._recorded, self._end = deque(message.scores), message.end
                    if entry := await self._entry(message):
                        await self._take(entry, message.t_ns)
                else:
                    await self._take(message, self._now_ns())
            if not self._updates_come and not self._script:  # a recording says itself whether its session came to its end
                await self._take(Ended(), self._now_ns())
        finally:
            for channel in self._to_sinks:
                channel.close()
            if self.recorder:
                self.recorder.finish()

    async def _entry(self, replayed: Replayed) -> Entry | None:
        """What came then; None if a lane that takes its packets again has less to say than it had."""
        if not isinstance(replayed.entry, Due):
            return replayed.entry
        lane = replayed.entry.lane
        async for update in self._again[lane]:
            return update
        if self._new(f"less {lane}", 1) and not self._stopping.is_set():
            log.warning("the %s lane has less to say than when it was recorded; scores will differ", lane)
        return None

    async def _take(self, entry: Entry, t_ns: int) -> None:
        """Let what comes at `t_ns` do what it does; after it, tell what has happened and what was given up meanwhile."""
        await self._apply(entry, t_ns)
        for lane, channel in self._inboxes().items():
            self._count_dropped(lane, channel.dropped, "more came than could be dealt with")
        for sink, outputs in zip(self._sinks, self._to_sinks, strict=True):
            self._count_dropped(sink.name, outputs.dropped, "scores wait for it")
        while self._happened:
            await self._apply(self._happened.popleft(), self._now_ns())

    async def _apply(self, entry: Entry, now_ns: int) -> None:
        windows = self._parts.windows
        if self.recorder:
            self.recorder.entry(now_ns, entry)
        match entry:
            case Event():
                await self._say(entry)
                return
            case Anew(t_ns):
                seq = windows.start_anew(t_ns)
                await self._say(Event(seq * self._hop_ns, "reset", "session", "an utterance begins here by command"))
                return
            case Tick(t_ns, live):
                if live:
                    windows.reach(t_ns)
                    for part, lateness_ns in self._lateness_ns.items():
                        windows.force(part, t_ns - lateness_ns)
            case Ended():
                for part in PARTS:  # what has not come to its end by now hangs
                    windows.force(part, END_NS)
            case _:
                windows.update(entry)
        await self._settle()
        if isinstance(entry, WordsUpdate) and self._clock.paced and not self._script:
            await self._prepare(entry)
        for part, late in windows.late.items():
            if new := self._new(f"late {part}", late):
                await self._say(Event(now_ns, "late", part, "it came when its window was settled", new))
        if isinstance(entry, Ended) and (over := self._utterances.finish()):
            await self._emit(over)

    async def _settle(self) -> None:
        windows = self._parts.windows
        if self._clock.paced and not self._script:
            for part in PARTS:
                self._arrivals.note(part, windows.watermark_ns(part), self._clock.elapsed_ns(0))
        settled = deque(windows.settle())
        while settled:
            window = settled.popleft()
            if window.restart and (over := self._utterances.finish()):
                await self._emit(over)  # before the score of this window, with which a recording may begin
            if self._end is not None and window.seq >= self._end:
                return
            if not self._clock.paced:
                self._ticked_ns = window.t_end_ns
            await self._overtake(window)
            final = await self._scored([window], final=True)
            self._utterances.take(final)
            await self._emit(final)
            self._arrivals.forget(window.t_end_ns)
            await self._speculate(list(settled))  # the display does not wait for a long row of finals
        await self._speculate([])

    async def _speculate(self, settled: list[Window]) -> None:
        """Score the newest window that has passed, unless it has been; without a present there is none."""
        if self._finals_only:
            return
        if self._script:  # as often as when it was recorded
            if not (self._recorded and self._recorded[0].score.kind == "provisional"):
                return
            t_ns = self._recorded[0].score.t_end_ns
        else:
            t_ns = self._shown_ns() // self._hop_ns * self._hop_ns
            if t_ns <= self._ticked_ns or self._ended:
                return
            self._ticked_ns = t_ns
        if tail := [*settled, *self._parts.windows.tail(t_ns, self._parts.scorer.longest)]:
            await self._emit(await self._scored(tail, final=False))

    def _shown_ns(self) -> int:
        """What the display shows: the present, but of a file that is not read in time no more than the window it is read in."""
        read = (feed.reached_ns + self._hop_ns for feed in self._feeds if isinstance(feed, FileFeed))
        return min([self._clock.now_ns(), *read])

    async def _prepare(self, update: WordsUpdate) -> None:
        """Look new words up at once, not when the next window has passed and its score is waited for."""
        if update.provisional != self._guess:
            self._guess = update.provisional
            now_ns = self._clock.now_ns()
            if tail := self._parts.windows.tail(now_ns, self._parts.scorer.longest):
                # Until the next window has passed: its score does not wait.
                while await self._batcher.prepare(self._parts.scorer, tail):
                    if self._clock.now_ns() // self._hop_ns > now_ns // self._hop_ns:
                        break

    async def _scored(self, windows: list[Window], *, final: bool) -> Score:
        recorded = self._was(windows[-1].seq) if final else self._recorded.popleft() if self._recorded else None
        asked_ns = self._clock.elapsed_ns(0) if self._clock.paced else 0
        score = await self._batcher.score(Job(self._parts.scorer, windows, final, self._texts(windows, recorded)))
        if self._script:
            return self._stamped_again(score, recorded)
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

    def _texts(self, windows: list[Window], recorded: Scored | None) -> tuple[Text, ...] | None:
        """What the windows' words came to when they were recorded, if they are the same words."""
        if recorded is None or recorded.texts is None or len(recorded.texts) > len(windows):
            return None
        words = tuple(word for window in windows[: len(recorded.texts)] for word in window.words)
        return recorded.texts if self._updates_come or words == recorded.score.words else None

    def _was(self, seq: int) -> Scored | None:
        """The final score of that window when it was recorded, if it came here."""
        while self._finals_only and self._recorded and self._recorded[0].score.kind == "provisional":
            self._recorded.popleft()
        if self._recorded and (self._recorded[0].score.kind, self._recorded[0].score.seq) == ("final", seq):
            return self._recorded.popleft()
        return None

    def _stamped_again(self, score: Score, recorded: Scored | None) -> Score:
        """With the wall's times of when it was recorded; a replay has none of its own."""
        if recorded is None:
            return score
        was = recorded.score
        if self._finals_only:  # so it is not known here what was shown before
            score = replace(score, rev=was.rev, revised_from=was.revised_from)
        return replace(
            score, t_end_unix_ns=was.t_end_unix_ns, latency=was.latency, text_lag_ns=was.text_lag_ns, dropped=was.dropped
        )

    # --- what happens to the session

    def _inboxes(self) -> "dict[Lane, Channel[Any]]":
        return {"text": self._to_text, "audio": self._to_audio, "vision": self._to_vision}

    def _happen(self, event: Event) -> None:
        """Let it be told with the next scores; from any thread."""
        self._happened.append(event)

    async def _overtake(self, window: Window) -> None:
        """Tell of a window that was settled without a part that is late; the log says so once, and once when it is over."""
        for part in window.forced:
            reason = f"{part} is too far behind: windows are scored without it"
            if part not in self._forced:
                log.warning("%s", reason)
            await self._say(Event(window.t_end_ns, "forced", part, reason))
        for part in self._forced.difference(window.forced):
            await self._say(Event(window.t_end_ns, "recovered", part, f"{part} keeps up again"))
        self._forced = set(window.forced)

    async def _say(self, event: Event) -> None:
        if event.kind in ("lost", "recovered"):
            log.warning("%s", event.reason)
        else:
            log.info("%s %s (%d): %s", event.part, event.kind, event.count, event.reason)
        await self._emit(event)

    def _count_dropped(self, what: str, total: int, reason: str) -> None:
        if new := self._new(f"dropped {what}", total):
            self._happen(Event(self._now_ns(), "dropped", what, reason, new))

    def _new(self, what: str, total: int) -> int:
        """How much of it has not been told yet; from now on it has."""
        new, self._told[what] = total - self._told.get(what, 0), total
        return new

    def _ask(self, kind: Literal["paused", "resumed", "marked"], reason: str) -> None:
        self._happen(Event(self._now_ns(), kind, "session", reason))

    def _now_ns(self) -> int:
        """The present; where there is none, how far the display is."""
        return self._clock.now_ns() if self._clock.paced else self._ticked_ns

    # --- sinks

    async def _emit(self, output: Output) -> None:
        if self.recorder:
            self.recorder.output(self._now_ns(), output, self._parts.scorer.texts)
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
