"""The analyzer: `python -m stream.live`.

Only what `--help` needs is imported at the top; the heavy libraries follow once the options are known to be right.
"""

import argparse
import contextlib
import re
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stream.errors import SourceError, UsageError
from stream.launch import add_options, run

if TYPE_CHECKING:
    from stream.config import Config
    from stream.parts import Input
    from stream.sources.source import Source

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
    add_options(options)
    options.add_argument(
        "--words", type=Path, metavar="FILE", help="the file's words instead of a recogniser's: CSV with word, start_s, end_s"
    )
    options.add_argument("--asr", metavar="ENGINE", help="auto, whisper, sphinx or none; short for --set asr.engine=ENGINE")
    return options


def main(arguments: list[str] | None = None) -> int:
    """Run sessions; 0 if all of the input was analysed, 1 if something went wrong on the way, 2 if nothing was started."""
    options = parser().parse_args(arguments)
    locations = options.source or ["camera+mic"]
    return run(
        options,
        partial(_open_inputs, locations, options.words),
        short={"asr.engine": options.asr},
        base=partial(_recorded, locations),
    )


def _recorded(locations: "Sequence[str]") -> "dict[str, Any]":
    """The configuration of a session that is replayed."""
    location = re.sub(r"^[A-Za-z0-9_-]{1,64}=", "", locations[0])
    if len(locations) > 1 or not _is_recording(location):
        return {}
    from stream.mcap import RecordingReader

    return RecordingReader(Path(location)).about.settings


def _open_inputs(
    locations: "Sequence[str]", words: Path | None, settings: "Config", closing: contextlib.ExitStack
) -> "list[Input]":
    from stream.parts import Input

    if words and len(locations) > 1:
        raise UsageError("--words belongs to one source; give one --source")
    inputs = []
    for session, location in _sessions(locations, settings.session):
        sources = open_sources(location)
        for source in sources:
            closing.callback(source.close)
        if words:
            sources = (_transcribed(sources, words),)
        inputs.append(Input(session, sources))
    return inputs


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


def _is_recording(location: str) -> bool:
    return Path(location).suffix == ".mcap" and "://" not in location


def open_sources(location: str) -> "tuple[Source, ...]":
    """The sources of that description: devices, a recording by its ending, else what FFmpeg makes of it.

    Raises:
        SourceError: It cannot be opened; of several devices, all that is wrong with them.
    """
    if re.match(r"(camera|mic)(?![^:+])", location):
        return _open_devices(re.split(r"\+(?=(?:camera|mic)(?![^:+]))", location))
    if location == "demo" or _is_recording(location):
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
    from stream.sources.source import without_secrets

    kinds = [description.partition(":")[0] for description in descriptions]
    if len(set(kinds)) < len(kinds):
        shown = "+".join(map(without_secrets, descriptions))
        raise UsageError(f"--source {shown}: one camera and one microphone a session; give --source again")
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


if __name__ == "__main__":
    sys.exit(main())
