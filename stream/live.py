"""The analyzer: `python -m stream.live`.

Only what `--help` needs is imported at the top; the heavy libraries follow once the options are known to be right.
"""

import argparse
import asyncio
import contextlib
import json
import logging
import os
import re
import signal
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from extractors.errors import ExtractorError
from stream import __version__
from stream.errors import MMLatchError, SourceError, UsageError

if TYPE_CHECKING:
    from stream.clock import Clock
    from stream.config import Config
    from stream.outlets import Screen
    from stream.parts import Parts
    from stream.session import Session
    from stream.sources.source import Source

log = logging.getLogger("stream.live")

_EXAMPLES = """\
examples:
  python -m stream.live                                      the default camera and the default microphone
  python -m stream.live --source camera:1+mic:USB            others, as python -m stream.devices lists them
  python -m stream.live --source demo                        the bundled, scripted session
  python -m stream.live --source talk.mp4                    a file, in real time, on the console
  python -m stream.live --source talk.mp4 --speed max --format jsonl > scores.jsonl
  python -m stream.live --source door=camera:rtsp://door/1 --source hall=camera:rtsp://hall/1+mic --device cuda
  python -m stream.live --mqtt homeassistant.local --home-assistant --format none

sources:
  demo, a media file or URL, a recording (.mcap)             read to its end; nothing is left out, it waits if need be
  camera[:INDEX|PATH|URL], mic[:INDEX|NAME], or both with +  live, until Ctrl-C
  NAME= before a source names its session; several sources run side by side

Which cameras and microphones there are: python -m stream.devices. What works on this machine: python -m stream.doctor.
User and password of a broker: MMLATCH_MQTT_USERNAME and MMLATCH_MQTT_PASSWORD in the environment. More: docs/mqtt.md.
Every key of the configuration is documented in configs/default.yaml. Pretrained files: python -m extractors.assets list
"""


def parser() -> argparse.ArgumentParser:
    """The command line."""
    options = argparse.ArgumentParser(
        prog="python -m stream.live",
        description="Sentiment from face, voice and words, four times a second.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    options.add_argument(
        "--source",
        action="append",
        metavar="[NAME=]SOURCE",
        help="what to analyse, see below; repeatable (default: camera+mic)",
    )
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
        metavar="FOLDER|HUB_ID",
        help="a checkpoint, or owner/name on the hub, in place of the one inside; short for --set model.checkpoint=…",
    )
    options.add_argument(
        "--words", type=Path, metavar="FILE", help="the file's words instead of a recogniser's: CSV with word, start_s, end_s"
    )
    options.add_argument("--asr", metavar="ENGINE", help="auto, whisper, sphinx or none; short for --set asr.engine=ENGINE")
    options.add_argument("--config", type=Path, metavar="FILE", help="a YAML file with what differs from configs/default.yaml")
    options.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="one key of the configuration; repeatable"
    )
    options.add_argument(
        "--log-level", default="warning", choices=("debug", "info", "warning", "error"), help="what goes to stderr"
    )
    options.add_argument("--version", action="version", version=f"mmlatch-live {__version__}")
    return options


def main(arguments: list[str] | None = None) -> int:
    """Run sessions; 0 if all of the input was analysed, 1 if something went wrong on the way, 2 if nothing was started."""
    options = parser().parse_args(arguments)
    if options.format is None:
        options.format = "console" if sys.stdout.isatty() else "jsonl"
    _log_to_stderr(options.log_level)
    before = signal.signal(signal.SIGINT, _leave_while_starting)
    try:
        problems = _run(options)
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


def _run(options: argparse.Namespace) -> list[str]:
    """Check what is cheap to check first, then load, then run; returns what went wrong on the way, which is logged already."""
    from stream import config, outlets

    clock = _clock(options.speed)
    short = {
        "asr.engine": options.asr,
        "model.checkpoint": options.model,
        "dashboard.address": options.dashboard,
        "mqtt.broker": options.mqtt,
        "mqtt.required": options.mqtt_required or None,
        "mqtt.home_assistant": options.home_assistant or None,
    }
    settings = config.load(
        options.config,
        (
            *options.set,
            *(f"{key}={json.dumps(value, ensure_ascii=False)}" for key, value in short.items() if value is not None),
        ),
    )
    outlets.check(options.format, settings)
    with contextlib.ExitStack() as closing:
        inputs = []
        locations = options.source or ["camera+mic"]
        if options.words and len(locations) > 1:
            raise UsageError("--words belongs to one source; give one --source")
        for session, location in _sessions(locations, settings.session):
            sources = open_sources(location)
            for source in sources:
                closing.callback(source.close)
            if options.words:
                sources = (_transcribed(sources, options.words),)
            if options.speed != "1" and any(source.live for source in sources):
                raise UsageError(f"--speed {options.speed}: {location} is live; leave the speed at 1")
            inputs.append((session, sources))

        from stream.engine import resolve_device
        from stream.parts import Input, load

        loaded = load(settings, [Input(session, sources) for session, sources in inputs], resolve_device(options.device))
        for parts in loaded:
            closing.callback(parts.close)
        wired = [(sources, parts) for (_, sources), parts in zip(inputs, loaded, strict=True)]
        return asyncio.run(_sessions_run(options.format, settings, wired, clock))


async def _sessions_run(
    screen: "Screen",
    settings: "Config",
    wired: "Sequence[tuple[Sequence[Source], Parts]]",
    clock: "Callable[[], Clock]",
) -> list[str]:
    from stream.batcher import Batcher
    from stream.outlets import outlets
    from stream.session import Session

    batcher = Batcher()
    async with outlets(screen, settings, [parts.info for _, parts in wired]) as opened:
        now = clock()
        sessions = [
            Session(
                sources,
                parts,
                batcher,
                now,
                opened.sinks,
                hop_ns=settings.windows.hop_ns,
                lateness_ns=settings.lateness.lanes_ns,
            )
            for sources, parts in wired
        ]
        for attach in opened.attach:
            for session in sessions:
                attach(session)
        _stop_on_signals(sessions)
        try:
            ended = await asyncio.gather(*(session.run() for session in sessions))
        finally:
            await batcher.close()
    return [problem for problems in ended for problem in problems]


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


def _sessions(locations: "Sequence[str]", name: str) -> list[tuple[str, str]]:
    """The name of each session and its source.

    Raises:
        UsageError: Two have the same name.
    """
    found = []
    for number, location in enumerate(locations, start=1):
        named = re.fullmatch(r"([A-Za-z0-9_-]{1,64})=(.+)", location)
        default = name if len(locations) == 1 else f"{name}-{number}"
        found.append((named[1], named[2]) if named else (default, location))
    names = [session for session, _ in found]
    if twice := {session for session in names if names.count(session) > 1}:
        raise UsageError(f"--source: two sessions named {', '.join(sorted(twice))}; put another NAME= before one of them")
    return found


def open_sources(location: str) -> "tuple[Source, ...]":
    """The sources of that description: devices, a recording by its ending, else what FFmpeg makes of it.

    Raises:
        SourceError: It cannot be opened; of several devices, all that is wrong with them.
    """
    if re.match(r"(camera|mic)(?![^:+])", location):
        return _open_devices(re.split(r"\+(?=(?:camera|mic)(?![^:+]))", location))
    if location == "demo" or Path(location).suffix == ".mcap":
        from stream.sources.recording import RecordingSource

        return (RecordingSource(Path(__file__).with_name("demo.mcap") if location == "demo" else Path(location)),)
    from stream.sources.media import MediaSource

    return (MediaSource(location),)


def _transcribed(sources: "tuple[Source, ...]", path: Path) -> "Source":
    from stream.sources.words import TranscribedSource

    return TranscribedSource(sources[0], path)


def _open_devices(descriptions: "Sequence[str]") -> "tuple[Source, ...]":
    from stream.sources.camera import CameraSource
    from stream.sources.microphone import MicrophoneSource

    kinds = [description.partition(":")[0] for description in descriptions]
    if len(set(kinds)) < len(kinds):
        raise UsageError(f"--source {'+'.join(descriptions)}: one camera and one microphone a session; give --source again")
    opened: list[Source] = []
    wrong = []
    for description in descriptions:
        kind, _, which = description.partition(":")
        try:
            if kind == "camera":
                opened.append(CameraSource(int(which) if which.isdecimal() else which or 0))
            else:
                opened.append(MicrophoneSource(which or None))
        except SourceError as error:
            wrong.append(str(error))
    if wrong:
        for source in opened:
            source.close()
        raise SourceError("; ".join(wrong))
    return tuple(opened)


def _clock(speed: str) -> "Callable[[], Clock]":
    """What makes the session's clock when the session begins."""
    from stream.clock import PacedClock, UnpacedClock

    if speed == "max":
        return UnpacedClock
    try:
        factor = float(speed)
    except ValueError:
        factor = 0.0
    if not 0.01 <= factor <= 1000:
        raise UsageError(f"--speed {speed}: expected max, or a number from 0.01 to 1000 (1 is real time)")
    return partial(PacedClock, factor)


class _StderrHandler(logging.Handler):
    """Writes to what is the standard error at the moment: the console display takes it over, to print above itself."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write one line."""
        sys.stderr.write(self.format(record) + "\n")


def _log_to_stderr(level: str) -> None:
    for number in (logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR):
        logging.addLevelName(number, logging.getLevelName(number).lower())
    logging.basicConfig(format="%(levelname)s: %(message)s", handlers=[_StderrHandler()])
    logging.getLogger("stream").setLevel(level.upper())


if __name__ == "__main__":
    sys.exit(main())
