"""What sessions are wired from in tests: the real lanes, windows and scorer, with sources, models and sinks that do as told."""

import asyncio
import json
import queue
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import numpy as np
import torch

from extractors.asr.recogniser import Recognition, Word
from extractors.contract import FeatureRows
from extractors.face import CONTRACT as FACE
from extractors.text import WIDTH
from extractors.vad import VoiceChunk
from models.mmlatch import CausalMMLatch, CausalMMLatchConfig
from stream.channel import Channel
from stream.clock import Clock
from stream.engine import Engine
from stream.errors import SourceError
from stream.lanes import AudioLane, TextLane, VisionLane
from stream.messages import (
    AudioBlock,
    Event,
    Gap,
    LaneUpdate,
    Output,
    Packet,
    Score,
    SessionInfo,
    Transcript,
    Utterance,
    VideoFrame,
    VisionRows,
)
from stream.parts import Parts
from stream.scorer import Scorer
from stream.sinks.payload import payload
from stream.sources.source import Provides
from stream.windows import Windows, pooled_width
from tests.stream.test_scorer import LastWordEmbedder

HOP = 250_000_000
BLOCK_NS = 50_000_000  # of sound
NOISE = (np.random.default_rng(0).normal(size=800) * 1000).astype(np.int16)  # a block of it: heard, and no voice
PICTURE = np.zeros((4, 4, 3), np.uint8)

Work = Callable[[int], object]  # what a part does at the packet of that time before anything else: take long, hang, fail


def nothing(t_ns: int) -> None:
    """Go on at once."""


# --- sources


class ListSource:
    """A file."""

    name, scripted, live = "list", False, False
    provides: frozenset[Provides] = frozenset(("audio", "vision_rows", "words"))

    def __init__(self, packets: list[Packet], fails: str = "", work: Work = nothing) -> None:
        self.problems: list[str] = []
        self._packets, self._fails, self._work = packets, fails, work

    def packets(self, clock: Clock) -> Iterator[Packet]:
        for packet in self._packets:
            self._work(packet.t_ns)
            yield packet
        if self._fails:
            raise RuntimeError(self._fails)

    def close(self) -> None:
        pass


class Device:
    """A camera or a microphone: hands on what it is given, until it is unplugged."""

    scripted, live = False, True

    def __init__(self, name: str, provides: Provides) -> None:
        self.name, self.provides = name, frozenset((provides,))
        self.problems: list[str] = []
        self.opened = 0  # how often
        self.reading = False  # whether what it is given now is handed on
        self._given: queue.SimpleQueue[Packet | None] = queue.SimpleQueue()
        self._gone = self._mute = self._closed = False

    def packets(self, clock: Clock) -> Iterator[Packet]:
        given: queue.SimpleQueue[Packet | None] = queue.SimpleQueue()
        self._given = given
        self.opened += 1
        try:
            while not self._closed:
                if self._gone:
                    raise SourceError(f"{self.name} is gone")
                self.reading = True
                packet = given.get()
                if packet:
                    yield packet
        finally:
            self.reading = False

    def give(self, packet: Packet) -> None:
        if not self._gone and not self._mute:
            self._given.put(packet)

    def unplug(self) -> None:
        self._gone = True
        self._given.put(None)

    def plug(self) -> None:
        self._gone = False

    def mute(self) -> None:
        """Stop bringing anything, without a word."""
        self._mute = True

    def unmute(self) -> None:
        self._mute = False

    def close(self) -> None:
        self._closed = True
        self._given.put(None)


# --- lanes


class Hearing(AudioLane):
    def __init__(self, work: Work = nothing) -> None:
        super().__init__()
        self._work = work
        self.end_ns = 0  # up to here it has been given sound

    def push(self, packet: AudioBlock | Gap, *, behind: bool = False) -> list[LaneUpdate]:
        self._work(packet.t_ns)
        updates = super().push(packet, behind=behind)
        self.end_ns = self._end_ns
        return updates


class Face:
    """Stands in for MediaPipe: sees a face in every picture, of which the first value is the time in seconds."""

    outline = None

    def __init__(self, work: Work = nothing) -> None:
        self._work = work
        self.seen: list[int] = []

    def push(self, t_ns: int, image: Any) -> FeatureRows:
        self._work(t_ns)
        self.seen.append(t_ns)
        return face(t_ns)

    def close(self) -> None:
        pass


class Dictation:
    """Stands in for a recogniser: hears the word w7 as window 7 begins."""

    name, skipped = "dictation", 0

    def __init__(self, work: Work = nothing) -> None:
        self._work = work
        self.behind: list[bool] = []
        self._end_ns = 0

    def push(self, chunk: VoiceChunk, *, behind: bool = False) -> Recognition:
        self._work(chunk.t_ns)
        self.behind.append(behind)
        seq = (chunk.end_ns - 1) // HOP
        word = Word(f"w{seq}", max(0, seq * HOP - 1), seq * HOP + 1)
        self._end_ns = chunk.end_ns
        return Recognition((word,) if chunk.t_ns <= seq * HOP else (), (), self._end_ns)

    def finish(self) -> Recognition:
        return Recognition((), (), self._end_ns)

    def close(self) -> None:
        pass


def face(t_ns: int) -> FeatureRows:
    values = np.full((1, len(FACE.columns)), t_ns / 1e9, np.float32)
    return FeatureRows(np.array([t_ns]), values, np.empty(0, np.int64))


# --- sinks


class ListSink:
    """Keeps what comes, for some of it after a while."""

    def __init__(self, pause: Callable[[Output], Awaitable[object]] | None = None, name: str = "list") -> None:
        self.name = name
        self.outputs: list[Output] = []
        self._pause = pause

    async def run(self, info: SessionInfo, outputs: Channel[Output]) -> None:
        async for output in outputs:
            if self._pause:
                await self._pause(output)
            self.outputs.append(output)

    @property
    def scores(self) -> list[Score]:
        return [output for output in self.outputs if isinstance(output, Score)]

    @property
    def finals(self) -> list[Score]:
        return [score for score in self.scores if score.kind == "final"]

    @property
    def provisional(self) -> list[Score]:
        return [score for score in self.scores if score.kind == "provisional"]

    @property
    def utterances(self) -> list[Utterance]:
        return [output for output in self.outputs if isinstance(output, Utterance)]

    def events(self, *kinds: str) -> list[Event]:
        return [output for output in self.outputs if isinstance(output, Event) and output.kind in kinds]

    def lasting(self) -> list[bytes]:
        """What does not depend on the run: the finals and the utterances, as they are published."""
        lines = [payload(output, about()) for output in self.outputs]
        return [lasting(line) for line in lines if line["kind"] in ("final", "utterance")]


def lasting(line: dict[str, Any]) -> bytes:
    """A final or an utterance without what tells of the run and not of the input."""
    line = {key: value for key, value in line.items() if key not in OF_THE_RUN}
    if "modalities" in line:
        text = {key: value for key, value in line["modalities"]["text"].items() if key != "lag_ms"}
        line["modalities"] = line["modalities"] | {"text": text}
    return json.dumps(line).encode()


OF_THE_RUN = {"rev", "revised_from", "t_end_unix_s", "latency_ms", "dropped"}


# --- the whole


def recording(seconds: float) -> list[Packet]:
    """A word, a row of a face and noise in each window."""
    end_ns = round(seconds * 1e9)
    packets: list[Packet] = [AudioBlock(t, NOISE) for t in range(0, end_ns, BLOCK_NS)]
    for t in range(0, end_ns, HOP):
        packets += [VisionRows(t + HOP, face(t + 1)), Transcript(t + HOP, (Word(f"w{t // HOP}", t + 5, t + HOP),))]
    return sorted(packets, key=lambda packet: packet.t_ns)


def engine(bucket: int = 1) -> Engine:
    shape = CausalMMLatchConfig(text=WIDTH, audio=pooled_width("audio"), vision=pooled_width("vision"), hidden=8, max_steps=20)
    return Engine(CausalMMLatch.untrained(shape), torch.device("cpu"), bucket=bucket)


def about(**unavailable: str) -> SessionInfo:
    return SessionInfo("s", "n", "list", False, False, "m", (), "cpu", 2.0, unavailable)  # type: ignore[arg-type]


def parts(
    *,
    audio: AudioLane | None = None,
    face: Face | None = None,
    words: Dictation | None = None,
    on: Engine | None = None,
    **unavailable: str,
) -> Parts:
    """Those of one session; without a face and a recogniser, for sources that bring rows and words."""
    return Parts(
        vision=None if "vision" in unavailable else VisionLane(face),  # type: ignore[arg-type]
        audio=audio or AudioLane(),
        text=TextLane(words),
        windows=Windows(hop_ns=HOP, gap_windows=4, max_windows=20),
        unavailable=unavailable,  # type: ignore[arg-type]
        notices=[],
        scorer=Scorer(on or engine(), LastWordEmbedder(), hop_ns=HOP, smooth_tau_s=2.0),  # type: ignore[arg-type]
        info=about(**unavailable),
    )


async def until(true: Callable[[], Any], within_s: float = 20.0) -> None:
    """Wait for something that must come; on a busy machine it takes its time."""
    async with asyncio.timeout(within_s):
        while not true():
            await asyncio.sleep(0.001)


def wait_for(true: Callable[[], Any], within_s: float = 20.0) -> None:
    """The same where no loop runs."""
    deadline_s = time.monotonic() + within_s
    while not true():
        assert time.monotonic() < deadline_s
        time.sleep(0.001)


def workers() -> set[threading.Thread]:
    """The threads that parts of a session run on."""
    return {thread for thread in threading.enumerate() if thread.daemon}


def video(t_ns: int) -> VideoFrame:
    return VideoFrame(t_ns, PICTURE)


def sound(t_ns: int) -> AudioBlock:
    return AudioBlock(t_ns, NOISE)
