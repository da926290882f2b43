"""SST-5: sentences from film reviews with five marks of sentiment.

A folder with `train.csv`, `valid.csv` and `test.csv`, columns `label` (0 to 4) and `text`. Source: R. Socher et al., "Recursive
Deep Models for Semantic Compositionality Over a Sentiment Treebank", EMNLP 2013.
"""

from pathlib import Path

from extractors.text import normalise
from train import scale
from train.data.tables import read_table
from train.items import SPLITS, Item, Split, Text


def items(folder: Path) -> list[Item]:
    """All sentences that have any words; raises `DataError`."""
    found: list[Item] = []
    for split in SPLITS:
        rows = read_table(folder / f"{split}.csv", ("label", "text"), _row)
        found += [_item(split, number, label, words) for number, (label, words) in enumerate(rows) if words]
    return found


def _row(row: dict[str, str]) -> tuple[int, tuple[str, ...]]:
    label = int(row["label"])
    if label not in scale.SST:
        raise ValueError(f"label must be one of {', '.join(map(str, scale.SST))}, got {label}")
    return label, tuple(normalise(row["text"]))


def _item(split: Split, number: int, label: int, words: tuple[str, ...]) -> Item:
    return Item(f"{split}-{number}", split, str(label), scale.SST[label], Text(words))
