"""Figures of an evaluation as tables in Markdown and as plots; mean and standard deviation over checkpoints."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from train.errors import TrainError

Figures = Mapping[str, float]

REGRESSION = {
    "accuracy_2_nonzero": "Acc-2 non-zero",
    "f1_weighted_nonzero": "weighted F1 non-zero",
    "mae": "MAE",
    "pearson_r": "r",
    "accuracy_2_has_zero": "Acc-2 has-zero",
    "accuracy_7": "Acc-7",
}
LANES = {"all": "text, audio, vision", "text": "text alone", "audio": "audio alone", "vision": "vision alone"}


def cell(found: Sequence[Figures], name: str) -> str:
    """Mean and, of several checkpoints, standard deviation; empty where it was not measured."""
    values = [each[name] for each in found if name in each]
    if not values:
        return ""
    spread = f" ± {np.std(values, ddof=1):.3f}" if len(values) > 1 else ""
    return f"{np.mean(values):.3f}{spread}"


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = [header, ["---"] * len(header), *rows]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


def tables(found: Sequence[Figures]) -> str:
    """All tables."""
    names = ["what", *REGRESSION.values()]

    def regression(title: str, prefix: str) -> list[str]:
        return [title, *(cell(found, f"{prefix}/{key}") for key in REGRESSION)]

    shares = sorted({name.split("/")[1] for each in found for name in each if name.startswith("early/")}, key=float)
    lags = sorted({name.split("/")[1] for each in found for name in each if name.startswith("lag/")}, key=float)
    parts = [
        f"Checkpoints: {len(found)}; mean ± standard deviation over them.\n",
        "### MOSI test, words alone\n\n" + table(names, [regression("final score", "mosi")]),
        "### Voice alone, face alone: balanced accuracy\n\n"
        + table(
            ["set", "classes", "balanced accuracy"],
            [
                ["RAVDESS, actors 21 to 24", "positive, negative", cell(found, "ravdess/balanced_accuracy_2")],
                ["FER2013 PrivateTest", "positive, negative", cell(found, "fer2013/balanced_accuracy_2")],
                ["FER2013 PrivateTest", "negative, neutral, positive", cell(found, "fer2013/balanced_accuracy_3")],
            ],
        )
        + f"\nFER2013 faces that were not detected, and do not count: {cell(found[:1], 'fer2013/not_detected')}\n",
        "### MOSI test, the newest words unknown\n\n"
        + table(names, [regression("no words" if lag == "inf" else f"{lag} s", f"lag/{lag}") for lag in lags]),
        "### MOSI test, part of the utterance heard\n\n"
        + table(names, [regression(f"{float(share):.0%}", f"early/{share}") for share in shares]),
        *(
            f"### Composed test utterances, lanes that {way}\n\n"
            + table(names, [regression(title, f"lanes/{way}/{lane}") for lane, title in LANES.items()])
            for way in ("agree", "disagree")
        ),
        "### Composed test utterances, lanes that agree, one of them lost\n\n"
        + table(
            names,
            [
                regression(f"{lane} lost{how}", f"{prefix}/{lane}")
                for lane in LANES
                if lane != "all"
                for prefix, how in (("lost", ""), ("masked", ", no surrogate"))
                if any(f"{prefix}/{lane}/mae" in each for each in found)
            ],
        ),
        *([_made_again(found)] if any("made/text" in each for each in found) else []),
        "### Is the uncertainty right?\n\n"
        + table(
            ["set", "mean difference from the errors' RMS", "errors within it (normal: 0.683)"],
            [
                [name, cell(found, f"reliability/{name}/error"), cell(found, f"reliability/{name}/within_1")]
                for name in ("mosi", "ravdess", "fer2013")
            ],
        ),
    ]
    return "\n".join(parts)


def _made_again(found: Sequence[Figures]) -> str:
    """How well MFM's surrogates make a lost lane."""
    shares = ", ".join(f"{lane} {cell(found, f'made/{lane}')}" for lane in LANES if lane != "all")
    return f"The lost lane as the surrogates make it, squared error as a share of that of the training mean: {shares}\n"


def plots(found: Sequence[Figures], folder: Path) -> None:
    """Write `lag.png`, `early.png` and `reliability.png`; raises `TrainError` where they cannot be written."""
    from matplotlib import pyplot

    def mean(name: str) -> float:
        return float(np.mean([each[name] for each in found]))

    def finish(name: str) -> None:
        pyplot.grid(alpha=0.3)
        pyplot.tight_layout()
        try:
            pyplot.savefig(folder / name, dpi=120)
        except OSError as error:
            raise TrainError(f"{folder / name} cannot be written: {error.strerror or error}") from error
        finally:
            pyplot.close()

    pyplot.switch_backend("agg")
    for kind, label in (("lag", "seconds of the newest words that are unknown"), ("early", "share of the utterance heard")):
        places = sorted({float(name.split("/")[1]) for name in found[0] if name.startswith(f"{kind}/")})
        places = [place for place in places if np.isfinite(place)]
        pyplot.figure(figsize=(5, 3.2))
        for key, title in (("accuracy_2_nonzero", "Acc-2 non-zero"), ("pearson_r", "r"), ("mae", "MAE")):
            pyplot.plot(places, [mean(f"{kind}/{place:g}/{key}") for place in places], marker="o", label=title)
        pyplot.xlabel(label)
        pyplot.title("MOSI test, words alone")
        pyplot.legend()
        finish(f"{kind}.png")
    pyplot.figure(figsize=(4, 4))
    for name in ("mosi", "ravdess", "fer2013"):
        bins = sorted(
            {int(key.split("/")[2]) for key in found[0] if key.startswith(f"reliability/{name}/") and key.count("/") == 3}
        )
        expected, seen = ([mean(f"reliability/{name}/{number}/{key}") for number in bins] for key in ("expected", "found"))
        pyplot.plot(expected, seen, marker="o", label=name)
    pyplot.axline((0, 0), slope=1, color="grey", linewidth=0.8)
    pyplot.xlabel("uncertainty (root mean square)")
    pyplot.ylabel("error (root mean square)")
    pyplot.legend()
    finish("reliability.png")
