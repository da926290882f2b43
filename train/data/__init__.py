"""Readers of corpora, one module each: a folder to labelled items."""

from collections.abc import Callable
from pathlib import Path

from train.data import fer2013, meld, mosei, mosi, ravdess, sst
from train.errors import DataError
from train.items import Item

_READERS: dict[str, Callable[[Path], list[Item]]] = {
    "mosi": mosi.items,
    "sst": sst.items,
    "meld": meld.items,
    "ravdess": ravdess.items,
    "fer2013": fer2013.items,
    "mosei": mosei.items,
}
CORPORA = tuple(_READERS)


def read_corpus(name: str, folder: Path) -> list[Item]:
    """The items of a corpus; raises `DataError` where its folder or a file is missing or damaged."""
    if not folder.is_dir():
        raise DataError(f"{folder} is missing; {name} is expected there (docs/training.md says what it needs)")
    return _READERS[name](folder)
