"""A corpus's split in memory, and drawing from it by sentiment."""

from collections.abc import Sequence
from typing import Literal

import numpy as np

from train.errors import DataError
from train.features import Features
from train.items import Split
from train.sequences import COLUMNS
from train.store import Entry, Store

Kind = Literal["text", "audio", "vision", "clip"]
_NEUTRAL = 0.3  # nearer to 0 than this counts as neither positive nor negative where classes are balanced


def kind_of(features: Features) -> Kind:
    """What an item gives: one lane, or windows that have several."""
    if "vectors" in features:
        return "text"
    if "face" in features:
        return "vision"
    others = (features["inputs"][:, COLUMNS["text"]], features["inputs"][:, COLUMNS["vision"]])
    return "clip" if any(lane.any() for lane in others) else "audio"


class Placed:
    """Items that have a place on the scale, by number, in the order of their sentiment.

    Attributes:
        sentiments: Of all of them, (N,).
    """

    def __init__(self, sentiments: Sequence[float]) -> None:
        """Take the sentiments, ascending, at least one."""
        self.sentiments = np.array(sentiments, np.float64)
        low, high = np.searchsorted(self.sentiments, [-_NEUTRAL, _NEUTRAL])
        classes = [(0, low), (low, high), (high, len(sentiments))]
        self._classes = [(int(first), int(last)) for first, last in classes if first < last]

    def sentiment(self, number: int) -> float:
        """Of an item."""
        return float(self.sentiments[number])

    def draw(self, random: np.random.Generator, balance: float) -> int:
        """Any item; with probability `balance` a class (negative, neutral, positive) is drawn first, each as likely."""
        if random.random() < balance:
            first, last = self._classes[random.integers(len(self._classes))]
            return int(random.integers(first, last))
        return int(random.integers(len(self.sentiments)))

    def near(self, random: np.random.Generator, sentiment: float, within: float) -> int | None:
        """An item of about that sentiment; None if there is none."""
        first, last = np.searchsorted(self.sentiments, [sentiment - within, sentiment + within])
        return int(random.integers(first, last)) if first < last else None


class Pool(Placed):
    """Items of one kind that have features and a place on the scale.

    Attributes:
        kind: Of all of them.
        entries: As the manifest has them.
        features: Likewise.
    """

    def __init__(self, entries: Sequence[Entry], features: Sequence[Features]) -> None:
        """Take items, at least one; those without a sentiment are left out."""
        placed = sorted((entry.sentiment, number) for number, entry in enumerate(entries) if entry.sentiment is not None)
        super().__init__([sentiment for sentiment, _ in placed])
        self.entries = [entries[number] for _, number in placed]
        self.features = [features[number] for _, number in placed]
        kinds = [kind_of(each) for each in self.features]
        self.kind = "clip" if "clip" in kinds else kinds[0]  # one of the clips may have had nothing but sound


def read_pool(store: Store, corpus: str, split: Split) -> Pool:
    """The items of a corpus's split.

    Raises:
        DataError: It was not prepared, is damaged, or has no item that can be used.
    """
    entries = [entry for entry in store.read_manifest(corpus) if entry.split == split and not entry.failure]
    if not any(entry.sentiment is not None for entry in entries):
        raise DataError(f"{store.folder}: {corpus} has nothing to use in its {split} split; look into {corpus}.jsonl")
    return Pool(entries, store.features(entries))
