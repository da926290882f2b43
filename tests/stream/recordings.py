"""Sessions that are recorded and replayed in tests: the real recorder, file and replay, with lanes and models of `wiring`."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from stream.batcher import Batcher
from stream.clock import Clock, ManualClock, PacedClock, UnpacedClock
from stream.config import Config, RecordConfig, WindowsConfig
from stream.engine import Engine
from stream.mcap import RecordingReader
from stream.messages import Event, Lane, Output, Packet, VideoFrame
from stream.parts import Parts
from stream.recorder import Recorder
from stream.records import OUTPUTS, without_words
from stream.scorer import Scorer
from stream.session import Session
from stream.sources.recording import RecordingSource
from stream.sources.source import Source
from stream.windows import Windows
from tests.stream.wiring import HOP, ListSink, ListSource, about, parts

WINDOWS = WindowsConfig(utterance_gap_s=1.0, max_utterance_s=5.0)


def config(**record: object) -> Config:
    return Config(windows=WINDOWS, record=RecordConfig.model_validate(record))


def run(
    source: Source,
    piece: Parts,
    clock: Clock,
    recorder: Recorder | None = None,
    advance: Sequence[int] = (),
    lateness: Mapping[Lane, int] | None = None,
) -> ListSink:
    """Run a session to its end; a manual clock goes on by `advance`."""
    sink = ListSink()

    async def scenario() -> None:
        batcher = Batcher()
        session = Session([source], piece, batcher, clock, [sink], hop_ns=HOP, lateness_ns=lateness, recorder=recorder)
        async with asyncio.timeout(30), asyncio.TaskGroup() as group:
            group.create_task(session.run())
            for t_ns in advance:
                assert isinstance(clock, ManualClock)
                clock.advance(t_ns)
                await asyncio.sleep(0.002)
        await batcher.close()

    try:
        asyncio.run(scenario())
    finally:
        piece.close()
        if recorder:
            recorder.close()
    return sink


def record(
    path: Path,
    packets: list[Packet],
    make: Callable[[], Parts],
    clock: Clock | None = None,
    advance: Sequence[int] = (),
    **options: object,
) -> ListSink:
    """Record a session that reads packets."""
    source = ListSource(packets)
    if any(isinstance(packet, VideoFrame) for packet in packets):
        source.provides = frozenset(("audio", "video"))
    recorder = Recorder(path, config(**options), about(), packets=frozenset(source.provides))
    return run(source, make(), clock or UnpacedClock(), recorder, advance)


def replay(
    source: RecordingSource,
    on: Engine,
    make: Callable[[], Parts] | None = None,
    clock: Clock | None = None,
    lateness: Mapping[Lane, int] | None = None,
) -> ListSink:
    """Replay: from features, or from packets through the lanes that `make` makes."""
    begin = source.about.begin
    if make:
        piece = make()
    else:
        piece = parts(on=on)
        piece.scorer.close()
        piece.vision = piece.audio = piece.text = None
        piece.scorer = Scorer(on, None, hop_ns=HOP, smooth_tau_s=2.0, known=source.known)
        piece.windows = Windows(hop_ns=HOP, gap_windows=4, max_windows=20)
    piece.begin = begin
    piece.windows.begin(begin.seq, begin.splitter, begin.last_ns)
    piece.scorer.begin(begin.smooth, begin.said)
    return run(source, piece, clock or PacedClock(1000.0, begin.seq * HOP), lateness=lateness)


def published(outputs: Sequence[Output], *, words: bool = False) -> list[bytes]:
    """Scores and utterances to the last digit, with times and all."""
    return [
        OUTPUTS[type(output)].encode(output if words else without_words(output))
        for output in outputs
        if not isinstance(output, Event)
    ]


def in_file(path: Path) -> list[bytes]:
    """Likewise, as they stand in a recording."""
    kept = (record.value for record in RecordingReader(path).records())
    return published([value for value in kept if type(value) in OUTPUTS])
