"""Tries each part that a live session needs, and says how to mend what does not work: `python -m stream.doctor`."""

import argparse
import asyncio
import json
import math
import os
import secrets
import signal
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Literal

from extractors.errors import ExtractorError, Unavailable
from stream.errors import MMLatchError, UsageError

_TIMEOUT_S = 30.0  # for each part; loading a library for the first time takes some seconds
_LISTEN_NS = 1_000_000_000
_BROKER_S = 5.0
_STYLES = {"ok": "green", "not": "red", "skipped": "dim"}


@dataclass(frozen=True)
class Finding:
    """What came of one part.

    Attributes:
        part: Which, a key of `PARTS`.
        state: `ok` if it works, `not` if it does not, `skipped` if it was not tried.
        found: What was found; if it does not work, why and what to do. One line.
    """

    part: str
    state: Literal["ok", "not", "skipped"]
    found: str


class _Skipped(Exception):
    """The part was not asked for."""


# --- the parts: each returns what it found, or raises what is wrong


def _camera(options: argparse.Namespace) -> str:
    from stream.clock import PacedClock
    from stream.sources.camera import CameraSource

    source = CameraSource(options.camera)
    times_ns = []
    for frame in source.packets(PacedClock()):
        times_ns.append(frame.t_ns)
        height, width, _ = frame.image.shape
        if times_ns[-1] - times_ns[0] >= _LISTEN_NS:
            source.close()
    rate_hz = (len(times_ns) - 1) / (times_ns[-1] - times_ns[0]) * 1e9
    return f"{source.name}: {width}x{height}, {rate_hz:.0f} pictures a second"


def _microphone(options: argparse.Namespace) -> str:
    import numpy as np

    from stream.clock import PacedClock
    from stream.sources.microphone import MicrophoneSource

    source = MicrophoneSource(options.mic)
    clock = PacedClock()
    blocks = []
    for block in source.packets(clock):
        blocks.append(block.samples)
        if block.t_ns >= _LISTEN_NS:
            source.close()
    samples = np.concatenate(blocks) / 32768
    level = float(np.sqrt(np.mean(samples**2)))
    if not level:
        return f"{source.name}: opens, but digital silence; is it muted, or another one meant? python -m stream.devices"
    return f"{source.name}: {20 * math.log10(level):.0f} dB of full scale"


def _face(_: argparse.Namespace) -> str:
    import numpy as np

    from extractors.assets import FACE_LANDMARKER
    from extractors.face import FaceExtractor

    _on_this_machine(FACE_LANDMARKER.name)
    extractor = FaceExtractor()
    try:
        blank = np.zeros((480, 640, 3), np.uint8)
        extractor.push(0, blank)
        started_s = time.monotonic()
        extractor.push(40_000_000, blank)
        return f"MediaPipe runs, {(time.monotonic() - started_s) * 1000:.0f} ms for a blank picture"
    finally:
        extractor.close()


def _voice(_: argparse.Namespace) -> str:
    import numpy as np

    from extractors.sound import SAMPLE_RATE
    from extractors.vad import VoiceActivity

    voice = VoiceActivity()
    started_s = time.monotonic()
    voice.push(0, np.zeros(SAMPLE_RATE, np.int16))
    return f"Silero runs, {(time.monotonic() - started_s) * 1000:.0f} ms for a second of sound"


def _words(options: argparse.Namespace) -> str:
    from extractors import asr
    from stream.config import Config
    from stream.engine import resolve_device

    try:
        device = resolve_device(options.device).type
    except UsageError:  # told as the GPU's
        device = "cpu"
    asked = Config().asr
    recogniser, notice = asr.create("auto", model=asked.model, language=asked.language, device=device)
    recogniser.close()
    return f"--asr auto: {notice or recogniser.name}"


def _embeddings(_: argparse.Namespace) -> str:
    from extractors.assets import MINILM_VOCABULARY, MINILM_WEIGHTS
    from extractors.text import TextEmbedder

    _on_this_machine(MINILM_WEIGHTS.name, MINILM_VOCABULARY.name)
    embedder = TextEmbedder()
    embedder.embed(["hello"])
    started_s = time.monotonic()
    width = len(embedder.embed(["hello", "doctor"]))
    return f"MiniLM runs, {(time.monotonic() - started_s) * 1000:.0f} ms for a vector of {width}"


def _gpu(options: argparse.Namespace) -> str:
    import torch

    from stream.engine import resolve_device

    asked = options.device != "cpu"
    if not asked and not torch.cuda.is_available():
        raise _Skipped("not asked for, and none with a driver is here")
    device = resolve_device(options.device if asked else "cuda")
    torch.ones(1, device=device).add_(1).cpu()
    free, total = torch.cuda.mem_get_info(device)
    found = f"{torch.cuda.get_device_name(device)}, {free / 2**30:.1f} of {total / 2**30:.1f} GiB free"
    return found if asked else f"{found}; --device cuda makes use of it"


def _broker(options: argparse.Namespace) -> str:
    if options.mqtt is None:
        raise _Skipped("not asked for; --mqtt BROKER tries one")
    try:
        import aiomqtt

        from stream.broker import broker, explain, make_client
    except ImportError as error:
        raise Unavailable("aiomqtt is not installed; run: pip install 'mmlatch-live[mqtt]'") from error
    from stream.config import Config

    target = broker(Config().mqtt, options.mqtt)

    async def connect() -> None:
        async with make_client(target, f"doctor-{secrets.token_hex(4)}", timeout_s=_BROKER_S):
            pass

    started_s = time.monotonic()
    try:
        asyncio.run(connect())
    except aiomqtt.MqttError as error:
        raise Unavailable(explain(target, error)) from error
    return f"{target!r}: connected in {(time.monotonic() - started_s) * 1000:.0f} ms"


def _on_this_machine(*names: str) -> None:
    """Raise Unavailable unless these pretrained files are here: the doctor downloads nothing."""
    from extractors.assets import ASSETS, locate

    if absent := [name for name in names if locate(ASSETS[name]) is None]:
        raise Unavailable(
            f"{', '.join(absent)}: not on this machine; run: python -m extractors.assets fetch {' '.join(absent)}"
        )


PARTS: dict[str, Callable[[argparse.Namespace], str]] = {
    "camera": _camera,
    "microphone": _microphone,
    "face": _face,
    "voice": _voice,
    "words": _words,
    "embeddings": _embeddings,
    "GPU": _gpu,
    "broker": _broker,
}
# What each lane of a live session needs.
LANES = {
    "vision": ("camera", "face"),
    "audio": ("microphone", "voice"),
    "text": ("microphone", "voice", "words", "embeddings"),
}


# --- the examination


def examine(part: str, options: argparse.Namespace, timeout_s: float = _TIMEOUT_S) -> Finding:
    """Try one part on a thread of its own, so that neither an error nor a hanging driver ends the examination."""
    findings: list[Finding] = []

    def attempt() -> None:
        try:
            findings.append(Finding(part, "ok", PARTS[part](options)))
        except _Skipped as why:
            findings.append(Finding(part, "skipped", str(why)))
        except (MMLatchError, ExtractorError) as error:
            findings.append(Finding(part, "not", str(error)))
        except Exception as error:
            what = " ".join(f"{type(error).__name__}: {error}".split())
            findings.append(Finding(part, "not", f"{what}; this should not happen, please report it"))

    thread = threading.Thread(target=attempt, name=part, daemon=True)
    thread.start()
    thread.join(timeout_s)
    return findings[0] if findings else Finding(part, "not", f"no answer within {timeout_s:.0f} s; try it again, or restart")


def lanes(findings: list[Finding]) -> list[str]:
    """The lanes for which everything works."""
    works = {finding.part for finding in findings if finding.state == "ok"}
    return [lane for lane, needs in LANES.items() if works.issuperset(needs)]


def parser() -> argparse.ArgumentParser:
    """The command line."""
    options = argparse.ArgumentParser(
        prog="python -m stream.doctor",
        description="Tries each part that a live session needs, one after the other, and says how to mend what does not work.",
        epilog="Exit code 0: a live session can run, if only on some lanes. 1: it cannot.",
    )
    options.add_argument(
        "--camera", default="0", metavar="INDEX|PATH|URL", help="default 0; python -m stream.devices lists those there are"
    )
    options.add_argument("--mic", metavar="INDEX|NAME", help="default: the system's default")
    options.add_argument("--device", default="cpu", help="where the model shall run: cpu (default), cuda or cuda:N")
    options.add_argument("--mqtt", metavar="BROKER", help="an MQTT broker to try, as for python -m stream.live")
    options.add_argument("--json", action="store_true", help="the findings as JSON, at the end")
    return options


def main(arguments: list[str] | None = None) -> int:
    """Examine all parts; 0 if a live session can run on at least one lane and the device asked for."""
    options = parser().parse_args(arguments)
    findings = []
    for part in PARTS:
        findings.append(examine(part, options))
        if not options.json:
            _show(findings[-1])
    possible = lanes(findings)
    no_device = options.device != "cpu" and any(finding.part == "GPU" and finding.state == "not" for finding in findings)
    if options.json:
        report = {"parts": [asdict(finding) for finding in findings], "lanes": possible}
        sys.stdout.write(json.dumps(report, ensure_ascii=False, indent=2) + "\n")
    elif no_device:
        sys.stdout.write(f"no live session can run on {options.device}\n")
    elif possible:
        sys.stdout.write(f"a live session can run on: {', '.join(possible)}\n")
    else:
        sys.stdout.write("no live session can run; a file needs neither camera nor microphone: --source talk.mp4\n")
    return 0 if possible and not no_device else 1


def _show(finding: Finding) -> None:
    from rich.console import Console
    from rich.text import Text

    width = max(map(len, PARTS))
    line = Text.assemble((f"{finding.state:<7}", _STYLES[finding.state]), f"  {finding.part:<{width}}  {finding.found}")
    Console(highlight=False).print(line, soft_wrap=True)


if __name__ == "__main__":
    try:
        code = main()
    except KeyboardInterrupt:
        code = 128 + signal.SIGINT
    sys.stdout.flush()
    os._exit(code)  # a part that hangs would hold up the interpreter's own way out
