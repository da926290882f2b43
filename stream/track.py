"""One session's windows on an engine: what the tail holds is remembered here, so the engine is told only what has changed."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from stream.bucket import Floats, Steps
from stream.engine import Engine, Estimates


@dataclass(frozen=True, eq=False)
class Step:
    """One window as the model takes it.

    Attributes:
        seq: The window's number; those of a session follow each other.
        restart: Whether the state starts anew here.
        inputs: The features and flags of text, audio and vision in turn, within ±1e6, float32, (width,).
    """

    seq: int
    restart: bool
    inputs: Floats

    def same(self, other: "Step") -> bool:
        """Whether it is the same window with the same input, to the bit."""
        return (self.seq, self.restart) == (other.seq, other.restart) and np.array_equal(self.inputs, other.inputs)


class Estimate(NamedTuple):
    """The model's output at one window; see `Estimates`."""

    sentiment: float
    uncertainty: float
    weights: tuple[float, ...]


class Track:
    """A session that has a slot of an engine.

    Example:
        track = Track(engine)
        provisional = track.speculate(tail)[-1]
        final = track.commit(settled)
    """

    def __init__(self, engine: Engine) -> None:
        """Take a slot and stand before the first window."""
        self._engine, self._slot = engine, engine.open()
        self._slots = np.array([self._slot])
        self._tail: list[tuple[Step, Estimate]] = []

    def close(self) -> None:
        """Give the slot back."""
        self._engine.close(self._slot)

    def commit(self, step: Step) -> Estimate:
        """Settle the next window; what was said of later ones before stays only if this one was in the tail as it is."""
        if not self._tail or not self._tail[0][0].same(step):
            self._tail = self._run([step])
        del self._tail[0]
        return _estimates(self._engine.settle(self._slots))[0]

    def speculate(self, steps: Sequence[Step]) -> list[Estimate]:
        """Estimates of the windows after the settled ones, at most `Engine.tail` of them; finals do not depend on it."""
        same = 0
        while same < min(len(steps), len(self._tail)) and self._tail[same][0].same(steps[same]):
            same += 1
        del self._tail[same:]
        if steps[same:]:
            self._tail += self._run(steps[same:])
        return [estimate for _, estimate in self._tail]

    def _run(self, steps: Sequence[Step]) -> list[tuple[Step, Estimate]]:
        """Let the tail be these windows from the first of them on."""
        given = Steps(
            seq=np.array([steps[0].seq]),
            count=np.array([len(steps)]),
            restart=np.array([[step.restart for step in steps]]),
            inputs=np.stack([step.inputs for step in steps])[None],
        )
        return list(zip(steps, _estimates(self._engine.extend(self._slots, given)), strict=True))


def _estimates(found: Estimates) -> list[Estimate]:
    """Those of the one slot."""
    weights = found.weights.reshape(-1, found.weights.shape[-1]).tolist()
    both = zip(found.sentiment.ravel().tolist(), found.uncertainty.ravel().tolist(), weights, strict=True)
    return [Estimate(sentiment, uncertainty, tuple(each)) for sentiment, uncertainty, each in both]
