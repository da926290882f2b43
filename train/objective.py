"""What training makes small: errors at every step, more of them towards the utterance's end, and what a system adds to them."""

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from models.causal import FLAGS, MODALITIES, CausalModel, Prediction
from models.information import discrepancy
from models.mfm import Analysis, CausalMFM
from models.mmmie import CausalMMMIE, Information
from train.config import FactorsConfig, FitConfig, ObjectiveConfig
from train.errors import TrainError

_STEEP = 2.0  # of the sign's logistic loss, by sentiment
_LEAST = 0.05  # of an uncertainty, so that one lucky sequence is not worth everything


class Parts(NamedTuple):
    """The terms of a prediction, each a weighted mean over sequences.

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


def objective(prediction: Prediction, target: Tensor, steps: Tensor, *, ramp: float, counted: Tensor | None = None) -> Parts:
    """The terms of a batch.

    Args:
        prediction: Of sequences padded to T.
        target: In [-3, 3], (B,), or (B, T) where every step has its own.
        steps: How long each sequence is, (B,), 1 to T.
        ramp: Step t of n counts as (t / n) ** ramp; 0 for all the same.
        counted: Which sequences count, bool, (B,); all if not given.
    """
    numbers = torch.arange(1, prediction.sentiment.shape[1] + 1, device=steps.device)
    within = numbers <= steps[:, None]  # (B, T)
    share = (numbers / steps[:, None]) ** ramp * within
    share = share / share.sum(1, keepdim=True)
    weight = torch.ones_like(steps) if counted is None else counted.int()  # (B,)

    def mean(x: Tensor) -> Tensor:
        return ((x * share).sum(1) * weight).sum() / weight.sum().clamp_min(1)

    sentiment = prediction.sentiment.float()
    truth = target[:, None] if target.ndim == 1 else target.where(within, 0.0)
    uncertainty = prediction.uncertainty.float().clamp_min(_LEAST)
    error = (sentiment - truth).abs()
    sign = sign_loss(sentiment, truth)
    # The error is given: a large uncertainty must not be an excuse for it.
    spread = uncertainty.log() + error.detach().square() / (2 * uncertainty.square())
    return Parts(mean(error), mean(sign), mean(spread))


class Objective(nn.Module):
    """What one system's training makes small; what is only fitted for that purpose are its parameters."""

    def __init__(self, model: CausalModel, fit: FitConfig, config: ObjectiveConfig) -> None:
        """Raises TrainError where batches are too small for what is to be estimated of each."""
        super().__init__()
        self._fit, self._config = fit, config
        self.information = (
            Information(model.config, **config.information.model_dump()) if isinstance(model, CausalMMMIE) else None
        )
        if self.information and fit.batch < self.information.least:
            raise TrainError(
                f"objective.information.bound {config.information.bound} estimates {model.config.hidden} columns' covariance, "
                f"expected fit.batch {self.information.least} or more, got {fit.batch}; or take the bound infonce"
            )

    def forward(
        self, model: CausalModel, lanes: Mapping[str, Tensor], targets: Tensor, steps: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Run the model over a batch; returns what is made small, and its terms by name. Arguments as in `objective`."""
        state = model.initial_state(len(targets), capacity=lanes["text"].shape[1])
        more: dict[str, Tensor] = {}
        if isinstance(model, CausalMFM):
            analysis = model.analyse(lanes, state)
            prediction = analysis.full
            more = self._factors(analysis, lanes, targets, steps)
        elif self.information is not None:
            assert isinstance(model, CausalMMMIE)
            prediction, _, features = model.analyse(lanes, state)
            last = (torch.arange(len(steps), device=steps.device), steps - 1)
            inputs = [each(lanes[m][..., :-FLAGS])[last] for m, each in model.spreads.items()]
            there = torch.stack([lanes[m][..., -1][last] > 0 for m in MODALITIES])  # (3, B)
            more = self.information(inputs, features[:, last[0], last[1]], there)
        else:
            prediction, _ = model(lanes, state)
        parts = objective(prediction, targets, steps, ramp=self._fit.ramp)
        total = torch.stack([parts.total(self._fit), *more.values()]).sum()
        return total, parts._asdict() | more

    def _factors(self, found: Analysis, lanes: Mapping[str, Tensor], targets: Tensor, steps: Tensor) -> dict[str, Tensor]:
        """The weighted terms of MFM; a lane is taken for missing where another has something."""
        config: FactorsConfig = self._config.factors
        real = torch.arange(targets.shape[0], device=steps.device)  # (B,)
        filled = torch.stack([lanes[m][..., -1] > 0 for m in MODALITIES])  # (3, B, T)
        within = torch.arange(filled.shape[2], device=steps.device) < steps[:, None]  # (B, T)
        filled = filled & within
        anything = filled.any(2)  # (3, B)
        weights = [getattr(config, m) for m in MODALITIES]

        def made(again: list[Tensor]) -> Tensor:
            """The weighted squared error of what was there, made again."""
            errors = []
            for weight, x, target, there in zip(weights, again, found.features, filled, strict=True):
                error = (x - target).square().mean(-1) * there  # (B, T)
                errors.append(weight * error.sum() / there.sum().clamp_min(1))
            return torch.stack(errors).sum()

        codes = found.codes[:, real, steps - 1]  # (4, B, code)
        scores, guesses = [], []
        for number in range(len(MODALITIES)):
            others = anything[[each for each in range(len(MODALITIES)) if each != number]].any(0)
            without = found.without._replace(
                sentiment=found.without.sentiment[number], uncertainty=found.without.uncertainty[number]
            )
            scores.append(objective(without, targets, steps, ramp=self._fit.ramp, counted=others).total(self._fit))
            shown = (filled[number] & others[:, None])[..., None]  # (B, T, 1)
            count = shown.sum().clamp_min(1) * codes.shape[-1]
            for guess, code in ((found.guessed[number], found.codes[number]), (found.guessed_joint[number], found.codes[-1])):
                guesses.append(((guess - code).square() * shown).sum() / count)
        return {
            "made": made(found.made),
            "discrepancy": config.discrepancy
            * torch.stack([discrepancy(torch.randn_like(each), each) for each in codes]).sum(),
            "score without": config.missing * torch.stack(scores).mean(),
            "surrogates": config.missing * torch.stack(guesses).mean(),
            "made without": config.missing * made(found.made_without),
        }
