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
    masks: tuple[float, ...] = ()


class Track:
    """A session that has a slot of an engine.

    Example:
        track = Track(engine)
        provisional = track.speculate(tail)[-1]
        final = track.commit(settled)
    """

    def __init__(self, engine: Engine) -> None:
        """Take a slot and stand before the first window."""
        self.engine, self.slot = engine, engine.open()
        self.tail: list[tuple[Step, Estimate]] = []

    def close(self) -> None:
        """Give the slot back."""
        self.engine.close(self.slot)

    def commit(self, step: Step) -> Estimate:
        """Settle the next window; what was said of later ones before stays only if this one was in the tail as it is."""
        return advance([Request(self, [step], settle=True)])[0][0]

    def speculate(self, steps: Sequence[Step]) -> list[Estimate]:
        """Estimates of the windows after the settled ones, at most `Engine.tail` of them; finals do not depend on it."""
        return advance([Request(self, steps, settle=False)])[0]

    def unchanged(self, steps: Sequence[Step]) -> int:
        """How many of these windows, from the first on, are in the tail as they are."""
        same = 0
        while same < min(len(steps), len(self.tail)) and self.tail[same][0].same(steps[same]):
            same += 1
        return same


class Request(NamedTuple):
    """What one track is to do: let its tail be `steps`, or `settle` the one window that they are."""

    track: Track
    steps: Sequence[Step]
    settle: bool


def advance(requests: Sequence[Request]) -> list[list[Estimate]]:
    """Do what several tracks of one engine want, each at most once, in as few calls as their shapes allow.

    Returns:
        For each request the estimates of its windows.
    """
    alone: list[tuple[Track, Sequence[Step]]] = []
    longer: list[tuple[Track, Sequence[Step]]] = []
    for track, steps, settle in requests:
        same = track.unchanged(steps)
        if settle and same:
            continue  # what comes after it in the tail stays
        del track.tail[same:]
        if rest := steps[same:]:
            (alone if len(rest) == 1 else longer).append((track, rest))
    # A window that came in a call of one window counts for good; in a longer one it would have to be run again.
    for group in (alone, longer):
        if group:
            _extend(group)
    settling = [request.track for request in requests if request.settle]
    if settling:
        finals = _estimates(settling[0].engine.settle(np.array([track.slot for track in settling])))
        for track, final in zip(settling, finals, strict=True):
            track.tail[0] = (track.tail[0][0], final)
    found = [[estimate for _, estimate in track.tail[: len(steps)]] for track, steps, _ in requests]
    for track in settling:
        del track.tail[0]
    return found


def _extend(group: Sequence[tuple[Track, Sequence[Step]]]) -> None:
    """Put windows at the ends of tails, in one call."""
    longest = max(len(steps) for _, steps in group)
    width = len(group[0][1][0].inputs)
    given = Steps(
        seq=np.array([steps[0].seq for _, steps in group]),
        count=np.array([len(steps) for _, steps in group]),
        restart=np.zeros((len(group), longest), np.bool_),
        inputs=np.zeros((len(group), longest, width), np.float32),
    )
    for row, (_, steps) in enumerate(group):
        given.restart[row, : len(steps)] = [step.restart for step in steps]
        given.inputs[row, : len(steps)] = [step.inputs for step in steps]
    found = iter(_estimates(group[0][0].engine.extend(np.array([track.slot for track, _ in group]), given)))
    for track, steps in group:
        estimates = [next(found) for _ in range(longest)]
        track.tail += zip(steps, estimates[: len(steps)], strict=True)


def _estimates(found: Estimates) -> list[Estimate]:
    """Those of all windows of all slots, one after the other."""
    rows = (found.sentiment.ravel().tolist(), found.uncertainty.ravel().tolist(), _rows(found.weights), _rows(found.masks))
    return [Estimate(*row) for row in zip(*rows, strict=True)]


def _rows(values: Floats) -> list[tuple[float, ...]]:
    """The last axis of each window, one after the other."""
    return [tuple(row) for row in values.reshape(int(np.prod(values.shape[:-1])), values.shape[-1]).tolist()]
