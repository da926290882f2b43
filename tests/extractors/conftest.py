"""Real speech for the extractors that hear."""

import wave
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from extractors.sound import SAMPLE_RATE


@pytest.fixture(scope="package", autouse=True)
def one_thread() -> Iterator[None]:
    """The tensors here are small: on a busy machine torch's threads wait for each other far longer than they work."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def jfk(shared: Path) -> npt.NDArray[np.int16]:
    """Eleven seconds: "And so, my fellow Americans, ask not …", 16 kHz mono."""
    with wave.open(str(shared / "speech" / "jfk.wav")) as file:
        assert (file.getframerate(), file.getnchannels(), file.getsampwidth()) == (SAMPLE_RATE, 1, 2)
        return np.frombuffer(file.readframes(file.getnframes()), np.int16)
