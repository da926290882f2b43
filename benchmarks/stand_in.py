"""How does a recipe do where text vectors know the labels of what they were trained on, and nothing honest is left to validate?

    python -m benchmarks.stand_in utterances-mmlatch --data FOLDER --json FILE

CMU-MOSI's utterance features come from networks that know the train part by heart (train.data.utterances), so recipes for
them cannot be chosen on a part of it. This makes a stand-in of the same flaw from the train part's videos alone: a network
learns the labels of some of the videos from MiniLM's vectors of the words by heart, and its inner layer is the text of all; the
others, whose labels it has not seen, are what is measured on. Sound is as it is; faces, which are learned by heart too, are
shuffled among the measured. Four folds; the baseline is a logistic regression on the same text vectors, utterance by utterance.
The test part is not read.
"""

import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.neural_network import MLPClassifier
from sklearn.preprocessing import StandardScaler

from benchmarks.common import Figure, corpus_parser, need, show_figures, write
from extractors.text import TextEmbedder, normalise
from train import offline, recipe
from train.data.aligned import Segments
from train.data.utterances import read_utterances
from train.metrics import accuracy_2_has_zero

FOLDS = 4
_LAYER = 100  # as many columns as the text vectors have
_NOBODY = "um"  # for an utterance without a word


def taken(segments: Segments, chosen: np.ndarray) -> Segments:
    """Some of the videos."""
    return Segments(
        tuple(name for name, each in zip(segments.ids, chosen, strict=True) if each),
        {m: x[chosen] for m, x in segments.inputs.items()},
        {m: lengths[chosen] for m, lengths in segments.lengths.items()},
        segments.labels[chosen],
        segments.mended,
    )


def words(path: Path, segments: Segments) -> np.ndarray:
    """MiniLM's published vector of each utterance's words, (videos, L, 768)."""
    with np.load(path, allow_pickle=False) as file:
        texts = dict(zip(file["id"].tolist(), file["text"].tolist(), strict=True))
        order = sorted((name.rsplit("_", 1)[0], int(name.rsplit("_", 1)[1]), name) for name in texts)
    embedder = TextEmbedder(None)
    found = np.zeros((*segments.labels.shape, embedder.embed([_NOBODY]).shape[-1]), np.float32)
    for number, video in enumerate(segments.ids):
        names = [name for each, _, name in order if each == video]
        for step, name in enumerate(names):
            found[number, step] = embedder.embed(normalise(texts[name]) or [_NOBODY])
    return found


def folds(path: Path) -> Iterator[tuple[Segments, Segments, float]]:
    """Videos that the text's network has learned by heart, others, and how well the text alone tells the latter."""
    whole = read_utterances(path)["train"]
    vectors, real = words(path, whole), ~np.isnan(whole.labels)
    positive = whole.labels >= 0
    random = np.random.default_rng(0)
    for number, fold in enumerate(np.array_split(random.permutation(len(whole.ids)), FOLDS)):
        measured = np.isin(np.arange(len(whole.ids)), fold)
        known = real & ~measured[:, None]
        scaler = StandardScaler().fit(vectors[known])
        network = MLPClassifier((_LAYER,), activation="tanh", alpha=1.0, max_iter=60, random_state=number)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            network.fit(scaler.transform(vectors[known]), positive[known])
        text = np.zeros((*real.shape, _LAYER), np.float32)
        text[real] = np.tanh(scaler.transform(vectors[real]) @ network.coefs_[0] + network.intercepts_[0])
        faces, others = whole.inputs["vision"].copy(), real & measured[:, None]
        faces[others] = random.permutation(faces[others])
        stand_in = replace(whole, inputs=whole.inputs | {"text": text, "vision": faces})
        alone = LogisticRegression(C=0.01, max_iter=1000).fit(text[known], positive[known])
        yield taken(stand_in, ~measured), taken(stand_in, measured), float(alone.score(text[others], positive[others]))


def main() -> None:
    """Measure, print and write."""
    options = corpus_parser(__doc__)
    options.add_argument("recipes", nargs="+", metavar="RECIPE", help="as train.compare takes them")
    options.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="one key of every recipe; repeatable")
    options.add_argument("--seeds", type=int, default=2, help="for each fold (default 2)")
    arguments = options.parse_args()
    torch.set_num_threads(1)
    device = torch.device("cpu")
    made = list(folds(need(arguments.data / "data/mosi/utterance_features.npz")))
    alone = float(np.mean([share for _, _, share in made]))
    found = [Figure("text alone, utterance by utterance", alone, "accuracy")]
    for name in arguments.recipes:
        shares = []
        for seed in range(arguments.seeds):
            for known, measured, _ in made:
                fitted = offline.fit(recipe.load(name, tuple(arguments.set)), known, None, seed=seed, device=device)
                shares.append(accuracy_2_has_zero(*offline.predicted(fitted.system, measured, device)))
        found.append(Figure.against(alone, f"{name}; baseline: text alone", float(np.mean(shares)), "accuracy"))
    show_figures(found)
    write(arguments.json, found)


if __name__ == "__main__":
    main()
