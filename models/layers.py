"""The blocks that the models share.

Blocks of one shape run side by side as one, which is what makes a step cheap: a few large operations instead of many small
ones. M is their number, the first axis of a tensor; B the batch; T the steps of a call.
"""

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from models.state import State

_FURTHEST = 10.0  # standard deviations: what lies further out is an accident
_OUTERMOST, _QUANTILES = 3.0, 33  # normal quantiles: how far out, in standard deviations, and how many
_LONGEST_WAVE = 10_000.0  # of a position's
HIDDEN = -1e30  # added to the score of what must not be seen: its weight is then exactly 0


class Spread(nn.Module, ABC):
    """Columns spread as of the training data: the figures are no weights, but are measured once and saved with the model.

    Attributes:
        noise: In training, of so many standard deviations is added to what is there.
    """

    noise = 0.0

    @abstractmethod
    def measure(self, rows: Tensor, *, least: float = 1e-4) -> None:
        """Take the figures from rows (N, size), none of which is nothing; columns that vary by less than `least` become 0."""

    @abstractmethod
    def spread(self, x: Tensor) -> Tensor:
        """Rows (…, size) to the same shape, mean 0 and standard deviation 1."""

    @abstractmethod
    def counted(self) -> Tensor:
        """Which columns vary, (size), bool."""

    def forward(self, x: Tensor) -> Tensor:
        """Rows (…, size) to the same shape; a row of zeros, which is nothing, stays so."""
        found = self.spread(x)
        if self.training and self.noise:
            found = found + self.noise * torch.randn_like(found)
        return found * self.counted() * (x != 0).any(-1, keepdim=True)


class Standardise(Spread):
    """Spread by mean and standard deviation; what is further out than 10 is cut off."""

    mean: Tensor
    scale: Tensor

    def __init__(self, size: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(size))
        self.register_buffer("scale", torch.ones(size))

    def measure(self, rows: Tensor, *, least: float = 1e-4) -> None:
        """See `Spread.measure`."""
        deviation, mean = torch.std_mean(rows.double(), 0, correction=0)
        self.mean.copy_(mean)
        self.scale.copy_(torch.where(deviation < least, 0.0, 1 / deviation.clamp_min(least)))

    def spread(self, x: Tensor) -> Tensor:
        """See `Spread.spread`."""
        return ((x - self.mean) * self.scale).clamp(-_FURTHEST, _FURTHEST)

    def counted(self) -> Tensor:
        """See `Spread.counted`."""
        return self.scale > 0


class Normalise(Spread):
    """Spread by quantiles: each column's become those of the normal distribution, linearly between them.

    What lies beyond the outermost is taken for those. So columns of any shape, as coefficients that are mostly near 0, are
    spread alike, and nothing is far out.
    """

    quantiles: Tensor

    def __init__(self, size: int) -> None:
        super().__init__()
        self.register_buffer("quantiles", _normal_quantiles().repeat(size, 1))  # (size, K)

    def measure(self, rows: Tensor, *, least: float = 1e-4) -> None:
        """See `Spread.measure`."""
        shares = torch.special.ndtr(_normal_quantiles().double()).to(rows.device)
        found = rows.double().quantile(shares, 0).mT
        self.quantiles.copy_(torch.where(found[:, -1:] - found[:, :1] < least, found[:, :1], found))

    def spread(self, x: Tensor) -> Tensor:
        """See `Spread.spread`."""
        columns = x.reshape(-1, x.shape[-1]).mT.contiguous()  # (size, N)
        above = torch.searchsorted(self.quantiles, columns, right=True).clamp(1, _QUANTILES - 1)
        low, high = self.quantiles.gather(1, above - 1), self.quantiles.gather(1, above)
        share = ((columns - low) / (high - low).clamp_min(1e-12)).clamp(0, 1)
        # Those of the normal distribution are evenly spaced.
        return (_OUTERMOST * (2 * (above - 1 + share) / (_QUANTILES - 1) - 1)).mT.reshape(x.shape)

    def counted(self) -> Tensor:
        """See `Spread.counted`."""
        return self.quantiles[:, -1] > self.quantiles[:, 0]


def _normal_quantiles() -> Tensor:
    """Evenly spaced, (K)."""
    return torch.linspace(-_OUTERMOST, _OUTERMOST, _QUANTILES)


class Projection(nn.Module):
    """Columns to the common width by way of a hidden layer twice as wide.

    The hidden layer is for lanes whose columns mean something together only, as the muscles of a face do.
    """

    def __init__(self, columns: int, size: int) -> None:
        super().__init__()
        self.hidden = nn.Linear(columns, 2 * size)
        self.out = nn.Linear(2 * size, size)

    def forward(self, x: Tensor) -> Tensor:
        """Rows (…, columns) to (…, size)."""
        return self.out(nn.functional.gelu(self.hidden(x)))


class CausalLSTM(nn.Module):
    """Unidirectional one-layer LSTMs of one shape, each over an input of its own.

    The recurrence is written out because PyTorch's LSTM cannot run several at a time (docs/benchmarks.md has the figures).
    """

    def __init__(self, count: int, inputs: int, hidden: int) -> None:
        """Make `count` of them; weights uniform in ±1/sqrt(hidden) as in PyTorch's, forget gates open at first."""
        super().__init__()
        self.count, self.hidden = count, hidden
        bound = hidden**-0.5
        self.input_weight = nn.Parameter(torch.empty(count, inputs, 4 * hidden).uniform_(-bound, bound))
        self.hidden_weight = nn.Parameter(torch.empty(count, hidden, 4 * hidden).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.zeros(count, 1, 4 * hidden))  # of the input, forget and output gate, and the candidate
        with torch.no_grad():
            self.bias[..., hidden : 2 * hidden] = 1.0

    def forward(self, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        """Run over T steps.

        Args:
            x: (M, B, T, inputs).
            h: The outputs of the step before, (M, B, hidden); zeros at the beginning.
            c: The cells after the step before, likewise.

        Returns:
            The outputs and the cells after each step, (M, B, T, hidden) each.
        """
        count, batch, steps, _ = x.shape
        gates = torch.baddbmm(self.bias, x.reshape(count, batch * steps, -1), self.input_weight)
        outputs, cells = [], []
        for gate in gates.view(count, batch, steps, -1).unbind(2):
            total = torch.baddbmm(gate, h, self.hidden_weight)  # (M, B, 4 hidden)
            opened, candidate = total.split((3 * self.hidden, self.hidden), -1)
            take, keep, give = opened.sigmoid().chunk(3, -1)
            c = torch.addcmul(keep * c, take, candidate.tanh())
            h = give * c.tanh()
            outputs.append(h)
            cells.append(c)
        return _joined(outputs), _joined(cells)


def _joined(steps: list[Tensor]) -> Tensor:
    """One tensor (M, B, T, hidden) from those of the steps."""
    return steps[0][:, :, None] if len(steps) == 1 else torch.stack(steps, 2)


class Attention(nn.Module):
    """Single-head scaled dot-product attentions, without biases or output projection.

    The form is that of MMLatch's reference (Paraskevopoulos et al., ICASSP 2022). The keys' map is applied to the queries and
    the values' map to the result, which is the same by associativity: so a memory is kept once, as it is, for all its readers.
    """

    def __init__(self, count: int, size: int, *, dropout: float, keys: bool = True) -> None:
        """Make `count` of them, Xavier-uniform.

        Args:
            count: M.
            size: Of queries, memory and result.
            dropout: On the weights of attention.
            keys: Whether keys have a map of their own, as in the reference. Without, the queries' map does for both: scores
                hang on the product of the two alone, which is any matrix just as well.
        """
        super().__init__()
        self.size, self.dropout = size, dropout
        self.queries = _xavier(count, size)
        self.keys = _xavier(count, size) if keys else None
        self.values = _xavier(count, size)

    def forward(self, queries: Tensor, memory: Tensor, bias: Tensor) -> Tensor:
        """Attend.

        Args:
            queries: (M, B, T, size).
            memory: (N, B, S, size), N dividing M: each memory is attended to by M / N attentions that follow each other.
            bias: (N B, T or 1, S), 0 where a query may look and `HIDDEN` where not.

        Returns:
            (M, B, T, size).
        """
        count, size = len(queries), queries.shape[-1]
        asked = torch.bmm(queries.reshape(count, -1, size), self.queries)
        if self.keys is not None:
            asked = torch.bmm(asked, self.keys.mT)
        p = self.dropout if self.training else 0.0
        found = _attend(asked.view(queries.shape), memory, bias, scale=size**-0.5, p=p)
        return torch.bmm(found.reshape(count, -1, size), self.values).view(queries.shape)


def _attend(asked: Tensor, memory: Tensor, bias: Tensor, *, scale: float, p: float) -> Tensor:
    """What is asked for, (M, B, T, size), of memories (N, B, S, size), N dividing M; `bias` as in `Attention`."""
    (count, batch, steps, size), memories = asked.shape, len(memory)
    readers = count // memories
    if readers > 1:  # those of one memory next to each other: (N, B, readers, T, size)
        asked = asked.view(memories, readers, batch, steps, size).transpose(1, 2)
        bias = bias.repeat(1, readers, 1) if bias.shape[1] > 1 else bias
    flat = memory.reshape(memories * batch, -1, size)
    scores = torch.baddbmm(bias, asked.reshape(memories * batch, -1, size), flat.mT, alpha=scale)
    found = torch.bmm(dropout(scores.softmax(-1), p, p > 0), flat)
    if readers > 1:
        found = found.view(memories, batch, readers, steps, size).transpose(1, 2)
    return found.reshape(count, batch, steps, size)


class MultiHeadAttention(nn.Module):
    """Multi-head scaled dot-product attentions with an output map, without biases (A. Vaswani et al., arXiv 1706.03762).

    As in `Attention` the keys' maps are applied to the queries and the values' maps to the result, so that a memory is kept
    once, whatever the number of readers and heads.
    """

    def __init__(self, count: int, size: int, *, heads: int, dropout: float) -> None:
        """Make `count` of them, Xavier-uniform; `size` is a multiple of `heads`, `dropout` is on the weights of attention."""
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.queries, self.keys, self.values, self.out = (_xavier(count, size) for _ in range(4))

    def forward(self, queries: Tensor, memory: Tensor, bias: Tensor) -> Tensor:
        """See `Attention.forward`."""
        count, batch, steps, size = queries.shape
        narrow = size // self.heads

        def by_head(x: Tensor) -> Tensor:
            """(M, rows, size) to (M heads, rows, size / heads)."""
            return x.view(count, -1, self.heads, narrow).transpose(1, 2).reshape(count * self.heads, -1, narrow)

        asked = torch.bmm(by_head(torch.bmm(queries.reshape(count, -1, size), self.queries)), by_head(self.keys).mT)
        p = self.dropout if self.training else 0.0
        found = _attend(asked.view(-1, batch, steps, size), memory, bias, scale=narrow**-0.5, p=p)
        read = torch.bmm(found.reshape(count * self.heads, -1, size), by_head(self.values))  # (M heads, B T, size / heads)
        read = read.view(count, self.heads, -1, narrow).transpose(1, 2).reshape(count, -1, size)
        return torch.bmm(read, self.out).view(queries.shape)


class Linears(nn.Module):
    """Linear maps of one shape, each over an input of its own."""

    def __init__(self, count: int, inputs: int, outputs: int) -> None:
        """Make `count` of them, drawn as PyTorch's `Linear` is."""
        super().__init__()
        bound = inputs**-0.5
        self.weight = nn.Parameter(torch.empty(count, inputs, outputs).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(count, 1, outputs).uniform_(-bound, bound))

    def forward(self, x: Tensor) -> Tensor:
        """(M, B, T, inputs) to (M, B, T, outputs)."""
        count, batch, steps, _ = x.shape
        return torch.baddbmm(self.bias, x.reshape(count, batch * steps, -1), self.weight).view(count, batch, steps, -1)


class FeedForward(nn.Module):
    """Networks with one hidden layer, four times as wide, each over an input of its own: those of a transformer's layer."""

    def __init__(self, count: int, size: int, *, dropout: float) -> None:
        super().__init__()
        self.dropout = dropout
        self.wide, self.narrow = Linears(count, size, 4 * size), Linears(count, 4 * size, size)

    def forward(self, x: Tensor) -> Tensor:
        """(M, B, T, size) to the same shape."""
        return self.narrow(dropout(self.wide(x).relu(), self.dropout, self.training))


class CausalTransformerLayer(nn.Module):
    """Attention to memories and a feed-forward layer, each over what is normalised, and added to what was there."""

    def __init__(self, count: int, size: int, *, heads: int, dropout: float) -> None:
        super().__init__()
        self.dropout = dropout
        self.attention = MultiHeadAttention(count, size, heads=heads, dropout=dropout)
        self.network = FeedForward(count, size, dropout=dropout)

    def forward(self, x: Tensor, memory: Tensor, bias: Tensor) -> Tensor:
        """(M, B, T, size) and memories, normalised, to the same shape; see `MultiHeadAttention`."""
        x = x + dropout(self.attention(normalised(x), memory, bias), self.dropout, self.training)
        return x + dropout(self.network(normalised(x)), self.dropout, self.training)


def normalised(x: Tensor) -> Tensor:
    """Each row (…, size) with mean 0 and deviation 1. The maps that follow have gains enough: it has none of its own."""
    return nn.functional.layer_norm(x, x.shape[-1:])


def positions(numbers: Tensor, size: int) -> Tensor:
    """Sines, then cosines, of places in a sequence, from 1 on: (…) to (…, size), float32.

    The form is that of MulT's code (Tsai et al., ACL 2019): waves from 2 pi to 10,000 times as long.
    """
    half = size // 2
    waves = torch.exp(torch.arange(half, device=numbers.device) * (-math.log(_LONGEST_WAVE) / max(half - 1, 1)))
    angles = numbers[..., None] * waves  # (…, half)
    return torch.cat([angles.sin(), angles.cos(), angles.new_zeros(*numbers.shape, size % 2)], -1)


def _xavier(count: int, size: int) -> nn.Parameter:
    """Square matrices, (M, size, size); uniform, with variance 1 / size."""
    bound = (3 / size) ** 0.5
    return nn.Parameter(torch.empty(count, size, size).uniform_(-bound, bound))


def dropout(x: Tensor, p: float, training: bool) -> Tensor:
    """Inverted dropout in training, else nothing at all."""
    return nn.functional.dropout(x, p) if training else x


class Context:
    """One call's view of a state: runs what goes on from it, and says which entries of its histories each step may attend to.

    Attributes:
        bias: For one memory, (B, T, capacity): 0 for the utterance so far, at most `max_steps` entries, else `HIDDEN`.
        count: How many windows the utterance has with each step, (B, T).
    """

    def __init__(self, state: State, steps: int, *, max_steps: int) -> None:
        """Look at the next `steps` steps."""
        self._state, self._steps = state, steps
        self._recurrent: dict[str, Tensor] = {}
        self._history: dict[str, Tensor] = {}
        capacity = state.capacity
        places = torch.arange(capacity, device=state.position.device)
        position, length = state.position[:, None], state.length[:, None]
        if steps > 1:
            position, length = position + places[:steps], length + places[:steps]  # (B, T)
        age = (position[..., None] - places) % capacity  # (B, T, capacity), 0 for the step itself
        self.count = length + 1
        oldest = length.clamp(max=max_steps - 1)[..., None]
        self.bias = (age > oldest) * HIDDEN
        self._index = (position % capacity)[None, :, :, None]

    def append(self, name: str, x: Tensor) -> Tensor:
        """Put (M, B, T, size) into the history of that name; returns all of it, (M, B, capacity, size)."""
        before = self._state.history[name]
        write = Tensor.scatter_ if self._state.in_place else Tensor.scatter
        self._history[name] = write(before, 2, self._index.expand(x.shape), x)
        return self._history[name]

    def before(self, name: str) -> Tensor:
        """What there was of that name after the last step before the call, (M, B, 1, size)."""
        return self._state.recurrent[name][:, :, -1:]

    def keep(self, name: str, values: Tensor) -> None:
        """Let there be that of that name after each step, (M, B, T, size)."""
        self._recurrent[name] = values

    def run(self, name: str, lstm: CausalLSTM, x: Tensor) -> tuple[Tensor, Tensor]:
        """LSTMs over (M, B, T, inputs); their outputs and cells, (M, B, T, hidden) each."""
        outputs, cells = lstm(x, self.before(f"{name}.h")[:, :, 0], self.before(f"{name}.c")[:, :, 0])
        self.keep(f"{name}.h", outputs)
        self.keep(f"{name}.c", cells)
        return outputs, cells

    def mean(self, name: str, x: Tensor) -> Tensor:
        """The mean of (B, T, size) over all steps so far."""
        found, sums = running_mean(x, self.before(name)[0], self.count)
        self.keep(name, sums[None])
        return found

    def after(self) -> State:
        """The state after the call."""
        state, steps = self._state, self._steps
        return State(
            recurrent=self._recurrent,
            history=self._history,
            position=state.position + steps,
            length=state.length + steps,
            room=state.room - steps,
            in_place=state.in_place,
        )


def running_mean(x: Tensor, sums: Tensor, count: Tensor) -> tuple[Tensor, Tensor]:
    """The mean over all steps so far.

    Args:
        x: (B, T, size).
        sums: (B, N, size), over the utterance up to each of the last N steps.
        count: How many steps the utterance has with each of the T, (B, T).

    Returns:
        The means, (B, T, size), and the sums with N = T.
    """
    after = sums[:, -1:] + x.cumsum(1)
    return after / count[..., None], after
