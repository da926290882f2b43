"""The command, as a user runs it: real files, real extractors, real recogniser."""

import contextlib
import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch

from extractors.text import WIDTH
from models.checkpoint import Card
from models.mmlatch import CausalMMLatch, CausalMMLatchConfig
from stream import parts
from stream.config import Config, ModelConfig, WindowsConfig
from stream.engine import Engine
from stream.errors import UsageError
from stream.live import main, open_sources
from stream.messages import SessionInfo
from stream.windows import contracts, pooled_width
from tests.conftest import ROOT
from tests.stream.wiring import Device, lasting, wait_for


class Run:
    """What a run of the command gave."""

    def __init__(self, capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> None:
        capsys.readouterr()
        self.code = main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        self.out = captured.out
        self.errors = captured.err.splitlines()

    @property
    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.out.splitlines()]

    @property
    def finals(self) -> list[dict[str, Any]]:
        scores = of_kind("final", self.lines)
        assert [score["seq"] for score in scores] == list(range(len(scores)))
        return scores

    def statuses(self, lane: str) -> list[str]:
        return [score["modalities"][lane]["status"] for score in self.finals]


def of_kind(kind: str, lines: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    return [line for line in lines if line["kind"] == kind]


@pytest.fixture
def live(capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture) -> Any:
    return lambda *arguments: Run(capsys, *arguments)


FAST = ("--format", "jsonl", "--speed", "max")


# --- the bundled demo: needs nothing


def test_the_demo_runs_twice_to_the_same_bytes_with_all_lanes(live: Any) -> None:
    one, two = live("--source", "demo", *FAST), live("--source", "demo", *FAST)
    assert one.code == two.code == 0
    assert one.out == two.out
    assert len(one.finals) == 82
    assert {line["kind"] for line in one.lines} == {"final", "utterance"}
    assert [line["utterance"] for line in of_kind("utterance", one.lines)] == [0, 1, 2, 3]
    assert all(score["scripted"] and score["trained"] for score in one.finals)
    for lane in ("text", "audio", "vision"):
        assert "ok" in one.statuses(lane)
        assert "unavailable" not in one.statuses(lane)
    assert "missing" in one.statuses("vision")  # the scripted moment with nobody in view


def test_the_demo_in_real_time_shows_provisional_scores_first(live: Any) -> None:
    run = live("--source", "demo", "--format", "jsonl", "--speed", "2")
    provisional = of_kind("provisional", run.lines)
    assert run.code == 0
    assert len(run.finals) == 82
    assert {score["seq"] for score in provisional} <= set(range(82))
    assert len(provisional) > 40
    assert all(s["latency_ms"]["capture_to_publish"] >= 0 and s["t_end_unix_s"] > 0 for s in [*run.finals, *provisional])
    assert of_kind("event", run.lines) == []


def test_the_console_shows_the_demo(live: Any) -> None:
    run = live("--source", "demo", "--format", "console", "--speed", "max")
    assert run.code == 0
    for part in ("scripted demo", "82 finals", "mmlatch-causal@", "best present of the year"):
        assert part in run.out


# --- a checkpoint


def test_mfm_comes_with_the_program_too(live: Any) -> None:
    run, other = (live("--source", "demo", *FAST, *model) for model in (("--model", "mfm"), ()))
    assert run.code == 0
    assert len(run.finals) == 82
    assert all(score["model"].startswith("mfm-causal@") and score["trained"] for score in run.finals)
    scores = np.array([[score["sentiment"] for score in each.finals] for each in (run, other)])
    assert np.corrcoef(scores)[0, 1] > 0.8
    assert (scores[0] != scores[1]).any()


Checkpoint = Callable[..., Path]


@pytest.fixture
def checkpoint(tmp_path: Path) -> Checkpoint:
    def make(
        *, name: str = "fitted", hop_ms: int = 250, data: tuple[str, ...] = ("test",), cut: int = 0, **changed: Any
    ) -> Path:
        shape = {"text": WIDTH, "audio": pooled_width("audio"), "vision": pooled_width("vision"), "hidden": 8, "max_steps": 120}
        fed = contracts(hop_ms * 1_000_000) | changed.pop("contracts", {})
        model = CausalMMLatch.untrained(CausalMMLatchConfig(**(shape | changed)), seed=1)
        model.card = Card(fed, data)
        model.save_pretrained(tmp_path / name)
        if cut:
            os.truncate(tmp_path / name / "model.safetensors", cut)
        return tmp_path / name

    return make


def loaded(location: Path | str, **windows: Any) -> SessionInfo:
    """What a session with that checkpoint says of itself."""
    config = Config(model=ModelConfig(checkpoint=str(location)), windows=WindowsConfig(**windows))
    sources = open_sources("demo")
    [found] = parts.load(config, [parts.Input("live", sources)], torch.device("cpu"))
    found.close()
    for source in sources:
        source.close()
    return found.info


def test_a_checkpoint_scores_the_demo(
    live: Any, checkpoint: Checkpoint, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = checkpoint()
    (tmp_path / "mine.yaml").write_text(f"model: {{checkpoint: {folder}}}\n")
    one = live("--source", "demo", *FAST, "--set", "model.checkpoint=elsewhere", "--model", folder)
    two = live("--source", "demo", *FAST, "--config", tmp_path / "mine.yaml")
    assert one.code == two.code == 0
    assert one.out == two.out
    assert len(one.finals) == 82
    digest = CausalMMLatch.from_pretrained(folder).digest()
    assert {(score["model"], score["trained"]) for score in one.finals} == {(f"fitted@{digest}", True)}
    assert all(0 < score["uncertainty"] < 3 for score in one.finals)
    assert "untrained" not in caplog.text


def test_a_checkpoint_that_was_fitted_on_nothing_is_untrained(checkpoint: Checkpoint) -> None:
    info = loaded(checkpoint(data=()))
    assert info.model.startswith("fitted@")
    assert not info.trained_on
    assert info.notices == ("the model is untrained: its scores mean nothing yet",)
    assert (bool(loaded(checkpoint()).trained_on), loaded(checkpoint()).notices) == (True, ())


def test_a_checkpoint_serves_utterances_that_are_no_longer_than_it_looks_back(checkpoint: Checkpoint) -> None:
    folder = checkpoint(max_steps=80, hop_ms=200)
    assert loaded(folder, hop_ms=200, max_utterance_s=16.0).trained_on
    with pytest.raises(UsageError, match=r"over 80 windows.*max_utterance_s asks for 81; set it to 16 or less"):
        loaded(folder, hop_ms=200, max_utterance_s=16.2)


UNFIT: dict[str, tuple[dict[str, Any], tuple[str, ...], str]] = {
    "windows": ({"hop_ms": 100}, (), "words so far/250000000ns here and mean+std,words so far/100000000ns there"),
    "hop": ({}, ("--set", "windows.hop_ms=500"), "words so far/500000000ns here and mean+std,words so far/250000000ns there"),
    "features": ({"contracts": {"audio": "audio.0@0000000000000000"}}, (), " here and audio.0@0000000000000000 there"),
    "steps": (
        {"max_steps": 80},
        (),
        "looks back over 80 windows, and windows.max_utterance_s asks for 120; set it to 20 or less",
    ),
    "none": ({}, ("--model", "no/such/folder"), "--model no/such/folder: there is no such folder"),
    "damaged": ({"cut": 5000}, (), "model.safetensors: cut short or damaged"),
}


@pytest.mark.parametrize("case", UNFIT, ids=str)
def test_a_checkpoint_that_does_not_fit_is_one_line(
    case: str, live: Any, checkpoint: Checkpoint, caplog: pytest.LogCaptureFixture
) -> None:
    options, arguments, part = UNFIT[case]
    run = live("--source", "demo", "--format", "jsonl", "--model", checkpoint(**options), *arguments)
    assert (run.code, run.out, len(caplog.records)) == (2, "", 1)
    assert "\n" not in caplog.records[0].getMessage()
    assert caplog.records[0].getMessage().startswith("--model ")
    assert part in caplog.text


@pytest.mark.parametrize("graphs", [True, False])
def test_the_engine_is_told_whether_to_use_graphs(graphs: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[bool] = []

    def engine(*given: Any, **named: Any) -> Engine:
        seen.append(named["graphs"])
        return Engine(*given, **named)

    monkeypatch.setattr(parts, "Engine", engine)
    sources = open_sources("demo")
    config = Config(model=ModelConfig(cuda_graphs=graphs))
    for loaded in parts.load(config, [parts.Input("live", sources)], torch.device("cpu")):
        loaded.close()
    for source in sources:
        source.close()
    assert seen == [graphs]


def test_a_checkpoint_of_lanes_of_other_widths_is_one_line(
    live: Any, checkpoint: Checkpoint, caplog: pytest.LogCaptureFixture
) -> None:
    run = live("--source", "demo", *FAST, "--model", checkpoint(text=8))
    assert (run.code, run.out, len(caplog.records)) == (2, "", 1)


def test_an_empty_name_is_no_checkpoint(live: Any) -> None:
    assert live("--source", "demo", *FAST, "--model", "").code == 2


def test_a_checkpoint_may_have_any_name(live: Any, checkpoint: Checkpoint) -> None:
    assert live("--source", "demo", *FAST, "--model", checkpoint(name="\N{GRINNING FACE}")).code == 0


def test_a_checkpoint_in_the_current_folder_has_the_folders_name(
    checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(checkpoint())
    assert loaded(".").model.startswith("fitted@")


# --- several sessions


def test_sessions_side_by_side_have_their_names_and_the_scores_they_have_alone(live: Any) -> None:
    alone, both = live("--source", "demo", *FAST), live("--source", "a=demo", "--source", "demo", *FAST)
    assert alone.code == both.code == 0
    sessions = {name: [line for line in both.lines if line["session"] == name] for name in ("a", "live-2")}
    assert sum(map(len, sessions.values())) == len(both.lines)
    one, two = ([line | {"session": "live"} for line in lines] for lines in sessions.values())
    assert one == two
    # Sums over the rows of a larger batch may differ in their last digits.
    assert [line | {"sentiment": 0} for line in rounded(one)] == [line | {"sentiment": 0} for line in rounded(alone.lines)]
    assert [line["sentiment"] for line in one] == pytest.approx([line["sentiment"] for line in alone.lines], abs=2e-4)


def rounded(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Without the other figures of the model."""
    figures = {"sentiment_smooth", "uncertainty", "class7", "polarity", "mean", "peak"}
    kept = [{key: value for key, value in line.items() if key not in figures} for line in lines]
    for line in kept:
        for lane in line.get("modalities", {}).values():
            del lane["weight"]
    return kept


# --- real clips


def test_a_real_talk_gives_a_final_for_each_window_with_all_lanes(live: Any, shared: Path, with_assets: None) -> None:
    one = live("--source", shared / "clips" / "talk1.mp4", "--asr", "sphinx", *FAST)
    assert one.code == 0
    assert len(one.finals) == 41  # 10.008 s
    assert [s["t_end_s"] for s in one.finals] == [0.25 * (k + 1) for k in range(41)]
    assert one.statuses("vision").count("ok") == 40
    assert one.statuses("audio").count("ok") > 30
    assert one.statuses("text").count("ok") > 5
    two = live("--source", shared / "clips" / "talk1.mp4", "--asr", "sphinx", *FAST)
    assert one.out == two.out


def test_finals_of_a_real_talk_are_the_same_bytes_in_real_time_and_as_fast_as_it_goes(
    live: Any, shared: Path, with_assets: None
) -> None:
    arguments = ("--source", shared / "clips" / "talk2.mp4", "--asr", "sphinx", "--format", "jsonl")
    fast, paced = live(*arguments, "--speed", "max"), live(*arguments, "--speed", "1")
    assert fast.code == paced.code == 0
    kept = [[lasting(line) for line in run.lines if line["kind"] in ("final", "utterance")] for run in (fast, paced)]
    assert len(paced.finals) == 81  # 20.1 s
    assert paced.statuses("text").count("ok") > 10
    assert kept[0] == kept[1]
    for run in (fast, paced):
        assert of_kind("event", run.lines) == []
        assert {(*score["dropped"].values(),) for score in run.finals} == {(0, 0, 0)}
    provisional = of_kind("provisional", paced.lines)
    assert {score["seq"] for score in provisional} <= set(range(81))
    assert len(provisional) > 60


def test_a_real_mosei_video(live: Any, shared: Path, with_assets: None) -> None:
    run = live("--source", shared / "data" / "mosei" / "-3nNcZdcdvU.mp4", "--asr", "sphinx", *FAST)
    assert run.code == 0
    assert len(run.finals) == 178
    assert run.statuses("vision").count("ok") > 170
    assert run.statuses("text").count("ok") > 40


@pytest.mark.parametrize(("name", "first", "last"), [("enters.mov", "missing", "ok"), ("leaves.mov", "ok", "missing")])
def test_presence_follows_the_face(live: Any, shared: Path, with_assets: None, name: str, first: str, last: str) -> None:
    run = live("--source", shared / "clips" / name, "--asr", "none", *FAST)
    assert run.code == 0
    seen = run.statuses("vision")
    assert set(seen[:8]) == {first}
    assert seen[-8:].count(last) >= 7
    assert set(run.statuses("text")) == {"unavailable"}


def only(kind: str, clip: Path, to: Path) -> Path:
    """A copy of a clip with one of its streams."""
    with av.open(str(clip)) as source, av.open(str(to), "w") as target:
        stream = getattr(source.streams, kind)[0]
        copy = target.add_stream_from_template(stream)
        for packet in source.demux(stream):
            if packet.dts is not None:
                packet.stream = copy
                target.mux(packet)
    return to


def test_a_file_without_sound_and_one_without_pictures(live: Any, shared: Path, with_assets: None, tmp_path: Path) -> None:
    clip = shared / "clips" / "address.mp4"
    silent = live("--source", only("video", clip, tmp_path / "silent.mp4"), *FAST)
    assert silent.code == 0
    assert len(silent.finals) == 32
    assert set(silent.statuses("vision")) == {"ok"}
    assert set(silent.statuses("audio")) == set(silent.statuses("text")) == {"unavailable"}
    assert silent.finals[0]["modalities"]["audio"]["reason"] == "the source has no audio"

    blind = live("--source", only("audio", clip, tmp_path / "blind.mp4"), "--asr", "sphinx", *FAST)
    assert blind.code == 0
    assert len(blind.finals) == 32
    assert set(blind.statuses("vision")) == {"unavailable"}
    assert "ok" in blind.statuses("text")
    assert "ok" in blind.statuses("audio")


def test_a_file_cut_short_is_analysed_as_far_as_it_goes(
    live: Any, shared: Path, with_assets: None, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    whole = tmp_path / "whole.mp4"
    with (
        av.open(str(shared / "clips" / "address.mp4")) as source,
        av.open(str(whole), "w", options={"movflags": "faststart"}) as target,
    ):
        copies = {stream.index: target.add_stream_from_template(stream) for stream in source.streams}
        for packet in source.demux():
            if packet.dts is not None:
                packet.stream = copies[packet.stream.index]
                target.mux(packet)
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    run = live("--source", cut, "--asr", "none", *FAST)
    assert run.code == 1
    assert 10 < len(run.finals) < 24
    assert caplog.text.count("cut.mp4: cut short at") == 1


def test_without_the_face_model_the_other_lanes_go_on(
    live: Any, shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from extractors import assets

    monkeypatch.delenv("MMLATCH_ASSETS", raising=False)
    monkeypatch.setattr(assets, "cache_folder", lambda: tmp_path)
    monkeypatch.setattr("pooch.retrieve", lambda *a, **k: (_ for _ in ()).throw(OSError("no network")))
    run = live("--source", shared / "clips" / "address.mp4", "--asr", "none", *FAST)
    assert run.code == 0
    assert set(run.statuses("vision")) == {"unavailable"}
    assert "MMLATCH_ASSETS" in run.finals[0]["modalities"]["vision"]["reason"]
    assert "ok" in run.statuses("audio")


# --- bad input: one line that says what and how to mend, no traceback, nothing on the standard output


BAD = {
    "no file": (("--source", "none.mp4"), "none.mp4: no such file"),
    "no media": (("--source", "pyproject.toml"), "give a media file"),
    "no mcap": (("--source", "none.mcap"), "none.mcap: cannot be opened"),
    "device": (("--source", "demo", "--device", "tpu"), "--device tpu: unknown device, expected cpu, cuda or cuda:N"),
    "key": (("--source", "demo", "--set", "windows.hob_ms=5"), "windows.hob_ms: unknown key, expected one of hop_ms"),
    "engine": (("--source", "demo", "--asr", "siri"), "asr.engine"),
    "speed": (("--source", "demo", "--speed", "fast"), "--speed fast: expected max, or a number"),
    "speed 0": (("--source", "demo", "--speed", "0"), "--speed 0: expected"),
    "names": (("--source", "a=demo", "--source", "a=demo"), "--source: two sessions named a; put another NAME= before one"),
    "default name": (("--source", "live-2=demo", "--source", "demo"), "--source: two sessions named live-2"),
    "cameras": (("--source", "camera+camera:1"), "--source camera+camera:1: one camera and one microphone a session"),
    "microphones": (("--source", "mic+camera+mic:USB"), "--source mic+camera+mic:USB: one camera and one microphone a session"),
    "config": (("--source", "demo", "--config", "none.yaml"), "--config none.yaml: cannot be read"),
}


@pytest.mark.parametrize("case", BAD, ids=str)
def test_bad_input_is_one_line(case: str, live: Any, caplog: pytest.LogCaptureFixture) -> None:
    arguments, part = BAD[case]
    run = live(*arguments)
    assert run.code == 2
    assert run.out == ""
    assert len(caplog.records) == 1
    assert part in caplog.text
    assert "Traceback" not in caplog.text


def test_a_live_source_runs_at_its_own_speed(
    live: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    camera = Device("camera", "video")
    monkeypatch.setattr("stream.live.open_sources", lambda location: (camera,))
    for speed in ("2", "max"):
        caplog.clear()
        run = live("--source", "camera", "--speed", speed)
        assert (run.code, run.out, len(caplog.records)) == (2, "", 1)
        assert caplog.records[0].getMessage() == f"--speed {speed}: camera is live; leave the speed at 1"
        assert camera.opened == 0


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("http://bob:hunter2@127.0.0.1:9/x.mcap", "http://127.0.0.1:9/x.mcap: cannot be opened"),
        ("camera:http://bob:hunter2@127.0.0.1:9+camera", "--source camera:http://127.0.0.1:9+camera: one camera"),
    ],
)
def test_a_source_that_is_refused_keeps_its_password_to_itself(
    live: Any, caplog: pytest.LogCaptureFixture, source: str, said: str
) -> None:
    assert live("--source", source).code == 2
    assert caplog.records[0].getMessage().startswith(said)


def shell(*arguments: str, **options: Any) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "stream.live", *arguments], cwd=ROOT, capture_output=True, text=True, check=False, **options
    )


def test_in_a_shell_an_error_is_one_line_and_the_exit_code_tells() -> None:
    run = shell("--source", "none.mp4")
    assert (run.returncode, run.stdout) == (2, "")
    assert run.stderr == "error: none.mp4: no such file; check the path, or give demo for the bundled session\n"


def test_help_and_errors_of_the_command_line_load_nothing_heavy() -> None:
    code = "import sys, stream.live; stream.live.parser().format_help(); print(*sorted(sys.modules))"
    loaded = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    assert not {"torch", "numpy", "av", "mediapipe", "transformers", "rich", "pydantic"} & set(loaded)


def test_a_reader_that_leaves_ends_the_session_quietly() -> None:
    head = shutil.which("head")
    assert head
    command = f"{sys.executable} -m stream.live --source demo --speed max --format jsonl | {head} -n 1"
    run = subprocess.run(["bash", "-c", command], cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.stdout.count("\n") == 1
    assert "Traceback" not in run.stderr
    assert "Broken" not in run.stderr


# --- Ctrl-C


class Started:
    """The command in a process of its own."""

    def __init__(self, *arguments: str | Path, pipe: int | None = None) -> None:
        """Start it; the pipe that it writes to may be smaller than usual, so that it is soon full."""
        reading, writing = os.pipe()
        if pipe:
            fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, pipe)
        command = [sys.executable, "-m", "stream.live", *(str(argument) for argument in arguments), "--format", "jsonl"]
        self.process = subprocess.Popen(command, cwd=ROOT, stdout=writing, stderr=subprocess.PIPE, text=True)
        os.close(writing)
        self._reader = os.fdopen(reading)
        self.lines: list[dict[str, Any]] = []
        self.errors = ""

    def read(self, kind: str, count: int) -> None:
        """Read until so many of a kind have come."""
        while len(of_kind(kind, self.lines)) < count:
            self.lines.append(json.loads(self._reader.readline()))

    def wait_for(self, library: str) -> None:
        """Return when it has loaded a library."""
        maps = Path(f"/proc/{self.process.pid}/maps")
        wait_for(lambda: library in maps.read_text(), within_s=60)

    def interrupt(self) -> None:
        self.process.send_signal(signal.SIGINT)

    def end(self, *, within_s: float, read: bool = True) -> int:
        """Its exit code; what it still wrote is read."""
        begun_s = time.monotonic()
        try:
            if read:
                self.lines += [json.loads(line) for line in self._reader]
            code = self.process.wait(60)
        finally:
            self.process.kill()
            self._reader.close()
        took_s = time.monotonic() - begun_s
        assert self.process.stderr
        self.errors = self.process.stderr.read()
        assert took_s < within_s, f"it took {took_s:.1f} s"
        return code

    @property
    def finals(self) -> list[int]:
        return [score["seq"] for score in of_kind("final", self.lines)]


def children(of: int) -> set[int]:
    """The processes that a process has started."""
    found = set()
    for status in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            if int(status.read_text().rpartition(")")[2].split()[1]) == of:
                found.add(int(status.parent.name))
    return found


ENDS_S = 5.0  # three seconds are promised; the machine may have other work


@pytest.mark.parametrize("library", ["pydantic_core", "libtorch_cpu", "onnxruntime"])
def test_ctrl_c_while_it_starts_ends_it_at_once(library: str) -> None:
    run = Started("--source", "demo")
    run.wait_for(library)
    run.interrupt()
    assert run.end(within_s=ENDS_S) == 0
    assert run.lines == []
    assert run.errors in ("", "warning: stopped before anything was analysed\n")


def test_ctrl_c_as_soon_as_the_process_is_there_ends_it_too() -> None:
    run = Started("--source", "demo")
    time.sleep(0.1)
    run.interrupt()
    run.end(within_s=ENDS_S)
    assert run.lines == []


def test_ctrl_c_ends_the_input_and_scores_what_was_read() -> None:
    run = Started("--source", "demo")
    run.read("final", 4)
    run.interrupt()
    assert run.end(within_s=ENDS_S) == 0
    assert run.finals == list(range(len(run.finals)))
    assert 4 <= len(run.finals) < 82
    assert {score["seq"] for score in of_kind("provisional", run.lines)} <= set(run.finals)
    assert "Traceback" not in run.errors


def test_ctrl_c_in_the_middle_of_recognition_ends_it_in_time_and_leaves_no_process(shared: Path, with_assets: None) -> None:
    run = Started("--source", shared / "clips" / "talk2.mp4", "--asr", "sphinx")
    run.read("provisional", 24)
    [recogniser] = children(run.process.pid)
    read = max(score["seq"] for score in of_kind("provisional", run.lines))
    run.interrupt()
    assert run.end(within_s=ENDS_S) == 0
    assert run.finals == list(range(len(run.finals)))
    assert read <= len(run.finals) < 81
    assert "Traceback" not in run.errors
    assert not Path(f"/proc/{recogniser}").exists()


def test_ctrl_c_twice_ends_it_at_once_whatever_hangs() -> None:
    run = Started("--source", "demo", pipe=4096)
    run.read("provisional", 1)
    time.sleep(2)  # nobody reads: the pipe is full
    run.interrupt()
    time.sleep(0.3)
    assert run.process.poll() is None
    run.interrupt()
    assert run.end(within_s=2, read=False) == 128 + signal.SIGINT
