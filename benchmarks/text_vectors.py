"""Which vector should a word have: the sentence vector of the utterance so far, or its own token vector in that context?

And of which of MiniLM's layers: the last, the middle one, or both? As published, or with the package's adapter?

    python -m benchmarks.text_vectors --data FOLDER

MOSI transcripts (data/mosi/utterances.csv). Each word gets both vectors from MiniLM, which reads the utterance up to that word
and no further: the mean over the pieces (`TextEmbedder.embed`), and the state of the word's last piece, both of unit length.
Ridge regression then predicts the sentiment from the vectors up to some word, taken in several ways; a model that sees the
sequence can pool it, so the mean over the words is among them. The regressions are fitted on the train split (the penalty by
cross-validation over its videos) and compared on the valid split, once with all words and once with the first half of them.
The test split stays untouched. The baseline is the last sentence vector. All are of MiniLM as it is published, but the one row
that names the adapter: that has been trained on the train split, so its error inside that split says nothing.
"""

import sys
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from sklearn.linear_model import Ridge
from sklearn.model_selection import GridSearchCV, GroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from tqdm import tqdm

from benchmarks.common import Figure, need, options, show, write
from extractors.errors import Unavailable
from extractors.text import TextEmbedder, normalise
from train import metrics
from train.data import mosi
from train.errors import DataError

POSITIONS = {"all words": 1.0, "first half of the words": 0.5}
BASELINE = "last sentence vector"

Array = npt.NDArray[np.floating]


class Vectors(NamedTuple):
    """Of every word, knowing only those up to it, (N, 384) where nothing else is said.

    Attributes:
        sentences: The mean over the last layer's pieces.
        tokens: The last layer's last piece.
        middle: The mean over the middle layer's pieces.
        adapted: The text lane's vectors, (N, 768).
    """

    sentences: Array
    tokens: Array
    middle: Array
    adapted: Array

    def up_to(self, count: int) -> "Vectors":
        """Those of the first words."""
        return Vectors(*(each[:count] for each in self))


def vectors(embedder: TextEmbedder, adapted: TextEmbedder, words: list[str]) -> Vectors:
    """An utterance's vectors, without encoding it more than once by either encoder."""
    sentences, tokens, middle = [], [], []
    for count in range(1, len(words) + 1):
        states = embedder.encode(words[:count])  # (2, L, 384): [CLS], the pieces, [SEP]
        sentences.append(states[-1].mean(0))
        tokens.append(states[-1][-2])
        middle.append(states[0].mean(0))
    lane = np.stack([adapted.embed(words[:count]) for count in range(1, len(words) + 1)])
    return Vectors(*(_unit(np.stack(each)) for each in (sentences, tokens, middle)), lane)


def _unit(rows: Array) -> Array:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def readings(found: Vectors) -> dict[str, Array]:
    """The ways in which a head may read the vectors of the words so far; each (384,) or (768,)."""
    sentences, tokens, middle, adapted = found
    return {
        BASELINE: sentences[-1],
        "last sentence vector, middle layer": middle[-1],
        "last sentence vector, both layers": np.concatenate([middle[-1], sentences[-1]]),
        "last sentence vector, both layers, with the adapter (the text lane's)": adapted[-1],
        "mean of sentence vectors": sentences.mean(0),
        "last token vector": tokens[-1],
        "mean of token vectors": tokens.mean(0),
        "last and mean of token vectors": np.concatenate([tokens[-1], tokens.mean(0)]),
        "last sentence and last token vector": np.concatenate([sentences[-1], tokens[-1]]),
        "last sentence vector and mean of token vectors": np.concatenate([sentences[-1], tokens.mean(0)]),
    }


def fit(values: Array, truth: Array, videos: npt.NDArray[np.str_]) -> GridSearchCV:
    """A ridge regression whose penalty has the least absolute error on videos that it was not fitted on."""
    search = GridSearchCV(
        make_pipeline(StandardScaler(), Ridge()),
        {"ridge__alpha": np.logspace(1, 5, 13)},
        scoring="neg_mean_absolute_error",
        cv=GroupKFold(5),
    )
    return search.fit(values, truth, groups=videos)


def main() -> None:
    """Measure, print and write."""
    arguments = options(__doc__)
    try:
        utterances = [
            each for each in mosi.read(need(arguments.data / "data" / "mosi" / "utterances.csv")) if each.split != "test"
        ]
        embedder, adapted = TextEmbedder(adapter=None), TextEmbedder()
    except (DataError, Unavailable) as error:
        sys.exit(str(error))
    embedded = [vectors(embedder, adapted, normalise(each.text)) for each in tqdm(utterances, unit="utterance")]
    truth = np.array([each.sentiment for each in utterances])
    videos = np.array([each.video for each in utterances])
    train = np.array([each.split == "train" for each in utterances])
    valid = ~train

    figures = []
    for position, share in POSITIONS.items():
        read = [readings(each.up_to(max(1, round(len(each.tokens) * share)))) for each in embedded]
        errors: dict[str, Array] = {}
        for name in read[0]:
            values = np.stack([each[name] for each in read])
            search = fit(values[train], truth[train], videos[train])
            prediction = search.predict(values[valid])
            errors[name] = np.abs(prediction - truth[valid])
            worse = errors[name] - errors[BASELINE]
            figures.append(
                {
                    "heard": position,
                    "reading": name,
                    "mae_inside_train": -search.best_score_,
                    "mae": metrics.mean_absolute_error(prediction, truth[valid]),
                    "pearson_r": metrics.pearson_r(prediction, truth[valid]),
                    "accuracy_2_nonzero": metrics.accuracy_2_nonzero(prediction, truth[valid]),
                    "mae_difference": worse.mean(),
                    "mae_difference_standard_error": worse.std(ddof=1) / np.sqrt(len(worse)),
                }
            )
    print(f"{train.sum()} utterances fitted, {valid.sum()} compared; standard error of the difference over the latter")
    show(
        ["heard", "the head reads", "MAE", "difference", "r", "Acc-2 non-zero", "MAE inside train"],
        [
            [
                each["heard"],
                each["reading"],
                f"{each['mae']:.3f}",
                "baseline"
                if each["reading"] == BASELINE
                else f"{each['mae_difference']:+.3f} ± {each['mae_difference_standard_error']:.3f}",
                f"{each['pearson_r']:.3f}",
                f"{each['accuracy_2_nonzero']:.3f}",
                f"{each['mae_inside_train']:.3f}",
            ]
            for each in figures
        ],
    )
    baselines = {each["heard"]: each for each in figures if each["reading"] == BASELINE}
    write(
        arguments.json,
        [
            Figure.against(baselines[each["heard"]][key], f"{each['heard']}, {each['reading']}: {key}", each[key], "1")
            for each in figures
            for key in ("mae", "mae_inside_train", "pearson_r", "accuracy_2_nonzero")
        ],
    )


if __name__ == "__main__":
    main()
