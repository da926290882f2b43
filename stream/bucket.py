"""A bucket: the memory of a fixed number of slots on the device, and the calls of the model that advance them together.

On a GPU the calls of each number of windows are captured once as a CUDA graph and replayed: one submission for the copies to
the device, the model and the copy back. Only torch, numpy and safetensors are needed.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from models.mmlatch import FLAGS, MODALITIES, CausalMMLatch
from models.state import State
from stream.errors import UsageError


@dataclass(frozen=True, eq=False)
class Step:
    """One window as the model takes it.

    Attributes:
        seq: The window's number; those of a session follow each other.
        restart: Whether the state starts anew here.
        inputs: Of text, audio and vision in turn the features and the flags, finite, float32, (width,).
    """

    seq: int
    restart: bool
    inputs: npt.NDArray[np.float32]

    def same(self, other: "Step") -> bool:
        """Whether it is the same window with the same input, to the bit."""
        return (self.seq, self.restart) == (other.seq, other.restart) and np.array_equal(self.inputs, other.inputs)


class Estimate(NamedTuple):
    """The model's output at one window.

    Attributes:
        sentiment: In [-3, 3].
        uncertainty: The standard deviation of the label that the model expects about `sentiment`, in (0, 3).
        weights: The mean top-down mask of each of `MODALITIES`, in (0, 1).
        masks: The whole masks, those of text, audio and vision in turn, if they were asked for.
    """

    sentiment: float
    uncertainty: float
    weights: tuple[float, ...]
    masks: tuple[float, ...] = ()


@dataclass(frozen=True, eq=False)
class Kept:
    """A state in a bucket's memory, to go on from.

    Attributes:
        seq: The number of the window after which it is; None before the first.
        length: Windows of the utterance up to it.
        place: The row of the memory.
        exact: Whether all windows since the restart went through in calls of one window.
    """

    seq: int | None
    length: int
    place: int
    exact: bool


@dataclass(frozen=True, eq=False)
class Run(Kept):
    """The state after a window that was run, with the window and what the model said of it."""

    step: Step
    estimate: Estimate


class Job(NamedTuple):
    """Windows of one slot, of which only the first may restart, to be run after the one before them."""

    row: int
    before: Kept
    steps: Sequence[Step]


# What a call is told of each slot, in columns: the number of its first window, how many windows the utterance has before that,
# where in the memory the state is found; then for each window where the state after it goes.
_POSITION, _LENGTH, _FROM, _TO = 0, 1, 2, 3
# A slot's rows in the memory: zeros, which is the state before an utterance; one for what nobody wants; then a ring of windows.
_ZEROS, _SPARE, _RING = 0, 1, 2


class Bucket:
    """The memory of `size` slots. The state after each window of a tail has a place of its own, so a slot can go back to it."""

    def __init__(self, model: CausalMMLatch, device: torch.device, *, size: int, tail: int, graphs: bool, masks: bool) -> None:
        """Take the memory, and capture the calls if there are to be `graphs`.

        Raises:
            torch.OutOfMemoryError: The device has not enough.
        """
        self.model, self.device, self.size, self.masks = model, device, size, masks
        self.width = sum(getattr(model.config, m) + FLAGS for m in MODALITIES)
        self._graphs = graphs
        self._lengths = _doublings(tail)  # of the calls that are captured
        # The utterance up to the committed window, the tail, and after it what a call may write that other slots have need of.
        self.capacity = model.config.max_steps + tail + self._lengths[-1]
        self._ring = tail + 1  # the committed window and the tail
        rows = _RING + self._ring
        start = model.initial_state(size, capacity=self.capacity, in_place=True)
        self._history = start.history
        # What is of one width lies together, so that a call reads and writes it at once.
        self._names: dict[int, list[str]] = {}
        for name, value in start.recurrent.items():
            self._names.setdefault(value.shape[-1], []).append(name)
        self._counts = {width: [len(start.recurrent[name]) for name in names] for width, names in self._names.items()}
        self._memory = {width: value.new_zeros(sum(counts), size * rows, width) for width, counts in self._counts.items()}
        self._base = np.arange(size, dtype=np.int64) * rows
        self._free = np.zeros(size, np.int64)  # windows from here on have nothing in the histories that counts
        self.pool = torch.cuda.graph_pool_handle() if graphs else None  # shared, as no two graphs are replayed at once
        self._calls: dict[int, _Call] = {}
        for steps in self._lengths if graphs else []:
            self._calls[steps] = _Call(self, steps, capture=True)

    def start(self, row: int, state: State | None) -> Kept:
        """Clear a slot, and put it to where `state` (B = 1) stands, or before the first window.

        Raises:
            ValueError: The state is of another model, or of a bucket with another tail.
        """
        first = int(self._base[row])
        for value in self._history.values():
            value[:, row] = 0.0
        for value in self._memory.values():
            value[:, first : first + _RING + self._ring] = 0.0
        self._free[row] = 0
        fresh = Kept(None, 0, first + _ZEROS, exact=True)
        if state is None:
            return fresh
        _check_alike(state, self.state(row, fresh))
        seq = int(state.position) - 1
        kept = Kept(seq, int(state.length), self._place(row, seq), exact=True)
        for name, value in self._history.items():
            value[:, row] = state.history[name][:, 0]
        self._write(torch.tensor([kept.place], device=self.device), state.recurrent)
        self._free[row] = seq + 1
        return kept

    def state(self, row: int, kept: Kept) -> State:
        """A copy of a slot's state (B = 1)."""
        position = 0 if kept.seq is None else kept.seq + 1
        return State(
            recurrent=self._read(torch.tensor([kept.place], device=self.device)),
            history={name: value[:, row : row + 1] for name, value in self._history.items()},
            position=torch.tensor([position], device=self.device),
            length=torch.tensor([kept.length], device=self.device),
            room=self.capacity - kept.length,
        ).trimmed()

    def run(self, jobs: Sequence[Job]) -> list[list[Run]]:
        """Run all jobs in one call; slots without one stay as they are."""
        steps = max(len(job.steps) for job in jobs)
        if self._graphs:
            steps = next(length for length in self._lengths if length >= steps)
        call = self._calls.get(steps) or self._calls.setdefault(steps, _Call(self, steps, capture=False))
        self.idle(call.numbers)
        for row, before, windows in jobs:
            first, count = windows[0], len(windows)
            call.numbers[row, _POSITION] = first.seq
            if not first.restart:
                call.numbers[row, _LENGTH], call.numbers[row, _FROM] = before.length, before.place
            for index, window in enumerate(windows):
                call.numbers[row, _TO + index] = self._place(row, window.seq)
                call.inputs[row, index] = window.inputs
            self._free[row] = max(self._free[row], first.seq + count)
        outputs = call.run().tolist()
        return [self._taken(job, outputs[job.row], single=steps == 1) for job in jobs]

    def idle(self, numbers: npt.NDArray[np.int64]) -> None:
        """Fill in the numbers that leave every slot as it is: what a call computes for it goes where nothing counts."""
        numbers[:, _POSITION] = self._free
        numbers[:, _LENGTH] = 0
        numbers[:, _FROM] = self._base + _ZEROS
        numbers[:, _TO:] = (self._base + _SPARE)[:, None]

    def compute(self, inputs: Tensor, numbers: Tensor) -> Tensor:
        """What the device does: inputs (B, T, width) and numbers (B, 3 + T) to outputs (B, T, 5, or more with masks)."""
        sizes = [getattr(self.model.config, m) + FLAGS for m in MODALITIES]
        state = State(
            recurrent=self._read(numbers[:, _FROM]),
            history=self._history,
            position=numbers[:, _POSITION],
            length=numbers[:, _LENGTH],
            room=inputs.shape[1],
            in_place=True,
        )
        prediction, after = self.model(dict(zip(MODALITIES, inputs.split(sizes, -1), strict=True)), state)
        self._write(numbers[:, _TO:].flatten(), after.recurrent)
        parts = [prediction.sentiment[..., None], prediction.uncertainty[..., None], prediction.weights]
        return torch.cat([*parts, *(prediction.masks[m] for m in MODALITIES if self.masks)], -1)

    def _taken(self, job: Job, outputs: list[list[float]], *, single: bool) -> list[Run]:
        """A job's runs, from its rows of the outputs."""
        restart = job.steps[0].restart
        length, exact = (0, single) if restart else (job.before.length, single and job.before.exact)
        return [
            Run(
                step.seq,
                length + index,
                self._place(job.row, step.seq),
                exact,
                step,
                Estimate(output[0], output[1], tuple(output[2:5]), tuple(output[5:])),
            )
            for index, (step, output) in enumerate(zip(job.steps, outputs, strict=False), 1)
        ]

    def _read(self, places: Tensor) -> dict[str, Tensor]:
        """What the memory's rows hold, each part (M, B, 1, size)."""
        found: dict[str, Tensor] = {}
        for width, memory in self._memory.items():
            parts = memory.index_select(1, places)[:, :, None].split(self._counts[width])
            found |= zip(self._names[width], parts, strict=True)
        return found

    def _write(self, places: Tensor, recurrent: Mapping[str, Tensor]) -> None:
        """Put parts (M, B, N, size) into B * N rows of the memory."""
        for width, memory in self._memory.items():
            parts = torch.cat([recurrent[name] for name in self._names[width]])
            memory.index_copy_(1, places, parts.flatten(1, 2))

    def _place(self, row: int, seq: int) -> int:
        return int(self._base[row]) + _RING + seq % self._ring


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
        inputs: To be filled in before a run, float32, (B, T, width).
        numbers: To be filled in before a run, int64, (B, 3 + T).
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

    def run(self) -> npt.NDArray[np.float32]:
        """From the inputs to the outputs, (B, T, 5 or more)."""
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
