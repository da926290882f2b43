from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mcap.reader import make_reader
from mcap.writer import Writer

from extractors.asr.recogniser import Word
from extractors.contract import FeatureRows
from extractors.face import CONTRACT as FACE
from stream import mcap
from stream.errors import SourceError
from stream.mcap import RecordingReader, RecordingWriter
from stream.messages import AudioBlock, Packet, Transcript, VideoFrame, VisionRows


def record(path: Path, *packets: Packet) -> Path:
    with RecordingWriter(path, name="test", scripted=True) as recording:
        for packet in packets:
            recording.write(packet)
    return path


finite = st.floats(width=32, allow_nan=False, allow_infinity=False)


@settings(max_examples=40, deadline=None)
@given(
    samples=st.lists(st.integers(-32768, 32767), min_size=1, max_size=50),
    row=st.lists(finite, min_size=len(FACE.columns), max_size=len(FACE.columns)),
    text=st.text(min_size=1),
)
def test_what_is_written_reads_back_to_the_bit(
    tmp_path_factory: pytest.TempPathFactory, samples: list[int], row: list[float], text: str
) -> None:
    rows = FeatureRows(np.array([7], np.int64), np.array([row], np.float32), np.array([9, 11], np.int64))
    written: list[Packet] = [
        AudioBlock(3_000_000_062_500, np.array(samples, np.int16)),
        VisionRows(3_000_000_062_501, rows),
        Transcript(3_000_000_062_502, (Word(text, 5, 6, 0.25), Word(text, 6, 8))),
    ]
    reader = RecordingReader(record(tmp_path_factory.mktemp("r") / "a.mcap", *written))
    audio, vision, words = reader.packets()
    reader.close()
    assert isinstance(audio, AudioBlock)
    assert isinstance(vision, VisionRows)
    assert (audio.t_ns, audio.samples.tolist()) == (3_000_000_062_500, samples)
    assert np.array_equal(vision.rows.values, rows.values)
    assert (vision.rows.t_ns.tolist(), vision.rows.absent_ns.tolist()) == ([7], [9, 11])
    assert words == written[2]


def test_other_tools_find_their_schemas(tmp_path: Path) -> None:
    path = record(tmp_path / "a.mcap", AudioBlock(0, np.zeros(4, np.int16)), Transcript(1, ()))
    with path.open("rb") as file:
        summary = make_reader(file).get_summary()
    assert summary is not None
    found = {channel.topic: summary.schemas[channel.schema_id].name for channel in summary.channels.values()}
    assert found == {"/audio": "foxglove.RawAudio", "/words": "mmlatch.Words"}


def test_a_picture_is_refused_rather_than_left_out(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="VideoFrame"):
        record(tmp_path / "a.mcap", VideoFrame(0, np.zeros((2, 2, 3), np.uint8)))


def reading_fails_with(path: Path) -> str:
    with pytest.raises(SourceError) as caught:
        list(RecordingReader(path).packets())
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_what_is_no_recording_is_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "text.mcap").write_text("hello")
    assert "not a complete MCAP file" in reading_fails_with(tmp_path / "text.mcap")
    (tmp_path / "empty.mcap").write_bytes(b"")
    assert "not a complete MCAP file" in reading_fails_with(tmp_path / "empty.mcap")

    with (tmp_path / "other.mcap").open("wb") as file:
        writer = Writer(file)
        writer.start()
        writer.finish()
    assert "not a recording of this program" in reading_fails_with(tmp_path / "other.mcap")

    whole = record(tmp_path / "whole.mcap", *(AudioBlock(n * 62_500_000, np.zeros(1000, np.int16)) for n in range(50)))
    (tmp_path / "cut.mcap").write_bytes(whole.read_bytes()[:-400])
    assert "not a complete MCAP file" in reading_fails_with(tmp_path / "cut.mcap")

    monkeypatch.setattr(mcap, "FORMAT", 2)
    newer = record(tmp_path / "newer.mcap", Transcript(1, ()))
    monkeypatch.setattr(mcap, "FORMAT", 1)
    assert "format 2, this version reads up to 1" in reading_fails_with(newer)


def test_face_rows_of_another_extractor_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = record(tmp_path / "a.mcap", VisionRows(1, FeatureRows.empty(len(FACE.columns))))
    other = type(FACE)(FACE.name, FACE.version + 1, FACE.columns, FACE.parameters)
    monkeypatch.setattr(mcap, "FACE", other)
    assert "another version of the extractor" in reading_fails_with(path)
