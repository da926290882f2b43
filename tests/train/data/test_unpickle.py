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


# --- numpy's own state can be made to take any number for an object's address


def _put(value: Any) -> bytes:
    """What puts a value on the stack."""
    return pickle.dumps(value, 2)[2:-1]


def _kind(name: str, *state: Any) -> bytes:
    """A type with a state of the pickle's own making."""
    made = b"cnumpy\ndtype\n" + _put((name, False, False)) + b"R"
    return made + (_put(state) + b"b" if state else b"")


_NOT_HELD = (3, "|", None, None, None, -1, -1, 0)  # a type of objects without the flag that says so
_AN_OBJECT_INSIDE = (3, "|", None, ("a",), {"a": (np.dtype("O"), 0)}, 8, 1, 0)
_ADDRESS = b"\x41" * 8


@pytest.mark.parametrize("kind", [_kind("O", *_NOT_HELD), _kind("V8", *_AN_OBJECT_INSIDE), _kind("f8,O"), _kind("V8")])
@pytest.mark.parametrize(
    "use",
    [
        lambda kind: b"cnumpy._core.multiarray\nscalar\n(" + kind + _put(_ADDRESS) + b"tR",
        lambda kind: b"cnumpy._core.numeric\n_frombuffer\n(" + _put(_ADDRESS) + kind + _put((1,)) + _put("C") + b"tR",
        lambda kind: b"cnumpy\nndarray\n(" + _put((1,)) + kind + _put(_ADDRESS) + b"tR",
        lambda kind: (
            b"cnumpy._core.multiarray\n_reconstruct\n(cnumpy\nndarray\n" + _put((0,)) + _put(b"b") + b"tR"
            b"(" + _put(1) + _put((1,)) + kind + _put(False) + _put(_ADDRESS) + b"tb"
        ),
    ],
    ids=["scalar", "buffer", "array", "state"],
)
def test_no_number_is_taken_for_an_objects_address(tmp_path: Path, kind: bytes, use: Any) -> None:
    (tmp_path / "a.pkl").write_bytes(b"\x80\x04" + use(kind) + b".")
    try:
        found = unpickle(tmp_path / "a.pkl")
    except DataError:
        return
    assert isinstance(found, bytes)  # an object that the file holds, and not one at that address
    assert np.dtype("O").hasobject  # nor does the type of everybody's arrays have the file's state


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
