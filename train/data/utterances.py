"""CMU-MOSI's utterances with a vector of each modality: each video is a sequence of utterances, each with a label of its own.

A file `utterance_features.npz` with arrays of one row an utterance: `id` (the video's name, `_`, the utterance's number in
it), `label` in [-3, 3], `text100`, `audio73`, `video100`, and `feature_split`, `train` or `test`. Text and video vectors are
inner layers of networks that were trained on `feature_split == "train"`: there they know the labels nearly by heart, so a part
of that split can validate nothing, and any other split would leak labels into its test part. Source of the features: S. Poria
et al., "Context-Dependent Sentiment Analysis in User-Generated Videos", ACL 2017.
"""

import zlib
from pathlib import Path
from typing import Literal
from zipfile import BadZipFile

import numpy as np

from train.data.aligned import MODALITIES, Floats, Segments
from train.errors import DataError

_COLUMNS = {"text": "text100", "audio": "audio73", "vision": "video100"}
Part = Literal["train", "test"]


def read_utterances(path: Path) -> dict[Part, Segments]:
    """The videos of both parts; labels are (N, L), NaN after a video's end.

    Raises:
        DataError: It cannot be read, or lacks something.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in ("id", "label", "feature_split", *_COLUMNS.values())}
    except KeyError as error:
        raise DataError(f"{path}: lacks {error}; expected id, label, feature_split, {', '.join(_COLUMNS.values())}") from error
    except (OSError, ValueError, TypeError, EOFError, BadZipFile, zlib.error) as error:
        raise DataError(f"{path}: cannot be read as arrays ({error}); get the whole file") from error
    found: dict[Part, Segments] = {}
    for part in ("train", "test"):
        chosen = arrays["feature_split"] == part
        if not chosen.any():
            raise DataError(f"{path}: no utterance of feature_split {part}; expected train and test")
        try:
            found[part] = _videos(arrays, chosen)
        except (ValueError, TypeError, IndexError, AttributeError) as error:
            raise DataError(f"{path}: not a row an utterance ({error}); get the file from its makers") from error
    return found


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
            inputs[m][number, : len(each)] = arrays[column][each]
    return Segments(tuple(rows), inputs, dict.fromkeys(MODALITIES, lengths), labels, dict.fromkeys(MODALITIES, 0))
