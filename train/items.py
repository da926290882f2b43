"""What corpora are made of, before any features: labelled items, each with something to read, hear or look at."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal

from train.errors import DataError

Split = Literal["train", "valid", "test"]
SPLITS: tuple[Split, ...] = ("train", "valid", "test")


@dataclass(frozen=True)
class Text:
    """Words: `extractors.text.normalise` has been applied.

    Attributes:
        words: At least one.
        ends_ns: When each ends, nanoseconds since the utterance began, not decreasing; empty where the corpus has no times.
        length_ns: The utterance's length; 0 where the corpus has no times.
    """

    words: tuple[str, ...]
    ends_ns: tuple[int, ...] = ()
    length_ns: int = 0


@dataclass(frozen=True)
class Sound:
    """A file with speech."""

    path: Path


@dataclass(frozen=True)
class Picture:
    """A still face: an encoded picture somewhere in an uncompressed archive."""

    archive: Path
    offset: int
    size: int


@dataclass(frozen=True)
class Clip:
    """A part of a media file with picture, sound or both; to its end if `end_ns` is None."""

    path: Path
    start_ns: int = 0
    end_ns: int | None = None


Content = Text | Sound | Picture | Clip


@dataclass(frozen=True)
class Item:
    """One labelled example.

    Attributes:
        id: Its name, unique in its corpus.
        split: Of the corpus.
        label: What the corpus itself calls it, as in `happy`.
        sentiment: Where that stands on the scale from -3 to 3 (`train.scale`); None if it has no place there.
        content: What there is of it.
    """

    id: str
    split: Split
    label: str
    sentiment: float | None
    content: Content


def source_bytes(content: Content) -> bytes:
    """What features are a function of, besides the extractors.

    Raises:
        DataError: A file cannot be read.
    """
    match content:
        case Text(words, ends_ns, length_ns):
            return repr((words, ends_ns, length_ns)).encode()
        case Picture(archive, offset, size):
            return read_bytes(archive, offset, size)
        case Sound(path):
            return read_bytes(path)
        case Clip(path, start_ns, end_ns):
            # A film has many clips, so it is read once, and not kept.
            try:
                about = path.stat()
                return _digest_of(path, about.st_size, about.st_mtime_ns) + repr((start_ns, end_ns)).encode()
            except OSError as error:
                raise DataError(f"{path} cannot be read: {error.strerror or error}") from error


@lru_cache(maxsize=16)
def _digest_of(path: Path, _size: int, _mtime_ns: int) -> bytes:
    """The SHA-256 of a file that was last changed then."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()


def read_bytes(path: Path, offset: int = 0, size: int = -1) -> bytes:
    """Part of a file; a DataError says why it cannot be read."""
    try:
        with path.open("rb") as file:
            file.seek(offset)
            return file.read(size)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from error


def digest(parts: Iterable[bytes]) -> str:
    """Twenty hex digits of the SHA-256 over several strings of bytes, where each begins and ends being part of it."""
    total = hashlib.sha256()
    for part in parts:
        total.update(len(part).to_bytes(8, "little"))
        total.update(part)
    return total.hexdigest()[:20]
