"""CMU-MOSI's utterances with a vector of each modality: each video is a sequence of utterances, each with a label of its own.

A file `utterance_features.npz` with arrays of one row an utterance: `id` (the video's name, `_`, the utterance's number in
it), `label` in [-3, 3], `text100`, `audio73`, `video100`, and `feature_split`, `train` or `test`. Text and video vectors are
inner layers of networks that were trained on `feature_split == "train"`: there they know the labels nearly by heart, so a part
of that split can validate nothing, and any other split would leak labels into its test part. Source of the features: S. Poria
et al., "Context-Dependent Sentiment Analysis in User-Generated Videos", ACL 2017.
"""

import re
import zlib
from pathlib import Path
from typing import Literal, get_args
from zipfile import BadZipFile

import numpy as np

from train.data.aligned import MODALITIES, Floats, Segments, mend
from train.errors import DataError

# What numpy and zipfile raise on what is cut, changed, encrypted (RuntimeError, of which what is not implemented is a kind), or
# says that it is larger than the memory.
_DAMAGED = (OSError, ValueError, TypeError, EOFError, BadZipFile, zlib.error, RuntimeError, MemoryError)
_COLUMNS = {"text": "text100", "audio": "audio73", "vision": "video100"}
Part = Literal["train", "test"]


def read_utterances(path: Path) -> dict[Part, Segments]:
    """The videos of both parts; labels are (N, L), NaN after a video's end.

    Raises:
        DataError: It cannot be read, or lacks something.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays: dict[str, np.ndarray] = {name: file[name] for name in ("id", "label", "feature_split", *_COLUMNS.values())}
    except KeyError as error:
        raise DataError(f"{path}: lacks {error}; expected id, label, feature_split, {', '.join(_COLUMNS.values())}") from error
    except _DAMAGED as error:
        raise DataError(f"{path}: cannot be read as arrays ({error}); get the whole file") from error
    _check(path, arrays)
    found: dict[Part, Segments] = {}
    for part in ("train", "test"):
        chosen = arrays["feature_split"] == part
        if not chosen.any():
            raise DataError(f"{path}: no utterance of feature_split {part}; expected train and test")
        found[part] = _videos(arrays, chosen)
    if both := sorted(set(found["train"].ids).intersection(found["test"].ids)):
        raise DataError(f"{path}: {', '.join(both[:5])} in train and test; expected all utterances of a video in one of them")
    return found


def _check(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Raise DataError unless there is a row of each array for every utterance, by a name of its own."""

    def wrong(what: str) -> DataError:
        return DataError(f"{path}: {what}; get the file from its makers")

    ids, labels = arrays["id"], arrays["label"]
    shapes = {name: each.shape for name, each in arrays.items()}
    rows = {"id": 1, "label": 1, "feature_split": 1} | dict.fromkeys(_COLUMNS.values(), 2)
    if any(len(shape) != rows[name] or shape[0] != len(ids) for name, shape in shapes.items()):
        raise wrong(f"not a row an utterance: {', '.join(f'{name} {shape}' for name, shape in shapes.items())}")
    if any(arrays[name].dtype.kind not in "fiu" for name in ("label", *_COLUMNS.values())):
        raise wrong("labels or features are no numbers")
    if not (np.isfinite(labels) & (np.abs(labels) <= 3)).all():
        raise wrong("a label is none from -3 to 3")
    if ids.dtype.kind != "U" or len(np.unique(ids)) < len(ids):
        raise wrong("two utterances have the same id, or ids are no text")
    if bad := [name for name in ids.tolist() if not re.fullmatch(r".*_[0-9]{1,9}", name)]:
        raise wrong(f"id {bad[0]}, expected the video's name, _ and the utterance's number")
    if unknown := set(arrays["feature_split"].tolist()).difference(get_args(Part)):
        raise wrong(f"feature_split {', '.join(sorted(map(str, unknown)))}, expected {', '.join(get_args(Part))}")


def _videos(arrays: dict[str, np.ndarray], chosen: np.ndarray) -> Segments:
    places = [(*name.rsplit("_", 1), row) for row, name in enumerate(arrays["id"].tolist()) if chosen[row]]
    rows: dict[str, list[int]] = {}
    for video, _, row in sorted(places, key=lambda place: (place[0], int(place[1]))):
        rows.setdefault(video, []).append(row)
    lengths = np.array([len(each) for each in rows.values()], np.int64)
    labels = np.full((len(rows), int(lengths.max(initial=0))), np.nan, np.float32)
    inputs: dict[str, Floats] = {
        m: np.zeros((*labels.shape, arrays[column].shape[1]), np.float32) for m, column in _COLUMNS.items()
    }
    for number, each in enumerate(rows.values()):
        labels[number, : len(each)] = arrays["label"][each]
        for m, column in _COLUMNS.items():
            with np.errstate(over="ignore"):  # what a float32 does not hold is mended
                inputs[m][number, : len(each)] = arrays[column][each]
    return Segments(tuple(rows), inputs, dict.fromkeys(MODALITIES, lengths), labels, {m: mend(x) for m, x in inputs.items()})
