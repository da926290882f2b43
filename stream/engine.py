"""The engine: sessions' states on one device, each committed up to its settled windows, with a speculative tail after that.

A session has a *slot*. Slots come in buckets of one size, and a call of the model runs a whole bucket, whoever of it has
something to do. A matrix product over three rows need not equal three products over one to the bit, so settled windows go
through in calls of ONE shape, a bucket by one window: a final estimate depends neither on timing nor on who shares the bucket.
The windows of a tail are run in one longer call.

The state after each window of the tail is kept, so a tail is run again only from the first window that changed. A window is
settled where it stands in the tail: if it came there through calls of that one shape, which would give the same bits again, it
is not run a second time.

Only torch, numpy and safetensors are needed, so that the engine can be tried on a machine that has nothing else.
"""

from collections.abc import Sequence
from typing import NamedTuple, cast

import numpy as np
import torch
from torch import nn

from models.causal import MODALITIES, CausalModel
from models.state import State
from stream.bucket import Bucket, Floats, Ints, Steps
from stream.errors import UsageError

LARGEST = 1e6  # of an input: far beyond any feature, and far from where sums overflow and a state is spoilt for good
TAIL = 120  # windows after the settled ones, if not asked otherwise


class Slot(NamedTuple):
    """The right to a place in the engine. Whoever has the place next has another generation."""

    place: int
    generation: int


class Estimates(NamedTuple):
    """The model's outputs at windows; `…` is (N,), or (N, T) where there may be several of a slot.

    Attributes:
        sentiment: In [-3, 3], (…).
        uncertainty: The standard deviation of the label that the model expects about `sentiment`, in (0, 3), (…).
        weights: How far each of `MODALITIES` is let through, in [0, 1], (…, 3); see `Prediction`.
        masks: The whole masks of text, audio and vision in turn, (…, columns); no columns if they were not asked for.
    """

    sentiment: Floats
    uncertainty: Floats
    weights: Floats
    masks: Floats


# Some of a call's slots (by their numbers among them), the bucket that they are in, and their rows there.
_Share = tuple[Ints | slice, Bucket, Ints]


class Engine:
    """Runs sessions on one model. All calls must come from one thread, which owns the device.

    Example:
        engine = Engine(model, torch.device("cuda"), bucket=64)
        slots = [engine.open() for _ in range(50)]
        provisional = engine.extend(slots, steps)  # the tails, from the first window that is new or has changed
        final = engine.settle(slots)  # the first window of each tail

    Attributes:
        device: Where it runs.
        bucket: Slots to a call.
        tail: The longest tail in windows.
    """

    def __init__(
        self,
        model: CausalModel,
        device: torch.device,
        *,
        bucket: int = 1,
        tail: int = TAIL,
        graphs: bool = True,
        compile: bool = False,  # noqa: A002 - PyTorch's name for it
        masks: bool = False,
    ) -> None:
        """Move the model to the device. Memory is taken bucket by bucket, as slots are opened.

        Args:
            model: The model, put into evaluation mode.
            device: Where to run it.
            bucket: Slots to a call, at least 1. Estimates depend on it in their last digits.
            tail: The longest tail in windows, at least 1. Estimates depend on it likewise.
            graphs: Whether a GPU replays calls from captured CUDA graphs; a CPU has none.
            compile: Whether calls of one window go through torch.compile: worth it for one session on a CPU, at the price of a
                C++ compiler and about 20 s at the first `open`. Estimates depend on it in their last digits.
            masks: Whether estimates have the whole masks.
        """
        if bucket < 1 or tail < 1:
            raise ValueError(f"bucket: {bucket}, tail: {tail}; both must be at least 1")
        self.tail = tail
        self._model = model.to(device).eval()
        self._one_window = cast(nn.Module, torch.compile(self._model, dynamic=False)) if compile else self._model
        self.device, self.bucket = device, bucket
        self._graphs, self._masks = graphs and device.type == "cuda", masks
        self._buckets: list[Bucket] = []
        self._holders = np.zeros(0, np.int64)  # the generation that has each slot, 0 for none
        self._generation = 0

    @property
    def mask_widths(self) -> tuple[int, int, int]:
        """How many columns of `Estimates.masks` are the text's, the audio's, the vision's."""
        return self._model.mask_widths if self._masks else (0, 0, 0)

    def open(self, state: State | None = None) -> Slot:
        """Take a free slot for a session.

        Args:
            state: Where the session stands, from `state` of an engine like this one; None before its first window.

        Raises:
            UsageError: The device has no memory left, or the model cannot be compiled or captured on it.
            ValueError: The state is of another model, or of an engine with another tail.
        """
        if self._holders.all():
            self._buckets.append(self._new_bucket())
            self._holders = np.append(self._holders, np.zeros(self.bucket, np.int64))
        index = int(self._holders.argmin())
        self._buckets[index // self.bucket].start(index % self.bucket, state)
        self._generation += 1
        self._holders[index] = self._generation
        return Slot(index, self._generation)

    def close(self, slot: Slot) -> None:
        """Give the slot back."""
        self._holders[self._indices([slot])] = 0

    def state(self, slot: Slot) -> State:
        """A copy of a session's state after its settled windows (B = 1): to save, or to open on an engine like this one."""
        (index,) = self._indices([slot])
        return self._buckets[index // self.bucket].state(index % self.bucket)

    @torch.inference_mode()
    def extend(self, slots: Sequence[Slot] | Ints, steps: Steps) -> Estimates:
        """Let each slot's tail, from the first of its windows given on, be those windows.

        Args:
            slots: Whose, N of them, or an array of their index and generation, (N, 2).
            steps: The windows. The first of a slot follows its settled windows or any window of its tail; what was after that
                is forgotten.

        Returns:
            The estimates of these windows, (N, T); of padding, anything.

        Raises:
            ValueError: A slot is closed or stands there twice, or windows do not follow, are too many or of the wrong shape.
        """
        indices = self._indices(slots)
        shares = self._by_bucket(indices)
        self._check(len(indices), shares, steps)
        return _gathered(len(indices), [(chosen, bucket.extend(rows, steps.of(chosen))) for chosen, bucket, rows in shares])

    @torch.inference_mode()
    def settle(self, slots: Sequence[Slot] | Ints) -> Estimates:
        """Let the first window of each slot's tail be settled; the other slots stay as they are, to the bit.

        Returns:
            The final estimates, (N,).

        Raises:
            ValueError: A slot is closed or stands there twice, or its tail is empty.
        """
        indices = self._indices(slots)
        shares = self._by_bucket(indices)
        if not all(bucket.tail[rows].all() for _, bucket, rows in shares):
            raise ValueError("slots: there is one with nothing to settle; extend its tail first")
        return _gathered(len(indices), [(chosen, bucket.settle(rows)) for chosen, bucket, rows in shares])

    def _indices(self, slots: Sequence[Slot] | Ints) -> Ints:
        indices, generations = np.asarray(slots, np.int64).reshape(-1, 2).T
        if not indices.size or indices.max() >= len(self._holders) or (self._holders[indices] != generations).any():
            raise ValueError("slots: none, or one that is closed; open one for each session")
        if len(indices) > 1 and len(np.unique(indices)) < len(indices):
            raise ValueError("slots: there is one twice; give each once")
        return indices

    def _by_bucket(self, indices: Ints) -> list[_Share]:
        """What of the slots is in each bucket concerned."""
        if len(self._buckets) == 1:
            return [(slice(None), self._buckets[0], indices)]
        numbers, rows = np.divmod(indices, self.bucket)
        chosen = [np.flatnonzero(numbers == number) for number in range(len(self._buckets))]
        return [(which, bucket, rows[which]) for which, bucket in zip(chosen, self._buckets, strict=True) if which.size]

    def _check(self, slots: int, shares: list[_Share], steps: Steps) -> None:
        """Nothing is touched if anything is wrong."""
        length, width = steps.restart.shape[-1], self._buckets[0].width
        expected = {"seq": (slots,), "count": (slots,), "restart": (slots, length), "inputs": (slots, length, width)}
        for name, dtype in (("seq", np.int64), ("count", np.int64), ("restart", np.bool_), ("inputs", np.float32)):
            found = getattr(steps, name)
            if found.dtype != dtype or found.shape != expected[name]:
                wanted = f"{np.dtype(dtype)} {expected[name]}"
                raise ValueError(f"steps.{name}: {found.dtype} {found.shape}, expected {wanted}")
        if steps.count.min() < 1 or steps.count.max() > length:
            raise ValueError(
                f"steps.count: {steps.count.min()} to {steps.count.max()}, expected 1 to the {length} that are given"
            )
        if not (np.abs(steps.inputs) <= LARGEST).all():
            raise ValueError(f"steps.inputs: NaN, or beyond ±{LARGEST:g}; give 0 and flag what is unknown")
        for chosen, bucket, rows in shares:
            started = bucket.started[rows]
            ahead = np.where(started, steps.seq[chosen] - bucket.settled[rows], 1)  # 1 for the window after the settled ones
            wrong = (ahead < 1) | (ahead > bucket.tail[rows] + 1)
            if wrong.any():
                row, low = rows[wrong][0], bucket.settled[rows[wrong][0]] + 1
                found = steps.seq[chosen][wrong][0]
                raise ValueError(f"steps.seq: {found}, expected {low} to {low + bucket.tail[row]}; windows follow each other")
            longest = (ahead + steps.count[chosen] - 1).max()
            if longest > self.tail:
                raise ValueError(f"steps: a tail of {longest} windows, and the engine keeps {self.tail}; make it with more")

    def _new_bucket(self) -> Bucket:
        try:
            return Bucket(
                self._model,
                self._one_window,
                self.device,
                size=self.bucket,
                longest=self.tail,
                graphs=self._graphs,
                masks=self._masks,
            )
        except torch.OutOfMemoryError as error:
            raise UsageError(
                f"{self.device} has no memory for more than {len(self._holders)} sessions; run fewer, or with shorter tails"
            ) from error


def _gathered(slots: int, parts: list[tuple[Ints | slice, Floats]]) -> Estimates:
    """The buckets' outputs in the order of the slots."""
    outputs = np.empty((slots, *parts[0][1].shape[1:]), np.float32)
    for chosen, found in parts:
        outputs[chosen] = found
    end = 2 + len(MODALITIES)
    return Estimates(outputs[..., 0], outputs[..., 1], outputs[..., 2:end], outputs[..., end:])


def resolve_device(name: str) -> torch.device:
    """The device of that name: `cpu`, `cuda` or `cuda:N`.

    Raises:
        UsageError: There is no such device, or this machine lacks what it needs.
    """
    try:
        device = torch.device(name)
    except RuntimeError:
        device = torch.device("meta")
    if device.type not in ("cpu", "cuda"):
        raise UsageError(f"--device {name}: unknown device, expected cpu, cuda or cuda:N")
    if device.type == "cuda":
        if torch.version.cuda is None:
            raise UsageError(f"--device {name}: this PyTorch ({torch.__version__}) is built without CUDA; install a CUDA build")
        if not torch.cuda.is_available():
            raise UsageError(f"--device {name}: no NVIDIA GPU with a driver was found (see nvidia-smi); use --device cpu")
        if (device.index or 0) >= torch.cuda.device_count():
            raise UsageError(f"--device {name}: this machine has {torch.cuda.device_count()} CUDA device(s), counted from 0")
    return device
