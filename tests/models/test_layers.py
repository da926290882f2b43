from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.testing import assert_close

from models.layers import (
    HIDDEN,
    Attention,
    CausalLSTM,
    Context,
    FeedForward,
    Linears,
    MultiHeadAttention,
    Normalise,
    Spread,
    Standardise,
    dropout,
    normalised,
    positions,
    running_mean,
)
from models.state import State

COUNT, BATCH, STEPS, SIZE = 3, 2, 7, 6
LOOK_BACK = 4


def randn(*shape: int, seed: int = 1, device: str = "cpu") -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(device)


def moved(x: Tensor) -> Tensor:
    """How much each step moves what a result was summed from, (B, T)."""
    assert x.grad is not None
    return x.grad.abs().sum((0, -1))


def some_lstms(device: str = "cpu") -> CausalLSTM:
    torch.manual_seed(0)
    block = CausalLSTM(COUNT, 5, SIZE)
    nn.init.normal_(block.bias)
    return block.to(device)


def as_torch(block: CausalLSTM, index: int) -> nn.LSTM:
    """PyTorch's own with the same weights: its matrices are (4 H, inputs), its gates input, forget, candidate, output."""

    def turned(value: Tensor) -> Tensor:
        take, keep, give, candidate = value[index].chunk(4, -1)
        return torch.cat([take, keep, candidate, give], -1).T

    bias = turned(block.bias).flatten()
    own = nn.LSTM(block.input_weight.shape[1], block.hidden, batch_first=True).to(bias.device)
    own.load_state_dict(
        {
            "weight_ih_l0": turned(block.input_weight),
            "weight_hh_l0": turned(block.hidden_weight),
            "bias_ih_l0": bias,
            "bias_hh_l0": torch.zeros_like(bias),
        }
    )
    return own


def test_each_lstm_is_pytorchs_own(device: str) -> None:
    block, x = some_lstms(device), randn(COUNT, BATCH, STEPS, 5, device=device)
    h, c = randn(COUNT, BATCH, SIZE, seed=2, device=device), randn(COUNT, BATCH, SIZE, seed=3, device=device)
    outputs, cells = block(x, h, c)
    for index in range(COUNT):
        own, start = as_torch(block, index), (h[index, None], c[index, None])
        for step in range(STEPS):
            with torch.backends.cudnn.flags(enabled=False):
                expected, (_, cell) = own(x[index, :, : step + 1], start)
            assert_close(outputs[index, :, : step + 1], expected, rtol=1e-5, atol=1e-6)
            assert_close(cells[index, :, step], cell[0], rtol=1e-5, atol=1e-6)


def test_lstms_go_on_where_they_stopped() -> None:
    block, x, zeros = some_lstms(), randn(COUNT, BATCH, STEPS, 5), torch.zeros(COUNT, BATCH, SIZE)
    outputs, cells = block(x, zeros, zeros)
    first, first_cells = block(x[:, :, :3], zeros, zeros)
    rest, rest_cells = block(x[:, :, 3:], first[:, :, -1], first_cells[:, :, -1])
    assert_close(torch.cat([first, rest], 2), outputs, rtol=1e-5, atol=1e-6)
    assert_close(torch.cat([first_cells, rest_cells], 2), cells, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("part", [0, 1], ids=["outputs", "cells"])
@pytest.mark.parametrize("at", [0, 3, STEPS - 1])
def test_an_lstms_step_depends_on_the_past_alone(at: int, part: int, device: str) -> None:
    x, zeros = randn(COUNT, BATCH, STEPS, 5, device=device).requires_grad_(), torch.zeros(COUNT, BATCH, SIZE, device=device)
    some_lstms(device)(x, zeros, zeros)[part][:, :, at].sum().backward()
    assert (moved(x)[:, : at + 1] > 0).all()
    assert (moved(x)[:, at + 1 :] == 0).all()


def test_lstms_begin_with_open_forget_gates_and_weights_as_in_pytorch() -> None:
    torch.manual_seed(0)
    block = CausalLSTM(2, 100, 25)
    _, keep, *_ = gates = block.bias.chunk(4, -1)
    assert (keep == 1).all()
    assert block.bias.count_nonzero() == gates[1].numel()
    for weight in (block.input_weight, block.hidden_weight):
        assert 0.99 / 5 < weight.max() <= 1 / 5
        assert -1 / 5 <= weight.min() < -0.99 / 5


def some_attention(count: int = COUNT, *, keys: bool = True, dropout: float = 0.5, device: str = "cpu") -> Attention:
    torch.manual_seed(0)
    return Attention(count, SIZE, dropout=dropout, keys=keys).to(device).eval()


def by_formula(block: Attention, queries: Tensor, memory: Tensor, bias: Tensor | None = None) -> Tensor:
    """softmax(Q K^T / sqrt(d) + bias) V, one attention at a time."""
    found = []
    biases = torch.zeros(len(memory)) if bias is None else bias.chunk(len(memory))
    for index, asking in enumerate(queries):
        which = index * len(memory) // len(queries)
        read = memory[which]
        keys = read if block.keys is None else read @ block.keys[index]
        weights = (asking @ block.queries[index] @ keys.mT / SIZE**0.5 + biases[which]).softmax(-1)
        found.append(weights @ (read @ block.values[index]))
    return torch.stack(found)


@pytest.mark.parametrize("per_step", [True, False], ids=["a bias for each step", "one bias"])
@pytest.mark.parametrize("keys", [True, False], ids=["keys", "no keys"])
@pytest.mark.parametrize(("count", "memories"), [(1, 1), (3, 3), (6, 3), (3, 1)])
def test_attention_is_that_of_the_formula(count: int, memories: int, keys: bool, per_step: bool, device: str) -> None:
    block = some_attention(count, keys=keys, device=device)
    queries, memory = randn(count, BATCH, STEPS, SIZE, device=device), randn(memories, BATCH, 9, SIZE, seed=2, device=device)
    bias = randn(memories * BATCH, STEPS if per_step else 1, 9, seed=3, device=device)
    bias = bias.masked_fill(bias > 0.5, HIDDEN)
    assert_close(block(queries, memory, bias), by_formula(block, queries, memory, bias), rtol=1e-5, atol=1e-5)


def test_attention_without_keys_is_attention_by_the_product_of_both_maps() -> None:
    full, short = some_attention(6), some_attention(6, keys=False)
    assert full.keys is not None
    short.load_state_dict({"queries": full.queries @ full.keys.mT, "values": full.values})
    inputs = randn(6, BATCH, STEPS, SIZE), randn(3, BATCH, 9, SIZE, seed=2), torch.zeros(3 * BATCH, 1, 9)
    assert_close(short(*inputs), full(*inputs), rtol=1e-5, atol=1e-6)


def test_what_a_query_may_not_look_at_does_not_matter() -> None:
    block, queries, memory = some_attention(), randn(COUNT, BATCH, STEPS, SIZE), randn(COUNT, BATCH, 9, SIZE, seed=2)
    bias = torch.zeros(COUNT * BATCH, 1, 9)
    bias[..., 4:] = HIDDEN
    assert_close(block(queries, memory, bias), by_formula(block, queries, memory[:, :, :4]), rtol=1e-5, atol=1e-6)
    assert torch.equal(block(queries, memory.index_fill(2, torch.arange(4, 9), 1e6), bias), block(queries, memory, bias))


def test_attentions_weights_are_dropped_in_training() -> None:
    block, identity = some_attention(1), torch.eye(SIZE)[None]
    nn.init.eye_(block.values.data[0])
    inputs = randn(1, 1, 50, SIZE), identity[None], torch.zeros(1, 1, SIZE)
    weights, trained = block(*inputs), block.train()(*inputs)
    assert_close(weights.sum(-1), torch.ones(1, 1, 50))
    assert_close(trained, torch.where(trained == 0, 0.0, 2 * weights))
    assert 0.3 < (trained == 0).float().mean() < 0.7


@pytest.mark.parametrize(
    "block",
    [lambda: Attention(2, 50, dropout=0.0), lambda: MultiHeadAttention(2, 50, heads=5, dropout=0.0)],
    ids=["one head", "many"],
)
def test_attention_begins_xavier_uniform(block: Callable[[], nn.Module]) -> None:
    torch.manual_seed(0)
    expected = nn.init.xavier_uniform_(torch.empty(50, 50))
    for weight in block().parameters():
        assert_close(weight.std(), expected.std(), rtol=0.03, atol=0.0)
        assert_close(weight.abs().max(), expected.abs().max(), rtol=0.01, atol=0.0)


def some_heads(count: int = COUNT, *, heads: int = 2, device: str = "cpu") -> MultiHeadAttention:
    torch.manual_seed(0)
    return MultiHeadAttention(count, SIZE, heads=heads, dropout=0.5).to(device).eval()


def heads_as_torch(block: MultiHeadAttention, index: int) -> nn.MultiheadAttention:
    """PyTorch's own with the same weights, which it has transposed."""
    own = nn.MultiheadAttention(SIZE, block.heads, bias=False, batch_first=True).to(block.out.device).eval()
    maps = [each[index].T for each in (block.queries, block.keys, block.values)]
    own.load_state_dict({"in_proj_weight": torch.cat(maps), "out_proj.weight": block.out[index].T})
    return own


@pytest.mark.parametrize("per_step", [True, False], ids=["a bias for each step", "one bias"])
@pytest.mark.parametrize("heads", [1, 2, 3])
@pytest.mark.parametrize(("count", "memories"), [(1, 1), (3, 3), (6, 3), (3, 1)])
def test_each_attention_of_many_heads_is_pytorchs_own(
    count: int, memories: int, heads: int, per_step: bool, device: str
) -> None:
    block = some_heads(count, heads=heads, device=device)
    queries, memory = randn(count, BATCH, STEPS, SIZE, device=device), randn(memories, BATCH, 9, SIZE, seed=2, device=device)
    bias = randn(memories * BATCH, STEPS if per_step else 1, 9, seed=3, device=device)
    bias = bias.masked_fill(bias > 0.5, HIDDEN)
    found = block(queries, memory, bias)
    for index, asking in enumerate(queries):
        which = index * memories // count
        shown = bias.view(memories, BATCH, -1, 9)[which].expand(BATCH, STEPS, 9).repeat_interleave(heads, 0)
        expected, _ = heads_as_torch(block, index)(asking, memory[which], memory[which], attn_mask=shown)
        assert_close(found[index], expected, rtol=1e-5, atol=1e-5)


def test_heads_do_not_look_at_what_is_hidden() -> None:
    block, queries, memory = some_heads(), randn(COUNT, BATCH, STEPS, SIZE), randn(COUNT, BATCH, 9, SIZE, seed=2)
    bias = torch.zeros(COUNT * BATCH, 1, 9)
    bias[..., 4:] = HIDDEN
    assert torch.equal(block(queries, memory.index_fill(2, torch.arange(4, 9), 1e6), bias), block(queries, memory, bias))


def test_heads_drop_weights_of_their_own_in_training() -> None:
    block = some_heads(1, heads=2)
    for weight in (block.values, block.out):
        nn.init.eye_(weight.data[0])
    # Each head reads its half of a memory whose first entry has ones there: so columns are weights.
    memory = torch.zeros(1, 1, SIZE, SIZE)
    memory[0, 0, 0] = 1
    inputs = randn(1, 1, 400, SIZE), memory, torch.zeros(1, 1, SIZE)
    dropped = block.train()(*inputs)[0, 0].view(400, 2, SIZE // 2) == 0
    assert torch.equal(dropped.all(-1), dropped.any(-1))
    one, other = dropped[..., 0].unbind(1)
    for share in (one.float().mean(), other.float().mean(), (one == other).float().mean()):
        assert 0.4 < share < 0.6
    assert block.eval()(*inputs).count_nonzero() == 400 * SIZE


def test_each_linear_map_is_pytorchs_own(device: str) -> None:
    torch.manual_seed(0)
    block, x = Linears(COUNT, 5, SIZE).to(device), randn(COUNT, BATCH, STEPS, 5, device=device)
    found = block(x)
    for index in range(COUNT):
        expected = nn.functional.linear(x[index], block.weight[index].T, block.bias[index, 0])
        assert_close(found[index], expected, rtol=1e-5, atol=1e-6)


def test_linear_maps_begin_as_pytorchs_do() -> None:
    torch.manual_seed(0)
    block, expected = Linears(2, 100, 300), nn.Linear(100, 300)
    for found, like in ((block.weight, expected.weight), (block.bias, expected.bias)):
        assert_close(found.std(), like.std(), rtol=0.1, atol=0.0)
        assert 0.095 < found.abs().max() <= 0.1


def test_each_feed_forward_network_is_that_of_a_transformers_layer(device: str) -> None:
    torch.manual_seed(0)
    block, x = FeedForward(COUNT, SIZE, dropout=0.5).to(device).eval(), randn(COUNT, BATCH, STEPS, SIZE, device=device)
    found = block(x)
    for index in range(COUNT):
        wide = nn.functional.linear(x[index], block.wide.weight[index].T, block.wide.bias[index, 0])
        assert wide.shape[-1] == 4 * SIZE
        expected = nn.functional.linear(wide.relu(), block.narrow.weight[index].T, block.narrow.bias[index, 0])
        assert_close(found[index], expected, rtol=1e-5, atol=1e-6)


def test_a_feed_forward_networks_hidden_layer_is_dropped_in_training() -> None:
    block, x = FeedForward(1, SIZE, dropout=0.25), torch.ones(1, 1, 500, SIZE)
    for linear in (block.wide, block.narrow):
        nn.init.constant_(linear.weight, 1 / SIZE)
        nn.init.zeros_(linear.bias)
    assert_close(block.eval()(x), torch.full_like(x, 4.0))
    found = block.train()(x)[0, 0, :, 0] * SIZE * 0.75  # how many of 4 SIZE were left
    assert_close(found, found.round(), rtol=0.0, atol=1e-4)
    assert found.std() > 1
    assert 0.7 < found.mean() / (4 * SIZE) < 0.8


def test_a_normalised_row_has_mean_0_and_deviation_1() -> None:
    found = normalised(3 * randn(2, 5, 40) + 7)
    assert_close(found.mean(-1), torch.zeros(2, 5), rtol=0.0, atol=1e-5)
    assert_close(found.std(-1, correction=0), torch.ones(2, 5), rtol=0.0, atol=1e-4)


def test_dropout_is_off_but_in_training() -> None:
    x = torch.ones(10_000)
    assert dropout(x, 0.2, False) is x
    dropped = dropout(x, 0.2, True)
    assert set(dropped.unique().tolist()) == {0.0, 1.25}
    assert 0.17 < (dropped == 0).float().mean() < 0.23


Slot = tuple[int, int]
SLOTS = st.integers(0, 30).flatmap(lambda position: st.tuples(st.just(position), st.integers(0, position)))


def at(slots: Sequence[Slot], capacity: int, *, count: int = 1, in_place: bool = False, device: str = "cpu") -> State:
    """A state with one history, `x`, and each slot at its position and length; zeros in the ring."""
    position, length = torch.tensor(slots, device=device).T
    history = {"x": torch.zeros(count, len(slots), capacity, SIZE, device=device)}
    return State({}, history, position, length, room=capacity, in_place=in_place)


def attend(block: Attention, x: Tensor, before: State) -> tuple[Tensor, State]:
    """Each step of x attends to the steps so far."""
    steps = x.shape[2]
    context = Context(before, steps, max_steps=LOOK_BACK)
    found = block(x, context.append("x", x), context.bias.repeat(len(x), 1, 1))
    after = replace(context.after(), recurrent=before.recurrent)
    return found, after


def looking_back(block: Attention, x: Tensor) -> Tensor:
    """The same over one whole utterance, by formula."""
    ends = range(1, x.shape[2] + 1)
    return torch.cat([by_formula(block, x[:, :, e - 1 : e], x[:, :, max(0, e - LOOK_BACK) : e]) for e in ends], 2)


@settings(deadline=None)
@given(st.lists(SLOTS, min_size=1, max_size=3), st.integers(1, 6), st.integers(1, 5), st.integers(0, 3))
def test_a_step_looks_at_itself_and_the_steps_of_its_utterance(
    slots: list[Slot], look_back: int, steps: int, more: int
) -> None:
    capacity = look_back + steps - 1 + more
    context = Context(at(slots, capacity), steps, max_steps=look_back)
    assert context.count.tolist() == [[length + step for step in range(1, steps + 1)] for _, length in slots]
    bias = context.bias
    assert bias.shape == (len(slots), steps, capacity)
    assert set(bias.unique().tolist()) <= {0.0, torch.tensor(HIDDEN).item()}
    for (position, length), rows in zip(slots, bias, strict=True):
        for now, row in enumerate(rows, position):
            first = max(position - length, now - look_back + 1)
            expected = {number % capacity for number in range(first, now + 1)}
            assert set((row == 0).nonzero().flatten().tolist()) == expected


@pytest.mark.parametrize("in_place", [True, False], ids=["in place", "copied"])
def test_steps_are_appended_where_the_ring_has_come_to(in_place: bool, device: str) -> None:
    before = at([(3, 1), (9, 9)], 5, count=2, in_place=in_place, device=device)
    held, x = before.history["x"], randn(2, 2, 3, SIZE, device=device)
    context = Context(before, 3, max_steps=2)
    after = context.append("x", x)
    assert context.after().history["x"] is after
    for slot, places in enumerate([[3, 4, 0], [4, 0, 1]]):
        assert torch.equal(after[:, slot, places], x[:, slot])
        others = [place for place in range(5) if place not in places]
        assert (after[:, slot, others] == 0).all()
    assert (after.data_ptr() == held.data_ptr()) == in_place
    assert in_place or (held == 0).all()


@pytest.mark.parametrize("step", [0, 5, 8])
def test_attention_looks_back_so_far_and_never_ahead(step: int, device: str) -> None:
    x = randn(COUNT, BATCH, 9, SIZE, device=device).requires_grad_()
    block = some_attention(device=device)
    found, _ = attend(block, x, at([(0, 0), (7, 0)], 20, count=COUNT, device=device))
    assert_close(found, looking_back(block, x), rtol=1e-5, atol=1e-6)
    found[:, :, step].sum().backward()
    seen = slice(max(0, step + 1 - LOOK_BACK), step + 1)
    assert (moved(x)[:, seen] > 0).all()
    assert moved(x).count_nonzero() == moved(x)[:, seen].numel()


def going_on(slots: Sequence[Slot], *, lstms: int = COUNT) -> State:
    """As `at`, with what LSTMs and a mean go on from: two steps of which the last counts."""
    recurrent = {f"lstm.{part}": randn(lstms, len(slots), 2, SIZE, seed=seed) for seed, part in enumerate("hc", 4)}
    return replace(at(slots, 20), recurrent=recurrent | {"mean": randn(1, len(slots), 2, SIZE, seed=6)})


def test_a_context_runs_lstms_on_from_the_last_step() -> None:
    block, x, before = some_lstms(), randn(COUNT, BATCH, STEPS, 5), going_on([(3, 1), (9, 9)])
    context = Context(before, STEPS, max_steps=LOOK_BACK)
    found = context.run("lstm", block, x)
    expected = block(x, before.recurrent["lstm.h"][:, :, 1], before.recurrent["lstm.c"][:, :, 1])
    assert_close(found, expected)
    kept = context.after().recurrent
    assert kept["lstm.h"] is found[0]
    assert kept["lstm.c"] is found[1]


def test_a_context_takes_the_mean_over_each_slots_own_utterance() -> None:
    x, before = randn(2, 3, SIZE), going_on([(3, 1), (9, 8)])
    context = Context(before, 3, max_steps=2)
    found, sums = context.mean("mean", x), before.recurrent["mean"][0, :, 1]
    for slot, length in enumerate((1, 8)):
        for step in range(3):
            expected = (sums[slot] + x[slot, : step + 1].sum(0)) / (length + step + 1)
            assert_close(found[slot, step], expected)
    context.append("x", x[None])
    after = context.after()
    assert after.recurrent["mean"].shape == (1, 2, 3, SIZE)
    again = Context(after, 1, max_steps=2).mean("mean", x[:, :1])
    assert_close(again[:, 0] * torch.tensor([[5.0], [12.0]]), sums + x.sum(1) + x[:, 0])


def test_what_a_context_keeps_is_what_there_was_before_the_next_call() -> None:
    before, values = going_on([(3, 1), (9, 9)]), randn(2, 2, 3, SIZE)
    context = Context(before, 3, max_steps=LOOK_BACK)
    assert torch.equal(context.before("mean"), before.recurrent["mean"][:, :, 1:])
    context.keep("other", values)
    context.append("x", values[:1])
    after = context.after()
    assert dict(after.recurrent) == {"other": values}
    assert torch.equal(Context(after, 1, max_steps=LOOK_BACK).before("other"), values[:, :, 2:])


@pytest.mark.parametrize("in_place", [True, False], ids=["in place", "copied"])
def test_after_a_call_slots_are_as_many_steps_further(in_place: bool) -> None:
    before = at([(3, 1), (9, 9)], 20, in_place=in_place)
    after = Context(before, 4, max_steps=LOOK_BACK).after()
    assert (after.position.tolist(), after.length.tolist()) == ([7, 13], [5, 13])
    assert (after.room, after.in_place) == (16, in_place)
    assert (before.position.tolist(), before.length.tolist(), before.room) == ([3, 9], [1, 9], 20)


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(1, 4), st.booleans(), st.booleans()), min_size=1, max_size=20), st.booleans())
def test_the_ring_wraps(chunks: list[tuple[int, bool, bool]], in_place: bool) -> None:
    block, state = some_attention(1, keys=False), at([(0, 0), (5, 0)], LOOK_BACK + 3, in_place=in_place)
    x = randn(1, 2, sum(steps for steps, *_ in chunks), SIZE)
    begins, done = [0, 0], 0
    for steps, *restarts in chunks:
        state = state.reset(torch.tensor(restarts))
        begins = [done if restart else begin for restart, begin in zip(restarts, begins, strict=True)]
        found, state = attend(block, x[:, :, done : done + steps], state)
        done += steps
        for slot, begin in enumerate(begins):
            expected = looking_back(block, x[:, slot : slot + 1, begin:done])
            assert_close(found[:, slot], expected[:, 0, -steps:], rtol=1e-5, atol=1e-5)


def test_the_running_mean_is_over_all_steps_so_far() -> None:
    x, counts = randn(BATCH, STEPS, SIZE), torch.arange(1, STEPS + 1).expand(BATCH, STEPS)
    first, sums = running_mean(x[:, :3], torch.zeros(BATCH, 1, SIZE), counts[:, :3])
    rest, after = running_mean(x[:, 3:], sums, counts[:, 3:])
    expected = torch.stack([x[:, : step + 1].mean(1) for step in range(STEPS)], 1)
    assert_close(torch.cat([first, rest], 1), expected, rtol=1e-5, atol=1e-6)
    assert_close(torch.cat([sums, after], 1), expected * counts[..., None], rtol=1e-5, atol=1e-5)


def test_slots_have_running_means_of_their_own() -> None:
    x, before = randn(2, 2, SIZE), randn(2, 1, SIZE, seed=2)
    means, _ = running_mean(x, before, torch.tensor([[10, 11], [2, 3]]))
    for row, count in enumerate((10, 2)):
        assert_close(means[row, 0], (before[row, 0] + x[row, 0]) / count)
        assert_close(means[row, 1], (before[row, 0] + x[row].sum(0)) / (count + 1))


@pytest.mark.parametrize("step", [0, 3, STEPS - 1])
def test_a_running_mean_depends_on_the_past_alone(step: int) -> None:
    x = randn(BATCH, STEPS, SIZE).requires_grad_()
    means, _ = running_mean(x, torch.zeros(BATCH, 1, SIZE), torch.arange(1, STEPS + 1).expand(BATCH, STEPS))
    means[:, step].sum().backward()
    assert x.grad is not None
    assert (x.grad[:, : step + 1] > 0).all()
    assert (x.grad[:, step + 1 :] == 0).all()


def test_columns_are_standardised() -> None:
    rows = 3 * randn(200, 3) + torch.tensor([5.0, 0.0, -1.0])
    rows[:, 1] = 7.0
    spread = Standardise(3)
    assert torch.equal(spread(rows), rows.clamp(-10, 10))
    spread.measure(rows)
    found = spread(rows.view(10, 20, 3)).view(200, 3)
    assert found.mean(0).abs().max() < 1e-5
    assert found.std(0, correction=0).tolist() == pytest.approx([1, 0, 1], abs=1e-5)  # a column that does not vary says nothing
    assert spread(torch.full((1, 3), 1e6)).tolist() == [[10, 0, 10]]
    assert set(spread.state_dict()) == {"mean", "scale"}


def test_columns_of_any_shape_are_brought_to_a_normal_distribution() -> None:
    rows = torch.rand(5000, 3, generator=torch.Generator().manual_seed(0)) ** torch.tensor([1.0, 1.0, 8.0])
    rows[:, 1] = 0.7
    spread = Normalise(3)
    some = torch.linspace(-3, 3, 30).view(10, 3)
    assert torch.allclose(spread(some), some, atol=1e-6)
    spread.measure(rows)
    found = spread(rows.view(50, 100, 3)).view(5000, 3)
    assert found.mean(0).abs().max() < 0.02
    assert found.std(0).tolist() == pytest.approx([1, 0, 1], abs=0.02)
    for share in (0.1, 0.5, 0.9):
        expected = float(torch.special.ndtri(torch.tensor(share)))
        assert found[:, [0, 2]].quantile(share, 0).tolist() == pytest.approx([expected, expected], abs=0.05)
    order = rows[:, 2].argsort()
    assert (found[order, 2].diff() >= 0).all()
    assert spread(torch.full((1, 3), 1e6)).tolist() == [[3, 0, 3]]
    assert spread(torch.full((1, 3), -1e6)).tolist() == [[-3, 0, -3]]


@pytest.mark.parametrize("kind", [Standardise, Normalise])
def test_nothing_stays_nothing_and_noise_is_for_training(kind: type[Spread]) -> None:
    rows = randn(300, 3) + 2
    rows[:, 1] = 0.5
    spread = kind(3)
    spread.measure(rows)
    spread.noise = 0.1
    torch.manual_seed(0)
    assert torch.equal(spread(torch.zeros(2, 3)), torch.zeros(2, 3))
    moved = spread(rows) - spread.eval()(rows)
    assert moved.std(0).tolist() == pytest.approx([0.1, 0, 0.1], abs=0.02)
    assert torch.equal(spread(torch.zeros(2, 3)), torch.zeros(2, 3))
    assert torch.equal(spread(rows), spread(rows))


def test_positions_are_sines_before_cosines_of_waves_that_grow() -> None:
    found = positions(torch.tensor([[1, 2]]), 5)
    second = torch.tensor([2.0, 2e-4])
    assert_close(found[0, 1], torch.cat([second.sin(), second.cos(), torch.zeros(1)]))
    assert found.shape == (1, 2, 5)
