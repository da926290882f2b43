"""Pickles of arrays are read, and nothing in a pickle is run."""

import os
import pickle
import subprocess
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from train.data.unpickle import unpickle
from train.errors import DataError


def write(path: Path, value: Any, protocol: int = 4) -> Path:
    path.write_bytes(pickle.dumps(value, protocol))
    return path


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_arrays_and_plain_containers_are_read_in_every_protocol(tmp_path: Path, protocol: int) -> None:
    value = {
        "train": {"text": np.arange(6, dtype=np.float64).reshape(1, 2, 3), "id": np.array([["a", "0.5"]])},
        "bytes": [b"\xff\x00", np.array([b"x"])],
        "more": OrderedDict(a=(1, 2.5, None, True), b=np.float32(3)),
        "objects": np.array(["one", None], dtype=object),
    }
    found = unpickle(write(tmp_path / "a.pkl", value, protocol))
    assert np.array_equal(found["train"]["text"], value["train"]["text"])  # type: ignore[call-overload]
    assert found["train"]["id"].tolist() == [["a", "0.5"]]
    assert found["bytes"][0] == b"\xff\x00"
    assert found["more"] == value["more"]
    assert found["objects"].tolist() == ["one", None]


class Hostile:
    def __init__(self, call: Any, *arguments: Any) -> None:
        self._call, self._arguments = call, arguments

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return self._call, self._arguments


@pytest.mark.parametrize(
    ("hostile", "named"),
    [
        (lambda mark: Hostile(os.system, f"touch {mark}"), "posix.system"),
        (lambda mark: Hostile(subprocess.Popen, ["touch", str(mark)]), "subprocess.Popen"),
        (lambda mark: Hostile(eval, f"open({str(mark)!r}, 'w')"), "builtins.eval"),
        (lambda mark: Hostile(Path, str(mark)), "pathlib.Path"),
        (lambda mark: {"train": [np.zeros(3), Hostile(exec, "1")]}, "builtins.exec"),
    ],
)
def test_a_pickle_that_calls_code_is_refused_by_name(tmp_path: Path, hostile: Any, named: str) -> None:
    mark = tmp_path / "ran"
    with pytest.raises(DataError) as caught:
        unpickle(write(tmp_path / "a.pkl", hostile(mark)))
    assert named in str(caught.value)
    assert "refused" in str(caught.value)
    assert not mark.exists()


def test_no_other_encoding_is_let_through(tmp_path: Path) -> None:
    (tmp_path / "a.pkl").write_bytes(b"c_codecs\nencode\n(Vx\nVrot13\ntR.")
    with pytest.raises(DataError, match=r"_codecs\.encode to rot13"):
        unpickle(tmp_path / "a.pkl")


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9])
def test_half_a_file_is_told(tmp_path: Path, share: float) -> None:
    data = pickle.dumps({"train": np.zeros(1000)})
    (tmp_path / "a.pkl").write_bytes(data[: int(share * len(data))])
    with pytest.raises(DataError, match="not a whole pickle"):
        unpickle(tmp_path / "a.pkl")
    with pytest.raises(DataError, match="cannot be read"):
        unpickle(tmp_path / "none.pkl")
