"""Training of a system on a data set offline, and its scores. `train.compare` is the command."""

import copy
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from models.causal import MODALITIES
from train.data.aligned import Segments
from train.recipe import Recipe, SwapConfig
from train.systems import Batch, Trained, batch_of, made

_SCORED = 128  # segments at a time


class Epoch(NamedTuple):
    """How an epoch went: the mean loss in training, and the mean absolute error on the validation split, NaN without one."""

    number: int
    loss: float
    error: float


@dataclass(frozen=True)
class Fitted:
    """A trained system, in evaluation mode, and how it got there.

    Attributes:
        system: With the weights that were kept.
        epochs: All that were run.
        error: The least validation error; infinite where none was finite, or nothing was validated.
    """

    system: Trained
    epochs: list[Epoch]
    error: float


def fit(
    recipe: Recipe,
    train: Segments,
    valid: Segments | None,
    *,
    seed: int,
    device: torch.device,
    modalities: Sequence[str] = MODALITIES,
    longest: Mapping[str, int] | None = None,
) -> Fitted:
    """Train a system.

    Args:
        recipe: Which, and how.
        train: The train split.
        valid: The validation split, by which the epoch is chosen; None where there is none to be had, for recipes without
            `patience`.
        seed: Of the weights, of dropout and of the order.
        device: Where to.
        modalities: Those that the system is given.
        longest: How many steps a segment has at most, of each modality, in any split (default: as many as `train` has).

    Raises:
        ValueError: The recipe does not suit the data.
    """
    config = recipe.fit
    if (valid is None) != (config.patience == 0):
        raise ValueError("fit.patience is for data with a validation split, and is needed there; expected 0 without one")
    system = made(recipe, train, modalities=modalities, seed=seed, longest=longest).to(device)
    random = np.random.default_rng(seed)
    torch.manual_seed(seed)
    optimiser = torch.optim.Adam(system.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay)
    schedule = (
        torch.optim.lr_scheduler.ReduceLROnPlateau(
            optimiser,
            factor=config.schedule.factor,
            patience=config.schedule.patience,
            cooldown=config.schedule.cooldown,
            min_lr=config.schedule.least,
        )
        if config.schedule
        else None
    )
    best, best_error, best_number = copy.deepcopy(system.state_dict()), math.inf, 0
    epochs: list[Epoch] = []
    for number in range(1, config.epochs + 1):
        system.train()
        losses = []
        for batch in _batches(train, config.batch, random, device):
            optimiser.zero_grad()
            loss = system.loss(_swapped(batch, train, config.swap, random))
            loss.backward()
            if config.clip:
                torch.nn.utils.clip_grad_norm_(system.parameters(), config.clip)
            optimiser.step()
            losses.append(loss.item())
        error = _error(system, valid, device) if valid else math.nan
        epochs.append(Epoch(number, float(np.mean(losses)), error))
        if schedule:
            schedule.step(error if valid else epochs[-1].loss)
        if valid is None:
            keep = min(config.average, 1 - 1 / number)
            best = {
                name: torch.lerp(value, best[name], keep) if value.is_floating_point() else value
                for name, value in system.state_dict().items()
            }
        elif error < best_error:
            best, best_error, best_number = copy.deepcopy(system.state_dict()), error, number
        elif number - best_number >= config.patience:
            break
    system.load_state_dict(best)
    return Fitted(system.eval(), epochs, best_error)


def predicted(
    system: Trained, segments: Segments, device: torch.device
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Scores and truths of all that has a label, (N,) each, in the order of the segments and of their steps."""
    system.eval()
    scores, truths = [], []
    with torch.inference_mode():
        for first in range(0, len(segments.ids), _SCORED):
            batch = batch_of(segments, range(first, min(first + _SCORED, len(segments.ids))), device)
            found = system.scores(batch).double().cpu().numpy()
            truth = batch.labels.double().cpu().numpy()
            there = ~np.isnan(truth)
            scores.append(found[there])
            truths.append(truth[there])
    return np.concatenate(scores), np.concatenate(truths)


def _error(system: Trained, segments: Segments, device: torch.device) -> float:
    scores, truths = predicted(system, segments, device)
    return float(np.abs(scores - truths).mean())


def _batches(segments: Segments, size: int, random: np.random.Generator, device: torch.device) -> Iterator[Batch]:
    order = random.permutation(len(segments.ids))
    for first in range(0, len(order), size):
        yield batch_of(segments, order[first : first + size].tolist(), device)


def _swapped(batch: Batch, train: Segments, config: SwapConfig, random: np.random.Generator) -> Batch:
    """The batch with some steps' features replaced by those of steps from anywhere."""
    inputs = dict(batch.inputs)
    for m, x in batch.inputs.items():
        rows, steps = np.nonzero(random.random(x.shape[:2]) < getattr(config, m))
        if len(rows):
            others = random.integers(len(train.ids), size=len(rows))
            others_steps = (random.random(len(rows)) * train.lengths[m][others]).astype(np.int64)
            inputs[m] = x.clone()
            inputs[m][rows, steps] = torch.from_numpy(train.inputs[m][others, others_steps]).to(x.device)
    return batch._replace(inputs=inputs)
