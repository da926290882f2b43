"""The systems by name: which model each is, and how a checkpoint of any of them is loaded."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, get_args

from models import checkpoint
from models.causal import CausalModel
from models.mfm import CausalMFM
from models.mmlatch import CausalMMLatch
from models.mmmie import CausalMMMIE
from models.mult import CausalMulT

System = Literal["mmlatch", "late-fusion", "mult", "mfm", "mmmie"]
SYSTEMS: tuple[System, ...] = get_args(System)
_MODELS: dict[System, type[CausalModel]] = {
    "mmlatch": CausalMMLatch,
    "late-fusion": CausalMMLatch,
    "mult": CausalMulT,
    "mfm": CausalMFM,
    "mmmie": CausalMMMIE,
}
_ALWAYS: dict[System, dict[str, Any]] = {"late-fusion": {"masking": "none"}}
SHIPPED: dict[str, Path] = {
    system: folder for system in SYSTEMS if (folder := Path(__file__).parent / f"{system}-causal").is_dir()
}
"""The folders of the checkpoints that come with the program, by system."""


def untrained(system: System, *, seed: int = 0, **config: Any) -> CausalModel:
    """A system whose weights are drawn from `seed`; `config` as its configuration's class has it.

    Raises:
        ValueError: A number is out of range.
    """
    kind = _MODELS[system]
    return kind.untrained(kind.config_class(**config, **_ALWAYS.get(system, {})), seed=seed)


def load(location: Path | str, *, contracts: Mapping[str, str] | None = None) -> CausalModel:
    """The model of a checkpoint of any system; see `Pretrained.from_pretrained`."""
    return checkpoint.load(location, set(_MODELS.values()), contracts=contracts)
