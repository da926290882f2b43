"""Where features are kept: a manifest for each corpus, and shards of many items, under the digest of what they were made from.

    FOLDER/sst.jsonl                a line an item: id, split, label, sentiment, and its shard and place, or why it has none
    FOLDER/shards/0123….safetensors

A shard's name is the digest of the items' bytes and of their extractors' contracts, so what is there need not be made again,
and what was made of something else is never taken. Nothing half-written ever has a final name.
"""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from train.errors import DataError, TrainError
from train.features import Features
from train.items import Split


@dataclass(frozen=True)
class Entry:
    """One item of a manifest.

    Attributes:
        id: As in the corpus; likewise `split`, `label` and `sentiment`.
        shard: The digest of its shard; None if it has no features.
        place: Its number in the shard.
        failure: Why it has no features; None if it has.
    """

    id: str
    split: Split
    label: str
    sentiment: float | None
    shard: str | None
    place: int
    failure: str | None = None


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A path to write to; what was written gets its final name only if all went well, and is on the disk then.

    Raises:
        TrainError: It cannot be written, as on a full disk.
    """
    part = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield part
        with part.open("rb") as file:
            os.fsync(file.fileno())
        part.replace(path)
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or error
        raise TrainError(f"{path} cannot be written: {reason}; make room there or name another folder") from error
    finally:
        with suppress(OSError):
            part.unlink()


class Store:
    """A folder with features."""

    def __init__(self, folder: Path) -> None:
        """Use a folder, which is made when something is written."""
        self.folder = folder

    def shard(self, digest: str) -> Path:
        """Where a shard is, or will be."""
        return self.folder / "shards" / f"{digest}.safetensors"

    def write_shard(self, digest: str, found: list[Features | str]) -> None:
        """Keep what was found for the items of a shard: features, or why there are none.

        Raises:
            TrainError: It cannot be written.
        """
        failures = {str(place): each for place, each in enumerate(found) if isinstance(each, str)}
        tensors = {
            f"{place}.{name}": value
            for place, each in enumerate(found)
            if not isinstance(each, str)
            for name, value in each.items()
        }
        with replacing(self.shard(digest)) as path:
            save_file(tensors, path, {"failures": json.dumps(failures)})

    def read_failures(self, digest: str) -> dict[int, str]:
        """Which items of a shard have no features, and why."""
        from safetensors import safe_open

        try:
            with safe_open(self.shard(digest), "np") as file:
                return {int(place): reason for place, reason in json.loads(file.metadata()["failures"]).items()}
        except (OSError, SafetensorError, TypeError, KeyError, ValueError, AttributeError) as error:
            raise DataError(f"{self.shard(digest)} is damaged: {error}; delete it and run train.prepare again") from error

    def write_manifest(self, corpus: str, entries: list[Entry]) -> None:
        """Write what a corpus has."""
        with replacing(self.folder / f"{corpus}.jsonl") as path:
            path.write_text("".join(json.dumps(asdict(entry)) + "\n" for entry in entries), encoding="utf-8")

    def read_manifest(self, corpus: str) -> list[Entry]:
        """What a corpus has.

        Raises:
            DataError: It was not prepared, or the manifest is damaged.
        """
        path = self.folder / f"{corpus}.jsonl"
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except OSError as error:
            raise DataError(f"{path} cannot be read: {error.strerror}; run python -m train.prepare {corpus}") from error
        except UnicodeDecodeError as error:
            raise DataError(f"{path} is damaged: {error}; run python -m train.prepare {corpus}") from error
        try:
            return [Entry(**json.loads(line)) for line in lines]
        except (ValueError, TypeError) as error:
            raise DataError(f"{path} is damaged: {error}; run python -m train.prepare {corpus}") from error

    def features(self, entries: list[Entry]) -> list[Features]:
        """The features of items that have them, in the order of the items.

        Raises:
            DataError: A shard is missing or damaged, or holds a value that is not finite.
        """
        shards: dict[str, dict[int, Features]] = {}
        for digest in {entry.shard for entry in entries if entry.shard}:
            shards[digest] = self._read_shard(digest)
        found = []
        for entry in entries:
            if entry.shard is None:
                raise ValueError(f"{entry.id} has no features: {entry.failure}")
            features = shards[entry.shard].get(entry.place)
            if features is None:
                raise DataError(f"{self.shard(entry.shard)} lacks {entry.id}; delete it and run train.prepare again")
            for name, value in features.items():
                if not np.isfinite(value).all():
                    raise DataError(
                        f"{entry.id}: {name} is not finite in {self.shard(entry.shard)}; delete it and prepare anew"
                    )
            found.append(features)
        return found

    def _read_shard(self, digest: str) -> dict[int, Features]:
        """The features of its items, by their places."""
        path = self.shard(digest)
        found: dict[int, Features] = {}
        try:
            for name, value in load_file(path).items():
                place, _, part = name.partition(".")
                found.setdefault(int(place), {})[part] = value
        except (OSError, SafetensorError, ValueError) as error:
            raise DataError(f"{path} cannot be read: {error}; delete it and run train.prepare again") from error
        return found
