from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from models.causal import FLAGS, MODALITIES, Prediction
from models.mmlatch import CausalMMLatch, CrossModalFusion, MMLatch, MMLatchConfig
from tests.models import formulas, test_causal
from tests.models.formulas import Look, attend
from tests.models.test_causal import (
    HIDDEN,
    LOOK_BACK,
    SIZES,
    STEPS,
    Inputs,
    assert_alike,
    begun,
    followed,
    gradients,
    gradients_of_all,
    row,
    rows,
    sequences,
    steps_of,
    windows,
)

MASKINGS, FEEDBACKS = ["projection", "features"], ["sequence", "static", "none"]

each_form = pytest.mark.parametrize("masking", [*MASKINGS, "none"])
each_masking = pytest.mark.parametrize("masking", MASKINGS)
each_feedback = pytest.mark.parametrize("feedback", FEEDBACKS)


def made(masking: Any = "projection", *, device: str = "cpu") -> CausalMMLatch:
    model = test_causal.made("mmlatch", masking=masking, device=device)
    assert isinstance(model, CausalMMLatch)
    return model


def published(feedback: Any = "sequence", *, device: str = "cpu", **config: Any) -> MMLatch:
    return MMLatch.untrained(MMLatchConfig(**SIZES, hidden=HIDDEN, feedback=feedback, **config), seed=1).to(device)


# The models by formula: one sequence, (T, columns) a modality, in the words of the paper and of its authors' code.


def fuse(block: CrossModalFusion, text: Tensor, audio: Tensor, vision: Tensor, attend: Look) -> Tensor:
    def read(index: int, memory: Tensor, asking: Tensor) -> Tensor:
        return attend(block.pairs, index, asking, memory) + asking

    ta = read(0, text, audio) + read(2, audio, text)
    tv = read(1, text, vision) + read(4, vision, text)
    va = read(3, audio, vision) + read(5, vision, audio)
    tav = attend(block.text, 0, va, text)
    return torch.cat([text, audio, vision, ta, tv, va, tav], -1)


def causal_by_formula(model: CausalMMLatch, x: Inputs) -> Prediction:
    projected = model.config.masking != "features"
    look = partial(attend, formulas.seen_so_far(STEPS, LOOK_BACK))
    features, flags = formulas.lanes_of(model, x)
    if projected:
        features = [formulas.project(each, lane) for lane, each in zip(features, model.projections, strict=True)]

    def run(blocks: nn.ModuleList, lane: int, x: Tensor, which: int = 0, of: int = 1) -> Tensor:
        """A lane's LSTM: all lanes' are in one block if they are of one width, else each lane's are in its own."""
        block, index = (blocks[0], of * lane + which) if projected else (blocks[lane], which)
        return formulas.lstm(block, index, x)[0]

    def encode(features: list[Tensor]) -> list[Tensor]:
        inputs = [torch.cat(pair, -1) for pair in zip(features, flags, strict=True)]
        encoded = [run(model.encoders, lane, x) for lane, x in enumerate(inputs)]
        return [look(model.encoder_attention, lane, x, x) for lane, x in enumerate(encoded)]

    def mask(lane: int, one: Tensor, other: Tensor) -> Tensor:
        return (run(model.masks, lane, one, 0, 2).sigmoid() + run(model.masks, lane, other, 1, 2).sigmoid()) / 2

    masks: list[Tensor] = []
    if model.config.masking != "none":
        text, audio, vision = encode(features)
        masks = [mask(0, audio, vision), mask(1, text, vision), mask(2, text, audio)]
        features = [lane * mask for lane, mask in zip(features, masks, strict=True)]
    high = encode(features)
    fused, _ = formulas.lstm(model.fusion, 0, fuse(model.cross_modal, *high, look))
    attended = look(model.fusion_attention, 0, fused, fused)
    scores = formulas.head(model, torch.cat([formulas.mean_so_far(attended), attended, *features], -1))
    weights = [mask.mean(-1) for mask in masks] or [flag[:, 0] for flag in flags]
    return Prediction(*scores, torch.stack(weights, -1), dict(zip(MODALITIES, masks, strict=False)))


def published_by_formula(model: MMLatch, x: Inputs) -> tuple[Tensor, Inputs]:
    features, size = [x[m] for m in MODALITIES], len(x["text"])
    look = partial(attend, torch.ones(size, size, dtype=torch.bool))
    every = float(model.config.every_step)

    def encode(features: list[Tensor]) -> list[Tensor]:
        both = [lstm(lane)[0] for lstm, lane in zip(model.encoders, features, strict=True)]
        merged = [x[:, :HIDDEN] + x[:, HIDDEN:] for x in both]
        return [look(model.encoder_attention, lane, x, x) + every * x for lane, x in enumerate(merged)]

    def opened(index: int, x: Tensor) -> Tensor:
        out = model.masks[index](x)
        return (out[0] if model.config.feedback == "sequence" else out).sigmoid()

    high, masks = encode(features), []
    if model.config.feedback != "none":
        text, audio, vision = high
        masks = [
            0.5 * (opened(0, audio) + opened(1, vision)),
            0.5 * (opened(2, text) + opened(3, vision)),
            0.5 * (opened(4, text) + opened(5, audio)),
        ]
        high = encode([lane * mask for lane, mask in zip(features, masks, strict=True)])
    fused = model.fusion(fuse(model.cross_modal, *high, look))[0]
    attended = look(model.fusion_attention, 0, fused, fused) + every * fused
    score = model.head(attended)[:, 0] if every else model.head(attended.sum(0))[0]
    return score, dict(zip(MODALITIES, masks, strict=False))


# The causal form.


@each_form
def test_it_is_the_published_model_made_causal(masking: str, device: str) -> None:
    model, x = made(masking, device=device), windows(device=device)
    prediction, _ = model(x, begun(model))
    for slot in range(2):
        assert_alike(row(prediction, slot), causal_by_formula(model, rows(x, slot)), 1e-5)


@each_form
def test_its_gradients_are_those_of_the_formula(masking: str) -> None:
    model, x = made(masking), followed(rows(windows(1), 0))
    prediction, _ = model(rows(x, None), begun(model, 1))
    expected = gradients_of_all(causal_by_formula(model, x), x, model)
    assert_alike(gradients_of_all(prediction, x, model), expected, 1e-4)


@each_masking
@pytest.mark.parametrize("m", MODALITIES)
def test_a_mask_depends_on_the_past_of_the_others_alone(masking: str, m: str) -> None:
    model, x = made(masking), followed(windows())
    prediction, _ = model(x, begun(model))
    for other, gradient in gradients(prediction.masks[m][:, 5].sum(), x).items():
        past = slice(0, 0 if other == m else 6)
        assert (gradient[:, past].abs().sum(-1) > 0).all()
        assert gradient.count_nonzero() == gradient[:, past].count_nonzero()


@settings(deadline=None, max_examples=40)
@given(st.sampled_from(MASKINGS), st.floats(0, 1e6), st.integers(0, 1000))
@torch.inference_mode()
def test_causal_masks_neither_open_nor_close(masking: str, scale: float, seed: int) -> None:
    model = made(masking)
    prediction, _ = model({m: value * scale for m, value in windows(seed=seed).items()}, begun(model))
    for mask in (prediction.weights, *prediction.masks.values()):
        assert ((mask > 0.2689) & (mask < 0.7312)).all()


@each_form
def test_masks_are_as_wide_as_what_they_lie_over(masking: str) -> None:
    columns = {"projection": [HIDDEN] * 3, "features": [*SIZES.values()], "none": [0] * 3}
    assert made(masking).mask_widths == tuple(columns[masking])


@each_masking
def test_flags_are_never_masked(masking: str) -> None:
    model, x = made(masking), windows()
    for value in x.values():
        value[..., :-FLAGS] = 0.0
    for projection in model.projections:
        nn.init.zeros_(projection.hidden.bias)
        nn.init.zeros_(projection.out.bias)
    before, _ = model(x, begun(model))
    for parameter in model.masks.parameters():
        nn.init.normal_(parameter)
    after, _ = model(x, begun(model))
    assert not torch.equal(after.weights, before.weights)
    assert torch.equal(after.sentiment, before.sentiment)


# The published form.


@pytest.mark.parametrize(
    ("feedback", "count"),
    [("none", 1_633_801), ("static", 1_716_419), ("sequence", 2_741_153)],
    ids=["none", "static", "sequence"],
)
def test_the_published_model_has_the_published_size(feedback: Any, count: int) -> None:
    with torch.device("meta"):
        assert sum(parameter.numel() for parameter in MMLatch(MMLatchConfig(feedback=feedback)).parameters()) == count


@pytest.mark.parametrize("every_step", [False, True])
@each_feedback
def test_it_is_the_published_model(feedback: str, every_step: bool, device: str) -> None:
    model, x = published(feedback, every_step=every_step, device=device), sequences(device=device)
    scores, masks = model(x, torch.full((2,), STEPS, device=device))
    assert scores.shape == ((2, STEPS) if every_step else (2,))
    for slot in range(2):
        assert_alike((scores[slot], rows(masks, slot)), published_by_formula(model, rows(x, slot)), 1e-5)
    assert {m: mask.shape for m, mask in masks.items()} == ({} if feedback == "none" else {m: x[m].shape for m in MODALITIES})


@pytest.mark.parametrize("lengths", [[STEPS], [0, 1], [1, STEPS + 1]], ids=["too few", "none", "too long"])
def test_wrong_lengths_are_named(lengths: list[int]) -> None:
    with pytest.raises(ValueError, match=rf"^lengths: .+, expected one for each of B = 2, from 1 to L = {STEPS}"):
        published("none")(sequences(), torch.tensor(lengths))


def test_a_published_models_wrong_shape_is_named() -> None:
    with pytest.raises(ValueError, match=r"^vision is \(.+\), expected \(B, T, \d+\)"):
        published("none")(sequences() | {"vision": torch.zeros(2, STEPS, 99)}, torch.tensor([1, 1]))


@each_feedback
def test_nothing_is_detached(feedback: str, device: str) -> None:
    model, x = published(feedback, dropout=0.0, device=device).train(), followed(rows(sequences(1, device=device), 0))
    score, _ = model(rows(x, None), torch.tensor([STEPS], device=device))
    found = gradients(score[0], x, model)
    assert all(gradient.norm() > 0 for gradient in found.values())
    assert_alike(found, gradients(published_by_formula(model, x)[0], x, model), 1e-4)


@each_feedback
@pytest.mark.parametrize("garbage", [0.0, 1e30, torch.nan])
@torch.inference_mode()
def test_padding_does_not_matter(feedback: str, garbage: float, device: str) -> None:
    model, x, lengths = published(feedback, device=device), sequences(3, device=device), torch.tensor([4, STEPS, 1])
    for value in x.values():
        for slot, length in enumerate(lengths):
            value[slot, length:] = garbage
    scores, masks = model(x, lengths.to(device))
    for slot, length in enumerate(lengths):
        alone = steps_of(rows(x, [slot]), 0, int(length))
        expected, expected_masks = model(alone, lengths[[slot]].to(device))
        assert_alike(scores[[slot]], expected, 1e-5)
        assert_alike(steps_of(rows(masks, [slot]), 0, int(length)), expected_masks, 1e-5)


@each_feedback
@torch.inference_mode()
def test_a_step_of_many_scores_depends_on_neither_padding_nor_batch_mates(feedback: str, device: str) -> None:
    model, x, lengths = published(feedback, every_step=True, device=device), sequences(3, device=device), [4, STEPS, 1]
    for value in x.values():
        for slot, length in enumerate(lengths):
            value[slot, length:] = 1e30
    scores, _ = model(x, torch.tensor(lengths, device=device))
    for slot, length in enumerate(lengths):
        alone, _ = model(steps_of(rows(x, [slot]), 0, length), torch.tensor([length], device=device))
        assert_alike(scores[[slot], :length], alone, 1e-5)


@each_feedback
def test_scoring_every_step_takes_the_same_weights(feedback: str) -> None:
    one, other = published(feedback), published(feedback, every_step=True)
    assert_alike(other.state_dict(), one.state_dict())


@each_feedback
@torch.inference_mode()
def test_padding_may_be_taken_for_data_as_in_the_reference(feedback: str, device: str) -> None:
    model, x = published(feedback, ignore_lengths=True, device=device), sequences(1, 4, device=device)
    scores = set()
    for padding in range(4):
        padded = {m: nn.functional.pad(value, (0, 0, 0, padding)) for m, value in x.items()}
        score, _ = model(padded, torch.tensor([4], device=device))
        assert_alike(score[0], published_by_formula(model, rows(padded, 0))[0], 1e-5)
        scores.add(round(score.item(), 4))
    assert len(scores) == 4


@each_feedback
@torch.inference_mode()
def test_the_published_model_gives_one_value_but_in_training(feedback: str, device: str) -> None:
    model, x, lengths = published(feedback, device=device), sequences(device=device), torch.tensor([STEPS, 3], device=device)
    first = model(x, lengths)
    for _ in range(49):
        assert_alike(model(x, lengths), first)
    model.train()
    assert not torch.equal(model(x, lengths)[0], model(x, lengths)[0])


@torch.inference_mode()
def test_masks_may_be_dropped_in_evaluation_as_in_the_reference(device: str) -> None:
    model, x, lengths = published(mask_dropout_in_eval=True, device=device), sequences(1, device=device), torch.tensor([STEPS])
    found = [model(x, lengths.to(device)) for _ in range(50)]
    assert len({score.item() for score, _ in found}) > 40
    for _, masks in found:
        assert_alike(masks, found[0][1])


@torch.inference_mode()
def test_sequence_masks_neither_open_nor_close() -> None:
    model = published()
    for index, mask in enumerate(model.masks):
        take, keep, candidate, give = mask.bias_ih_l0.chunk(4)
        for gate in (take, keep, give):
            gate.fill_(99.0)
        candidate.fill_(99.0 if index < 4 else -99.0)
    _, masks = model(sequences(), torch.tensor([STEPS, 3]))
    assert 0.731 < max(masks["text"].max(), masks["audio"].max()) < 0.7312
    assert 0.2689 < masks["vision"].min() < 0.269


@torch.inference_mode()
def test_static_masks_open_and_close() -> None:
    model = published("static")
    for index, mask in enumerate(model.masks):
        mask.bias.fill_(9.0 if index < 4 else -9.0)
    _, masks = model(sequences(), torch.tensor([STEPS, 3]))
    assert min(masks["text"].min(), masks["audio"].min()) > 0.99
    assert masks["vision"].max() < 0.01


# Both.


@pytest.fixture
def dropped(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The rates of all dropouts, which do nothing now."""
    rates: list[float] = []

    def dropout(x: Tensor, p: float, training: bool) -> Tensor:
        rates.extend([p] * training)
        return x

    monkeypatch.setattr("models.layers.dropout", dropout)
    monkeypatch.setattr("models.causal.dropout", dropout)
    monkeypatch.setattr("models.mmlatch.dropout", dropout)
    return rates


FUSION_DROPOUT = [0.1, 0.1, 0.1, 0.1]  # on the attention of pairs, of the text, after the LSTM, on its attention


@pytest.mark.parametrize(("masking", "groups"), [("projection", 1), ("features", 3)])
def test_the_causal_model_drops_what_the_published_one_does(masking: str, groups: int, dropped: list[float]) -> None:
    model, x = made(masking).train(), windows()
    prediction, _ = model(x, begun(model))
    own = [0.2, 0.2]  # before and after the head's hidden layer, which the published one does not have
    assert dropped == [0.2, 0.2, *[0.1] * groups, *[0.2] * groups, 0.2, 0.2, *FUSION_DROPOUT, *own]
    assert_alike(row(prediction, 0), causal_by_formula(model, rows(x, 0)), 1e-5)


@pytest.mark.parametrize(
    ("feedback", "masks"), [("sequence", [*[0.1] * 6, 0.2, 0.2, 0.2, 0.2, 0.2]), ("static", [0.2] * 5), ("none", [])]
)
def test_the_published_model_drops_where_the_reference_does(feedback: str, masks: list[float], dropped: list[float]) -> None:
    model, x, lengths = published(feedback).train(), sequences(1), torch.tensor([STEPS])
    score, _ = model(x, lengths)
    assert dropped == [0.2, 0.2, *masks, *FUSION_DROPOUT]
    assert_alike(score[0], published_by_formula(model, rows(x, 0))[0], 1e-5)
    dropped.clear()
    published(feedback, mask_dropout_in_eval=True)(x, lengths)
    assert dropped == ([] if feedback == "none" else [0.2] * 3)


@pytest.mark.parametrize(
    ("name", "value"), [("text", 0), ("audio", 2**16 + 1), ("hidden", -1), ("dropout", 1.0), ("dropout", -0.1)]
)
def test_a_published_models_configuration_out_of_range_is_named(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"^{name} is {value}, expected"):
        replace(published().config, **{name: value})
