"""What does a recording cost, how large is it, and how fast does it replay?

    python -m benchmarks.recording --data FOLDER --json FILE

A video file is analysed in real time without a recording and at each level: processor time beside that without, and megabytes a
minute. The same for a clip as a network camera sends it, in JPEG, which is recorded as it comes, and as a camera would bring it
whose pictures have to be coded. Then the features are replayed as fast as it goes, beside the session's own length.
"""

import asyncio
import logging
import shutil
import tempfile
import time
import wave
from collections.abc import Callable
from pathlib import Path

import torch

from benchmarks.camera import camera
from benchmarks.common import Figure, corpus_parser, need, show_figures, write
from benchmarks.live import LoopedClip, Usage
from benchmarks.sound import read_speech
from extractors.sound import SAMPLE_RATE
from stream.batcher import Batcher
from stream.channel import Channel
from stream.clock import PacedClock
from stream.config import AsrConfig, Config, RecordConfig
from stream.messages import Output, SessionInfo
from stream.parts import Input, load
from stream.recorder import Recorder
from stream.session import Session
from stream.sources.camera import CameraSource
from stream.sources.media import MediaSource
from stream.sources.recording import RecordingSource
from stream.sources.source import Provides, Source
from stream.verifying import replayed

LEVELS = ("scores", "features", "media")


class LoopedSound(LoopedClip):
    """A sound file over and over, as a microphone brings it."""

    provides: frozenset[Provides] = frozenset(("audio",))


class Nobody:
    """A sink that takes all."""

    name = "nobody"

    async def run(self, info: SessionInfo, outputs: Channel[Output]) -> None:
        """Take all."""
        async for _ in outputs:
            pass


async def session(given: Input, path: Path | None, level: str, seconds: float | None) -> tuple[float, float]:
    """Run one in real time; returns processor seconds, with its children's, and its length in seconds."""
    config = Config(asr=AsrConfig(engine="sphinx"), record=RecordConfig.model_validate({"level": level, "words": True}))
    (parts,) = load(config, [given], torch.device("cpu"))
    batcher, clock = Batcher(), PacedClock()
    recorder = Recorder(path, config, parts.info, packets=given.provides) if path else None
    for source in given.sources:
        if recorder and level == "media" and isinstance(source, MediaSource):
            source.tap = recorder.coded
    running = Session(
        given.sources,
        parts,
        batcher,
        clock,
        [Nobody()],
        hop_ns=config.windows.hop_ns,
        lateness_ns=config.lateness.lanes_ns,
        recorder=recorder,
    )
    begun_s, before = time.monotonic(), Usage.now()
    task = asyncio.create_task(running.run())
    usage = before
    while not task.done():
        await asyncio.sleep(0.5)
        usage = Usage.now()  # before children have ended
        if seconds and time.monotonic() - begun_s > seconds:
            break
    length_s = time.monotonic() - begun_s
    running.stop()
    await task
    await batcher.close()
    parts.close()
    if recorder:
        recorder.close()
    return usage.cpu_s - before.cpu_s, length_s


def costs(name: str, folder: Path, sources: Callable[[], tuple[Source, ...]], seconds: float | None) -> list[Figure]:
    """Of each level beside no recording; `sources` opens those of a run."""
    without, length_s = asyncio.run(session(Input("live", sources()), None, "scores", seconds))
    found = [Figure(f"{name}, not recorded: processors kept busy", without / length_s, "cpus")]
    for level in LEVELS:
        path = folder / f"{name.replace(' ', '-')}-{level}.mcap"
        cpu_s, ran_s = asyncio.run(session(Input("live", sources()), path, level, seconds))
        found.append(Figure.against(without / length_s, f"{name}, {level}: processors kept busy", cpu_s / ran_s, "cpus"))
        found.append(Figure(f"{name}, {level}: size", path.stat().st_size / 1e6 / (ran_s / 60), "MB/min"))
    return found


def write_sound(clip: Path, path: Path) -> Path:
    """The clip's sound as a WAV file, so that nothing has to be decoded for it but itself; returns `path`."""
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(SAMPLE_RATE)
        file.writeframes(read_speech(clip).tobytes())
    return path


def speed(path: Path) -> list[Figure]:
    """Of replays from features, beside real time; what it takes to load the model is taken off."""
    device = torch.device("cpu")
    found: list[Figure] = []
    for name, provisional in (("final scores alone", False), ("with provisional scores", True)):
        begun_s = time.perf_counter()
        replayed(RecordingSource(path, end_ns=1), device, provisional=provisional)
        loaded_s = time.perf_counter()
        outputs = replayed(RecordingSource(path), device, provisional=provisional)
        took_s = time.perf_counter() - loaded_s - (loaded_s - begun_s)
        length_s = max(getattr(output, "t_end_ns", 0) for output in outputs) / 1e9
        if not found:
            found.append(Figure("length of the session that is replayed", length_s, "s"))
        found.append(Figure.against(1.0, f"replay from features, {name}; baseline: real time", length_s / took_s, "times"))
    return found


def main() -> None:
    """Measure, print and write."""
    options = corpus_parser(__doc__)
    options.add_argument("--video", default="data/mosei/-3nNcZdcdvU.mp4", help="a video file in the data folder")
    options.add_argument("--clip", default="talk2.mp4", help="one of the clips in clips/, for the cameras (default talk2.mp4)")
    options.add_argument("--seconds", type=float, default=60.0, help="how long a camera runs (default 60)")
    arguments = options.parse_args()
    logging.getLogger("stream").setLevel(logging.ERROR)
    video, clip = need(arguments.data / arguments.video), need(arguments.data / "clips" / arguments.clip)
    folder = Path(tempfile.mkdtemp())
    try:
        found = costs("a video file", folder, lambda: (MediaSource(str(video)),), None)
        sound = write_sound(clip, folder / "sound.wav")
        with camera(clip) as url:
            found += costs("a camera with JPEG", folder, lambda: (CameraSource(url), LoopedSound(sound)), arguments.seconds)
        found += costs("a camera without JPEG", folder, lambda: (LoopedClip(clip),), arguments.seconds)
        found += speed(folder / "a-camera-with-JPEG-features.mcap")
    finally:
        shutil.rmtree(folder)
    show_figures(found)
    write(arguments.json, found)


if __name__ == "__main__":
    main()
