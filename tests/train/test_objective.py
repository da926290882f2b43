import pytest
import torch

from models.causal import Prediction
from train.objective import objective


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
