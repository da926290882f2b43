"""The session's wiring over devices, which do not wait: whatever is late, stuck or gone, scores go on and nothing grows."""

import asyncio
import contextlib
import functools
import io
import json
import logging
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream.batcher import Batcher
from stream.channel import Channel
from stream.clock import Clock, ManualClock
from stream.lanes import HOLE
from stream.messages import LANES, PARTS, Lane, Output, Packet, Part, Score
from stream.session import Session
from stream.sinks.jsonl import JsonLines
from stream.sinks.sink import Sink
from stream.sources.source import Provides
from tests.stream.wiring import (
    BLOCK_NS,
    HOP,
    Device,
    Dictation,
    Face,
    Hearing,
    ListSink,
    lasting,
    parts,
    sound,
    until,
    video,
    wait_for,
    workers,
)

SECOND = 1_000_000_000
NEVER: dict[Lane, int] = {"text": 600 * SECOND, "audio": 600 * SECOND, "vision": 600 * SECOND}  # late
MOST_FINALS = 2400  # that may wait for a sink
_LAG_NS = 300_000_000  # of the voice detector, and of the words after it


class Studio:
    """A live session in manual time: step by step a picture and a block of sound, which all lanes but the stuck ones pass."""

    def __init__(self, sinks: Sequence[Sink] = (), lateness: dict[Lane, int] = NEVER, **pieces: Any) -> None:
        self.camera, self.microphone = Device("camera", "video"), Device("microphone", "audio")
        self.screen, self.clock = ListSink(), ManualClock()
        self.face = pieces.setdefault("face", Face())
        self.dictation = pieces.setdefault("words", Dictation())
        self.parts = parts(**pieces)
        self.batcher = Batcher()
        self.session = Session(
            [self.camera, self.microphone],
            self.parts,
            self.batcher,
            self.clock,
            [self.screen, *sinks],
            hop_ns=HOP,
            lateness_ns=lateness,
        )
        self.now_ns = 0
        self.stuck: set[Part] = set()  # what nobody waits for

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator["Studio"]:
        """Run; at the end it stops, and has ended in time."""
        task = asyncio.create_task(self.session.run())
        try:
            await until(lambda: self.camera.reading and self.microphone.reading)
            yield self
            self.session.stop()
            assert await asyncio.wait_for(task, 3.5) == []
        finally:
            task.cancel()
            await self.batcher.close()
            self.parts.close()

    async def go(self, seconds: float, within_s: float = 2.0) -> None:
        """Let time pass; each window has a provisional score at its end, and a final one `within_s` seconds later."""
        until_ns = self.now_ns + round(seconds * SECOND)
        while self.now_ns < until_ns:
            begun_ns, self.now_ns = self.now_ns, self.now_ns + BLOCK_NS
            self.clock.advance(self.now_ns)
            self.camera.give(video(begun_ns))
            self.microphone.give(sound(begun_ns))
            for part in PARTS:
                if part not in self.stuck:
                    await until(functools.partial(self.has_come_to, part, begun_ns - (_LAG_NS if part != "vision" else 0)))
            if self.now_ns % HOP == 0:
                settled = (self.now_ns - round(within_s * SECOND)) // HOP
                await until(functools.partial(self.has_shown, self.now_ns // HOP, settled))
                self.check(within_s)

    def has_come_to(self, part: Part, t_ns: int) -> bool:
        return self.parts.windows.watermark_ns(part) >= t_ns

    def has_shown(self, provisional: int, final: int) -> bool:
        """Whether so many windows have had a provisional score, and so many a final one."""
        return len({score.seq for score in self.screen.provisional}) == provisional and len(self.screen.finals) >= final

    def check(self, within_s: float) -> None:
        """Nothing grows: what waits is bounded, and what is remembered lasts for the windows that are not settled."""
        for channel in channels(self.session):
            provisional = [item for item in channel._items if isinstance(item, Score) and item.kind == "provisional"]
            assert len(provisional) <= channel.capacity
            assert len(channel) <= (MOST_FINALS if channel in self.session._to_sinks else channel.capacity)
        for part in (self.parts.windows, self.parts.scorer, self.session._arrivals):
            assert remembered(vars(part)) < 300 + 60 * (within_s / 0.25)

    def happened(self) -> list[tuple[str, str]]:
        return [(event.kind, event.part) for event in self.screen.events("lost", "recovered", "forced", "late")]

    def statuses(self, lane: Lane) -> list[tuple[str, str | None]]:
        return [(score.lanes[lane].status, score.lanes[lane].reason) for score in self.screen.finals]


def counted(sink: ListSink, kind: str, part: str) -> int:
    return sum(event.count for event in sink.events(kind) if event.part == part)


def remembered(thing: object) -> int:
    """How many things are in a thing."""
    if isinstance(thing, dict):
        return len(thing) + sum(map(remembered, thing.values()))
    if isinstance(thing, list | tuple | deque):
        return len(thing) + sum(map(remembered, thing))
    return 0


def channels(session: Session) -> list[Channel[Any]]:
    held = [each for value in vars(session).values() for each in (value if isinstance(value, list) else [value])]
    return [each for each in held if isinstance(each, Channel)]


def test_all_lanes_at_once_and_every_window_has_its_provisional_score_and_its_final() -> None:
    async def scenario() -> Studio:
        async with Studio().running() as studio:
            await studio.go(5, within_s=1.0)
        return studio

    studio = asyncio.run(scenario())
    assert [score.seq for score in studio.screen.finals] == list(range(20))
    assert {score.lanes[lane].status for score in studio.screen.finals for lane in LANES} == {"ok"}
    assert studio.happened() == []
    assert all(score.latency for score in studio.screen.finals)


# --- devices that come and go


def test_a_camera_that_is_unplugged_is_unknown_with_the_reason_until_it_is_back() -> None:
    async def scenario() -> Studio:
        async with Studio().running() as studio:
            await studio.go(2)
            studio.camera.unplug()
            studio.stuck = {"vision"}
            await studio.go(3)
            studio.camera.plug()
            await until(lambda: studio.camera.reading)
            studio.stuck.clear()
            await studio.go(2)
            studio.camera.unplug()
            studio.stuck = {"vision"}
            await studio.go(1)
        return studio

    studio = asyncio.run(scenario())
    seen = studio.statuses("vision")
    assert set(seen[:7]) == set(seen[21:27]) == {("ok", None)}
    assert set(seen[9:19]) == {("unavailable", "camera is gone; trying again")}
    assert {status for status, _ in studio.statuses("audio") + studio.statuses("text")} == {"ok"}
    assert studio.happened() == [("lost", "vision"), ("recovered", "vision"), ("lost", "vision")]


@pytest.mark.parametrize(
    ("leave", "come_back", "reason"),
    [
        (Device.unplug, Device.plug, "microphone is gone; trying again"),
        (Device.mute, Device.unmute, "microphone has brought nothing for 2 s"),
    ],
)
def test_a_microphone_that_stops_takes_audio_and_text_with_it_until_it_is_back(
    leave: Callable[[Device], None], come_back: Callable[[Device], None], reason: str
) -> None:
    async def scenario() -> Studio:
        async with Studio().running() as studio:
            await studio.go(2)
            leave(studio.microphone)
            studio.stuck = {"audio", "voice", "text"}
            await studio.go(2.5, within_s=4.0)
            await studio.go(2.5, within_s=1.0)
            come_back(studio.microphone)
            await until(lambda: studio.microphone.reading)
            studio.stuck.clear()
            await studio.go(3)
        return studio

    studio = asyncio.run(scenario())
    for lane in ("audio", "text"):
        seen = studio.statuses(lane)
        assert set(seen[:7]) == set(seen[30:38]) == {("ok", None)}
        assert set(seen[9:24]) == {("unavailable", reason)}
    assert {status for status, _ in studio.statuses("vision")} == {"ok"}
    assert {score.voiced for score in studio.screen.finals[9:24]} == {None}
    assert studio.happened() == [("lost", "audio"), ("recovered", "audio")]


def test_with_nothing_to_see_or_hear_scores_go_on() -> None:
    async def scenario() -> Studio:
        async with Studio().running() as studio:
            studio.stuck = set(PARTS)
            studio.camera.mute()
            studio.microphone.unplug()
            await studio.go(4, within_s=3.0)
        return studio

    studio = asyncio.run(scenario())
    assert [score.seq for score in studio.screen.finals] == list(range(16))
    assert set(studio.statuses("text")[:4]) == {("unavailable", "microphone is gone; trying again")}
    assert set(studio.statuses("vision")[:4]) == {("unavailable", "camera has brought nothing for 2 s")}


# --- parts that hang or fail


def test_while_a_recogniser_hangs_windows_are_settled_without_it_and_it_recovers_by_itself(
    caplog: pytest.LogCaptureFixture,
) -> None:
    release = threading.Event()
    dictation = Dictation(lambda t_ns: release.wait(60) if t_ns > 2 * SECOND else None)

    async def scenario() -> Studio:
        async with Studio(words=dictation, lateness=NEVER | {"text": SECOND}).running() as studio:
            studio.session._to_text.capacity = 300  # reached sooner
            await studio.go(2)
            studio.stuck = {"text"}
            await studio.go(18)
            assert studio.statuses("text")[-1] == ("unknown", "late")
            assert studio.screen.finals[-1].dropped["text"] >= 300
            release.set()
            studio.stuck.clear()
            await studio.go(4)
        return studio

    try:
        studio = asyncio.run(scenario())
    finally:
        release.set()
    text = studio.statuses("text")
    assert set(text[:7]) == {("ok", None)}
    assert set(text[9:76]) == {("unknown", "late")}
    assert set(text[85:94]) == {("ok", None)}
    assert {score.lanes[lane].status for score in studio.screen.finals[:80] for lane in ("audio", "vision")} == {"ok"}
    forced = studio.screen.events("forced")
    assert {event.part for event in forced} == {"text"}
    assert [event.t_ns // HOP for event in forced] == list(range(forced[0].t_ns // HOP, forced[-1].t_ns // HOP + 1))
    assert [event.part for event in studio.screen.events("recovered")] == ["text"]
    assert {event.part for event in studio.screen.events("late")} == {"text"}
    assert counted(studio.screen, "late", "text") == studio.parts.windows.late["text"] > 0
    assert counted(studio.screen, "dropped", "text") == studio.screen.finals[-1].dropped["text"]
    warnings = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert warnings == ["text is too far behind: windows are scored without it", "text keeps up again"]
    assert True in dictation.behind
    assert dictation.behind[-1] is False


def test_a_lane_that_fails_is_lost_and_tried_again_until_it_works() -> None:
    tries: list[int] = []

    def fail(t_ns: int) -> None:
        if 2 * SECOND <= t_ns < 4 * SECOND:
            tries.append(t_ns)
            raise RuntimeError("out of memory")

    async def scenario() -> Studio:
        async with Studio(face=Face(fail)).running() as studio:
            await studio.go(8)
        return studio

    studio = asyncio.run(scenario())
    assert tries == [2 * SECOND, 3 * SECOND]
    seen = studio.statuses("vision")
    assert set(seen[:8]) == set(seen[20:]) == {("ok", None)}
    assert set(seen[8:20]) == {("unavailable", "out of memory")}
    assert studio.happened() == [("lost", "vision"), ("recovered", "vision")]


# --- what live edges give up


def test_a_lane_slower_than_the_camera_looks_at_the_newest_picture_and_the_others_are_counted() -> None:
    permits, begun = threading.Semaphore(0), []

    def look(t_ns: int) -> None:
        begun.append(t_ns)
        permits.acquire(timeout=60)

    async def scenario() -> Studio:
        async with Studio(face=Face(look)).running() as studio:
            studio.stuck = {"vision"}
            await studio.go(0.05)
            await until(lambda: len(begun) == 1)
            for window in range(1, 13):
                await studio.go(0.25)
                await until(lambda: studio.session._to_vision.passed == studio.now_ns // BLOCK_NS)
                assert len(begun) == window
                permits.release()  # done with that picture
                await until(lambda: len(begun) == window + 1)  # noqa: B023 - waited for here
                assert begun[-1] == studio.now_ns - BLOCK_NS
            permits.release(100)
            studio.stuck.clear()
            await studio.go(0.5)
        return studio

    studio = asyncio.run(scenario())
    brought, looked = studio.now_ns // BLOCK_NS, len(studio.face.seen)
    dropped = studio.screen.finals[-1].dropped
    assert dropped["vision"] == brought - looked >= 12 * 3
    assert dropped["audio"] == dropped["text"] == 0
    assert counted(studio.screen, "dropped", "vision") == dropped["vision"]
    assert {status for status, _ in studio.statuses("vision")} == {"ok"}  # there is a picture in each window


def test_sound_beyond_its_bound_is_a_gap_with_its_reason() -> None:
    release = threading.Event()
    hearing = Hearing(lambda t_ns: release.wait(60) if t_ns == 2 * SECOND else None)

    async def scenario() -> Studio:
        async with Studio(audio=hearing).running() as studio:
            await studio.go(2)
            studio.stuck = {"audio", "voice", "text"}
            await studio.go(18, within_s=30)
            release.set()
            await until(lambda: hearing.end_ns == studio.now_ns)
            studio.stuck.clear()
            await studio.go(2)
        return studio

    try:
        studio = asyncio.run(scenario())
    finally:
        release.set()
    dropped = studio.screen.finals[-1].dropped["audio"]
    assert dropped == (20 - 2) * 20 - 1 - 250
    assert counted(studio.screen, "dropped", "audio") == dropped
    for lane in ("audio", "text"):
        seen = studio.statuses(lane)
        assert set(seen[:8]) == set(seen[31:]) == {("ok", None)}
        assert set(seen[10:29]) == {("unavailable", HOLE)}


# --- sinks


class Paper(io.StringIO):
    """An output whose reader takes nothing for a while."""

    def __init__(self) -> None:
        super().__init__()
        self.free = threading.Event()

    def write(self, line: str) -> int:
        self.free.wait(60)
        return super().write(line)


def test_a_sink_that_is_stuck_holds_up_nobody_and_gets_all_finals_in_the_end() -> None:
    free, paper = asyncio.Event(), Paper()
    waiting, writing = ListSink(lambda _: free.wait(), "waiting"), JsonLines(paper)

    async def scenario() -> Studio:
        async with Studio([waiting, writing]).running() as studio:
            await studio.go(30)
            assert (waiting.outputs, paper.getvalue()) == ([], "")
            free.set()
            paper.free.set()
            await until(lambda: len(waiting.finals) == len(studio.screen.finals))
            await studio.go(1)
        return studio

    try:
        studio = asyncio.run(scenario())
    finally:
        paper.free.set()
    assert [score.seq for score in studio.screen.finals] == list(range(124))
    assert waiting.lasting() == studio.screen.lasting()
    lines = [json.loads(line) for line in paper.getvalue().splitlines()]
    assert [lasting(line) for line in lines if line["kind"] == "final"] == studio.screen.lasting()
    for sink, provisional in (
        (waiting, len(waiting.provisional)),
        (writing, len([line for line in lines if line["kind"] == "provisional"])),
    ):
        assert counted(studio.screen, "dropped", sink.name) == len(studio.screen.provisional) - provisional > 30


def test_a_sink_that_fails_is_begun_anew_and_gets_what_comes_later() -> None:
    class Failing(ListSink):
        runs = 0

        async def run(self, info: Any, outputs: Any) -> None:
            self.runs += 1
            await super().run(info, outputs)

    async def fail(output: Output) -> None:
        if isinstance(output, Score) and output.kind == "final" and output.seq == 4 and sink.runs == 1:
            raise OSError("broker gone")

    sink = Failing(fail, "broker")

    async def scenario() -> Studio:
        async with Studio([sink]).running() as studio:
            await studio.go(3)
            await until(lambda: sink.runs == 2)
            await studio.go(1)
        return studio

    studio = asyncio.run(scenario())
    assert [score.seq for score in studio.screen.finals] == list(range(16))
    assert [score.seq for score in sink.finals] == [seq for seq in range(16) if seq != 4]
    lost = studio.screen.events("lost")
    assert [(event.part, event.reason) for event in lost] == [("broker", "broker can no longer show scores: broker gone")]


# --- the end


@settings(max_examples=12, deadline=None)
@given(blocks=st.integers(0, 60), plugged=st.booleans())
def test_stop_at_any_moment_settles_all_that_was_heard(blocks: int, plugged: bool) -> None:
    hearing = Hearing()

    async def scenario() -> Studio:
        async with Studio(audio=hearing).running() as studio:
            if not plugged:
                studio.camera.unplug()
                studio.stuck = {"vision"}
            await studio.go(blocks * 0.05)
        return studio

    before = workers()
    studio = asyncio.run(scenario())
    assert [score.seq for score in studio.screen.finals] == list(range(len(studio.screen.finals)))
    assert len(studio.screen.finals) * HOP >= max(hearing.end_ns, studio.now_ns // HOP * HOP)
    assert workers() <= before


class Stuck(Device):
    """A driver that never comes back."""

    def __init__(self, name: str, provides: Provides, release: threading.Event) -> None:
        super().__init__(name, provides)
        self._release = release

    def packets(self, clock: Clock) -> Iterator[Packet]:
        self.opened += 1
        yield video(clock.now_ns())
        self._release.wait(60)


def test_stop_ends_within_three_seconds_whatever_hangs() -> None:
    release, paper, before = threading.Event(), Paper(), workers()

    def hang(t_ns: int) -> None:
        if t_ns >= SECOND + 2 * BLOCK_NS:  # when the window has begun
            release.wait(60)

    studios = {
        "camera": Studio(),
        "vision": Studio(face=Face(hang)),
        "audio": Studio(audio=Hearing(hang)),
        "text": Studio(words=Dictation(hang)),
        "sink": Studio([ListSink(lambda _: asyncio.sleep(60))]),
        "sink's thread": Studio([JsonLines(paper)]),
        "nothing": Studio(),
    }

    async def scenario() -> dict[str, float]:
        async def one(what: str) -> float:
            async with studios[what].running() as studio:
                await studio.go(1.1)
                studio.stuck = set(PARTS)
                await studio.go(1.9, within_s=4)
                begun_s = time.monotonic()
            return time.monotonic() - begun_s

        took_s = await asyncio.gather(*(one(what) for what in studios))
        return dict(zip(studios, took_s, strict=True))

    try:
        took_s = asyncio.run(scenario())
        settled = {what: len(studio.screen.finals) for what, studio in studios.items()}
        assert set(settled.values()) == {12}
        assert max(took_s.values()) < 3.5, took_s
        assert took_s["nothing"] < 1.5
        for what in ("vision", "audio", "text"):
            assert set(studios[what].statuses(what)[:4]) == {("ok", None)}
            assert set(studios[what].statuses(what)[4:]) == {("unknown", "late")}  # also where something had come
        assert {score.voiced for score in studios["audio"].screen.finals[3:]} == {None}
    finally:
        release.set()
        paper.free.set()
    wait_for(lambda: workers() <= before)


# --- what is asked for


def test_a_pause_lets_go_of_the_devices_and_its_windows_hold_nothing() -> None:
    async def scenario() -> Studio:
        async with Studio().running() as studio:
            await studio.go(2)
            studio.session.pause()
            studio.session.pause()
            studio.stuck = set(PARTS)
            await studio.go(3)
            await until(lambda: not (studio.camera.reading or studio.microphone.reading))
            studio.session.resume()
            await until(lambda: studio.camera.reading and studio.microphone.reading)
            studio.stuck.clear()
            await studio.go(2)
        return studio

    studio = asyncio.run(scenario())
    for lane in LANES:
        seen = studio.statuses(lane)
        assert set(seen[:6]) == set(seen[21:27]) == {("ok", None)}
        assert set(seen[10:19]) == {("unavailable", "paused")}
    told = [(event.kind, event.t_ns) for event in studio.screen.events("paused", "resumed")]
    assert told == [("paused", 2 * SECOND), ("resumed", 5 * SECOND)]
    assert studio.happened() == []


def test_a_reset_begins_an_utterance_and_a_mark_is_told() -> None:
    async def scenario() -> tuple[Studio, list[int]]:
        restarts = []
        async with Studio().running() as studio:
            windows = studio.parts.windows
            settle = windows.settle

            def watched() -> Any:
                settled = settle()
                restarts.extend(window.seq for window in settled if window.restart)
                return settled

            windows.settle = watched  # type: ignore[method-assign]
            await studio.go(2.1)
            studio.session.reset()
            studio.session.mark("the joke")
            await studio.go(1.9)
        return studio, restarts

    studio, restarts = asyncio.run(scenario())
    assert 9 in restarts
    assert [(event.t_ns, event.kind, event.reason) for event in studio.screen.events("reset", "marked")] == [
        (9 * HOP, "reset", "an utterance begins here by command"),
        (2_100_000_000, "marked", "the joke"),
    ]
