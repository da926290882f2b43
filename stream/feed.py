"""A source on a thread of its own, handing its packets on.

A file waits for the clock and for whoever takes its packets. A live source does not wait: what it brings is offered, and
whoever is slow gives something up. It is supervised: when it fails it is begun anew after a while, and as long as nothing comes
from it, gaps are handed on in its place, so that windows need not wait for what will not come.
"""

import asyncio
import contextlib
import logging
import threading
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from typing import Any, Literal

from stream.backoff import Backoff
from stream.clock import Clock
from stream.messages import Event, Gap, Packet, Replayed, VideoFrame
from stream.sources.source import Source
from stream.worker import Worker

log = logging.getLogger(__name__)

PAUSED = "paused"  # why nothing comes where somebody asked for a pause
STALLED_NS = 2_000_000_000  # a live source that has brought nothing for so long counts as lost
_WATCH_S = 0.125  # how often it is looked at
_MARGIN_NS = 250_000_000  # gaps end so long before the present, as a packet may be on its way
_SOME = 128  # entries of a recording that are read at a time
_STEADY_NS = 30_000_000_000  # a source that ran so long is well again


class FileFeed:
    """Reads a source at the clock's pace, waiting whenever whoever takes the packets does.

    Attributes:
        reached_ns: Nothing older will be handed on.
    """

    def __init__(self, source: Source, clock: Clock, put: Callable[[Packet], Awaitable[object]]) -> None:
        """Hand packets to `put`."""
        self._source, self._clock, self._put = source, clock, put
        self.reached_ns = 0
        self._reading: asyncio.Task[None] | None = None
        self._stopped = False

    async def run(self) -> None:
        """Read until the end, or until `stop`; raises what the source raises."""
        if self._stopped:
            return
        self._reading = asyncio.create_task(self._read())
        await asyncio.wait({self._reading})
        self._source.close()
        if not self._reading.cancelled():
            await self._reading

    def stop(self) -> None:
        """Read no more."""
        self._stopped = True
        if self._reading:
            self._reading.cancel()

    async def _read(self) -> None:
        worker = Worker("source")
        try:
            packets = self._source.packets(self._clock)
            while some := await worker.call(_some, packets):
                for packet in some:
                    self.reached_ns = packet.t_ns
                    if self._clock.paced:
                        await self._clock.sleep_until(packet.t_ns)
                    await self._put(packet)
        finally:
            await worker.close()


def _some(packets: Iterator[Packet]) -> list[Packet]:
    """The next packet, or of what is small the next few; none at the end."""
    some: list[Packet] = []
    while len(some) < _SOME and (packet := next(packets, None)) is not None:
        some.append(packet)
        if not isinstance(packet, Replayed):
            break
    return some


class LiveFeed:
    """Keeps a live source going until it is stopped."""

    def __init__(
        self,
        source: Source,
        clock: Clock,
        offer: Callable[[Packet], object],
        report: Callable[[Event], object],
        backoff: Backoff | None = None,
    ) -> None:
        """Hand packets to `offer`, from the source's thread, and what becomes of the source to `report`, from any thread."""
        self._source, self._clock, self._offer, self._report = source, clock, offer, report
        self._backoff = backoff or Backoff()
        self._kinds: list[Literal["video", "audio"]] = [kind for kind in ("video", "audio") if kind in source.provides]
        self._stop = asyncio.Event()
        # Between the source's thread and the watch, which both hand packets on, in the order of time.
        self._lock = threading.Lock()
        self._reached_ns = dict.fromkeys(self._kinds, 0)  # nothing older will be handed on
        self._last_ns = clock.now_ns()  # when the last packet came
        self._lost: str | None = None  # why nothing comes
        self._go = asyncio.Event()  # set unless somebody has asked for a pause
        self._go.set()

    async def run(self) -> None:
        """Run until `stop`."""
        worker = Worker(self._source.name)
        watch = asyncio.create_task(self._watch())
        try:
            while not self._stop.is_set():
                await self._go.wait()
                begun_ns = self._clock.now_ns()
                try:
                    if await self._until_stopped(worker.call(self._read)):
                        continue
                    reason = f"{self._source.name} ended"
                except Exception as error:
                    log.debug("%s", self._source.name, exc_info=error)
                    reason = str(error) or type(error).__name__
                if self._stop.is_set():
                    break
                self._lose(f"{reason}; trying again")
                if self._clock.now_ns() - begun_ns > _STEADY_NS:
                    self._backoff.reset()
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._stop.wait(), self._backoff.next_s())
        finally:
            watch.cancel()
            self._source.close()
            await worker.close()

    def stop(self) -> None:
        """Read no more."""
        self._stop.set()
        self._go.set()
        self._source.close()

    def pause(self) -> None:
        """Let go of the device until `resume`; what it would have brought is a gap."""
        self._go.clear()

    def resume(self) -> None:
        """Read on."""
        self._last_ns = self._clock.now_ns()
        self._hand_gaps(self._last_ns, PAUSED)
        self._go.set()

    async def _until_stopped(self, reading: Coroutine[Any, Any, bool]) -> bool:
        """Wait for it, but after `stop` only for a while: a device that hangs hears nothing."""
        running, stopping = asyncio.ensure_future(reading), asyncio.ensure_future(self._stop.wait())
        try:
            await asyncio.wait({running, stopping}, return_when=asyncio.FIRST_COMPLETED)
            await asyncio.wait({running}, timeout=1.0)
        finally:
            stopping.cancel()
            running.cancel()
        return running.done() and not running.cancelled() and running.result()

    def _read(self) -> bool:
        """On the source's thread; whether it was left for a pause."""
        for packet in self._source.packets(self._clock):
            if self._stop.is_set() or not self._go.is_set():
                return not self._stop.is_set()
            with self._lock:
                kind: Literal["video", "audio"] = "video" if isinstance(packet, VideoFrame) else "audio"
                self._last_ns = self._clock.now_ns()
                if packet.t_ns < self._reached_ns[kind]:
                    continue  # a gap has been handed on in its place
                self._reached_ns[kind] = packet.t_ns
                if self._lost:
                    self._lost = None
                    self._tell("recovered", f"{self._source.name} is back")
                self._offer(packet)
        return False

    async def _watch(self) -> None:
        """While nothing comes, say so, again and again."""
        while True:
            await asyncio.sleep(_WATCH_S)
            now_ns = self._clock.now_ns()
            reading = self._go.is_set()
            if reading and not self._lost and now_ns - self._last_ns > STALLED_NS:
                self._lose(f"{self._source.name} has brought nothing for {STALLED_NS // 1_000_000_000} s")
            if reason := self._lost if reading else PAUSED:
                self._hand_gaps(now_ns - _MARGIN_NS, reason)

    def _hand_gaps(self, t_ns: int, reason: str) -> None:
        """In place of what does not come."""
        with self._lock:
            for kind in self._kinds:
                if t_ns > self._reached_ns[kind]:
                    self._reached_ns[kind] = t_ns
                    self._offer(Gap(kind, t_ns, reason))

    def _lose(self, reason: str) -> None:
        with self._lock:
            if not self._lost:
                self._tell("lost", reason)
            self._lost = reason

    def _tell(self, kind: Literal["lost", "recovered"], reason: str) -> None:
        parts = " and ".join("vision" if each == "video" else "audio" for each in self._kinds)
        self._report(Event(self._clock.now_ns(), kind, parts, reason))


Feed = FileFeed | LiveFeed
