import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from models.layers import CausalAttention, CausalLSTM, RunningMean, State

CPU = torch.device("cpu")
STEPS, SIZE = 11, 6


class Block:
    """A layer, and how often its input is given to it."""

    def __init__(self, layer: nn.Module, inputs: int = 1) -> None:
        self.layer, self.inputs = layer.eval(), inputs

    def __call__(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        return self.layer(*[x] * self.inputs, state)

    def start(self, batch: int) -> State:
        return self.layer.initial_state(batch, CPU)


def made(name: str) -> Block:
    torch.manual_seed(0)
    if name == "lstm":
        return Block(CausalLSTM(SIZE, 5))
    if name == "attention":
        return Block(CausalAttention(SIZE, max_steps=STEPS + 3, dropout=0.5), inputs=2)
    return Block(RunningMean(SIZE))


@pytest.fixture(params=["lstm", "attention", "mean"])
def block(request) -> Block:
    return made(request.param)


def sequence(batch: int = 2, steps: int = STEPS, seed: int = 1) -> Tensor:
    return torch.randn(batch, steps, SIZE, generator=torch.Generator().manual_seed(seed))


def in_chunks(block: Block, x: Tensor, edges: list[int]) -> tuple[Tensor, State]:
    state, parts = block.start(len(x)), []
    for chunk in x.tensor_split(edges, 1):
        if chunk.shape[1]:
            y, state = block(chunk, state)
            parts.append(y)
    return torch.cat(parts, 1), state


@pytest.mark.parametrize("name", ["lstm", "attention", "mean"])
@settings(deadline=None, max_examples=20)
@given(edges=st.lists(st.integers(0, STEPS), max_size=STEPS).map(sorted))
def test_in_chunks_as_in_one(name, edges):
    block, x = made(name), sequence()
    whole, end = block(x, block.start(2))
    parts, parts_end = in_chunks(block, x, edges)
    torch.testing.assert_close(parts, whole, rtol=1e-5, atol=1e-6)
    assert parts_end.keys() == end.keys() == block.start(2).keys()
    for key in end:
        torch.testing.assert_close(parts_end[key], end[key], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("at", [0, 4, STEPS - 1])
def test_a_step_depends_on_the_past_alone(block, at):
    x = sequence().requires_grad_()
    y, _ = block(x, block.start(2))
    y[:, at].abs().sum().backward()
    assert (x.grad[:, at + 1 :] == 0).all()
    assert (x.grad[:, : at + 1].abs().sum(-1) > 0).all()


def test_a_kept_state_can_be_run_again(block):
    _, kept = block(sequence(), block.start(2))
    before = {key: value.clone() for key, value in kept.items()}
    tail = sequence(steps=3, seed=2)
    once, again = block(tail, kept), block(tail, kept)
    assert all(torch.equal(kept[key], before[key]) for key in kept)
    assert torch.equal(once[0], again[0])
    assert all(torch.equal(once[1][key], again[1][key]) for key in kept)


def test_the_state_has_the_batch_first_and_keeps_its_shape(block):
    start = block.start(3)
    _, after = block(sequence(3), start)
    for key in start:
        assert len(start[key]) == 3
        assert (after[key].shape, after[key].dtype) == (start[key].shape, start[key].dtype)


def test_neighbours_do_not_matter(block):
    x = sequence(3)
    y, state = block(x, block.start(3))
    for row in range(3):
        alone, alone_state = block(x[row : row + 1], block.start(1))
        torch.testing.assert_close(y[row], alone[0], rtol=1e-6, atol=1e-6)
        for key in state:
            torch.testing.assert_close(state[key][row], alone_state[key][0], rtol=1e-6, atol=1e-6)


def test_slots_may_be_at_different_steps(block):
    # Slot 0 goes on after five steps, slot 1 begins.
    x = sequence()
    _, ahead = block(x[:1, :5], block.start(1))
    mixed = {key: torch.cat([ahead[key], value]) for key, value in block.start(1).items()}
    y, _ = block(torch.cat([x[:1, 5:8], x[1:, :3]]), mixed)
    torch.testing.assert_close(y[0], block(x[:1], block.start(1))[0][0, 5:8], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(y[1], block(x[1:], block.start(1))[0][0, :3], rtol=1e-5, atol=1e-6)


def test_the_running_mean_is_the_mean():
    x = sequence()
    y, _ = in_chunks(made("mean"), x, [1, 4])
    expected = np.stack([x[:, : step + 1].numpy().mean(1) for step in range(STEPS)], 1)
    np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-6)


def test_attention_is_softmax_over_the_steps_so_far():
    block = made("attention")
    layer, (queries, others) = block.layer, (sequence(), sequence(seed=2))
    y, _ = layer(queries, others, block.start(2))
    k, q, v = layer.keys(others), layer.queries(queries), layer.values(others)
    for step in range(STEPS):
        seen = slice(0, step + 1)
        weights = (q[:, step : step + 1] @ k[:, seen].transpose(1, 2) / SIZE**0.5).softmax(-1)
        torch.testing.assert_close(y[:, step : step + 1], weights @ v[:, seen], rtol=1e-5, atol=1e-6)


def test_the_lstm_is_torchs_own():
    block, x = made("lstm"), sequence()
    torch.testing.assert_close(in_chunks(block, x, [3])[0], block.layer.lstm(x)[0], rtol=1e-5, atol=1e-6)


def test_attention_does_not_grow_beyond_its_steps():
    block = made("attention")
    _, state = block(sequence(steps=STEPS + 3), block.start(2))
    with pytest.raises(RuntimeError):
        block(sequence(steps=1), state)
