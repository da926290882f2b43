"""MELD: lines of the series Friends, with emotion and sentiment.

A folder with `train.csv`, `valid.csv` and `test.csv`, columns `COLUMNS`. Source: S. Poria et al., "MELD: A Multimodal
Multi-Party Dataset for Emotion Recognition in Conversations", ACL 2019.
"""

from pathlib import Path

from extractors.text import normalise
from train import scale
from train.data.tables import read_table
from train.items import SPLITS, Item, Split, Text

COLUMNS = ("dialogue_id", "utterance_id", "utterance", "emotion", "sentiment")


def items(folder: Path) -> list[Item]:
    """All lines that have any words; raises `DataError`."""
    found: list[Item] = []
    for split in SPLITS:
        rows = read_table(folder / f"{split}.csv", COLUMNS, lambda row, split=split: _item(split, row))  # type: ignore[misc]
        found += [item for item in rows if item is not None]
    return found


def _item(split: Split, row: dict[str, str]) -> Item | None:
    value = scale.MELD[row["sentiment"], row["emotion"]]
    words = tuple(normalise(row["utterance"]))
    name = f"{split}-{row['dialogue_id']}-{row['utterance_id']}"
    return Item(name, split, row["sentiment"], value, Text(words)) if words else None
