"""The engine: sessions' states on one device, each committed up to its settled windows, with a speculative tail after that.

A session has a *slot*. Slots come in buckets of one size, and a call of the model runs a whole bucket, whoever of it has
something to do. A matrix product over three rows need not equal three products over one to the bit, so settled windows go
through in calls of ONE shape, a bucket by one window: a final estimate depends neither on timing nor on who shares the bucket.
The windows of a tail are run in one longer call.

The state after each window of the tail is kept. Windows are run again only from the first that changed; and a settled window
that was run before, as it is and in calls of that one shape, is not run again, since it would give the same bits.

Only torch, numpy and safetensors are needed, so that the engine can be tried on a machine that has nothing else.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from models.mmlatch import CausalMMLatch
from models.state import State
from stream.bucket import Bucket, Estimate, Job, Kept, Run, Step
from stream.errors import UsageError

TAIL = 120  # windows after the settled ones, if not asked otherwise


@dataclass(frozen=True)
class Slot:
    """The right to a place in the engine. Whoever has the place next has another generation."""

    index: int
    generation: int


@dataclass(eq=False)
class _Session:
    """Who has a slot, and what is kept of it."""

    generation: int
    bucket: Bucket
    row: int
    committed: Kept
    tail: list[Run] = field(default_factory=list)


class Engine:
    """Runs sessions on one model. All calls must come from one thread, which owns the device.

    Example:
        engine = Engine(model, torch.device("cuda"), bucket=64)
        slot = engine.open()
        final = engine.commit({slot: settled})[slot]
        provisional = engine.speculate({slot: tail})[slot][-1]
    """

    def __init__(
        self,
        model: CausalMMLatch,
        device: torch.device,
        *,
        bucket: int = 1,
        tail: int = TAIL,
        graphs: bool = True,
        masks: bool = False,
    ) -> None:
        """Move the model to the device. Memory is taken bucket by bucket, as slots are opened.

        Args:
            model: The model, put into evaluation mode.
            device: Where to run it.
            bucket: Slots to a call, at least 1. Estimates depend on it in their last digits.
            tail: The longest tail in windows, at least 1. Estimates depend on it likewise.
            graphs: Whether a GPU replays calls from captured CUDA graphs; a CPU has none.
            masks: Whether estimates carry the whole masks.
        """
        if bucket < 1 or tail < 1:
            raise ValueError(f"bucket: {bucket}, tail: {tail}; both must be at least 1")
        self.tail = tail
        self._model = model.to(device).eval()
        self._device, self._size = device, bucket
        self._graphs, self._masks = graphs and device.type == "cuda", masks
        self._buckets: list[Bucket] = []
        self._sessions: list[_Session | None] = []
        self._generation = 0

    def open(self, state: State | None = None) -> Slot:
        """Take a free slot for a session.

        Args:
            state: Where the session stands, from `state` of an engine like this one; None before its first window.

        Raises:
            UsageError: The device has no memory left.
            ValueError: The state is of another model, or of an engine with another tail.
        """
        if None not in self._sessions:
            self._buckets.append(self._new_bucket())
            self._sessions += [None] * self._size
        index = self._sessions.index(None)
        bucket, row = self._buckets[index // self._size], index % self._size
        committed = bucket.start(row, state)
        self._generation += 1
        self._sessions[index] = _Session(self._generation, bucket, row, committed)
        return Slot(index, self._generation)

    def close(self, slot: Slot) -> None:
        """Give the slot back."""
        self._session(slot)
        self._sessions[slot.index] = None

    def state(self, slot: Slot) -> State:
        """A copy of a session's committed state (B = 1): to save, or to open on an engine like this one elsewhere."""
        session = self._session(slot)
        return session.bucket.state(session.row, session.committed)

    @torch.inference_mode()
    def commit(self, work: Mapping[Slot, Step]) -> dict[Slot, Estimate]:
        """Advance committed states by one settled window each; the other slots stay as they are, to the bit.

        Raises:
            ValueError: A slot is closed, or a window is not the next one or not of the right shape.
        """
        sessions = self._checked({slot: [step] for slot, step in work.items()})
        estimates: dict[Slot, Estimate] = {}
        todo: dict[Slot, list[Step]] = {}
        for slot, step in work.items():
            session = sessions[slot]
            if session.tail and session.tail[0].exact and session.tail[0].step.same(step):
                session.committed = run = session.tail.pop(0)
                estimates[slot] = run.estimate
            else:
                todo[slot] = [step]
        for slot, (run,) in self._run(todo, {slot: sessions[slot].committed for slot in todo}).items():
            session = sessions[slot]
            # What was run after the same window is as good as it was: good enough for a tail.
            session.tail = session.tail[1:] if session.tail and session.tail[0].step.same(run.step) else []
            session.committed = run
            estimates[slot] = run.estimate
        return estimates

    @torch.inference_mode()
    def speculate(self, work: Mapping[Slot, Sequence[Step]]) -> dict[Slot, list[Estimate]]:
        """Run over tails, each the windows after a slot's settled ones, and leave the committed states as they are.

        Returns:
            An estimate of each window of the tails.

        Raises:
            ValueError: As in `commit`, or a tail is longer than the engine keeps.
        """
        sessions = self._checked(work)
        todo: dict[Slot, list[Step]] = {}
        before: dict[Slot, Kept] = {}
        for slot, steps in work.items():
            tail = sessions[slot].tail
            same = 0
            while same < min(len(tail), len(steps)) and tail[same].step.same(steps[same]):
                same += 1
            del tail[same:]
            if steps[same:]:
                todo[slot], before[slot] = list(steps[same:]), tail[-1] if tail else sessions[slot].committed
        for slot, runs in self._run(todo, before).items():
            sessions[slot].tail += runs
        return {slot: [run.estimate for run in session.tail] for slot, session in sessions.items()}

    def _run(self, todo: Mapping[Slot, list[Step]], before: Mapping[Slot, Kept]) -> dict[Slot, list[Run]]:
        """Run each slot's windows after the one before them."""
        found: dict[Slot, list[Run]] = {slot: [] for slot in todo}
        left = dict(todo)
        while left:
            # In each round a slot goes up to its next restart, since a call can start a state anew only at its first window.
            rounds: dict[Bucket, dict[Slot, Job]] = {}
            for slot, steps in left.items():
                session = self._session(slot)
                end = next((index for index, step in enumerate(steps) if index and step.restart), len(steps))
                job = Job(session.row, found[slot][-1] if found[slot] else before[slot], steps[:end])
                rounds.setdefault(session.bucket, {})[slot] = job
            for bucket, jobs in rounds.items():
                for (slot, job), runs in zip(jobs.items(), bucket.run(list(jobs.values())), strict=True):
                    found[slot] += runs
                    left[slot] = left[slot][len(job.steps) :]
            left = {slot: steps for slot, steps in left.items() if steps}
        return found

    def _new_bucket(self) -> Bucket:
        try:
            return Bucket(self._model, self._device, size=self._size, tail=self.tail, graphs=self._graphs, masks=self._masks)
        except torch.OutOfMemoryError as error:
            raise UsageError(
                f"{self._device} has no memory for more than {len(self._sessions)} sessions; run fewer, or shorter tails"
            ) from error

    def _session(self, slot: Slot) -> _Session:
        found = self._sessions[slot.index] if slot.index < len(self._sessions) else None
        if found is None or found.generation != slot.generation:
            raise ValueError(f"slot: {slot} is closed; open one for each session")
        return found

    def _checked(self, work: Mapping[Slot, Sequence[Step]]) -> dict[Slot, _Session]:
        """The slots' sessions; nothing is touched if anything is wrong."""
        sessions = {slot: self._session(slot) for slot in work}
        for slot, steps in work.items():
            self._check(sessions[slot], steps)
        return sessions

    def _check(self, session: _Session, steps: Sequence[Step]) -> None:
        if len(steps) > self.tail:
            raise ValueError(f"steps: {len(steps)} windows, and the engine keeps {self.tail}; make it with a larger tail")
        before, width = session.committed.seq, session.bucket.width
        for step in steps:
            if before is not None and step.seq != before + 1:
                raise ValueError(f"step.seq: {step.seq}, expected {before + 1}; windows follow each other")
            if step.inputs.shape != (width,) or step.inputs.dtype != np.float32:
                raise ValueError(
                    f"step.inputs: {step.inputs.dtype} {step.inputs.shape}, expected float32 ({width},); features and flags of "
                    "text, audio and vision in turn"
                )
            if not np.isfinite(step.inputs).all():
                raise ValueError(f"step.inputs: NaN or infinity in window {step.seq}; give 0 and flag what is unknown")
            before = step.seq


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
