"""What the commands that run sessions share: options, clock, wiring, signals, logging.

Only what `--help` needs is imported at the top; the heavy libraries follow once the options are known to be right.
"""

import argparse
import asyncio
import contextlib
import json
import logging
import os
import signal
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from extractors.errors import ExtractorError
from stream import __version__
from stream.errors import MMLatchError, UsageError
from stream.memory import give_back_what_is_free

if TYPE_CHECKING:
    from stream.clock import Clock
    from stream.config import Config
    from stream.outlets import Screen
    from stream.parts import Input, Parts
    from stream.recorder import Recorder
    from stream.session import Session

log = logging.getLogger("stream.launch")


def add_options(options: argparse.ArgumentParser) -> None:
    """The options of every such command."""
    options.add_argument("--device", default="cpu", help="where the model runs: cpu (default), cuda or cuda:N")
    options.add_argument(
        "--speed", default="1", metavar="X|max", help="times real time (default 1), or max: as fast as it goes"
    )
    options.add_argument(
        "--format",
        choices=("console", "jsonl", "none"),
        help="default: console on a terminal, else jsonl; none with --mqtt or --dashboard, for a service",
    )
    options.add_argument(
        "--mqtt",
        metavar="BROKER",
        help="publish to HOST[:PORT], mqtts://HOST[:PORT], or embedded, a broker of its own; short for --set mqtt.broker=…",
    )
    options.add_argument(
        "--dashboard",
        nargs="?",
        const="127.0.0.1:8765",
        metavar="HOST:PORT",
        help="serve the web page, at 127.0.0.1:8765 unless said otherwise; short for --set dashboard.address=…",
    )
    options.add_argument("--mqtt-required", action="store_true", help="end at once if the broker cannot be reached")
    options.add_argument("--home-assistant", action="store_true", help="with --mqtt: let Home Assistant discover the sessions")
    options.add_argument(
        "--model",
        metavar="NAME|FOLDER|HUB_ID",
        help="mmlatch (default), mfm, a checkpoint, or owner/name on the hub; short for --set model.checkpoint=…",
    )
    options.add_argument(
        "--record",
        type=Path,
        metavar="FILE",
        help="record to a new MCAP file, to be replayed with python -m stream.replay; short for --set record.file=…",
    )
    options.add_argument(
        "--record-level",
        choices=("scores", "features", "media"),
        help="what of it: scores alone; features, all that scores depend on, without picture, sound or words (default); media",
    )
    options.add_argument("--record-words", action="store_true", help="let a recording of features hold the words as well")
    options.add_argument("--config", type=Path, metavar="FILE", help="a YAML file with what differs from configs/default.yaml")
    options.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="one key of the configuration; repeatable"
    )
    options.add_argument(
        "--log-level", default="warning", choices=("debug", "info", "warning", "error"), help="what goes to stderr"
    )
    options.add_argument("--version", action="version", version=f"mmlatch-live {__version__}")


def run(
    options: argparse.Namespace,
    open_inputs: "Callable[[Config, contextlib.ExitStack], list[Input]]",
    *,
    short: dict[str, Any] | None = None,
    base: "Callable[[], dict[str, Any]]" = dict,
) -> int:
    """Run sessions.

    Args:
        options: Those of `add_options`.
        open_inputs: Opens what there is to analyse, to be closed by the stack.
        short: What other options say of the configuration, by key; None for what they do not say.
        base: The configuration to begin with, where it differs from the defaults.

    Returns:
        0 if all of the input was analysed, 1 if something went wrong on the way, 2 if nothing was started.
    """
    if options.format is None:
        options.format = "console" if sys.stdout.isatty() else "jsonl"
    log_to_stderr(options.log_level)
    give_back_what_is_free()
    before = signal.signal(signal.SIGINT, _leave_while_starting)
    try:
        problems = _run(options, open_inputs, short or {}, base)
    except (MMLatchError, ExtractorError) as error:
        log.error("%s", error)
        return 2
    except KeyboardInterrupt:  # after the sessions, while the parts were closed
        return 128 + signal.SIGINT
    finally:
        signal.signal(signal.SIGINT, before)
    return 1 if problems else 0


def _leave_while_starting(*_: object) -> None:
    """End the process: a KeyboardInterrupt would be taken for a failed import by a library that is just being loaded."""
    os.write(2, b"warning: stopped before anything was analysed\n")
    os._exit(0)


def _run(
    options: argparse.Namespace,
    open_inputs: "Callable[[Config, contextlib.ExitStack], list[Input]]",
    short: dict[str, Any],
    base: "Callable[[], dict[str, Any]]",
) -> list[str]:
    """Check what is cheap to check first, then load, then run; returns what went wrong on the way, which is logged already."""
    from stream import config, outlets

    clock = _clock(options.speed)
    short |= {
        "model.checkpoint": options.model,
        "dashboard.address": options.dashboard,
        "mqtt.broker": options.mqtt,
        "mqtt.required": options.mqtt_required or None,
        "mqtt.home_assistant": options.home_assistant or None,
        "record.file": str(options.record) if options.record else None,
        "record.level": options.record_level,
        "record.words": options.record_words or None,
    }
    settings = config.load(
        options.config,
        (
            *options.set,
            *(f"{key}={json.dumps(value, ensure_ascii=False)}" for key, value in short.items() if value is not None),
        ),
        base(),
    )
    outlets.check(options.format, settings)
    if settings.record.file is None and (options.record_level or options.record_words):
        raise UsageError("--record-level and --record-words need a file; add --record FILE")
    with contextlib.ExitStack() as closing:
        inputs = open_inputs(settings, closing)
        if options.speed != "1" and (live := [given for given in inputs if any(source.live for source in given.sources)]):
            raise UsageError(f"--speed {options.speed}: {live[0].name} is live; leave the speed at 1")

        from stream.engine import resolve_device
        from stream.parts import load

        loaded = load(settings, inputs, resolve_device(options.device))
        for parts in loaded:
            closing.callback(parts.close)
        begin_ns = min(parts.begin.seq for parts in loaded) * settings.windows.hop_ns
        return asyncio.run(
            _sessions_run(options.format, settings, list(zip(inputs, loaded, strict=True)), partial(clock, begin_ns))
        )


async def _sessions_run(
    screen: "Screen",
    settings: "Config",
    wired: "Sequence[tuple[Input, Parts]]",
    clock: "Callable[[], Clock]",
) -> list[str]:
    from stream.batcher import Batcher
    from stream.outlets import outlets
    from stream.session import Session

    batcher = Batcher()
    async with outlets(screen, settings, [parts.info for _, parts in wired]) as opened:
        now = clock()
        recorders = _recorders(settings, wired, now)
        sessions = [
            Session(
                given.sources,
                parts,
                batcher,
                now,
                opened.sinks,
                hop_ns=settings.windows.hop_ns,
                lateness_ns=settings.lateness.lanes_ns,
                recorder=recorder,
            )
            for (given, parts), recorder in zip(wired, recorders, strict=True)
        ]
        for attach in opened.attach:
            for session in sessions:
                attach(session)
        _stop_on_signals(sessions)
        lost = []  # of recordings
        try:
            ended = await asyncio.gather(*(session.run() for session in sessions))
        finally:
            await batcher.close()
            for recorder in recorders:
                if recorder and (problem := recorder.close()):
                    log.error("%s", problem)
                    lost.append(problem)
    return [*(problem for problems in ended for problem in problems), *lost]


def _recorders(settings: "Config", wired: "Sequence[tuple[Input, Parts]]", clock: "Clock") -> "list[Recorder | None]":
    """One for each session, if they are to be recorded; several sessions have a file each, with the session's name in it."""
    if settings.record.file is None:
        return [None] * len(wired)
    from stream.recorder import Recorder
    from stream.sources.media import MediaSource
    from stream.sources.recording import RecordingSource
    from stream.sources.words import TranscribedSource

    path = settings.record.file
    recorders: list[Recorder | None] = [
        Recorder(
            path if len(wired) == 1 else path.with_name(f"{path.stem}-{parts.info.session}{path.suffix}"),
            settings,
            parts.info,
            packets=given.provides,
            place=parts.scorer.place,
            start_unix_ns=clock.unix_ns(0) if clock.paced else None,
            begin=parts.begin,
            words=given.recording is None or "updates" not in given.provides or given.recording.about.words,
        )
        for given, parts in wired
    ]
    for (given, _), recorder in zip(wired, recorders, strict=True):
        if recorder and settings.record.level == "media":
            for source in given.sources:
                coded = source.source if isinstance(source, TranscribedSource) else source
                if isinstance(coded, MediaSource | RecordingSource):
                    coded.tap = recorder.coded
    return recorders


def _stop_on_signals(sessions: "Sequence[Session]") -> None:
    """The first Ctrl-C ends the input, and what was read is still scored; the second ends the process at once."""
    loop = asyncio.get_running_loop()

    def leave() -> None:
        for session in sessions:
            session.stop()
        log.warning("stopping after what has been read; press Ctrl-C again to leave now")
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, leave_now, number)

    def leave_now(number: int) -> None:
        if sys.stdout.isatty():
            os.write(sys.stdout.fileno(), b"\x1b[?25h\n")  # the display had hidden the cursor
        os._exit(128 + number)

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, leave)


def _clock(speed: str) -> "Callable[[int], Clock]":
    """What makes the session's clock when the session begins, from the session time that it then is."""
    from stream.clock import PacedClock, UnpacedClock

    if speed == "max":
        return lambda begin_ns: UnpacedClock()
    try:
        factor = float(speed)
    except ValueError:
        factor = 0.0
    if not 0.01 <= factor <= 1000:
        raise UsageError(f"--speed {speed}: expected max, or a number from 0.01 to 1000 (1 is real time)")
    return partial(PacedClock, factor)


def seconds_ns(option: str, seconds: str | None) -> int | None:
    """What an option says in seconds, as nanoseconds; raises UsageError if it does not."""
    if seconds is None:
        return None
    try:
        value = float(seconds)
    except ValueError:
        value = -1.0
    if not 0 <= value < 1e8:
        raise UsageError(f"{option} {seconds}: expected seconds, as in 12.5")
    return round(value * 1e9)


class _StderrHandler(logging.Handler):
    """Writes to what is the standard error at the moment: the console display takes it over, to print above itself."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write one line."""
        sys.stderr.write(self.format(record) + "\n")


def log_to_stderr(level: str) -> None:
    """Let what goes wrong be told there, a line each."""
    for number in (logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR):
        logging.addLevelName(number, logging.getLevelName(number).lower())
    logging.basicConfig(format="%(levelname)s: %(message)s", handlers=[_StderrHandler()])
    logging.getLogger("stream").setLevel(level.upper())
