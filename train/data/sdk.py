"""CMU-MOSEI from the CMU Multimodal SDK's computational sequences: aligned to words, cut into labelled segments, split.

A sequence is an HDF5 file (.csd): one group with `data/VIDEO/features` (T, D) and `data/VIDEO/intervals` (T, 2), seconds. As in
the SDK's own example, everything is averaged over the words that it overlaps, what is missing becomes zeros, segments are those
of the labels, and videos that a sequence lacks are left out. Source: https://github.com/CMU-MultiComp-Lab/CMU-MultimodalSDK
"""

from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

import h5py
import numpy as np
import numpy.typing as npt

from train.data.aligned import MODALITIES, Floats, Segments, mend
from train.errors import DataError
from train.items import SPLITS, Split

_OVERLAP_S = 1e-5  # by more than this, as in the SDK
# What h5py raises on what is damaged, or is something else.
_DAMAGED = (OSError, RuntimeError, LookupError, ValueError, OverflowError, TypeError, AttributeError)
LONGEST = 50  # steps of a segment, the newest; as in the files that MulT and MMSA pass around

_MOST = 3  # of a label

Doubles = npt.NDArray[np.float64]


class ComputationalSequence:
    """One such file, read video by video.

    Attributes:
        videos: The names of the videos in it.
        width: D.
    """

    def __init__(self, path: Path) -> None:
        """Open it; raises DataError if it is not such a file."""
        self._path = path
        try:
            self._file = h5py.File(path, "r")
            root = self._file[next(iter(self._file))]
            self._data = root["data"]
            self.videos: tuple[str, ...] = tuple(self._data)
            self.width = int(self._data[self.videos[0]]["features"].shape[1])
        except (*_DAMAGED, StopIteration) as error:
            raise DataError(f"{path}: not a whole computational sequence ({error}); download it again") from error

    def __enter__(self) -> Self:
        """Read within `with`."""
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        """Close the file."""
        self._file.close()

    def read(self, video: str) -> tuple[Doubles, Doubles]:
        """A video's features, (T, D), and intervals, (T, 2), seconds.

        Raises:
            DataError: They cannot be read, or do not fit.
        """
        try:
            group = self._data[video]
            features, intervals = (np.asarray(group[name], np.float64) for name in ("features", "intervals"))
        except _DAMAGED as error:
            raise DataError(f"{self._path}, {video}: cannot be read ({error}); download the file again") from error
        if features.ndim != 2 or not self.width or intervals.shape != (len(features), 2) or features.shape[1] != self.width:
            raise DataError(
                f"{self._path}, {video}: features {features.shape} and intervals {intervals.shape}, expected (T, {self.width}) "
                "and (T, 2)"
            )
        return features, intervals


def averaged(words: Doubles, features: Doubles, intervals: Doubles) -> Doubles:
    """The mean of what overlaps each word.

    Args:
        words: (W, 2), the words' seconds.
        features: (T, D).
        intervals: (T, 2), theirs.

    Returns:
        (W, D); zeros for a word that nothing overlaps.
    """
    found = np.zeros((len(words), features.shape[1]))
    for row, (begin, end) in zip(found, words, strict=True):  # one by one, as (W, T) is much of a long video
        chosen = np.minimum(end, intervals[:, 1]) - np.maximum(begin, intervals[:, 0]) > _OVERLAP_S  # (T)
        if chosen.any():
            row[:] = features[chosen].mean(0)
    return found


def read_sdk(
    sequences: Mapping[str, Path], labels: Path, folds: Mapping[Split, tuple[str, ...]], *, longest: int = LONGEST
) -> dict[Split, Segments]:
    """The segments of all splits.

    Args:
        sequences: For `text` (one row a word), `audio` and `vision`, the file.
        labels: The file with the labels, the first column being sentiment.
        folds: The standard folds: which videos are in which split. Videos that a file lacks are left out.
        longest: Of a longer segment the newest steps are kept.

    Raises:
        DataError: A file is not what it should be, a fold is missing, or nothing is left.
    """
    if missing := [split for split in SPLITS if split not in folds]:
        raise DataError(f"the folds lack {', '.join(missing)}; expected {', '.join(SPLITS)}")
    with (
        ComputationalSequence(sequences["text"]) as text,
        ComputationalSequence(sequences["audio"]) as audio,
        ComputationalSequence(sequences["vision"]) as vision,
        ComputationalSequence(labels) as truth,
    ):
        files = {"text": text, "audio": audio, "vision": vision}
        common = set(truth.videos).intersection(*(file.videos for file in files.values()))
        found = {split: _split([v for v in folds[split] if v in common], files, truth, longest) for split in SPLITS}
    if empty := [split for split, segments in found.items() if not segments.ids]:
        raise DataError(
            f"no segment of the split {', '.join(empty)} is in all files; are they of one corpus, and the folds too?"
        )
    return found


def _split(
    videos: list[str], files: Mapping[str, ComputationalSequence], truth: ComputationalSequence, longest: int
) -> Segments:
    ids: list[str] = []
    labels: list[float] = []
    steps: dict[str, list[Doubles]] = {m: [] for m in MODALITIES}
    mended = dict.fromkeys(MODALITIES, 0)
    for video in videos:
        read = {m: file.read(video) for m, file in files.items()}
        for m, (features, _) in read.items():
            mended[m] += mend(features)
        words = read["text"][1]
        aligned = {m: read["text"][0] if m == "text" else averaged(words, *read[m]) for m in MODALITIES}
        sentiments, spans = truth.read(video)
        for number, (sentiment, span) in enumerate(zip(sentiments[:, 0], spans, strict=True)):
            inside = np.minimum(words[:, 1], span[1]) - np.maximum(words[:, 0], span[0]) > _OVERLAP_S
            if not inside.any() or not np.isfinite(sentiment):
                continue
            if abs(sentiment) > _MOST:
                raise DataError(
                    f"{video}: a label of {sentiment:g}, expected {-_MOST} to {_MOST}; are these CMU-MOSEI's labels?"
                )
            ids.append(f"{video}[{number}]")
            labels.append(float(sentiment))
            for m in MODALITIES:
                steps[m].append(aligned[m][inside][-longest:])
    lengths = np.array([len(each) for each in steps["text"]], np.int64)
    size = int(lengths.max(initial=0))
    inputs: dict[str, Floats] = {}
    for m, file in files.items():
        inputs[m] = np.zeros((len(ids), size, file.width), np.float32)
        for row, each in zip(inputs[m], steps[m], strict=True):
            row[: len(each)] = each
    return Segments(tuple(ids), inputs, dict.fromkeys(MODALITIES, lengths), np.array(labels, np.float32), mended)
