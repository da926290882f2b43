"""How good a model is on corpora: fixed sequences of their items, and the figures at the last step."""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from models.causal import CausalModel
from stream.messages import LANES, Lane
from train import metrics
from train.batches import predict
from train.features import Features
from train.pools import Kind, Pool
from train.sequences import Floats, Rate, Sample, audio_lane, clip_lanes, nothing, text_lane, vision_lane

FACE_WINDOWS = 8  # how long a face is looked at
WORDS_A_SECOND = 3.0  # where a corpus has no times

Scores = npt.NDArray[np.floating]


def lanes_of(kind: Kind, features: Features, hop_ns: int, number: int) -> dict[Lane, Floats]:
    """An item by itself: what it does not have is unknown. `number` decides what is drawn."""
    found: dict[Lane, Floats] = {}
    match kind:
        case "clip":
            return clip_lanes(features)
        case "text":
            found["text"] = text_lane(features, hop_ns, Rate(WORDS_A_SECOND, number))
        case "audio":
            found["audio"] = audio_lane(features)
        case "vision":
            found["vision"] = vision_lane(features, FACE_WINDOWS, np.random.default_rng(number))
    steps = len(next(iter(found.values())))
    return {lane: found[lane] if lane in found else nothing(lane, steps) for lane in LANES}


def samples(pool: Pool, hop_ns: int, *, max_steps: int, largest: int | None = None) -> list[Sample]:
    """The items of a pool, each by itself; no more than `largest` of them, evenly over the range of sentiment."""
    numbers = range(len(pool.entries))
    if largest is not None and len(numbers) > largest:
        numbers = np.linspace(0, len(pool.entries) - 1, largest).round().astype(int).tolist()
    found = []
    for number in numbers:
        lanes = lanes_of(pool.kind, pool.features[number], hop_ns, number)
        found.append(Sample({lane: rows[-max_steps:] for lane, rows in lanes.items()}, pool.sentiment(number)))
    return found


def last_scores(model: CausalModel, sequences: Sequence[Sample]) -> tuple[Scores, Scores]:
    """Sentiment and uncertainty at the last step of each sequence, (N,) each."""
    last = np.array([trajectory[-1] for trajectory in predict(model, sequences)], np.float64)
    return last[:, 0], last[:, 1]


def truths(sequences: Sequence[Sample]) -> Scores:
    """The targets, (N,)."""
    return np.array([sample.target for sample in sequences], np.float64)


def regression(prediction: Scores, truth: Scores) -> dict[str, float]:
    """The figures by which sentiment models are compared."""
    return {
        "mae": metrics.mean_absolute_error(prediction, truth),
        "pearson_r": metrics.pearson_r(prediction, truth),
        "accuracy_2_nonzero": metrics.accuracy_2_nonzero(prediction, truth),
        "f1_weighted_nonzero": metrics.f1_weighted_nonzero(prediction, truth),
        "accuracy_2_has_zero": metrics.accuracy_2_has_zero(prediction, truth),
        "accuracy_7": metrics.accuracy_7(prediction, truth),
    }


def validate(model: CausalModel, sequences: Mapping[str, Sequence[Sample]]) -> dict[str, dict[str, float]]:
    """Those figures for each corpus."""
    return {corpus: regression(last_scores(model, chosen)[0], truths(chosen)) for corpus, chosen in sequences.items()}


def weighted_error(found: Mapping[str, Mapping[str, float]], weights: Mapping[str, float]) -> float:
    """The weighted mean of the corpora's mean absolute errors: what the best checkpoint is chosen by."""
    return sum(weights[corpus] * found[corpus]["mae"] for corpus in weights) / sum(weights.values())
