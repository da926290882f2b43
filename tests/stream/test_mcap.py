"""The container: what is written reads back to the bit, other tools open it, and what is wrong with a file is told."""

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mcap.reader import make_reader
from mcap.writer import Writer

from extractors.asr.recogniser import Word
from extractors.contract import FeatureRows
from extractors.face import CONTRACT as FACE
from extractors.text import WIDTH
from extractors.vad import VoiceChunk
from stream import mcap
from stream.errors import SourceError
from stream.mcap import METADATA, About, RecordingReader, RecordingWriter
from stream.messages import (
    END_NS,
    Anew,
    AudioBlock,
    Coded,
    Ended,
    Event,
    Gap,
    LaneScore,
    Latency,
    PartEnded,
    PartUnknown,
    RowsUpdate,
    Score,
    Tick,
    Transcript,
    Utterance,
    VisionRows,
    VoiceUpdate,
    WordsUpdate,
)
from stream.records import (
    AUDIO,
    ENTRIES,
    FACES,
    GAP,
    KINDS,
    OUTPUTS,
    PICTURE,
    TAKEN,
    TEXTS,
    VECTOR,
    VIDEO,
    WORDS,
    Kind,
    Record,
    TakenRecord,
    Texts,
    TextVector,
    without_words,
)

ABOUT = About(name="test", scripted=True, packets=("audio",))
SILENCE = AudioBlock(0, np.zeros(1000, np.int16))


def record(path: Path, *records: tuple[Kind[Any], Any], about: About = ABOUT) -> Path:
    with RecordingWriter(path, about) as recording:
        for number, (kind, value) in enumerate(records):
            recording.write(Record(number, number * 62_500_000, kind, value))
    return path


def values(path: Path) -> list[Any]:
    return [each.value for each in RecordingReader(path).records()]


# --- what is written reads back

finite = st.floats(width=32, allow_nan=False, allow_infinity=False)
times = st.integers(0, 2**62)
words = st.lists(st.builds(Word, st.text(min_size=1), times, times, st.none() | st.floats(0, 1)), max_size=4).map(tuple)
parts = st.sampled_from(["text", "audio", "vision", "voice"])


def rows(width: int) -> st.SearchStrategy[FeatureRows]:
    return st.lists(st.tuples(times, st.lists(finite, min_size=width, max_size=width)), max_size=2).map(
        lambda found: FeatureRows(
            np.array([t for t, _ in found], np.int64),
            np.array([row for _, row in found], np.float32).reshape(-1, width),
            np.array([t for t, _ in found][:1], np.int64),
        )
    )


chunks = st.lists(
    st.builds(VoiceChunk, times, st.integers(1, 512).map(lambda n: np.zeros(n, np.int16)), st.booleans(), st.booleans()),
    max_size=3,
).map(tuple)
lane_scores = st.builds(
    LaneScore, st.sampled_from(["ok", "unknown"]), st.none() | st.text(), st.none() | times, st.floats(0, 1)
)
any_score = st.builds(
    Score,
    st.sampled_from(["final", "provisional"]),
    *[st.integers(0, 10**6)] * 2,
    *[times] * 2,
    *[st.floats(-3, 3)] * 3,
    st.dictionaries(st.sampled_from(["text", "audio", "vision"]), lane_scores),
    words,
    st.integers(0, 99),
    *[st.none() | st.floats(0, 1)] * 2,
    st.none() | times,
    st.none() | st.builds(Latency, *[times] * 4),
)
anything = st.one_of(
    st.builds(AudioBlock, times, st.lists(st.integers(-32768, 32767), max_size=9).map(lambda x: np.array(x, np.int16))).map(
        lambda value: (AUDIO, value)
    ),
    st.builds(
        Coded, times, st.sampled_from(["hevc", "h264", "jpeg"]), st.binary(), st.binary(), st.integers(0, 3), st.booleans()
    ).map(lambda value: (PICTURE if value.format == "jpeg" else VIDEO, value)),
    st.builds(VisionRows, times, rows(len(FACE.columns))).map(lambda value: (FACES, value)),
    st.builds(Transcript, times, words).map(lambda value: (WORDS, value)),
    st.builds(Gap, st.sampled_from(["video", "audio"]), times, st.text()).map(lambda value: (GAP, value)),
    st.builds(TakenRecord, st.just("audio"), times, st.booleans(), st.none() | st.text(), st.booleans()).map(
        lambda value: (TAKEN, value)
    ),
    st.builds(TextVector, times, st.integers(0, 9).map(lambda n: np.full(WIDTH, n / 7, np.float32))).map(
        lambda value: (VECTOR, value)
    ),
    st.builds(Texts, st.tuples(st.none() | times, times), st.tuples(st.booleans(), st.booleans())).map(
        lambda value: (TEXTS, value)
    ),
    st.one_of(
        st.builds(RowsUpdate, st.just("vision"), rows(len(FACE.columns)), times),
        st.builds(VoiceUpdate, chunks, times),
        st.builds(WordsUpdate, words, words, times),
        st.builds(PartUnknown, parts, st.just(END_NS), st.text()),
        st.builds(PartEnded, parts),
        st.builds(Tick, times, st.booleans()),
        st.builds(Anew, times),
        st.builds(Event, times, st.sampled_from(["lost", "marked", "recording"]), st.text(), st.text(), st.integers(0, 9)),
        st.just(Ended()),
    ).map(lambda value: (ENTRIES[type(value)], value)),
    st.one_of(any_score, st.builds(Utterance, st.integers(0), times, times, *[st.floats(-3, 3)] * 3, words)).map(
        lambda value: (OUTPUTS[type(value)], value)
    ),
)


@settings(max_examples=60, deadline=None)
@given(written=st.lists(anything, max_size=8))
def test_what_is_written_reads_back_to_the_bit(
    tmp_path_factory: pytest.TempPathFactory, written: list[tuple[Kind[Any], Any]]
) -> None:
    path = record(tmp_path_factory.mktemp("r") / "a.mcap", *written)
    found = list(RecordingReader(path).records())
    assert [each.kind for each in found] == [kind for kind, _ in written]
    assert [each.number for each in found] == list(range(len(written)))
    # The bytes are a function of the value, so equal bytes are equal values.
    assert [each.kind.encode(each.value) for each in found] == [kind.encode(value) for kind, value in written]
    for each, (_, value) in zip(found, written, strict=True):
        if isinstance(value, RowsUpdate | VisionRows):
            assert np.array_equal(each.value.rows.values, value.rows.values)
        elif isinstance(value, VoiceUpdate):
            assert [chunk.end_ns for chunk in each.value.chunks] == [chunk.end_ns for chunk in value.chunks]
        elif type(value) in (Score, Utterance, WordsUpdate, Event, Tick, PartUnknown, Gap, Coded):
            assert each.value == value


def test_every_kind_has_a_schema_and_other_tools_find_it(tmp_path: Path) -> None:
    path = record(tmp_path / "a.mcap", (AUDIO, SILENCE), (WORDS, Transcript(1, ())), (PICTURE, Coded(2, "jpeg", b"")))
    with path.open("rb") as file:
        summary = make_reader(file).get_summary()
    assert summary is not None
    found = {channel.topic: summary.schemas[channel.schema_id].name for channel in summary.channels.values()}
    assert found == {"/audio": "foxglove.RawAudio", "/words": "mmlatch.Transcript", "/picture": "foxglove.CompressedImage"}
    for kind in KINDS.values():
        assert kind.schema["type"] == "object"
        json.dumps(kind.schema)


def test_words_can_be_left_out_and_their_number_stays() -> None:
    told = WordsUpdate((Word("well-made", 1, 2), Word("Thing!", 2, 3, 0.5)), (Word("perhaps", 3, 4),), 3)
    left = without_words(told)
    assert left == WordsUpdate((Word("x x", 1, 2), Word("x", 2, 3, 0.5)), (Word("x", 3, 4),), 3)
    assert without_words(Tick(1, True)) == Tick(1, True)


# --- what is wrong with a file


def opening_fails_with(path: Path) -> str:
    with pytest.raises(SourceError) as caught:
        RecordingReader(path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def problem(path: Path) -> str:
    reader = RecordingReader(path)
    list(reader.records())
    assert not reader.ended
    assert reader.problem
    assert "\n" not in reader.problem
    return reader.problem


def test_what_is_no_recording_is_told_apart(tmp_path: Path) -> None:
    assert "cannot be opened (No such file" in opening_fails_with(tmp_path / "none.mcap")
    for name, data in (("text", b"hello, world"), ("empty", b""), ("short", b"\x89MCAP0\r\n")):
        (tmp_path / name).write_bytes(data)
        assert "not an MCAP file; give a recording made with --record" in opening_fails_with(tmp_path / name)
    with (tmp_path / "other.mcap").open("wb") as file:
        writer = Writer(file)
        writer.start()
        writer.finish()
    assert "not a recording of this program" in opening_fails_with(tmp_path / "other.mcap")


def test_a_newer_format_asks_for_an_update_and_an_older_one_for_another_recording(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = record(tmp_path / "a.mcap", (WORDS, Transcript(1, ())))
    monkeypatch.setattr(mcap, "FORMAT", 1)
    assert "recording format 2, this version reads 1; update mmlatch-live" in opening_fails_with(path)
    monkeypatch.setattr(mcap, "FORMAT", 3)
    assert "recording format 2, this version reads 3; record it again" in opening_fails_with(path)


def test_what_it_says_of_itself_must_make_sense(tmp_path: Path) -> None:
    with (tmp_path / "a.mcap").open("wb") as file:
        writer = Writer(file)
        writer.start()
        writer.add_metadata(METADATA, {"format": "2", "about": '{"level": "everything"}'})
        writer.finish()
    assert "what it says of itself cannot be read" in opening_fails_with(tmp_path / "a.mcap")


def test_a_file_that_is_cut_short_or_still_grows_gives_what_is_there(tmp_path: Path) -> None:
    blocks = [(AUDIO, AudioBlock(n * 62_500_000, np.full(1000, n, np.int16))) for n in range(200)]
    whole = record(tmp_path / "whole.mcap", *blocks)
    data = whole.read_bytes()
    chooser = random.Random(0)
    for position in sorted(chooser.sample(range(2000, len(data)), 100)):
        (tmp_path / "cut.mcap").write_bytes(data[:position])
        reader = RecordingReader(tmp_path / "cut.mcap")
        found = [each.value.samples[0] for each in reader.records()]
        assert found == list(range(len(found)))
        assert reader.problem
        assert "without its index" in reader.problem
    with (tmp_path / "grows.mcap").open("wb") as growing:
        growing.write(data[:9000])
        growing.flush()
        reading = RecordingReader(tmp_path / "grows.mcap")
        before = len(list(reading.records()))
        growing.write(data[9000:])
        growing.flush()
        assert before < len(list(reading.records())) == 200
        assert reading.ended


def test_a_byte_that_was_changed_is_noticed(tmp_path: Path) -> None:
    blocks = [(AUDIO, AudioBlock(n * 62_500_000, np.full(1000, n, np.int16))) for n in range(200)]
    data = bytearray(record(tmp_path / "a.mcap", *blocks).read_bytes())
    data[len(data) // 2] ^= 0xFF
    (tmp_path / "b.mcap").write_bytes(data)
    reader = RecordingReader(tmp_path / "b.mcap")
    found = [each.value.samples[0] for each in reader.records()]
    assert found == list(range(len(found)))
    assert len(found) < 200 or reader.problem
    assert reader.problem


def test_times_that_run_backwards_are_noticed(tmp_path: Path) -> None:
    with RecordingWriter(tmp_path / "a.mcap", ABOUT) as recording:
        for number, t_ns in enumerate((10, 20, 15)):
            recording.write(Record(number, t_ns, AUDIO, SILENCE))
    assert "times run backwards at 0.0 s; what came before is used" in problem(tmp_path / "a.mcap")


@pytest.mark.parametrize(
    "data",
    [b"{}", b"not json", b'{"lane": "audio", "watermark_ns": 1, "rows_t_ns": [1, 2], "values": "AAAA", "absent_ns": []}'],
)
def test_a_record_that_is_not_what_its_topic_says_is_damage(tmp_path: Path, data: bytes) -> None:
    with RecordingWriter(tmp_path / "a.mcap", ABOUT) as recording:
        recording.write_encoded(Record(0, 0, ENTRIES[RowsUpdate], None), data)
    assert "damaged after 0.0 s" in problem(tmp_path / "a.mcap")


def test_values_that_are_not_finite_are_damage(tmp_path: Path) -> None:
    bad = FeatureRows(np.array([1]), np.full((1, len(FACE.columns)), np.nan, np.float32), np.empty(0, np.int64))
    assert "damaged" in problem(record(tmp_path / "a.mcap", (FACES, VisionRows(1, bad))))


def test_topics_of_others_are_passed_over(tmp_path: Path) -> None:
    with (tmp_path / "a.mcap").open("wb") as file:
        writer = Writer(file)
        writer.start()
        writer.add_metadata(METADATA, {"format": "2", "about": ABOUT.model_dump_json()})
        channel = writer.register_channel("/theirs", "json", 0)
        writer.add_message(channel, 5, b"{}", 5)
        writer.finish()
    assert values(tmp_path / "a.mcap") == []
