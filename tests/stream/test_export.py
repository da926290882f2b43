"""What others can open: it begins where the recording does, and what is not there is told."""

import wave
from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from stream import export
from stream.errors import UsageError
from stream.mcap import About, RecordingReader, RecordingWriter
from stream.messages import AudioBlock, Begin, VideoFrame
from stream.pictures import encode_jpeg
from stream.records import AUDIO, PICTURE, Kind, Record
from tests.stream.recordings import record
from tests.stream.test_recorder import SPOKEN, guessing
from tests.stream.wiring import HOP

LATE = Begin(seq=4 * 3600 * 5)  # five hours after the session began
LATE_NS = LATE.seq * HOP
FILM = About(name="film", packets=("audio", "video"), begin=LATE)


def loud(t_ns: int, samples: int = 800) -> tuple[Kind[AudioBlock], AudioBlock]:
    return AUDIO, AudioBlock(t_ns, np.full(samples, 1000, np.int16))


def made(path: Path, about: About, *values: tuple[Kind[Any], Any]) -> RecordingReader:
    with RecordingWriter(path, about) as recording:
        for number, (kind, value) in enumerate(values):
            recording.write(Record(number, 0, kind, value))
    return RecordingReader(path)


def heard(path: Path) -> np.ndarray[tuple[int], np.dtype[np.int16]]:
    with wave.open(str(path)) as sound:
        return np.frombuffer(sound.readframes(sound.getnframes()), np.int16)


def test_sound_begins_with_the_recording_and_its_gaps_are_silent(tmp_path: Path) -> None:
    blocks = [loud(LATE_NS + t_ns) for t_ns in (-25_000_000, 25_000_000, 2_500_000_000)]
    export.to_wav(made(tmp_path / "a.mcap", FILM, *blocks), tmp_path / "a.wav")
    expected = np.zeros(40_800, np.int16)
    expected[:400] = expected[400:1200] = expected[40_000:] = 1000
    assert np.array_equal(heard(tmp_path / "a.wav"), expected)


def test_pictures_begin_with_the_recording(tmp_path: Path) -> None:
    images = np.full((10, 48, 64, 3), 128, np.uint8)
    pictures = [
        (PICTURE, encode_jpeg(VideoFrame(LATE_NS + n * 100_000_000, image))) for n, image in enumerate(images, start=-2)
    ]
    export.to_mp4(made(tmp_path / "a.mcap", FILM, loud(LATE_NS), *pictures), tmp_path / "a.mp4")
    with av.open(str(tmp_path / "a.mp4")) as film:
        assert [frame.time for frame in film.decode(video=0)] == pytest.approx([n * 0.1 for n in range(8)], abs=0.021)


def test_what_was_to_be_recorded_and_never_came_is_not_there(tmp_path: Path) -> None:
    reader = made(tmp_path / "a.mcap", FILM)
    with pytest.raises(UsageError, match="holds no sound; record some"):
        export.to_wav(reader, tmp_path / "a.wav")
    with pytest.raises(UsageError, match="holds no pictures; record some"):
        export.to_mp4(reader, tmp_path / "a.mp4")
    assert [path.name for path in tmp_path.iterdir()] == ["a.mcap"]


def test_names_and_words_are_drawn_as_they_are(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    record(tmp_path / "a.mcap", SPOKEN[:100], guessing, words=True)
    reader = RecordingReader(tmp_path / "a.mcap")
    reader.about = reader.about.model_copy(update={"name": r"$\frac_$.mp4"})
    scores = [replace(score, words=tuple(replace(word, text="$_$") for word in score.words)) for score in export.scores(reader)]
    assert any(score.words for score in scores)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(export, "scores", lambda reader: iter(scores))
        export.to_plot(reader, tmp_path / "a.svg")
    assert (tmp_path / "a.svg").exists()
