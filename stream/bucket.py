"""A bucket: the memory of a fixed number of slots, and the calls of the model that advance them together.

Everything is an array over the bucket's rows, so that what Python does costs little beside the model, for one session or for
thousands. On a GPU the calls of each number of windows are captured once as a CUDA graph and replayed: one submission for the
copies to the device, the model and the copy back. Only torch, numpy and safetensors are needed.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from models.causal import FLAGS, MODALITIES, CausalModel
from models.state import State
from stream.errors import UsageError

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Steps:
    """Windows of N slots as the model takes them, up to T that follow each other of each.

    Attributes:
        seq: The number of each slot's first window, int64, (N,).
        count: How many of each are there, 1 to T, int64, (N,); what comes after is padding of any value that a window may have.
        restart: Whether the state starts anew at a window, bool, (N, T).
        inputs: The features and flags of text, audio and vision in turn, within ±1e6, float32, (N, T, width).
    """

    seq: Ints
    count: Ints
    restart: Bools
    inputs: Floats

    def of(self, chosen: Ints | slice) -> "Steps":
        """Those of some of the slots."""
        return Steps(self.seq[chosen], self.count[chosen], self.restart[chosen], self.inputs[chosen])


# What a call is told of each row, in columns: the number of its first window, how many windows the utterance has before that,
# the cell with the state to begin with; then for each window the cell that the state after it goes to.
_POSITION, _LENGTH, _FROM, _TO = 0, 1, 2, 3


class Bucket:
    """The memory of `size` rows: for each, the state after its last settled window and after each window of its tail.

    Attributes:
        settled: The number of each row's last settled window, (size,).
        tail: How many windows after that are there, (size,).
        started: Whether a row has had a window yet, (size,).
    """

    def __init__(
        self,
        model: CausalModel,
        one_window: nn.Module,
        device: torch.device,
        *,
        size: int,
        longest: int,
        graphs: bool,
        masks: bool,
    ) -> None:
        """Take the memory, and capture the calls if there are to be `graphs`.

        Args:
            model: On the device.
            one_window: What computes calls of one window: the model itself, or compiled by PyTorch.
            device: Where the model is.
            size: Rows.
            longest: Of the tails, in windows.
            graphs: Whether to capture calls.
            masks: Whether outputs have the whole masks after sentiment, uncertainty and three weights.

        Raises:
            torch.OutOfMemoryError: The device has not enough.
            UsageError: The model cannot be compiled, or the calls cannot be captured.
        """
        self.model, self.one_window, self.device, self.size, self.masks = model, one_window, device, size, masks
        self._sizes = [getattr(model.config, m) + FLAGS for m in MODALITIES]
        self.width = sum(self._sizes)
        self.settled = np.zeros(size, np.int64)
        self.tail = np.zeros(size, np.int64)
        self.started = np.zeros(size, bool)
        # A cell for each row's settled window and those of its tail: row * ring + window's number modulo ring.
        self._ring = longest + 1
        cells = size * self._ring
        self._restart = np.zeros(cells, bool)
        self._inputs = np.zeros((cells, self.width), np.float32)
        self._length = np.zeros(cells, np.int64)  # windows of the utterance up to this one
        self._exact = np.zeros(cells, bool)  # all since the restart went through in calls of one window
        columns = 2 + len(MODALITIES) + (sum(model.mask_widths) if masks else 0)
        self._outputs = np.zeros((cells, columns), np.float32)

        lengths = _doublings(longest)
        # In the histories there is room for the utterance up to the settled window, for the tail, and after that for what a
        # call writes to no purpose, because other rows have more windows to run.
        self.capacity = model.config.max_steps + longest + lengths[-1]
        self._free = np.zeros(size, np.int64)  # from this window on, a row's histories hold nothing that counts
        start = model.initial_state(size, capacity=self.capacity, in_place=True)
        self._history = start.history
        # The states after the cells' windows, in one tensor a width, so that a call reads and writes them at once; and two
        # cells more: the state before an utterance, and a place for what nobody wants.
        self._zeros, self._spare = cells, cells + 1
        self._names: dict[int, list[str]] = {}
        for name, value in start.recurrent.items():
            self._names.setdefault(value.shape[-1], []).append(name)
        self._counts = {width: [len(start.recurrent[name]) for name in names] for width, names in self._names.items()}
        self._memory = {width: value.new_zeros(sum(counts), cells + 2, width) for width, counts in self._counts.items()}
        self.pool = torch.cuda.graph_pool_handle() if graphs else None  # shared, as no two graphs are replayed at once
        self._calls: dict[int, _Call] = {}
        if one_window is not model:
            self._calls[1] = self._compiled()
        self._captured = {steps: _Call(self, steps, capture=True) for steps in lengths} if graphs else {}
        self._calls |= self._captured

    def start(self, row: int, state: State | None) -> None:
        """Clear a row, and put it to where `state` (B = 1) stands, or before the first window.

        Raises:
            ValueError: The state is of another model, or of a bucket with other tails.
        """
        for history in self._history.values():
            history[:, row] = 0.0
        # Zeros are the state before the first window too, which goes on from whatever cell comes before its own.
        cells = slice(row * self._ring, (row + 1) * self._ring)
        for memory in self._memory.values():
            memory[:, cells] = 0.0
        self._length[cells], self._exact[cells] = 0, True
        self.settled[row] = self.tail[row] = self._free[row] = 0
        self.started[row] = False
        if state is None:
            return
        state = state.to(self.device)
        _check_alike(state, self.state(row))
        seq = int(state.position) - 1
        cell = row * self._ring + seq % self._ring
        for name, history in self._history.items():
            history[:, row] = state.history[name][:, 0]
        self._write(torch.tensor([cell], device=self.device), state.recurrent)
        self.settled[row], self.started[row], self._free[row] = seq, True, seq + 1
        self._length[cell], self._exact[cell] = int(state.length), True

    def state(self, row: int) -> State:
        """A copy of the state after a row's last settled window (B = 1)."""
        cell, position, length = self._zeros, 0, 0
        if self.started[row]:
            cell, position = row * self._ring + int(self.settled[row]) % self._ring, int(self.settled[row]) + 1
            length = int(self._length[cell])
        return State(
            recurrent=self._read(torch.tensor([cell], device=self.device)),
            history={name: value[:, row : row + 1] for name, value in self._history.items()},
            position=torch.tensor([position], device=self.device),
            length=torch.tensor([length], device=self.device),
            room=max(0, self.capacity - length),
        ).trimmed(self.model.config.max_steps)

    def extend(self, rows: Ints, steps: Steps) -> Floats:
        """Let the rows' tails be these windows from `steps.seq` on, and run them; returns (n, T, columns)."""
        fresh = ~self.started[rows]
        self.settled[rows[fresh]] = steps.seq[fresh] - 1
        self.started[rows] = True
        self.tail[rows] = steps.seq + steps.count - 1 - self.settled[rows]
        cells, there = self._cells(rows, steps.seq, steps.count, steps.inputs.shape[1])
        restart = steps.restart & there
        self._restart[cells[there]] = restart[there]
        self._inputs[cells[there]] = steps.inputs[there]
        if not restart[:, 1:].any():
            self._run(rows, steps.seq, steps.count)
            return self._outputs[cells]
        # A call can start a state anew only at its first window, so each round goes up to the next restart.
        done = np.zeros_like(steps.count)
        while (left := np.flatnonzero(done < steps.count)).size:
            later = restart[left] & (np.arange(restart.shape[1]) > done[left, None])
            end = np.where(later.any(1), later.argmax(1), steps.count[left])
            self._run(rows[left], steps.seq[left] + done[left], end - done[left])
            done[left] = end
        return self._outputs[cells]

    def settle(self, rows: Ints) -> Floats:
        """Let the first window of the rows' tails be settled; returns (n, columns)."""
        seq = self.settled[rows] + 1
        cells = rows * self._ring + seq % self._ring
        if not self._exact[cells].all():
            again = ~self._exact[cells]
            self._run(rows[again], seq[again], np.ones(again.sum(), np.int64))
        self.settled[rows] = seq
        self.tail[rows] -= 1
        return self._outputs[cells]

    def idle(self, numbers: Ints) -> None:
        """Fill in the numbers that leave every row as it is: what a call computes for it goes where nothing counts."""
        numbers[:, _POSITION] = self._free
        numbers[:, _LENGTH] = 0
        numbers[:, _FROM] = self._zeros
        numbers[:, _TO:] = self._spare

    def _run(self, rows: Ints, seq: Ints, count: Ints) -> None:
        """Run `count` windows of each row from `seq` on in one call; only the first may restart, and the one before was run."""
        needed = int(count.max())
        steps = next((length for length in self._captured if length >= needed), needed)
        call = self._calls.get(steps) or self._calls.setdefault(steps, _Call(self, steps, capture=False))
        cells, there = self._cells(rows, seq, count, steps)
        before = rows * self._ring + (seq - 1) % self._ring
        fresh = self._restart[cells[:, 0]]
        length = np.where(fresh, 0, self._length[before])
        exact = (fresh | self._exact[before]) & (steps == 1)
        self.idle(call.numbers)
        call.numbers[rows, _POSITION] = seq
        call.numbers[rows, _LENGTH] = length
        call.numbers[rows, _FROM] = np.where(fresh, self._zeros, before)
        call.numbers[rows, _TO:] = np.where(there, cells, self._spare)
        call.inputs[rows] = self._inputs[cells]
        outputs = call.run()
        self._free[rows] = np.maximum(self._free[rows], seq + count)
        self._length[cells[there]] = (length[:, None] + np.arange(1, steps + 1))[there]
        self._exact[cells[there]] = exact.repeat(count)
        self._outputs[cells[there]] = outputs[rows][there]

    def _cells(self, rows: Ints, seq: Ints, count: Ints, steps: int) -> tuple[Ints, Bools]:
        """The cells of windows that follow each other, (n, steps), and which of them are among the `count`."""
        ahead = np.arange(steps)
        return rows[:, None] * self._ring + (seq[:, None] + ahead) % self._ring, ahead < count[:, None]

    def compute(self, inputs: Tensor, numbers: Tensor) -> Tensor:
        """What the device does: inputs (size, T, width) and numbers (size, 3 + T) to outputs (size, T, columns)."""
        state = State(
            recurrent=self._read(numbers[:, _FROM]),
            history=self._history,
            position=numbers[:, _POSITION],
            length=numbers[:, _LENGTH],
            room=inputs.shape[1],
            in_place=True,
        )
        network = self.one_window if inputs.shape[1] == 1 else self.model
        prediction, after = network(dict(zip(MODALITIES, inputs.split(self._sizes, -1), strict=True)), state)
        self._write(numbers[:, _TO:].flatten(), after.recurrent)
        parts = [prediction.sentiment[..., None], prediction.uncertainty[..., None], prediction.weights]
        return torch.cat([*parts, *(prediction.masks.values() if self.masks else ())], -1)

    def _compiled(self) -> "_Call":
        """A call of one window, once what computes it is compiled: that takes long, and no session should wait for it."""
        try:
            call = _Call(self, 1, capture=False)
            self.idle(call.numbers)
            with torch.inference_mode():
                call.run()
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            reason = str(error).strip().partition("\n")[0]
            raise UsageError(
                f"PyTorch cannot compile the model here ({reason}); install a C++ compiler (g++), or set model.compile=false"
            ) from error
        return call

    def _read(self, cells: Tensor) -> dict[str, Tensor]:
        """The states in cells of the memory, each part (M, B, 1, size)."""
        found: dict[str, Tensor] = {}
        for width, memory in self._memory.items():
            parts = memory.index_select(1, cells)[:, :, None].split(self._counts[width])
            found |= zip(self._names[width], parts, strict=True)
        return found

    def _write(self, cells: Tensor, recurrent: Mapping[str, Tensor]) -> None:
        """Put states, each part (M, B, N, size), into B * N cells of the memory."""
        for width, memory in self._memory.items():
            parts = torch.cat([recurrent[name] for name in self._names[width]])
            memory.index_copy_(1, cells, parts.flatten(1, 2))


def _doublings(end: int) -> list[int]:
    """1, 2, 4 … up to the first that reaches `end`."""
    found = [1]
    while found[-1] < end:
        found.append(2 * found[-1])
    return found


def _check_alike(state: State, like: State) -> None:
    found, expected = (
        {name: tuple(value.shape) for name, value in (*one.history.items(), *one.recurrent.items())} for one in (state, like)
    )
    for name in sorted(found.keys() | expected.keys()):
        if found.get(name) != expected.get(name):
            raise ValueError(
                f"state: {name} is {found.get(name)}, expected {expected.get(name)}; take one of the same model, from an "
                "engine with the same tail"
            )


class _Call:
    """A call of one shape: its inputs and outputs on the host, and on a GPU their counterparts there and the captured graph.

    Attributes:
        inputs: To be filled in before a run, float32, (size, T, width).
        numbers: To be filled in before a run, int64, (size, 3 + T).
    """

    def __init__(self, bucket: Bucket, steps: int, *, capture: bool) -> None:
        self._bucket = bucket
        self._on_gpu = bucket.device.type == "cuda"
        self._host = [
            torch.zeros(bucket.size, steps, bucket.width, pin_memory=self._on_gpu),
            torch.zeros(bucket.size, _TO + steps, dtype=torch.int64, pin_memory=self._on_gpu),
        ]
        self.inputs, self.numbers = (value.numpy() for value in self._host)
        self._graph: torch.cuda.CUDAGraph | None = None
        if self._on_gpu:
            bucket.idle(self.numbers)
            self._device = [value.to(bucket.device) for value in self._host]
            with torch.cuda.device(bucket.device), torch.inference_mode():
                self._result = torch.empty_like(self._there(), device="cpu", pin_memory=True)
                if capture:
                    self._capture()

    def run(self) -> Floats:
        """From the inputs to the outputs, (size, T, columns), which are valid until the next run."""
        if not self._on_gpu:
            return self._bucket.compute(*self._host).numpy()
        with torch.cuda.device(self._bucket.device):
            if self._graph:
                self._graph.replay()
            else:
                self._there_and_back()
            torch.cuda.current_stream().synchronize()
        return self._result.numpy()

    def _capture(self) -> None:
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):  # libraries set themselves up when first used, which cannot be captured
            for _ in range(2):
                self._there_and_back()
        torch.cuda.current_stream().wait_stream(side)
        self._graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(self._graph, pool=self._bucket.pool):
                self._there_and_back()
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            reason = str(error).partition("\n")[0]
            raise UsageError(f"CUDA graphs cannot be captured here ({reason}); set model.cuda_graphs=false") from error

    def _there(self) -> Tensor:
        for device, host in zip(self._device, self._host, strict=True):
            device.copy_(host, non_blocking=True)
        return self._bucket.compute(*self._device)

    def _there_and_back(self) -> None:
        self._result.copy_(self._there(), non_blocking=True)
