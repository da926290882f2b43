"""Does a live session keep up: latency, CPU, memory, and what is given up?

    python -m benchmarks.live --minutes 30 --data FOLDER --json FILE

A clip is played over and over, at its own pace, as a camera and a microphone would bring it: nothing waits for the analyzer,
which has to give up pictures or sound that it cannot deal with. Face, sound, words by PocketSphinx, model, JSON lines into a
file. The decoding of the clip is part of what the machine has to do. The baseline, in the same process before that, is the same
without words.
"""

import argparse
import asyncio
import contextlib
import logging
import tempfile
import threading
import time
from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import psutil
import torch

from benchmarks.common import Figure, corpus_parser, need, show_figures, write
from extractors.sound import SAMPLE_NS
from stream.batcher import Batcher
from stream.channel import Channel
from stream.clock import Clock, PacedClock
from stream.config import AsrConfig, Config
from stream.memory import give_back_what_is_free
from stream.messages import AudioBlock, Event, Output, Packet, Score, SessionInfo, VideoFrame
from stream.parts import Input, load
from stream.session import Session
from stream.sinks.jsonl import JsonLines
from stream.sources.media import MediaSource
from stream.sources.source import Provides

WARM_S = 60.0  # memory counts from here on
_SILENCE = 320  # samples, 20 ms: a block between two rounds


class LoopedClip:
    """A clip over and over, as devices bring it: live, at its own pace, the sound without a gap."""

    live, scripted = True, False
    provides: frozenset[Provides] = frozenset(("video", "audio"))

    def __init__(self, path: Path) -> None:
        """Play that file."""
        self.name = f"{path.name}, over and over"
        self.problems: list[str] = []
        self._path = path
        self._closed = threading.Event()

    def packets(self, clock: Clock) -> Iterator[Packet]:
        """Each packet when its time has come."""
        begin_ns = 0
        while not self._closed.is_set():
            end_ns = sound_ns = begin_ns
            source = MediaSource(str(self._path))
            for packet in source.packets(clock):
                match packet:
                    case VideoFrame(t_ns, image):
                        shifted: Packet = VideoFrame(begin_ns + t_ns, image)
                    case AudioBlock(t_ns, samples):
                        shifted = AudioBlock(begin_ns + t_ns, samples)
                        sound_ns = begin_ns + t_ns + len(samples) * SAMPLE_NS
                    case _:
                        continue
                end_ns = max(end_ns, shifted.t_ns + 40_000_000)
                if self._closed.wait(max(0.0, (shifted.t_ns - clock.now_ns()) / 1e9)):
                    return
                yield shifted
            source.close()
            while sound_ns < end_ns:
                yield AudioBlock(sound_ns, np.zeros(_SILENCE, np.int16))
                sound_ns += _SILENCE * SAMPLE_NS
            begin_ns = sound_ns

    def close(self) -> None:
        """Play no more."""
        self._closed.set()


@dataclass
class Probe:
    """A sink that keeps the figures."""

    name: str = "probe"
    # Arrays, so that what is measured with grows little beside what is measured.
    provisional_ms: "array[float]" = field(default_factory=lambda: array("f"))
    final_ms: "array[float]" = field(default_factory=lambda: array("f"))
    parts_ms: "array[float]" = field(default_factory=lambda: array("f"))  # of finals: feature, text, model, by turns
    events: dict[str, int] = field(default_factory=dict)
    dropped: dict[str, int] = field(default_factory=dict)

    async def run(self, info: SessionInfo, outputs: Channel[Output]) -> None:
        """Take all."""
        async for output in outputs:
            match output:
                case Score(kind=kind, latency=latency, dropped=dropped) if latency:
                    (self.final_ms if kind == "final" else self.provisional_ms).append(latency.total_ns / 1e6)
                    if kind == "final":
                        self.parts_ms.extend((latency.feature_ns / 1e6, latency.text_ns / 1e6, latency.model_ns / 1e6))
                    self.dropped = dict(dropped)
                case Event(kind=what, part=part, count=count):
                    self.events[f"{what} {part}"] = self.events.get(f"{what} {part}", 0) + count


@dataclass
class Usage:
    """CPU seconds and resident bytes of this process and its children, of the moment."""

    cpu_s: float
    own_mb: float
    children_mb: float

    @staticmethod
    def now() -> "Usage":
        """What it is at present."""
        own = psutil.Process()
        found = []
        for process in (own, *own.children(recursive=True)):
            with contextlib.suppress(psutil.NoSuchProcess):  # it has ended meanwhile
                cpu = process.cpu_times()
                found.append((cpu.user + cpu.system, process.memory_info().rss / 1e6))
        return Usage(sum(cpu_s for cpu_s, _ in found), found[0][1], sum(mb for _, mb in found[1:]))


@dataclass
class Run:
    """What a run gave."""

    probe: Probe
    cpus: float  # processors kept busy
    grown_mb: float | None  # of this process and its children after the first minute: see `growth`
    grown_own_mb: float | None
    peak_mb: float


def growth(mb: "array[float]") -> float | None:
    """The median of the last minute less that of the first; None where there are no two.

    Medians, because memory goes up and down by 10 MB and more with what just waits to be settled.
    """
    minute = round(WARM_S)
    return float(np.median(mb[-minute:]) - np.median(mb[:minute])) if len(mb) >= 2 * minute else None


async def measure(clip: Path, seconds: float, asr: str) -> Run:
    """Run a live session for so long."""
    config = Config(asr=AsrConfig.model_validate({"engine": asr}))
    source = LoopedClip(clip)
    (parts,) = load(config, [Input("live", (source,))], torch.device("cpu"))
    batcher, probe = Batcher(), Probe()
    with tempfile.TemporaryFile("w") as lines:
        session = Session(
            [source],
            parts,
            batcher,
            PacedClock(),
            [JsonLines(lines), probe],
            hop_ns=config.windows.hop_ns,
            lateness_ns=config.lateness.lanes_ns,
        )
        running = asyncio.create_task(session.run())
        begun_s, before = time.monotonic(), Usage.now()
        usage, peak = before, 0.0
        own_mb, all_mb = array("f"), array("f")  # at each second after the first minute
        while (elapsed_s := time.monotonic() - begun_s) < seconds and not running.done():
            await asyncio.sleep(min(1.0, seconds - elapsed_s))
            usage = Usage.now()
            peak = max(peak, usage.own_mb + usage.children_mb)
            if elapsed_s >= WARM_S:
                own_mb.append(usage.own_mb)
                all_mb.append(usage.own_mb + usage.children_mb)
        session.stop()
        await running
    await batcher.close()
    parts.close()
    return Run(
        probe,
        cpus=(usage.cpu_s - before.cpu_s) / seconds,
        grown_mb=growth(all_mb),
        grown_own_mb=growth(own_mb),
        peak_mb=peak,
    )


def figures(run: Run, baseline: Run) -> list[Figure]:
    """The run's figures beside the baseline's."""
    found = []
    for name, values, others in (
        ("window's end to provisional score", run.probe.provisional_ms, baseline.probe.provisional_ms),
        ("window's end to final score", run.probe.final_ms, baseline.probe.final_ms),
    ):
        for share in (50, 95, 99):
            pair = (float(np.percentile(others, share)), float(np.percentile(values, share)))
            found.append(Figure.against(pair[0], f"{name}, {share}th percentile", pair[1], "ms"))
    for index, name in enumerate(
        ("until picture and sound are through", "then waiting for words", "then device, words' vectors, model")
    ):
        pair = (
            float(np.median(baseline.probe.parts_ms[index::3])),
            float(np.median(run.probe.parts_ms[index::3])),
        )
        found.append(
            Figure(f"of a final score's time, median: {name}", pair[1], "ms", pair[0], pair[1] / pair[0] if pair[0] else None)
        )
    found.append(Figure.against(baseline.cpus, "processors kept busy", run.cpus, "cpus"))
    found.append(Figure.against(baseline.peak_mb, "resident memory at most, with children", run.peak_mb, "MB"))
    if run.grown_mb is not None and run.grown_own_mb is not None:
        found.append(Figure("resident memory, growth after the first minute, with children", run.grown_mb, "MB"))
        found.append(Figure("the same without children", run.grown_own_mb, "MB"))
    for lane in ("audio", "vision", "text"):
        found.append(Figure(f"{lane} packets given up", run.probe.dropped.get(lane, 0), "packets"))
    found.append(
        Figure(
            "windows settled without a part", sum(n for k, n in run.probe.events.items() if k.startswith("forced")), "windows"
        )
    )
    found.append(Figure("provisional scores", len(run.probe.provisional_ms), "scores"))
    found.append(Figure("final scores", len(run.probe.final_ms), "scores"))
    return found


def main() -> None:
    """Measure, print and write."""
    options = corpus_parser(__doc__)
    options.add_argument("--minutes", type=float, default=30.0, help="how long (default 30)")
    options.add_argument("--baseline-minutes", type=float, default=1.0, help="how long without words (default 1)")
    options.add_argument("--clip", default="talk2.mp4", help="one of the clips in clips/ (default talk2.mp4)")
    arguments: argparse.Namespace = options.parse_args()
    clip = need(arguments.data / "clips" / arguments.clip)
    logging.getLogger("stream").setLevel(logging.WARNING)
    give_back_what_is_free()  # as the command does
    baseline = asyncio.run(measure(clip, arguments.baseline_minutes * 60, "none"))
    run = asyncio.run(measure(clip, arguments.minutes * 60, "sphinx"))
    found = figures(run, baseline)
    show_figures(found, "without words")
    print(f"events: {run.probe.events}")
    write(arguments.json, found)


if __name__ == "__main__":
    main()
