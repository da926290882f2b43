"""The systems by name: each is made, saved and loaded as what it is."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from models import systems
from models.causal import CausalModel
from models.checkpoint import CheckpointError
from models.mfm import CausalMFM
from models.mmlatch import CausalMMLatch, CausalMMLatchConfig, MMLatch, MMLatchConfig
from models.mmmie import CausalMMMIE
from models.mult import CausalMulT, MulT, MulTConfig
from models.systems import SHIPPED, SYSTEMS, System, load, untrained
from tests.models.test_causal import CASES, HIDDEN, SIZES, begun, each_case, flat, made, windows

KINDS: dict[System, type[CausalModel]] = {
    "mmlatch": CausalMMLatch,
    "late-fusion": CausalMMLatch,
    "mult": CausalMulT,
    "mfm": CausalMFM,
    "mmmie": CausalMMMIE,
}
CAUSAL_TYPES = ["mfm-causal", "mmlatch-causal", "mmmie-causal", "mult-causal"]

each_system = pytest.mark.parametrize("system", SYSTEMS)


def small(system: System, **config: Any) -> CausalModel:
    return untrained(system, **SIZES, hidden=HIDDEN, **config)


def scores(model: CausalModel) -> Tensor:
    return flat(model(windows(), begun(model))[0])


@each_system
def test_a_system_is_the_model_of_its_name(system: System) -> None:
    model = small(system, max_steps=9, dropout=0.3)
    assert type(model) is KINDS[system]
    assert (model.config.hidden, model.config.max_steps, model.config.dropout) == (HIDDEN, 9, 0.3)
    assert model.sizes == [*SIZES.values()]
    assert not any(module.training for module in model.modules())
    assert model.card.data == ()


@each_system
def test_untrained_weights_hang_on_the_seed_alone(system: System) -> None:
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    model = small(system)
    assert torch.rand(1) == expected
    assert model.digest() == small(system).digest() != small(system, seed=1).digest()


def test_systems_have_names_and_types_of_their_own() -> None:
    assert sorted({small(system).model_type for system in SYSTEMS}) == CAUSAL_TYPES
    assert len({small(system).digest() for system in SYSTEMS}) == len(SYSTEMS)


@each_case
def test_what_is_saved_is_loaded_as_what_it_is_and_scores_the_same(case: str, tmp_path: Path) -> None:
    model = made(case)
    model.train().save_pretrained(tmp_path)
    loaded = load(tmp_path)
    assert type(loaded) is type(model)
    assert loaded.config == model.config
    assert not any(module.training for module in loaded.modules())
    assert torch.equal(scores(loaded), scores(model.eval()))


@each_system
def test_only_a_models_own_class_loads_it(system: System, tmp_path: Path) -> None:
    small(system).save_pretrained(tmp_path)
    for kind in {*KINDS.values()}:
        if kind is KINDS[system]:
            assert kind.from_pretrained(tmp_path).digest() == small(system).digest()
        else:
            with pytest.raises(CheckpointError, match=f"expected '{kind.model_type}', 1; name a checkpoint"):
                kind.from_pretrained(tmp_path)


@pytest.mark.parametrize("model", [MMLatch(MMLatchConfig()), MulT(MulTConfig())], ids=["mmlatch", "mult"])
def test_a_checkpoint_of_no_system_is_told_what_was_expected(model: MMLatch | MulT, tmp_path: Path) -> None:
    model.save_pretrained(tmp_path)
    expected = " or ".join(map(repr, CAUSAL_TYPES))
    with pytest.raises(
        CheckpointError, match=re.escape(f"are '{model.model_type}', 1, expected {expected}, 1; name a checkpoint")
    ):
        load(tmp_path)


def test_contracts_are_asked_for(tmp_path: Path) -> None:
    small("mult").save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match=r"text is text\.1 here and absent there"):
        load(tmp_path, contracts={"text": "text.1"})
    assert isinstance(load(tmp_path, contracts={}), CausalMulT)


def test_late_fusion_has_no_masks(tmp_path: Path) -> None:
    small("late-fusion").save_pretrained(tmp_path)
    for model in (small("late-fusion"), load(tmp_path)):
        assert isinstance(model.config, CausalMMLatchConfig)
        assert model.config.masking == "none"
        assert model.mask_widths == (0, 0, 0)
        assert not [name for name, _ in model.named_parameters() if name.startswith("masks")]
        prediction, state = model(windows(), begun(model))
        assert prediction.masks == {}
        assert not [name for name in (*state.recurrent, *state.history) if name.startswith(("first", "masks"))]
    assert small("mmlatch").mask_widths == (HIDDEN,) * 3


@each_system
@pytest.mark.parametrize(("name", "value"), [("text", 0), ("hidden", -1), ("dropout", 1.0)])
def test_a_number_out_of_range_is_named(system: System, name: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"^{name} is {value}, expected"):
        untrained(system, **{**SIZES, name: value})


@pytest.mark.parametrize("system", SHIPPED)
def test_what_is_shipped_under_a_systems_name_is_that_system(system: System) -> None:
    model = load(SHIPPED[system])
    assert type(model) is KINDS[system]
    assert bool(sum(model.mask_widths)) == (system == "mmlatch")


def test_mmlatch_is_shipped() -> None:
    assert SHIPPED["mmlatch"] == Path(systems.__file__).with_name("mmlatch-causal")
    assert set(SHIPPED) <= {system for system, _ in CASES.values()}
