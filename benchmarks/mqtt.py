"""Does MQTT keep up, and does an outage stay outside: many sessions through one Mosquitto, and one killed for a minute.

    python -m benchmarks.mqtt --sessions 50 --minutes 5 --outage 60 --data FOLDER --json FILE

First that many sessions, each with a provisional and a final score four times a second, through one client and one broker of
this machine to another process that listens. Then one real session (a clip over and over, as a camera and a microphone would
bring it, without words) whose broker is killed in the middle: its latency meanwhile beside that before, and what has arrived in
the end.
"""

import argparse
import asyncio
import contextlib
import json
import logging
import multiprocessing
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import AsyncIterator
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import paho.mqtt.client as paho
import torch

from benchmarks.common import Figure, corpus_parser, need, show_figures, write
from benchmarks.live import LoopedClip, Probe
from stream.batcher import Batcher
from stream.broker import Broker
from stream.channel import Channel
from stream.clock import PacedClock
from stream.config import AsrConfig, Config, MqttConfig
from stream.messages import Output, Score, SessionInfo
from stream.parts import Input, load
from stream.session import Session
from stream.sinks.mqtt import Mqtt
from stream.sinks.statistics import Statistics

HOP_S = 0.25


class Mosquitto:
    """The broker, on a port of its own."""

    def __init__(self, folder: Path) -> None:
        """Start it."""
        found = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin")
        if not found:
            sys.exit("mosquitto is not installed; on Debian: apt-get install mosquitto")
        with socket.create_server(("127.0.0.1", 0)) as server:
            self.port = int(server.getsockname()[1])
        settings = folder / "mosquitto.conf"
        settings.write_text(f"listener {self.port} 127.0.0.1\nallow_anonymous true\nlog_dest none\nuser root\n")
        self._command = [found, "-c", str(settings)]
        self.start()

    def start(self) -> None:
        """Start it, again or for the first time."""
        self._process = subprocess.Popen(self._command, stderr=subprocess.DEVNULL)
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=0.2):
                return
            time.sleep(0.02)

    def kill(self) -> None:
        """SIGKILL."""
        self._process.kill()
        self._process.wait()


def listen(port: int, told: Connection) -> None:
    """In another process: note each final score that comes, (session, seq, delay in milliseconds), until asked for them."""
    found: list[tuple[str, int, float]] = []
    client = paho.Client(paho.CallbackAPIVersion.VERSION2)
    client.reconnect_delay_set(0.02, 0.02)  # type: ignore[arg-type]
    client.on_connect = lambda *_: client.subscribe("sentiment/+/+/score/final", 1)
    client.on_subscribe = lambda *_: told.send("subscribed")

    def heard(_client: object, _userdata: object, message: paho.MQTTMessage) -> None:
        score = json.loads(message.payload)
        found.append((score["session"], score["seq"], 1e3 * (time.time() - (score["t_end_unix_s"] or 0.0))))

    client.on_message = heard
    client.connect("127.0.0.1", port)
    client.loop_start()
    told.recv()
    told.send(found)


class Listener:
    """The other process."""

    def __init__(self, port: int) -> None:
        """Start it; it listens when this returns."""
        context = multiprocessing.get_context("spawn")
        self._told, theirs = context.Pipe()
        self._process = context.Process(target=listen, args=(port, theirs), daemon=True)
        self._process.start()
        self._told.recv()

    def wait(self) -> None:
        """Until it listens again."""
        self._told.recv()

    def end(self) -> list[tuple[str, int, float]]:
        """What it has heard."""
        self._told.send("end")
        found = self._told.recv()
        self._process.join()
        return found


@contextlib.asynccontextmanager
async def publishing(port: int) -> AsyncIterator[Mqtt]:
    """A sink of its own node."""
    sink = Mqtt(Broker("127.0.0.1", port), MqttConfig(), "benchmark", about={}, statistics=Statistics())
    async with sink:
        if failure := await sink.link.first_failure():
            sys.exit(failure)
        yield sink


def example() -> Score:
    """A score as the demo gives it."""
    from stream.messages import LANES, LaneScore

    lanes = {lane: LaneScore("ok", None, 40_000_000, 0.5) for lane in LANES}
    return Score("final", 0, 1, 0, 0, 0.4, 0.8, 0.3, lanes, (), 4, 0.5, 0.3, t_end_unix_ns=0)


async def many(sessions: int, seconds: float, port: int) -> tuple[int, Mqtt]:
    """Sessions at four times a second; returns how many final scores there were, and the sink."""
    one, windows = example(), round(seconds / HOP_S)

    async def session(number: int, sink: Mqtt) -> None:
        info = SessionInfo(f"s{number}", "benchmark", "none", True, False, "model@0", ("a",), "cpu", 2.0)
        outputs: Channel[Output] = Channel(64)
        running = asyncio.create_task(sink.run(info, outputs))
        begun_s = time.monotonic() + number / sessions * HOP_S
        for seq in range(windows):
            await asyncio.sleep(max(0.0, begun_s + seq * HOP_S - time.monotonic()))
            now = replace(one, seq=seq, t_start_ns=seq, t_end_ns=seq + 1, t_end_unix_ns=time.time_ns())
            await outputs.put(replace(now, kind="provisional"))
            await outputs.put(now)
        outputs.close()
        await running

    async with publishing(port) as sink:
        await asyncio.gather(*(session(number, sink) for number in range(sessions)))
    return sessions * windows, sink


async def outage(clip: Path, seconds: float, broker: Mosquitto, listener: Listener) -> tuple[list[float], list[float], int]:
    """A session whose broker is away in the middle third; provisional latencies before and meanwhile, and its final scores."""
    config = Config(asr=AsrConfig(engine="none"))
    source = LoopedClip(clip)
    (parts,) = load(config, [Input("live", (source,))], torch.device("cpu"))
    batcher, probe = Batcher(), Probe()
    async with publishing(broker.port) as sink:
        sinks = [sink, probe]
        session = Session([source], parts, batcher, PacedClock(), sinks, hop_ns=config.windows.hop_ns)
        running = asyncio.create_task(session.run())
        await asyncio.sleep(5.0)  # to warm up
        marks = []
        for action in (None, broker.kill, broker.start):
            if action:
                await asyncio.to_thread(action)
            marks.append(len(probe.provisional_ms))
            await asyncio.sleep(seconds)
        await asyncio.to_thread(listener.wait)
        session.stop()
        await running
    await batcher.close()
    parts.close()
    latencies = list(probe.provisional_ms)
    return latencies[marks[0] : marks[1]], latencies[marks[1] : marks[2]], len(probe.final_ms)


def main() -> None:
    """Measure, print and write."""
    options = corpus_parser(__doc__)
    options.add_argument("--sessions", type=int, default=50, help="how many side by side (default 50)")
    options.add_argument("--minutes", type=float, default=5.0, help="for how long (default 5)")
    options.add_argument("--outage", type=float, default=60.0, help="how many seconds the broker is away (default 60)")
    arguments: argparse.Namespace = options.parse_args()
    clip = need(arguments.data / "clips" / "talk2.mp4")
    logging.getLogger("stream").setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory() as folder:
        broker = Mosquitto(Path(folder))
        listener = Listener(broker.port)
        sent, sink = asyncio.run(many(arguments.sessions, arguments.minutes * 60, broker.port))
        time.sleep(1.0)
        heard = listener.end()
        delays = np.array([delay for _, _, delay in heard])
        acknowledged = np.array(sink.link.figures.publish_ms)
        found = [
            Figure.against(
                sent, f"{arguments.sessions} sessions: final scores that arrived; baseline: sent", len(heard), "scores"
            ),
            Figure("in order, of them", sum(in_order(heard).values()), "scores"),
            Figure("until acknowledged, 50th percentile of the last thousand", float(np.percentile(acknowledged, 50)), "ms"),
            Figure("until acknowledged, 99th percentile of the last thousand", float(np.percentile(acknowledged, 99)), "ms"),
            Figure("from score to the other process, 50th percentile", float(np.percentile(delays, 50)), "ms"),
            Figure("from score to the other process, 99th percentile", float(np.percentile(delays, 99)), "ms"),
        ]
        listener = Listener(broker.port)
        before, meanwhile, finals = asyncio.run(outage(clip, arguments.outage, broker, listener))
        time.sleep(1.0)
        heard = listener.end()
        broker.kill()
    found += [
        Figure.against(
            float(np.percentile(before, 95)),
            f"broker away for {arguments.outage:g} s: provisional score's latency, 95th percentile; baseline: before",
            float(np.percentile(meanwhile, 95)),
            "ms",
        ),
        Figure.against(finals, "final scores that arrived in the end; baseline: given", len(heard), "scores"),
        Figure("in order, of them", sum(in_order(heard).values()), "scores"),
    ]
    show_figures(found)
    write(arguments.json, found)


def in_order(heard: list[tuple[str, int, float]]) -> dict[str, int]:
    """For each session, how many scores came exactly one after the one before."""
    expected: dict[str, int] = defaultdict(int)
    found: dict[str, int] = defaultdict(int)
    for session, seq, _ in heard:
        found[session] += seq == expected[session]
        expected[session] = seq + 1
    return found


if __name__ == "__main__":
    main()
