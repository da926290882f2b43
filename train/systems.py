"""A system in one of its forms, behind one interface for training on a data set offline: a loss and scores of a batch."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from models import systems
from models.causal import FLAGS, MODALITIES, CausalModel
from models.checkpoint import Pretrained
from models.mfm import MFM, MFMConfig, Weights
from models.mmlatch import MMLatch, MMLatchConfig
from models.mult import MulT, MulTConfig
from train.data.aligned import Floats, Segments
from train.objective import Objective, sign_loss
from train.recipe import Recipe


class Batch(NamedTuple):
    """Segments on the device.

    Attributes:
        inputs: For each modality (B, L, D), zeros after a segment's end.
        lengths: For each modality how many steps are data, (B,).
        labels: (B,), or (B, L) with NaN after the end where every step has one.
        flags: For each modality (B, L, 2); None if every step is known and there.
    """

    inputs: dict[str, Tensor]
    lengths: dict[str, Tensor]
    labels: Tensor
    flags: dict[str, Tensor] | None = None

    @property
    def every_step(self) -> bool:
        """Whether every step has a label."""
        return self.labels.ndim == 2


def batch_of(segments: Segments, rows: Sequence[int], device: torch.device) -> Batch:
    """Some of the segments, no longer than they have to be; from a file on disk no more is read than these."""
    numbers = np.sort(np.asarray(rows))
    lengths = {m: segments.lengths[m][numbers] for m in MODALITIES}

    def steps(arrays: Mapping[str, Floats]) -> dict[str, Tensor]:
        return {m: torch.from_numpy(arrays[m][numbers, : lengths[m].max()]).to(device) for m in MODALITIES}

    labels = segments.labels[numbers]
    if labels.ndim == 2:
        labels = labels[:, : lengths["text"].max()]
    on_device = {m: torch.from_numpy(each).to(device) for m, each in lengths.items()}
    flags = steps(segments.flags) if segments.flags else None
    return Batch(steps(segments.inputs), on_device, torch.from_numpy(labels).to(device), flags)


class Trained(nn.Module, ABC):
    """A model and what its training makes small.

    Attributes:
        model: The model itself.
    """

    model: Pretrained

    @abstractmethod
    def loss(self, batch: Batch) -> Tensor:
        """What is made small, a scalar."""

    @abstractmethod
    def scores(self, batch: Batch) -> Tensor:
        """Sentiment, of the shape of the batch's labels."""


def made(
    recipe: Recipe, train: Segments, *, modalities: Sequence[str], seed: int, longest: Mapping[str, int] | None = None
) -> Trained:
    """A system before training.

    Args:
        recipe: Which, and how.
        train: What it will be trained on: says how wide the inputs are, and how they are spread.
        modalities: Those that it is given; of the others it learns nothing.
        seed: Of the weights.
        longest: How many steps a segment has at most, of each modality, in any split (default: as many as `train` has).

    Raises:
        ValueError: The recipe's shape is not one of the system's, or the system cannot be trained on such data.
    """
    widths = {m: train.inputs[m].shape[2] for m in MODALITIES}
    shape = {key: tuple(value) if isinstance(value, list) else value for key, value in recipe.shape.items()}
    longest = longest or {m: train.inputs[m].shape[1] for m in MODALITIES}
    every_step = train.labels.ndim == 2
    torch.manual_seed(seed)
    try:
        if recipe.form == "causal":
            model = systems.untrained(recipe.system, seed=seed, **widths, **({"max_steps": max(longest.values())} | shape))
            for m, spread in model.spreads.items():
                spread.measure(_measured(train, m))
                spread.noise = recipe.fit.noise
            return Causal(model.train(), recipe, modalities)
        return Published(_published(recipe, widths, shape, every_step, seed), recipe, train, modalities, longest)
    except TypeError as error:
        raise ValueError(f"shape is {recipe.shape}, which {recipe.system} does not have: {error}") from error


def _published(
    recipe: Recipe, widths: Mapping[str, int], shape: Mapping[str, object], every_step: bool, seed: int
) -> Pretrained:
    config: dict[str, object] = {**widths, **shape}
    match recipe.system:
        case "mult":
            return MulT.untrained(MulTConfig(**config, every_step=every_step), seed=seed)  # type: ignore[arg-type]
        case "mfm":
            if every_step:
                raise ValueError("the published mfm gives one score for a whole sequence; take its causal form")
            return MFM.untrained(MFMConfig(**config), seed=seed)  # type: ignore[arg-type]
        case _:
            if recipe.system == "late-fusion":
                config["feedback"] = "none"
            return MMLatch.untrained(MMLatchConfig(**config, every_step=every_step), seed=seed)  # type: ignore[arg-type]


_MEASURED = 20_000  # rows that means and deviations are taken from, evenly over the split


def _measured(segments: Segments, m: str) -> Tensor:
    """Steps that are data, (N, D)."""
    lengths = segments.lengths[m]
    rows, steps = np.nonzero(np.arange(segments.inputs[m].shape[1]) < lengths[:, None])
    chosen = np.unique(np.linspace(0, len(rows) - 1, _MEASURED).round().astype(int))
    return torch.from_numpy(np.ascontiguousarray(segments.inputs[m][rows[chosen], steps[chosen]]))


class Causal(Trained):
    """A causal form: every step is known and there; of a modality that is not given, none."""

    model: CausalModel

    def __init__(self, model: CausalModel, recipe: Recipe, modalities: Sequence[str]) -> None:
        super().__init__()
        self.model, self._modalities = model, tuple(modalities)
        self.objective = Objective(model, recipe.live_fit(), recipe.objective)

    def loss(self, batch: Batch) -> Tensor:
        """See `Trained.loss`."""
        total, _ = self.objective(self.model, self._windows(batch), batch.labels, batch.lengths["text"])
        return total

    def scores(self, batch: Batch) -> Tensor:
        """See `Trained.scores`."""
        state = self.model.initial_state(len(batch.labels), capacity=batch.inputs["text"].shape[1])
        sentiment = self.model(self._windows(batch), state)[0].sentiment
        if batch.every_step:
            return sentiment
        return sentiment.gather(1, batch.lengths["text"][:, None] - 1)[:, 0]

    def _windows(self, batch: Batch) -> dict[str, Tensor]:
        found = {}
        for m, x in batch.inputs.items():
            real = torch.arange(x.shape[1], device=x.device) < batch.lengths[m][:, None]  # (B, L)
            flags = batch.flags[m] if batch.flags else real[..., None].expand(-1, -1, FLAGS)  # (B, L, 2)
            whole = torch.cat([x, flags], -1)  # (B, L, D + 2)
            found[m] = whole if m in self._modalities else torch.zeros_like(whole)
        return found


class Published(Trained):
    """A published form: zeros where a modality is not given."""

    def __init__(
        self, model: Pretrained, recipe: Recipe, train: Segments, modalities: Sequence[str], longest: Mapping[str, int]
    ) -> None:
        super().__init__()
        self.model, self._recipe, self._modalities, self._longest = model.train(), recipe, tuple(modalities), longest
        self._weights = Weights(**{name: getattr(recipe.objective.factors, name) for name in Weights.__annotations__})
        for m in MODALITIES:
            rows = _measured(train, m) if recipe.standardise else torch.zeros(2, train.inputs[m].shape[2])
            deviation = rows.std(0)
            self.register_buffer(f"mean_{m}", rows.mean(0))
            self.register_buffer(f"scale_{m}", torch.where(deviation > 1e-6, 1 / deviation.clamp_min(1e-6), 1.0))

    def loss(self, batch: Batch) -> Tensor:
        """See `Trained.loss`."""
        if isinstance(self.model, MFM):
            parts = self.model.loss(self._inputs(batch), batch.lengths["text"], batch.labels, self._weights)
            return torch.stack(list(parts.values())).sum()
        there = ~batch.labels.isnan()
        found, truth = self.scores(batch)[there], batch.labels[there]
        return (found - truth).abs().mean() + self._recipe.fit.sign * sign_loss(found, truth).mean()

    def scores(self, batch: Batch) -> Tensor:
        """See `Trained.scores`."""
        inputs, lengths = self._inputs(batch), batch.lengths["text"]
        match self.model:
            case MulT():
                # One score for a segment is read at its newest step, so padding goes to the front. The model sees it, so
                # there is always as much, whoever else is in the batch.
                return self.model(inputs if batch.every_step else _in_front(inputs, batch.lengths, self._longest))
            case MFM():
                return self.model(inputs, lengths).sentiment
            case _:
                return self.model(inputs, lengths)[0]

    def _inputs(self, batch: Batch) -> dict[str, Tensor]:
        found = {}
        for m, x in batch.inputs.items():
            real = torch.arange(x.shape[1], device=x.device) < batch.lengths[m][:, None]  # (B, L)
            spread = (x - getattr(self, f"mean_{m}")) * getattr(self, f"scale_{m}")
            if self.training and self._recipe.fit.noise:
                spread = spread + self._recipe.fit.noise * torch.randn_like(spread)
            found[m] = spread * real[..., None] if m in self._modalities else torch.zeros_like(x)
        return found


def _in_front(inputs: Mapping[str, Tensor], lengths: Mapping[str, Tensor], longest: Mapping[str, int]) -> dict[str, Tensor]:
    """The same segments with their padding before them, all as long as the longest that there is."""
    found = {}
    for m, short in inputs.items():
        x = nn.functional.pad(short, (0, 0, 0, max(0, longest[m] - short.shape[1])))
        steps = torch.arange(x.shape[1], device=x.device)
        back = (steps - (x.shape[1] - lengths[m])[:, None]) % x.shape[1]  # (B, L)
        found[m] = x.gather(1, back[..., None].expand_as(x))
    return found
