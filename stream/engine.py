"""The engine: the model's committed state, advanced once by each settled window, and speculative runs over the tail.

Settled windows go through in calls of one fixed shape (one window), however they arrive: a matrix product over three rows need
not equal three products over one, and a final score must not depend on timing. Only the tail is run in longer calls.
"""

import hashlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from models.layers import State
from models.mmlatch import MODALITIES, CausalMMLatch, MMLatchConfig
from stream.errors import UsageError


class Step(NamedTuple):
    """One window as the model takes it.

    Attributes:
        restart: Whether the state starts anew here.
        inputs: For each modality, features and flags, float32, (features + 2,).
    """

    restart: bool
    inputs: dict[str, npt.NDArray[np.float32]]


class Estimate(NamedTuple):
    """The model's output at one window: sentiment in [-3, 3], and the weight of each of `MODALITIES` in [0, 1]."""

    sentiment: float
    weights: tuple[float, ...]


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


def untrained_model(*, text: int, audio: int, vision: int, max_steps: int, seed: int = 0) -> CausalMMLatch:
    """A causal MMLatch whose weights are drawn from `seed` and mean nothing."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return CausalMMLatch(MMLatchConfig(text=text, audio=audio, vision=vision, max_steps=max_steps)).eval()


def weights_digest(model: torch.nn.Module) -> str:
    """Six hex digits of the SHA-256 over all weights: which model a score came from."""
    digest = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:6]


class Engine:
    """One session's state on one model. All calls must come from the same thread."""

    def __init__(self, model: CausalMMLatch, device: torch.device) -> None:
        """Move the model to the device and stand before the first window."""
        self._model = model.to(device).eval()
        self._device = device
        self._state = self._model.initial_state(1)

    @torch.inference_mode()
    def commit(self, step: Step) -> Estimate:
        """Advance the committed state by one settled window."""
        estimates, self._state = self._run([step], self._state)
        return estimates[0]

    @torch.inference_mode()
    def speculate(self, steps: Sequence[Step]) -> list[Estimate]:
        """Run over the tail from the committed state, and leave that as it is."""
        estimates: list[Estimate] = []
        state = self._state
        starts = [index for index, step in enumerate(steps) if step.restart or index == 0]
        for start, end in zip(starts, [*starts[1:], len(steps)], strict=True):
            found, state = self._run(steps[start:end], state)
            estimates += found
        return estimates

    def _run(self, steps: Sequence[Step], state: State) -> tuple[list[Estimate], State]:
        """Run over windows of which only the first may restart."""
        if steps[0].restart:
            state = self._model.initial_state(1)
        inputs = {
            m: torch.from_numpy(np.stack([step.inputs[m] for step in steps])[None]).to(self._device)  # (1, T, features + 2)
            for m in MODALITIES
        }
        prediction, state = self._model(inputs, state)
        sentiment, weights = prediction.sentiment[0].tolist(), prediction.weights[0].tolist()
        return [Estimate(s, tuple(w)) for s, w in zip(sentiment, weights, strict=True)], state
