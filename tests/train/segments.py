"""Small segments from which sentiment can be learned, for tests of offline training."""

from typing import Any

import numpy as np

from train.data.aligned import MODALITIES, Segments

WIDTHS = {"text": 6, "audio": 4, "vision": 3}
SHAPES: dict[tuple[str, str], dict[str, Any]] = {
    ("mmlatch", "published"): {"hidden": 8},
    ("late-fusion", "published"): {"hidden": 8},
    ("mult", "published"): {"hidden": 8, "heads": 2, "layers": 1},
    ("mfm", "published"): {
        "hidden": [8, 8, 8],
        "codes": [4, 4, 4, 4],
        "factors": [8, 4, 4, 8],
        "memory": 8,
        "attention_hidden": 8,
        "code_dropout": [0.0, 0.0, 0.0, 0.0],
    },
    ("mmlatch", "causal"): {"hidden": 8},
    ("late-fusion", "causal"): {"hidden": 8},
    ("mult", "causal"): {"hidden": 8, "heads": 2, "layers": 1},
    ("mfm", "causal"): {"hidden": 8, "code": 4, "memory": 8},
    ("mmmie", "causal"): {"hidden": 8, "heads": 2, "layers": 1},
}
"""Every system in every form it has, and a small shape of it."""


def segments(count: int = 24, *, every_step: bool = False, longest: int = 5, seed: int = 0) -> Segments:
    """Of 1 to `longest` steps, one at least of them the longest; at each step the first columns say its sentiment, with noise.

    A segment's label is the sentiment of all its steps; where every step has a label, it has a sentiment of its own.
    """
    random = np.random.default_rng(seed)
    lengths = random.integers(1, longest + 1, count)
    lengths[0] = longest
    there = np.arange(longest) < lengths[:, None]
    sentiment = random.uniform(-2.5, 2.5, (count, longest if every_step else 1)).astype(np.float32)
    steps = np.broadcast_to(sentiment, (count, longest))
    inputs = {}
    for m, width in WIDTHS.items():
        x = random.normal(0, 0.3, (count, longest, width)).astype(np.float32)
        x[..., 0] += steps
        inputs[m] = np.where(there[..., None], x, np.float32(0))
    labels = np.where(there, steps, np.float32(np.nan)) if every_step else sentiment[:, 0]
    ids = tuple(str(n) for n in range(count))
    return Segments(ids, inputs, dict.fromkeys(MODALITIES, lengths), labels, dict.fromkeys(MODALITIES, 0))
