"""The figures by which sentiment models are compared, each named for its convention.

Every function takes the predictions and the truths of N segments, float arrays of shape (N,) with sentiment on the scale from
-3 (strongly negative) to 3, N at least 1, and raises ValueError where the two differ in shape or hold values that are not
finite.

Published figures differ in what they do with a truth of 0, so the two binary conventions stand side by side:

- *non-zero*: segments whose truth is 0 are left out; the classes are negative and positive, a score above 0 being positive;
- *has-zero*: all segments count; the classes are negative and non-negative, a score from 0 up being non-negative.

So do the two of seven classes: most papers round to the *nearest* class, CMU-MOSEI's authors *outward*, away from 0.

Sources: the evaluation of MMLatch (https://github.com/georgepar/mmlatch, `mosei_metrics.py`) and of MMSA
(https://github.com/thuiar/MMSA, `metricsTop.py`), which agree in all of these that they have. Unlike the former, weighted F1
weights the classes by their share of the truth, not of the prediction.
"""

import numpy as np
import numpy.typing as npt
from sklearn.metrics import f1_score

Scores = npt.NDArray[np.floating]


def mean_absolute_error(prediction: Scores, truth: Scores) -> float:
    """The mean of |prediction - truth|, 0 or more; 0 is best."""
    _check(prediction, truth)
    return float(np.abs(prediction - truth).mean())


def pearson_r(prediction: Scores, truth: Scores) -> float:
    """Pearson's correlation, in [-1, 1]; nan where the predictions or the truths are all the same."""
    _check(prediction, truth)
    if np.ptp(prediction) == 0 or np.ptp(truth) == 0:
        return float("nan")
    return float(np.corrcoef(prediction, truth)[0, 1])


def accuracy_2_nonzero(prediction: Scores, truth: Scores) -> float:
    """Binary accuracy by the non-zero convention, in [0, 1]; nan where every truth is 0."""
    prediction, truth = _nonzero(prediction, truth)
    return float(((prediction > 0) == (truth > 0)).mean()) if len(truth) else float("nan")


def accuracy_2_has_zero(prediction: Scores, truth: Scores) -> float:
    """Binary accuracy by the has-zero convention, in [0, 1]."""
    _check(prediction, truth)
    return float(((prediction >= 0) == (truth >= 0)).mean())


def f1_weighted_nonzero(prediction: Scores, truth: Scores) -> float:
    """The classes' F1, weighted by their share of the truth, by the non-zero convention, in [0, 1]; nan where all are 0."""
    prediction, truth = _nonzero(prediction, truth)
    return float(f1_score(truth > 0, prediction > 0, average="weighted")) if len(truth) else float("nan")


def f1_weighted_has_zero(prediction: Scores, truth: Scores) -> float:
    """The classes' F1, weighted by their share of the truth, by the has-zero convention, in [0, 1]."""
    _check(prediction, truth)
    return float(f1_score(truth >= 0, prediction >= 0, average="weighted"))


def accuracy_7(prediction: Scores, truth: Scores) -> float:
    """Accuracy over the seven classes -3 to 3, in [0, 1]: both are clipped to them, then rounded, halves to the even class."""
    _check(prediction, truth)
    return _rounded_accuracy(prediction, truth, 3.0)


def accuracy_5(prediction: Scores, truth: Scores) -> float:
    """Accuracy over the five classes -2 to 2, in [0, 1]: both are clipped to them, then rounded, halves to the even class."""
    _check(prediction, truth)
    return _rounded_accuracy(prediction, truth, 2.0)


def accuracy_7_outward(prediction: Scores, truth: Scores) -> float:
    """Accuracy over the seven classes -3 to 3, in [0, 1]: both are rounded away from 0, as in (0, 1] to 1; beyond 2 it is 3.

    So only 0 itself is neutral, and figures are not to be compared with those of `accuracy_7`. Source: `cmumosei_round` in the
    README of CMU-MOSEI (https://github.com/CMU-MultiComp-Lab/CMU-MultimodalSDK, `standard_datasets/CMU_MOSEI/README.md`).
    """
    _check(prediction, truth)
    classes = (np.sign(scores) * np.minimum(np.ceil(np.abs(scores)), 3.0) for scores in (prediction, truth))
    return float(np.equal(*classes).mean())


def _rounded_accuracy(prediction: Scores, truth: Scores, bound: float) -> float:
    classes = (np.round(np.clip(scores, -bound, bound)) for scores in (prediction, truth))
    return float(np.equal(*classes).mean())


def _nonzero(prediction: Scores, truth: Scores) -> tuple[Scores, Scores]:
    _check(prediction, truth)
    return prediction[truth != 0], truth[truth != 0]


def _check(prediction: Scores, truth: Scores) -> None:
    if prediction.ndim != 1 or prediction.shape != truth.shape or not len(truth):
        raise ValueError(f"prediction and truth must both be (N,) with N at least 1, got {prediction.shape} and {truth.shape}")
    # A diverged model's nan would otherwise count as a negative class and give a plausible accuracy.
    for name, scores in (("prediction", prediction), ("truth", truth)):
        if not np.isfinite(scores).all():
            raise ValueError(f"{name} must be finite, but {int((~np.isfinite(scores)).sum())} of {len(scores)} are not")
