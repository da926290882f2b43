"""What the benchmarks share: their options, figures, tables."""

import argparse
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

SHARED_VARIABLE = "MMLATCH_SHARED"
_DEFAULT_SHARED = Path(__file__).resolve().parents[2] / "shared"


@dataclass(frozen=True)
class Figure:
    """A measured value beside the baseline of the same run.

    Attributes:
        name: What was measured.
        value: In `unit`.
        unit: As in ms, sessions, or 1 for a share.
        baseline: What it is compared with, in the same unit; None if it stands alone.
        ratio: Value by baseline.
    """

    name: str
    value: float
    unit: str
    baseline: float | None = None
    ratio: float | None = None

    @staticmethod
    def against(baseline: float, name: str, value: float, unit: str) -> "Figure":
        """A figure with its ratio to a baseline."""
        return Figure(name, value, unit, baseline, value / baseline)


def parser(description: str | None) -> argparse.ArgumentParser:
    """The option that every benchmark has; and torch is told to use one thread."""
    options = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument(
        "--json",
        metavar="FILE",
        type=Path,
        help="also write the figures to this file: a list of name, value, unit, baseline, ratio",
    )
    # One thread gives the same times and the same bits whatever else the machine does.
    torch.set_num_threads(1)
    return options


def options(description: str | None) -> argparse.Namespace:
    """Read the command line of a benchmark on corpora: `data`, their folder; `json`, where to write the figures, or None."""
    return corpus_parser(description).parse_args()


def corpus_parser(description: str | None) -> argparse.ArgumentParser:
    """The options of a benchmark on corpora, to add others to."""
    found = parser(description)
    found.add_argument(
        "--data",
        metavar="FOLDER",
        type=Path,
        default=Path(os.environ.get(SHARED_VARIABLE) or _DEFAULT_SHARED),
        help=f"the folder with data/, speech/ and clips/ (default: ${SHARED_VARIABLE}, else shared/ beside the repository)",
    )
    return found


def need(path: Path) -> Path:
    """The path, if it is there; else the program ends with one line."""
    if not path.exists():
        sys.exit(f"{path} is missing; name the folder that holds the data with --data or {SHARED_VARIABLE}")
    return path


def show_figures(figures: Sequence[Figure], baseline: str = "baseline") -> None:
    """Print figures as a table, beside what they are compared with."""
    rows = [
        [
            each.name,
            f"{each.value:.4g} {each.unit}",
            "" if each.baseline is None else f"{each.baseline:.4g}",
            "" if each.ratio is None else f"{each.ratio:.3g}",
        ]
        for each in figures
    ]
    show(["figure", "value", baseline, "ratio"], rows)


def show(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table in Markdown, as docs/benchmarks.md holds it."""
    widths = [max(len(row[column]) for row in (header, *rows)) for column in range(len(header))]
    for row in (header, ["-" * width for width in widths], *rows):
        print("| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |")


def write(path: Path | None, figures: Sequence[Figure]) -> None:
    """Write the figures as JSON, if a file is asked for."""
    if path is not None:
        path.write_text(json.dumps([asdict(figure) for figure in figures], indent=2) + "\n")
