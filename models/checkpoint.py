"""Checkpoints: weights as safetensors beside a JSON that says what they are, in the hub's conventions.

A checkpoint is a folder, or a repository on the hub, with `model.safetensors` and `config.json`. Nothing is ever unpickled.
"""

import hashlib
import json
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal, Self, TypeVar, get_args, get_origin, get_type_hints

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
        """Write `config.json` and `model.safetensors` into a folder, which is made if need be.

        Raises:
            ValueError: The card holds NaN or infinity.
            OSError: The folder cannot be written to.
        """
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        about = {"model_type": self.model_type, "format": FORMAT, "config": asdict(self.config), **asdict(self.card)}
        text = json.dumps(about, indent=2, allow_nan=False) + "\n"
        save_file({name: value.contiguous() for name, value in self.state_dict().items()}, folder / WEIGHTS)
        (folder / CONFIG).write_text(text, encoding="utf-8")

    @classmethod
    def from_pretrained(cls, location: Path | str, *, contracts: Mapping[str, str] | None = None) -> Self:
        """Load a model, in evaluation mode on the CPU.

        Args:
            location: A folder, or a repository on the hub: `owner/name` or `owner/name@revision`.
            contracts: What the caller will feed the model; None if the caller does not care.

        Raises:
            CheckpointError: There is no such checkpoint, it is damaged or of another model, or the contracts differ.
        """
        return load(location, {cls}, contracts=contracts)

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


Model = TypeVar("Model", bound=Pretrained)


def load(location: Path | str, kinds: Collection[type[Model]], *, contracts: Mapping[str, str] | None = None) -> Model:
    """Load a model of one of several kinds, whichever the checkpoint is of; see `Pretrained.from_pretrained`."""
    folder = Path(location)
    if not str(location) or not _is_folder(folder):
        try:
            folder = hub.fetch(str(location), (CONFIG, WEIGHTS))
        except hub.NotFetchedError as error:
            raise CheckpointError(str(error)) from error
    kind, config, card = _read_config(folder / CONFIG, kinds)
    if contracts is not None:
        _check_contracts(folder, card.contracts, contracts)
    with torch.device("meta"):  # shapes without memory, and nothing drawn at random
        model = kind(config)
    model.load_state_dict(_read_weights(folder / WEIGHTS, model.state_dict()), assign=True)
    model.card = card
    return model.eval()


def _read_config(path: Path, kinds: Collection[type[Model]]) -> tuple[type[Model], Any, Card]:
    try:
        about = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        reason = error.strerror or error
        raise CheckpointError(f"{path}: cannot be read ({reason}); a checkpoint has {CONFIG} and {WEIGHTS}") from error
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: not valid JSON; copy the checkpoint anew") from error
    found = (about.get("model_type"), about.get("format")) if isinstance(about, dict) else (None, None)
    kind = next((kind for kind in kinds if found == (kind.model_type, FORMAT)), None)
    if kind is None:
        wanted = " or ".join(sorted(repr(kind.model_type) for kind in kinds))
        raise CheckpointError(
            f"{path}: model_type and format are {found[0]!r}, {found[1]!r}, expected {wanted}, {FORMAT}; name a "
            "checkpoint that this version wrote"
        )
    wrong = _wrong_values(about.get("config"), get_type_hints(kind.config_class), "config")
    wrong += _wrong_values({key: about[key] for key in _CARD if key in about}, _CARD, "the card")
    if not wrong:
        try:
            # JSON knows no tuples.
            values = {key: tuple(value) if isinstance(value, list) else value for key, value in about["config"].items()}
            return kind, kind.config_class(**values), Card(about["contracts"], tuple(about["data"]), about["metrics"])
        except ValueError as error:
            wrong = [str(error)]
    raise CheckpointError(f"{path}: {'; '.join(wrong)}; copy the checkpoint anew")


# The card as JSON has it: a list where `Card` has a tuple.
_CARD = {"contracts": dict[str, str], "data": list[str], "metrics": dict[str, float]}


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:  # a name that no folder can have
        return False


def _wrong_values(values: Any, expected: Mapping[str, Any], where: str) -> list[str]:
    """What is unknown, missing or of another type than expected, each in a few words; no value is guessed or converted."""
    if not isinstance(values, dict):
        return [f"{where} is {values!r:.40}, expected an object"]
    wrong = [
        f"unknown in {where}: {name!r:.40}, expected {', '.join(sorted(expected))}"
        for name in sorted(values.keys() - expected.keys())
    ]
    wrong += [f"{name} is missing" for name in expected if name not in values]
    for name, kind in expected.items():
        if name in values and not _is_a(values[name], kind):
            wanted = " or ".join(map(repr, get_args(kind))) if get_origin(kind) is Literal else getattr(kind, "__name__", kind)
            wrong.append(f"{name} is {values[name]!r:.40}, expected {wanted}")
    return wrong


def _is_a(value: Any, kind: Any) -> bool:
    """Whether a value read from JSON is of a type, as dataclasses' hints name it."""
    origin, inner = get_origin(kind), get_args(kind)
    if origin is Literal:
        return value in inner and isinstance(value, str)
    if origin is list:
        return isinstance(value, list) and all(_is_a(each, inner[0]) for each in value)
    if origin is tuple:
        fits = isinstance(value, list) and len(value) == len(inner)
        return fits and all(_is_a(each, one) for each, one in zip(value, inner, strict=True))
    if origin is dict:
        return isinstance(value, dict) and all(_is_a(each, inner[1]) for each in value.values())
    if kind is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    return type(value) is kind


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
        reason = "a folder" if path.is_dir() else error.strerror or "no such file"
        raise CheckpointError(f"{path}: cannot be read ({reason}); a checkpoint has {CONFIG} and {WEIGHTS}{also}") from error
    except SafetensorError as error:
        raise CheckpointError(f"{path}: cut short or damaged ({error}); copy the checkpoint anew") from error
    wrong = [f"{name} is missing" for name in sorted(expected.keys() - weights.keys())]
    wrong += [f"{name!r:.80} is not known" for name in sorted(weights.keys() - expected.keys())]
    for name in sorted(weights.keys() & expected.keys()):
        found, like = weights[name], expected[name]
        if found.shape != like.shape or found.dtype != like.dtype:
            (dtype, shape), (dtype_here, shape_here) = ((each.dtype, tuple(each.shape)) for each in (like, found))
            wrong.append(f"{name} is {dtype_here} {shape_here}, expected {dtype} {shape}")
        elif not found.isfinite().all():
            wrong.append(f"{name} holds NaN or infinity")
    if wrong:
        more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        raise CheckpointError(f"{path}: does not fit its {CONFIG}: {'; '.join(wrong[:3])}{more}; copy the checkpoint anew")
    return weights
