"""Causal building blocks whose state can be kept between calls.

Every block is `forward(x (B, T, …), state) -> (y (B, T, …), state)`: one call over T steps equals T calls over one. A state
is a dictionary of tensors whose first axis is the batch; it is never changed in place, so a kept state can be run over a
tail again and again.
"""

import torch
from torch import Tensor, nn

State = dict[str, Tensor]


class CausalLSTM(nn.Module):
    """A one-layer unidirectional LSTM.

    State: `h` and `c`, each (B, hidden).
    """

    def __init__(self, inputs: int, hidden: int) -> None:
        super().__init__()
        self.hidden = hidden
        self.lstm = nn.LSTM(inputs, hidden, batch_first=True)

    def initial_state(self, batch: int, device: torch.device) -> State:
        """The state before the first step."""
        return {name: torch.zeros(batch, self.hidden, device=device) for name in ("h", "c")}

    def forward(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """(B, T, inputs) to (B, T, hidden)."""
        y, (h, c) = self.lstm(x, (state["h"][None].contiguous(), state["c"][None].contiguous()))
        return y, {"h": h[0], "c": c[0]}


class CausalAttention(nn.Module):
    """Single-head scaled dot-product attention of each step over all steps so far, without biases or output projection.

    The form is that of MMLatch's reference (Paraskevopoulos et al., ICASSP 2022); the keys and values of earlier steps are
    kept, so a step costs the same at any point of the utterance.

    State: `k` and `v`, each (B, max_steps, size), and `n`, the number of steps so far, (B,) int64.
    """

    def __init__(self, size: int, *, max_steps: int, dropout: float) -> None:
        super().__init__()
        self.size, self.max_steps = size, max_steps
        self.keys, self.queries, self.values = (nn.Linear(size, size, bias=False) for _ in range(3))
        for projection in (self.keys, self.queries, self.values):
            nn.init.xavier_uniform_(projection.weight)
        self.dropout = nn.Dropout(dropout)

    def initial_state(self, batch: int, device: torch.device) -> State:
        """The state before the first step."""
        state = {name: torch.zeros(batch, self.max_steps, self.size, device=device) for name in ("k", "v")}
        return state | {"n": torch.zeros(batch, dtype=torch.int64, device=device)}

    def forward(self, queries: Tensor, keys_values: Tensor, state: State) -> tuple[Tensor, State]:
        """Queries from one sequence, keys and values from another of the same length, both (B, T, size), to (B, T, size).

        The caller sees to it that no sequence grows beyond `max_steps`.
        """
        batch, steps, size = queries.shape
        position = state["n"][:, None] + torch.arange(steps, device=queries.device)  # (B, T)
        slot = position[..., None].expand(batch, steps, size)
        k = state["k"].scatter(1, slot, self.keys(keys_values))  # (B, max_steps, size)
        v = state["v"].scatter(1, slot, self.values(keys_values))
        scores = self.queries(queries) @ k.transpose(1, 2) / size**0.5  # (B, T, max_steps)
        future = torch.arange(self.max_steps, device=queries.device) > position[..., None]  # (B, T, max_steps)
        weights = self.dropout(scores.masked_fill(future, -torch.inf).softmax(-1))
        return weights @ v, {"k": k, "v": v, "n": state["n"] + steps}


class RunningMean(nn.Module):
    """The mean over all steps so far.

    State: `sum` (B, size) and `n` (B,) int64.
    """

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size

    def initial_state(self, batch: int, device: torch.device) -> State:
        """The state before the first step."""
        return {
            "sum": torch.zeros(batch, self.size, device=device),
            "n": torch.zeros(batch, dtype=torch.int64, device=device),
        }

    def forward(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """(B, T, size) to (B, T, size)."""
        total = state["sum"][:, None] + x.cumsum(1)  # (B, T, size)
        count = state["n"][:, None] + torch.arange(1, x.shape[1] + 1, device=x.device)  # (B, T)
        return total / count[..., None], {"sum": total[:, -1], "n": count[:, -1]}
