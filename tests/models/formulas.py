"""The blocks by formula: one sequence, (T, columns), and one of the blocks that run side by side."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from models.causal import FLAGS, MODALITIES, CausalModel
from models.layers import Attention, CausalLSTM, FeedForward, Linears, MultiHeadAttention, Projection

Look = Callable[[Attention | MultiHeadAttention, int, Tensor, Tensor], Tensor]


def seen_so_far(steps: int, most: int) -> Tensor:
    """Where a step may look, (T, T): at itself and at what came before, `most` steps in all."""
    age = torch.arange(steps)[:, None] - torch.arange(steps)
    return (age >= 0) & (age < most)


def attend(seen: Tensor, block: Attention | MultiHeadAttention, index: int, asking: Tensor, memory: Tensor) -> Tensor:
    """softmax(Q K^T / sqrt(d)) V, by head; `seen`, (T, S), is True where a step may look."""
    queries, values = asking @ block.queries[index], memory @ block.values[index]
    keys = memory if block.keys is None else memory @ block.keys[index]
    heads = block.heads if isinstance(block, MultiHeadAttention) else 1
    found = []
    for q, k, v in zip(*(x.chunk(heads, -1) for x in (queries, keys, values)), strict=True):
        scores = q @ k.T / q.shape[-1] ** 0.5
        found.append(scores.masked_fill(~seen.to(scores.device), -torch.inf).softmax(-1) @ v)
    read = torch.cat(found, -1)
    return read @ block.out[index] if isinstance(block, MultiHeadAttention) else read


def lstm(block: CausalLSTM, index: int, x: Tensor) -> tuple[Tensor, Tensor]:
    """Outputs and cells, (T, hidden) each."""
    h = c = x.new_zeros(block.hidden)
    outputs, cells = [], []
    for gates in x @ block.input_weight[index] + block.bias[index]:
        take, keep, give, candidate = (gates + h @ block.hidden_weight[index]).chunk(4)
        c = keep.sigmoid() * c + take.sigmoid() * candidate.tanh()
        h = give.sigmoid() * c.tanh()
        outputs.append(h)
        cells.append(c)
    return torch.stack(outputs), torch.stack(cells)


def project(block: Projection, x: Tensor) -> Tensor:
    return nn.functional.gelu(x @ block.hidden.weight.T + block.hidden.bias) @ block.out.weight.T + block.out.bias


def linear(block: Linears, index: int, x: Tensor) -> Tensor:
    return x @ block.weight[index] + block.bias[index, 0]


def feed_forward(block: FeedForward, index: int, x: Tensor) -> Tensor:
    return linear(block.narrow, index, linear(block.wide, index, x).clamp_min(0))


def normalise(x: Tensor) -> Tensor:
    centred = x - x.mean(-1, keepdim=True)
    return centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt()


def mean_so_far(x: Tensor) -> Tensor:
    return torch.stack([x[: step + 1].mean(0) for step in range(len(x))])


def lanes_of(model: CausalModel, x: dict[str, Tensor]) -> tuple[list[Tensor], list[Tensor]]:
    """Text's, audio's and vision's features, spread, and their flags."""
    features = [spread(x[m][:, :-FLAGS]) for m, spread in model.spreads.items()]
    return features, [x[m][:, -FLAGS:] for m in MODALITIES]


def head(model: CausalModel, read: Tensor) -> tuple[Tensor, Tensor]:
    """Sentiment and uncertainty, (T,) each."""
    hidden = nn.functional.gelu(read @ model.reading.weight.T + model.reading.bias)
    sentiment, uncertainty = (hidden @ model.head.weight.T + model.head.bias).T
    return 3 * sentiment.tanh(), 3 * uncertainty.sigmoid()
