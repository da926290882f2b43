"""What training makes small: errors at every step, more of them towards the utterance's end."""

from typing import NamedTuple

import torch
from torch import Tensor

from models.causal import Prediction
from train.config import FitConfig

_STEEP = 2.0  # of the sign's logistic loss, by sentiment
_LEAST = 0.05  # of an uncertainty, so that one lucky sequence is not worth everything


class Parts(NamedTuple):
    """The terms, each the mean over sequences.

    Attributes:
        error: The absolute error of the sentiment.
        sign: The logistic loss of its sign, where the target has one.
        spread: The negative log likelihood, to a constant, of the error under a normal distribution as wide as `uncertainty`.
    """

    error: Tensor
    sign: Tensor
    spread: Tensor

    def total(self, config: FitConfig) -> Tensor:
        """Their weighted sum."""
        return self.error + config.sign * self.sign + config.spread * self.spread


def sign_loss(sentiment: Tensor, truth: Tensor) -> Tensor:
    """The logistic loss of the sign, for each; less where the truth is nearer to 0 than 1, none where it is 0."""
    return torch.nn.functional.softplus(-_STEEP * sentiment * truth.sign()) * truth.abs().clamp(max=1)


def objective(prediction: Prediction, target: Tensor, steps: Tensor, *, ramp: float) -> Parts:
    """The terms of a batch.

    Args:
        prediction: Of sequences padded to T.
        target: (B,), in [-3, 3].
        steps: How long each sequence is, (B,), 1 to T.
        ramp: Step t of n counts as (t / n) ** ramp; 0 for all the same.
    """
    numbers = torch.arange(1, prediction.sentiment.shape[1] + 1, device=steps.device)
    share = (numbers / steps[:, None]) ** ramp * (numbers <= steps[:, None])  # (B, T)
    share = share / share.sum(1, keepdim=True)

    def mean(x: Tensor) -> Tensor:
        return (x * share).sum(1).mean()

    sentiment, truth = prediction.sentiment.float(), target[:, None]
    uncertainty = prediction.uncertainty.float().clamp_min(_LEAST)
    error = (sentiment - truth).abs()
    sign = sign_loss(sentiment, truth)
    # The error is given: a large uncertainty must not be an excuse for it.
    spread = uncertainty.log() + error.detach().square() / (2 * uncertainty.square())
    return Parts(mean(error), mean(sign), mean(spread))
