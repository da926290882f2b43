"""The wiring to faster-whisper, with a model that plays its part: real Whisper weights are not tested here."""

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from extractors.asr.recogniser import Word
from extractors.asr.whisper import WhisperRecogniser
from extractors.assets import FOLDER_VARIABLE
from extractors.errors import Unavailable
from extractors.sound import SAMPLE_NS
from extractors.vad import CHUNK, VoiceChunk

faster_whisper = pytest.importorskip("faster_whisper")
START_NS = 5_000_000_000


class Played:
    """Stands for `faster_whisper.WhisperModel`; keeps what it was made of and asked."""

    made: dict[str, Any]
    asked: list[tuple[np.ndarray, dict[str, Any]]]

    def __init__(self, name: str, **options: Any) -> None:
        Played.made = {"name": name, **options}
        Played.asked = []

    def transcribe(self, sound: np.ndarray, **options: Any) -> tuple[Any, Any]:
        Played.asked.append((sound, options))

        def word(text: str, start: float, end: float, probability: float) -> SimpleNamespace:
            return SimpleNamespace(word=text, start=start, end=end, probability=probability)

        segments = [
            SimpleNamespace(words=[word(" Ask", 0.1, 0.25, 0.9), word(" not", 0.25, 0.4, 0.8)]),
            SimpleNamespace(words=[]),
            SimpleNamespace(words=[word(" what…", 0.5, 9.0, 0.3)]),
        ]
        return iter(segments), SimpleNamespace(language="en")


@pytest.fixture(autouse=True)
def played(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(FOLDER_VARIABLE, raising=False)
    monkeypatch.setattr(faster_whisper, "WhisperModel", Played)


def test_words_are_placed_on_the_time_axis():
    recogniser = WhisperRecogniser()
    for index in range(20):
        samples = np.full(CHUNK, -32768, np.int16)
        recogniser.push(VoiceChunk(START_NS + index * CHUNK * SAMPLE_NS, samples, True, True))
    known = recogniser.finish()
    assert known.final == (
        Word("Ask", START_NS + 100_000_000, START_NS + 250_000_000, 0.9),
        Word("not", START_NS + 250_000_000, START_NS + 400_000_000, 0.8),
        Word("what…", START_NS + 500_000_000, START_NS + 640_000_000, 0.3),  # cut where the sound ends
    )
    assert known.watermark_ns == START_NS + 640_000_000


@pytest.mark.parametrize("language", ["en", None])
def test_what_the_model_is_asked(language):
    recogniser = WhisperRecogniser(language=language)
    recogniser.push(VoiceChunk(0, np.full(CHUNK, -16384, np.int16), True, True))
    recogniser.finish()
    (sound, options), *more = Played.asked
    assert not more
    assert options == {"language": language, "word_timestamps": True, "condition_on_previous_text": False}
    assert sound.dtype == np.float32
    assert sound.tolist() == [-0.5] * CHUNK


@pytest.mark.parametrize(("device", "numbers"), [("cpu", "int8"), ("cuda", "float16")])
@pytest.mark.parametrize("download", [False, True])
def test_how_the_model_is_made(device, numbers, download):
    assert WhisperRecogniser("small", device=device, download=download).name == "faster-whisper small"
    assert Played.made == {"name": "small", "device": device, "compute_type": numbers, "local_files_only": not download}


def test_a_folder_of_weights_comes_first(tmp_path, monkeypatch):
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path))
    WhisperRecogniser("base")
    assert Played.made["name"] == "base"
    (tmp_path / "faster-whisper-base").mkdir()
    WhisperRecogniser("base")
    assert Path(Played.made["name"]) == tmp_path / "faster-whisper-base"


@pytest.mark.parametrize(
    ("download", "reason"), [(False, "is not on this machine"), (True, r"could not be loaded \(OSError\)")]
)
def test_a_model_that_cannot_be_had_is_unavailable(monkeypatch, download, reason):
    def fail(*_: object, **__: object) -> None:
        raise OSError("offline\nand more")

    monkeypatch.setattr(faster_whisper, "WhisperModel", fail)
    with pytest.raises(Unavailable, match=f"the Whisper model tiny {reason}; run with --asr whisper once") as refusal:
        WhisperRecogniser("tiny", download=download)
    assert FOLDER_VARIABLE in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_without_the_package_it_is_unavailable(monkeypatch):
    monkeypatch.setitem(sys.modules, "faster_whisper", None)
    with pytest.raises(Unavailable, match="pip install"):
        WhisperRecogniser()
