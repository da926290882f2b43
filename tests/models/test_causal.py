"""What holds for every causal model, whichever system it is."""

from dataclasses import replace
from functools import cache
from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.testing import assert_close

from models.causal import FLAGS, MODALITIES, CausalModel, Prediction, others
from models.layers import Normalise, Standardise
from models.mfm import CausalMFM
from models.mmlatch import CausalMMLatchConfig, MMLatchConfig
from models.mmmie import CausalMMMIEConfig
from models.state import State
from models.systems import SYSTEMS, System, untrained

SIZES = {"text": 5, "audio": 4, "vision": 6}
HIDDEN, STEPS, LOOK_BACK = 8, 12, 7
SMALL: dict[System, dict[str, Any]] = {
    "mult": {"heads": 2, "layers": 2},
    "mfm": {"code": 5, "memory": 6},
    "mmmie": {"heads": 2, "layers": 2},
}
# Each system, and MMLatch's other form.
CASES: dict[str, tuple[System, dict[str, Any]]] = {system: (system, SMALL.get(system, {})) for system in SYSTEMS} | {
    "mmlatch-features": ("mmlatch", {"masking": "features"})
}
Inputs = dict[str, Tensor]

each_case = pytest.mark.parametrize("case", CASES)
each_way = pytest.mark.parametrize("in_place", [True, False], ids=["in place", "copied"])


def made(case: str, *, device: str = "cpu", **config: Any) -> CausalModel:
    system, small = CASES[case]
    model = untrained(system, seed=1, **SIZES, hidden=HIDDEN, max_steps=LOOK_BACK, **small | config)
    random = torch.Generator().manual_seed(2)
    for m, spread in model.spreads.items():
        spread.measure(2 * torch.randn(50, SIZES[m], generator=random) + 0.5)
    return model.to(device)


def sequences(batch: int = 2, steps: int = STEPS, *, seed: int = 1, device: str = "cpu") -> Inputs:
    random = torch.Generator().manual_seed(seed)
    return {m: torch.randn(batch, steps, size, generator=random).to(device) for m, size in SIZES.items()}


def windows(batch: int = 2, steps: int = STEPS, *, seed: int = 1, device: str = "cpu", known: float = 0.5) -> Inputs:
    """Random features and flags; lanes are known in that share of the windows."""
    flags = torch.rand(3, batch, steps, FLAGS, generator=torch.Generator().manual_seed(seed)).to(device)
    flags[..., 0] = (flags[..., 0] < known).float()
    features = sequences(batch, steps, seed=seed, device=device)
    return {m: torch.cat([features[m], flag], -1) for m, flag in zip(MODALITIES, flags, strict=True)}


def rows(x: Inputs, index: Any) -> Inputs:
    return {m: value[index] for m, value in x.items()}


def steps_of(x: Inputs, first: int, last: int | None = None) -> Inputs:
    return {m: value[:, first:last] for m, value in x.items()}


def begun(model: CausalModel, batch: int = 2, *, in_place: bool = False) -> State:
    """A state with room for more than attention looks back."""
    return model.initial_state(batch, capacity=3 * STEPS, in_place=in_place)


def in_chunks(model: CausalModel, x: Inputs, sizes: list[int], state: State) -> tuple[Prediction, State]:
    parts = []
    for chunk in zip(*(value.split(sizes, 1) for value in x.values()), strict=True):
        prediction, state = model(dict(zip(x, chunk, strict=True)), state)
        parts.append(prediction)
    sentiment, uncertainty, weights, masks = zip(*parts, strict=True)
    whole = {m: torch.cat([mask[m] for mask in masks], 1) for m in masks[0]}
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


def followed(x: Inputs) -> Inputs:
    return {m: value.requires_grad_() for m, value in x.items()}


def gradients(score: Tensor, x: Inputs, model: nn.Module | None = None) -> Inputs:
    """Of the score by each input, and by each of the model's parameters."""
    named = x | dict(model.named_parameters() if model else ())
    return dict(zip(named, torch.autograd.grad(score, list(named.values()), materialize_grads=True), strict=True))


def gradients_of_all(prediction: Prediction, x: Inputs, model: nn.Module) -> Inputs:
    return gradients((prediction.sentiment * prediction.uncertainty).sum(), x, model)


def blocks_that_stand_still(model: nn.Module) -> set[str]:
    """The parameters with a block, of those that run side by side, that has no gradient."""
    found = set()
    for name, parameter in model.named_parameters():
        blocks = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        assert blocks.isfinite().all(), name
        if not ((blocks if blocks.ndim > 2 else blocks[None]).flatten(1).norm(dim=1) > 0).all():
            found.add(name)
    return found


def test_the_others_of_each_are_the_two_that_it_is_not() -> None:
    found = others(torch.arange(3)).view(3, 2)
    assert [set(pair.tolist()) for pair in found] == [{1, 2}, {0, 2}, {0, 1}]


@each_case
def test_text_is_spread_by_mean_and_deviation_and_the_rest_by_quantiles(case: str) -> None:
    kinds = {m: type(spread) for m, spread in made(case).spreads.items()}
    assert kinds == {"text": Standardise, "audio": Normalise, "vision": Normalise}


# Who sees what.


@each_case
@pytest.mark.parametrize("at", [0, 5, STEPS - 1])
@pytest.mark.parametrize("output", ["sentiment", "uncertainty"])
def test_a_prediction_depends_on_the_past_alone_and_on_all_of_it(case: str, at: int, output: str, device: str) -> None:
    model, x = made(case, device=device), followed(windows(device=device, known=1.0))
    prediction, _ = model(x, begun(model))
    for gradient in gradients(getattr(prediction, output)[:, at].sum(), x).values():
        for part in (gradient[..., :-FLAGS], gradient[..., -FLAGS:]):
            assert (part[:, : at + 1].abs().sum(-1) > 0).all()
        assert (gradient[:, at + 1 :] == 0).all()


@each_case
@pytest.mark.parametrize("at", range(1, STEPS))
@torch.inference_mode()
def test_what_comes_later_changes_nothing_known_or_not(case: str, at: int) -> None:
    model, x, later = made(case), windows(4), windows(4, seed=2)
    expected, _ = model(x, begun(model, 4))
    found, _ = model({m: torch.cat([x[m][:, :at], later[m][:, at:]], 1) for m in MODALITIES}, begun(model, 4))
    past = (slice(None), slice(at))
    assert_alike(row(found, past), row(expected, past))
    assert not torch.equal(found.sentiment[:, at], expected.sentiment[:, at])


@cache
def in_one_call(case: str) -> tuple[CausalModel, Inputs, Tensor]:
    model, x = made(case), windows(4)
    return model, x, flat(model(x, begun(model, 4))[0])


@settings(deadline=None, max_examples=250)
@given(st.sampled_from([*CASES]), st.booleans(), st.sets(st.integers(1, STEPS - 1), max_size=6))
@torch.inference_mode()
def test_in_chunks_of_any_size_as_in_one_call(case: str, in_place: bool, cuts: set[int]) -> None:
    model, x, whole = in_one_call(case)
    sizes = [last - first for first, last in pairwise([0, *sorted(cuts), STEPS])]
    prediction, _ = in_chunks(model, x, sizes, begun(model, 4, in_place=in_place))
    assert (flat(prediction) - whole).abs().max() < 1e-5


@each_case
@each_way
@torch.inference_mode()
def test_step_by_step_as_in_one_call(case: str, in_place: bool, device: str) -> None:
    model, x = made(case, device=device), windows(4, device=device)
    prediction, state = in_chunks(model, x, [1] * STEPS, begun(model, 4, in_place=in_place))
    expected, end = model(x, begun(model, 4, in_place=in_place))
    assert_alike(prediction, expected, 1e-5)
    assert_alike(vars(state), vars(end.at(-1)), 1e-5)


@each_case
def test_in_chunks_the_gradients_are_those_of_one_call(case: str, device: str) -> None:
    model, x = made(case, device=device), followed(windows(device=device))
    whole, _ = model(x, begun(model))
    parts, _ = in_chunks(model, x, [1, 4, 2, 5], begun(model))
    found, expected = (gradients_of_all(prediction, x, model) for prediction in (parts, whole))
    for m in MODALITIES:  # where a lane is known from, nothing is smooth
        found[m][..., -FLAGS] = expected[m][..., -FLAGS] = 0.0
    assert_alike(found, expected, 1e-4)


@each_case
def test_batch_mates_do_not_matter(case: str, device: str) -> None:
    model, x, others = made(case, device=device), windows(3, device=device), windows(3, seed=2, device=device)
    together, _ = model(x, begun(model, 3))
    for slot in range(3):
        alone, _ = model(rows(x, [slot]), begun(model, 1))
        assert_alike(row(together, [slot]), alone, 1e-5)
        own = torch.arange(3, device=device)[:, None, None] == slot
        elsewhere, _ = model({m: torch.where(own, x[m], others[m]) for m in MODALITIES}, begun(model, 3))
        assert_alike(row(elsewhere, slot), row(together, slot))


@each_case
@pytest.mark.parametrize("garbage", [torch.nan, torch.inf, 1e30])
def test_a_neighbours_garbage_does_not_leak(case: str, garbage: float, device: str) -> None:
    model, x = made(case, device=device), windows(3, device=device)
    clean, clean_state = model(x, begun(model, 3))
    for value in x.values():
        value[1, 4] = garbage
    soiled, soiled_state = model(x, begun(model, 3))
    assert not torch.equal(soiled.sentiment[1], clean.sentiment[1])
    assert_alike(row(soiled, [0, 2]), row(clean, [0, 2]))
    for part in ("recurrent", "history"):
        for name, value in getattr(soiled_state, part).items():
            assert torch.equal(value[:, [0, 2]], getattr(clean_state, part)[name][:, [0, 2]])


@each_case
def test_slots_in_another_order_give_the_results_in_that_order(case: str, device: str) -> None:
    model, x, order = made(case, device=device), windows(3, device=device), [2, 0, 1]
    expected, kept = model(steps_of(x, 5), model(steps_of(x, 0, 5), begun(model, 3))[1])
    _, state = model(steps_of(x, 0, 5), begun(model, 3))
    state = replace(
        state,
        recurrent={name: value[:, order] for name, value in state.recurrent.items()},
        history={name: value[:, order] for name, value in state.history.items()},
    )
    found, after = model(steps_of(rows(x, order), 5), state)
    assert_alike(found, row(expected, order), 1e-5)
    assert_alike(dict(after.recurrent), {name: value[:, order] for name, value in kept.recurrent.items()}, 1e-5)


# What is said.


@settings(deadline=None, max_examples=60)
@given(st.sampled_from([*CASES]), st.floats(0, 1e6), st.integers(0, 1000))
@torch.inference_mode()
def test_outputs_are_bounded(case: str, scale: float, seed: int) -> None:
    model = made(case)
    model.head.weight *= 3
    prediction, _ = model({m: value * scale for m, value in windows(seed=seed, known=1.0).items()}, begun(model))
    assert prediction.sentiment.shape == prediction.uncertainty.shape == (2, STEPS)
    assert (prediction.sentiment.abs() <= 3).all()
    assert ((prediction.uncertainty > 0) & (prediction.uncertainty < 3)).all()


@each_case
def test_weights_are_the_means_of_masks_or_say_which_lanes_are_known(case: str) -> None:
    model, x = made(case), windows()
    prediction, _ = model(x, begun(model))
    masks = {m: (2, STEPS, width) for m, width in zip(MODALITIES, model.mask_widths, strict=True) if width}
    assert {m: tuple(mask.shape) for m, mask in prediction.masks.items()} == masks
    expected = [prediction.masks[m].mean(-1) if masks else x[m][..., -FLAGS] for m in MODALITIES]
    assert_alike(prediction.weights, torch.stack(expected, -1), 1e-6)


@each_case
@pytest.mark.parametrize("m", MODALITIES)
def test_absent_is_not_unknown(case: str, m: str) -> None:
    model, scores = made(case), set()
    for known, presence in ((0.0, 0.0), (1.0, 0.0), (1.0, 1.0)):
        x = windows(1, known=1.0)
        x[m] = torch.cat([torch.zeros(1, STEPS, SIZES[m]), torch.tensor([known, presence]).expand(1, STEPS, 2)], -1)
        scores.add(model(x, begun(model, 1))[0].sentiment[0, -1].item())
    assert len(scores) == 3


@each_case
@torch.inference_mode()
def test_evaluation_gives_one_value_and_training_does_not(case: str, device: str) -> None:
    model, x = made(case, device=device), windows(device=device)
    first, _ = model(x, begun(model))
    for _ in range(9):
        assert_alike(model(x, begun(model))[0], first)
    model.train()
    assert not torch.equal(model(x, begun(model))[0].sentiment, model(x, begun(model))[0].sentiment)


@each_case
def test_without_dropout_training_is_as_evaluation(case: str) -> None:
    model, x = made(case, dropout=0.0), windows()
    expected, _ = model(x, begun(model))
    assert_alike(model.train()(x, begun(model))[0], expected)


@each_case
def test_every_block_learns(case: str, device: str) -> None:
    model, x = made(case, device=device).train(), windows(4, device=device)
    if isinstance(model, CausalMFM):  # parts of it are for training alone
        found = model.analyse(x, begun(model, 4))
        learnt = [found.codes, found.guessed, found.guessed_joint, *found.made, *found.made_without]
        prediction, more = found.full, torch.stack([part.square().mean() for part in learnt]).sum()
    else:
        (prediction, _), more = model(x, begun(model, 4)), 0.0
    (((prediction.sentiment - 1) / prediction.uncertainty).square().mean() + more).backward()
    assert blocks_that_stand_still(model) == set()


# What is refused.


@each_case
@pytest.mark.parametrize("m", MODALITIES)
@pytest.mark.parametrize(
    "change", [(0, 0, 1), (0, 1, 0), (1, 0, 0), (0, 0, -FLAGS)], ids=["columns", "steps", "slots", "flags"]
)
def test_a_wrong_shape_is_named(case: str, m: str, change: tuple[int, ...]) -> None:
    model, x = made(case), windows()
    x[m] = torch.zeros([size + more for size, more in zip(x[m].shape, change, strict=True)])
    if m == "text" and change[2] == 0:
        m = "audio"  # what the text says of B and T holds
    with pytest.raises(ValueError, match=rf"^{m} is \(.+\), expected \(B, T, \d+\)") as caught:
        model(x, begun(model))
    assert "\n" not in str(caught.value)


@each_case
def test_a_lane_that_is_missing_and_no_steps_at_all_are_named(case: str) -> None:
    model = made(case)
    with pytest.raises(ValueError, match=r"^inputs lack audio, expected text, audio, vision"):
        model({m: x for m, x in windows().items() if m != "audio"}, begun(model))
    with pytest.raises(ValueError, match=r"^text is \(2, 0, \d+\), expected .*T at least 1"):
        model({m: x[:, :0] for m, x in windows().items()}, begun(model))
    with pytest.raises(ValueError, match=r"^text is \(\d+,\), expected"):
        model(windows() | {"text": torch.zeros(5)}, begun(model))


@each_case
def test_a_state_of_another_size_is_named(case: str) -> None:
    model = made(case)
    with pytest.raises(ValueError, match="the state has 3 slots and the windows have 2"):
        model(windows(), begun(model, 3))


@each_case
@each_way
def test_there_is_room_for_the_longest_utterance_and_no_more(case: str, in_place: bool) -> None:
    model = made(case).requires_grad_(False)
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


@each_case
@pytest.mark.parametrize(
    ("name", "value"),
    [("text", 0), ("audio", 2**16 + 1), ("hidden", -1), ("max_steps", 0), ("dropout", 1.0), ("dropout", -0.1)],
)
def test_a_configuration_out_of_range_is_named(case: str, name: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"^{name} is {value}, expected"):
        replace(made(case).config, **{name: value})


@pytest.mark.parametrize(
    ("case", "wrong", "expected"),
    [
        ("mult", {"heads": 3}, "heads is 3, expected a divisor of hidden, 8"),
        ("mmmie", {"heads": 0}, "heads is 0, expected a divisor of hidden, 8"),
        ("mult", {"layers": 0}, "layers is 0, expected 1 to 65536"),
        ("mmmie", {"layers": 0}, "layers is 0, expected 1 to 65536"),
        ("mfm", {"code": 0}, "code is 0, expected 1 to 65536"),
        ("mfm", {"memory": -1}, "memory is -1, expected 1 to 65536"),
    ],
)
def test_a_systems_own_numbers_out_of_range_are_named(case: str, wrong: dict[str, int], expected: str) -> None:
    with pytest.raises(ValueError, match=f"^{expected}$"):
        made(case, **wrong)


# The state.


@each_case
@each_way
def test_a_call_returns_all_parts_of_the_state_and_no_more(case: str, in_place: bool) -> None:
    model = made(case).requires_grad_(False)
    start = begun(model, in_place=in_place)
    _, end = model(windows(steps=3), start)
    for part, steps in (("recurrent", 3), ("history", 3 * STEPS)):
        expected = {name: (*value.shape[:2], steps, value.shape[3]) for name, value in getattr(start, part).items()}
        assert expected
        assert {name: tuple(value.shape) for name, value in getattr(end, part).items()} == expected
    assert (end.position.tolist(), end.length.tolist(), end.room) == ([3, 3], [3, 3], 3 * STEPS - 3)


@each_case
def test_a_state_is_on_the_models_device_and_of_its_type(case: str, device: str) -> None:
    state = made(case, device=device).initial_state(2)
    tensors = [*state.recurrent.values(), *state.history.values()]
    assert {(value.device.type, value.dtype) for value in tensors} == {(device, torch.float32)}
    assert {(value.device.type, value.dtype) for value in (state.position, state.length)} == {(device, torch.int64)}
    assert not any(value.count_nonzero() for value in (*tensors, state.position, state.length))


@pytest.mark.parametrize(
    ("kind", "name"),
    [(CausalMMLatchConfig, "masking"), (CausalMMMIEConfig, "identity"), (MMLatchConfig, "feedback")],
)
def test_a_choice_that_is_none_is_named(kind: Any, name: str) -> None:
    with pytest.raises(ValueError, match=f"^{name} is 'other', expected '"):
        kind(text=1, audio=1, vision=1, **{name: "other"})
