from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from models.causal import FLAGS, MODALITIES, CausalModel, Prediction
from models.information import discrepancy
from models.systems import System, untrained
from tests.train.one_line import error_of
from train.config import FactorsConfig, FitConfig, InformationConfig, ObjectiveConfig
from train.errors import TrainError
from train.objective import Objective, objective

SIZES = {"text": 5, "audio": 4, "vision": 3}
PLAIN = FitConfig(ramp=0.0, sign=0.3, spread=0.2)
STEPS = torch.tensor([4, 2, 3])
TARGETS = torch.tensor([1.0, -2.0, 0.0])


def prediction(sentiment: list[list[float]], uncertainty: float = 1.0) -> Prediction:
    scores = torch.tensor(sentiment, requires_grad=True)
    return Prediction(scores, torch.full_like(scores, uncertainty).detach().requires_grad_(), torch.ones(1), {})


def test_later_steps_count_more_and_padding_nothing() -> None:
    target, steps = torch.tensor([1.0]), torch.tensor([3])
    early, late = (objective(prediction([row]), target, steps, ramp=1.0).error for row in ([0, 1, 1, 9.0], [1, 1, 0, 9.0]))
    assert early.item() == pytest.approx(1 / 6)
    assert late.item() == pytest.approx(3 / 6)
    flat = objective(prediction([[0, 1, 1, 9.0]]), target, steps, ramp=0.0).error
    assert flat.item() == pytest.approx(1 / 3)


def test_each_sequence_counts_the_same_whatever_its_length() -> None:
    terms = objective(prediction([[0, 0.0], [0, 7.0]]), torch.tensor([1.0, 3.0]), torch.tensor([2, 1]), ramp=1.0)
    assert terms.error.item() == pytest.approx(2.0)


def test_the_sign_has_no_term_where_the_target_has_none() -> None:
    neutral = objective(prediction([[2.0]]), torch.tensor([0.0]), torch.tensor([1]), ramp=1.0)
    assert neutral.sign.item() == 0
    right, wrong = (objective(prediction([[s]]), torch.tensor([2.0]), torch.tensor([1]), ramp=1.0).sign for s in (1.0, -1.0))
    assert right.item() < 0.2 < wrong.item()


def test_the_uncertainty_is_best_where_it_is_the_error_and_is_no_excuse_for_it() -> None:
    target, steps = torch.tensor([2.0]), torch.tensor([1])
    spreads = [objective(prediction([[0.5]], u), target, steps, ramp=1.0).spread.item() for u in (1.0, 1.5, 2.0)]
    assert min(spreads) == spreads[1]
    found = prediction([[0.5]], 1.5)
    objective(found, target, steps, ramp=1.0).spread.backward()
    assert found.sentiment.grad is None


def test_every_step_may_have_a_target_of_its_own() -> None:
    target = torch.tensor([[1.0, 2.0, torch.nan], [0.0, torch.nan, torch.nan]])
    found = prediction([[0, 4.0, 9], [5, 9.0, 9]])
    steps = torch.tensor([2, 1])
    flat = objective(found, target, steps, ramp=0.0)
    assert flat.error.item() == pytest.approx(((1 + 2) / 2 + 5) / 2)
    assert objective(found, target, steps, ramp=1.0).error.item() == pytest.approx(((1 + 2 * 2) / 3 + 5) / 2)
    sum(flat).backward()  # type: ignore[arg-type]
    gradient = found.sentiment.grad
    assert gradient is not None
    assert gradient.isfinite().all()
    assert (gradient != 0).tolist() == [[True, True, False], [True, False, False]]


def test_the_same_target_at_every_step_is_one_target() -> None:
    found, steps = prediction([[0, 4.0, 9], [5, 9.0, 9]]), torch.tensor([3, 2])
    one = torch.tensor([1.0, -2.0])
    assert_close(objective(found, one[:, None].expand(2, 3), steps, ramp=2.0), objective(found, one, steps, ramp=2.0))


def test_what_does_not_count_has_no_part() -> None:
    found, steps, target = prediction([[0, 1.0], [5, 9.0]]), torch.tensor([2, 2]), torch.tensor([2.0, 1.0])
    only = objective(prediction([[0, 1.0]]), target[:1], steps[:1], ramp=1.0)
    assert_close(objective(found, target, steps, ramp=1.0, counted=torch.tensor([True, False])), only)
    nothing = objective(found, target, steps, ramp=1.0, counted=torch.tensor([False, False]))
    assert [term.item() for term in nothing] == [0, 0, 0]


# What systems add.


def model_of(system: System, **config: Any) -> CausalModel:
    return untrained(system, seed=1, **SIZES, hidden=8, max_steps=6, dropout=0.0, **config).train()


def windows(missing: tuple[str, ...] = ()) -> dict[str, Tensor]:
    random = torch.Generator().manual_seed(0)
    there = (torch.arange(4) < STEPS[:, None])[..., None]
    found = {}
    for m, size in SIZES.items():
        x = torch.cat([torch.randn(3, 4, size, generator=random), torch.ones(3, 4, FLAGS)], -1)
        found[m] = x * there * (m not in missing)
    return found


def terms_of(model: CausalModel, lanes: dict[str, Tensor], **config: Any) -> tuple[Tensor, dict[str, Tensor]]:
    torch.manual_seed(0)
    found = Objective(model, PLAIN, ObjectiveConfig(**config))
    torch.manual_seed(0)
    return found(model, lanes, TARGETS, STEPS)


def test_batches_too_small_for_a_covariance_are_one_line() -> None:
    model = model_of("mmmie")
    config = ObjectiveConfig(information=InformationConfig(bound="ba"))
    least = model.config.hidden + 1
    Objective(model, FitConfig(batch=least), config)
    text = error_of(lambda: Objective(model, FitConfig(batch=least - 1), config), TrainError)
    assert f"expected fit.batch {least} or more, got {least - 1}; or take the bound infonce" in text


@pytest.mark.parametrize("system", ["mmlatch", "late-fusion", "mult"])
def test_most_systems_add_nothing(system: System) -> None:
    model, lanes = model_of(system), windows()
    total, terms = terms_of(model, lanes)
    assert set(terms) == {"error", "sign", "spread"}
    expected = objective(model(lanes, model.initial_state(3))[0], TARGETS, STEPS, ramp=0.0)
    assert_close(terms, expected._asdict())
    assert total.item() == pytest.approx(expected.error.item() + 0.3 * expected.sign.item() + 0.2 * expected.spread.item())
    assert not list(Objective(model, PLAIN, ObjectiveConfig()).parameters())


FACTORS = {"made", "discrepancy", "score without", "surrogates", "made without"}
INFORMATION = {"shared", "kept", "fitting"}


@pytest.mark.parametrize(("system", "added"), [("mfm", FACTORS), ("mmmie", INFORMATION)])
def test_what_a_system_adds_is_added_and_every_weight_learns(system: System, added: set[str]) -> None:
    model = model_of(system)
    parts = Objective(model, PLAIN, ObjectiveConfig())
    total, terms = parts(model, windows(), TARGETS, STEPS)
    assert set(terms) == {"error", "sign", "spread"} | added
    expected = terms["error"] + 0.3 * terms["sign"] + 0.2 * terms["spread"] + sum(terms[name] for name in added)
    assert_close(total, expected)
    total.backward()
    weights = [*model.named_parameters(), *parts.named_parameters()]
    assert [name for name, each in weights if each.grad is None or not each.grad.isfinite().all()] == []
    assert bool(list(parts.parameters())) == (system == "mmmie")


@pytest.mark.parametrize("system", ["mfm", "mmmie"])
@pytest.mark.parametrize("missing", [("audio",), ("text", "vision"), MODALITIES], ids="+".join)
def test_what_is_missing_makes_nothing_but_finite_terms(system: System, missing: tuple[str, ...]) -> None:
    model = model_of(system)
    total, terms = terms_of(model, windows(missing))
    assert all(term.isfinite() for term in terms.values())
    total.backward()
    assert all(each.grad is None or each.grad.isfinite().all() for each in model.parameters())


@pytest.mark.parametrize("system", ["mfm", "mmmie"])
def test_targets_of_every_step_are_for_every_system(system: System) -> None:
    model = model_of(system)
    targets = TARGETS[:, None].expand(3, 4).clone()
    targets[torch.arange(4) >= STEPS[:, None]] = torch.nan
    torch.manual_seed(0)
    parts = Objective(model, PLAIN, ObjectiveConfig())
    found = []
    for each in (TARGETS, targets):
        torch.manual_seed(0)
        found.append(parts(model, windows(), each, STEPS))
    assert_close(found[0], found[1])


def test_the_terms_of_mfm_are_those_of_its_parts() -> None:
    model, lanes = model_of("mfm"), windows()
    weights = FactorsConfig(text=2.0, audio=3.0, vision=5.0, discrepancy=7.0, missing=11.0)
    _, terms = terms_of(model, lanes, factors=weights)
    found = model.analyse(lanes, model.initial_state(3))  # type: ignore[operator]
    there = torch.arange(4) < STEPS[:, None]

    def made(again: list[Tensor]) -> float:
        pairs = zip((2.0, 3.0, 5.0), again, found.features, strict=True)
        return sum(weight * (x - y)[there].square().mean().item() for weight, x, y in pairs)

    assert terms["made"].item() == pytest.approx(made(found.made), rel=1e-4)
    assert terms["made without"].item() == pytest.approx(11 * made(found.made_without), rel=1e-4)
    torch.manual_seed(0)
    last = found.codes[:, torch.arange(3), STEPS - 1]
    assert terms["discrepancy"].item() == pytest.approx(
        7 * sum(discrepancy(torch.randn_like(code), code).item() for code in last), rel=1e-4
    )
    guesses = [
        (guess - code)[there].square().mean().item()
        for number in range(3)
        for guess, code in ((found.guessed[number], found.codes[number]), (found.guessed_joint[number], found.codes[-1]))
    ]
    assert terms["surrogates"].item() == pytest.approx(11 * sum(guesses) / 6, rel=1e-4)
    without = [
        objective(
            found.without._replace(sentiment=found.without.sentiment[n], uncertainty=found.without.uncertainty[n]),
            TARGETS,
            STEPS,
            ramp=0.0,
        ).total(PLAIN)
        for n in range(3)
    ]
    assert terms["score without"].item() == pytest.approx(11 * torch.stack(without).mean().item(), rel=1e-4)


def test_of_what_is_not_there_mfm_makes_nothing_again() -> None:
    model, lanes = model_of("mfm"), windows(("audio",))
    one, other = (terms_of(model, lanes, factors=FactorsConfig(audio=audio))[1] for audio in (0.1, 99.0))
    assert_close(one, other)
    # Without the one lane that is there a surrogate sees nothing, so its score does not count.
    alone = windows(("audio", "vision"))
    found = model.analyse(alone, model.initial_state(3))  # type: ignore[operator]
    scores = [
        objective(
            found.without._replace(sentiment=found.without.sentiment[n], uncertainty=found.without.uncertainty[n]),
            TARGETS,
            STEPS,
            ramp=0.0,
        ).total(PLAIN)
        for n in (1, 2)
    ]
    expected = torch.stack(scores).sum().item() / 3
    assert terms_of(model, alone)[1]["score without"].item() == pytest.approx(expected, rel=1e-4)


def test_mmmie_takes_the_newest_step_of_each_sequence() -> None:
    """What stands before it or after it in the inputs is not asked about, but by way of the features."""
    model = model_of("mmmie")
    parts = Objective(model, PLAIN, ObjectiveConfig(information=InformationConfig(shared=2.0, kept=3.0)))
    lanes = windows()
    lanes["audio"][0, STEPS[0] - 1] = 0  # it was there before
    lanes["vision"][1, 0] = 0  # it was not
    there = torch.tensor([[True] * 3, [False, True, True], [True] * 3])
    _, terms = parts(model, lanes, TARGETS, STEPS)
    _, _, features = model.analyse(lanes, model.initial_state(3))  # type: ignore[operator]
    rows = torch.arange(3)
    inputs = [each(lanes[m][..., :-FLAGS])[rows, STEPS - 1] for m, each in model.spreads.items()]
    information = parts.information
    assert information is not None
    expected = information(inputs, features[:, rows, STEPS - 1], there)
    assert_close({name: terms[name] for name in INFORMATION}, expected)
    assert (information.weight_shared, information.weight_kept) == (2.0, 3.0)
