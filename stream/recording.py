"""What can be done with recordings: `python -m stream.recording`.

Only what `--help` needs is imported at the top.
"""

import argparse
import logging
import os
import sys
from collections import Counter
from pathlib import Path

from extractors.errors import ExtractorError
from stream.errors import MMLatchError, UsageError
from stream.launch import log_to_stderr, seconds_ns

log = logging.getLogger("stream.recording")

_EXAMPLES = """\
examples:
  python -m stream.recording info talk.mcap
  python -m stream.recording list recordings/
  python -m stream.recording crop talk.mcap part.mcap --start 60 --end 90
  python -m stream.recording merge talk.mcap talk-0002.mcap talk-0003.mcap --out whole.mcap
  python -m stream.recording export talk.mcap --csv scores.csv --plot session.svg
  python -m stream.recording verify talk.mcap                is it whole, and does it replay to the last digit?
  python -m stream.recording repair talk.mcap whole.mcap     after the program was killed
  python -m stream.recording import talk.mp4 talk.mcap

Recordings are made with --record FILE, and replayed with python -m stream.replay. More: docs/recording.md.
"""


def parser() -> argparse.ArgumentParser:
    """The command line."""
    options = argparse.ArgumentParser(
        prog="python -m stream.recording",
        description="Look into recordings, and make others of them.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    verbs = options.add_subparsers(dest="verb", required=True, metavar="VERB")

    def verb(name: str, about: str) -> argparse.ArgumentParser:
        return verbs.add_parser(name, help=about, description=about[0].upper() + about[1:] + ".")

    one = verb("info", "what a recording holds")
    one.add_argument("file", type=Path, metavar="FILE")
    one = verb("list", "the recordings in a folder, a line each")
    one.add_argument("folder", type=Path, metavar="FOLDER")
    one = verb("crop", "a part that replays as the whole does")
    one.add_argument("file", type=Path, metavar="FILE")
    one.add_argument("out", type=Path, metavar="OUT")
    one.add_argument("--start", metavar="SECONDS", help="begin with the utterance that lasts then")
    one.add_argument("--end", metavar="SECONDS", help="end with the window before")
    one = verb("merge", "join the parts of one recording")
    one.add_argument("files", type=Path, nargs="+", metavar="FILE")
    one.add_argument("--out", type=Path, required=True, metavar="OUT")
    one = verb("export", "what others can open")
    one.add_argument("file", type=Path, metavar="FILE")
    one.add_argument("--csv", type=Path, metavar="OUT", help="the final scores as a table")
    one.add_argument("--parquet", type=Path, metavar="OUT", help="the same as Parquet")
    one.add_argument("--wav", type=Path, metavar="OUT", help="the sound")
    one.add_argument("--mp4", type=Path, metavar="OUT", help="the pictures with the score drawn in, and the sound")
    one.add_argument("--plot", type=Path, metavar="OUT", help="score, words, lanes and masks over time, as PNG or SVG")
    one = verb("verify", "whether it is whole and replays to the last digit")
    one.add_argument("file", type=Path, metavar="FILE")
    one.add_argument("--from", dest="origin", choices=("features", "media"), help="as in python -m stream.replay")
    one.add_argument("--device", default="cpu", help="where the model runs: cpu (default), cuda or cuda:N")
    one = verb("repair", "all that can be read, as a whole file")
    one.add_argument("file", type=Path, metavar="FILE")
    one.add_argument("out", type=Path, metavar="OUT")
    one = verb("import", "a recording of a media file")
    one.add_argument("file", metavar="FILE")
    one.add_argument("out", type=Path, metavar="OUT")
    return options


def main(arguments: list[str] | None = None) -> int:
    """Do it; 0 if all is well, 1 if something is wrong with a recording, 2 if it could not be begun."""
    options = parser().parse_args(arguments)
    log_to_stderr("warning")
    does = {
        "info": _info,
        "list": _list,
        "crop": _crop,
        "merge": _merge,
        "export": _export,
        "verify": _verify,
        "repair": _repair,
        "import": _import,
    }
    try:
        problems = does[options.verb](options)
        sys.stdout.flush()
    except BrokenPipeError:  # who reads has had enough
        # The interpreter flushes the standard output once more at its end; that must not fail again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (MMLatchError, ExtractorError) as error:
        log.error("%s", error)
        return 2
    for problem in problems:
        log.error("%s", problem)
    return 1 if problems else 0


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")


def _info(options: argparse.Namespace) -> list[str]:
    from stream.mcap import RecordingReader
    from stream.messages import Event, Score

    reader = RecordingReader(options.file)
    about = reader.about
    counts: Counter[str] = Counter()
    events: Counter[str] = Counter()
    finals: list[float] = []
    last_ns = begin_ns = about.begin.seq * about.config.windows.hop_ns
    for record in reader.records():
        counts[record.kind.topic] += 1
        last_ns = max(last_ns, record.t_ns)
        if isinstance(record.value, Score) and record.value.kind == "final":
            finals.append(record.value.sentiment)
            last_ns = max(last_ns, record.value.t_end_ns)
        elif isinstance(record.value, Event) and record.kind.topic == "event":
            events[f"{record.value.part} {record.value.kind}"] += record.value.count
    minutes = (last_ns - begin_ns) / 60e9
    size = options.file.stat().st_size
    session = about.session
    _say(f"{options.file}: {about.name}" + (", a script" if about.scripted else ""))
    if session:
        _say(f"  session   {session.session} on {session.node}, part {about.part}, with {session.model} on {session.device}")
    words = "with words" if about.words else "without words"
    _say(f"  level     {about.level}, {words}" + (f"; packets: {', '.join(about.packets)}" if about.packets else ""))
    _say(f"  time      {begin_ns / 1e9:.1f} s to {last_ns / 1e9:.1f} s, {minutes:.1f} min")
    if about.start_unix_ns:
        import datetime

        start = datetime.datetime.fromtimestamp((about.start_unix_ns + begin_ns) / 1e9, datetime.UTC)
        _say(f"  recorded  {start:%Y-%m-%d %H:%M:%S} UTC")
    _say(f"  size      {size / 1e6:.2f} MB" + (f", {size / 1e6 / minutes:.2f} MB a minute" if minutes else ""))
    if finals:
        mean = sum(finals) / len(finals)
        _say(f"  scores    {len(finals)} final, {counts['score'] - len(finals)} provisional; mean {mean:+.2f}")
    if session and session.unavailable:
        for lane, why in session.unavailable.items():
            _say(f"  {lane:9} unavailable: {why}")
    for what, count in sorted(events.items()):
        _say(f"  event     {what}: {count}")
    _say("  records   " + ", ".join(f"{topic} {count}" for topic, count in sorted(counts.items())))
    for name, tag in about.contracts.items():
        _say(f"  contract  {name}: {tag}")
    _say("  versions  " + ", ".join(f"{name} {number}" for name, number in about.versions.items()))
    return [reader.problem] if reader.problem else []


def _list(options: argparse.Namespace) -> list[str]:
    from stream.errors import SourceError
    from stream.mcap import RecordingReader

    if not options.folder.is_dir():
        raise UsageError(f"{options.folder}: no such folder; give one with recordings in it")
    problems = []
    for path in sorted(options.folder.glob("*.mcap")):
        try:
            reader = RecordingReader(path)
        except SourceError as error:
            problems.append(str(error))
            continue
        last_ns = 0
        for record in reader.records(frozenset({"score", "audio", "words"})):
            last_ns = record.t_ns
        about = reader.about
        state = "" if reader.ended else "  (incomplete)"
        session = about.session.session if about.session else "-"
        size = path.stat().st_size / 1e6
        _say(f"{path.name:32} {session:12} {about.level:8} {last_ns / 1e9:8.1f} s {size:8.2f} MB  {about.name}{state}")
    return problems


def _crop(options: argparse.Namespace) -> list[str]:
    from stream.editing import crop

    start_ns, end_ns = seconds_ns("--start", options.start), seconds_ns("--end", options.end)
    if start_ns is not None and end_ns is not None and end_ns <= start_ns:
        raise UsageError(f"--end {options.end}: not after --start {options.start}")
    about = crop(options.file, options.out, start_ns, end_ns)
    _say(f"{options.out}: from {about.begin.seq * about.config.windows.hop_ns / 1e9:.2f} s on")
    return []


def _merge(options: argparse.Namespace) -> list[str]:
    from stream.editing import merge

    merge(options.files, options.out)
    return []


def _export(options: argparse.Namespace) -> list[str]:
    from stream import export
    from stream.mcap import RecordingReader

    ways = {
        "csv": export.to_csv,
        "parquet": export.to_parquet,
        "wav": export.to_wav,
        "mp4": export.to_mp4,
        "plot": export.to_plot,
    }
    asked = {way: getattr(options, way) for way in ways if getattr(options, way)}
    if not asked:
        raise UsageError(f"export: say what, one or more of {', '.join(f'--{way} OUT' for way in ways)}")
    for way, endings in {"mp4": (".mp4",), "plot": (".png", ".svg")}.items():
        if way in asked and asked[way].suffix not in endings:
            raise UsageError(f"--{way} {asked[way]}: expected a name that ends in {' or '.join(endings)}")
    reader = RecordingReader(options.file)
    for way, out in asked.items():
        try:
            ways[way](reader, out)
        except FileExistsError as error:
            raise UsageError(f"--{way} {out}: is there already; give another name") from error
        except OSError as error:
            raise UsageError(f"--{way} {out}: cannot be written ({error.strerror}); check the folder") from error
        _say(str(out))
    return [reader.problem] if reader.problem else []


def _verify(options: argparse.Namespace) -> list[str]:
    from stream.engine import resolve_device
    from stream.verifying import verify

    found = verify(options.file, options.origin, resolve_device(options.device))
    if any(found.same):
        _say(f"{options.file}: {found.same[0]} final and {found.same[1]} provisional scores replay to the last digit")
    elif not found.problem:
        _say(f"{options.file}: whole; there are no scores in it with what they depend on, so nothing was replayed")
    return [found.problem] if found.problem else []


def _repair(options: argparse.Namespace) -> list[str]:
    from stream.editing import repair

    count, problem = repair(options.file, options.out)
    _say(f"{options.out}: {count} records" + ("" if problem else "; nothing was wrong"))
    if problem:
        log.warning("%s", problem)
    return []


def _import(options: argparse.Namespace) -> list[str]:
    from stream.editing import import_media

    return import_media(options.file, options.out)


if __name__ == "__main__":
    sys.exit(main())
