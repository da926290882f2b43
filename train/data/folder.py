"""Segments as plain arrays in a folder, so that training reads from the disk what it needs, when it needs it.

A file that is passed around holds a corpus in one piece, which has to be in memory as a whole to be read. It is read once, and
written as `.npy` files, which are mapped into memory afterwards: a batch costs what a batch is.
"""

import json
import shutil
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from train.data.aligned import MODALITIES, Segments
from train.errors import DataError

_ABOUT = "about.json"
_FORMAT = 2


@dataclass(frozen=True)
class Source:
    """Files in some format, and how they are read.

    Attributes:
        kind: The format's name.
        files: All that is read.
        read: Gives the splits one after the other, so that none has to wait in memory for the next.
    """

    kind: str
    files: Sequence[Path]
    read: Callable[[], Iterable[tuple[str, Segments]]]

    def stamp(self) -> list[object]:
        """What changes when a file does, or what is made of it; raises DataError if one is not there."""
        found: list[object] = [_FORMAT, self.kind]
        for path in self.files:
            try:
                about = path.stat()
            except OSError as error:
                raise DataError(
                    f"{path}: cannot be read ({error.strerror}); python -m train.download says where it is from"
                ) from error
            found.append([path.name, about.st_size, about.st_mtime_ns])
        return found


def opened(source: Source, folder: Path) -> dict[str, Segments]:
    """The splits by name, their inputs mapped from a folder, written first if it is of other files or damaged.

    Raises:
        DataError: A file cannot be read, or the folder not written.
    """
    stamp = source.stamp()
    found = _kept(folder, stamp)
    if found is None:
        _make(source, folder, stamp)
        found = _kept(folder, stamp)
    if found is None:
        raise DataError(f"{folder}: what was written cannot be read again; is the disk sound? name another folder")
    return found


def _kept(folder: Path, stamp: list[object]) -> dict[str, Segments] | None:
    """What the folder has, if it is whole and of that stamp."""
    try:
        about = json.loads((folder / _ABOUT).read_text(encoding="utf-8"))
        if about["stamp"] != stamp:
            return None
        return {name: _read(folder / name) for name in about["splits"]}
    except (OSError, EOFError, ValueError, KeyError, TypeError):
        return None


def _make(source: Source, folder: Path, stamp: list[object]) -> None:
    part = folder.with_name(f".{folder.name}.part")
    try:
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        names = []
        for name, segments in source.read():
            _write(part / name, segments)
            names.append(name)
            del segments  # the next split is read before this name is given to it
        (part / _ABOUT).write_text(json.dumps({"stamp": stamp, "splits": names}), encoding="utf-8")
        (folder / _ABOUT).unlink(missing_ok=True)  # first, so that a kill leaves nothing that looks whole
        shutil.rmtree(folder, ignore_errors=True)
        part.rename(folder)
    except OSError as error:
        raise DataError(f"{folder}: cannot be written ({error.strerror}); make room there or name another folder") from error
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _write(folder: Path, segments: Segments) -> None:
    folder.mkdir()
    np.save(folder / "labels.npy", segments.labels)
    for m in MODALITIES:
        np.save(folder / f"{m}.npy", segments.inputs[m])
        np.save(folder / f"{m}-lengths.npy", segments.lengths[m])
        if segments.flags:
            np.save(folder / f"{m}-flags.npy", segments.flags[m])
    about = {"ids": segments.ids, "mended": segments.mended, "flags": segments.flags is not None}
    (folder / _ABOUT).write_text(json.dumps(about), encoding="utf-8")


def _read(folder: Path) -> Segments:
    about = json.loads((folder / _ABOUT).read_text(encoding="utf-8"))
    return Segments(
        tuple(about["ids"]),
        {m: np.load(folder / f"{m}.npy", mmap_mode="r") for m in MODALITIES},
        {m: np.load(folder / f"{m}-lengths.npy") for m in MODALITIES},
        np.load(folder / "labels.npy"),
        about["mended"],
        {m: np.load(folder / f"{m}-flags.npy", mmap_mode="r") for m in MODALITIES} if about["flags"] else None,
    )
