"""Evaluation on test splits: `python -m train.evaluate`.

Of several checkpoints, as of several seeds, it gives mean and standard deviation. Thresholds between three classes are chosen
on the validation split; nothing else is chosen here at all.
"""

import json
import logging
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from sklearn.metrics import balanced_accuracy_score

from models import systems
from models.causal import CausalModel
from models.mfm import CausalMFM
from stream.messages import LANES, Lane
from stream.windows import contracts
from train import assess, calibrate, command, report
from train.batches import analysed, predict
from train.data import fer2013, ravdess
from train.items import Split
from train.mixture import hide_newest
from train.pools import Pool, read_pool
from train.sequences import Floats, Sample, audio_lane, nothing, vision_lane
from train.store import Store, replacing

log = logging.getLogger("train.evaluate")

LAGS_S = (0.0, 0.5, 1.0, 2.0, 3.0)
SHARES = tuple(number / 10 for number in range(1, 11))
_NEAR = 0.75  # how near in sentiment the lanes of a composed utterance are
_CLASSES = {
    corpus: dict.fromkeys(module.POSITIVE, 1) | dict.fromkeys(module.NEGATIVE, -1) | dict.fromkeys(module.NEUTRAL, 0)
    for corpus, module in {"ravdess": ravdess, "fer2013": fer2013}.items()
}
_NO_CLASS = 9
_EXAMPLES = """\
examples:
  python -m train.evaluate runs/0/checkpoint --features features --out report
  python -m train.evaluate runs/*/checkpoint --features features --out report      mean and standard deviation over seeds
"""

Figures = dict[str, float]


@dataclass(frozen=True)
class Material:
    """The test and validation sequences, made once for all checkpoints.

    Attributes:
        hop_ns: The length of a window.
        pools: By corpus and split.
        samples: The pools' items, each by itself, in the pools' order.
        composed: For each way in which the lanes may go together, utterances of three lanes.
        not_detected: Of FER2013's test faces, the share in which no face was found.
    """

    hop_ns: int
    pools: Mapping[tuple[str, Split], Pool]
    samples: Mapping[tuple[str, Split], list[Sample]]
    composed: Mapping[str, list[Sample]]
    not_detected: float


def main(arguments: list[str] | None = None) -> int:
    """Evaluate; 0 if the report was written, 2 if something is missing or damaged."""
    options = command.parser("evaluate", "Measure checkpoints on the test splits of MOSI, RAVDESS and FER2013.", _EXAMPLES)
    options.add_argument("checkpoints", nargs="+", metavar="CHECKPOINT", help="a folder with a checkpoint")
    command.add_features(options)
    options.add_argument("--out", type=Path, metavar="FOLDER", default=Path("report"), help="for tables, figures and plots")
    options.add_argument("--hop-ms", type=int, default=250, metavar="MS", help="what they were trained at (default 250)")
    given = options.parse_args(arguments)

    def work() -> None:
        torch.set_num_threads(1)
        hop_ns = given.hop_ms * 1_000_000
        models = [systems.load(each, contracts=contracts(hop_ns)) for each in given.checkpoints]
        material = gather(Store(given.features), hop_ns, max_steps=min(model.config.max_steps for model in models))
        found = []
        for name, model in zip(given.checkpoints, models, strict=True):
            log.info("%s", name)
            found.append(evaluate(model, material))
        with replacing(given.out / "figures.json") as path:
            path.write_text(json.dumps(dict(zip(given.checkpoints, found, strict=True)), indent=1) + "\n", encoding="utf-8")
        with replacing(given.out / "report.md") as path:
            path.write_text(report.tables(found), encoding="utf-8")
        report.plots(found, given.out)
        log.info("%s", given.out / "report.md")

    return command.run(work, stopped="nothing is kept")


def gather(store: Store, hop_ns: int, *, max_steps: int) -> Material:
    """Read what is measured on; raises `DataError`."""
    wanted: list[tuple[str, Split]] = [("mosi", "test"), ("ravdess", "test"), ("fer2013", "valid"), ("fer2013", "test")]
    pools = {(corpus, split): read_pool(store, corpus, split) for corpus, split in wanted}
    samples = {key: assess.samples(pool, hop_ns, max_steps=max_steps) for key, pool in pools.items()}
    faces = [entry for entry in store.read_manifest("fer2013") if entry.split == "test" and entry.sentiment is not None]
    return Material(
        hop_ns,
        pools,
        samples,
        {way: _composed(pools, samples, sign) for way, sign in (("agree", 1.0), ("disagree", -1.0))},
        sum(entry.failure is not None for entry in faces) / len(faces),
    )


def _composed(
    pools: Mapping[tuple[str, Split], Pool], samples: Mapping[tuple[str, Split], list[Sample]], sign: float
) -> list[Sample]:
    """MOSI's test utterances with a voice and a face of their sentiment times `sign` beside them; the target is the words'."""
    random = np.random.default_rng(0)
    found = []
    for sample in samples["mosi", "test"]:
        voice = pools["ravdess", "test"].near(random, sign * sample.target, _NEAR)
        face = pools["fer2013", "test"].near(random, sign * sample.target, _NEAR)
        if voice is None or face is None or not sample.target:
            continue
        sound = audio_lane(pools["ravdess", "test"].features[voice])
        lanes: dict[Lane, Floats] = {
            "text": sample.lanes["text"],
            "audio": sound[np.arange(sample.steps) % len(sound)],
            "vision": vision_lane(pools["fer2013", "test"].features[face], sample.steps, random),
        }
        found.append(Sample(lanes, sample.target))
    return found


def evaluate(model: CausalModel, material: Material) -> Figures:
    """All figures of one checkpoint, by name."""
    found: Figures = {}
    words = material.samples["mosi", "test"]
    truth = assess.truths(words)
    trajectories = predict(model, words)
    last = np.array([each[-1] for each in trajectories], np.float64)  # (N, 2)
    found |= {f"mosi/{name}": value for name, value in assess.regression(last[:, 0], truth).items()}
    found |= _reliability("mosi", last[:, 1], last[:, 0] - truth)
    for share in SHARES:
        heard = np.array([each[max(1, round(share * len(each))) - 1, 0] for each in trajectories], np.float64)
        found |= {f"early/{share:g}/{name}": value for name, value in assess.regression(heard, truth).items()}
    for lag_s in (*LAGS_S, float("inf")):
        late = [_lagging(sample, lag_s, material.hop_ns) for sample in words]
        name = f"lag/{lag_s:g}"
        found |= {f"{name}/{key}": value for key, value in assess.regression(assess.last_scores(model, late)[0], truth).items()}
    found |= _emotions(model, material)
    found |= _lanes(model, material.composed)
    found |= _lost(model, material.composed["agree"])
    return found


def _lagging(sample: Sample, lag_s: float, hop_ns: int) -> Sample:
    """The same with the newest words unknown; infinitely many: none at all."""
    if np.isinf(lag_s):
        return Sample({**sample.lanes, "text": nothing("text", sample.steps)}, sample.target)
    text = sample.lanes["text"].copy()
    hide_newest(text, round(lag_s * 1e9 / hop_ns))
    return Sample({**sample.lanes, "text": text}, sample.target)


def _emotions(model: CausalModel, material: Material) -> Figures:
    """Voice and face alone: positive against negative at 0, and three classes at thresholds from the validation split."""
    found: Figures = {}
    scores = {key: assess.last_scores(model, samples) for key, samples in material.samples.items() if key[0] != "mosi"}

    def classes(corpus: str, split: Split) -> npt.NDArray[np.int64]:
        """-1, 0, 1, or `_NO_CLASS`."""
        return np.array([_CLASSES[corpus].get(entry.label, _NO_CLASS) for entry in material.pools[corpus, split].entries])

    for corpus in _CLASSES:
        truth, (score, uncertainty) = classes(corpus, "test"), scores[corpus, "test"]
        signed = np.abs(truth) == 1
        found[f"{corpus}/balanced_accuracy_2"] = balanced_accuracy_score(truth[signed] > 0, score[signed] > 0)
        found |= _reliability(corpus, uncertainty, score - assess.truths(material.samples[corpus, "test"]))
    known = classes("fer2013", "valid")
    low, high = _thresholds(scores["fer2013", "valid"][0][known != _NO_CLASS], known[known != _NO_CLASS])
    truth, score = classes("fer2013", "test"), scores["fer2013", "test"][0]
    three = np.where(score < low, -1, np.where(score > high, 1, 0))
    found["fer2013/balanced_accuracy_3"] = balanced_accuracy_score(truth[truth != _NO_CLASS], three[truth != _NO_CLASS])
    found["fer2013/not_detected"] = material.not_detected
    return found


def _thresholds(score: npt.NDArray[np.floating], truth: npt.NDArray[np.int64]) -> tuple[float, float]:
    """Between negative, neutral and positive, the two with the best balanced accuracy."""
    grid = np.quantile(score, np.linspace(0.02, 0.98, 49))
    pairs = [(low, high) for low, high in product(grid, grid) if low <= high]

    def value(pair: tuple[float, float]) -> float:
        found = np.where(score < pair[0], -1, np.where(score > pair[1], 1, 0))
        return float(np.mean([(found[truth == each] == each).mean() for each in (-1, 0, 1)]))

    return max(pairs, key=value)


def _lanes(model: CausalModel, composed: Mapping[str, list[Sample]]) -> Figures:
    """Composed utterances with all lanes, and with each lane alone."""
    found: Figures = {}
    ways: dict[str, Callable[[Sample], Sample]] = {"all": lambda sample: sample}
    ways |= {lane: lambda sample, lane=lane: _alone(sample, lane) for lane in LANES}  # type: ignore[misc]
    for way, samples in composed.items():
        truth = assess.truths(samples)
        for name, change in ways.items():
            score, _ = assess.last_scores(model, [change(sample) for sample in samples])
            found |= {f"lanes/{way}/{name}/{key}": value for key, value in assess.regression(score, truth).items()}
    return found


def _lost(model: CausalModel, samples: list[Sample]) -> Figures:
    """Composed utterances without each lane in turn; of MFM also without its surrogates, and how well those make the lane."""
    found: Figures = {}
    truth = assess.truths(samples)
    for lane in LANES:
        without = [Sample({**sample.lanes, lane: nothing(lane, sample.steps)}, sample.target) for sample in samples]
        score, _ = assess.last_scores(model, without)
        found |= {f"lost/{lane}/{key}": value for key, value in assess.regression(score, truth).items()}
        if isinstance(model, CausalMFM):
            masked, _ = analysed(model, without, lane)
            found |= {f"masked/{lane}/{key}": value for key, value in assess.regression(masked, truth).items()}
            _, found[f"made/{lane}"] = analysed(model, samples, lane)
    return found


def _alone(sample: Sample, lane: Lane) -> Sample:
    return Sample(
        {each: rows if each == lane else nothing(each, sample.steps) for each, rows in sample.lanes.items()}, sample.target
    )


def _reliability(name: str, uncertainty: npt.NDArray[np.floating], error: npt.NDArray[np.floating]) -> Figures:
    groups = calibrate.reliability(uncertainty, error)
    found = {f"reliability/{name}/error": calibrate.calibration_error(groups)}
    found[f"reliability/{name}/within_1"] = float((np.abs(error) <= uncertainty).mean())
    for number, group in enumerate(groups):
        found[f"reliability/{name}/{number}/expected"] = group.expected
        found[f"reliability/{name}/{number}/found"] = group.found
    return found


if __name__ == "__main__":
    sys.exit(main())
