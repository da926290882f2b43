"""The session's wiring, with small lanes in place of the real ones: order, loss of a lane, stopping."""

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import pytest
import torch

from extractors.asr.recogniser import Word
from extractors.audio import CONTRACT as AUDIO
from extractors.contract import FeatureRows
from extractors.face import CONTRACT as FACE
from extractors.text import WIDTH
from extractors.vad import VoiceChunk
from models.mmlatch import CausalMMLatch, CausalMMLatchConfig
from stream.channel import Channel
from stream.clock import Clock, PacedClock, UnpacedClock
from stream.engine import Engine
from stream.messages import (
    AudioBlock,
    LaneUpdate,
    Packet,
    RowsUpdate,
    Score,
    SessionInfo,
    Transcript,
    VisionRows,
    VoiceUpdate,
)
from stream.parts import Parts
from stream.scorer import Scorer
from stream.session import Session
from stream.sources.source import Provides
from stream.windows import Windows, pooled_width
from tests.stream.test_scorer import LastWordEmbedder

HOP = 250_000_000
SOUND_NS = 50_000_000  # a block


class ListSource:
    name, scripted = "list", False
    provides: frozenset[Provides] = frozenset(("audio", "vision_rows", "words"))

    def __init__(self, packets: list[Packet], fails: str = "") -> None:
        self.problems: list[str] = []
        self._packets, self._fails = packets, fails

    def packets(self) -> Iterator[Packet]:
        yield from self._packets
        if self._fails:
            raise RuntimeError(self._fails)

    def close(self) -> None:
        pass


class FakeAudioLane:
    """One row and one voiced chunk a block."""

    def __init__(self, work: Callable[[int], None] = lambda t_ns: None) -> None:
        self._work = work

    def push(self, packet: AudioBlock) -> list[LaneUpdate]:
        self._work(packet.t_ns)
        rows = FeatureRows(np.array([packet.t_ns]), np.ones((1, len(AUDIO.columns)), np.float32), np.empty(0, np.int64))
        end = packet.t_ns + SOUND_NS
        chunk = VoiceChunk(packet.t_ns, packet.samples, True, True)
        return [RowsUpdate("audio", rows, end), VoiceUpdate((chunk,), end)]

    def finish(self) -> list[LaneUpdate]:
        return []

    def close(self) -> None:
        pass


class ListSink:
    def __init__(self, leave_after: int = 10**9) -> None:
        self.scores: list[Score] = []
        self._leave_after = leave_after

    async def run(self, scores: Channel[Score]) -> None:
        async for score in scores:
            self.scores.append(score)
            if len(self.scores) >= self._leave_after:
                return


def recording(seconds: float) -> list[Packet]:
    samples = np.zeros(800, np.int16)
    packets: list[Packet] = [AudioBlock(t, samples) for t in range(0, round(seconds * 1e9), SOUND_NS)]
    for t in range(0, round(seconds * 1e9), HOP):
        rows = FeatureRows(np.array([t + 1]), np.ones((1, len(FACE.columns)), np.float32), np.empty(0, np.int64))
        packets += [VisionRows(t + HOP, rows), Transcript(t + HOP, (Word(f"w{t // HOP}", t + 5, t + HOP),))]
    return sorted(packets, key=lambda packet: packet.t_ns)


def parts(audio: FakeAudioLane | None = None, **unavailable: str) -> Parts:
    from stream.lanes import TextLane, VisionLane

    shape = CausalMMLatchConfig(text=WIDTH, audio=pooled_width("audio"), vision=pooled_width("vision"), max_steps=20)
    engine = Engine(CausalMMLatch.untrained(shape), torch.device("cpu"))
    scorer = Scorer(engine, LastWordEmbedder(), hop_ns=HOP, smooth_tau_s=2.0)  # type: ignore[arg-type]
    return Parts(
        vision=None if "vision" in unavailable else VisionLane(None),
        audio=audio or FakeAudioLane(),  # type: ignore[arg-type]
        text=TextLane(None),
        windows=Windows(hop_ns=HOP, gap_windows=4, max_windows=20),
        scorer=scorer,
        info=SessionInfo("s", "n", "list", False, "m", False, "cpu", 2.0, unavailable),  # type: ignore[arg-type]
    )


def run(
    packets: list[Packet],
    pieces: Parts,
    clock: Callable[[], Clock] = UnpacedClock,
    sinks: Sequence[ListSink] = (),
    fails: str = "",
) -> list[str]:
    async def scenario() -> list[str]:
        session = Session(ListSource(packets, fails), pieces, clock(), sinks, hop_ns=HOP)
        return await asyncio.wait_for(session.run(), 60)

    return asyncio.run(scenario())


def test_every_window_has_one_final_in_order_and_all_sinks_get_them() -> None:
    one, two = ListSink(), ListSink()
    assert run(recording(5), parts(), sinks=(one, two)) == []
    assert [(s.kind, s.seq) for s in one.scores] == [("final", seq) for seq in range(20)]
    assert one.scores == two.scores
    assert {lane.status for score in one.scores for lane in score.lanes.values()} == {"ok"}
    assert [score.words[0].text for score in one.scores] == [f"w{k}" for k in range(20)]


def test_finals_do_not_depend_on_pace_or_slow_lanes() -> None:
    fast, slow = ListSink(), ListSink()
    run(recording(2), parts(), sinks=(fast,))
    run(recording(2), parts(FakeAudioLane(lambda t_ns: time.sleep(0.01))), clock=lambda: PacedClock(2.0), sinks=(slow,))
    finals = [s for s in slow.scores if s.kind == "final"]
    assert [(s.seq, s.sentiment, s.smooth) for s in finals] == [(s.seq, s.sentiment, s.smooth) for s in fast.scores]


def test_in_real_time_there_are_provisional_scores_before_the_finals() -> None:
    sink = ListSink()

    def late(t_ns: int) -> None:
        """Sound is half a second late, so windows settle late."""
        time.sleep(0.5 if t_ns == 0 else 0)

    run(recording(2), parts(FakeAudioLane(late)), clock=PacedClock, sinks=(sink,))
    provisional = [s for s in sink.scores if s.kind == "provisional"]
    assert provisional
    assert all(s.latency_ns is not None and s.t_end_unix_ns is not None and s.model_ns is not None for s in sink.scores)
    for seq in {s.seq for s in provisional}:
        said = [s for s in sink.scores if s.seq == seq]
        assert [s.rev for s in said] == list(range(len(said)))
        assert said[-1].kind == "final"
        assert said[-1].revised_from == said[-2].sentiment


def test_a_lane_that_fails_is_lost_and_the_others_go_on() -> None:
    def break_at_one_second(t_ns: int) -> None:
        if t_ns == 1_000_000_000:
            raise RuntimeError("the microphone caught fire")

    sink = ListSink()
    problems = run(recording(3), parts(FakeAudioLane(break_at_one_second)), sinks=(sink,))
    assert problems == ["the audio lane was lost on the way: the microphone caught fire"]
    assert [s.seq for s in sink.scores] == list(range(12))
    assert [s.lanes["audio"].status for s in sink.scores] == ["ok"] * 4 + ["unavailable"] * 8
    assert sink.scores[-1].lanes["audio"].reason == "the microphone caught fire"
    assert sink.scores[-1].lanes["vision"].status == "ok"


def test_a_lane_that_is_not_there_is_named_with_its_reason() -> None:
    sink = ListSink()
    assert run(recording(1), parts(vision="no camera"), sinks=(sink,)) == []
    assert {(s.lanes["vision"].status, s.lanes["vision"].reason) for s in sink.scores} == {("unavailable", "no camera")}


def test_a_source_that_fails_ends_the_session_with_what_was_read() -> None:
    sink = ListSink()
    assert run(recording(1), parts(), sinks=(sink,), fails="cable pulled") == ["list broke off: cable pulled"]
    assert [s.seq for s in sink.scores] == [0, 1, 2, 3]


def test_when_the_sink_has_gone_the_session_ends_early() -> None:
    sink = ListSink(leave_after=3)
    assert run(recording(600), parts(), sinks=(sink,)) == []
    assert len(sink.scores) == 3


def test_stop_reads_no_more_and_scores_what_was_read() -> None:
    sink = ListSink()

    async def scenario() -> None:
        session = Session(ListSource(recording(600)), parts(), PacedClock(), [sink], hop_ns=HOP)
        running = asyncio.create_task(session.run())
        await asyncio.sleep(1.2)
        session.stop()
        await asyncio.wait_for(running, 20)

    asyncio.run(scenario())
    finals = [s.seq for s in sink.scores if s.kind == "final"]
    assert finals == list(range(len(finals)))
    assert 3 <= len(finals) <= 8


@pytest.mark.parametrize("packets", [[], [AudioBlock(0, np.zeros(800, np.int16))]])
def test_next_to_nothing_is_fine(packets: list[Packet]) -> None:
    sink = ListSink()
    assert run(packets, parts(), sinks=(sink,)) == []
    assert len(sink.scores) == len(packets)
