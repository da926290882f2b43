"""One session: wires source, lanes, windows, scorer and sinks with bounded channels. It computes nothing itself.

Blocking work runs on a thread of its own for each part. A lane that fails is lost, with a word about it, and the session
goes on with the others.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from stream.channel import Channel
from stream.clock import Clock
from stream.lanes import LaneLike
from stream.messages import (
    AudioBlock,
    Lane,
    LaneEnded,
    LaneUpdate,
    Part,
    Score,
    Transcript,
    VideoFrame,
    VisionRows,
    VoiceUpdate,
)
from stream.parts import Parts
from stream.sinks.sink import Sink
from stream.sources.source import Source
from stream.worker import Worker

log = logging.getLogger(__name__)

_ENDING: dict[Lane, tuple[Part, ...]] = {"vision": ("vision",), "audio": ("audio", "voice"), "text": ("text",)}

T = TypeVar("T")
U = TypeVar("U")


@dataclass(frozen=True)
class Tick:
    """The present has come to `t_ns`, the end of a window: time for a provisional score of it."""

    t_ns: int


class Session:
    """Runs until the source ends or `stop` is called, and everything that was read has its final score.

    Example:
        session = Session(source, parts, clock, [JsonLines(sys.stdout, parts.info)], hop_ns=250_000_000)
        problems = await session.run()
    """

    def __init__(self, source: Source, parts: Parts, clock: Clock, sinks: Sequence[Sink], *, hop_ns: int) -> None:
        """Wire the parts; nothing runs yet."""
        self._source, self._parts, self._clock, self._sinks, self._hop_ns = source, parts, clock, sinks, hop_ns
        # A frame waits for the one before it, no longer; sound and words are small and may pile up for some seconds.
        self._to_vision: Channel[VideoFrame | VisionRows] = Channel(2)
        self._to_audio: Channel[AudioBlock] = Channel(64)
        self._to_text: Channel[Transcript | VoiceUpdate] = Channel(256)
        self._to_windows: Channel[LaneUpdate | Tick] = Channel(256)
        self._to_sinks: list[Channel[Score]] = [Channel(64) for _ in sinks]
        self._reading: asyncio.Task[None] | None = None
        self._stopped = False
        self.problems: list[str] = []

    def stop(self) -> None:
        """Read no more; what has been read is still scored."""
        self._stopped = True
        if self._reading:
            self._reading.cancel()

    async def run(self) -> list[str]:
        """Run to the end; returns what went wrong on the way, a line each, logged when it happened."""
        async with asyncio.TaskGroup() as group:
            for sink, channel in zip(self._sinks, self._to_sinks, strict=True):
                group.create_task(self._show(sink, channel))
            group.create_task(self._score())
            group.create_task(self._lanes())
            group.create_task(self._read())
        return self.problems

    # --- source

    async def _read(self) -> None:
        """Read until the end or `stop`; then nothing more will come to the lanes."""
        ticking = asyncio.create_task(self._tick())
        self._reading = asyncio.create_task(self._pump())
        if self._stopped:
            self._reading.cancel()
        await asyncio.wait({self._reading})
        ticking.cancel()
        if not self._reading.cancelled() and (error := self._reading.exception()):
            self._fail(f"{self._source.name} broke off", error)
        for problem in self._source.problems:
            self._note(problem)
        for channel in (self._to_vision, self._to_audio):
            await channel.close()

    async def _pump(self) -> None:
        worker = Worker("source")
        try:
            packets = self._source.packets()
            while (packet := await worker.call(next, packets, None)) is not None:
                await self._clock.sleep_until(packet.t_ns)
                match packet:
                    case VideoFrame() | VisionRows():
                        await self._to_vision.put(packet)
                    case AudioBlock():
                        await self._to_audio.put(packet)
                    case Transcript():
                        await self._to_text.put(packet)
        finally:
            worker.close()

    async def _tick(self) -> None:
        """Ask for a provisional score whenever a window has passed; without a present there is nothing provisional."""
        t_ns = self._hop_ns
        while self._clock.paced:
            await self._clock.sleep_until(t_ns)
            await self._to_windows.put(Tick(t_ns))
            t_ns += self._hop_ns

    # --- lanes

    async def _lanes(self) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(self._run_lane("vision", self._parts.vision, self._to_vision))
            group.create_task(self._run_lane("text", self._parts.text, self._to_text))
            await self._run_lane("audio", self._parts.audio, self._to_audio)
            await self._to_text.close()  # the audio lane was the last to have something for it
        await self._to_windows.close()

    async def _run_lane(self, name: Lane, lane: LaneLike[T] | None, inbox: Channel[T]) -> None:
        """Run a lane on its thread; whatever fails in it loses the lane, not the session."""
        lost = self._parts.info.unavailable.get(name)
        if lane:
            worker = Worker(name)
            try:
                async for packet in inbox:
                    await self._report(await worker.call(lane.push, packet))
                await self._report(await worker.call(lane.finish))
            except Exception as error:
                lost = self._fail(f"the {name} lane was lost on the way", error)
            finally:
                worker.close()
        for part in _ENDING[name]:
            await self._to_windows.put(LaneEnded(part, lost))
        async for _ in inbox:  # without a lane nobody wants it, and the sender must not wait
            pass

    async def _report(self, updates: Sequence[LaneUpdate]) -> None:
        for update in updates:
            await self._to_windows.put(update)
            if isinstance(update, VoiceUpdate):
                await self._to_text.put(update)

    # --- scores

    async def _score(self) -> None:
        """Settle windows as the lanes pass them, and score the tail at each tick; one thread owns model and device."""
        windows, scorer = self._parts.windows, self._parts.scorer
        device = Worker("device")
        try:
            async for message in self._to_windows:
                if isinstance(message, Tick):
                    late = self._clock.age_ns(message.t_ns) > self._hop_ns  # then a newer one waits already
                    if not late and (tail := windows.tail(message.t_ns)):
                        await self._publish(device, scorer.speculate, tail)
                    continue
                if isinstance(message, LaneEnded) and message.lost and message.part != "voice":
                    scorer.lose(message.part, message.lost)
                windows.update(message)
                for window in windows.settle():
                    await self._publish(device, scorer.commit, window)
        finally:
            device.close()
            for channel in self._to_sinks:
                await channel.close()

    async def _publish(self, device: Worker, score: Callable[[U], Score], windows: U) -> None:
        started_ns = time.monotonic_ns()
        scored = await device.call(score, windows)
        if self._clock.paced:
            scored = replace(
                scored,
                t_end_unix_ns=self._clock.unix_ns(scored.t_end_ns),
                latency_ns=self._clock.age_ns(scored.t_end_ns),
                model_ns=time.monotonic_ns() - started_ns,
            )
        for channel in self._to_sinks:
            await channel.put(scored)

    async def _show(self, sink: Sink, scores: Channel[Score]) -> None:
        try:
            await sink.run(scores)
        except Exception as error:
            self._fail("scores can no longer be shown", error)
        async for _ in scores:  # the sink has gone, as when a pipe was closed: there is nobody to analyse for
            self.stop()

    def _fail(self, what: str, error: BaseException) -> str:
        """Note that a part has failed while the others go on; returns the reason."""
        reason = str(error) or type(error).__name__
        log.debug("%s", what, exc_info=error)
        self._note(f"{what}: {reason}")
        return reason

    def _note(self, problem: str) -> None:
        log.error("%s", problem)
        self.problems.append(problem)
