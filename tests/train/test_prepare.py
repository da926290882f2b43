"""The command from end to end, on real sentences and recordings. Its processes take seconds to start, so it runs seldom."""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import NamedTuple

import numpy as np
import psutil
import pytest

from stream.config import AsrConfig, Config
from tests.conftest import ROOT
from train import command, executors, prepare
from train.data import ravdess, sst
from train.features import Extractors
from train.items import SPLITS, Clip
from train.store import Entry, Store

MUTE = Config(asr=AsrConfig(engine="none"))
RECORDINGS = ("03-01-05-02-01-01-24", "03-01-03-01-02-01-01", "03-01-08-01-01-01-19")
NO_SOUND = "03-01-04-01-01-01-20"  # between them by name
SENTENCES = 3  # a split


class Corpora(NamedTuple):
    data: Path
    out: Path


@pytest.fixture(scope="module")
def raw(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A few rows of SST, and a few recordings of RAVDESS with a file among them that is none."""
    data = tmp_path_factory.mktemp("corpora")
    (data / "sst").mkdir()
    (data / "ravdess").mkdir()
    for split in SPLITS:
        lines = (shared / "data" / "sst" / f"{split}.csv").read_text(encoding="utf-8").splitlines(keepends=True)
        (data / "sst" / f"{split}.csv").write_text("".join(lines[: 1 + SENTENCES]), encoding="utf-8")
    for name in RECORDINGS:
        shutil.copyfile(shared / "data" / "ravdess" / f"{name}.flac", data / "ravdess" / f"{name}.flac")
    (data / "ravdess" / f"{NO_SOUND}.flac").write_text("no sound")
    return data


@pytest.fixture(scope="module")
def prepared(raw: Path, tmp_path_factory: pytest.TempPathFactory) -> Corpora:
    """All of it prepared, two recordings a shard."""
    out = tmp_path_factory.mktemp("out") / "features"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(prepare, "SHARD", 2)
        assert main(raw, out) == 0
    return Corpora(raw, out)


@pytest.fixture
def corpora(prepared: Corpora, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Corpora:
    """A copy to do anything with."""
    monkeypatch.setattr(prepare, "SHARD", 2)
    return Corpora(
        shutil.copytree(prepared.data, tmp_path / "corpora"),
        shutil.copytree(prepared.out, tmp_path / "features", copy_function=shutil.copy2),
    )


@pytest.fixture
def idle(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever would make anything fails."""

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("there is nothing to do")

    monkeypatch.setattr(executors, "ProcessPoolExecutor", refuse)


def main(data: Path, out: Path, *what: str) -> int:
    return prepare.main([*what, "--data", str(data), "--out", str(out), "--jobs", "1"])


def shards(out: Path) -> dict[str, tuple[int, bytes]]:
    return {path.stem: (path.stat().st_mtime_ns, path.read_bytes()) for path in (out / "shards").iterdir()}


def error(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The one line that bad input ends in."""
    capsys.readouterr()
    assert prepare.main(list(arguments)) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    return err.removeprefix("error: ").rstrip("\n")


def labels(entry: Entry) -> tuple[object, ...]:
    return entry.id, entry.split, entry.label, entry.sentiment


# --- what there is afterwards


def test_each_item_is_in_the_manifest_in_its_order_with_what_the_corpus_says_of_it(prepared: Corpora) -> None:
    for corpus, read in (("sst", sst.items), ("ravdess", ravdess.items)):
        items, entries = read(prepared.data / corpus), Store(prepared.out).read_manifest(corpus)
        assert [labels(entry) for entry in entries] == [(item.id, item.split, item.label, item.sentiment) for item in items]
        assert [entry.place for entry in entries] == [number % 2 for number in range(len(items))]
    assert len({entry.shard for entry in entries if entry.shard}) == 2


def test_a_file_that_is_no_sound_is_a_failure_with_its_reason(prepared: Corpora) -> None:
    entries = {entry.id: entry for entry in Store(prepared.out).read_manifest("ravdess")}
    assert set(entries) == {*RECORDINGS, NO_SOUND}
    assert (entries[NO_SOUND].shard, entries[NO_SOUND].failure) == (None, "nothing in it")
    assert [entries[name].failure for name in RECORDINGS] == [None] * len(RECORDINGS)
    assert Store(prepared.out).read_failures(entries[RECORDINGS[1]].shard or "") == {1: "nothing in it"}


def test_the_features_are_those_of_the_extractors(prepared: Corpora) -> None:
    store, extractors = Store(prepared.out), Extractors(MUTE)
    for corpus, read in (("sst", sst.items), ("ravdess", ravdess.items)):
        there = [entry for entry in store.read_manifest(corpus) if entry.shard]
        contents = {item.id: item.content for item in read(prepared.data / corpus)}
        for entry, found in zip(there, store.features(there), strict=True):
            expected = extractors.features(contents[entry.id])
            assert found.keys() == expected.keys()
            assert all(np.array_equal(found[name], expected[name]) for name in expected)


def test_nothing_else_is_left_in_the_folder(prepared: Corpora) -> None:
    entries = [*Store(prepared.out).read_manifest("sst"), *Store(prepared.out).read_manifest("ravdess")]
    assert {path.name for path in prepared.out.iterdir()} == {"shards", "sst.jsonl", "ravdess.jsonl"}
    assert set(shards(prepared.out)) == {entry.shard for entry in entries if entry.shard}


# --- again


def test_a_second_run_makes_nothing_anew(corpora: Corpora, idle: None, capsys: pytest.CaptureFixture[str]) -> None:
    before = shards(corpora.out)
    (corpora.out / "sst.jsonl").unlink()
    assert main(corpora.data, corpora.out) == 0
    assert shards(corpora.out) == before
    assert len(Store(corpora.out).read_manifest("sst")) == 9
    assert capsys.readouterr().err.splitlines() == [
        "sst: 9 items, 0 without features",
        "ravdess: 4 items, 1 without features",
        "  1: nothing in it",
    ]


def test_only_what_was_changed_or_lost_is_made_again_and_what_was_lost_is_as_it_was(corpora: Corpora) -> None:
    store, before = Store(corpora.out), shards(corpora.out)
    lost = next(entry.shard for entry in store.read_manifest("ravdess") if entry.id == RECORDINGS[1])
    assert lost
    store.shard(lost).unlink()  # as if the run had been killed
    (corpora.out / "ravdess.jsonl").unlink()
    table = corpora.data / "sst" / "test.csv"
    table.write_text(table.read_text(encoding="utf-8").removesuffix("\n") + " at all\n", encoding="utf-8")
    changed = store.read_manifest("sst")[-1]
    assert main(corpora.data, corpora.out) == 0
    after = shards(corpora.out)
    assert after[lost][0] != before[lost][0]
    assert after[lost][1] == before[lost][1]
    assert all(after[digest] == before[digest] for digest in before.keys() - {lost})
    (new,) = after.keys() - before.keys()
    entry = store.read_manifest("sst")[-1]
    assert (entry.id, entry.shard) == (changed.id, new)
    found, old = store.features([entry, changed])
    assert len(found["vectors"]) == len(old["vectors"]) + 2
    assert np.array_equal(found["vectors"][:-2], old["vectors"])


def test_a_file_that_was_no_sound_and_is_one_now_is_read_and_so_is_a_file_of_ones_own(corpora: Corpora, shared: Path) -> None:
    shutil.copyfile(shared / "data" / "ravdess" / f"{NO_SOUND}.flac", corpora.data / "ravdess" / f"{NO_SOUND}.flac")
    own = shared / "speech" / "LJ001-0002.wav"
    assert main(corpora.data, corpora.out, "ravdess", str(own), str(own), "--asr", "none") == 0
    store = Store(corpora.out)
    assert all(entry.shard and not entry.failure for entry in store.read_manifest("ravdess"))
    (entry,) = store.read_manifest("LJ001-0002")
    assert labels(entry) == ("LJ001-0002.wav", "test", "unlabelled", None)
    expected = Extractors(MUTE).features(Clip(own))
    assert np.array_equal(store.features([entry])[0]["inputs"], expected["inputs"])


def test_other_words_are_other_features_and_another_label_is_not(
    corpora: Corpora, idle: None, capsys: pytest.CaptureFixture[str]
) -> None:
    table = corpora.data / "sst" / "valid.csv"
    lines = table.read_text(encoding="utf-8").splitlines(keepends=True)
    table.write_text("".join([lines[0], "4" + lines[1][1:], *lines[2:]]), encoding="utf-8")
    assert main(corpora.data, corpora.out, "sst") == 0
    assert next(entry.sentiment for entry in Store(corpora.out).read_manifest("sst") if entry.id == "valid-0") == 2.4
    table.write_text("".join([lines[0], "4,other words\n", *lines[2:]]), encoding="utf-8")
    with pytest.raises(AssertionError, match="there is nothing to do"):
        main(corpora.data, corpora.out, "sst")


# --- what can be wrong


def test_a_folder_without_corpora(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    message = error(capsys, "--data", str(tmp_path), "--out", str(tmp_path / "out"))
    assert (
        message == f"{tmp_path} has none of mosi, sst, meld, ravdess, fer2013, mosei; name the folder that has them with --data"
    )
    assert list(tmp_path.iterdir()) == []


def test_what_is_neither_a_corpus_nor_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    message = error(capsys, str(tmp_path / "talk.mp4"), "--data", str(tmp_path))
    assert message == f"{tmp_path / 'talk.mp4'}: neither a corpus (mosi, sst, meld, ravdess, fer2013, mosei) nor a file"


def test_a_corpus_that_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    message = error(capsys, "meld", "--data", str(tmp_path))
    assert message == f"{tmp_path / 'meld'} is missing; meld is expected there (docs/training.md says what it needs)"


def test_a_damaged_corpus_stops_it_before_anything_is_made(
    tmp_path: Path, idle: None, capsys: pytest.CaptureFixture[str]
) -> None:
    for corpus in ("sst", "ravdess"):
        (tmp_path / corpus).mkdir()
    for split in SPLITS:
        (tmp_path / "sst" / f"{split}.csv").write_text("label,text\n1,good\n")
    (tmp_path / "ravdess" / "speech.flac").touch()
    message = error(capsys, "--data", str(tmp_path), "--out", str(tmp_path / "out"))
    assert message == f"{tmp_path / 'ravdess' / 'speech.flac'} is not named as RAVDESS does, like 03-01-05-02-01-01-24.flac"
    assert not (tmp_path / "out").exists()


def test_a_damaged_shard(corpora: Corpora, idle: None, capsys: pytest.CaptureFixture[str]) -> None:
    shard = sorted((corpora.out / "shards").iterdir())[0]
    shard.write_bytes(shard.read_bytes()[:100])
    message = error(capsys, "--data", str(corpora.data), "--out", str(corpora.out))
    assert message.startswith(f"{shard} is damaged: ")
    assert message.endswith("; delete it and run train.prepare again")


@pytest.mark.parametrize("jobs", ["0", "-1"])
def test_a_number_of_processes_that_cannot_be(tmp_path: Path, capsys: pytest.CaptureFixture[str], jobs: str) -> None:
    (tmp_path / "sst").mkdir()
    assert error(capsys, "--data", str(tmp_path), "--jobs", jobs) == f"--jobs {jobs}: must be 1 or more"


@pytest.mark.parametrize("names", [("sst.wav",), ("talk.mp4", "other/talk.wav")])
def test_files_whose_features_would_be_kept_under_a_name_that_is_taken(
    tmp_path: Path, idle: None, capsys: pytest.CaptureFixture[str], names: tuple[str, ...]
) -> None:
    paths = [tmp_path / name for name in names]
    for path in paths:
        path.parent.mkdir(exist_ok=True)
        path.touch()
    message = error(capsys, *map(str, paths), "--data", str(tmp_path), "--out", str(tmp_path / "out"))
    stem = paths[-1].stem
    assert message == f"{paths[-1]}: its features would be kept as {stem}, which is taken; give the file another name"


class DyingPool:
    """Stands in for processes that are killed."""

    def __init__(self, *_: object, **__: object) -> None:
        pass

    def __enter__(self) -> "DyingPool":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def submit(self, _: Callable[..., object], shard: executors.Shard) -> "Future[None]":
        future: Future[None] = Future()
        future.set_exception(BrokenProcessPool("died"))
        return future


def test_a_process_that_is_killed(
    raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(executors, "ProcessPoolExecutor", DyingPool)
    message = error(capsys, "sst", "--data", str(raw), "--out", str(tmp_path / "out"))
    assert message == "a process was killed, perhaps for want of memory; try fewer with --jobs"
    assert not (tmp_path / "out" / "sst.jsonl").exists()


def test_ctrl_c_says_that_it_can_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(prepare, "prepare", interrupted)
    assert prepare.main(["--data", str(tmp_path)]) == 130
    assert capsys.readouterr().err == "stopped; run it again to go on from here\n"


def test_where_corpora_are_can_be_said_by_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(command.DATA_VARIABLE, str(tmp_path / "elsewhere"))
    assert error(capsys).startswith(f"{tmp_path / 'elsewhere'} has none of ")


def test_a_full_disk_is_said_in_one_line_and_what_was_there_is_kept(
    corpora: Corpora, idle: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(_: int) -> None:
        raise OSError(28, os.strerror(28))

    before = (corpora.out / "sst.jsonl").read_bytes()
    monkeypatch.setattr("train.store.os.fsync", full)
    message = error(capsys, "sst", "--data", str(corpora.data), "--out", str(corpora.out))
    assert message.startswith(f"{corpora.out / 'sst.jsonl'} cannot be written: No space left on device")
    assert (corpora.out / "sst.jsonl").read_bytes() == before


@pytest.mark.usefixtures("with_assets")
def test_when_it_is_killed_its_processes_end_too(tmp_path: Path) -> None:
    folder = tmp_path / "data" / "sst"
    folder.mkdir(parents=True)
    for split in ("train", "valid", "test"):
        (folder / f"{split}.csv").write_text(
            "label,text\n" + "3,a long and winding but on the whole rather pleasing film\n" * 300
        )
    command = [sys.executable, "-m", "train.prepare", "sst", "--jobs", "1", "--out", tmp_path, "--data", tmp_path / "data"]
    run = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL)
    parent = psutil.Process(run.pid)
    deadline_s = time.monotonic() + 60
    while not (workers := [child for child in parent.children() if "spawn_main" in " ".join(child.cmdline())]):
        assert time.monotonic() < deadline_s
        time.sleep(0.1)
    time.sleep(3)  # at work, or about to be
    run.kill()
    run.wait()
    _, alive = psutil.wait_procs(workers, timeout=20)
    for process in alive:
        process.kill()
    assert not alive
