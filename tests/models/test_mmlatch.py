from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache, partial
from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.testing import assert_close

from models.causal import FLAGS, MODALITIES, Prediction
from models.layers import Attention, CausalLSTM
from models.mmlatch import CausalMMLatch, CausalMMLatchConfig, CrossModalFusion, MMLatch, MMLatchConfig
from models.state import State
from tests.models.test_layers import DEVICES

SIZES = {"text": 5, "audio": 4, "vision": 6}
HIDDEN, STEPS, LOOK_BACK = 8, 12, 7
MASKINGS, FEEDBACKS = ["projection", "features"], ["sequence", "static", "none"]
Inputs = dict[str, Tensor]
Attend = Callable[[Attention, int, Tensor, Tensor], Tensor]

each_masking = pytest.mark.parametrize("masking", MASKINGS)
each_feedback = pytest.mark.parametrize("feedback", FEEDBACKS)


@pytest.fixture(params=DEVICES)
def device(request: pytest.FixtureRequest) -> Iterator[str]:
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        yield request.param


def made(masking: Any = "projection", *, device: str = "cpu") -> CausalMMLatch:
    config = CausalMMLatchConfig(**SIZES, hidden=HIDDEN, max_steps=LOOK_BACK, masking=masking)
    model = CausalMMLatch.untrained(config, seed=1)
    random = torch.Generator().manual_seed(2)
    for m, spread in model.spreads.items():
        spread.measure(2 * torch.randn(50, SIZES[m], generator=random) + 0.5)
    return model.to(device)


def published(feedback: Any = "sequence", *, device: str = "cpu", **config: Any) -> MMLatch:
    return MMLatch.untrained(MMLatchConfig(**SIZES, hidden=HIDDEN, feedback=feedback, **config), seed=1).to(device)


def sequences(batch: int = 2, steps: int = STEPS, *, seed: int = 1, device: str = "cpu") -> Inputs:
    random = torch.Generator().manual_seed(seed)
    return {m: torch.randn(batch, steps, size, generator=random).to(device) for m, size in SIZES.items()}


def windows(batch: int = 2, steps: int = STEPS, *, seed: int = 1, device: str = "cpu") -> Inputs:
    """Random features and flags."""
    flags = torch.rand(3, batch, steps, FLAGS, generator=torch.Generator().manual_seed(seed)).to(device)
    features = sequences(batch, steps, seed=seed, device=device)
    return {m: torch.cat([features[m], flag], -1) for m, flag in zip(MODALITIES, flags, strict=True)}


def rows(x: Inputs, index: Any) -> Inputs:
    return {m: value[index] for m, value in x.items()}


def steps_of(x: Inputs, first: int, last: int | None = None) -> Inputs:
    return {m: value[:, first:last] for m, value in x.items()}


def begun(model: CausalMMLatch, batch: int = 2, *, in_place: bool = False) -> State:
    """A state with room for more than attention looks back."""
    return model.initial_state(batch, capacity=3 * STEPS, in_place=in_place)


def in_chunks(model: CausalMMLatch, x: Inputs, sizes: list[int], state: State) -> tuple[Prediction, State]:
    parts = []
    for chunk in zip(*(value.split(sizes, 1) for value in x.values()), strict=True):
        prediction, state = model(dict(zip(x, chunk, strict=True)), state)
        parts.append(prediction)
    sentiment, uncertainty, weights, masks = zip(*parts, strict=True)
    whole = {m: torch.cat([mask[m] for mask in masks], 1) for m in MODALITIES}
    return Prediction(torch.cat(sentiment, 1), torch.cat(uncertainty, 1), torch.cat(weights, 1), whole), state


def flat(prediction: Prediction) -> Tensor:
    """All outputs as columns, (B, T, …)."""
    sentiment, uncertainty, weights, masks = prediction
    return torch.cat([sentiment[..., None], uncertainty[..., None], weights, *masks.values()], -1)


def row(prediction: Prediction, index: Any) -> Prediction:
    *values, masks = prediction
    return Prediction(*(value[index] for value in values), rows(masks, index))


def assert_alike(found: Any, expected: Any, tolerance: float = 0.0) -> None:
    """Tensors, alone or as structures, differ by no more; not in a bit if no tolerance is given."""
    assert_close(found, expected, rtol=0.0, atol=tolerance)


# The models by formula: one sequence, (T, columns) a modality, in the words of the paper and of its authors' code.


def attend(seen: Tensor, block: Attention, index: int, asking: Tensor, memory: Tensor) -> Tensor:
    """softmax(Q K^T / sqrt(d)) V; `seen`, (T, S), is True where a step may look."""
    queries, values = asking @ block.queries[index], memory @ block.values[index]
    keys = memory if block.keys is None else memory @ block.keys[index]
    scores = queries @ keys.T / block.size**0.5
    return scores.masked_fill(~seen, -torch.inf).softmax(-1) @ values


def fuse(block: CrossModalFusion, text: Tensor, audio: Tensor, vision: Tensor, attend: Attend) -> Tensor:
    def read(index: int, memory: Tensor, asking: Tensor) -> Tensor:
        return attend(block.pairs, index, asking, memory) + asking

    ta = read(0, text, audio) + read(2, audio, text)
    tv = read(1, text, vision) + read(4, vision, text)
    va = read(3, audio, vision) + read(5, vision, audio)
    tav = attend(block.text, 0, va, text)
    return torch.cat([text, audio, vision, ta, tv, va, tav], -1)


def lstm(block: CausalLSTM, index: int, x: Tensor) -> Tensor:
    h = c = x.new_zeros(block.hidden)
    outputs = []
    for gates in x @ block.input_weight[index] + block.bias[index]:
        take, keep, give, candidate = (gates + h @ block.hidden_weight[index]).chunk(4)
        c = keep.sigmoid() * c + take.sigmoid() * candidate.tanh()
        h = give.sigmoid() * c.tanh()
        outputs.append(h)
    return torch.stack(outputs)


def causal_by_formula(model: CausalMMLatch, x: Inputs) -> Prediction:
    projected = model.config.masking == "projection"
    age = torch.arange(STEPS)[:, None] - torch.arange(STEPS)
    look = partial(attend, ((age >= 0) & (age < LOOK_BACK)).to(x["text"].device))
    features, flags = ([x[m][:, part] for m in MODALITIES] for part in (slice(-FLAGS), slice(-FLAGS, None)))
    features = [spread(lane) for lane, spread in zip(features, model.spreads.values(), strict=True)]
    if projected:
        features = [
            nn.functional.gelu(lane @ each.hidden.weight.T + each.hidden.bias) @ each.out.weight.T + each.out.bias
            for lane, each in zip(features, model.projections, strict=True)
        ]

    def run(blocks: nn.ModuleList, lane: int, x: Tensor, which: int = 0, of: int = 1) -> Tensor:
        """A lane's LSTM: all lanes' are in one block if they are of one width, else each lane's are in its own."""
        return lstm(blocks[0], of * lane + which, x) if projected else lstm(blocks[lane], which, x)

    def encode(features: list[Tensor]) -> list[Tensor]:
        inputs = [torch.cat(pair, -1) for pair in zip(features, flags, strict=True)]
        encoded = [run(model.encoders, lane, x) for lane, x in enumerate(inputs)]
        return [look(model.encoder_attention, lane, x, x) for lane, x in enumerate(encoded)]

    def mask(lane: int, one: Tensor, other: Tensor) -> Tensor:
        return (run(model.masks, lane, one, 0, 2).sigmoid() + run(model.masks, lane, other, 1, 2).sigmoid()) / 2

    text, audio, vision = encode(features)
    masks = [mask(0, audio, vision), mask(1, text, vision), mask(2, text, audio)]
    masked = [lane * mask for lane, mask in zip(features, masks, strict=True)]
    high = encode(masked)
    fused = lstm(model.fusion, 0, fuse(model.cross_modal, *high, look))
    attended = look(model.fusion_attention, 0, fused, fused)
    mean = torch.stack([attended[: step + 1].mean(0) for step in range(STEPS)])
    read = torch.cat([mean, attended, *masked], -1) @ model.reading.weight.T + model.reading.bias
    sentiment, uncertainty = (nn.functional.gelu(read) @ model.head.weight.T + model.head.bias).T
    weights = torch.stack([mask.mean(-1) for mask in masks], -1)
    return Prediction(3 * sentiment.tanh(), 3 * uncertainty.sigmoid(), weights, dict(zip(MODALITIES, masks, strict=True)))


def published_by_formula(model: MMLatch, x: Inputs) -> tuple[Tensor, Inputs]:
    features, size = [x[m] for m in MODALITIES], len(x["text"])
    look = partial(attend, torch.ones(size, size, dtype=torch.bool, device=x["text"].device))

    def encode(features: list[Tensor]) -> list[Tensor]:
        both = [lstm(lane)[0] for lstm, lane in zip(model.encoders, features, strict=True)]
        merged = [x[:, :HIDDEN] + x[:, HIDDEN:] for x in both]
        return [look(model.encoder_attention, lane, x, x) for lane, x in enumerate(merged)]

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
    attended = look(model.fusion_attention, 0, fused, fused)
    return model.head(attended.sum(0))[0], dict(zip(MODALITIES, masks, strict=False))


def followed(x: Inputs) -> Inputs:
    return {m: value.requires_grad_() for m, value in x.items()}


def gradients(score: Tensor, x: Inputs, model: nn.Module | None = None) -> Inputs:
    """Of the score by each input, and by each of the model's parameters."""
    named = x | dict(model.named_parameters() if model else ())
    return dict(zip(named, torch.autograd.grad(score, list(named.values()), materialize_grads=True), strict=True))


def gradients_of_all(prediction: Prediction, x: Inputs, model: nn.Module) -> Inputs:
    return gradients((prediction.sentiment * prediction.uncertainty).sum(), x, model)


# The causal form.


@each_masking
def test_it_is_the_published_model_made_causal(masking: str, device: str) -> None:
    model, x = made(masking, device=device), windows(device=device)
    prediction, _ = model(x, begun(model))
    for slot in range(2):
        assert_alike(row(prediction, slot), causal_by_formula(model, rows(x, slot)), 1e-5)


@each_masking
def test_its_gradients_are_those_of_the_formula(masking: str) -> None:
    model, x = made(masking), followed(rows(windows(1), 0))
    prediction, _ = model(rows(x, None), begun(model, 1))
    expected = gradients_of_all(causal_by_formula(model, x), x, model)
    assert_alike(gradients_of_all(prediction, x, model), expected, 1e-4)


@each_masking
@pytest.mark.parametrize("at", [0, 5, STEPS - 1])
@pytest.mark.parametrize("output", ["sentiment", "uncertainty", "weights"])
def test_a_prediction_depends_on_the_past_alone(masking: str, at: int, output: str, device: str) -> None:
    model, x = made(masking, device=device), followed(windows(device=device))
    prediction, _ = model(x, begun(model))
    for gradient in gradients(getattr(prediction, output)[:, at].sum(), x).values():
        assert (gradient[:, : at + 1].abs().sum(-1) > 0).all()
        assert (gradient[:, at + 1 :] == 0).all()


@each_masking
@pytest.mark.parametrize("m", MODALITIES)
def test_a_mask_depends_on_the_past_of_the_others_alone(masking: str, m: str) -> None:
    model, x = made(masking), followed(windows())
    prediction, _ = model(x, begun(model))
    for other, gradient in gradients(prediction.masks[m][:, 5].sum(), x).items():
        past = slice(0, 0 if other == m else 6)
        assert (gradient[:, past].abs().sum(-1) > 0).all()
        assert gradient.count_nonzero() == gradient[:, past].count_nonzero()


@cache
def in_one_call(masking: str) -> tuple[CausalMMLatch, Inputs, Tensor]:
    model, x = made(masking), windows()
    return model, x, flat(model(x, begun(model))[0])


@settings(deadline=None, max_examples=1000)
@given(st.sampled_from(MASKINGS), st.booleans(), st.sets(st.integers(1, STEPS - 1), max_size=6))
@torch.inference_mode()
def test_in_chunks_of_any_size_as_in_one_call(masking: str, in_place: bool, cuts: set[int]) -> None:
    model, x, whole = in_one_call(masking)
    sizes = [last - first for first, last in pairwise([0, *sorted(cuts), STEPS])]
    prediction, _ = in_chunks(model, x, sizes, begun(model, in_place=in_place))
    assert (flat(prediction) - whole).abs().max() < 1e-5


@each_masking
@pytest.mark.parametrize("in_place", [True, False], ids=["in place", "copied"])
@torch.inference_mode()
def test_step_by_step_as_in_one_call(masking: str, in_place: bool, device: str) -> None:
    model, x = made(masking, device=device), windows(device=device)
    prediction, state = in_chunks(model, x, [1] * STEPS, begun(model, in_place=in_place))
    expected, end = model(x, begun(model, in_place=in_place))
    assert_alike(prediction, expected, 1e-5)
    assert_alike(vars(state), vars(end.at(-1)), 1e-5)


@each_masking
def test_in_chunks_the_gradients_are_those_of_one_call(masking: str, device: str) -> None:
    model, x = made(masking, device=device), followed(windows(device=device))
    whole, _ = model(x, begun(model))
    parts, _ = in_chunks(model, x, [1, 4, 2, 5], begun(model))
    assert_alike(gradients_of_all(parts, x, model), gradients_of_all(whole, x, model), 1e-4)


@each_masking
def test_every_block_learns(masking: str, device: str) -> None:
    model = made(masking, device=device).train()
    prediction, _ = model(windows(4, device=device), begun(model, 4))
    ((prediction.sentiment - 1) / prediction.uncertainty).square().mean().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        blocks = parameter.grad if parameter.ndim == 3 else parameter.grad[None]
        assert (blocks.flatten(1).norm(dim=1) > 0).all(), name


@each_masking
def test_batch_mates_do_not_matter(masking: str, device: str) -> None:
    model, x, others = made(masking, device=device), windows(3, device=device), windows(3, seed=2, device=device)
    together, _ = model(x, begun(model, 3))
    for slot in range(3):
        alone, _ = model(rows(x, [slot]), begun(model, 1))
        assert_alike(row(together, [slot]), alone, 1e-6)
        own = torch.arange(3, device=device)[:, None, None] == slot
        elsewhere, _ = model({m: torch.where(own, x[m], others[m]) for m in MODALITIES}, begun(model, 3))
        assert_alike(row(elsewhere, slot), row(together, slot))


@each_masking
@pytest.mark.parametrize("garbage", [torch.nan, torch.inf, 1e30])
def test_a_neighbours_garbage_does_not_leak(masking: str, garbage: float, device: str) -> None:
    model, x = made(masking, device=device), windows(3, device=device)
    clean, clean_state = model(x, begun(model, 3))
    for value in x.values():
        value[1, 4] = garbage
    soiled, soiled_state = model(x, begun(model, 3))
    assert not torch.equal(soiled.sentiment[1], clean.sentiment[1])
    assert_alike(row(soiled, [0, 2]), row(clean, [0, 2]))
    for part in ("recurrent", "history"):
        for name, value in getattr(soiled_state, part).items():
            assert torch.equal(value[:, [0, 2]], getattr(clean_state, part)[name][:, [0, 2]])


@each_masking
def test_slots_in_another_order_give_the_results_in_that_order(masking: str, device: str) -> None:
    model, x, order = made(masking, device=device), windows(3, device=device), [2, 0, 1]
    expected, kept = model(steps_of(x, 5), model(steps_of(x, 0, 5), begun(model, 3))[1])
    _, state = model(steps_of(x, 0, 5), begun(model, 3))
    state = replace(
        state,
        recurrent={name: value[:, order] for name, value in state.recurrent.items()},
        history={name: value[:, order] for name, value in state.history.items()},
    )
    found, after = model(steps_of(rows(x, order), 5), state)
    assert_alike(found, row(expected, order), 1e-6)
    assert_alike(dict(after.recurrent), {name: value[:, order] for name, value in kept.recurrent.items()}, 1e-6)


@settings(deadline=None, max_examples=50)
@given(st.sampled_from(MASKINGS), st.floats(0, 1e6), st.integers(0, 1000))
@torch.inference_mode()
def test_outputs_are_bounded(masking: str, scale: float, seed: int) -> None:
    model = made(masking)
    model.head.weight *= 3
    prediction, _ = model({m: value * scale for m, value in windows(seed=seed).items()}, begun(model))
    assert prediction.sentiment.shape == prediction.uncertainty.shape == (2, STEPS)
    assert (prediction.sentiment.abs() <= 3).all()
    assert ((prediction.uncertainty > 0) & (prediction.uncertainty < 3)).all()
    for mask in (prediction.weights, *prediction.masks.values()):
        assert ((mask > 0.2689) & (mask < 0.7312)).all()


@each_masking
def test_weights_are_the_means_of_masks_over_what_is_masked(masking: str) -> None:
    model = made(masking)
    prediction, _ = model(windows(), begun(model))
    columns = dict.fromkeys(MODALITIES, HIDDEN) if masking == "projection" else SIZES
    assert {m: tuple(mask.shape) for m, mask in prediction.masks.items()} == {m: (2, STEPS, columns[m]) for m in MODALITIES}
    assert model.mask_widths == tuple(columns.values())
    assert_alike(prediction.weights, torch.stack([prediction.masks[m].mean(-1) for m in MODALITIES], -1), 1e-6)


@each_masking
@pytest.mark.parametrize("m", MODALITIES)
def test_absent_is_not_unknown(masking: str, m: str) -> None:
    model, scores = made(masking), set()
    for known, presence in ((0.0, 0.0), (1.0, 0.0), (1.0, 1.0)):
        x = windows(1)
        x[m] = torch.cat([torch.zeros(1, STEPS, SIZES[m]), torch.tensor([known, presence]).expand(1, STEPS, 2)], -1)
        scores.add(model(x, begun(model, 1))[0].sentiment[0, -1].item())
    assert len(scores) == 3


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


@each_masking
@torch.inference_mode()
def test_evaluation_gives_one_value_and_training_does_not(masking: str, device: str) -> None:
    model, x = made(masking, device=device), windows(device=device)
    first, _ = model(x, begun(model))
    for _ in range(49):
        assert_alike(model(x, begun(model))[0], first)
    model.train()
    assert not torch.equal(model(x, begun(model))[0].sentiment, model(x, begun(model))[0].sentiment)


@pytest.mark.parametrize("m", MODALITIES)
@pytest.mark.parametrize(
    "change", [(0, 0, 1), (0, 1, 0), (1, 0, 0), (0, 0, -FLAGS)], ids=["columns", "steps", "slots", "flags"]
)
def test_a_wrong_shape_is_named(m: str, change: tuple[int, ...]) -> None:
    model, x = made(), windows()
    x[m] = torch.zeros([size + more for size, more in zip(x[m].shape, change, strict=True)])
    if m == "text" and change[2] == 0:
        m = "audio"  # what the text says of B and T holds
    with pytest.raises(ValueError, match=rf"^{m} is \(.+\), expected \(B, T, \d+\)") as caught:
        model(x, begun(model))
    assert "\n" not in str(caught.value)


def test_a_lane_that_is_missing_and_no_steps_at_all_are_named() -> None:
    model = made()
    with pytest.raises(ValueError, match=r"^inputs lack audio, expected text, audio, vision"):
        model({m: x for m, x in windows().items() if m != "audio"}, begun(model))
    with pytest.raises(ValueError, match=r"^text is \(2, 0, \d+\), expected .*T at least 1"):
        model({m: x[:, :0] for m, x in windows().items()}, begun(model))
    with pytest.raises(ValueError, match=r"^text is \(\d+,\), expected"):
        model(windows() | {"text": torch.zeros(5)}, begun(model))


def test_a_state_of_another_size_is_named() -> None:
    model = made()
    with pytest.raises(ValueError, match="the state has 3 slots and the windows have 2"):
        model(windows(), begun(model, 3))


@pytest.mark.parametrize("in_place", [True, False], ids=["in place", "copied"])
def test_there_is_room_for_the_longest_utterance_and_no_more(in_place: bool) -> None:
    model = made()
    _, state = model(windows(steps=2), model.initial_state(2, in_place=in_place))
    _, full = model(windows(steps=LOOK_BACK - 2), state)
    assert (state.room, full.room) == (LOOK_BACK - 2, 0)
    before = full.clone()
    with pytest.raises(ValueError, match="1 steps and the state has room for 0; give initial_state a larger capacity"):
        model(windows(steps=1), full)
    with pytest.raises(ValueError, match=f"{LOOK_BACK - 1} steps and the state has room for {LOOK_BACK - 2}"):
        model(windows(steps=LOOK_BACK - 1), state)
    assert_alike(vars(full), vars(before))
    assert model.initial_state(1, capacity=9).room == 9


# The published form.


@pytest.mark.parametrize(
    ("feedback", "count"),
    [("none", 1_633_801), ("static", 1_716_419), ("sequence", 2_741_153)],
    ids=["none", "static", "sequence"],
)
def test_the_published_model_has_the_published_size(feedback: Any, count: int) -> None:
    with torch.device("meta"):
        assert sum(parameter.numel() for parameter in MMLatch(MMLatchConfig(feedback=feedback)).parameters()) == count


@each_feedback
def test_it_is_the_published_model(feedback: str, device: str) -> None:
    model, x = published(feedback, device=device), sequences(device=device)
    scores, masks = model(x, torch.full((2,), STEPS, device=device))
    assert scores.shape == (2,)
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
@pytest.mark.parametrize("config", [made().config, published().config], ids=["causal", "published"])
def test_a_configuration_out_of_range_is_named(config: Any, name: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"^{name} is {value}, expected"):
        replace(config, **{name: value})


@pytest.mark.parametrize("untrained", [made, published])
def test_untrained_weights_are_the_same_every_time_and_leave_the_random_state_alone(untrained: Callable[[], Any]) -> None:
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    model = untrained()
    assert torch.rand(1) == expected
    assert model.digest() == untrained().digest()
    assert not model.training


@pytest.mark.parametrize("untrained", [made, published])
@torch.no_grad()
def test_the_digest_tells_weights_apart(untrained: Callable[[], Any]) -> None:
    model = untrained()
    digests = {model.digest(), type(model).untrained(model.config, seed=2).digest()}
    for parameter in model.parameters():
        parameter.flatten()[-1:].add_(1e-3)
        digests.add(model.digest())
    assert len(digests) == 2 + len(list(model.parameters()))
