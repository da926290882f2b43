from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from models.causal import CausalModel
from models.state import State
from tests.models.test_causal import (
    CASES,
    LOOK_BACK,
    Inputs,
    assert_alike,
    begun,
    each_case,
    each_way,
    made,
    row,
    rows,
    steps_of,
    windows,
)

CAPACITY = LOOK_BACK + 5


@pytest.fixture(params=CASES)
def model(request: pytest.FixtureRequest, device: str) -> CausalModel:
    return made(request.param, device=device).requires_grad_(False)


@pytest.fixture
def x(device: str) -> Inputs:
    return windows(3, device=device)


def after(model: CausalModel, x: Inputs, *, in_place: bool = False) -> State:
    return model(x, begun(model, len(x["text"]), in_place=in_place))[1]


def tensors(state: State) -> list[Tensor]:
    """Those that hold anything."""
    found = [*state.recurrent.values(), *state.history.values(), state.position, state.length]
    return [value for value in found if value.numel()]


def slot(state: State, index: int) -> State:
    """One slot's part."""
    return replace(
        state,
        recurrent={name: value[:, index : index + 1] for name, value in state.recurrent.items()},
        history={name: value[:, index : index + 1] for name, value in state.history.items()},
        position=state.position[index : index + 1],
        length=state.length[index : index + 1],
    )


@each_way
def test_a_kept_state_can_be_run_again(model: CausalModel, x: Inputs, in_place: bool, device: str) -> None:
    kept = after(model, steps_of(x, 0, 5), in_place=in_place)
    before, tail, other = kept.trimmed().clone(), steps_of(x, 5), steps_of(windows(3, seed=2, device=device), 5)
    expected, _ = model(tail, kept)
    assert not torch.equal(model(other, kept)[0].sentiment, expected.sentiment)
    assert_alike(model(tail, kept)[0], expected)
    assert_alike(vars(kept.trimmed()), vars(before))
    assert_alike(expected, row(model(x, begun(model, 3))[0], (slice(None), slice(5, None))), 1e-5)


@each_way
def test_a_call_writes_into_the_histories_of_its_state_only_in_place(model: CausalModel, in_place: bool, device: str) -> None:
    x = windows(device=device)
    start = begun(model, in_place=in_place)
    recurrent = {name: value.clone() for name, value in start.recurrent.items()}
    _, end = model(x, start)
    for name, history in start.history.items():
        if not history.numel():
            continue
        assert (history.data_ptr() == end.history[name].data_ptr()) == in_place
        assert in_place or history.count_nonzero() == 0
        assert end.history[name].count_nonzero() > 0
    assert_alike(dict(start.recurrent), recurrent)
    assert (start.length == 0).all()
    assert (end.in_place, end.room) == (in_place, start.room - x["text"].shape[1])


@each_way
@pytest.mark.parametrize("step", [0, 3, -1])
def test_a_state_at_a_step_is_that_of_running_up_to_it(model: CausalModel, x: Inputs, step: int, in_place: bool) -> None:
    steps = range(8)[step] + 1
    found = model(steps_of(x, 2, 10), after(model, steps_of(x, 0, 2), in_place=in_place))[1].at(step)
    expected = model(steps_of(x, 2, 2 + steps), after(model, steps_of(x, 0, 2)))[1]
    assert (found.room, found.capacity) == (expected.room, expected.capacity)
    assert torch.equal(found.position, expected.position)
    assert torch.equal(found.length, expected.length)
    assert_alike(dict(found.recurrent), dict(expected.at(-1).recurrent), 1e-5)
    assert_alike(dict(found.trimmed().history), dict(expected.history), 1e-5)
    tail = steps_of(x, 2 + steps)
    assert_alike(model(tail, found)[0], model(tail, expected)[0], 1e-5)


@each_case
def test_there_is_no_state_at_a_step_that_was_not_run(case: str) -> None:
    state = after(made(case), windows(steps=4))
    for step in (4, -5):
        with pytest.raises(IndexError):
            state.at(step)


@each_way
def test_a_reset_touches_its_slots_alone(model: CausalModel, x: Inputs, in_place: bool, device: str) -> None:
    kept = after(model, steps_of(x, 0, 5), in_place=in_place)
    before = kept.clone()
    begun_anew = kept.reset(torch.tensor([False, True, False], device=device))
    assert_alike(vars(kept), vars(before))
    for index in (0, 2):
        assert_alike(vars(slot(begun_anew, index)), vars(slot(kept, index)))
    expected, _ = model(steps_of(x, 5), before)
    found, _ = model(steps_of(x, 5), begun_anew)
    assert_alike(row(found, [0, 2]), row(expected, [0, 2]))
    assert not torch.equal(found.sentiment[1], expected.sentiment[1])


@each_way
def test_a_reset_slot_goes_on_as_a_fresh_one(model: CausalModel, x: Inputs, in_place: bool, device: str) -> None:
    fresh, fresh_end = model(steps_of(x, 5), begun(model, 3))
    found = []
    for seed in (1, 2):
        kept = after(model, windows(3, 5, seed=seed, device=device), in_place=in_place)
        prediction, end = model(steps_of(x, 5), kept.reset(torch.tensor([False, True, False], device=device)))
        assert_alike(row(prediction, 1), row(fresh, 1), 1e-6)
        assert_alike(dict(slot(end, 1).recurrent), dict(slot(fresh_end, 1).recurrent), 1e-6)
        found.append(row(prediction, 1))
    assert_alike(*found)


@settings(deadline=None, max_examples=60)
@given(
    st.sampled_from([*CASES]),
    st.booleans(),
    st.lists(st.tuples(st.integers(1, CAPACITY - LOOK_BACK + 1), st.booleans(), st.booleans()), min_size=4, max_size=10),
)
def test_the_ring_wraps(case: str, in_place: bool, chunks: list[tuple[int, bool, bool]]) -> None:
    model = made(case).requires_grad_(False)
    x = windows(2, sum(steps for steps, *_ in chunks))
    state, begins, done = model.initial_state(2, capacity=CAPACITY, in_place=in_place), [0, 0], 0
    for steps, *restarts in chunks:
        begins = [done if restart else begin for restart, begin in zip(restarts, begins, strict=True)]
        state = replace(state.reset(torch.tensor(restarts)), room=steps)
        found, state = model(steps_of(x, done, done + steps), state)
        done += steps
    for index, begin in enumerate(begins):
        alone = steps_of(rows(x, [index]), begin, done)
        expected, _ = model(alone, model.initial_state(1, capacity=done))
        assert_alike(row(found, index), row(expected, (0, slice(-steps, None))), 1e-5)


def littered(model: CausalModel, garbage: Tensor) -> State:
    """Slots at steps of their own in a ring that is full of garbage but for what counts."""
    state = model.initial_state(3, capacity=CAPACITY)
    position, length = torch.tensor([[40, 7, 17], [LOOK_BACK + 2, 7, 0]], device=garbage.device)
    history = {name: garbage.expand_as(value).clone() for name, value in state.history.items()}
    for value in history.values():
        for index in range(3):
            live = [place % CAPACITY for place in range(position[index] - length[index], position[index])]
            value[:, index, live] = 0.5
    return replace(state, history=history, position=position, length=length)


def test_trimmed_clears_what_does_not_count_and_nothing_else(model: CausalModel, device: str) -> None:
    trimmed = littered(model, torch.tensor(torch.nan, device=device)).trimmed()
    expected = littered(model, torch.tensor(0.0, device=device))
    counted = [int((value == 0.5).all(-1)[0].sum()) for value in expected.history.values() if value.numel()]
    assert set(counted) <= {LOOK_BACK + 9}
    assert_alike(vars(trimmed), vars(expected))


def test_trimmed_goes_on_to_the_same_bits(model: CausalModel, x: Inputs, device: str) -> None:
    state, tail = littered(model, torch.tensor(3.0, device=device)), steps_of(x, 0, 4)
    untouched = state.clone()
    assert_alike(model(tail, state.trimmed())[0], model(tail, state)[0])
    assert_alike(vars(state), vars(untouched))


def test_a_clone_shares_no_memory(model: CausalModel, x: Inputs) -> None:
    for state in (begun(model, 3, in_place=True), after(model, steps_of(x, 0, 5), in_place=True)):
        cloned = state.clone()
        assert_alike(vars(cloned), vars(state))
        places = [value.untyped_storage().data_ptr() for value in tensors(cloned)]
        assert len({*places}) == len(places)
        assert not {*places} & {value.untyped_storage().data_ptr() for value in tensors(state)}
        again = state.clone()
        model(steps_of(x, 5), cloned)
        assert_alike(vars(state), vars(again))


def test_a_saved_state_goes_on_to_the_same_bits(model: CausalModel, x: Inputs, tmp_path: Path, device: str) -> None:
    begun_anew = after(model, steps_of(x, 0, 2)).reset(torch.tensor([False, True, False], device=device))
    kept = model(steps_of(x, 2, 9), begun_anew)[1].at(3)
    kept.save(tmp_path / "state.safetensors")
    loaded = State.load(tmp_path / "state.safetensors", device)
    assert_alike(vars(loaded), vars(kept))
    assert_alike(model(steps_of(x, 6), loaded)[0], model(steps_of(x, 6), kept)[0])
    assert not State.load(tmp_path / "state.safetensors").position.is_cuda


@each_case
def test_a_state_that_is_written_in_place_is_loaded_as_one_that_is_not(case: str, tmp_path: Path) -> None:
    kept = after(made(case).requires_grad_(False), windows(), in_place=True)
    kept.save(tmp_path / "state.safetensors")
    assert_alike(vars(State.load(tmp_path / "state.safetensors")), vars(replace(kept, in_place=False)))


@each_case
def test_a_state_can_be_saved_before_the_first_window(case: str, tmp_path: Path) -> None:
    start = made(case).initial_state(2)
    start.save(tmp_path / "state.safetensors")
    assert_alike(vars(State.load(tmp_path / "state.safetensors")), vars(start))


def test_all_of_a_state_goes_to_another_device(model: CausalModel, x: Inputs) -> None:
    state = after(model, x)
    assert {value.device.type for value in tensors(state.to("meta"))} == {"meta"}
    assert state.to("meta").room == state.room


@each_case
def test_a_state_goes_on_elsewhere(case: str, device: str) -> None:
    model, x = made(case).requires_grad_(False), windows(3)
    kept = after(model, steps_of(x, 0, 5))
    expected, end = model(steps_of(x, 5), kept)
    there = {m: value.to(device) for m, value in steps_of(x, 5).items()}
    found, end_there = model.to(device)(there, kept.to(device))
    assert_alike(found.sentiment.cpu(), expected.sentiment, 1e-5)
    assert_alike(vars(end_there.to("cpu")), vars(end), 1e-5)
