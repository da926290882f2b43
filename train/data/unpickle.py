"""Pickles from elsewhere, read without running what is in them: arrays and plain containers alone.

A pickle is a program; `pickle.load` runs it. The public files of CMU-MOSEI come as pickles, so they are read by an unpickler
that knows no more than what arrays are made of, and refuses anything else by name before it is called. Source:
https://docs.python.org/3/library/pickle.html#restricting-globals
"""

import pickle
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
from numpy._core.multiarray import scalar
from numpy._core.numeric import _frombuffer  # type: ignore[attr-defined]

from train.errors import DataError


class _Refused(Exception):
    """A pickle asks for what is not let through; the text names it."""


_PLAIN = "biufcSUO"  # kinds of numbers, of text and of objects


def _latin1(text: str, encoding: str) -> bytes:
    """As Python 2's bytes are written in a newer pickle; no other encoding is needed, nor let through."""
    if encoding != "latin1":
        raise _Refused(f"_codecs.encode to {encoding}")
    return text.encode("latin1")


def _type(name: str, *_: object) -> np.dtype[Any]:
    """An array's type by its name; a copy, as what follows in the pickle changes it."""
    found = np.dtype(str(name), copy=True)
    if found.kind not in _PLAIN:
        raise _Refused(f"arrays of {name}")
    return found


def _plain(given: np.dtype[Any]) -> np.dtype[Any]:
    """That type made anew: the state that a pickle gives to a type can make numpy take any number for an object's address."""
    if not isinstance(given, np.dtype) or given.kind not in _PLAIN:
        raise _Refused("arrays of no plain type")
    return np.dtype(given.str)


class _Array(np.ndarray[Any, Any]):
    """An array that takes its state, which has its type, from a pickle."""

    def __setstate__(self, state: Any) -> None:
        *version, shape, given, order, data = state
        super().__setstate__((*version, shape, _plain(given), order, data))


def _empty(*_: object) -> _Array:
    """What an array is before its state."""
    return _Array(0, np.int8)


def _number(given: np.dtype[Any], value: Any) -> Any:
    """A single one, of its bytes."""
    return scalar(_plain(given), value)


def _buffer(data: Any, given: np.dtype[Any], shape: Any, order: Any) -> Any:
    """An array of its bytes."""
    return _frombuffer(data, _plain(given), shape, order)


# Numpy's modules were renamed in its version 2; files of all ages name either. An array's class is given to what makes an array
# and never called.
_ALLOWED: dict[tuple[str, str], Any] = {
    **{
        (module, name): found
        for name, found in (("_reconstruct", _empty), ("scalar", _number))
        for module in ("numpy.core.multiarray", "numpy._core.multiarray")
    },
    **{(module, "_frombuffer"): _buffer for module in ("numpy.core.numeric", "numpy._core.numeric")},
    ("numpy", "ndarray"): "numpy.ndarray",
    ("numpy", "dtype"): _type,
    ("collections", "OrderedDict"): OrderedDict,
    ("_codecs", "encode"): _latin1,
}


class _Restricted(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        """One of the few things that are needed; raises `_Refused` for any other."""
        try:
            return _ALLOWED[module, name]
        except KeyError:
            raise _Refused(f"{module}.{name}") from None


def unpickle(path: Path) -> Any:
    """What is in a pickle of arrays, strings, numbers, lists, tuples and dictionaries.

    Raises:
        DataError: It cannot be read, is cut short, or asks for anything else, which is named.
    """
    try:
        with path.open("rb") as file:
            return _Restricted(file, encoding="latin1").load()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); give the pickle's path") from error
    except _Refused as error:
        raise DataError(
            f"{path}: asks for {error}, which is no array and no plain container, and may run code; refused, get the file from "
            "its makers"
        ) from error
    except Exception as error:  # on garbage the library raises whatever comes of it
        raise DataError(f"{path}: not a whole pickle ({type(error).__name__}); download it again") from error
