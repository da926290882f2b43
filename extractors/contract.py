"""The feature contract: what an extractor's rows are, so that what is trained is what is served."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class FeatureContract:
    """The name, version and columns of an extractor's rows.

    Attributes:
        name: The lane's feature set, as in `audio`.
        version: Counted up whenever the same input would give other values.
        columns: One name for each column, with its unit as a suffix where it has one.
        parameters: Everything else that the values depend on: frame lengths, pretrained files by digest.
    """

    name: str
    version: int
    columns: tuple[str, ...]
    parameters: Mapping[str, str | int | float] = field(default_factory=dict)

    @property
    def tag(self) -> str:
        """Name, version and digest in one word, as checkpoints hold it."""
        return f"{self.name}.{self.version}@{self.digest}"

    @cached_property
    def digest(self) -> str:
        """Sixteen hex digits of the SHA-256 over the whole contract; equal digests mean equal features."""
        text = json.dumps([self.name, self.version, self.columns, dict(self.parameters)], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


@dataclass(frozen=True, eq=False)
class FeatureRows:
    """Rows of one contract, in time order, and the moments at which the extractor looked and found nothing.

    A row is stamped with the last instant that it uses, so a window never sees what comes after it.

    Attributes:
        t_ns: Times of the rows, int64, shape (N,), not decreasing.
        values: The rows, float32, shape (N, D), finite.
        absent_ns: Times of known absence (silence, no face in view), int64, shape (M,), not decreasing.
    """

    t_ns: npt.NDArray[np.int64]
    values: npt.NDArray[np.float32]
    absent_ns: npt.NDArray[np.int64]

    @staticmethod
    def empty(width: int) -> "FeatureRows":
        """No rows of `width` columns."""
        none = np.empty(0, np.int64)
        return FeatureRows(none, np.empty((0, width), np.float32), none)

    @staticmethod
    def concatenate(parts: Sequence["FeatureRows"], width: int) -> "FeatureRows":
        """The rows of all parts, one after the other; no parts give no rows of `width` columns."""
        if not parts:
            return FeatureRows.empty(width)
        return FeatureRows(
            np.concatenate([part.t_ns for part in parts]),
            np.concatenate([part.values for part in parts]),
            np.concatenate([part.absent_ns for part in parts]),
        )
