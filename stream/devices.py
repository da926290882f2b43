"""Which cameras and microphones there are, and what to type for each: `python -m stream.devices`."""

import argparse
import json
import shlex
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING

from stream.errors import SourceError

if TYPE_CHECKING:
    from stream.sources.microphone import Microphone

_NO_CAMERA = "none was found; plug one in, or give a network stream: --source camera:rtsp://HOST/PATH"


@dataclass(frozen=True)
class Device:
    """One camera or microphone.

    Attributes:
        source: What to give to `--source`.
        name: What the driver calls it.
        path: Of a camera, the device.
        default: It is taken if none is asked for.
        problem: Why it cannot be used now, and what to do; None if it can.
    """

    source: str
    name: str
    path: str | None
    default: bool
    problem: str | None


@dataclass(frozen=True)
class Listing:
    """All cameras, or all microphones.

    Attributes:
        complete: Whether it could be found out which there are.
        advice: If not, why; if there are none, what to do; else None.
    """

    devices: list[Device] = field(default_factory=list)
    complete: bool = True
    advice: str | None = None


def cameras() -> Listing:
    """The cameras of this machine."""
    from stream.sources import camera

    found = [Device(f"camera:{one.index}", one.name, one.path, one.index == 0, one.obstacle) for one in camera.cameras()]
    return Listing(found, advice=None if found else _NO_CAMERA)


def microphones() -> Listing:
    """The microphones of this machine."""
    from stream.sources import microphone

    try:
        there = microphone.microphones()
    except SourceError as error:
        return Listing(complete=False, advice=str(error))
    found = [Device(source_text(one, there), one.name, None, one.default, None) for one in there]
    return Listing(found, advice=None if found else microphone.NONE_FOUND)


def source_text(microphone: "Microphone", among: "Sequence[Microphone]") -> str:
    """What `--source` takes for a microphone: its name if that means no other; an index changes with what is plugged in."""
    from stream.sources.microphone import choose

    # With a + another device would begin, and digits are an index.
    if "+" not in microphone.name and not microphone.name.isdecimal():
        try:
            choose(microphone.name, among)
        except SourceError:
            pass
        else:
            return f"mic:{microphone.name}"
    return f"mic:{microphone.index}"


def main(arguments: list[str] | None = None) -> int:
    """List them; 0 if that worked, also where there are none."""
    options = argparse.ArgumentParser(
        prog="python -m stream.devices",
        description="Which cameras and microphones there are, and what to give to python -m stream.live for each.",
    )
    options.add_argument("--json", action="store_true", help="the same as JSON")
    as_json = options.parse_args(arguments).json
    listings = {"cameras": cameras(), "microphones": microphones()}
    if as_json:
        lines = [json.dumps({kind: asdict(found) for kind, found in listings.items()}, ensure_ascii=False, indent=2)]
    else:
        lines = [line for kind, found in listings.items() for line in (kind, *_lines(found))]
    sys.stdout.write("\n".join(lines) + "\n")
    return 0 if all(found.complete for found in listings.values()) else 1


def _lines(found: Listing) -> list[str]:
    texts = [f"--source {shlex.quote(device.source)}" for device in found.devices]
    width = max(map(len, texts), default=0)
    lines = []
    for text, device in zip(texts, found.devices, strict=True):
        about = ", ".join(part for part in (device.name, device.path, "the default" if device.default else None) if part)
        lines.append(f"  {text:<{width}}  {about}{f': {device.problem}' if device.problem else ''}")
    return [*lines, f"  {found.advice}"] if found.advice else lines


if __name__ == "__main__":
    sys.exit(main())
