"""FER2013's faces, 48 by 48 pixels, with the votes of FER+.

A folder with `fer2013_jpg.tar` (split/label folders; a file's number is its row in the original table) and
`ferplus_fer2013new.csv` (ten votes a face). The splits keep their roles: Training, PublicTest to validate, PrivateTest to test.
Sources: I. Goodfellow et al., "Challenges in Representation Learning", 2013; E. Barsoum et al., "Training Deep Networks for
Facial Expression Recognition with Crowd-Sourced Label Distribution", ICMI 2016.
"""

import tarfile
from pathlib import Path

from train import scale
from train.data.tables import read_table
from train.errors import DataError
from train.items import Item, Picture, Split

ARCHIVE, VOTES = "fer2013_jpg.tar", "ferplus_fer2013new.csv"
EMOTIONS = ("neutral", "happiness", "surprise", "sadness", "anger", "disgust", "fear", "contempt", "unknown", "NF")
POSITIVE, NEGATIVE, NEUTRAL = ("happiness",), ("sadness", "anger", "disgust", "fear", "contempt"), ("neutral",)
_SPLITS: dict[str, Split] = {"Training": "train", "PublicTest": "valid", "PrivateTest": "test"}


def items(folder: Path) -> list[Item]:
    """All faces, in the order of the table.

    Raises:
        DataError: A file cannot be read, or a picture is missing.
    """
    pictures = _pictures(folder / ARCHIVE)
    votes = read_table(folder / VOTES, ("Usage", *EMOTIONS), _votes)
    if missing := [number for number in range(len(votes)) if number not in pictures]:
        raise DataError(f"{folder / ARCHIVE} lacks {len(missing)} pictures, as {missing[0]:08d}.jpg; get the whole archive")
    return [
        Item(f"{number:08d}", split, label, sentiment, pictures[number])
        for number, (split, label, sentiment) in enumerate(votes)
    ]


def _pictures(path: Path) -> dict[int, Picture]:
    """Where each picture lies in the archive, by its number."""
    try:
        with tarfile.open(path, "r:") as archive:
            return {
                int(Path(member.name).stem): Picture(path, member.offset_data, member.size)
                for member in archive
                if member.isfile() and Path(member.name).stem.isdecimal()
            }
    except (OSError, tarfile.TarError) as error:
        raise DataError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from error


def _votes(row: dict[str, str]) -> tuple[Split, str, float | None]:
    """The split, the emotion with the most votes (the first of several), and where the face stands on the scale."""
    votes = {emotion: int(row[emotion]) for emotion in EMOTIONS}
    placed = {emotion: count for emotion, count in votes.items() if emotion in scale.FERPLUS}
    total = sum(placed.values())
    if 2 * total <= sum(votes.values()):
        return _SPLITS[row["Usage"]], max(votes, key=votes.__getitem__), None
    value = sum(scale.FERPLUS[emotion] * count for emotion, count in placed.items()) / total
    return _SPLITS[row["Usage"]], max(votes, key=votes.__getitem__), value
