"""A small store whose features are drawn: sentiment can be read off them, as off real ones."""

from pathlib import Path

import numpy as np

from stream.inputs import WIDTHS
from train.features import Features
from train.items import Split
from train.sequences import COLUMNS
from train.store import Entry, Store

WIDTH = max(columns.stop for columns in COLUMNS.values())
LABELS = {
    "mosi": ("negative", "positive"),
    "ravdess": ("angry", "happy"),
    "fer2013": ("anger", "happiness"),
}


def words(random: np.random.Generator, sentiment: float, count: int = 6, *, timed: bool = False) -> Features:
    vectors = random.normal(0, 0.05, (count, WIDTHS["text"])).astype(np.float32)
    vectors[:, 0] += 0.05 * sentiment
    found: Features = {"vectors": vectors}
    if timed:
        found |= {"ends_ns": (np.arange(count) + 1) * 300_000_000, "length_ns": np.array([count * 300_000_000 + 1])}
    return found


def sound(random: np.random.Generator, sentiment: float, steps: int = 7) -> Features:
    inputs = np.zeros((steps, WIDTH), np.float32)
    lane = inputs[:, COLUMNS["audio"]]
    lane[:] = random.normal(0, 1, lane.shape)
    lane[:, 0] += sentiment
    lane[:, -2:] = 1.0
    return {"inputs": inputs, "restart": np.arange(steps) == 0}


def face(random: np.random.Generator, sentiment: float) -> Features:
    rows = random.uniform(0, 1, (3, WIDTHS["vision"] // 2)).astype(np.float32)
    rows[:, 0] += sentiment
    return {"face": rows}


MAKE = {"mosi": lambda random, s: words(random, s, timed=True), "sst": words, "meld": words, "ravdess": sound, "fer2013": face}


def small_store(folder: Path, sizes: dict[Split, int] | None = None) -> Store:
    """Of every corpus so many items a split, of a sentiment from -2.5 to 2.5."""
    store = Store(folder)
    for number, (corpus, make) in enumerate(MAKE.items()):
        random, entries = np.random.default_rng(number), []
        for split, count in (sizes or {"train": 40, "valid": 12, "test": 12}).items():
            sentiments = np.linspace(-2.5, 2.5, count)
            shard = f"{corpus}-{split}"
            store.write_shard(shard, [make(random, sentiment) for sentiment in sentiments])
            for place, sentiment in enumerate(sentiments.tolist()):
                label = LABELS.get(corpus, LABELS["mosi"])[sentiment > 0]
                label = "neutral" if corpus == "fer2013" and place % 3 == 0 else label
                entries.append(Entry(f"{split}-{place}", split, label, sentiment, shard, place))
        store.write_manifest(corpus, entries)
    return store
