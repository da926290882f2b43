"""MFM as published: it scores, makes modalities again, and guesses a missing one better than its mean does. And causal."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from models.causal import FLAGS, MODALITIES
from models.mfm import JOINT, MFM, Analysis, CausalMFM, MFMConfig, Weights
from tests.models import test_causal
from tests.models.formulas import head, lanes_of, linear, lstm, project
from tests.models.test_causal import (
    HIDDEN,
    SIZES,
    STEPS,
    Inputs,
    assert_alike,
    begun,
    blocks_that_stand_still,
    followed,
    gradients,
    in_chunks,
    rows,
    steps_of,
    windows,
)

SMALL: dict[str, Any] = {
    **SIZES,
    "hidden": (16, 16, 16),
    "codes": (8, 8, 8, 8),
    "factors": (8, 8, 8, 8),
    "memory": 8,
    "attention_hidden": 16,
    "attention_dropout": 0.0,
    "code_dropout": (0.0, 0.0, 0.0, 0.0),
}
LENGTHS = torch.tensor([7, 3])


def made(**config: Any) -> MFM:
    return MFM.untrained(MFMConfig(**SMALL | config), seed=1)


def sequences(batch: int = 2, steps: int = 7) -> dict[str, Tensor]:
    random = torch.Generator().manual_seed(0)
    return {m: torch.randn(batch, steps, size, generator=random) for m, size in SIZES.items()}


def test_it_scores_and_makes_every_modality_again() -> None:
    found = made()(sequences(), LENGTHS)
    assert found.sentiment.shape == (2,)
    assert {name: tuple(z.shape) for name, z in found.codes.items()} == dict.fromkeys((*MODALITIES, JOINT), (2, 8))
    assert {m: tuple(x.shape) for m, x in found.made.items()} == {m: (2, 7, size) for m, size in SIZES.items()}


def test_padding_and_batch_mates_do_not_count() -> None:
    model, inputs = made(), sequences()
    both = model(inputs, LENGTHS)
    alone = model({m: x[1:, :3] for m, x in inputs.items()}, LENGTHS[1:])
    assert_close(both.sentiment[1:], alone.sentiment)
    for name, z in both.codes.items():
        assert_close(z[1:], alone.codes[name])


def test_the_score_reads_the_joint_factor_alone() -> None:
    model, inputs = made(), sequences()
    codes = {name: z.detach().requires_grad_() for name, z in model(inputs, LENGTHS).codes.items()}
    found = torch.autograd.grad(model._decode(codes, 7).sentiment.sum(), list(codes.values()), allow_unused=True)
    assert {name for name, gradient in zip(codes, found, strict=True) if gradient is not None} == {JOINT}


@pytest.mark.parametrize("missing", MODALITIES)
def test_a_missing_modality_is_guessed_from_the_others(missing: str) -> None:
    model, inputs = made(), sequences()
    found = model({m: x for m, x in inputs.items() if m != missing}, LENGTHS)
    assert found.made[missing].shape == inputs[missing].shape
    full = model(inputs, LENGTHS)
    for m in MODALITIES:
        assert torch.equal(found.codes[m], full.codes[m]) == (m != missing)


def test_every_weight_learns_from_the_loss() -> None:
    model = made().train()
    parts = model.loss(sequences(), LENGTHS, torch.tensor([1.0, -1.0]), Weights())
    assert set(parts) == {"score", "made", "discrepancy", "surrogates", "score without", "made without"}
    torch.stack(list(parts.values())).sum().backward()
    lacking = [name for name, weight in model.named_parameters() if weight.grad is None or not weight.grad.isfinite().all()]
    assert lacking == []


def test_trained_it_makes_a_missing_modality_better_than_its_mean() -> None:
    """Sequences whose modalities hang on one hidden number, with noise; the audio is then missing."""
    torch.manual_seed(0)
    random = torch.Generator().manual_seed(1)
    directions = {m: torch.randn(size, generator=random) for m, size in SIZES.items()}

    def batch(count: int) -> tuple[dict[str, Tensor], Tensor]:
        cause = torch.randn(count, 1, 1, generator=random)
        inputs = {m: cause * d + 0.2 * torch.randn(count, 4, len(d), generator=random) for m, d in directions.items()}
        return inputs, cause[:, 0, 0]

    model = made().train()
    optimiser = torch.optim.Adam(model.parameters(), 5e-3)
    lengths = torch.full((64,), 4)
    weights = Weights(text=1, audio=1, vision=1, discrepancy=0.1)
    for _ in range(150):
        inputs, labels = batch(64)
        optimiser.zero_grad()
        torch.stack(list(model.loss(inputs, lengths, labels, weights).values())).sum().backward()
        optimiser.step()
    model.eval()
    inputs, labels = batch(200)
    lengths = torch.full((200,), 4)
    with torch.no_grad():
        guessed = model({m: inputs[m] for m in ("text", "vision")}, lengths)
    error = ((guessed.made["audio"] - inputs["audio"]) ** 2).mean()
    of_the_mean = ((inputs["audio"] - inputs["audio"].mean((0, 1))) ** 2).mean()
    assert error < 0.3 * of_the_mean
    assert torch.corrcoef(torch.stack([guessed.sentiment, labels]))[0, 1] > 0.9


def test_it_is_saved_and_loaded(tmp_path: Path) -> None:
    model, inputs = made(), sequences()
    model.save_pretrained(tmp_path)
    assert torch.equal(MFM.from_pretrained(tmp_path)(inputs, LENGTHS).sentiment, model(inputs, LENGTHS).sentiment)


def test_what_does_not_fit_is_refused() -> None:
    model, inputs = made(), sequences()
    with pytest.raises(ValueError, match="surrogates need two modalities"):
        model({"text": inputs["text"]}, LENGTHS)
    with pytest.raises(ValueError, match=r"audio is \(2, 6, 4\), expected \(B, L, 4\)"):
        model(inputs | {"audio": inputs["audio"][:, :6]}, LENGTHS)
    with pytest.raises(ValueError, match=r"lengths: \[8, 3\], expected one for each of B = 2, from 1 to L = 7"):
        model(inputs, torch.tensor([8, 3]))
    with pytest.raises(ValueError, match="codes is"):
        made(codes=(1, 2, 3))


# The causal form.


CODE = 5
each_lane = pytest.mark.parametrize("m", range(3), ids=MODALITIES)


def causal(**config: Any) -> CausalMFM:
    model = test_causal.made("mfm", **config)
    assert isinstance(model, CausalMFM)
    return model


def analysed(model: CausalMFM, x: Inputs) -> Analysis:
    return model.analyse(x, begun(model, len(x["text"])))


def told(known: Tensor) -> Inputs:
    """Random windows in which lanes are known there, (3, T)."""
    x = windows(2, known.shape[1])
    for m, value in zip(MODALITIES, known, strict=True):
        x[m][..., -FLAGS] = value
    return x


def all_but(*lost: int) -> Inputs:
    """Windows of which those lanes never are known."""
    known = torch.ones(3, STEPS)
    known[list(lost)] = 0.0
    return told(known)


def by_formula(model: CausalMFM, x: Inputs) -> tuple[Tensor, Tensor, Tensor]:
    """The joint code, and without each lane its own code and the joint one as guessed, (3, T, code)."""

    def network(block: nn.Sequential, x: Tensor) -> Tensor:
        first, *_, last = block
        assert isinstance(first, nn.Linear)
        assert isinstance(last, nn.Linear)
        return (x @ first.weight.T + first.bias).clamp_min(0) @ last.weight.T + last.bias

    features, flags = lanes_of(model, x)
    projected = [project(each, lane) for each, lane in zip(model.projections, features, strict=True)]
    inputs = [torch.cat(pair, -1) for pair in zip(projected, flags, strict=True)]
    outputs, cells = zip(*(lstm(model.cells, index, lane) for index, lane in enumerate(inputs)), strict=True)
    now = torch.cat(cells, -1)
    before = torch.cat([torch.zeros(1, 3 * HIDDEN), now[:-1]])
    memory, memories = torch.zeros(model.config.memory), []
    for both in torch.cat([before, now], -1):
        attended = network(model.attention, both).softmax(-1) * both
        hidden = model.gates_of_cells(attended) + memory @ model.gates_of_memory.weight.T
        keep, take = (hidden.clamp_min(0) @ model.gates.weight.T + model.gates.bias).sigmoid().chunk(2)
        memory = keep * memory + take * network(model.candidate, attended).tanh()
        memories.append(memory)
    joint = model.joint_code(torch.cat([*outputs, torch.stack(memories)], -1))
    text, audio, vision = inputs
    pairs = [torch.cat(pair, -1) for pair in ((audio, vision), (text, vision), (text, audio))] * 2
    guessed = [linear(model.surrogate_codes, index, lstm(model.surrogates, index, pair)[0]) for index, pair in enumerate(pairs)]
    return joint, torch.stack(guessed[:3]), torch.stack(guessed[3:])


def scores_of(model: CausalMFM, code: Tensor) -> tuple[Tensor, Tensor]:
    """What is read from a joint code, (T, code)."""
    return head(model, model.joint_factor(code).relu())


def test_the_causal_model_is_that_of_the_formula(device: str) -> None:
    model, x = causal(), windows(known=1.0)
    expected = [by_formula(model, rows(x, slot)) for slot in range(2)]
    scores = [scores_of(model, joint) for joint, *_ in expected]
    model.to(device)
    there = {m: value.to(device) for m, value in x.items()}
    found, (prediction, _) = analysed(model, there), model(there, begun(model))
    for slot, (joint, guessed, guessed_joint) in enumerate(expected):
        assert_alike(found.codes[-1, slot].cpu(), joint, 1e-5)
        assert_alike(found.guessed[:, slot].cpu(), guessed, 1e-5)
        assert_alike(found.guessed_joint[:, slot].cpu(), guessed_joint, 1e-5)
        assert_alike((prediction.sentiment[slot].cpu(), prediction.uncertainty[slot].cpu()), scores[slot], 1e-5)


def test_with_all_lanes_known_the_joint_code_is_read_and_no_surrogate() -> None:
    model, x = causal(), all_but()
    prediction, _ = model(x, begun(model))
    assert_alike(prediction, analysed(model, x).full)
    (prediction.sentiment + prediction.uncertainty).sum().backward()
    assert {name.partition(".")[0] for name in blocks_that_stand_still(model)} == {
        *("encoders", "codes", "factors", "decoders"),
        *("surrogates", "surrogate_codes"),
    }


@each_lane
@pytest.mark.parametrize("whole", [True, False], ids=["in one call", "step by step"])
def test_without_a_lane_its_surrogate_is_read(m: int, whole: bool) -> None:
    model, x = causal(), all_but(m)
    expected = analysed(model, x)
    found, _ = in_chunks(model, x, [STEPS] if whole else [1] * STEPS, begun(model))
    assert_alike(found.sentiment, expected.without.sentiment[m], 1e-6)
    assert_alike(found.uncertainty, expected.without.uncertainty[m], 1e-6)
    for slot in range(2):
        scores = scores_of(model, by_formula(model, rows(x, slot))[2][m])
        assert_alike((found.sentiment[slot], found.uncertainty[slot]), scores, 1e-5)
    assert (found.sentiment - expected.full.sentiment).abs().max() > 1e-3


@each_lane
def test_what_a_lane_holds_that_never_is_known_does_not_matter(m: int) -> None:
    model, x = causal(), all_but(m)
    expected, _ = model(x, begun(model))
    x[MODALITIES[m]][..., :-FLAGS] += 1.0
    x[MODALITIES[m]][..., -1] = 0.0
    assert_alike(model(x, begun(model))[0], expected)


@pytest.mark.parametrize("lost", [(0, 1), (0, 2), (1, 2), (0, 1, 2)])
def test_without_several_lanes_the_mean_of_their_surrogates_is_read(lost: tuple[int, ...]) -> None:
    model, x = causal(), all_but(*lost)
    found, _ = model(x, begun(model))
    mean = analysed(model, x).guessed_joint[list(lost)].mean(0)
    for slot in range(2):
        assert_alike((found.sentiment[slot], found.uncertainty[slot]), scores_of(model, mean[slot]), 1e-6)


@each_lane
@pytest.mark.parametrize("sizes", [[STEPS], [5, 7], [4, 1, 1, 6], [1] * STEPS], ids=str)
def test_a_lane_that_was_known_once_is_not_missing_any_more(m: int, sizes: list[int]) -> None:
    model, known = causal(), torch.ones(3, STEPS)
    known[m] = (torch.arange(STEPS) == 4).float()
    x = told(known)
    found, _ = in_chunks(model, x, sizes, begun(model))
    expected = analysed(model, x)
    assert_alike(found.sentiment[:, :4], expected.without.sentiment[m, :, :4], 1e-6)
    assert_alike(found.sentiment[:, 4:], expected.full.sentiment[:, 4:], 1e-6)


def test_which_lanes_are_known_is_what_the_prediction_says_of_each_window() -> None:
    model, x = causal(), windows()
    assert torch.equal(model(x, begun(model))[0].weights, torch.stack([x[m][..., -FLAGS] for m in MODALITIES], -1))


@each_lane
def test_with_the_utterance_a_lane_is_missing_anew(m: int) -> None:
    model, x = causal(), all_but(m)
    _, state = model(all_but(), begun(model))
    found, _ = model(x, state.reset(torch.tensor([True, False])))
    expected = analysed(model, x).without
    assert_alike(found.sentiment[0], expected.sentiment[m, 0], 1e-6)
    going_on, _ = model({n: torch.cat(pair, 1) for n, pair in both(all_but(), x).items()}, begun(model))
    assert_alike(found.sentiment[1], going_on.sentiment[1, STEPS:], 1e-6)


def both(one: Inputs, other: Inputs) -> dict[str, tuple[Tensor, Tensor]]:
    return {m: (one[m], other[m]) for m in MODALITIES}


def test_an_analysis_has_the_shapes_that_it_names() -> None:
    model, x = causal(), windows(4, 6)
    found = analysed(model, x)
    assert found.full.sentiment.shape == found.full.uncertainty.shape == (4, 6)
    assert found.without.sentiment.shape == found.without.uncertainty.shape == (3, 4, 6)
    assert found.codes.shape == (4, 4, 6, CODE)
    assert found.guessed.shape == found.guessed_joint.shape == (3, 4, 6, CODE)
    for lanes in (found.features, found.made, found.made_without):
        assert [tuple(lane.shape) for lane in lanes] == [(4, 6, size) for size in SIZES.values()]
    for (m, spread), features in zip(model.spreads.items(), found.features, strict=True):
        assert torch.equal(features, spread(x[m][..., :-FLAGS]))


@each_lane
@pytest.mark.parametrize("part", ["guessed", "guessed_joint"])
def test_a_surrogate_sees_the_past_of_the_other_lanes_alone(m: int, part: str) -> None:
    model, x = causal(), followed(windows(known=1.0))
    found = gradients(getattr(analysed(model, x), part)[m, :, 5].sum(), x)
    for lane, gradient in zip(range(3), found.values(), strict=True):
        past = slice(0, 0 if lane == m else 6)
        assert (gradient[:, past].abs().sum(-1) > 0).all()
        assert gradient.count_nonzero() == gradient[:, past].count_nonzero()


@each_lane
def test_a_lanes_own_code_sees_that_lane_alone_and_the_joint_one_all(m: int) -> None:
    model, x = causal(), followed(windows(known=1.0))
    own, joint = (gradients(analysed(model, x).codes[which, :, 5].sum(), x).values() for which in (m, -1))
    for lane, (of_own, of_joint) in enumerate(zip(own, joint, strict=True)):
        assert bool(of_own[:, :6].any()) == (lane == m)
        assert (of_joint[:, :6].abs().sum(-1) > 0).all()
        assert not torch.cat([of_own[:, 6:], of_joint[:, 6:]]).any()


@each_lane
def test_a_lane_is_made_again_from_its_own_code_and_the_joint_one(m: int) -> None:
    model, found = causal(), analysed(causal(), windows())
    factor, own = model.joint_factor(found.codes[-1]).relu(), linear(model.factors, m, found.codes[m]).relu()
    assert_alike(found.made[m], model.decoders[m](torch.cat([factor, own], -1)), 1e-5)
    factor, own = model.joint_factor(found.guessed_joint[m]).relu(), linear(model.factors, m, found.guessed[m]).relu()
    assert_alike(found.made_without[m], model.decoders[m](torch.cat([factor, own], -1)), 1e-5)


@each_lane
def test_what_is_made_without_a_lane_does_not_see_it(m: int) -> None:
    model, x = causal(), followed(windows(known=1.0))
    found = analysed(model, x)
    without = found.made_without[m].sum() + found.without.sentiment[m].sum() + found.without.uncertainty[m].sum()
    for lane, gradient in enumerate(gradients(without, x).values()):
        assert bool(gradient.any()) == (lane != m)


def test_steps_of_an_utterance_are_analysed_whatever_comes_after() -> None:
    model, x = causal(), windows()
    whole, part = analysed(model, x), analysed(model, steps_of(x, 0, 5))
    assert_alike(part.codes, whole.codes[:, :, :5], 1e-6)
    assert_alike(part.made, [lane[:, :5] for lane in whole.made], 1e-5)
    assert_alike(part.without.sentiment, whole.without.sentiment[..., :5], 1e-6)
