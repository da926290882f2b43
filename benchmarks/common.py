"""What the benchmarks share: their options, finding and reading sound, and printing tables."""

import argparse
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt
import torch
from torchaudio.functional import resample

from extractors.sound import SAMPLE_RATE

SHARED_VARIABLE = "MMLATCH_SHARED"
ACTORS = range(1, 21)  # of RAVDESS; 21 to 24 stay untouched for later tests
_DEFAULT_SHARED = Path(__file__).resolve().parents[2] / "shared"


@dataclass(frozen=True)
class Acted:
    """One RAVDESS recording, with the fields of its file's name that the benchmarks need."""

    path: Path
    emotion: str
    statement: str
    repetition: str
    actor: int


def options(description: str | None) -> argparse.Namespace:
    """Read the command line: `data`, the folder with the corpora, and `json`, where to write the figures, or None."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--data",
        metavar="FOLDER",
        type=Path,
        default=Path(os.environ.get(SHARED_VARIABLE) or _DEFAULT_SHARED),
        help=f"the folder that holds data/ and speech/ (default: ${SHARED_VARIABLE}, else shared/ beside the repository)",
    )
    parser.add_argument("--json", metavar="FILE", type=Path, help="also write the figures to this file")
    # One thread gives the same times and the same bits whatever else the machine does.
    torch.set_num_threads(1)
    return parser.parse_args()


def need(path: Path) -> Path:
    """The path, if it is there; else the program ends with one line."""
    if not path.exists():
        sys.exit(f"{path} is missing; name the folder that holds the data with --data or {SHARED_VARIABLE}")
    return path


def ravdess(data: Path) -> list[Acted]:
    """The recordings of `ACTORS`, in the order of their names; the program ends with one line if there are none."""
    folder = need(data / "data" / "ravdess")
    found = []
    for path in sorted(folder.glob("*.flac")):
        _modality, _channel, emotion, _intensity, statement, repetition, actor = path.stem.split("-")
        if int(actor) in ACTORS:
            found.append(Acted(path, emotion, statement, repetition, int(actor)))
    return found or sys.exit(f"{folder} holds no recordings (*.flac)")


def read_speech(path: Path) -> npt.NDArray[np.int16]:
    """A sound file's samples as 16 kHz mono int16, shape (N,)."""
    with av.open(path) as container:
        mono = av.AudioResampler("s16", "mono")
        frames = [part for frame in container.decode(audio=0) for part in mono.resample(frame)]
        rate = frames[0].sample_rate
    samples = np.concatenate([frame.to_ndarray()[0] for frame in frames])
    if rate == SAMPLE_RATE:
        return samples
    resampled = resample(torch.from_numpy(samples.astype(np.float32)), rate, SAMPLE_RATE)
    return resampled.round().clamp(-32768, 32767).to(torch.int16).numpy()


def show(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table in Markdown, as docs/benchmarks.md holds it."""
    widths = [max(len(row[column]) for row in (header, *rows)) for column in range(len(header))]
    for row in (header, ["-" * width for width in widths], *rows):
        print("| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |")


def write(path: Path | None, figures: Any) -> None:
    """Write the figures as JSON, if a file is asked for."""
    if path is not None:
        path.write_text(json.dumps(figures, indent=2) + "\n")
