import math

import numpy as np
import pytest
import sklearn.metrics
from sklearn.feature_selection import r_regression

from train import metrics

TRUTH = np.array([-3.0, -1.0, 0.0, 0.0, 0.6, 2.5])
PREDICTION = np.array([-2.0, 0.0, -0.1, 0.0, 1.5, 3.4])
ALL = [
    metrics.mean_absolute_error,
    metrics.pearson_r,
    metrics.accuracy_2_nonzero,
    metrics.accuracy_2_has_zero,
    metrics.f1_weighted_nonzero,
    metrics.f1_weighted_has_zero,
    metrics.accuracy_7,
    metrics.accuracy_5,
    metrics.accuracy_7_outward,
]
names = [metric.__name__ for metric in ALL]


def test_mean_absolute_error_by_hand():
    assert metrics.mean_absolute_error(PREDICTION, TRUTH) == pytest.approx((1 + 1 + 0.1 + 0 + 0.9 + 0.9) / 6)


def test_pearson_by_hand():
    # Deviations (-1, 0, 1) and (-2, 1, 1): 3 / sqrt(2 * 6).
    assert metrics.pearson_r(np.array([1.0, 2.0, 3.0]), np.array([0.0, 3.0, 3.0])) == pytest.approx(3 / math.sqrt(12))


@pytest.mark.parametrize("constant", [0, 1], ids=["prediction", "truth"])
def test_pearson_of_a_constant_is_undefined(constant):
    pair = [np.array([1.0, 2.0]), np.array([1.0, 2.0])]
    pair[constant] = np.array([0.1, 0.1])
    assert math.isnan(metrics.pearson_r(*pair))


def test_nonzero_leaves_zeros_out_and_counts_a_prediction_of_zero_as_negative():
    # What counts are (-3, -2), (-1, 0), (0.6, 1.5), (2.5, 3.4): all right.
    assert metrics.accuracy_2_nonzero(PREDICTION, TRUTH) == 1
    assert metrics.f1_weighted_nonzero(PREDICTION, TRUTH) == 1
    assert metrics.accuracy_2_nonzero(np.array([0.0, 5.0]), np.array([1.0, 0.0])) == 0


def test_has_zero_counts_zero_as_non_negative():
    # (-1, 0) and (0, -0.1) are wrong. F1: negative 1/2 with support 2, non-negative 3/4 with support 4.
    assert metrics.accuracy_2_has_zero(PREDICTION, TRUTH) == pytest.approx(4 / 6)
    assert metrics.f1_weighted_has_zero(PREDICTION, TRUTH) == pytest.approx((2 * 0.5 + 4 * 0.75) / 6)


def test_f1_weights_by_the_truth():
    # Truth: 3 positive, 1 negative; one positive is called negative. F1: positive 4/5, negative 2/3.
    truth, prediction = np.array([1.0, 1.0, 1.0, -1.0]), np.array([1.0, 1.0, -1.0, -1.0])
    assert metrics.f1_weighted_nonzero(prediction, truth) == pytest.approx((3 * 4 / 5 + 1 * 2 / 3) / 4)
    assert metrics.f1_weighted_nonzero(prediction, truth) != pytest.approx(metrics.f1_weighted_nonzero(truth, prediction))


def test_classes_clip_and_then_round_halves_to_even():
    # Seven classes: -3/-2, -1/0, 0/0, 0/0, 1/2 (1.5 rounds to 2), 2/3 (2.5 rounds to 2, 3.4 clips to 3).
    assert metrics.accuracy_7(PREDICTION, TRUTH) == pytest.approx(2 / 6)
    # Five classes: -2/-2, -1/0, 0/0, 0/0, 1/2, 2/2.
    assert metrics.accuracy_5(PREDICTION, TRUTH) == pytest.approx(4 / 6)
    assert metrics.accuracy_7(np.array([0.5, -0.5, 9.0]), np.array([0.0, 0.0, 3.0])) == 1
    assert metrics.accuracy_5(np.array([0.5, -0.5, 1.5, -1.5, 9.0]), np.array([0.0, 0.0, 2.0, -2.0, 3.0])) == 1


def test_outward_classes_by_hand():
    # As CMU-MOSEI's README writes them, at and around each border.
    scores = np.array([-3.4, -2.1, -2.0, -1.1, -1.0, -0.1, 0.0, 0.1, 1.0, 1.1, 2.0, 2.1, 3.4])
    classes = np.array([-3.0, -3, -2, -2, -1, -1, 0, 1, 1, 2, 2, 3, 3])
    assert metrics.accuracy_7_outward(scores, classes) == 1
    assert metrics.accuracy_7_outward(np.full(13, 0.1), scores) == 2 / 13
    # -2/-3, 0/-1, -1/0, 0/0, 2/1, 3/3.
    assert metrics.accuracy_7_outward(PREDICTION, TRUTH) == pytest.approx(2 / 6)


def test_against_scikit_learn():
    generator = np.random.default_rng(0)
    truth = generator.integers(-9, 10, 500) / 3  # 0 among them
    prediction = truth + generator.normal(0, 1.5, 500)
    some = truth != 0
    weighted = {"average": "weighted"}
    sk = sklearn.metrics
    borders = (-2.0, -1.0, 0.0), (0.0, 1.0, 2.0)  # classes that end at their border from below, and those that begin after it

    def outward(scores):
        return np.searchsorted(borders[0], scores, "right") + np.searchsorted(borders[1], scores, "left")

    pairs = [
        (metrics.mean_absolute_error, sk.mean_absolute_error(truth, prediction)),
        (metrics.pearson_r, r_regression(prediction[:, None], truth)[0]),
        (metrics.accuracy_2_nonzero, sk.accuracy_score(truth[some] > 0, prediction[some] > 0)),
        (metrics.accuracy_2_has_zero, sk.accuracy_score(truth >= 0, prediction >= 0)),
        (metrics.f1_weighted_nonzero, sk.f1_score(truth[some] > 0, prediction[some] > 0, **weighted)),
        (metrics.f1_weighted_has_zero, sk.f1_score(truth >= 0, prediction >= 0, **weighted)),
        (metrics.accuracy_7, sk.accuracy_score(truth.clip(-3, 3).round(), prediction.clip(-3, 3).round())),
        (metrics.accuracy_5, sk.accuracy_score(truth.clip(-2, 2).round(), prediction.clip(-2, 2).round())),
        (metrics.accuracy_7_outward, sk.accuracy_score(outward(truth), outward(prediction))),
    ]
    for metric, expected in pairs:
        assert metric(prediction, truth) == pytest.approx(expected), metric.__name__


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    "metric", [metrics.accuracy_2_nonzero, metrics.f1_weighted_nonzero], ids=lambda metric: metric.__name__
)
def test_nonzero_of_zeros_only_is_undefined(metric):
    assert math.isnan(metric(np.array([1.0, -1.0]), np.array([0.0, 0.0])))


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("metric", ALL, ids=names)
def test_one_class_only_gives_no_warning(metric):
    metric(np.array([1.0, 2.0]), np.array([2.0, 1.0]))
    metric(np.array([-1.0, -2.0]), np.array([2.0, 1.0]))


@pytest.mark.parametrize("metric", ALL, ids=names)
def test_refuses_what_cannot_be_compared(metric):
    with pytest.raises(ValueError, match="must both be"):
        metric(np.zeros(2), np.zeros(3))
    with pytest.raises(ValueError, match="must both be"):
        metric(np.zeros((2, 1)), np.zeros((2, 1)))
    with pytest.raises(ValueError, match="must both be"):
        metric(np.zeros(0), np.zeros(0))
    with pytest.raises(ValueError, match="prediction must be finite, but 1 of 2"):
        metric(np.array([np.nan, 1.0]), np.ones(2))
