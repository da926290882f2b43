"""Making the uncertainty honest: of errors where it says 1, the root mean square should be 1.

The model's uncertainty is 3 * sigmoid(w h + b), where h is what its head reads. In training it learns from errors on the
training data, which are smaller than those on people and sentences never met before, and not by the same in every lane. So after
training w and b are fitted anew on validation data, by the errors' likelihood: every corpus counts the same, and w is held near to
what it was, how near being chosen by cross-validation inside those data. All else in the model stays. That a network needs this:
C. Guo et al., "On Calibration of Modern Neural Networks", ICML 2017.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from models.mmlatch import SCORE_LIMIT, CausalMMLatch
from train.batches import by_length, collate
from train.sequences import Sample

Scores = npt.NDArray[np.floating]

_HOLDS = (1e-3, 1e-2, 1e-1, 1.0, 10.0, 100.0)  # what a squared difference of w costs
_FOLDS = 5
_LEAST = 1e-6  # of an uncertainty, against the logarithm of 0


class Bin(NamedTuple):
    """Predictions of about the same uncertainty: how many, its root mean square, and that of their errors."""

    size: int
    expected: float
    found: float


class Evidence(NamedTuple):
    """What the head read at the last steps of sequences, and how far off the sentiment was.

    Attributes:
        read: (N, D), float64.
        error: (N,), likewise `weight`: how much each counts.
    """

    read: Tensor
    error: Tensor
    weight: Tensor

    def part(self, chosen: Tensor) -> "Evidence":
        """Those of a mask (N,)."""
        return Evidence(self.read[chosen], self.error[chosen], self.weight[chosen])


class Head(NamedTuple):
    """The uncertainty's part of the model's head: w, (D,), and b, ()."""

    weight: Tensor
    bias: Tensor

    def cost(self, evidence: Evidence) -> Tensor:
        """The mean negative log likelihood of the errors, to a constant."""
        sigma = (SCORE_LIMIT * (evidence.read @ self.weight + self.bias).sigmoid()).clamp_min(_LEAST)
        each = sigma.log() + evidence.error.square() / (2 * sigma.square())
        return (each * evidence.weight).sum() / evidence.weight.sum()


def calibrate(model: CausalMMLatch, validation: Mapping[str, Sequence[Sample]]) -> None:
    """Fit the uncertainty's part of the head to the errors on these sequences, of each corpus the last step; in place."""
    parts = [_evidence(model, samples) for samples in validation.values()]
    evidence = Evidence(*(torch.cat(each) for each in zip(*parts, strict=True)))
    before = Head(model.head.weight[1].detach().double().cpu(), model.head.bias[1].detach().double().cpu())
    after = fitted(evidence, before)
    with torch.no_grad():
        model.head.weight[1] = after.weight
        model.head.bias[1] = after.bias


def fitted(evidence: Evidence, before: Head) -> Head:
    """The head that fits the evidence best, as near to the one before as cross-validation finds right."""
    fold = torch.arange(len(evidence.error)) % _FOLDS

    def outside(hold: float) -> float:
        """The cost on what was not fitted to."""
        parts = [(evidence.part(fold != number), evidence.part(fold == number)) for number in range(_FOLDS)]
        return sum(float(_fit(inside, before, hold).cost(rest) * rest.weight.sum()) for inside, rest in parts)

    return _fit(evidence, before, min(_HOLDS, key=outside))


def _fit(evidence: Evidence, before: Head, hold: float) -> Head:
    found = Head(*(each.clone().requires_grad_() for each in before))
    optimiser = torch.optim.LBFGS(found, max_iter=100, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimiser.zero_grad()
        value = found.cost(evidence) + hold * (found.weight - before.weight).square().sum()
        value.backward()
        return value

    optimiser.step(loss)
    return Head(*(each.detach() for each in found))


def _evidence(model: CausalMMLatch, samples: Sequence[Sample]) -> Evidence:
    device = model.head.weight.device
    read = torch.empty(len(samples), model.head.in_features, dtype=torch.float64)
    seen: list[Tensor] = []
    hook = model.head.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    model.eval()
    with torch.inference_mode():
        for numbers in by_length([sample.steps for sample in samples], 64):
            lanes, _, steps = collate([samples[number] for number in numbers], device)
            model(lanes, model.initial_state(len(numbers)))
            read[numbers] = seen.pop()[torch.arange(len(numbers)), steps - 1].double().cpu()
        hook.remove()
        score = SCORE_LIMIT * model.head(read.float().to(device))[:, 0].cpu().tanh()
    target = torch.tensor([sample.target for sample in samples], dtype=torch.float64)
    return Evidence(read, score.double() - target, torch.full_like(target, 1 / len(samples)))


def reliability(uncertainty: Scores, error: Scores, bins: int = 8) -> list[Bin]:
    """Predictions in the order of their uncertainty, in as many groups of about the same size."""
    order = np.argsort(uncertainty)
    return [
        Bin(len(each), float(np.sqrt(np.mean(uncertainty[each] ** 2))), float(np.sqrt(np.mean(error[each] ** 2))))
        for each in np.array_split(order, bins)
        if len(each)
    ]


def calibration_error(groups: list[Bin]) -> float:
    """The mean difference between expected and found, by the number of predictions."""
    return sum(each.size * abs(each.expected - each.found) for each in groups) / sum(each.size for each in groups)
