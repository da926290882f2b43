"""Replays a recording: `python -m stream.replay FILE`.

Only what `--help` needs is imported at the top.
"""

import argparse
import contextlib
import re
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stream.errors import UsageError
from stream.launch import add_options, run, seconds_ns

if TYPE_CHECKING:
    from stream.config import Config
    from stream.parts import Input

_EXAMPLES = """\
examples:
  python -m stream.replay talk.mcap                          as it was, in real time, on the console
  python -m stream.replay talk.mcap --speed max --format jsonl > again.jsonl
  python -m stream.replay talk.mcap --model other/ --speed max --format jsonl > other.jsonl
  python -m stream.replay talk.mcap --from media             look at the pictures and hear the sound again
  python -m stream.replay talk.mcap --arrivals delay=3       what if words had come 3 s after they were spoken?
  python -m stream.replay talk.mcap --start 60 --end 90 --dashboard

The configuration is that of the recording; --config, --set and the other options change it. More: docs/recording.md.
"""


def parser() -> argparse.ArgumentParser:
    """The command line."""
    options = argparse.ArgumentParser(
        prog="python -m stream.replay",
        description="The same session again, to the last digit, or what it would have been.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    options.add_argument("file", type=Path, metavar="FILE", help="a recording (.mcap)")
    options.add_argument(
        "--from",
        dest="origin",
        choices=("features", "media"),
        help="what to begin with (default: features, where the recording has them)",
    )
    options.add_argument(
        "--arrivals",
        default="recorded",
        metavar="WHEN",
        help="recorded (default): things come as they came; ideal: as if nothing had been late; delay=SECONDS: words so late",
    )
    options.add_argument("--start", metavar="SECONDS", help="begin with the utterance that lasts then")
    options.add_argument("--end", metavar="SECONDS", help="end with the window before")
    add_options(options)
    return options


def main(arguments: list[str] | None = None) -> int:
    """Replay; returns as `python -m stream.live` does."""
    options = parser().parse_args(arguments)
    return run(options, partial(_open, options), base=partial(_recorded, options.file))


def _recorded(path: Path) -> "dict[str, Any]":
    from stream.mcap import RecordingReader

    return RecordingReader(path).about.settings


def _open(options: argparse.Namespace, settings: "Config", closing: contextlib.ExitStack) -> "list[Input]":
    from stream.parts import Input
    from stream.sources.recording import RecordingSource

    matched = re.fullmatch(r"(recorded|ideal)|delay=([0-9.]+)", options.arrivals)
    if matched is None:
        raise UsageError(f"--arrivals {options.arrivals}: expected recorded, ideal, or delay=SECONDS as in delay=2.5")
    start_ns, end_ns = seconds_ns("--start", options.start), seconds_ns("--end", options.end)
    if start_ns is not None and end_ns is not None and end_ns <= start_ns:
        raise UsageError(f"--end {options.end}: not after --start {options.start}")
    source = RecordingSource(
        options.file,
        origin=options.origin,
        arrivals="recorded" if matched[1] == "recorded" else "ideal",
        delay_ns=seconds_ns("--arrivals delay", matched[2]) or 0,
        start_ns=start_ns,
        end_ns=end_ns,
    )
    closing.callback(source.close)
    by_number = source.about.begin.seq or source.known is not None
    if matched[1] != "recorded" and by_number and settings.windows != source.about.config.windows:
        raise UsageError("windows are other than recorded; with --start, or where words were not recorded, leave them")
    return [Input(settings.session, (source,))]


if __name__ == "__main__":
    sys.exit(main())
