"""Training offline: the same bits from the same seed, something learned, the right epoch kept."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from models.causal import MODALITIES
from tests.train.one_line import error_of
from tests.train.segments import SHAPES, WIDTHS, segments
from train import offline
from train.data.aligned import Segments
from train.offline import Fitted, fit, predicted
from train.recipe import Recipe, SwapConfig
from train.systems import Trained, batch_of

CPU = torch.device("cpu")
FAST = {"epochs": 3, "batch": 8, "patience": 3, "learning_rate": 0.01}
SPLITS = [
    (*each, every_step) for each in SHAPES for every_step in (False, True) if each != ("mfm", "published") or not every_step
]
each_case = pytest.mark.parametrize(("system", "form", "every_step"), SPLITS)


def recipe_of(system: str = "late-fusion", form: str = "published", *, shape: Any = None, **config: Any) -> Recipe:
    shape = SHAPES[system, form] | (shape or {})
    return Recipe.model_validate({"system": system, "form": form, "shape": shape, "fit": FAST | config, "standardise": True})


def fitted(recipe: Recipe, train: Segments, valid: Segments | None, seed: int = 0, **more: Any) -> Fitted:
    return fit(recipe, train, valid, seed=seed, device=CPU, **more)


def assert_same(one: Fitted, other: Fitted) -> None:
    assert one.epochs == other.epochs
    assert_close(one.system.state_dict(), other.system.state_dict(), rtol=0, atol=0)


# Seeds.


@pytest.mark.parametrize("form", ["published", "causal"])
def test_the_same_seed_gives_the_same_bits_and_another_others(form: str) -> None:
    train, valid = segments(), segments(seed=1)
    recipe = recipe_of("mmlatch", form, noise=0.1, swap={"audio": 0.3})
    first = fitted(recipe, train, valid)
    torch.rand(7)  # whatever was drawn before
    np.random.default_rng().random()
    assert_same(fitted(recipe, train, valid), first)
    other = fitted(recipe, train, valid, seed=1)
    assert [epoch.loss for epoch in other.epochs] != [epoch.loss for epoch in first.epochs]


def test_segments_come_in_another_order_in_every_epoch_and_each_once(monkeypatch: pytest.MonkeyPatch) -> None:
    train, rows = segments(20), []

    def noted(data: Segments, chosen: list[int], device: torch.device) -> Any:
        if data is train:
            rows.append(chosen)
        return batch_of(data, chosen, device)

    monkeypatch.setattr(offline, "batch_of", noted)
    fitted(recipe_of(), train, segments(seed=1))
    assert [len(each) for each in rows] == [8, 8, 4] * 3
    epochs = [[*rows[first], *rows[first + 1], *rows[first + 2]] for first in (0, 3, 6)]
    assert all(sorted(each) == list(range(20)) for each in epochs)
    assert len({tuple(each) for each in epochs}) == 3


# Learning.


@each_case
def test_what_can_be_learned_is_learned(system: str, form: str, every_step: bool) -> None:
    train, valid, test = (segments(96, every_step=every_step, seed=seed) for seed in range(3))
    recipe = recipe_of(system, form, epochs=15, batch=16, patience=15)
    found = fitted(recipe, train, valid)
    scores, truths = predicted(found.system, test, CPU)
    assert scores.shape == truths.shape == (test.labels[~np.isnan(test.labels)].size,)
    of_the_median = np.abs(truths - np.median(train.labels[~np.isnan(train.labels)])).mean()
    assert np.abs(scores - truths).mean() < 0.5 * of_the_median
    positive = (truths > 0).mean()
    assert ((scores > 0) == (truths > 0)).mean() > max(positive, 1 - positive) + 0.2


def test_scores_and_truths_stand_in_the_order_of_segments_and_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(offline, "_SCORED", 5)
    data = segments(12, every_step=True)
    found = fitted(recipe_of(), data, data)
    scores, truths = predicted(found.system, data, CPU)
    assert np.array_equal(truths, data.labels[~np.isnan(data.labels)])
    with torch.inference_mode():
        one_by_one = [found.system.scores(batch_of(data, [row], CPU))[0].numpy() for row in range(12)]
    assert np.allclose(scores, np.concatenate(one_by_one), atol=1e-5)
    assert not found.system.training


@pytest.mark.parametrize("form", ["published", "causal"])
def test_a_modality_that_is_not_given_is_not_learned_from(form: str) -> None:
    train, valid = segments(48), segments(48, seed=1)
    for data in (train, valid):
        data.inputs["audio"][...] = 0.0
    other = replace(train, inputs=train.inputs | {"audio": np.ones_like(train.inputs["audio"])})
    recipe = recipe_of("mmlatch", form, swap={"audio": 0.5})
    one, two = (fitted(recipe, each, valid, modalities=("text", "vision")) for each in (train, other))
    assert one.epochs == two.epochs


# Which epoch is kept.


class Errors:
    """Validation errors from a list, and the weights that each was of."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, errors: list[float]) -> None:
        self._errors, self.weights = iter(errors), list[dict[str, torch.Tensor]]()
        monkeypatch.setattr(offline, "_error", self)

    def __call__(self, system: Trained, *_: Any) -> float:
        self.weights.append({name: value.clone() for name, value in system.state_dict().items()})
        return next(self._errors)


def test_the_best_epoch_is_kept_and_patience_ends_the_training(monkeypatch: pytest.MonkeyPatch) -> None:
    errors = Errors(monkeypatch, [3.0, 2.0, 2.5, 1.0, 1.0, math.nan, 1.5, 0.5])
    found = fitted(recipe_of(epochs=9), segments(), segments(seed=1))
    assert [epoch.number for epoch in found.epochs] == [1, 2, 3, 4, 5, 6, 7]
    assert found.error == 1.0
    assert_close(found.system.state_dict(), errors.weights[3], rtol=0, atol=0)
    assert any(not torch.equal(x, errors.weights[-1][name]) for name, x in found.system.state_dict().items())


def test_a_training_that_comes_to_nothing_has_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    Errors(monkeypatch, [math.nan] * 3)
    found = fitted(recipe_of(), segments(), segments(seed=1))
    assert found.error == math.inf
    assert len(found.epochs) == 3


def test_an_epochs_error_is_the_mean_absolute_error_on_the_validation_split() -> None:
    valid = segments(seed=1)
    found = fitted(recipe_of(epochs=1), segments(), valid)
    scores, truths = predicted(found.system, valid, CPU)
    assert found.epochs[0].error == found.error == pytest.approx(np.abs(scores - truths).mean())


@pytest.mark.parametrize(("average", "shares"), [(0.0, [0, 0, 1]), (0.9, [1 / 3, 1 / 3, 1 / 3]), (0.4, [0.16, 0.24, 0.6])])
def test_without_validation_the_weights_are_an_average_over_the_epochs(average: float, shares: list[float]) -> None:
    """Of the first epochs a plain mean, until what `average` says keeps less."""
    train = segments(every_step=True)
    lone = [fitted(recipe_of(epochs=number, patience=0), train, None).system.state_dict() for number in (1, 2, 3)]
    found = fitted(recipe_of(epochs=3, patience=0, average=average), train, None)
    expected = {name: sum(share * each[name] for share, each in zip(shares, lone, strict=True)) for name in lone[0]}
    assert_close(found.system.state_dict(), expected, rtol=0, atol=1e-6)
    assert found.error == math.inf
    assert all(math.isnan(epoch.error) for epoch in found.epochs)


@pytest.mark.parametrize(("patience", "there"), [(0, True), (3, False)])
def test_patience_is_for_what_can_be_validated(patience: int, there: bool) -> None:
    text = error_of(lambda: fitted(recipe_of(patience=patience), segments(), segments() if there else None), ValueError)
    assert text.startswith("fit.patience is for data with a validation split")


# The optimisation.


def test_the_learning_rate_drops_when_validation_does_not_improve(monkeypatch: pytest.MonkeyPatch) -> None:
    rates: list[float] = []
    step = torch.optim.Adam.step

    def noted(self: torch.optim.Adam, *arguments: Any) -> Any:
        rates.append(self.param_groups[0]["lr"])
        return step(self, *arguments)

    monkeypatch.setattr(torch.optim.Adam, "step", noted)
    Errors(monkeypatch, [1.0, 2.0, 2.0, 2.0, 2.0, 2.0])
    schedule = {"factor": 0.5, "patience": 1, "least": 0.004}
    fitted(recipe_of(epochs=6, batch=24, patience=9, schedule=schedule), segments(), segments(seed=1))
    assert rates == [0.01, 0.01, 0.01, 0.005, 0.005, 0.004]


@pytest.mark.parametrize(("clip", "clipped"), [(0.0, False), (0.01, True)])
def test_gradients_are_no_longer_than_clip_says(monkeypatch: pytest.MonkeyPatch, clip: float, clipped: bool) -> None:
    longest: list[float] = []
    step = torch.optim.Adam.step

    def noted(self: torch.optim.Adam, *arguments: Any) -> Any:
        gradients = [each.grad for each in self.param_groups[0]["params"] if each.grad is not None]
        longest.append(float(torch.cat([each.flatten() for each in gradients]).norm()))
        return step(self, *arguments)

    monkeypatch.setattr(torch.optim.Adam, "step", noted)
    fitted(recipe_of(clip=clip), segments(), segments(seed=1))
    assert (max(longest) <= 0.01 * 1.001) == clipped


def test_the_sign_counts_as_the_recipe_says() -> None:
    train = segments()
    plain, signed = (
        fitted(recipe_of(epochs=1, batch=24, shape={"dropout": 0.0}, sign=sign), train, train) for sign in (0, 2.0)
    )
    assert signed.epochs[0].loss > plain.epochs[0].loss + 0.1


# Swaps.


def test_about_the_share_asked_for_is_swapped_with_steps_that_are_real() -> None:
    """Every real step is marked by its own number, so where a step is from can be told."""
    data = segments(400)
    there = np.arange(5) < data.lengths["text"][:, None]
    numbers = np.arange(1, 2001, dtype=np.float32).reshape(400, 5)
    inputs = {m: np.repeat((numbers * there)[..., None], width, 2) for m, width in WIDTHS.items()}
    data = replace(data, inputs=inputs)
    batch = batch_of(data, range(400), CPU)
    found = offline._swapped(batch, data, SwapConfig(audio=0.3, vision=1.0), np.random.default_rng(0))
    assert found.inputs["text"] is batch.inputs["text"]
    assert found.labels is batch.labels
    assert found.lengths is batch.lengths
    real = set((numbers * there)[there].tolist())
    for m, share in (("audio", 0.3), ("vision", 1.0)):
        after, before = found.inputs[m].numpy(), data.inputs[m]
        assert (after == after[..., :1]).all()  # the whole step
        changed = (after != before).any(-1)[there]
        assert changed.mean() == pytest.approx(share, abs=0.05)
        assert set(after[..., 0][there].tolist()) <= real
        assert len(set(after[..., 0][there].tolist())) > 300
        assert np.array_equal(before, inputs[m])  # the train split itself stays as it is, and so does the batch
        assert np.array_equal(batch.inputs[m].numpy(), inputs[m])
    assert len(set((found.inputs["vision"].numpy()[..., 0][there] - 1) // 5)) > 200


def test_nothing_is_swapped_if_nothing_is_asked_for() -> None:
    data = segments()
    batch = batch_of(data, range(24), CPU)
    found = offline._swapped(batch, data, SwapConfig(), np.random.default_rng(0))
    assert all(found.inputs[m] is batch.inputs[m] for m in MODALITIES)
