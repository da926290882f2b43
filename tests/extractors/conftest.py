"""Real speech for the extractors that hear."""

import wave
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from extractors.sound import SAMPLE_RATE


@pytest.fixture(scope="session")
def jfk(shared: Path) -> npt.NDArray[np.int16]:
    """Eleven seconds: "And so, my fellow Americans, ask not …", 16 kHz mono."""
    with wave.open(str(shared / "speech" / "jfk.wav")) as file:
        assert (file.getframerate(), file.getnchannels(), file.getsampwidth()) == (SAMPLE_RATE, 1, 2)
        return np.frombuffer(file.readframes(file.getnframes()), np.int16)
