"""Systems behind one interface: what they are given, what they score, and what makes no difference to them."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from models.causal import FLAGS, MODALITIES, CausalModel
from models.mmlatch import MMLatch
from tests.train.one_line import error_of
from tests.train.segments import SHAPES, WIDTHS, segments
from train.data.aligned import Segments
from train.objective import sign_loss
from train.recipe import Recipe
from train.systems import Batch, Causal, Published, Trained, _in_front, batch_of, made

CPU = torch.device("cpu")
each_system = pytest.mark.parametrize(("system", "form"), list(SHAPES))
# The published MFM has one score for a sequence alone.
each_of_utterances = pytest.mark.parametrize(("system", "form"), [each for each in SHAPES if each != ("mfm", "published")])


def recipe_of(system: str, form: str, **change: Any) -> Recipe:
    return Recipe.model_validate({"system": system, "form": form, "shape": SHAPES[system, form]} | change)


def trained(system: str, form: str, data: Segments, modalities: tuple[str, ...] = MODALITIES, **change: Any) -> Trained:
    return made(recipe_of(system, form, **change), data, modalities=modalities, seed=1)


def whole(data: Segments) -> Batch:
    return batch_of(data, range(len(data.ids)), CPU)


@torch.inference_mode()
def scores(system: Trained, batch: Batch) -> Tensor:
    return system.eval().scores(batch)


# What a batch is.


@pytest.mark.parametrize("every_step", [False, True])
def test_a_batch_is_the_segments_asked_for_and_no_longer_than_they_are(every_step: bool) -> None:
    data = segments(every_step=every_step)
    rows = [row for row in range(24) if data.lengths["text"][row] <= 3][:4]
    longest = max(int(data.lengths["text"][row]) for row in rows)
    found = batch_of(data, rows[::-1], CPU)  # in whatever order they are asked for
    assert found.every_step == every_step
    for m in MODALITIES:
        assert found.inputs[m].dtype == torch.float32
        assert np.array_equal(found.inputs[m].numpy(), data.inputs[m][rows, :longest])
        assert found.lengths[m].tolist() == data.lengths[m][rows].tolist()
    expected = data.labels[rows, :longest] if every_step else data.labels[rows]
    assert np.array_equal(found.labels.numpy(), expected, equal_nan=True)


def test_each_modality_of_a_batch_is_as_long_as_its_own() -> None:
    data = segments()
    shorter = np.minimum(data.lengths["audio"], 2)
    found = batch_of(replace(data, lengths=data.lengths | {"audio": shorter}), range(24), CPU)
    assert {m: x.shape[1] for m, x in found.inputs.items()} == {"text": 5, "audio": 2, "vision": 5}


def test_padding_comes_before_what_is_newest() -> None:
    x = torch.tensor([[1.0, 2, 3, 0], [4, 0, 0, 0], [5, 6, 7, 8]])[..., None]
    long = torch.tensor([[1.0, 2, 0], [3, 4, 5], [6, 0, 0]])[..., None]
    lengths = {"text": torch.tensor([3, 1, 4]), "audio": torch.tensor([2, 3, 1])}
    found = _in_front({"text": x, "audio": long}, lengths, {"text": 4, "audio": 4})
    assert found["text"][..., 0].tolist() == [[0, 1, 2, 3], [0, 0, 0, 4], [5, 6, 7, 8]]
    assert found["audio"][..., 0].tolist() == [[0, 0, 1, 2], [0, 3, 4, 5], [0, 0, 0, 6]]
    longer = _in_front({"text": x}, lengths, {"text": 2})  # than was said: nothing of it is lost
    assert longer["text"][..., 0].tolist() == found["text"][..., 0].tolist()


# What a system makes of it.


@each_system
def test_a_score_has_nothing_to_do_with_who_else_is_in_the_batch(system: str, form: str) -> None:
    data = segments(8)
    found = trained(system, form, data)
    alone = torch.cat([scores(found, batch_of(data, [number], CPU)) for number in range(8)])
    assert_close(scores(found, whole(data)), alone, rtol=0, atol=1e-5)


def test_a_causal_system_looks_back_over_the_longest_segment_of_any_split() -> None:
    data = segments(4)
    longer = made(
        recipe_of("mult", "causal"), data, modalities=MODALITIES, seed=1, longest={"text": 9, "audio": 7, "vision": 7}
    )
    assert isinstance(longer.model, CausalModel)
    assert longer.model.config.max_steps == 9


def test_a_causal_system_is_told_what_is_known_and_there() -> None:
    flags = {m: np.random.default_rng(0).random((3, 5, FLAGS)).astype(np.float32) for m in MODALITIES}
    data = replace(segments(3), flags=flags)
    found = trained("mfm", "causal", data, ("text", "audio"))
    assert isinstance(found, Causal)
    windows = found._windows(whole(data))
    assert all(np.array_equal(windows[m][..., -FLAGS:].numpy(), flags[m]) for m in ("text", "audio"))
    assert not windows["vision"].any()


@each_system
def test_a_segment_has_one_score_and_a_loss_that_every_weight_learns_from(system: str, form: str) -> None:
    data = segments(12)
    found, batch = trained(system, form, data), whole(data)
    assert isinstance(found, Causal if form == "causal" else Published)
    assert scores(found, batch).shape == (12,)
    found.train().loss(batch).backward()
    # Where every lane is known, the causal MFM's score does not need what is guessed, but the rest of its loss does.
    assert [name for name, each in found.named_parameters() if each.grad is None or not each.grad.isfinite().all()] == []


@each_of_utterances
def test_every_step_may_have_a_score_and_a_label(system: str, form: str) -> None:
    data = segments(12, every_step=True)
    found, batch = trained(system, form, data), whole(data)
    assert scores(found, batch).shape == (12, 5)
    loss = found.train().loss(batch)
    loss.backward()
    assert loss.isfinite()
    assert [name for name, each in found.named_parameters() if each.grad is None or not each.grad.isfinite().all()] == []


def test_the_published_mfm_is_refused_where_every_step_has_a_label() -> None:
    text = error_of(lambda: trained("mfm", "published", segments(every_step=True)), ValueError)
    assert text == "the published mfm gives one score for a whole sequence; take its causal form"


@pytest.mark.parametrize("every_step", [False, True])
@each_of_utterances
def test_a_modality_that_is_not_given_changes_nothing(system: str, form: str, every_step: bool) -> None:
    data = segments(6, every_step=every_step)
    other = replace(data, inputs=data.inputs | {"audio": data.inputs["audio"] * 3 + 1})
    found = trained(system, form, data, ("text", "vision"), standardise=True)
    assert_close(scores(found, whole(other)), scores(found, whole(data)), rtol=0, atol=0)
    given = trained(system, form, data, standardise=True)
    assert not torch.allclose(scores(given, whole(other)), scores(given, whole(data)))


def test_of_a_modality_that_is_not_given_the_published_mfm_sees_nothing_either() -> None:
    data = segments(6)
    other = replace(data, inputs=data.inputs | {"text": data.inputs["text"] * 3 + 1})
    found = trained("mfm", "published", data, ("audio",))
    assert_close(scores(found, whole(other)), scores(found, whole(data)), rtol=0, atol=0)


def test_a_causal_system_knows_what_it_is_not_given() -> None:
    data = segments(3)
    found = trained("mmlatch", "causal", data, ("text",))
    assert isinstance(found, Causal)
    windows = found._windows(whole(data))
    there = torch.from_numpy(np.arange(5) < data.lengths["text"][:, None]).float()
    for m, width in WIDTHS.items():
        assert windows[m].shape == (3, 5, width + FLAGS)
        for flag in windows[m][..., -FLAGS:].unbind(-1):
            assert torch.equal(flag, there if m == "text" else torch.zeros_like(there))
    assert not windows["vision"].any()


@pytest.mark.parametrize("every_step", [False, True])
@pytest.mark.parametrize(
    ("system", "form"), [each for each in SHAPES if each[1] == "causal" or each[0] in ("mmlatch", "late-fusion")]
)
def test_padding_and_what_stands_in_it_change_no_score(system: str, form: str, every_step: bool) -> None:
    data = segments(6, every_step=every_step)
    found, batch = trained(system, form, data, standardise=True), whole(data)
    there = ~batch.labels.isnan()
    expected = scores(found, batch)[there]
    wider = {m: torch.nn.functional.pad(x, (0, 0, 0, 3)) for m, x in batch.inputs.items()}
    past = torch.arange(8) >= batch.lengths["text"][:, None]
    for x in wider.values():
        x[past] = 9.0
    labels = torch.nn.functional.pad(batch.labels, (0, 3), value=torch.nan) if every_step else batch.labels
    padded = scores(found, batch._replace(inputs=wider, labels=labels))
    assert_close(padded[~labels.isnan()], expected, rtol=0, atol=1e-5)
    alone = torch.cat([scores(found, batch_of(data, [row], CPU)).flatten() for row in range(6)])
    assert_close(alone, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("every_step", [False, True])
def test_the_published_mult_reads_the_newest_step_and_takes_nothing_from_what_stands_in_padding(every_step: bool) -> None:
    data = segments(6, every_step=every_step)
    found, batch = trained("mult", "published", data, standardise=True), whole(data)
    past = torch.arange(5) >= batch.lengths["text"][:, None]
    other = {m: torch.where(past[..., None], 9.0, x) for m, x in batch.inputs.items()}
    there = ~batch.labels.isnan()
    assert_close(scores(found, batch._replace(inputs=other))[there], scores(found, batch)[there], rtol=0, atol=0)
    if not every_step:
        # As published: zeros in front.
        assert isinstance(found, Published)
        spread = found._inputs(batch)
        for row, length in enumerate(batch.lengths["text"].tolist()):
            front = {m: torch.nn.functional.pad(x[row : row + 1, :length], (0, 0, 5 - length, 0)) for m, x in spread.items()}
            assert_close(scores(found, batch)[row : row + 1], found.model(front).detach(), rtol=0, atol=1e-6)


@each_of_utterances
def test_a_step_without_a_label_has_no_part_in_the_loss(system: str, form: str) -> None:
    data = segments(6, every_step=True)
    found = trained(system, form, data, fit={"sign": 0.5}).eval()
    batch = whole(data)
    past = batch.labels.isnan()
    assert past.any()

    def loss(batch: Batch) -> float:
        torch.manual_seed(0)  # MFM's discrepancy is from draws
        return found.loss(batch).item()

    expected = loss(batch)
    assert expected == loss(batch._replace(inputs={m: torch.where(past[..., None], 0.0, x) for m, x in batch.inputs.items()}))
    if isinstance(found, Published):
        with torch.inference_mode():
            given, truth = found.scores(batch)[~past], batch.labels[~past]
        error = (given - truth).abs().mean() + 0.5 * sign_loss(given, truth).mean()
        assert expected == pytest.approx(error.item(), rel=1e-6)


# How inputs are spread.


def test_a_published_system_may_standardise_by_the_steps_of_the_train_split() -> None:
    data = segments(40)
    data.inputs["vision"][..., 1] = 7.0 * (data.inputs["vision"][..., 0] != 0)  # it does not vary
    found = trained("mmlatch", "published", data, standardise=True).eval()
    assert isinstance(found, Published)
    there = torch.from_numpy(np.arange(5) < data.lengths["text"][:, None])
    spread = found._inputs(whole(data))
    for m, x in spread.items():
        rows = x[there]
        assert_close(rows.mean(0), torch.zeros(WIDTHS[m]), rtol=0, atol=1e-5)
        expected = torch.ones(WIDTHS[m])
        if m == "vision":
            expected[1] = 0
        assert_close(rows.std(0), expected, rtol=0, atol=1e-5)
        assert not x[~there].any()
    plain = trained("mmlatch", "published", data).eval()
    assert isinstance(plain, Published)
    assert_close(plain._inputs(whole(data)), whole(data).inputs, rtol=0, atol=0)


def test_a_causal_system_is_spread_as_the_train_split_whatever_the_recipe_says() -> None:
    data = segments(40)
    shifted = replace(data, inputs={m: 100 * x + np.float32(5) * (x != 0) for m, x in data.inputs.items()})
    one, other = (trained("mmlatch", "causal", each) for each in (data, shifted))
    assert_close(scores(one, whole(data)), scores(other, whole(shifted)), rtol=0, atol=1e-3)


@pytest.mark.parametrize("form", ["published", "causal"])
def test_noise_is_for_training_alone_and_never_on_padding(form: str) -> None:
    data = segments(200)
    change = {"fit": {"noise": 0.5}, "standardise": True, "shape": {"hidden": 8, "dropout": 0.0}}
    found = trained("mmlatch", form, data, **change)
    batch = whole(data)
    assert torch.equal(scores(found, batch), scores(found, batch))
    with torch.no_grad():
        found.train()
        assert not torch.equal(found.scores(batch), found.scores(batch))
    if isinstance(found, Published):
        noisy, clean = found.train()._inputs(batch)["text"], found.eval()._inputs(batch)["text"]
        there = torch.arange(5) < batch.lengths["text"][:, None]
        assert (noisy - clean)[there].std().item() == pytest.approx(0.5, rel=0.05)
        assert not noisy[~there].any()


def test_a_causal_system_has_room_for_the_longest_segment() -> None:
    found = trained("mult", "causal", segments(longest=9))
    assert isinstance(found, Causal)
    assert found.model.config.max_steps == 9
    less = trained("mult", "causal", segments(longest=9), shape={**SHAPES["mult", "causal"], "max_steps": 3})
    assert isinstance(less, Causal)
    assert less.model.config.max_steps == 3


def test_late_fusion_has_no_masks_in_either_form() -> None:
    published = trained("late-fusion", "published", segments()).model
    assert isinstance(published, MMLatch)
    assert published.config.feedback == "none"
    causal = trained("late-fusion", "causal", segments()).model
    assert causal.config.masking == "none"  # type: ignore[attr-defined]


@each_system
def test_weights_are_a_function_of_the_seed(system: str, form: str) -> None:
    data = segments()
    one, same, other = (made(recipe_of(system, form), data, modalities=MODALITIES, seed=seed) for seed in (1, 1, 2))
    assert_close(one.state_dict(), same.state_dict(), rtol=0, atol=0)
    assert any(not torch.equal(x, other.state_dict()[name]) for name, x in one.state_dict().items())


def test_modalities_of_unlike_lengths_are_for_mult_alone() -> None:
    data = segments()
    longer = np.concatenate([data.inputs["audio"]] * 2, 1)
    unlike = replace(data, inputs=data.inputs | {"audio": longer}, lengths=data.lengths | {"audio": data.lengths["audio"] * 2})
    assert scores(trained("mult", "published", unlike), whole(unlike)).shape == (24,)
    for system, form in (("mmlatch", "published"), ("mmlatch", "causal")):
        found = trained(system, form, unlike)
        assert "audio is (24, 10, " in error_of(lambda found=found: found.loss(whole(unlike)), ValueError)  # type: ignore[misc]
