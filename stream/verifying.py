"""Whether a recording is whole, and whether its replay gives the very scores that are in it."""

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import zip_longest
from pathlib import Path

import torch

from stream import config
from stream.batcher import Batcher
from stream.channel import Channel
from stream.clock import PacedClock, UnpacedClock
from stream.mcap import RecordingReader
from stream.messages import Event, Output, Score, SessionInfo, Utterance
from stream.parts import Input, load
from stream.records import OUTPUTS, without_words
from stream.session import Session
from stream.sources.recording import Origin, RecordingSource

_AT_ONCE = 1000.0  # times real time: far more than can be had, but with provisional scores


@dataclass
class Verdict:
    """What was found.

    Attributes:
        same: How many final and how many provisional scores were the same to the last digit.
        problem: What is wrong, a line for the user; None if nothing is.
    """

    same: tuple[int, int]
    problem: str | None


class _Kept:
    """A sink that keeps what it is shown."""

    name = "verify"

    def __init__(self) -> None:
        self.outputs: list[Output] = []

    async def run(self, info: SessionInfo, outputs: Channel[Output]) -> None:
        """Keep all."""
        async for output in outputs:
            self.outputs.append(output)


def replayed(source: RecordingSource, device: torch.device, *, provisional: bool = True) -> list[Output]:
    """All that a recording's replay puts out, as fast as it goes; or all but provisional scores.

    Raises:
        UsageError: The model cannot be loaded.
    """
    settings = config.load(base=source.about.settings)
    (parts,) = load(settings, [Input(settings.session, (source,))], device)
    sink = _Kept()

    async def run() -> None:
        batcher = Batcher()
        session = Session(
            [source],
            parts,
            batcher,
            PacedClock(_AT_ONCE, source.about.begin.seq * settings.windows.hop_ns) if provisional else UnpacedClock(),
            [sink],
            hop_ns=settings.windows.hop_ns,
            lateness_ns=settings.lateness.lanes_ns,
        )
        await session.run()
        await batcher.close()

    try:
        asyncio.run(run())
    finally:
        parts.close()
    return sink.outputs


def verify(path: Path, origin: Origin | None, device: torch.device) -> Verdict:
    """Replay a recording, and compare."""
    reader = RecordingReader(path)
    if not reader.about.replayable:
        for _ in reader.records():
            pass
        return Verdict((0, 0), reader.problem)
    found = replayed(RecordingSource(path, origin=origin), device)
    finals = provisionals = 0
    for was, now in zip_longest(recorded(reader), (output for output in found if not isinstance(output, Event))):
        if was is None:  # a recording that was cut short ends within what its last entry gave
            break
        if now is None or _bytes(was) != _bytes(now if reader.about.words else without_words(now)):
            return Verdict((finals, provisionals), f"{path}: {_difference(was, now)}")
        if isinstance(was, Score):
            finals += was.kind == "final"
            provisionals += was.kind == "provisional"
    return Verdict((finals, provisionals), reader.problem)


def recorded(reader: RecordingReader) -> Iterator[Score | Utterance]:
    """The scores and utterances of a recording."""
    for record in reader.records(frozenset({OUTPUTS[Score].topic, OUTPUTS[Utterance].topic})):
        yield record.value


def _bytes(output: Output) -> bytes:
    if isinstance(output, Score):
        output = replace(output, masks={})  # there only where a page shows them
    return OUTPUTS[type(output)].encode(output)


def _difference(was: Score | Utterance, now: Output | None) -> str:
    where = f"{was.t_start_ns / 1e9:.2f} s"
    if not isinstance(was, Score) or not isinstance(now, Score):
        return f"the replay differs from {where} on"
    return (
        f"the replay differs from {where} on: {was.kind} score {was.seq} was {was.sentiment!r}, now {now.kind} {now.seq} is "
        f"{now.sentiment!r}; it was recorded with other versions or on another processor, or the weights are others"
    )
