"""What a causal model keeps between calls, as an explicit structure with an axis of slots (batch rows)."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor


@dataclass(frozen=True)
class State:
    """The state of B utterances, each at a step of its own.

    A call of a model leaves the state that it is given valid, so that a kept state can be run over a tail again and again. The
    one exception are histories `in_place`: there, running on from a state overwrites what was appended after it.

    Attributes:
        recurrent: What each step replaces, after each of the N steps of the call that made the state; each (M, B, N, size), M
            being the number of blocks that run side by side. A call goes on from the last.
        history: Sequences that later steps attend to; each (M, B, capacity, size), a ring over `capacity`.
        position: The number of the next step, int64, (B,); its place in the ring is that modulo `capacity`.
        length: Steps of the utterance so far, int64, (B,); older entries of the ring do not count.
        room: How many more steps fit, the same for all slots: beyond it the ring would overwrite what is still attended to.
        in_place: Whether a step is written into the histories' own memory (serving: nothing is copied) or into a copy of it
            (training: gradients flow, and every state stays valid).
    """

    recurrent: Mapping[str, Tensor]
    history: Mapping[str, Tensor]
    position: Tensor
    length: Tensor
    room: int
    in_place: bool = False

    @property
    def capacity(self) -> int:
        """Entries of the ring."""
        return next(iter(self.history.values())).shape[2]

    def at(self, step: int) -> "State":
        """The state after that one of the N steps of the call that made this state, 0 being the first."""
        steps = next(iter(self.recurrent.values())).shape[2]
        back = steps - 1 - range(steps)[step]
        return replace(
            self,
            recurrent={name: value[:, :, step : step + 1 or None] for name, value in self.recurrent.items()},
            position=self.position - back,
            length=self.length - back,
            room=self.room + back,
        )

    def reset(self, mask: Tensor) -> "State":
        """Begin an utterance in the slots where `mask`, bool (B,), is True; the other slots are left as they are."""
        return replace(
            self,
            recurrent={name: value.masked_fill(mask[:, None, None], 0.0) for name, value in self.recurrent.items()},
            length=self.length.masked_fill(mask, 0),
        )

    def trimmed(self, max_steps: int | None = None) -> "State":
        """The same state with zeros in all entries of the rings that do not count, of which `max_steps` at most do."""
        places = torch.arange(self.capacity, device=self.position.device)
        age = (self.position[:, None] - 1 - places) % self.capacity  # (B, capacity), 0 for the last step
        dead = (age >= self.length[:, None].clamp(max=self.capacity if max_steps is None else max_steps))[..., None]
        return replace(self, history={name: value.masked_fill(dead, 0.0) for name, value in self.history.items()})

    def clone(self) -> "State":
        """A state that shares no memory with this one."""
        return self._map(Tensor.clone)

    def to(self, device: torch.device | str) -> "State":
        """The same state on another device."""
        return self._map(lambda value: value.to(device))

    def save(self, path: Path | str) -> None:
        """Write a safetensors file."""
        tensors = {f"recurrent.{name}": value for name, value in self.recurrent.items()}
        tensors |= {f"history.{name}": value for name, value in self.history.items()}
        tensors |= {"position": self.position, "length": self.length, "room": torch.tensor(self.room)}
        save_file({name: value.clone(memory_format=torch.contiguous_format) for name, value in tensors.items()}, path)

    @staticmethod
    def load(path: Path | str, device: torch.device | str = "cpu") -> "State":
        """Read what `save` wrote."""
        tensors = load_file(path, device=str(device))
        parts: dict[str, dict[str, Tensor]] = {"recurrent": {}, "history": {}}
        for name, value in tensors.items():
            kind, dot, rest = name.partition(".")
            if dot:
                parts[kind][rest] = value
        return State(
            recurrent=parts["recurrent"],
            history=parts["history"],
            position=tensors["position"],
            length=tensors["length"],
            room=int(tensors["room"]),
        )

    def _map(self, change: Callable[[Tensor], Tensor]) -> "State":
        return replace(
            self,
            recurrent={name: change(value) for name, value in self.recurrent.items()},
            history={name: change(value) for name, value in self.history.items()},
            position=change(self.position),
            length=change(self.length),
        )
