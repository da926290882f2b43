"""Features to what the model is given: a lane's windows, at rates and for times that are drawn where the corpus has none.

A lane is float32, (T, columns + 2), as `stream.inputs.model_input` lays it out: features, known, presence.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from models.causal import FLAGS
from stream.inputs import WIDTHS, lane_columns
from stream.messages import Lane
from train.features import Features

Floats = npt.NDArray[np.float32]

COLUMNS = lane_columns()
# Conversational English: about 2 to 4.5 words a second within an utterance. The features do not keep a word's letters, so its
# length is drawn about the mean.
_WORDS_A_SECOND = (2.0, 4.5)
_FRAMES_A_WINDOW = 4
_WORD_VARIES = 0.45  # standard deviation of the logarithm of a word's length


@dataclass(frozen=True, eq=False)
class Sample:
    """One sequence: its lanes, of the same T, and what the score should be."""

    lanes: Mapping[Lane, Floats]
    target: float

    @property
    def steps(self) -> int:
        """T."""
        return len(self.lanes["text"])


@dataclass(frozen=True)
class Rate:
    """How words without times are spoken: `words_a_second` on average, each word's length drawn by `seed`."""

    words_a_second: float
    seed: int

    @staticmethod
    def draw(random: np.random.Generator) -> "Rate":
        """A natural rate."""
        return Rate(float(random.uniform(*_WORDS_A_SECOND)), int(random.integers(2**31)))


def nothing(lane: Lane, steps: int, *, known: bool = False) -> Floats:
    """A lane in which nothing is there, (steps, columns + 2): known to be absent, or unknown."""
    rows = np.zeros((steps, WIDTHS[lane] + FLAGS), np.float32)
    rows[:, -FLAGS] = known
    return rows


def text_lane(features: Features, hop_ns: int, rate: Rate) -> Floats:
    """The text lane of an utterance: by its own times, or at a rate."""
    vectors = features["vectors"]
    if "ends_ns" in features:
        ends_ns = features["ends_ns"]
        steps = int(-(-max(features["length_ns"][0], ends_ns[-1]) // hop_ns))
    else:
        lengths = np.exp(np.random.default_rng(rate.seed).normal(0, _WORD_VARIES, len(vectors)))
        ends_ns = (np.cumsum(lengths / lengths.mean()) / rate.words_a_second * 1e9).astype(np.int64)
        steps = int(-(-ends_ns[-1] // hop_ns))
    return placed(vectors, ends_ns, steps, hop_ns)


def placed(vectors: npt.NDArray[np.float32], ends_ns: npt.NDArray[np.int64], steps: int, hop_ns: int) -> Floats:
    """The text lane of words that end at those times, (steps, 770); each window has the vector of the words so far."""
    windows = np.minimum((np.asarray(ends_ns) - 1) // hop_ns, steps - 1)
    so_far = np.searchsorted(windows, np.arange(steps), side="right")  # words up to each window's end, (steps,)
    lane = nothing("text", steps, known=True)
    lane[so_far > 0, :-FLAGS] = vectors[so_far[so_far > 0] - 1]
    lane[np.unique(windows), -1] = 1.0
    return lane


def audio_lane(features: Features) -> Floats:
    """The audio lane of a recording."""
    return np.ascontiguousarray(features["inputs"][:, COLUMNS["audio"]])


def vision_lane(features: Features, steps: int, random: np.random.Generator) -> Floats:
    """The vision lane of a face that is held still; each window is the mean of a few looks at it."""
    rows = features["face"]  # (N, 58)
    seen = rows[random.integers(len(rows), size=(steps, _FRAMES_A_WINDOW))].mean(1)  # (T, 58)
    lane = nothing("vision", steps, known=True)
    lane[:, : seen.shape[1]] = seen  # the deviations after the means stay 0: it does not move
    lane[:, -1] = 1.0
    return lane


def clip_lanes(features: Features) -> dict[Lane, Floats]:
    """All lanes of a clip."""
    return {lane: np.ascontiguousarray(features["inputs"][:, columns]) for lane, columns in COLUMNS.items()}
