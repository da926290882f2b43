"""What is cut out of a recording replays as the whole does; parts make the whole again; what is broken is mended."""

import json
import random
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from mcap.reader import make_reader

from stream import editing
from stream.clock import ManualClock, UnpacedClock
from stream.errors import SourceError, UsageError
from stream.mcap import RecordingReader
from stream.messages import AudioBlock, Packet, RowsUpdate, Score, VideoFrame, VisionRows, WordsUpdate
from stream.records import PACKETS
from stream.sources.media import MediaSource
from stream.sources.recording import Origin, RecordingSource
from tests.conftest import ROOT, SHARED
from tests.stream.recordings import in_file, published, record, replay
from tests.stream.test_recorder import SPOKEN, advances, guessing
from tests.stream.test_session import DEMO, SECOND, shared_engine
from tests.stream.wiring import HOP


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("r") / "whole.mcap"
    record(path, SPOKEN, guessing, ManualClock(), advances([250], 8 * SECOND), level="media")
    return path


def of(path: Path) -> dict[int, bytes]:
    """The final scores in a recording."""
    kept = (each.value for each in RecordingReader(path).records())
    finals = [value for value in kept if isinstance(value, Score) and value.kind == "final"]
    return dict(zip([score.seq for score in finals], published(finals), strict=True))


@pytest.mark.parametrize(("start", "end"), [(None, 3.0), (2.0, None), (3.3, 5.2), (0.0, None)])
def test_a_part_replays_as_the_whole_does(whole: Path, tmp_path: Path, start: float | None, end: float | None) -> None:
    start_ns, end_ns = (None if each is None else round(each * SECOND) for each in (start, end))
    about = editing.crop(whole, tmp_path / "part.mcap", start_ns, end_ns)
    assert about.begin.seq * HOP <= (start_ns or 0)
    expected = of(whole)
    found = of(tmp_path / "part.mcap")
    last = max(expected) if end_ns is None else -(-end_ns // HOP) - 1
    assert sorted(found) == list(range(about.begin.seq, last + 1))
    again = replay(RecordingSource(tmp_path / "part.mcap"), shared_engine())
    assert published(again.finals) == [expected[seq] for seq in sorted(found)]
    assert published(again.outputs)[: len(in_file(tmp_path / "part.mcap"))] == in_file(tmp_path / "part.mcap")


def test_a_start_that_is_passed_without_cropping_is_the_same(whole: Path) -> None:
    again = replay(RecordingSource(whole, start_ns=3 * SECOND, end_ns=5 * SECOND), shared_engine())
    expected = of(whole)
    assert again.finals
    assert published(again.finals) == [expected[score.seq] for score in again.finals]


@pytest.mark.parametrize(("level", "arrivals"), [("features", "recorded"), ("features", "ideal"), ("media", "recorded")])
def test_a_replay_ends_where_it_is_to(tmp_path: Path, level: Origin, arrivals: Any) -> None:
    """The recogniser is sure of a second when it is over, so windows beyond the end are settled with those before it."""
    record(tmp_path / "a.mcap", SPOKEN, guessing, level=level)
    source = RecordingSource(tmp_path / "a.mcap", origin=level, arrivals=arrivals, end_ns=13 * HOP + 1)
    again = replay(source, shared_engine(), guessing if level == "media" else None)
    assert [score.seq for score in again.finals] == list(range(14))


def test_from_media_the_beginning_is_the_same_and_the_middle_is_refused(whole: Path, tmp_path: Path) -> None:
    editing.crop(whole, tmp_path / "begin.mcap", None, 4 * SECOND)
    again = replay(RecordingSource(tmp_path / "begin.mcap", origin="media"), shared_engine(), guessing)
    found = of(tmp_path / "begin.mcap")
    assert published(again.finals[: len(found)]) == list(found.values())
    editing.crop(whole, tmp_path / "middle.mcap", 3 * SECOND, None)
    with pytest.raises(SourceError, match="replay --from features, or with --arrivals ideal"):
        RecordingSource(tmp_path / "middle.mcap", origin="media")
    ideal = RecordingSource(tmp_path / "middle.mcap", origin="media", arrivals="ideal")
    packets = list(ideal.packets(UnpacedClock()))
    assert min(packet.t_ns for packet in packets) >= ideal.about.begin.seq * HOP


@pytest.mark.parametrize("start_ns", [None, 0])
def test_after_its_end_a_part_holds_only_what_its_last_windows_waited_for(
    whole: Path, tmp_path: Path, start_ns: int | None, caplog: pytest.LogCaptureFixture
) -> None:
    """The recogniser is sure of a second when it is over, so it has to hear all of the fourth."""
    end_ns = 13 * HOP
    editing.crop(whole, tmp_path / "part.mcap", start_ns, end_ns)
    values = [each.value for each in RecordingReader(tmp_path / "part.mcap").records()]
    assert max(value.t_ns for value in values if isinstance(value, AudioBlock)) < 5 * SECOND
    assert max(value.t_ns for value in values if isinstance(value, VisionRows)) <= end_ns + HOP
    assert max(value.t_start_ns for value in values if isinstance(value, Score)) < end_ns
    assert max(rows.t_ns.max(initial=0) for value in values if isinstance(value, RowsUpdate) for rows in [value.rows]) < end_ns
    said = [word for value in values if isinstance(value, WordsUpdate) for word in (*value.final, *value.provisional)]
    assert {set(word.text) <= {*"x "} for word in said if word.end_ns > end_ns} == {True}
    assert not any(set(word.text) <= {*"x "} for word in said if word.end_ns <= end_ns)
    for source, make in (
        (RecordingSource(tmp_path / "part.mcap"), None),
        (RecordingSource(tmp_path / "part.mcap", origin="media"), guessing),
    ):
        assert published(replay(source, shared_engine(), make).outputs) == in_file(tmp_path / "part.mcap")
    assert not [each for each in caplog.records if "has less to say" in each.getMessage()]


def test_a_film_without_sound_is_cut_to_the_pictures_in_view(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "a.mp4"), "w") as film:
        video = film.add_stream("mpeg4", rate=10, width=64, height=64)
        video.codec_context.gop_size, video.codec_context.max_b_frames = 8, 2
        for number in range(40):
            film.mux(video.encode(av.VideoFrame.from_ndarray(np.full((64, 64, 3), 5 * number, np.uint8), format="rgb24")))
        film.mux(video.encode())
    editing.import_media(str(tmp_path / "a.mp4"), tmp_path / "a.mcap")
    editing.crop(tmp_path / "a.mcap", tmp_path / "b.mcap", 1 * SECOND, 2 * SECOND)
    coded = [each.value for each in RecordingReader(tmp_path / "b.mcap").records()]
    assert max(each.t_ns for each in coded) < 2.3 * SECOND  # those in view before may hang on the next two
    whole, part = (
        {packet.t_ns: packet for packet in source.packets(UnpacedClock()) if isinstance(packet, VideoFrame)}
        for source in (RecordingSource(tmp_path / "a.mcap"), RecordingSource(tmp_path / "b.mcap", end_ns=2 * SECOND))
    )
    seen = [t_ns for t_ns in part if t_ns >= 1 * SECOND]
    assert seen == [t_ns for t_ns in whole if 1 * SECOND <= t_ns < 2 * SECOND]
    assert all((part[t_ns].image == whole[t_ns].image).all() for t_ns in seen)


def test_parts_are_the_whole_again_and_a_missing_one_is_noticed(tmp_path: Path) -> None:
    record(tmp_path / "a.mcap", SPOKEN, guessing, part_minutes=0.001)
    paths = sorted(tmp_path.glob("*.mcap"), key=lambda path: RecordingReader(path).about.part)
    assert len(paths) > 2
    editing.merge(list(reversed(paths)), tmp_path / "all.mcap")
    assert [n for path in paths for n in of(path)] == list(of(tmp_path / "all.mcap"))
    again = replay(RecordingSource(tmp_path / "all.mcap"), shared_engine())
    assert published(again.outputs) == in_file(tmp_path / "all.mcap")
    with pytest.raises(UsageError, match="there is a part missing"):
        editing.merge([paths[0], paths[-1]], tmp_path / "b.mcap")
    assert not (tmp_path / "b.mcap").exists()


def test_an_utterance_is_in_the_part_in_which_it_was(tmp_path: Path) -> None:
    """Where it would grow too long it is over, and the next part may begin at once."""
    was = record(tmp_path / "a.mcap", SPOKEN, guessing, part_minutes=0.001)
    paths = sorted(tmp_path.glob("*.mcap"))
    assert max(RecordingReader(path).about.begin.seq * HOP for path in paths) == was.utterances[0].t_end_ns
    for path in paths:
        found = in_file(path)
        assert published(replay(RecordingSource(path), shared_engine()).outputs)[: len(found)] == found


def test_parts_of_different_recordings_are_not_joined(whole: Path, tmp_path: Path) -> None:
    record(tmp_path / "a.mcap", SPOKEN[:100], guessing)
    with pytest.raises(UsageError, match="of another session, or recorded otherwise"):
        editing.merge([whole, tmp_path / "a.mcap"], tmp_path / "b.mcap")
    with pytest.raises(UsageError, match="of a media file, not of a session"):
        editing.merge([ROOT / "stream" / "demo.mcap"], tmp_path / "b.mcap")


def test_sessions_that_say_the_same_of_themselves_are_told_apart(tmp_path: Path) -> None:
    one, other = tmp_path / "a.mcap", tmp_path / "b.mcap"
    for path, packets in ((one, SPOKEN[:100]), (other, SPOKEN)):
        record(path, packets, guessing)
    with pytest.raises(UsageError, match="of another session, or recorded otherwise"):
        editing.merge([one, other], tmp_path / "c.mcap")


def test_without_an_id_times_that_go_back_tell_sessions_apart(whole: Path, tmp_path: Path) -> None:
    """As recordings of earlier versions have none."""
    reader = RecordingReader(whole)
    about = reader.about.model_copy(update={"id": None})
    *records, end = reader.records()
    editing.write(tmp_path / "a.mcap", about, records)
    editing.write(tmp_path / "b.mcap", about, [replace(end, number=end.number + 1, t_ns=0)])
    with pytest.raises(UsageError, match=r"b\.mcap: begins before the part before it has ended"):
        editing.merge([tmp_path / "a.mcap", tmp_path / "b.mcap"], tmp_path / "c.mcap")
    assert not (tmp_path / "c.mcap").exists()
    editing.merge([tmp_path / "a.mcap"], tmp_path / "c.mcap")


def test_what_was_cut_off_at_any_moment_is_mended_without_a_wrong_value(whole: Path, tmp_path: Path) -> None:
    """As a file is written from its beginning to its end, each of its beginnings is what a kill could have left."""
    data = whole.read_bytes()
    expected = in_file(whole)
    chooser = random.Random(1)
    lengths = []
    for number, position in enumerate(sorted(chooser.sample(range(6000, len(data)), 100))):
        broken, mended = tmp_path / f"{number}.mcap", tmp_path / f"{number}-mended.mcap"
        broken.write_bytes(data[:position])
        editing.repair(broken, mended)
        reader = RecordingReader(mended)
        list(reader.records())
        assert reader.ended
        found = in_file(mended)
        assert found == expected[: len(found)]
        lengths.append(len(found))
        if number % 25 == 0:
            again = published(replay(RecordingSource(mended), shared_engine()).outputs)
            assert again[: len(found)] == found
    assert lengths == sorted(lengths)
    assert lengths[-1] > 0.8 * len(expected)


def test_packets_alone_are_cut_by_their_times(tmp_path: Path) -> None:
    about = editing.crop(ROOT / "stream" / "demo.mcap", tmp_path / "a.mcap", 2 * SECOND, 4 * SECOND)
    assert about.begin.seq == 8
    found = [each.value.t_ns for each in RecordingReader(tmp_path / "a.mcap").records() if each.kind.topic in PACKETS]
    assert min(found) >= 2 * SECOND
    assert max(found) < 4 * SECOND
    assert len(found) == sum(2 * SECOND <= packet.t_ns < 4 * SECOND for packet in DEMO)


@pytest.mark.parametrize("clip", ["grid_swwp2s.mpg", "enters.mov"])
def test_a_media_file_that_was_imported_brings_the_same_pictures_and_the_same_sound(clip: str, tmp_path: Path) -> None:
    path = SHARED / "clips" / clip
    if not path.exists():
        pytest.skip(f"no {clip} among the shared clips")
    out = tmp_path / "a.mcap"
    assert editing.import_media(str(path), out) == []
    source = RecordingSource(out)
    again: list[Packet] = list(source.packets(UnpacedClock()))
    original = list(MediaSource(str(path)).packets(UnpacedClock()))
    for kind in (VideoFrame, AudioBlock):
        found, expected = ([each for each in packets if isinstance(each, kind)] for packets in (again, original))
        assert [each.t_ns for each in found] == [each.t_ns for each in expected]
        field = "image" if kind is VideoFrame else "samples"
        assert all((getattr(a, field) == getattr(b, field)).all() for a, b in zip(found, expected, strict=True))
    with pytest.raises(UsageError, match="is there already"):
        editing.import_media(str(path), out)


def test_av1_is_named_as_the_schema_names_it(tmp_path: Path) -> None:
    if "libsvtav1" not in av.codecs_available:
        pytest.skip("no encoder for AV1 in this FFmpeg")
    with av.open(str(tmp_path / "a.mp4"), "w") as film:
        video = film.add_stream("libsvtav1", rate=10, width=64, height=64)
        for number in range(5):
            film.mux(video.encode(av.VideoFrame.from_ndarray(np.full((64, 64, 3), 40 * number, np.uint8), format="rgb24")))
        film.mux(video.encode())
    editing.import_media(str(tmp_path / "a.mp4"), tmp_path / "a.mcap")
    with (tmp_path / "a.mcap").open("rb") as file:
        assert {json.loads(message.data)["format"] for _, _, message in make_reader(file).iter_messages()} == {"av1"}
    packets = list(RecordingSource(tmp_path / "a.mcap").packets(UnpacedClock()))
    assert [round(packet.t_ns / 1e8) for packet in packets] == [0, 1, 2, 3, 4]


_KILLED = """
import os, random, signal, sys, time
from pathlib import Path

from stream import recorder
from stream.config import Config, RecordConfig
from stream.messages import Event, Tick
from tests.stream.wiring import about

recorder._FLUSH_S = 0.01
folder, chooser = Path(sys.argv[1]), random.Random(2)
for number in range(100):
    child = os.fork()
    if not child:
        recording = recorder.Recorder(folder / f"{number}.mcap", Config(), about(), packets=frozenset())
        for n in range(10**6):
            recording.entry(n * 1000, Tick(n * 1000, True))
            recording.output(n * 1000, Event(n * 1000, "marked", "session", str(n)), ())
            if n % 20 == 0:
                time.sleep(0.001)
        os._exit(0)
    time.sleep(chooser.uniform(0.03, 0.25))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
"""


def test_killed_at_a_hundred_moments_each_recording_is_mended_up_to_its_last_chunk(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-c", _KILLED, str(tmp_path)], cwd=ROOT, check=True)
    counts = []
    for number in range(100):
        path = tmp_path / f"{number}.mcap"
        if not path.exists():  # it had not begun
            continue
        try:
            RecordingReader(path)
        except SourceError:  # not even what it says of itself was on the disk
            continue
        count, problem = editing.repair(path, tmp_path / f"{number}-mended.mcap")
        mended = list(RecordingReader(tmp_path / f"{number}-mended.mcap").records())
        assert problem is not None
        assert len(mended) == count
        assert [each.number for each in mended] == list(range(1, count + 1))
        assert [each.value.t_ns for each in mended] == [n // 2 * 1000 for n in range(count)]
        counts.append(count)
    assert len(counts) > 80
    assert max(counts) > 200
