"""Making the uncertainty honest: of errors where it says 1, the root mean square should be 1.

The model's uncertainty is 3 * sigmoid(u). After training, u is replaced by a * u + b, a and b giving the errors on validation
data the greatest likelihood (Platt's scaling, for a width instead of a probability). They go into the head's weights, so the
model is otherwise as it was. Idea: C. Guo et al., "On Calibration of Modern Neural Networks", ICML 2017.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from models.causal import SCORE_LIMIT, CausalModel

Scores = npt.NDArray[np.floating]

_NEAR = 1e-4  # of the ends of the range, where u would be infinite


class Bin(NamedTuple):
    """Predictions of about the same uncertainty: how many, its root mean square, and that of their errors."""

    size: int
    expected: float
    found: float


def fitted(uncertainty: Scores, error: Scores) -> tuple[float, float]:
    """The a and b for uncertainties and errors, (N,) each."""
    share = torch.from_numpy(np.clip(np.asarray(uncertainty, np.float64) / SCORE_LIMIT, _NEAR, 1 - _NEAR))
    logit, squared = share.logit(), torch.from_numpy(np.asarray(error, np.float64) ** 2)
    change = torch.tensor([1.0, 0.0], dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.LBFGS([change], max_iter=100, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        optimiser.zero_grad()
        sigma = SCORE_LIMIT * (change[0] * logit + change[1]).sigmoid()
        value = (sigma.log() + squared / (2 * sigma.square())).mean()
        value.backward()
        return value

    optimiser.step(loss)
    a, b = change.detach().tolist()
    return a, b


def apply(model: CausalModel, a: float, b: float) -> None:
    """Change the model's head so that u becomes a * u + b."""
    with torch.no_grad():
        model.head.weight[1] *= a
        model.head.bias[1].mul_(a).add_(b)


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
