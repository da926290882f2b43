"""Recipes: those that come with the program are whole, and build the systems whose sizes are known."""

from pathlib import Path

import numpy as np
import pytest

from stream.errors import UsageError
from tests.train.one_line import error_of
from train import recipe
from train.data.aligned import MODALITIES, Segments
from train.recipe import FOLDER, Recipe
from train.systems import made

SHIPPED = sorted(path.stem for path in FOLDER.glob("*.yaml"))
WIDTHS = {"text": 300, "audio": 74, "vision": 35}
PUBLISHED = {"mmlatch": 2_741_153, "late-fusion": 1_633_801, "mult": 1_549_321}


def nothing(*, every_step: bool = False) -> Segments:
    """Two segments of zeros, as wide as GloVe, COVAREP and FACET 4.2."""
    inputs = {m: np.zeros((2, 4, width), np.float32) for m, width in WIDTHS.items()}
    labels = np.zeros((2, 4) if every_step else 2, np.float32)
    lengths = dict.fromkeys(MODALITIES, np.array([4, 4]))
    return Segments(("a", "b"), inputs, lengths, labels, dict.fromkeys(MODALITIES, 0))


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_recipe_builds_its_system(name: str) -> None:
    found = recipe.load(name)
    assert found.system in name
    data = nothing(every_step=name.startswith("utterances-"))
    system = made(found, data, modalities=MODALITIES, seed=0)
    assert system.model.model_type == (found.system.replace("late-fusion", "mmlatch") + "-causal" * (found.form == "causal"))
    for key, value in found.shape.items():
        built = getattr(system.model.config, key)
        assert built == (tuple(value) if isinstance(value, list) else value)


@pytest.mark.parametrize(("name", "weights"), PUBLISHED.items())
def test_published_systems_have_the_sizes_that_are_known(name: str, weights: int) -> None:
    found = recipe.load(name)
    assert found.form == "published"
    system = made(found, nothing(), modalities=MODALITIES, seed=0)
    assert sum(each.numel() for each in system.parameters()) == weights


def test_every_system_has_a_recipe_in_every_form_that_it_has() -> None:
    mosei = [recipe.load(name) for name in SHIPPED if not name.startswith("utterances-")]
    assert {(each.system, each.form) for each in mosei} == {
        *((system, form) for system in ("mmlatch", "late-fusion", "mult", "mfm") for form in ("published", "causal")),
        ("mmmie", "causal"),
    }
    assert all(each.fit.patience > 0 for each in mosei)


def test_a_recipe_is_a_name_or_a_file(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("system: mult\nfit: {batch: 7, swap: {audio: 0.5}}\n")
    found = recipe.load(str(path), ("fit.epochs=3", "shape.layers=2"))
    assert (found.system, found.form, found.fit.batch, found.fit.epochs, found.shape) == ("mult", "causal", 7, 3, {"layers": 2})
    assert found.fit.swap.audio == 0.5
    assert recipe.load("mult").form == "published"


def test_a_changed_recipe_differs_in_what_was_changed_alone() -> None:
    before = recipe.load("mmlatch")
    whole = before.model_dump()
    after = recipe.changed(before, ("fit.schedule.factor=0.25", "shape.hidden=16", "fit.swap.text=0.1"))
    expected = before.model_dump()
    expected["fit"]["schedule"]["factor"] = 0.25
    expected["shape"]["hidden"] = 16
    expected["fit"]["swap"]["text"] = 0.1
    assert after.model_dump() == expected
    assert before.model_dump() == whole


def test_the_live_loss_counts_all_steps_alike() -> None:
    found = recipe.load("mmlatch", ("fit.sign=0.3",)).live_fit()
    assert (found.ramp, found.sign, found.spread) == (0.0, 0.3, 0.0)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (("fit.speed=1",), "fit.speed: unknown key, expected one of epochs, batch"),
        (("fit.schedule.speed=1",), "fit.schedule.speed: unknown key, expected one of factor, patience"),
        (("fit.swap.words=1",), "fit.swap.words: unknown key, expected one of text, audio, vision"),
        (("objective.information.bound=club",), "objective.information.bound"),
        (("colour=red",), "colour: unknown key, expected one of system, form, shape"),
        (("system=mulan",), "system: input should be 'mmlatch', 'late-fusion', 'mult', 'mfm' or 'mmmie', got 'mulan'"),
        (("fit.epochs=0", "fit.batch=0"), "fit.epochs: .*; fit.batch: "),
        (("system=mmmie", "form=published"), "mmmie has no published form that is known; expected form: causal"),
        (("fit",), "--set fit: expected KEY=VALUE"),
    ],
)
def test_what_is_wrong_with_a_recipe_is_one_line(settings: tuple[str, ...], expected: str) -> None:
    text = error_of(lambda: recipe.load("mmlatch", settings), UsageError)
    parts = expected.split(".*")
    assert all(part in text for part in parts)


def test_an_unknown_recipe_and_a_broken_one_are_one_line(tmp_path: Path) -> None:
    assert "cannot be read (No such file" in error_of(lambda: recipe.load("mulan"), UsageError)
    (tmp_path / "a.yaml").write_text("system: [")
    assert "not valid YAML" in error_of(lambda: recipe.load(str(tmp_path / "a.yaml")), UsageError)
    (tmp_path / "b.yaml").write_text("form: causal\n")
    assert "system: field required" in error_of(lambda: recipe.load(str(tmp_path / "b.yaml")), UsageError)


@pytest.mark.parametrize("form", ["published", "causal"])
@pytest.mark.parametrize(
    ("shape", "expected"),
    [({"colour": 1}, "which mmlatch does not have: .*colour"), ({"hidden": 0}, "hidden is 0, expected 1 to")],
)
def test_a_shape_that_the_system_does_not_have_is_one_line(form: str, shape: dict[str, int], expected: str) -> None:
    wrong = Recipe.model_validate({"system": "mmlatch", "form": form, "shape": shape})
    text = error_of(lambda: made(wrong, nothing(), modalities=MODALITIES, seed=0), ValueError)
    assert all(part in text for part in expected.split(".*"))
