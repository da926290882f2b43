"""The session's wiring over files, which wait: order, pace, loss of a lane, several at once, stopping."""

import asyncio
import itertools
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import cache
from typing import Any, TypeVar

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from extractors.asr.recogniser import Recognition, Word
from extractors.contract import FeatureRows
from extractors.face import CONTRACT as FACE
from extractors.sound import SAMPLE_NS
from extractors.vad import VoiceChunk
from stream.batcher import Batcher
from stream.clock import Clock, ManualClock, PacedClock, UnpacedClock
from stream.engine import Engine
from stream.messages import AudioBlock, Lane, Packet, Score, Transcript, VisionRows
from stream.parts import Parts
from stream.scorer import Job
from stream.session import Session
from stream.sources.recording import RecordingSource
from stream.sources.source import Source
from tests.conftest import ROOT
from tests.stream.wiring import (
    HOP,
    NOISE,
    Dictation,
    Hearing,
    ListSink,
    ListSource,
    Work,
    engine,
    nothing,
    parts,
    recording,
    until,
    wait_for,
    workers,
)

SECOND = 1_000_000_000
T = TypeVar("T")


def run(
    packets: list[Packet],
    pieces: Parts,
    clock: Callable[[], Clock] = UnpacedClock,
    sinks: Sequence[ListSink] = (),
    fails: str = "",
) -> list[str]:
    async def scenario() -> list[str]:
        batcher = Batcher()
        try:
            session = Session([ListSource(packets, fails)], pieces, batcher, clock(), sinks, hop_ns=HOP)
            return await asyncio.wait_for(session.run(), 60)
        finally:
            await batcher.close()

    return asyncio.run(scenario())


def test_every_window_has_one_final_in_order_and_all_sinks_get_them() -> None:
    one, two = ListSink(), ListSink()
    assert run(recording(5), parts(), sinks=(one, two)) == []
    assert [(s.kind, s.seq) for s in one.scores] == [("final", seq) for seq in range(20)]
    assert one.outputs == two.outputs
    assert {lane.status for score in one.scores for lane in score.lanes.values()} == {"ok"}
    assert [score.words[0].text for score in one.scores] == [f"w{k}" for k in range(20)]


def test_in_real_time_there_are_provisional_scores_before_the_finals() -> None:
    sink = ListSink()
    late = Hearing(lambda t_ns: time.sleep(0.5 if t_ns == 0 else 0))  # so windows settle late
    run(recording(2), parts(audio=late), clock=PacedClock, sinks=(sink,))
    assert sink.provisional
    assert all(s.latency is not None and s.t_end_unix_ns is not None for s in sink.scores)
    for seq in {s.seq for s in sink.provisional}:
        said = [s for s in sink.scores if s.seq == seq]
        assert [s.rev for s in said] == list(range(len(said)))
        assert said[-1].kind == "final"
        assert said[-1].revised_from == said[-2].sentiment


# --- finals are a function of the input


END_NS = 6 * SECOND
DEMO = [p for p in RecordingSource(ROOT / "stream" / "demo.mcap").packets(UnpacedClock()) if p.t_ns < END_NS]


AT_ONCE: dict[Lane, int] = {"text": 1, "audio": 1, "vision": 1}  # late, if it were live


@cache
def shared_engine() -> Engine:
    """Of two places, for all that are to give the same bytes."""
    return engine(bucket=2)


class Guessing(Dictation):
    """Hears a word a chunk, is sure of those of a second when it is over, and until then has got them wrong."""

    def __init__(self) -> None:
        super().__init__()
        self._open: list[Word] = []

    def push(self, chunk: VoiceChunk, *, behind: bool = False) -> Recognition:
        self._end_ns = chunk.end_ns
        self._open.append(Word(f"{'voice' if chunk.voiced else 'noise'} {chunk.t_ns // HOP}", chunk.t_ns, chunk.end_ns))
        if self._open[0].start_ns // SECOND == chunk.end_ns // SECOND:
            wrong = tuple(replace(word, text=f"perhaps {len(self._open)}") for word in self._open)
            return Recognition((), wrong, self._open[0].start_ns)
        return self.finish()

    def finish(self) -> Recognition:
        sure, self._open = tuple(self._open), []
        return Recognition(sure, (), self._end_ns)


class SlowBatcher(Batcher):
    """Scores come late, so provisional ones are left out."""

    def __init__(self, delay_s: float) -> None:
        super().__init__()
        self._delay_s = delay_s

    async def score(self, job: Job) -> Score:
        await asyncio.sleep(self._delay_s)
        return await super().score(job)


def finals(
    inputs: Sequence[list[Packet]],
    clock: Clock,
    *,
    guessing: bool = False,
    work: Work = nothing,
    pause_s: float = 0.0,
    delay_s: float = 0.0,
    advance: Sequence[int] = (),
) -> list[list[bytes]]:
    """What sessions side by side settle for good, as it is published, each in a place of its own; nothing may be left out."""
    sinks = [ListSink(lambda _: asyncio.sleep(pause_s)) if pause_s else ListSink() for _ in inputs]

    async def scenario() -> None:
        batcher = SlowBatcher(delay_s) if delay_s else Batcher()
        pieces = [parts(audio=Hearing(work), words=Guessing() if guessing else None, on=shared_engine()) for _ in inputs]
        sessions = [
            Session([ListSource(packets)], piece, batcher, clock, [sink], hop_ns=HOP, lateness_ns=AT_ONCE)
            for packets, piece, sink in zip(inputs, pieces, sinks, strict=True)
        ]
        try:
            async with asyncio.timeout(10), asyncio.TaskGroup() as group:
                for session in sessions:
                    group.create_task(session.run())
                for t_ns in advance:
                    assert isinstance(clock, ManualClock)
                    clock.advance(t_ns)
                    await asyncio.sleep(0.002)
        finally:
            await batcher.close()
            for piece in pieces:
                piece.close()

    asyncio.run(scenario())
    assert [sink.events("forced", "late", "dropped", "lost") for sink in sinks] == [[]] * len(sinks)
    return [sink.lasting() for sink in sinks]


@cache
def expected(place: int, *, guessing: bool = False) -> list[bytes]:
    """Of the demo as it was recorded, as fast as it goes."""
    return finals([spoken(DEMO, guessing)] * (place + 1), UnpacedClock(), guessing=guessing)[place]


def spoken(packets: list[Packet], guessing: bool) -> list[Packet]:
    """Without the words that come with the recording, if a recogniser is to hear some."""
    return [packet for packet in packets if not (guessing and isinstance(packet, Transcript))]


def recut(sizes: list[int], groups: list[int], late_ns: list[int]) -> list[Packet]:
    """The demo cut anew: other blocks of sound, packets of rows and words put together, each kind late by times of its own."""
    samples = np.concatenate([p.samples for p in DEMO if isinstance(p, AudioBlock)])
    kinds: list[list[Packet]] = [[], [], []]
    start = 0
    while start < len(samples):
        size = sizes[len(kinds[0]) % len(sizes)]
        kinds[0].append(AudioBlock(start * SAMPLE_NS, samples[start : start + size]))
        start += size
    for rows in grouped([p for p in DEMO if isinstance(p, VisionRows)], groups):
        kinds[1].append(VisionRows(rows[-1].t_ns, FeatureRows.concatenate([p.rows for p in rows], len(FACE.columns))))
    for words in grouped([p for p in DEMO if isinstance(p, Transcript)], groups[1:]):
        kinds[2].append(Transcript(words[-1].t_ns, tuple(word for p in words for word in p.words)))
    arriving = []
    for number, packets in enumerate(kinds):
        at_ns = 0
        for k, packet in enumerate(packets):
            at_ns = max(at_ns, packet.t_ns + late_ns[(k + number) % len(late_ns)])
            arriving.append((at_ns, number, k, packet))
    return [packet for *_, packet in sorted(arriving, key=lambda each: each[:3])]


def grouped(packets: list[T], sizes: Sequence[int]) -> Iterator[list[T]]:
    sizes_again = itertools.cycle(sizes)
    while packets:
        size = next(sizes_again)
        yield packets[:size]
        packets = packets[size:]


@settings(max_examples=16, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 16000), min_size=1, max_size=6).filter(lambda sizes: sum(sizes) > 400 * len(sizes)),
    groups=st.lists(st.integers(1, 5), min_size=2, max_size=6),
    late_ns=st.lists(st.integers(0, SECOND), min_size=3, max_size=9),
    guessing=st.booleans(),
    place=st.integers(0, 1),
    pace=st.one_of(st.none(), st.sampled_from([10.0, 60.0]), st.lists(st.integers(0, END_NS + SECOND), max_size=8).map(sorted)),
    slow_s=st.sampled_from([0.0, 0.0, 0.004]),
    pause_s=st.sampled_from([0.0, 0.0, 0.003]),
    delay_s=st.sampled_from([0.0, 0.0, 0.004]),
)
def test_finals_do_not_depend_on_arrival_cutting_pace_neighbours_or_how_slow_anything_is(
    sizes: list[int],
    groups: list[int],
    late_ns: list[int],
    guessing: bool,
    place: int,
    pace: float | list[int] | None,
    slow_s: float,
    pause_s: float,
    delay_s: float,
) -> None:
    clock = UnpacedClock() if pace is None else PacedClock(pace) if isinstance(pace, float) else ManualClock()
    advance = [*pace, END_NS + SECOND] if isinstance(pace, list) else []
    inputs = [spoken(packets, guessing) for packets in [recording(2)] * place + [recut(sizes, groups, late_ns)]]
    found = finals(
        inputs,
        clock,
        guessing=guessing,
        work=lambda t_ns: time.sleep(slow_s) if slow_s else None,
        pause_s=pause_s,
        delay_s=delay_s,
        advance=advance,
    )
    assert len(expected(place, guessing=guessing)) > 24
    assert found[-1] == expected(place, guessing=guessing)


def test_a_clock_that_runs_ahead_of_the_pipeline_for_good_is_no_harm() -> None:
    assert finals([DEMO], PacedClock(1000.0))[0] == expected(0)


def test_sessions_side_by_side_give_what_each_gives_alone_and_share_the_calls_of_the_engine(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sizes: list[int] = []
    extend = Engine.extend

    def counting(self: Engine, slots: Any, steps: Any) -> Any:
        sizes.append(len(slots))
        return extend(self, slots, steps)

    monkeypatch.setattr(Engine, "extend", counting)
    [alone] = finals([DEMO], UnpacedClock())
    assert set(sizes) == {1}
    sizes.clear()
    one, two = finals([DEMO, DEMO], PacedClock(4.0))
    assert one == alone
    assert two == expected(1)
    assert sizes.count(2) > 8  # of 24 moments at which both want a provisional score


# --- lanes and sources that fail


def test_a_lane_that_fails_is_lost_for_a_while_and_the_others_go_on() -> None:
    def break_at_one_second(t_ns: int) -> None:
        if t_ns == SECOND:
            raise RuntimeError("the microphone caught fire")

    sink = ListSink()
    problems = run(recording(3), parts(audio=Hearing(break_at_one_second)), sinks=(sink,))
    assert problems == ["the audio lane was lost on the way: the microphone caught fire"]
    assert [s.seq for s in sink.scores] == list(range(12))
    assert [s.lanes["audio"].status for s in sink.scores] == ["ok"] * 4 + ["unavailable"] * 4 + ["ok"] * 4
    assert sink.scores[5].lanes["audio"].reason == "the microphone caught fire"
    assert {s.lanes["vision"].status for s in sink.scores} == {"ok"}


def test_a_lane_that_goes_on_failing_is_tried_again_after_longer_and_longer() -> None:
    tries: list[int] = []

    def broken(t_ns: int) -> None:
        tries.append(t_ns)
        raise RuntimeError("dead")

    sink = ListSink()
    problems = run(recording(20), parts(audio=Hearing(broken)), sinks=(sink,))
    assert [t_ns // SECOND for t_ns in tries] == [0, 1, 3, 7, 15]
    assert problems == ["the audio lane was lost on the way: dead"]
    assert {s.lanes["audio"].status for s in sink.finals} == {"unavailable"}
    assert [s.seq for s in sink.finals] == list(range(80))


def test_a_lane_that_cannot_even_be_skipped_does_not_end_the_session() -> None:
    class Dead(Dictation):
        def finish(self) -> Any:
            raise RuntimeError("dead")

    def fail(t_ns: int) -> None:
        raise RuntimeError("dead")

    sink = ListSink()
    assert run([p for p in recording(5) if not isinstance(p, Transcript)], parts(words=Dead(fail)), sinks=(sink,))
    assert [s.seq for s in sink.finals] == list(range(20))
    assert {s.lanes["text"].status for s in sink.finals} == {"unavailable"}
    assert {s.lanes["audio"].status for s in sink.finals} == {"ok"}


def test_a_lane_that_is_not_there_is_named_with_its_reason() -> None:
    sink = ListSink()
    assert run(recording(1), parts(vision="no camera"), sinks=(sink,)) == []
    assert {(s.lanes["vision"].status, s.lanes["vision"].reason) for s in sink.scores} == {("unavailable", "no camera")}


def test_a_source_that_fails_ends_the_session_with_what_was_read() -> None:
    sink = ListSink()
    assert run(recording(1), parts(), sinks=(sink,), fails="cable pulled") == ["list broke off: cable pulled"]
    assert [s.seq for s in sink.scores] == [0, 1, 2, 3]


@pytest.mark.parametrize("packets", [[], [AudioBlock(0, NOISE)]])
def test_next_to_nothing_is_fine(packets: list[Packet]) -> None:
    sink = ListSink()
    assert run(packets, parts(), sinks=(sink,)) == []
    assert len(sink.scores) == len(packets)


# --- the end


class Leaving(ListSink):
    """As a pipe whose reader has seen enough."""

    async def run(self, info: Any, outputs: Any) -> None:
        async for output in outputs:
            self.outputs.append(output)
            if len(self.outputs) == 3:
                return


def test_of_a_file_that_is_not_read_in_time_no_more_is_shown_than_is_read() -> None:
    """Nor any window after the file's end, which is not known before it is read."""
    sink, clock, read = ListSink(), ManualClock(), threading.Event()
    source = ListSource(recording(2), work=lambda t_ns: read.wait(20) if t_ns >= SECOND else None)

    async def scenario() -> None:
        batcher = Batcher()
        session = Session([source], parts(), batcher, clock, [sink], hop_ns=HOP)
        running = asyncio.create_task(session.run())
        clock.advance(SECOND - 1)
        await until(lambda: len(sink.finals) == 3)
        ticks = session.edges["windows"].passed
        clock.advance(10 * SECOND)
        await until(lambda: session.edges["windows"].passed > ticks and not len(session.edges["windows"]))
        await asyncio.sleep(0.05)
        assert {score.seq for score in sink.provisional} <= set(range(5))
        read.set()
        assert await asyncio.wait_for(running, 20) == []
        await batcher.close()

    asyncio.run(scenario())
    assert [score.seq for score in sink.finals] == list(range(8))
    assert {score.seq for score in sink.provisional} <= set(range(9))


def test_when_the_sink_has_gone_the_session_ends_early() -> None:
    sink = Leaving()
    assert run(recording(600), parts(), sinks=(sink,)) == []
    assert len(sink.outputs) == 3


async def stopped(
    source: Source, pieces: Parts, sink: ListSink, after: Callable[[], Any], clock: Clock | None = None
) -> tuple[float, Session]:
    """Run a session, stop it once something holds, and tell how long it took to end, in seconds."""
    batcher = Batcher()
    session = Session([source], pieces, batcher, clock or PacedClock(), [sink], hop_ns=HOP)
    running = asyncio.create_task(session.run())
    try:
        await until(after)
        begun_s = time.monotonic()
        session.stop()
        done, _ = await asyncio.wait({running}, timeout=10)
        took_s = time.monotonic() - begun_s
        assert done, "it does not end"
        assert await running == []
        return took_s, session
    finally:
        running.cancel()
        await batcher.close()


@settings(max_examples=10, deadline=None)
@given(moment_ns=st.integers(0, 5 * SECOND), speed=st.sampled_from([None, 20.0, 100.0]))
def test_stop_at_any_moment_reads_no_more_and_scores_all_that_was_read(moment_ns: int, speed: float | None) -> None:
    sink, hearing = ListSink(), Hearing()
    before = workers()
    clock = PacedClock(speed) if speed else UnpacedClock()
    took_s, _ = asyncio.run(
        stopped(ListSource(recording(600)), parts(audio=hearing), sink, lambda: hearing.end_ns >= moment_ns, clock)
    )
    assert took_s < 3.5
    assert [score.seq for score in sink.finals] == list(range(len(sink.finals)))
    assert len(sink.finals) * HOP >= hearing.end_ns > 0 or not sink.finals
    assert len(sink.finals) < 2000
    assert workers() <= before


def test_stop_before_the_start_reads_nothing() -> None:
    async def scenario() -> list[str]:
        batcher = Batcher()
        session = Session([ListSource(recording(600))], parts(), batcher, PacedClock(), [sink], hop_ns=HOP)
        session.stop()
        session.stop()
        problems = await asyncio.wait_for(session.run(), 3.5)
        await batcher.close()
        return problems

    sink, before = ListSink(), workers()
    assert asyncio.run(scenario()) == []
    assert sink.outputs == []
    assert workers() <= before


def test_stop_ends_within_three_seconds_whatever_hangs() -> None:
    release = threading.Event()
    sinks = {what: ListSink() for what in ("audio lane", "text lane", "source")}
    sinks["sink"] = ListSink(lambda _: asyncio.sleep(60))

    def hang(t_ns: int) -> None:
        if t_ns >= SECOND:
            release.wait(60)

    sounds: list[Packet] = [p for p in recording(600) if not isinstance(p, Transcript)]
    hearing = Hearing()
    arguments = {
        "audio lane": (ListSource(recording(600)), parts(audio=Hearing(hang))),
        "text lane": (ListSource(sounds), parts(audio=hearing, words=Dictation(hang))),
        "source": (ListSource(recording(600), work=hang), parts()),
        "sink": (ListSource(recording(600)), parts()),
    }

    async def scenario() -> dict[str, float]:
        async def one(what: str) -> float:
            begun_s = time.monotonic()
            return (await stopped(*arguments[what], sinks[what], lambda: time.monotonic() - begun_s > 1.5))[0]

        took_s = await asyncio.gather(*(one(what) for what in arguments))
        return dict(zip(arguments, took_s, strict=True))

    before = workers()
    try:
        took_s = asyncio.run(scenario())
        assert max(took_s.values()) < 3.5, took_s
        settled = {what: len(sink.finals) for what, sink in sinks.items()}
        # What the lanes that work have passed is out, without what hangs.
        assert settled["audio lane"] >= 4
        assert settled["text lane"] * HOP >= hearing.end_ns > SECOND
        assert {s.lanes["text"].reason for s in sinks["text lane"].finals[4:]} == {"late"}
        assert settled["source"] == 4
    finally:
        release.set()
    wait_for(lambda: workers() <= before)
