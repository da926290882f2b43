"""What is recorded replays to the last digit; a recording has no holes, and holds no more than was asked for."""

import asyncio
import errno
import itertools
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from extractors.asr.recogniser import Recognition, Word
from extractors.contract import FeatureRows
from extractors.vad import VoiceChunk
from stream import recorder as recorder_module
from stream.clock import ManualClock, PacedClock, UnpacedClock
from stream.errors import UsageError
from stream.mcap import RecordingReader
from stream.messages import AudioBlock, Coded, Lane, Output, Packet, Score, Transcript, VideoFrame, VisionRows
from stream.parts import Parts
from stream.pictures import decode_jpeg
from stream.recorder import Recorder, part_path
from stream.records import PACKETS, PICTURE, VIDEO
from stream.sources.camera import CameraSource
from stream.sources.recording import RecordingSource
from tests.conftest import ROOT
from tests.stream.recordings import config, in_file, published, record, replay, run
from tests.stream.sources.mjpeg import MjpegServer
from tests.stream.test_session import DEMO, SECOND, Guessing, shared_engine
from tests.stream.test_session_live import Studio
from tests.stream.wiring import Dictation, Face, ListSource, about, parts, until, video

EVENTS = ("lost", "recovered", "forced", "late", "reset", "marked")
SPOKEN = [packet for packet in DEMO if not isinstance(packet, Transcript)]
FILMED: list[Packet] = [video(packet.t_ns) if isinstance(packet, VisionRows) else packet for packet in SPOKEN]


def guessing() -> Parts:
    """With a recogniser that changes its mind."""
    return parts(words=Guessing(), on=shared_engine())


def filming() -> Parts:
    """With a face in pictures as well."""
    return parts(face=Face(), words=Guessing(), on=shared_engine())


def advances(gaps_ms: list[int], end_ns: int) -> list[int]:
    """Moments up to `end_ns`, so far apart, again and again."""
    found = list(
        itertools.takewhile(lambda t: t < end_ns, itertools.accumulate(itertools.cycle(g * 1_000_000 for g in gaps_ms)))
    )
    return [*found, end_ns]


# --- the same again


@pytest.mark.parametrize("words", [False, True], ids=["no words", "words"])
@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(gaps_ms=st.lists(st.integers(20, 900), min_size=1, max_size=5))
def test_from_features_everything_is_the_same_to_the_last_digit(
    tmp_path_factory: pytest.TempPathFactory, words: bool, gaps_ms: list[int]
) -> None:
    path = tmp_path_factory.mktemp("r") / "a.mcap"
    was = record(path, SPOKEN, guessing, ManualClock(), advances(gaps_ms, 8 * SECOND), words=words)
    assert was.provisional
    source = RecordingSource(path)
    again = replay(source, shared_engine())
    assert published(again.outputs, words=words) == published(was.outputs, words=words)
    assert source.problems == []
    assert published(was.outputs) == in_file(path) or words


@settings(max_examples=4, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(gaps_ms=st.lists(st.integers(20, 900), min_size=1, max_size=5))
def test_from_media_it_is_the_same_too(tmp_path_factory: pytest.TempPathFactory, gaps_ms: list[int]) -> None:
    path = tmp_path_factory.mktemp("r") / "a.mcap"
    was = record(path, SPOKEN, guessing, ManualClock(), advances(gaps_ms, 8 * SECOND), level="media")
    again = replay(RecordingSource(path, origin="media"), shared_engine(), guessing)
    assert published(again.outputs, words=True) == published(was.outputs, words=True)


def test_from_media_a_lane_that_has_less_to_say_is_not_waited_for(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    was = record(tmp_path / "a.mcap", SPOKEN, guessing, level="media")

    def deaf() -> Parts:
        piece = parts(on=shared_engine(), text="switched off")
        piece.text = None
        return piece

    again = replay(RecordingSource(tmp_path / "a.mcap", origin="media"), shared_engine(), deaf)
    assert [score.seq for score in again.finals] == [score.seq for score in was.finals]
    assert {score.lanes["text"].reason for score in again.finals} == {"switched off"}
    told = "the text lane has less to say than when it was recorded; scores will differ"
    assert [each.getMessage() for each in caplog.records].count(told) == 1


def test_pictures_that_were_coded_one_by_one_are_seen_again_as_they_were(tmp_path: Path) -> None:
    path = tmp_path / "a.mcap"
    was = record(path, FILMED, filming, ManualClock(), advances([250], 8 * SECOND), level="media")
    assert was.finals
    assert was.provisional
    again = replay(RecordingSource(path, origin="media"), shared_engine(), filming)
    assert published(again.outputs, words=True) == published(was.outputs, words=True)


class Looking(Face):
    """Sees a face in every picture, and in its features how bright the picture is."""

    def __init__(self) -> None:
        super().__init__()
        self.images: list[Any] = []

    def push(self, t_ns: int, image: Any) -> FeatureRows:
        self.images.append(image)
        rows = super().push(t_ns, image)
        return replace(rows, values=np.full_like(rows.values, image.mean()))


def seen_again(path: Path, frames: list[VideoFrame]) -> tuple[list[Any], list[Coded]]:
    """Record and replay a session with those pictures; returns what was looked at, both times, and what is in the file."""
    eyes: list[Looking] = []

    def make() -> Parts:
        eyes.append(Looking())
        return parts(face=eyes[-1], words=Guessing(), on=shared_engine())

    packets = sorted([*(packet for packet in SPOKEN if isinstance(packet, AudioBlock)), *frames], key=lambda each: each.t_ns)
    was = record(path, packets, make, ManualClock(), advances([250], 8 * SECOND), level="media")
    assert len({score.sentiment for score in was.finals}) > 8
    again = replay(RecordingSource(path, origin="media"), shared_engine(), make)
    assert published(again.outputs, words=True) == published(was.outputs, words=True)
    one, other = (each.images for each in eyes)
    assert len(one) == len(frames)
    assert all(map(np.array_equal, one, other))
    return one, [each.value for each in RecordingReader(path).records() if each.kind is PICTURE]


def test_pictures_that_a_camera_gives_as_jpeg_are_recorded_as_they_are(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    with MjpegServer(random.integers(0, 256, (20, 48, 64, 3), np.uint8), fps=100) as server:
        clock, frames = ManualClock(), []
        for frame in itertools.islice(CameraSource(server.url).packets(clock), 60):
            frames.append(frame)
            clock.advance(frame.t_ns + 100_000_000)
    seen, recorded = seen_again(tmp_path / "a.mcap", frames)
    assert all(map(np.array_equal, seen, [frame.image for frame in frames]))
    first = server.jpegs.index(recorded[0].data)
    assert [coded.data for coded in recorded] == list(itertools.islice(itertools.cycle(server.jpegs), first, first + 60))
    assert [coded.t_ns for coded in recorded] == [frame.t_ns for frame in frames]


def test_other_pictures_are_coded_and_what_that_leaves_of_them_is_looked_at(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (60, 48, 64, 3), np.uint8)
    seen, recorded = seen_again(tmp_path / "a.mcap", [VideoFrame(n * 100_000_000, image) for n, image in enumerate(images)])
    assert all(map(np.array_equal, seen, [decode_jpeg(coded).image for coded in recorded]))
    assert not any(map(np.array_equal, seen, images))


def test_a_replay_can_be_recorded_and_replayed(tmp_path: Path) -> None:
    was = record(tmp_path / "a.mcap", SPOKEN, guessing, ManualClock(), advances([300], 8 * SECOND), words=True)
    source = RecordingSource(tmp_path / "a.mcap")
    recorder = Recorder(tmp_path / "b.mcap", config(words=True), about(), packets=frozenset())
    piece = parts(on=shared_engine())
    piece.vision = piece.audio = piece.text = None
    piece.scorer._known = source.known
    run(source, piece, PacedClock(1000.0), recorder)
    again = replay(RecordingSource(tmp_path / "b.mcap"), shared_engine())
    assert published(again.outputs, words=True) == published(was.outputs, words=True)


def test_finals_alone_are_the_same_and_take_less_time(tmp_path: Path) -> None:
    was = record(tmp_path / "a.mcap", SPOKEN, guessing, ManualClock(), advances([300], 8 * SECOND), words=True)
    assert any(score.revised_from is not None for score in was.finals)
    again = replay(RecordingSource(tmp_path / "a.mcap"), shared_engine(), clock=UnpacedClock())
    assert published(again.outputs, words=True) == published([*lasting_of(was.outputs)], words=True)


def lasting_of(outputs: list[Output]) -> list[Output]:
    return [output for output in outputs if not (isinstance(output, Score) and output.kind == "provisional")]


def test_in_time_finals_are_the_same_and_nothing_is_provisional(tmp_path: Path) -> None:
    was = record(tmp_path / "a.mcap", SPOKEN, guessing)
    again = replay(RecordingSource(tmp_path / "a.mcap", arrivals="ideal"), shared_engine(), clock=UnpacedClock())
    assert again.lasting() == was.lasting()
    assert not again.provisional


class Pondering(Guessing):
    """Is sure of nothing before the sound is over."""

    def push(self, chunk: VoiceChunk, *, behind: bool = False) -> Recognition:
        self._open.append(Word("word", chunk.t_ns, chunk.end_ns))
        return Recognition((), (), 0)


@pytest.mark.parametrize("delay_ns", [0, 2 * SECOND])
def test_no_part_ends_before_what_it_has_said(tmp_path: Path, delay_ns: int) -> None:
    """Where there is no present, all parts end while the display is still at the beginning."""
    was = record(tmp_path / "a.mcap", SPOKEN, lambda: parts(words=Pondering(), on=shared_engine()))
    source = RecordingSource(tmp_path / "a.mcap", arrivals="ideal", delay_ns=delay_ns)
    assert replay(source, shared_engine(), clock=UnpacedClock()).lasting() == was.lasting()


@pytest.mark.clocked
def test_words_that_come_later_change_no_final(tmp_path: Path) -> None:
    was = record(tmp_path / "a.mcap", SPOKEN, guessing)
    late = replay(
        RecordingSource(tmp_path / "a.mcap", arrivals="ideal", delay_ns=2 * SECOND), shared_engine(), clock=PacedClock(8.0)
    )
    assert late.lasting() == was.lasting()
    known = [score.lanes["text"].status for score in late.provisional]
    assert known.count("unknown") > 5


# --- parts


def test_each_part_replays_by_itself_and_together_they_are_the_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.mcap"
    was = record(path, SPOKEN, guessing, ManualClock(), advances([250], 8 * SECOND), part_minutes=0.001)
    finals = {score.seq: score for score in was.finals}
    paths = sorted(tmp_path.glob("*.mcap"))
    assert len(paths) > 1
    assert paths[0] == path or part_path(path, 2) in paths
    seen: list[int] = []
    for each in paths:
        source = RecordingSource(each)
        again = replay(source, shared_engine())
        assert again.finals
        assert again.finals[0].seq == source.about.begin.seq
        assert published(again.finals) == published([finals[score.seq] for score in again.finals])
        recorded = in_file(each)
        assert published(again.outputs)[: len(recorded)] == recorded
        seen += [score.seq for score in again.finals]
    assert set(seen) == set(finals)


def test_a_part_of_a_film_begins_with_a_picture_that_stands_by_itself(tmp_path: Path) -> None:
    def show(t_ns: int) -> None:
        recorder.coded(Coded(t_ns, "h264", b"", key=t_ns % (2 * SECOND) == 0))

    recorder = Recorder(tmp_path / "a.mcap", config(level="media", part_minutes=0.001), about(), packets=frozenset({"audio"}))
    run(ListSource(SPOKEN, work=show), guessing(), UnpacedClock(), recorder)
    paths = list(tmp_path.glob("*.mcap"))
    assert len(paths) > 2
    for path in paths:
        records = list(RecordingReader(path).records())
        assert next(each.value.key for each in records if each.kind is VIDEO)
        assert records[-1].number == max(each.number for each in records)


def test_only_the_newest_parts_are_kept(tmp_path: Path) -> None:
    record(tmp_path / "a.mcap", SPOKEN, guessing, part_minutes=0.001, keep_parts=1)
    (path,) = tmp_path.glob("*.mcap")
    assert RecordingReader(path).about.part > 1


def test_parts_of_another_recording_are_no_parts_of_this_one(tmp_path: Path) -> None:
    others = [part_path(tmp_path / "a.mcap", part) for part in (2, 3)]
    for path in others:
        path.write_text("theirs")
    record(tmp_path / "a.mcap", SPOKEN, guessing, part_minutes=0.001, keep_parts=1)
    assert [path.read_text() for path in others] == ["theirs", "theirs"]
    (path,) = set(tmp_path.glob("*.mcap")) - set(others)
    assert RecordingReader(path).about.part > 3


def test_a_recording_that_waits_begins_when_it_is_asked_for_and_ends_when_it_is(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path / "a.mcap", config(standby=True), about(), packets=frozenset())
    source = ListSource(SPOKEN, work=lambda t_ns: recorder.start() if t_ns > 4 * SECOND else None)
    was = run(source, guessing(), PacedClock(2.0), recorder)
    (path,) = tmp_path.glob("*.mcap")
    again = RecordingSource(path)
    assert again.about.begin.seq > 0
    assert published(replay(again, shared_engine()).finals) == published(
        [score for score in was.finals if score.seq >= again.about.begin.seq]
    )
    assert [event.part for event in was.events("recording")][:1] == ["recording"]


# --- what is not in it


def test_features_hold_no_picture_no_sound_and_no_words(tmp_path: Path) -> None:
    record(tmp_path / "a.mcap", FILMED, filming)
    record(tmp_path / "b.mcap", FILMED, filming, level="media")
    secret = [b'"text":"noise', b'"text":"voice', b"perhaps"]
    private, media = (everything(tmp_path / name) for name in ("a.mcap", "b.mcap"))
    assert all(word in media for word in secret[:1])
    assert not any(word in private for word in secret)
    reader = RecordingReader(tmp_path / "a.mcap")
    assert not {each.kind.topic for each in reader.records()} & {*PACKETS, "taken"}
    sound = next(packet for packet in FILMED if not isinstance(packet, VideoFrame | VisionRows | Transcript))
    assert sound.samples[:64].tobytes() not in (tmp_path / "a.mcap").read_bytes()  # type: ignore[union-attr]


def everything(path: Path) -> bytes:
    """All that is in a recording, as it was before it was compressed."""
    reader = RecordingReader(path)
    return reader.about.model_dump_json().encode() + b"".join(each.kind.encode(each.value) for each in reader.records())


def test_scores_alone_are_no_more_than_that(tmp_path: Path) -> None:
    was = record(tmp_path / "a.mcap", SPOKEN, guessing, level="scores")
    assert in_file(tmp_path / "a.mcap") == published(was.outputs)
    assert {each.kind.topic for each in RecordingReader(tmp_path / "a.mcap").records()} <= {"score", "utterance", "event"}


# --- what goes wrong


def test_a_file_that_is_there_is_not_written_over(tmp_path: Path) -> None:
    (tmp_path / "a.mcap").write_text("mine")
    with pytest.raises(UsageError, match=r"a\.mcap: the file is there already; give another name, or remove it"):
        Recorder(tmp_path / "a.mcap", config(), about(), packets=frozenset())
    with pytest.raises(UsageError, match="cannot be written"):
        Recorder(tmp_path / "none" / "a.mcap", config(), about(), packets=frozenset())
    with pytest.raises(UsageError, match="the file is there already"):
        Recorder(tmp_path / "a.mcap", config(standby=True), about(), packets=frozenset())
    with pytest.raises(UsageError, match="cannot be written"):
        Recorder(tmp_path / "none" / "a.mcap", config(standby=True), about(), packets=frozenset())
    assert [path.name for path in tmp_path.iterdir()] == ["a.mcap"]


def test_a_full_disk_ends_the_recording_and_not_the_session(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written = recorder_module.RecordingWriter.write
    left = itertools.count(200, -1)

    def write(self: Any, record: Any) -> None:
        if next(left) < 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        written(self, record)

    monkeypatch.setattr(recorder_module.RecordingWriter, "write", write)
    was = record(tmp_path / "a.mcap", SPOKEN, guessing)
    assert len(was.finals) == 24
    (event,) = [event for event in was.events("lost") if event.part == "recording"]
    assert event.reason == "the recording ends here: the disk is full; make room"


def test_a_disk_that_is_full_at_the_very_end_is_told_when_all_is_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def close(self: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    path = tmp_path / "a.mcap"
    monkeypatch.setattr(recorder_module.RecordingWriter, "close", close)
    recorder = Recorder(path, config(), about(), packets=frozenset())
    run(ListSource(SPOKEN), guessing(), UnpacedClock(), recorder)
    assert recorder.close() == f"--record {path}: the recording ended before the session: the disk is full; make room"


def test_a_disk_that_hangs_at_the_end_is_told_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    released = threading.Event()
    monkeypatch.setattr(recorder_module.RecordingWriter, "close", lambda self: released.wait(20))
    recorder = Recorder(tmp_path / "a.mcap", config(), about(), packets=frozenset())
    assert "not all was written within 0.1 s" in str(recorder.close(0.1))
    released.set()
    assert recorder.close() is None


def test_what_waits_for_a_slow_disk_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recorder_module, "_MOST_RECORDS", 50)
    monkeypatch.setattr(recorder_module.RecordingWriter, "write", lambda self, record: time.sleep(0.02))
    was = record(tmp_path / "a.mcap", SPOKEN, guessing)
    assert [event.reason for event in was.events("lost")] == [
        "the recording ends here: the disk is too slow for it; record less, or elsewhere"
    ]


_WRITES = """
import sys
from pathlib import Path
from tests.stream.recordings import record
from tests.stream.test_recorder import SPOKEN, guessing
from stream.clock import PacedClock
print("ready", flush=True)
record(Path(sys.argv[1]), SPOKEN, guessing, PacedClock(1.0))
"""


def test_after_sigkill_all_is_readable_up_to_the_last_second_or_so(tmp_path: Path) -> None:
    path = tmp_path / "a.mcap"
    with subprocess.Popen(
        [sys.executable, "-c", _WRITES, str(path)], cwd=ROOT, stdout=subprocess.PIPE, env=os.environ
    ) as process:
        assert process.stdout
        process.stdout.readline()
        time.sleep(4.5)
        process.send_signal(signal.SIGKILL)
    source = RecordingSource(path)
    again = replay(source, shared_engine())
    assert published(again.outputs)[: len(in_file(path))] == in_file(path)
    (problem,) = source.problems
    assert "without its index" in problem
    records = list(RecordingReader(path).records())
    assert records[-1].t_ns > 2 * SECOND


# --- live sessions


@pytest.mark.clocked
@pytest.mark.parametrize("origin", ["features", "media"])
def test_a_live_session_in_which_everything_goes_wrong_replays_too(tmp_path: Path, origin: Any) -> None:
    """A camera that goes and comes back, words too late, an utterance begun by command, a pause."""
    path = tmp_path / "a.mcap"
    lateness: dict[Lane, int] = {"text": 2 * SECOND, "audio": 600 * SECOND, "vision": 600 * SECOND}

    async def scenario() -> Studio:
        studio = Studio(lateness=lateness, on=shared_engine())
        studio.session.recorder = Recorder(path, config(level="media"), about(), packets=frozenset(("audio", "video")))
        async with studio.running():
            await studio.go(1.5)
            studio.session.reset()
            studio.session.mark("here")
            studio.camera.unplug()
            studio.stuck = {"vision"}
            await studio.go(3)
            studio.camera.plug()
            await until(lambda: studio.camera.reading)
            studio.stuck.clear()
            await studio.go(1)
        studio.session.recorder.close()
        return studio

    studio = asyncio.run(scenario())
    assert {"reset", "marked", "lost", "recovered"} <= {event.kind for event in studio.screen.events(*EVENTS)}
    source = RecordingSource(path, origin=origin)
    make = (lambda: parts(face=Face(), words=Dictation(), on=shared_engine())) if origin == "media" else None
    again = replay(source, shared_engine(), make, lateness=lateness)
    assert published(again.outputs, words=True) == published(studio.screen.outputs, words=True)
    assert again.events(*EVENTS) == studio.screen.events(*EVENTS)
    assert source.problems == []


@pytest.mark.clocked
def test_words_that_are_overtaken_are_overtaken_again(tmp_path: Path) -> None:
    path = tmp_path / "a.mcap"
    held = threading.Event()
    lateness: dict[Lane, int] = {"text": 1 * SECOND, "audio": 600 * SECOND, "vision": 600 * SECOND}

    async def scenario() -> Studio:
        stuck = Dictation(lambda t_ns: held.wait(20) if t_ns > SECOND else None)
        studio = Studio(lateness=lateness, words=stuck, on=shared_engine())
        studio.session.recorder = Recorder(path, config(), about(), packets=frozenset())
        async with studio.running():
            await studio.go(1)
            studio.stuck = {"text"}
            await studio.go(3, within_s=1.5)
            held.set()
            studio.stuck.clear()
            await studio.go(1)
        studio.session.recorder.close()
        return studio

    studio = asyncio.run(scenario())
    assert studio.screen.events("forced")
    again = replay(RecordingSource(path), shared_engine(), lateness=lateness)
    assert published(again.outputs) == published(studio.screen.outputs)
    assert again.events("forced", "recovered", "late") == studio.screen.events("forced", "recovered", "late")
