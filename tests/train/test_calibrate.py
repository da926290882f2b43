import numpy as np
import pytest
import torch

from models.causal import SCORE_LIMIT
from models.mmlatch import CausalMMLatch, CausalMMLatchConfig
from train import calibrate

RANDOM = np.random.default_rng(0)


def test_uncertainties_that_are_too_small_become_right() -> None:
    true = RANDOM.uniform(0.3, 1.6, 4000)
    error = RANDOM.normal(0, true)
    logit = np.log(true / SCORE_LIMIT / (1 - true / SCORE_LIMIT))
    said = SCORE_LIMIT / (1 + np.exp(-(0.5 * logit - 1.0)))  # of another slope, and too small
    a, b = calibrate.fitted(said, error)
    assert a == pytest.approx(2.0, abs=0.2)
    assert b == pytest.approx(2.0, abs=0.25)
    before, after = (calibrate.calibration_error(calibrate.reliability(u, error)) for u in (said, true))
    assert after < 0.06 < before


def test_the_head_is_changed_and_the_sentiment_is_not() -> None:
    model = CausalMMLatch.untrained(CausalMMLatchConfig(text=4, audio=3, vision=2, hidden=8, max_steps=6))
    windows = {lane: torch.randn(2, 5, width + 2) for lane, width in (("text", 4), ("audio", 3), ("vision", 2))}
    with torch.inference_mode():
        before, _ = model(windows, model.initial_state(2))
    calibrate.apply(model, 2.0, -0.5)
    with torch.inference_mode():
        after, _ = model(windows, model.initial_state(2))
    assert torch.equal(before.sentiment, after.sentiment)
    expected = SCORE_LIMIT * (2 * (before.uncertainty / SCORE_LIMIT).logit() - 0.5).sigmoid()
    assert torch.allclose(after.uncertainty, expected, atol=1e-5)


def test_reliability_has_groups_of_like_size_in_order() -> None:
    uncertainty, error = RANDOM.uniform(0.1, 2, 101), RANDOM.normal(size=101)
    groups = calibrate.reliability(uncertainty, error, bins=8)
    assert sum(group.size for group in groups) == 101
    assert max(group.size for group in groups) - min(group.size for group in groups) <= 1
    assert [group.expected for group in groups] == sorted(group.expected for group in groups)
