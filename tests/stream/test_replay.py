"""Recording, replaying and the commands around it, as a user runs them; the demo stands for a session."""

import csv
import errno
import json
import subprocess
import sys
import wave
from dataclasses import replace as changed_to
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from stream import editing, live, recording, replay
from stream.mcap import About, RecordingReader
from stream.messages import Begin, Score
from tests.conftest import ROOT, SHARED

DEMO = ROOT / "stream" / "demo.mcap"


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """A recording of the demo at four times its speed, and the lines that were printed."""
    path = tmp_path_factory.mktemp("r") / "demo.mcap"
    return path, lines("stream.live", "--source", "demo", "--speed", "4", "--record", path, "--session", "x")


def lines(module: str, *arguments: Any) -> list[str]:
    """What a command prints, as a process of its own."""
    words = [str(each) for each in arguments]
    if "--session" in words:
        at = words.index("--session")
        words[at : at + 2] = ["--set", f"session={words[at + 1]}"]
    done = subprocess.run(
        [sys.executable, "-m", module, *words, *(["--format", "jsonl"] if module != "stream.recording" else [])],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def run(main: Any, *arguments: Any) -> int:
    """A command within this process."""
    code: int = main([str(each) for each in arguments])
    return code


def error(caplog: pytest.LogCaptureFixture) -> str:
    """The one line that says what is wrong."""
    (told,) = [each.getMessage() for each in caplog.records if each.levelname.lower() == "error"]
    assert "\n" not in told
    return told


def test_replayed_lines_are_the_same_byte_for_byte(recorded: tuple[Path, list[str]]) -> None:
    path, was = recorded
    assert {json.loads(line)["kind"] for line in was} >= {"final", "provisional", "utterance"}
    assert json.loads(was[0])["session"] == "x"
    assert lines("stream.replay", path, "--speed", "1000") == was
    lasting = [line for line in was if json.loads(line)["kind"] != "provisional"]
    assert lines("stream.replay", path, "--speed", "max") == lasting
    assert lines("stream.live", "--source", path, "--speed", "max") == lasting


def test_at_some_speed_the_same_lines_come_in_their_time(recorded: tuple[Path, list[str]]) -> None:
    path, was = recorded
    assert lines("stream.replay", path, "--speed", "8") == was


def test_another_model_gives_other_scores_of_the_same_windows(
    recorded: tuple[Path, list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    path, was = recorded
    assert run(replay.main, path, "--speed", "1000", "--format", "jsonl", "--model", "untrained") == 0
    found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    before = [json.loads(line) for line in was]
    assert [(line["kind"], line.get("seq")) for line in found] == [(line["kind"], line.get("seq")) for line in before]
    assert [line["sentiment"] for line in found] != [line["sentiment"] for line in before]
    assert [line.get("latency_ms") for line in found] == [line.get("latency_ms") for line in before]


def test_a_stretch_of_it(recorded: tuple[Path, list[str]], capsys: pytest.CaptureFixture[str]) -> None:
    path, was = recorded
    assert run(replay.main, path, "--speed", "max", "--format", "jsonl", "--start", "8", "--end", "12") == 0
    found = capsys.readouterr().out.splitlines()
    finals = {json.loads(line)["seq"]: line for line in was if json.loads(line)["kind"] == "final"}
    seen = [json.loads(line)["seq"] for line in found if json.loads(line)["kind"] == "final"]
    assert seen == list(range(seen[0], 48))
    assert seen[0] <= 32
    assert [line for line in found if json.loads(line)["kind"] == "final"] == [finals[seq] for seq in seen]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("--from", "media"), "holds features, but no pictures and no sound; record with --record-level media"),
        (("--arrivals", "never"), "--arrivals never: expected recorded, ideal, or delay=SECONDS"),
        (("--start", "x"), "--start x: expected seconds, as in 12.5"),
        (("--start", "5", "--end", "4"), "--end 4: not after --start 5"),
        (("--start", "99"), "ends before 99 s; begin earlier"),
        (("--end", "0"), "begins at 0 s; end after that"),
        (("--set", "windows.utterance_gap_s=2"), "windows and lateness are other than recorded"),
        (
            ("--arrivals", "ideal", "--set", "windows.hop_ms=500"),
            "windows are other than recorded; with --start, or where words",
        ),
        (("--record", "a.mcap", "--record-level", "media"), "--record-level media: features have no pictures and no sound"),
        (("--set", "windows.hop=500"), "windows.hop: unknown key"),
        (("--record-level", "media"), "--record-level and --record-words need a file; add --record FILE"),
        (("--record-words",), "--record-level and --record-words need a file; add --record FILE"),
    ],
)
def test_what_cannot_be_replayed_is_one_line(
    recorded: tuple[Path, list[str]], arguments: tuple[str, ...], expected: str, caplog: pytest.LogCaptureFixture
) -> None:
    assert run(replay.main, recorded[0], *arguments, "--speed", "max", "--format", "jsonl") == 2
    assert expected in error(caplog)


def test_a_recording_of_other_features_is_refused(
    recorded: tuple[Path, list[str]], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    reader = RecordingReader(recorded[0])
    other = reader.about.model_copy(update={"contracts": {**reader.about.contracts, "audio": "audio.0@0"}})
    editing.write(tmp_path / "a.mcap", other, reader.records())
    assert run(replay.main, tmp_path / "a.mcap", "--speed", "max", "--format", "jsonl") == 2
    assert "its features are of another version of the extractors" in error(caplog)


def test_a_file_that_is_there_is_not_written_over(recorded: tuple[Path, list[str]], caplog: pytest.LogCaptureFixture) -> None:
    assert run(live.main, "--source", "demo", "--speed", "max", "--format", "jsonl", "--record", recorded[0]) == 2
    assert f"--record {recorded[0]}: the file is there already; give another name" in error(caplog)


def test_a_recording_that_could_not_be_finished_is_told_at_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def close(self: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("stream.mcap.RecordingWriter.close", close)
    path = tmp_path / "a.mcap"
    assert run(live.main, "--source", "demo", "--speed", "max", "--format", "none", "--record", path) == 1
    assert error(caplog) == f"--record {path}: the recording ended before the session: the disk is full; make room"


def test_recorded_again_it_has_no_words_that_it_did_not_have(recorded: tuple[Path, list[str]], tmp_path: Path) -> None:
    lines("stream.replay", recorded[0], "--speed", "max", "--record", tmp_path / "again.mcap", "--record-words")
    assert not RecordingReader(tmp_path / "again.mcap").about.words


def test_several_sessions_have_a_file_each_and_replay_in_their_places(tmp_path: Path) -> None:
    was = lines("stream.live", "--source", "a=demo", "--source", "b=demo", "--speed", "max", "--record", tmp_path / "r.mcap")
    for name in ("a", "b"):
        path = tmp_path / f"r-{name}.mcap"
        assert lines("stream.replay", path, "--speed", "max") == [line for line in was if json.loads(line)["session"] == name]
    again = tmp_path / "again.mcap"
    lines("stream.replay", tmp_path / "r-b.mcap", "--speed", "max", "--record", again)
    for path in (tmp_path / "r-b.mcap", again):  # finals hang on the place, in their last digits
        assert (RecordingReader(path).about.row, RecordingReader(path).about.bucket) == (1, 2)


# --- the other commands


def test_info_and_list_say_what_there_is(recorded: tuple[Path, list[str]], capsys: pytest.CaptureFixture[str]) -> None:
    path, was = recorded
    assert run(recording.main, "info", path) == 0
    told = capsys.readouterr().out
    finals = sum(json.loads(line)["kind"] == "final" for line in was)
    assert "scripted demo, a script" in told
    assert "session   x on local" in told
    assert "level     features, without words" in told
    assert f"{finals} final" in told
    assert "MB a minute" in told
    assert run(recording.main, "list", path.parent) == 0
    assert path.name in capsys.readouterr().out
    assert run(recording.main, "list", path) == 2


def test_what_is_empty_or_has_no_scores_is_said_to_be(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    editing.write(tmp_path / "a.mcap", About(name="nothing", begin=Begin(seq=40)), ())
    assert run(recording.main, "info", tmp_path / "a.mcap") == 0
    told = capsys.readouterr().out
    assert "time      10.0 s to 10.0 s, 0.0 min" in told
    assert "MB a minute" not in told
    for path in (tmp_path / "a.mcap", DEMO):
        assert run(recording.main, "verify", path) == 0
        assert "whole; there are no scores in it with what they depend on" in capsys.readouterr().out


def test_verify_finds_it_whole_and_a_changed_score_in_it(
    recorded: tuple[Path, list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    path, was = recorded
    finals = sum(json.loads(line)["kind"] == "final" for line in was)
    assert run(recording.main, "verify", path) == 0
    assert f"{finals} final and" in capsys.readouterr().out
    reader = RecordingReader(path)
    changed = (
        changed_to(each, value=changed_to(each.value, sentiment=each.value.sentiment + 1e-7))
        if isinstance(each.value, Score) and (each.value.kind, each.value.seq) == ("final", 5)
        else each
        for each in reader.records()
    )
    editing.write(tmp_path / "a.mcap", reader.about, changed)
    assert run(recording.main, "verify", tmp_path / "a.mcap") == 1
    assert "the replay differs from 1.25 s on: final score 5" in error(caplog)


def test_what_was_cut_off_is_told_everywhere_and_mended(
    recorded: tuple[Path, list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    path, was = recorded
    broken = tmp_path / "broken.mcap"
    broken.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert run(replay.main, broken, "--speed", "1000", "--format", "jsonl") == 1
    assert "without its index" in error(caplog)
    found = capsys.readouterr().out.splitlines()
    assert found == was[: len(found)]
    assert run(recording.main, "info", broken) == 1
    assert run(recording.main, "verify", broken) == 1
    capsys.readouterr()
    assert run(recording.main, "repair", broken, tmp_path / "whole.mcap") == 0
    assert "records" in capsys.readouterr().out
    assert run(recording.main, "verify", tmp_path / "whole.mcap") == 0


def test_scores_as_a_table_and_as_a_plot(recorded: tuple[Path, list[str]], tmp_path: Path) -> None:
    path, was = recorded
    finals = [json.loads(line) for line in was if json.loads(line)["kind"] == "final"]
    out = {way: tmp_path / f"a.{ending}" for way, ending in (("csv", "csv"), ("parquet", "parquet"), ("plot", "svg"))}
    assert run(recording.main, "export", path, *(each for way in out for each in (f"--{way}", out[way]))) == 0
    with out["csv"].open() as file:
        table = list(csv.DictReader(file))
    assert [round(float(row["sentiment"]), 4) for row in table] == [line["sentiment"] for line in finals]
    assert {row["words"] for row in table} == {""}
    pyarrow = pytest.importorskip("pyarrow.parquet")
    assert pyarrow.read_table(out["parquet"]).column("seq").to_pylist() == [line["seq"] for line in finals]
    assert b"<svg" in out["plot"].read_bytes()
    assert run(recording.main, "export", path, "--csv", out["csv"]) == 2


def test_sound_and_pictures_with_the_score_in_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    clip = SHARED / "clips" / "grid_swwp2s.mpg"
    if not clip.exists():
        pytest.skip("no grid_swwp2s.mpg among the shared clips")
    path = tmp_path / "a.mcap"
    assert run(
        live.main, "--source", clip, "--speed", "max", "--format", "none", "--asr", "none", "--record", path,
        "--record-level", "media",
    ) == 0  # fmt: skip
    assert run(recording.main, "export", path, "--wav", tmp_path / "a.wav", "--mp4", tmp_path / "a.mp4") == 0
    with wave.open(str(tmp_path / "a.wav")) as sound:
        assert (sound.getframerate(), sound.getnchannels()) == (16000, 1)
        assert np.frombuffer(sound.readframes(sound.getnframes()), np.int16).std() > 50
        length_s = sound.getnframes() / 16000
    with av.open(str(tmp_path / "a.mp4")) as film:
        frames = [frame.to_ndarray(format="rgb24") for frame in film.decode(video=0)]
    assert len(frames) / 25 == pytest.approx(length_s, abs=0.3)
    with av.open(str(clip)) as original:
        first = next(original.decode(video=0)).to_ndarray(format="rgb24")
    assert np.abs(frames[0][: first.shape[0] // 2].astype(int) - first[: first.shape[0] // 2]).mean() < 12
    assert run(recording.main, "verify", path) == 0
    assert run(recording.main, "verify", path, "--from", "media") == 0
    capsys.readouterr()


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("export", DEMO), "export: say what, one or more of --csv OUT"),
        (("export", DEMO, "--plot", "a.gif"), "--plot a.gif: expected a name that ends in .png or .svg"),
        (("export", DEMO, "--mp4", "a.mp4"), "holds no pictures; record some with --record-level media"),
        (("export", DEMO, "--mp4", "a"), "--mp4 a: expected a name that ends in .mp4"),
        (("export", DEMO, "--mp4", "a.xyz"), "--mp4 a.xyz: expected a name that ends in .mp4"),
        (("info", "none.mcap"), "none.mcap: cannot be opened"),
        (("import", "none.mp4", "out.mcap"), "none.mp4: no such file"),
        (("crop", DEMO, "out.mcap", "--start", "3", "--end", "2"), "--end 2: not after --start 3"),
        (("crop", DEMO, "out.mcap", "--start", "99"), "ends before 99 s; begin earlier"),
        (("crop", DEMO, "out.mcap", "--end", "0"), "begins at 0 s; end after that"),
    ],
)
def test_a_mistake_is_one_line(arguments: tuple[Any, ...], expected: str, caplog: pytest.LogCaptureFixture) -> None:
    assert run(recording.main, *arguments) == 2
    assert expected in error(caplog)


def test_a_reader_that_has_had_enough_is_no_mistake() -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "stream.recording", "info", str(DEMO)],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    ) as process:  # fmt: skip
        assert process.stdout
        assert process.stderr
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 0


def test_help_loads_nothing_heavy() -> None:
    for module in ("stream.replay", "stream.recording"):
        code = f"import sys, {module}; {module}.parser().format_help(); print(*sorted(sys.modules))"
        loaded = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout
        assert not {"torch", "numpy", "av", "mcap", "pydantic"} & set(loaded.split())
