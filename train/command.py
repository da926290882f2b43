"""What the commands of training have in common: the options that several of them take, and how they end."""

import argparse
import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path

from extractors.errors import ExtractorError
from models.checkpoint import CheckpointError
from stream.errors import MMLatchError
from train.errors import TrainError

DATA_VARIABLE = "MMLATCH_DATA"


def parser(name: str, description: str, more: str) -> argparse.ArgumentParser:
    """The parser of `python -m train.NAME`; `more` stands below the options, as it is."""
    return argparse.ArgumentParser(
        prog=f"python -m train.{name}",
        description=description,
        epilog=more,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def add_data(options: argparse.ArgumentParser) -> None:
    """`--data`: where the corpora are."""
    options.add_argument(
        "--data",
        type=Path,
        metavar="FOLDER",
        default=Path(os.environ.get(DATA_VARIABLE, "data")),
        help=f"the corpora, a folder each (default: ${DATA_VARIABLE}, else data/)",
    )


def add_features(options: argparse.ArgumentParser) -> None:
    """`--features`: what was prepared."""
    options.add_argument(
        "--features",
        type=Path,
        metavar="FOLDER",
        default=Path("features"),
        help="from train.prepare (default: features/)",
    )


def add_settings(options: argparse.ArgumentParser) -> None:
    """`--config`, `--set` and `--device`."""
    options.add_argument("--config", type=Path, metavar="FILE", help="a YAML file with what differs from configs/train.yaml")
    options.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="one key; repeatable")
    options.add_argument("--device", default="cpu", help="cpu (default), cuda or cuda:N")


def run(work: Callable[[], None], *, stopped: str) -> int:
    """Do a command's work; returns its exit code.

    Args:
        work: What may end with an error that is meant for the user, or with Ctrl-C.
        stopped: What to say after Ctrl-C.
    """
    logging.basicConfig(format="%(message)s", level=logging.INFO)
    try:
        work()
    except (TrainError, MMLatchError, ExtractorError, CheckpointError) as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201
        return 2
    except KeyboardInterrupt:
        print(f"stopped; {stopped}", file=sys.stderr)  # noqa: T201
        return 130
    return 0
