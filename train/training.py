"""A training as it stands after so many steps: weights, their average, moments; one step; saving and going on.

Every random draw (sequences, dropout, noise) is a function of the seed, of the step and of the process, so a training that was
killed goes on from its last saved step and ends with the same bits.
"""

import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, distributed, nn

from models.causal import FLAGS, CausalModel
from stream.inputs import WIDTHS
from stream.messages import LANES
from stream.windows import contracts
from train.batches import by_length, collate
from train.config import TrainConfig
from train.errors import TrainError
from train.mixture import Mixture
from train.objective import Objective
from train.pools import Pool
from train.sequences import Sample
from train.store import replacing

_GROUP = 8  # batches are drawn together, and sorted by length among themselves
_MEASURED = 2048  # sequences that the inputs' mean, deviation and quantiles are taken from
_SEQUENCES, _DROPOUT, _MEASURING = range(3)  # what is drawn


def rank() -> int:
    """The number of this process, from 0."""
    return distributed.get_rank() if distributed.is_initialized() else 0


class Training:
    """Weights on their way: the model, the average of its weights over the last steps, and the best such average.

    Attributes:
        settings: The configuration.
        step: Steps done.
        average: The model with averaged weights, which is what is validated and kept.
        best_error: The least validation error, at `best_step`; infinite before the first.
    """

    def __init__(self, settings: TrainConfig, pools: Mapping[str, Pool], device: torch.device) -> None:
        """Stand before the first step."""
        self.settings, self.step = settings, 0
        self.best_error, self.best_step = math.inf, 0
        self._device = device
        self._mixture = Mixture(pools, settings.mixture, hop_ns=settings.hop_ns, max_steps=settings.model.max_steps)
        self._drawn: list[list[Sample]] = []
        self._model = settings.model.untrained(WIDTHS, seed=settings.seed).to(device).train()
        torch.manual_seed(settings.seed)  # of what the objective fits
        self._objective = Objective(self._model, settings.fit, settings.objective).to(device)
        self._measure()
        for lane, spread in self._model.spreads.items():
            spread.noise = getattr(settings.mixture.noise, lane)
        self.average = settings.model.untrained(WIDTHS, seed=settings.seed).to(device)
        self.average.load_state_dict(self._model.state_dict())
        self._best = _copy(self.average)
        fit = settings.fit
        self._fitted = dict(nn.ModuleDict({"model": self._model, "objective": self._objective}).named_parameters())
        self._optimiser = torch.optim.AdamW(self._fitted.values(), lr=fit.learning_rate, weight_decay=fit.weight_decay)

    @property
    def finished(self) -> bool:
        """Whether the last step is done, or validation has not improved for long."""
        fit = self.settings.fit
        return self.step >= fit.steps or self.step - self.best_step >= fit.patience * fit.validate_every

    def due(self, every: int) -> bool:
        """Whether something that is done every so many steps, and at the end, is to be done now."""
        return self.step % every == 0 or self.step == self.settings.fit.steps

    def advance(self) -> dict[str, float]:
        """Do one step; returns the objective's terms."""
        fit = self.settings.fit
        lanes, targets, steps = collate(self._next(), self._device)
        torch.manual_seed(int(self._random(_DROPOUT, self.step).integers(2**62)))
        for group in self._optimiser.param_groups:
            group["lr"] = self._learning_rate()
        with torch.autocast(self._device.type, torch.bfloat16, enabled=fit.precision == "bfloat16"):
            total, terms = self._objective(self._model, lanes, targets, steps)
        self._optimiser.zero_grad()
        total.backward()
        self._share_gradients()
        torch.nn.utils.clip_grad_norm_(self._model.parameters(), fit.clip)
        self._optimiser.step()
        self.step += 1
        keep = min(fit.average, self.step / (self.step + 10))
        with torch.no_grad():
            for mean, weight in zip(self.average.parameters(), self._model.parameters(), strict=True):
                mean.lerp_(weight, 1 - keep)
        return {name: value.item() for name, value in terms.items()}

    def judge(self, error: float) -> None:
        """Take note of a validation error: the best weights so far are kept."""
        if error < self.best_error:
            self.best_error, self.best_step, self._best = error, self.step, _copy(self.average)

    def best_model(self) -> CausalModel:
        """The best weights, on the CPU."""
        model = self.settings.model.untrained(WIDTHS, seed=self.settings.seed)
        model.load_state_dict({name: value.cpu() for name, value in self._best.items()})
        return model

    def save(self, path: Path) -> None:
        """Write all that going on takes; raises `TrainError` where it cannot be written."""
        tensors = {f"model.{name}": value for name, value in self._model.state_dict().items()}
        tensors |= {f"objective.{name}": value for name, value in self._objective.state_dict().items()}
        tensors |= {f"average.{name}": value for name, value in self.average.state_dict().items()}
        tensors |= {f"best.{name}": value for name, value in self._best.items()}
        for name, parameter in self._fitted.items():
            for moment, value in self._optimiser.state[parameter].items():
                tensors[f"{moment}.{name}"] = value
        about = self._identity() | {
            "step": str(self.step),
            "best_error": repr(self.best_error),
            "best_step": str(self.best_step),
        }
        with replacing(path) as part:
            save_file({name: value.contiguous() for name, value in tensors.items()}, part, about)

    def load(self, path: Path) -> None:
        """Go on from what `save` wrote.

        Raises:
            TrainError: It is damaged, or of another configuration or other features.
        """
        try:
            with safe_open(path, "pt", device=str(self._device)) as file:
                about = file.metadata()
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
        except (OSError, SafetensorError) as error:
            raise TrainError(f"{path} cannot be read: {error}; delete it to begin anew") from error
        for what, mine in self._identity().items():
            if about.get(what) != mine:
                raise TrainError(f"{path} is of a run with other {what}; give the same again, or another folder with --out")

        def part(name: str) -> dict[str, Tensor]:
            return {key.removeprefix(f"{name}."): value for key, value in tensors.items() if key.startswith(f"{name}.")}

        self._model.load_state_dict(part("model"))
        self._objective.load_state_dict(part("objective"))
        self.average.load_state_dict(part("average"))
        self._best = part("best")
        moments = {moment: part(moment) for moment in ("exp_avg", "exp_avg_sq", "step")}
        for name, parameter in self._fitted.items():
            if name in moments["step"]:  # what has had no gradient yet has no moments
                self._optimiser.state[parameter] = {moment: values[name] for moment, values in moments.items()}
                self._optimiser.state[parameter]["step"] = moments["step"][name].cpu()
        self.step, self.best_step = int(about["step"]), int(about["best_step"])
        self.best_error = float(about["best_error"])

    def _identity(self) -> dict[str, str]:
        """What must be the same for a run to go on."""
        return {"settings": self.settings.model_dump_json(), "features": repr(contracts(self.settings.hop_ns))}

    def _random(self, what: int, number: int) -> np.random.Generator:
        """The generator of one draw of this process."""
        return np.random.default_rng([self.settings.seed, what, number, rank()])

    def _next(self) -> list[Sample]:
        """The batch of this step. Several are drawn at a time, and each has sequences of like length."""
        size, place = self.settings.fit.batch, self.step % _GROUP
        if not self._drawn or not place:
            random = self._random(_SEQUENCES, self.step // _GROUP)
            samples = [self._mixture.draw(random) for _ in range(_GROUP * size)]
            lengths = [sample.steps for sample in samples]
            batches = [[samples[number] for number in numbers] for numbers in by_length(lengths, size)]
            self._drawn = [batches[number] for number in random.permutation(_GROUP)]
        return self._drawn[place]

    def _learning_rate(self) -> float:
        """Up in a line, then down in a cosine."""
        fit = self.settings.fit
        if self.step < fit.warmup:
            return fit.learning_rate * (self.step + 1) / fit.warmup
        return fit.learning_rate * 0.5 * (1 + math.cos(math.pi * (self.step - fit.warmup) / max(1, fit.steps - fit.warmup)))

    def _measure(self) -> None:
        """Spread the inputs as of what is drawn, the same in all processes."""
        random = np.random.default_rng([self.settings.seed, _MEASURING])
        samples = [self._mixture.draw(random) for _ in range(_MEASURED)]
        for lane in LANES:
            rows = torch.from_numpy(np.concatenate([sample.lanes[lane][:, :-FLAGS] for sample in samples]))
            there = rows[(rows != 0).any(-1)]
            if len(there):
                self._model.spreads[lane].measure(there.to(self._device))

    def _share_gradients(self) -> None:
        """Let every process have the mean of all processes' gradients."""
        if distributed.is_initialized():
            for parameter in self._fitted.values():
                if parameter.grad is not None:
                    distributed.all_reduce(parameter.grad)
                    parameter.grad /= distributed.get_world_size()


def _copy(model: CausalModel) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}
