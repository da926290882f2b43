"""Segments with features of all modalities, from the files in which CMU-MOSEI and CMU-MOSI are passed around.

`read_mult` reads the pickles of MulT (https://github.com/yaohungt/Multimodal-Transformer), `read_mmsa` those of MMSA
(https://github.com/thuiar/MMSA), aligned or not. Both become `Segments`: padded at the end, with true lengths, float32, and
finite: COVAREP has -inf where the logarithm of nothing was taken, which becomes 0, and is counted.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from train.data.unpickle import unpickle
from train.errors import DataError
from train.items import SPLITS, Split

MODALITIES = ("text", "audio", "vision")
Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Segments:
    """The segments of one split.

    Attributes:
        ids: A name for each of the N segments.
        inputs: For each modality float32, (N, L, D), L its own, padded with zeros at the end.
        lengths: For each modality how many steps are data, int64, (N,), at least 1.
        labels: Sentiment in [-3, 3], float32, (N,); or of every step, (N, L), with NaN after a segment's end.
        mended: For each modality how many values were not finite, and are 0 now.
        flags: For each modality what a live session tells of each step (`models.causal.FLAGS`), float32, (N, L, 2); None if
            every step is known and there.
    """

    ids: tuple[str, ...]
    inputs: dict[str, Floats]
    lengths: dict[str, Ints]
    labels: Floats
    mended: dict[str, int]
    flags: dict[str, Floats] | None = None


Splits = Iterator[tuple[Split, Segments]]


def read_mult(path: Path) -> Splits:
    """A pickle of MulT: padded in front, so a step counts from the first that is not all zeros on.

    The splits come one after the other, and what has been read of the file is given back, so that it is in memory once.

    Raises:
        DataError: It is no such pickle; says what is missing or does not fit.
    """
    return _splits(path, _mult)


def read_mmsa(path: Path) -> Splits:
    """A pickle of MMSA: padded at the end, with lengths if it is not aligned; see `read_mult`.

    Raises:
        DataError: As `read_mult`.
    """
    return _splits(path, _mmsa)


def _splits(path: Path, read: Callable[[str, dict[str, Any]], Segments]) -> Splits:
    found = unpickle(path)
    if not isinstance(found, dict) or (missing := [split for split in SPLITS if split not in found]):
        what = f"lacks the split {', '.join(missing)}" if isinstance(found, dict) else "holds no splits"
        raise DataError(f"{path}: {what}; expected a dictionary with {', '.join(SPLITS)}")
    expected: dict[str, int] = {}
    for split in SPLITS:
        given = found.pop(split)
        if not isinstance(given, dict):
            raise DataError(f"{path}, {split}: a {type(given).__name__}, expected a dictionary")
        try:
            segments = read(f"{path}, {split}", given)
        except (ValueError, TypeError, IndexError, OverflowError) as error:
            raise DataError(f"{path}, {split}: not as expected ({error}); are the file and its format right?") from error
        columns = {m: x.shape[2] for m, x in segments.inputs.items()}
        if columns != (expected := expected or columns):
            raise DataError(f"{path}, {split}: columns are {columns}, expected those of the splits before, {expected}")
        yield split, segments
        del segments  # before the next is read


def _mult(where: str, split: dict[str, Any]) -> Segments:
    arrays = {m: _array(where, split, m) for m in MODALITIES}
    labels = _labels(where, _take(where, split, "labels"), len(arrays["text"]))
    names = np.asarray(_take(where, split, "id"))
    ids = tuple("_".join(_name(part) for part in np.atleast_1d(row)) for row in names)
    mended = {m: mend(x) for m, x in arrays.items()}
    lengths = {}
    for m, given in _given(arrays).items():
        x = arrays[m]
        first = np.where(given.any(1), given.argmax(1), x.shape[1] - 1)
        lengths[m] = x.shape[1] - first
        # From the front to the end, in place: the same steps, the padding after them.
        for row, back in zip(x, first, strict=True):
            row[: len(row) - back] = row[back:].copy()
            row[len(row) - back :] = 0
    return _checked(where, Segments(ids, arrays, lengths, labels, mended))


def _mmsa(where: str, split: dict[str, Any]) -> Segments:
    inputs = {m: _array(where, split, m) for m in MODALITIES}
    labels = _labels(where, _take(where, split, "regression_labels"), len(inputs["text"]))
    mended = {m: mend(x) for m, x in inputs.items()}
    lengths = {}
    for m, x in inputs.items():
        if f"{m}_lengths" in split:
            lengths[m] = np.asarray(split[f"{m}_lengths"], np.int64)
        elif "text_bert" in split and (m == "text" or x.shape[1] == inputs["text"].shape[1]):
            lengths[m] = np.asarray(split["text_bert"])[:, 1].sum(-1).astype(np.int64)  # BERT's attention mask
        else:
            given = _given(inputs)[m]
            lengths[m] = np.where(given.any(1), x.shape[1] - given[:, ::-1].argmax(1), 1)
        lengths[m] = np.clip(lengths[m], 1, x.shape[1])
    return _checked(where, Segments(tuple(map(_name, _take(where, split, "id"))), inputs, lengths, labels, mended))


def _given(arrays: Mapping[str, Floats]) -> dict[str, npt.NDArray[np.bool_]]:
    """Which steps are not all zeros, (N, L); of an aligned file, where a word may have no sound or face, in any modality."""
    given = {m: (x != 0).any(-1) for m, x in arrays.items()}
    if len({each.shape for each in given.values()}) == 1:
        either: npt.NDArray[np.bool_] = np.any(list(given.values()), axis=0)
        return dict.fromkeys(given, either)
    return given


def _take(where: str, split: Mapping[str, Any], key: str) -> Any:
    if key not in split:
        raise DataError(f"{where}: lacks {key}; expected {', '.join(MODALITIES)}, labels and ids")
    return split[key]


def _array(where: str, split: dict[str, Any], m: str) -> Floats:
    """Features as float32; the split gives them up."""
    x = np.asarray(_take(where, split, m))
    del split[m]
    if x.ndim != 3 or x.dtype.kind != "f" or not x.size:
        raise DataError(f"{where}: {m} is {x.dtype} {x.shape}, expected numbers (N, L, D)")
    return x.astype(np.float32)


def _labels(where: str, given: Any, count: int) -> Floats:
    labels = np.asarray(given, np.float32).reshape(-1)
    if labels.shape != (count,) or not np.isfinite(labels).all() or np.abs(labels).max(initial=0) > 3:
        raise DataError(f"{where}: labels are {np.shape(given)}, expected {count} numbers from -3 to 3")
    return labels


def mend(x: npt.NDArray[np.floating]) -> int:
    """Set what is not finite as a float32 to 0; returns how many there were."""
    wrong = ~(np.abs(x) <= np.finfo(np.float32).max)
    x[wrong] = 0
    return int(wrong.sum())


def _name(part: Any) -> str:
    return part.decode() if isinstance(part, bytes) else str(part)


def _checked(where: str, found: Segments) -> Segments:
    for m in MODALITIES:
        if len(found.inputs[m]) != len(found.ids) or found.lengths[m].shape != (len(found.ids),):
            raise DataError(f"{where}: {len(found.ids)} ids, {len(found.inputs[m])} of {m}; expected one for each segment")
    return found
