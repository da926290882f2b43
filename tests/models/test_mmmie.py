"""MMMIE, reconstructed: by formula; what its identity embedding tells; and the information that its features have."""

from functools import cache, partial
from typing import Any, Literal, get_args

import pytest
import torch
from torch import Tensor, nn

from models.causal import MODALITIES
from models.layers import positions
from models.mmmie import CausalMMMIE, Information
from tests.models import test_causal
from tests.models.formulas import attend, feed_forward, head, lanes_of, lstm, mean_so_far, normalise, project, seen_so_far
from tests.models.test_causal import (
    HIDDEN,
    LOOK_BACK,
    SIZES,
    STEPS,
    Inputs,
    assert_alike,
    begun,
    followed,
    gradients,
    in_chunks,
    rows,
    windows,
)

Bound = Literal["infonce", "ba"]
COUNT = 40

each_identity = pytest.mark.parametrize("identity", ["modality", "place"])
each_bound = pytest.mark.parametrize("bound", get_args(Bound))
each_lane = pytest.mark.parametrize("m", range(3), ids=MODALITIES)


def made(**config: Any) -> CausalMMMIE:
    model = test_causal.made("mmmie", **config)
    assert isinstance(model, CausalMMMIE)
    return model


def by_formula(model: CausalMMMIE, x: Inputs) -> tuple[Tensor, Tensor, list[Tensor]]:
    """Sentiment, uncertainty, and the lanes' features."""
    lanes = zip(model.projections, *lanes_of(model, x), strict=True)
    inputs = [torch.cat([project(each, lane), flags], -1) for each, lane, flags in lanes]
    features = [lstm(model.encoders, index, lane)[0] for index, lane in enumerate(inputs)]
    told = [feature + who[0, 0] for feature, who in zip(features, model.identities, strict=True)]
    if model.config.identity == "place":
        told = [feature + positions(torch.arange(1, STEPS + 1), model.config.hidden) for feature in told]
    x_all = torch.cat(told)  # (3 T, P)
    look = partial(attend, seen_so_far(STEPS, LOOK_BACK).tile(3, 3))
    for layer in model.layers:
        x_all = x_all + look(layer.attention, 0, normalise(x_all), normalise(x_all))
        x_all = x_all + feed_forward(layer.network, 0, normalise(x_all))
    read = torch.cat(normalise(x_all).chunk(3), -1)
    return *head(model, torch.cat([mean_so_far(read), read], -1)), features


@each_identity
def test_it_is_that_of_the_formula(identity: str, device: str) -> None:
    model, x = made(identity=identity), windows()
    expected = [by_formula(model, rows(x, slot)) for slot in range(2)]
    model.to(device)
    found, _, features = model.analyse({m: value.to(device) for m, value in x.items()}, begun(model))
    assert features.shape == (3, 2, STEPS, HIDDEN)
    for slot, (sentiment, uncertainty, lanes) in enumerate(expected):
        assert_alike(found.sentiment[slot].cpu(), sentiment, 1e-5)
        assert_alike(found.uncertainty[slot].cpu(), uncertainty, 1e-5)
        assert_alike(features[:, slot].cpu(), torch.stack(lanes), 1e-5)


def test_an_analysis_predicts_the_same() -> None:
    model, x = made(), windows()
    prediction, state, _ = model.analyse(x, begun(model))
    expected, end = model(x, begun(model))
    assert_alike(prediction, expected)
    assert_alike(vars(state), vars(end))


@each_lane
def test_a_lanes_features_see_the_past_of_that_lane_alone(m: int) -> None:
    model, x = made(), followed(windows())
    _, _, features = model.analyse(x, begun(model))
    for lane, gradient in enumerate(gradients(features[m, :, 5].sum(), x).values()):
        past = slice(0, 6 if lane == m else 0)
        assert (gradient[:, past].abs().sum(-1) > 0).all()
        assert gradient.count_nonzero() == gradient[:, past].count_nonzero()


def dumb(**config: Any) -> CausalMMMIE:
    """A model whose features are all nothing, whatever goes in."""
    model = made(**config)
    for weight in model.encoders.parameters():
        nn.init.zeros_(weight)
    return model


def test_with_the_place_told_the_same_window_elsewhere_gives_another_score() -> None:
    found, _ = dumb(identity="place")(windows(1), begun(made(), 1))
    assert len({round(score, 5) for score in found.sentiment[0].tolist()}) == STEPS
    found, _ = dumb(identity="modality")(windows(1), begun(made(), 1))
    assert_alike(found.sentiment, found.sentiment[:, :1].expand(1, STEPS), 1e-5)


@torch.no_grad()
def test_places_are_counted_from_the_utterances_beginning_on() -> None:
    model, x = dumb(), windows(2)
    expected, state = in_chunks(model, x, [5, 7], begun(model))
    found, _ = model(x, state.reset(torch.tensor([True, False])))
    assert_alike(found.sentiment[0], expected.sentiment[0], 1e-5)
    assert (found.sentiment[1] - expected.sentiment[1]).abs().max() > 1e-3


@each_identity
@each_lane
@torch.no_grad()
def test_who_says_something_matters(m: int, identity: str) -> None:
    model, x = dumb(identity=identity), windows()
    before, _ = model(x, begun(model))
    model.identities[m] *= -1
    assert (model(x, begun(model))[0].sentiment - before.sentiment).abs().min() > 1e-4


# The information.


def information(*, shared: float = 1.0, kept: float = 1.0, bound: Bound = "infonce") -> Information:
    torch.manual_seed(0)
    return Information(made().config, shared=shared, kept=kept, bound=bound)


def told(count: int = COUNT) -> tuple[list[Tensor], Tensor, Tensor]:
    """Inputs, features that tell of them and of each other, and lanes that all are there."""
    random = torch.Generator().manual_seed(1)
    cause = torch.randn(count, HIDDEN, generator=random)
    inputs = [torch.randn(count, size, generator=random) for size in SIZES.values()]
    features = [0.5 * cause + x @ torch.randn(x.shape[1], HIDDEN, generator=random) for x in inputs]
    return inputs, torch.stack(features).tanh(), torch.ones(3, count, dtype=torch.bool)


@cache
def fitted(bound: Bound = "infonce") -> Information:
    """Estimators that know what `told` tells; they are shared by tests."""
    about = information(bound=bound)
    optimiser = torch.optim.Adam(about.parameters(), 1e-2)
    for _ in range(60):
        optimiser.zero_grad()
        terms = about(*told())
        (terms["fitting"] + terms["shared"]).backward()
        optimiser.step()
    optimiser.zero_grad()
    return about


def moved(about: Information) -> set[str]:
    """Which estimators have gradients."""
    return {name for name, each in about.named_parameters() if each.grad is not None and each.grad.any()}


def of(about: Information, part: str) -> set[str]:
    return {name for name, _ in about.named_parameters() if name.startswith(part)}


@each_bound
def test_the_terms_are_finite_and_named(bound: Bound) -> None:
    terms = information(bound=bound)(*told())
    assert set(terms) == {"shared", "kept", "fitting"}
    assert all(term.shape == () and term.isfinite() for term in terms.values())


@each_bound
def test_sharing_moves_the_features_and_what_bounds_it(bound: Bound) -> None:
    about, (inputs, features, there) = information(bound=bound), told()
    features.requires_grad_()
    about(inputs, features, there)["shared"].backward()
    assert features.grad is not None
    assert (features.grad.abs().sum(-1) > 0).all()
    assert moved(about) <= of(about, "shared")
    assert {name.split(".")[1] for name in moved(about)} == {"0", "1", "2"}


def test_what_is_kept_moves_the_features_and_no_estimator() -> None:
    about, (inputs, features, there) = fitted(), told()
    for x in (features, *inputs):
        x.requires_grad_()
    kept = about(inputs, features, there)["kept"]
    kept.backward()
    assert kept > 0
    assert features.grad is not None
    assert (features.grad.abs().sum(-1) > 0).all()
    assert moved(about) == set()
    assert all(x.grad is None for x in inputs)
    assert all(weight.requires_grad for weight in about.parameters())


def test_fitting_moves_the_estimators_and_not_the_features() -> None:
    about, (inputs, features, there) = information(), told()
    for x in (features, *inputs):
        x.requires_grad_()
    about(inputs, features, there)["fitting"].backward()
    assert moved(about) == of(about, "kept")
    assert all(x.grad is None for x in (features, *inputs))


@each_bound
def test_fitted_the_estimators_find_what_features_tell(bound: Bound) -> None:
    before, after = information(bound=bound)(*told()), fitted(bound)(*told())
    assert after["fitting"] < before["fitting"]
    assert after["shared"] < before["shared"]  # the bound is higher
    assert after["kept"] > 0


def test_features_that_tell_nothing_keep_less() -> None:
    about, (inputs, features, there) = fitted(), told()
    strangers = [x[torch.randperm(COUNT, generator=torch.Generator().manual_seed(0))] for x in inputs]
    assert about(strangers, features, there)["kept"] < 0.2 * about(inputs, features, there)["kept"]


def test_less_than_nothing_cannot_be_kept() -> None:
    inputs, features, there = told()
    features = (-features).requires_grad_()  # likelier with any input but their own
    for q, x, y in zip(fitted().kept, inputs, features, strict=True):
        assert q.upper_bound(x, y) < 0
    kept = fitted()(inputs, features, there)["kept"]
    kept.backward()
    assert kept == 0
    assert features.grad is not None
    assert not features.grad.any()


@each_bound
def test_every_two_lanes_share_and_each_keeps(bound: Bound) -> None:
    about, (inputs, features, there) = fitted(bound), told()
    text, audio, vision = features
    terms = about(inputs, features, there)
    pairs = zip(about.shared, [(text, audio), (text, vision), (audio, vision)], strict=True)
    assert_alike(terms["shared"], -torch.stack([each.lower_bound(*pair) for each, pair in pairs]).sum(), 1e-5)
    lanes = list(zip(about.kept, inputs, features, strict=True))
    assert_alike(terms["kept"], torch.stack([q.upper_bound(x, y) for q, x, y in lanes]).clamp_min(0).sum(), 1e-4)
    likelihoods = torch.stack([q.log_likelihood(x, y).mean() for q, x, y in lanes])
    assert_alike(terms["fitting"], -likelihoods.sum() / HIDDEN, 1e-5)


def test_terms_count_what_they_are_told_to() -> None:
    one, some = fitted()(*told()), information(shared=0.1, kept=0.01)
    some.load_state_dict(fitted().state_dict())
    found = some(*told())
    assert_alike(found, {"shared": 0.1 * one["shared"], "kept": 0.01 * one["kept"], "fitting": one["fitting"]}, 1e-5)


@each_bound
@each_lane
def test_a_lane_that_is_not_there_does_not_count(m: int, bound: Bound) -> None:
    about, (inputs, features, there) = fitted(bound), told()
    there[m, 30:] = False
    expected = about(inputs, features, there)
    assert expected != about(*told())
    features[m, 30:], inputs[m][30:] = torch.nan, torch.nan
    assert_alike(about(inputs, features, there), expected)


@each_bound
@each_lane
def test_without_a_lane_the_other_two_count(m: int, bound: Bound) -> None:
    about, (inputs, features, there) = fitted(bound), told()
    there[m] = False
    terms = about(inputs, features, there)
    one, other = (lane for lane in range(3) if lane != m)
    shared = about.shared[about.pairs.index((one, other))].lower_bound(features[one], features[other])
    assert_alike(terms["shared"], -shared, 1e-5)
    expected = [about.kept[lane].log_likelihood(inputs[lane], features[lane]).mean() for lane in (one, other)]
    assert_alike(terms["fitting"], -torch.stack(expected).sum() / HIDDEN, 1e-5)


@pytest.mark.parametrize(("bound", "least"), [("infonce", 2), ("ba", HIDDEN + 1)])
def test_too_few_to_tell_anything_count_nothing(bound: Bound, least: int) -> None:
    about = information(bound=bound)
    assert about(*told(least))["shared"] != 0
    assert about(*told(least - 1))["shared"] == 0
    assert all(term == 0 for term in about(*told(1)).values())
