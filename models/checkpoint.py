"""Checkpoints: weights as safetensors beside a JSON that says what they are, in the hub's conventions.

A checkpoint is a folder, or a repository on the hub, with `model.safetensors` and `config.json`. Nothing is ever unpickled.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from models import hub

WEIGHTS, CONFIG = "model.safetensors", "config.json"
FORMAT = 1


class CheckpointError(Exception):
    """A checkpoint cannot be loaded; the text is one line: what is wrong, what was expected, what to do."""


@dataclass(frozen=True)
class Card:
    """What a checkpoint's JSON says beside the model's configuration.

    Attributes:
        contracts: What the inputs are, by name, as in `{"text": "text.1@0123456789abcdef"}`; who feeds the model must agree.
        data: Tags of what the weights were fitted on; none if they are untrained.
        metrics: Measured figures, by name.
    """

    contracts: Mapping[str, str] = field(default_factory=dict)
    data: tuple[str, ...] = ()
    metrics: Mapping[str, float] = field(default_factory=dict)


class Pretrained(nn.Module):
    """A module that can be saved and loaded. A subclass has a dataclass `config`, its only argument, and names itself.

    Example:
        model.save_pretrained("folder")
        model = CausalMMLatch.from_pretrained("folder", contracts={"text": ..., "audio": ..., "vision": ...})
    """

    model_type: ClassVar[str]
    config_class: ClassVar[type]
    config: Any
    card: Card = Card()

    def save_pretrained(self, folder: Path | str) -> None:
        """Write `config.json` and `model.safetensors` into a folder, which is made if need be."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        about = {"model_type": self.model_type, "format": FORMAT, "config": asdict(self.config), **asdict(self.card)}
        save_file({name: value.contiguous() for name, value in self.state_dict().items()}, folder / WEIGHTS)
        (folder / CONFIG).write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")

    @classmethod
    def from_pretrained(cls, location: Path | str, *, contracts: Mapping[str, str] | None = None) -> Self:
        """Load a model, in evaluation mode on the CPU.

        Args:
            location: A folder, or a repository on the hub: `owner/name` or `owner/name@revision`.
            contracts: What the caller will feed the model; None if the caller does not care.

        Raises:
            CheckpointError: There is no such checkpoint, it is damaged or of another model, or the contracts differ.
        """
        folder = Path(location)
        if not folder.is_dir():
            try:
                folder = hub.fetch(str(location), (CONFIG, WEIGHTS))
            except hub.NotFetchedError as error:
                raise CheckpointError(str(error)) from error
        config, card = cls._read_config(folder / CONFIG)
        if contracts is not None:
            _check_contracts(folder, card.contracts, contracts)
        model = cls(config)
        model.load_state_dict(_read_weights(folder / WEIGHTS, model.state_dict()))
        model.card = card
        return model.eval()

    def digest(self) -> str:
        """Six hex digits of the SHA-256 over all weights: which model a score came from."""
        digest = hashlib.sha256()
        for name, value in sorted(self.state_dict().items()):
            digest.update(name.encode())
            digest.update(value.detach().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()[:6]

    @classmethod
    def untrained(cls, config: Any, *, seed: int = 0) -> Self:
        """A model in evaluation mode whose weights are drawn from `seed` and mean nothing."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return cls(config).eval()

    @classmethod
    def _read_config(cls, path: Path) -> tuple[Any, Card]:
        try:
            about = json.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise CheckpointError(
                f"{path}: cannot be read ({error.strerror}); a checkpoint has {CONFIG} and {WEIGHTS}"
            ) from error
        except ValueError as error:
            raise CheckpointError(f"{path}: not valid JSON; copy the checkpoint anew") from error
        kind = (about.get("model_type"), about.get("format")) if isinstance(about, dict) else (None, None)
        if kind != (cls.model_type, FORMAT):
            raise CheckpointError(
                f"{path}: model_type and format are {kind[0]!r}, {kind[1]!r}, expected {cls.model_type!r}, {FORMAT}; name a "
                "checkpoint that this version wrote"
            )
        known = {each.name for each in fields(cls.config_class)}
        config = about.get("config")
        if not isinstance(config, dict) or config.keys() - known:
            unknown = ", ".join(sorted(config.keys() - known)) if isinstance(config, dict) else repr(config)
            raise CheckpointError(f"{path}: unknown in config: {unknown}; expected {', '.join(sorted(known))}")
        try:
            made = cls.config_class(**config)
            card = Card(dict(about["contracts"]), tuple(about["data"]), dict(about["metrics"]))
        except (KeyError, TypeError, ValueError) as error:
            raise CheckpointError(f"{path}: incomplete ({error}); copy the checkpoint anew") from error
        return made, card


def _check_contracts(folder: Path, trained: Mapping[str, str], served: Mapping[str, str]) -> None:
    """A model must be fed what it was trained on."""
    differing = [
        f"{name} is {served.get(name, 'absent')} here and {trained.get(name, 'absent')} there"
        for name in sorted(trained.keys() | served.keys())
        if trained.get(name) != served.get(name)
    ]
    if differing:
        raise CheckpointError(f"{folder}: trained on other features: {'; '.join(differing)}; take the version it was made with")


def _read_weights(path: Path, expected: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights, which have the names and shapes of `expected`."""
    try:
        weights = load_file(path)
    except OSError as error:
        others = sorted(other.name for other in path.parent.glob("*.bin"))
        also = f"; {', '.join(others)} would have to be unpickled, which is never done" if others else ""
        raise CheckpointError(f"{path}: cannot be read ({error.strerror or 'no such file'}){also}") from error
    except SafetensorError as error:
        raise CheckpointError(f"{path}: cut short or damaged ({error}); copy the checkpoint anew") from error
    wrong = [f"{name} is missing" for name in sorted(expected.keys() - weights.keys())]
    wrong += [f"{name} is not known" for name in sorted(weights.keys() - expected.keys())]
    for name in sorted(weights.keys() & expected.keys()):
        if weights[name].shape != expected[name].shape:
            wrong.append(f"{name} is {tuple(weights[name].shape)}, expected {tuple(expected[name].shape)}")
        elif not weights[name].isfinite().all():
            wrong.append(f"{name} holds NaN or infinity")
    if wrong:
        more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        raise CheckpointError(f"{path}: does not fit its {CONFIG}: {'; '.join(wrong[:3])}{more}; copy the checkpoint anew")
    return weights
