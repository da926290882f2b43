"""Systems side by side on a data set, offline: `python -m train.compare`.

Every system is trained with its recipe from each of several seeds, on all modalities or on subsets of them; figures are mean
and deviation over the seeds, on the test split.
"""

import csv
import itertools
import json
import logging
import math
import re
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import torch
from tqdm import tqdm

from models.causal import MODALITIES
from stream.engine import resolve_device
from train import assess, command, metrics, offline, recipe
from train.data.aligned import Segments, read_mmsa, read_mult
from train.data.folder import Source, opened
from train.data.prepared import read_prepared
from train.data.sdk import read_sdk
from train.data.utterances import read_utterances
from train.errors import DataError, TrainError
from train.items import SPLITS, Split
from train.recipe import FOLDER, Recipe
from train.store import replacing

log = logging.getLogger("train.compare")

Format = Literal["mult", "mmsa", "sdk", "utterances", "prepared"]
SUBSETS = tuple(
    each for size in range(len(MODALITIES), 0, -1) for each in itertools.combinations(MODALITIES, size)
)  # all of them, the whole first
SDK_FILES = {
    "text": "CMU_MOSEI_TimestampedWordVectors.csd",
    "audio": "CMU_MOSEI_COVAREP.csd",
    "vision": "CMU_MOSEI_VisualFacet42.csd",
    "labels": "CMU_MOSEI_Labels.csd",
}
FOLDS = "labels.csv"
_VERSION = 2  # of models and training: runs of another are done again
_EXAMPLES = f"""\
examples:
  python -m train.compare mmlatch --data mosei_senti_data.pkl --format mult --out runs/mosei
  python -m train.compare --data aligned_50.pkl --format mmsa --out runs/mosei                       every system there is
  python -m train.compare mmlatch-causal --data mosei --format sdk --out runs/sdk --seeds 1
  python -m train.compare --data utterance_features.npz --format utterances --subsets --out runs/mosi
  python -m train.compare mmlatch-causal --data features/mosei --format prepared --out runs/own          what train.prepare made
  python -m train.compare mult --data a.pkl --format mult --out runs/a --sweep fit.learning_rate=0.0005,0.001

A system is a recipe: one of {", ".join(sorted(path.stem for path in FOLDER.glob("*.yaml")))}, or a file like those of
configs/systems/. With --format sdk the folder has {", ".join(SDK_FILES.values())},
and {FOLDS} with the columns video and split.
"""


def main(arguments: list[str] | None = None) -> int:
    """Train and compare; 0 if the figures were written, 2 if something is missing or damaged."""
    options = command.parser("compare", "Train systems on a data set and compare them on its test split.", _EXAMPLES)
    options.add_argument("systems", nargs="*", metavar="SYSTEM", help="recipes (default: all that suit the data)")
    options.add_argument("--data", type=Path, metavar="PATH", required=True, help="a file, or a folder with those of the SDK")
    options.add_argument("--format", choices=get_args(Format), required=True)
    options.add_argument("--out", type=Path, metavar="FOLDER", required=True, help="for figures; and the data as plain arrays")
    options.add_argument("--seeds", type=int, default=5, metavar="N", help="how many, from 0 on (default 5)")
    options.add_argument("--subsets", action="store_true", help="every subset of the modalities, not all of them alone")
    options.add_argument("--sweep", action="append", default=[], metavar="KEY=V,V", help="try these; the best on validation")
    options.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="one key of every recipe; repeatable")
    options.add_argument("--device", default="cpu", help="cpu (default), cuda or cuda:N")
    given = options.parse_args(arguments)

    def work() -> None:
        if given.seeds < 1:
            raise TrainError(f"--seeds {given.seeds}: expected 1 or more")
        if given.format == "utterances":
            torch.set_num_threads(1)  # so little is computed at a time that threads would only wait for each other
        device = resolve_device(given.device)
        names = given.systems or sorted(path.stem for path in FOLDER.glob("*.yaml"))
        recipes = {Path(name).stem: recipe.load(name, tuple(given.set)) for name in names}
        if len(recipes) < len(names):
            raise TrainError(f"{' '.join(names)}: two systems have the same name; give one of the files another")
        sweeps = [_sweep(text) for text in given.sweep]
        files = source(given.format, given.data)
        data = opened(files, given.out / "data")
        for split, segments in data.items():
            mended = ", ".join(f"{count} of {m}" for m, count in segments.mended.items() if count)
            log.info("%s: %d%s", split, len(segments.ids), f"; set to 0, as they were not finite: {mended}" if mended else "")
        if not given.systems:
            recipes = {name: each for name, each in recipes.items() if _suits(name, each, given.format, data["train"])}
            log.info("systems: %s", ", ".join(recipes))
        compare(
            recipes,
            data,
            given.out,
            seeds=given.seeds,
            subsets=SUBSETS if given.subsets else SUBSETS[:1],
            sweeps=sweeps,
            device=device,
            stamp=files.stamp(),
        )

    return command.run(work, stopped="what was finished is kept; the same command goes on")


def source(kind: Format, path: Path) -> Source:
    """What is read of a file or folder in that format."""
    match kind:
        case "mult":
            return Source(kind, [path], partial(read_mult, path))
        case "mmsa":
            return Source(kind, [path], partial(read_mmsa, path))
        case "utterances":
            return Source(kind, [path], lambda: read_utterances(path).items())
        case "prepared":
            return Source(kind, [path.with_name(path.name + ".jsonl")], partial(read_prepared, path.parent, path.name))
        case "sdk":
            files = {name: path / file for name, file in SDK_FILES.items()}

            def read() -> Iterable[tuple[str, Segments]]:
                sequences = {m: files[m] for m in MODALITIES}
                return read_sdk(sequences, files["labels"], read_folds(path / FOLDS)).items()

            return Source(kind, [*files.values(), path / FOLDS], read)


def read_folds(path: Path) -> dict[Split, tuple[str, ...]]:
    """Which videos are in which split, of a table with the columns video and split.

    Raises:
        DataError: It is no such table, names a split that there is not, or has a video in two.
    """
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = {(row["video"], row["split"]) for row in csv.DictReader(file) if row["split"] != "none"}
    except (OSError, UnicodeDecodeError, KeyError, csv.Error) as error:
        raise DataError(f"{path}: no table of folds ({error}); expected the columns video and split") from error
    if unknown := {str(split) for _, split in rows}.difference(SPLITS):
        raise DataError(f"{path}: a split {', '.join(sorted(unknown))}; expected {', '.join(SPLITS)}, or none")
    found = {split: tuple(sorted(str(video) for video, each in rows if each == split)) for split in SPLITS}
    if twice := [video for video, count in Counter(video for video, _ in rows).items() if count > 1]:
        raise DataError(f"{path}: {', '.join(sorted(map(str, twice))[:5])} in two splits; expected each video in one")
    return found


def compare(
    recipes: Mapping[str, Recipe],
    data: Mapping[str, Segments],
    out: Path,
    *,
    seeds: int,
    subsets: Sequence[tuple[str, ...]],
    sweeps: Sequence[tuple[str, list[str]]],
    device: torch.device,
    stamp: Sequence[object],
) -> None:
    """Train what is not there yet, and write `figures.json` and `table.md`.

    Args:
        recipes: By the names that the systems have in the tables.
        data: The splits, `valid` among them or not.
        out: The folder with the figures, and in `runs` those of each run: what is there is not done again.
        seeds: How many, from 0 on.
        subsets: Of the modalities, one after the other.
        sweeps: Keys of the recipes and values to try; the best on the validation split is tested.
        device: Where to train.
        stamp: What changes when the data do; runs on others are done again.

    Raises:
        TrainError: A recipe does not suit the data, a training came to nothing, or nothing can be written.
    """
    if sweeps and "valid" not in data:
        raise TrainError("--sweep chooses by the validation split, and these data have none; give the values with --set")
    longest = {m: max(segments.inputs[m].shape[1] for segments in data.values()) for m in MODALITIES}
    runs = list(itertools.product(recipes, subsets, range(seeds)))
    for name, subset, seed in tqdm(runs, unit="run", disable=None):
        path = out / "runs" / f"{name}-{'+'.join(subset)}-{seed}.json"
        chosen = recipes[name]
        about = {"version": _VERSION, "recipe": chosen.model_dump(mode="json"), "sweeps": list(sweeps), "data": stamp}
        if _about(path) == json.loads(json.dumps(about)):
            continue
        train, valid = data["train"], data.get("valid")
        try:
            candidates = list(_candidates(chosen, sweeps))
            fitted = [
                offline.fit(each, train, valid, seed=seed, device=device, modalities=subset, longest=longest)
                for each in candidates
            ]
            best = min(range(len(fitted)), key=lambda number: fitted[number].error)
            scores, truths = offline.predicted(fitted[best].system, data["test"], device)
            test = assess.regression(scores, truths) | {"accuracy_7_outward": metrics.accuracy_7_outward(scores, truths)}
        except ValueError as error:
            raise TrainError(f"{name}: {error}") from error
        if "valid" in data and not np.isfinite(fitted[best].error):
            raise TrainError(f"{name}: no epoch has a finite error on the validation split; try a lower fit.learning_rate")
        found = {
            "about": about,
            "chosen": candidates[best].model_dump(mode="json"),
            "epochs": [epoch._asdict() for epoch in fitted[best].epochs] if "valid" in data else len(fitted[best].epochs),
            "test": test,
        }
        with replacing(path) as part:
            part.write_text(_json(found), encoding="utf-8")
    figures = {
        f"{name}/{'+'.join(subset)}": [
            json.loads((out / "runs" / f"{name}-{'+'.join(subset)}-{seed}.json").read_text(encoding="utf-8"))["test"]
            for seed in range(seeds)
        ]
        for name, subset in itertools.product(recipes, subsets)
    }
    with replacing(out / "figures.json") as part:
        part.write_text(_json(figures), encoding="utf-8")
    with replacing(out / "table.md") as part:
        part.write_text(table(figures), encoding="utf-8")
    log.info("%s", out / "table.md")


def _about(path: Path) -> object:
    """What a run was of; None if there is none that can be read."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))["about"]
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _json(found: object) -> str:
    """As JSON, which has no NaN: a figure that is not defined, as the correlation of one value, is null."""

    def defined(each: object) -> object:
        match each:
            case dict():
                return {key: defined(value) for key, value in each.items()}
            case list() | tuple():
                return [defined(value) for value in each]
            case float() if not math.isfinite(each):
                return None
        return each

    return json.dumps(defined(found), indent=1, allow_nan=False) + "\n"


def table(figures: Mapping[str, Sequence[Mapping[str, float | None]]]) -> str:
    """Mean ± standard deviation over the seeds of every figure, a row a system and subset; nothing where one is not defined."""
    columns = list(next(iter(figures.values()))[0])
    lines = ["| system | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
    for name, seeds in figures.items():
        cells = []
        for column in columns:
            values = np.array([each[column] for each in seeds], np.float64)  # None becomes NaN
            deviation = f" ± {values.std(ddof=1):.3f}" if len(values) > 1 else ""
            cells.append(f"{values.mean():.3f}{deviation}" if np.isfinite(values).all() else "")
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _suits(name: str, chosen: Recipe, kind: Format, train: Segments) -> bool:
    """Whether a recipe that comes with the program is for such data: those of utterances have a name of their own."""
    aligned = all(np.array_equal(train.lengths[m], train.lengths["text"]) for m in MODALITIES)
    able = aligned or (chosen.system, chosen.form) == ("mult", "published")
    return able and name.startswith("utterances-") == (kind == "utterances")


def _sweep(text: str) -> tuple[str, list[str]]:
    key, separator, values = text.partition("=")
    if not separator or not key or not values:
        raise TrainError(f"--sweep {text}: expected KEY=VALUE,VALUE, as in fit.learning_rate=0.0005,0.001")
    return key, re.split(r",(?![^\[]*\])", values)  # not within a list


def _candidates(chosen: Recipe, sweeps: Sequence[tuple[str, list[str]]]) -> Iterable[Recipe]:
    """The recipe with every combination of the swept values."""
    for values in itertools.product(*(values for _, values in sweeps)):
        overrides = tuple(f"{key}={value}" for (key, _), value in zip(sweeps, values, strict=True))
        yield recipe.changed(chosen, overrides)


if __name__ == "__main__":
    sys.exit(main())
