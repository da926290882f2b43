"""Feeds: a file waits for everybody; a live source is begun anew when it fails, and gaps stand for what it does not bring."""

import asyncio
import contextlib
import queue
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sized
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stream import feed as module
from stream.backoff import Backoff
from stream.clock import Clock, ManualClock, UnpacedClock
from stream.feed import STALLED_NS, FileFeed, LiveFeed
from stream.messages import AudioBlock, Event, Gap, Packet, VideoFrame
from stream.sources.source import Provides
from tests.stream.test_channel import quiet

SECOND = 1_000_000_000
MARGIN = 250_000_000
PICTURE, SOUND = np.zeros((1, 1, 3), np.uint8), np.zeros(16, np.int16)
QUICK = 0.002


@pytest.fixture(autouse=True)
def watched(monkeypatch: pytest.MonkeyPatch) -> None:
    """A live source is looked at often, so that nobody has to wait for it here."""
    monkeypatch.setattr(module, "_WATCH_S", QUICK)


async def until(condition: Callable[[], object]) -> None:
    async def poll() -> None:
        while not condition():
            await asyncio.sleep(QUICK)

    await asyncio.wait_for(poll(), 10)


async def many(items: Sized, count: int) -> None:
    await until(lambda: len(items) >= count)


def picture(t_ns: int) -> VideoFrame:
    return VideoFrame(t_ns, PICTURE)


def sound(t_ns: int) -> AudioBlock:
    return AudioBlock(t_ns, SOUND)


class Device:
    """A live source that brings, raises or ends as it is told; one that is deaf does not even end when it is closed."""

    scripted, live = False, True

    def __init__(self, *provides: Provides, deaf: bool = False) -> None:
        self.name, self.provides, self.problems = "device", frozenset(provides or ("video",)), list[str]()
        self.told: queue.SimpleQueue[Packet | Exception | None] = queue.SimpleQueue()
        self.begun = self.closed = 0
        self.in_hand: Packet | None = None  # what it brings yet when it is closed
        self.threads: set[str] = set()
        self._deaf = deaf

    def packets(self, clock: Clock) -> Iterator[Packet]:
        self.begun += 1
        self.threads.add(threading.current_thread().name)
        while (item := self.told.get()) is not None:
            if isinstance(item, Exception):
                raise item
            yield item

    def close(self) -> None:
        self.closed += 1
        if self.in_hand:
            self.told.put(self.in_hand)
        if not self._deaf:
            self.told.put(None)


class Watched(ManualClock):
    """Counts how often it is asked in the loop, where a live source is looked at."""

    looks = 0

    def now_ns(self) -> int:
        self.looks += threading.current_thread() is threading.main_thread()
        return super().now_ns()


class Bench:
    """A live feed at work, and all that it said and handed on, in the order in which it did."""

    def __init__(self, device: Device, backoff: Backoff) -> None:
        self.device, self.clock = device, Watched()
        self.log: list[Packet | Event] = []
        self.feed = LiveFeed(device, self.clock, self.log.append, self.log.append, backoff)

    @property
    def handed_on(self) -> list[Packet]:
        return [each for each in self.log if not isinstance(each, Event)]

    @property
    def gaps(self) -> list[Gap]:
        return [each for each in self.log if isinstance(each, Gap)]

    @property
    def events(self) -> list[Event]:
        return [each for each in self.log if isinstance(each, Event)]

    @property
    def kinds(self) -> list[str]:
        return [event.kind for event in self.events]

    async def bring(self, packet: Packet) -> None:
        """Let the device bring it, and wait until it is handed on."""
        self.clock.advance(packet.t_ns)
        self.device.told.put(packet)
        await until(lambda: packet in self.log)

    async def fail(self, error: Exception | None) -> None:
        """Let the device fail, or end, and wait until it is begun anew."""
        begun = self.device.begun
        self.device.told.put(error)
        await until(lambda: self.device.begun > begun)

    async def wait(self, t_ns: int) -> None:
        """Let it be that late until the device has been looked at some times."""
        self.clock.advance(t_ns)
        seen = self.clock.looks
        await until(lambda: self.clock.looks >= seen + 8)


@contextlib.asynccontextmanager
async def bench(device: Device, backoff: Backoff | None = None) -> AsyncIterator[Bench]:
    made = Bench(device, backoff or Backoff(QUICK, QUICK))
    running = asyncio.create_task(made.feed.run())
    try:
        yield made
    finally:
        made.feed.stop()
        await asyncio.wait_for(running, 10)


def live(scenario: Callable[[Bench], Any], *provides: Provides, backoff: Backoff | None = None) -> Bench:
    async def run() -> Bench:
        async with bench(Device(*provides), backoff) as made:
            await scenario(made)
        return made

    return asyncio.run(run())


def test_what_a_device_brings_is_handed_on_from_its_own_thread() -> None:
    async def scenario(at: Bench) -> None:
        for index in range(50):
            await at.bring(picture(index * SECOND // 10))

    at = live(scenario)
    assert [packet.t_ns for packet in at.handed_on] == [index * SECOND // 10 for index in range(50)]
    assert at.events == []
    assert at.gaps == []
    assert at.device.threads == {"device"}
    assert at.device.closed >= 1


def test_a_device_that_is_gone_is_lost_once_begun_anew_and_back_once() -> None:
    async def scenario(at: Bench) -> None:
        await at.bring(picture(SECOND))
        for failure in (RuntimeError("unplugged"), KeyError(), None, OSError("unplugged still")):
            await at.fail(failure)
        for t_ns in (2 * SECOND, 3 * SECOND, 4 * SECOND):
            await at.wait(t_ns)
        assert at.kinds == ["lost"]
        await at.bring(picture(5 * SECOND))
        await at.bring(picture(5 * SECOND + 1))

    at = live(scenario)
    assert at.kinds == ["lost", "recovered"]
    lost, recovered = at.events
    assert (lost.part, lost.reason, lost.t_ns) == ("vision", "unplugged; trying again", SECOND)
    assert (recovered.part, recovered.t_ns) == ("vision", 5 * SECOND)
    assert [gap.t_ns for gap in at.gaps] == [t * SECOND - MARGIN for t in (2, 3, 4)]
    assert {gap.kind for gap in at.gaps} == {"video"}
    assert {gap.reason for gap in at.gaps} == {"unplugged still; trying again"}
    assert [type(each) for each in at.log] == [VideoFrame, Event, Gap, Gap, Gap, Event, VideoFrame, VideoFrame]


def test_an_error_without_a_word_is_named_and_an_end_is_a_loss_too() -> None:
    async def scenario(at: Bench) -> None:
        at.device.told.put(ZeroDivisionError())
        await until(lambda: at.kinds == ["lost"])
        await at.bring(picture(1))
        at.device.told.put(None)
        await until(lambda: len(at.events) == 3)

    at = live(scenario)
    assert [event.reason for event in at.events if event.kind == "lost"] == [
        "ZeroDivisionError; trying again",
        "device ended; trying again",
    ]


def test_a_device_that_falls_silent_is_lost_too() -> None:
    async def scenario(at: Bench) -> None:
        await at.bring(sound(SECOND))
        await at.wait(SECOND + STALLED_NS)
        assert at.log == at.handed_on
        await at.wait(SECOND + STALLED_NS + 1)
        await at.wait(4 * SECOND)
        await at.wait(5 * SECOND)
        assert at.kinds == ["lost"]
        await at.bring(sound(6 * SECOND))
        await at.wait(7 * SECOND)

    at = live(scenario, "audio")
    assert at.kinds == ["lost", "recovered"]
    assert at.events[0].part == "audio"
    assert "nothing for 2 s" in at.events[0].reason
    assert [(gap.kind, gap.t_ns) for gap in at.gaps] == [
        ("audio", t_ns - MARGIN) for t_ns in (SECOND + STALLED_NS + 1, 4 * SECOND, 5 * SECOND)
    ]
    assert at.device.begun == 1


def test_one_that_brings_nothing_from_the_beginning_is_lost_and_one_that_was_lost_may_fall_silent() -> None:
    async def scenario(at: Bench) -> None:
        await at.wait(STALLED_NS + 1)
        assert at.kinds == ["lost"]
        at.device.told.put(RuntimeError("now it fails"))
        await until(lambda: at.device.begun == 2)
        await at.wait(10 * SECOND)
        assert at.kinds == ["lost"]
        assert at.gaps[-1].reason == "now it fails; trying again"
        for t in (11, 20):
            await at.bring(picture(t * SECOND))
            await at.wait((t + 3) * SECOND)

    assert live(scenario).kinds == ["lost", "recovered", "lost", "recovered", "lost"]


def test_what_is_older_than_a_gap_is_not_handed_on() -> None:
    async def scenario(at: Bench) -> None:
        at.device.told.put(RuntimeError())
        await until(lambda: at.kinds == ["lost"])
        await at.wait(3 * SECOND)
        for late in (SECOND, 3 * SECOND - MARGIN - 1):
            at.device.told.put(picture(late))
        await until(at.device.told.empty)
        assert at.kinds == ["lost"]
        await at.bring(picture(3 * SECOND - MARGIN))  # just where the gap ended

    at = live(scenario)
    assert [packet.t_ns for packet in at.handed_on] == [3 * SECOND - MARGIN] * 2
    assert at.kinds == ["lost", "recovered"]


def test_a_device_with_picture_and_sound_is_lost_as_a_whole() -> None:
    async def scenario(at: Bench) -> None:
        await at.bring(picture(SECOND))
        await at.bring(sound(2 * SECOND))
        at.device.told.put(RuntimeError())
        await until(lambda: at.kinds == ["lost"])
        await at.wait(2 * SECOND)
        await at.wait(3 * SECOND)
        await at.bring(sound(4 * SECOND))
        await at.wait(5 * SECOND)

    at = live(scenario, "video", "audio")
    assert [event.part for event in at.events] == ["vision and audio"] * 2
    assert [(gap.kind, gap.t_ns) for gap in at.gaps] == [
        ("video", 2 * SECOND - MARGIN),
        ("video", 3 * SECOND - MARGIN),
        ("audio", 3 * SECOND - MARGIN),
    ]


class Counting(Backoff):
    def __init__(self) -> None:
        super().__init__(QUICK, QUICK)
        self.said: list[str] = []

    def next_s(self) -> float:
        self.said.append("next")
        return super().next_s()

    def reset(self) -> None:
        self.said.append("reset")
        super().reset()


def test_one_that_ran_for_a_while_is_soon_begun_anew() -> None:
    async def scenario(at: Bench) -> None:
        await until(lambda: at.device.begun)
        for t_ns in (0, 20 * SECOND, 51 * SECOND, 70 * SECOND):
            at.clock.advance(t_ns)
            await at.fail(RuntimeError())

    backoff = Counting()
    live(scenario, backoff=backoff)
    assert backoff.said == ["next", "next", "reset", "next", "next"]


DOES = st.one_of(
    st.tuples(st.just("bring"), st.integers(-8, 2)),
    st.tuples(st.just("hear"), st.integers(-8, 2)),
    st.tuples(st.just("fail"), st.just(0)),
    st.tuples(st.just("pause"), st.integers(0, 12)),
)


@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(DOES, max_size=12))
def test_whatever_happens_each_kind_comes_in_the_order_of_time(does: list[tuple[str, int]]) -> None:
    async def scenario(at: Bench) -> None:
        now_ns = 10 * SECOND
        for what, quarters in does:
            match what:
                case "bring" | "hear":
                    at.device.told.put((picture if what == "bring" else sound)(now_ns + quarters * MARGIN))
                case "fail":
                    at.device.told.put(RuntimeError("failed"))
                case "pause":
                    now_ns += quarters * MARGIN
                    await at.wait(now_ns)
            await asyncio.sleep(QUICK if quarters % 2 else 0)

    at = live(scenario, "video", "audio")
    for kinds in (("video", VideoFrame), ("audio", AudioBlock)):
        times = [each.t_ns for each in at.handed_on if isinstance(each, kinds[1]) or getattr(each, "kind", "") == kinds[0]]
        assert times == sorted(times)
    for gap, after in pairwise(at.gaps):
        assert gap.kind != after.kind or gap.t_ns < after.t_ns
    lost = False
    for each in at.log:
        if isinstance(each, Event):
            assert each.kind == ("recovered" if lost else "lost")
            lost = not lost
        else:
            assert isinstance(each, Gap) == lost


# --- stopping a live feed


@pytest.mark.parametrize("where", ["it brings", "it is silent", "it is to be begun anew", "it has not begun"])
def test_stop_ends_it_at_once_and_nothing_more_is_said(where: str) -> None:
    async def scenario() -> None:
        device = Device()
        at = Bench(device, Backoff(1000, 1000))
        if where == "it has not begun":
            at.feed.stop()
        running = asyncio.create_task(at.feed.run())
        if where == "it brings":
            await at.bring(picture(1))
        elif where == "it is silent":
            await until(lambda: device.begun)
        elif where == "it is to be begun anew":
            device.told.put(RuntimeError())
            await until(lambda: at.events)
        before = list(at.log)
        device.in_hand = picture(5)
        at.feed.stop()
        await asyncio.wait_for(running, 5)
        at.clock.advance(100 * SECOND)
        await asyncio.sleep(4 * QUICK)
        assert at.log == before
        assert device.closed >= 1

    begun_s = time.monotonic()
    asyncio.run(scenario())
    assert time.monotonic() - begun_s < 10


def test_stop_ends_it_though_the_device_hangs_and_cannot_be_closed() -> None:
    async def scenario() -> None:
        device = Device(deaf=True)
        at = Bench(device, Backoff())
        running = asyncio.create_task(at.feed.run())
        await at.bring(picture(1))
        at.feed.stop()
        try:
            await asyncio.wait_for(running, 5)
        finally:
            device.told.put(None)

    asyncio.run(scenario())


# --- files


class Film:
    """A source that is no device: its packets, and what happens after them."""

    scripted, live, name = False, False, "film"
    provides: frozenset[Provides] = frozenset(("video", "audio"))

    def __init__(self, packets: list[Packet], fails: Exception | None = None, hangs: threading.Event | None = None) -> None:
        self.problems: list[str] = []
        self.read: list[Packet] = []
        self.closed = 0
        self._packets, self._fails, self._hangs = packets, fails, hangs

    def packets(self, clock: Clock) -> Iterator[Packet]:
        for packet in self._packets:
            self.read.append(packet)
            yield packet
        if self._hangs:
            self._hangs.wait(30)
        if self._fails:
            raise self._fails

    def close(self) -> None:
        self.closed += 1


REEL: list[Packet] = [picture(0), sound(0), picture(SECOND), sound(2 * SECOND), picture(3 * SECOND)]


def test_a_file_is_read_to_its_end_in_order_and_closed() -> None:
    async def scenario() -> None:
        film, taken = Film(REEL), list[Packet]()

        async def put(packet: Packet) -> None:
            taken.append(packet)

        await FileFeed(film, UnpacedClock(), put).run()
        assert taken == REEL
        assert film.closed == 1

    asyncio.run(scenario())


def test_a_file_waits_for_the_clock() -> None:
    async def scenario() -> None:
        clock, taken = ManualClock(), list[Packet]()

        async def put(packet: Packet) -> None:
            taken.append(packet)

        running = asyncio.create_task(FileFeed(Film(REEL), clock, put).run())
        for t_ns, count in ((0, 2), (SECOND - 1, 2), (SECOND, 3), (2 * SECOND + 1, 4)):
            clock.advance(t_ns)
            await many(taken, count)
            await asyncio.sleep(4 * QUICK)
            assert len(taken) == count
        assert not running.done()
        clock.advance(3 * SECOND)
        await asyncio.wait_for(running, 10)
        assert taken == REEL

    asyncio.run(scenario())


def test_a_file_waits_for_whoever_takes_its_packets() -> None:
    async def scenario() -> None:
        film, turns, taken = Film(REEL), asyncio.Semaphore(0), list[Packet]()

        async def put(packet: Packet) -> None:
            await turns.acquire()
            taken.append(packet)

        running = asyncio.create_task(FileFeed(film, UnpacedClock(), put).run())
        for count in range(1, len(REEL)):
            await many(film.read, count)
            await asyncio.sleep(2 * QUICK)
            assert (len(film.read), len(taken)) == (count, count - 1)
            turns.release()
        turns.release()
        await asyncio.wait_for(running, 10)

    asyncio.run(scenario())


def test_what_a_file_raises_is_raised_after_what_was_read() -> None:
    async def scenario() -> None:
        film, taken = Film(REEL, fails=OSError("damaged")), list[Packet]()

        async def put(packet: Packet) -> None:
            taken.append(packet)

        with pytest.raises(OSError, match="damaged"):
            await FileFeed(film, UnpacedClock(), put).run()
        assert taken == REEL
        assert film.closed == 1

    asyncio.run(scenario())


@pytest.mark.parametrize("where", ["not begun", "the clock", "the taker", "the file"])
def test_stop_ends_a_file_wherever_it_waits(where: str) -> None:
    async def scenario() -> None:
        hangs, taken = threading.Event(), list[Packet]()
        film = Film(REEL[:1] if where == "the file" else REEL, hangs=hangs)
        clock = ManualClock()

        async def put(packet: Packet) -> None:
            taken.append(packet)
            if where == "the taker":
                await asyncio.Event().wait()

        feed = FileFeed(film, clock, put)
        if where == "not begun":
            feed.stop()
        running = asyncio.create_task(feed.run())
        await until(lambda: taken or where == "not begun")
        await quiet()
        assert running.done() == (where == "not begun")
        feed.stop()
        await asyncio.wait_for(running, 5)
        hangs.set()
        assert len(taken) == {"not begun": 0, "the clock": 2}.get(where, 1)
        assert film.closed == (where != "not begun")

    asyncio.run(scenario())
