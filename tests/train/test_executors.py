"""Ray beside the processes of this machine. Its own processes take seconds to start, so what it does is tested in one run."""

import importlib
import importlib.util
import shutil
from pathlib import Path

import numpy as np
import psutil
import pytest

from tests.train.one_line import error_of
from train import executors, prepare
from train.errors import TrainError
from train.items import Item, Text
from train.store import Store

SPLITS = ("train", "valid", "test")
LOOPBACK = {"127.0.0.1", "::1", "::ffff:127.0.0.1"}


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """No cluster is named, and what is set in the environment for Ray is forgotten."""
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    for name in ("RAY_USAGE_STATS_ENABLED", "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"):
        monkeypatch.setenv(name, "1")


def files(out: Path) -> dict[str, bytes]:
    return {str(path.relative_to(out)): path.read_bytes() for path in out.rglob("*") if path.is_file()}


def listening() -> set[str]:
    """The addresses on which the processes that this one has begun listen."""
    found = set()
    for process in psutil.Process().children(recursive=True):
        try:
            found |= {each.laddr.ip for each in process.net_connections("inet") if each.status == psutil.CONN_LISTEN}
        except psutil.Error:  # it has ended meanwhile
            continue
    return found


@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is not installed: pip install 'mmlatch-live[ray]'")
@pytest.mark.usefixtures("alone", "with_assets")
def test_ray_makes_the_same_bytes_and_either_goes_on_where_the_other_stopped(
    shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    data, local, ray = tmp_path / "data", tmp_path / "local", tmp_path / "ray"
    (data / "ravdess").mkdir(parents=True)
    for name in ("03-01-05-02-01-01-24", "03-01-03-01-02-01-01"):
        shutil.copyfile(shared / "data" / "ravdess" / f"{name}.flac", data / "ravdess" / f"{name}.flac")
    (data / "ravdess" / "03-01-04-01-01-01-20.flac").write_text("no sound")
    monkeypatch.setattr(prepare, "SHARD", 1)

    def main(out: Path, executor: str) -> int:
        return prepare.main(["--data", str(data), "--out", str(out), "--jobs", "1", "--executor", executor])

    assert main(local, "local") == 0
    kept = {name: content for name, content in files(local).items() if name.startswith("shards")}
    first = sorted(kept)[0]
    (ray / "shards").mkdir(parents=True)
    (ray / first).write_bytes(kept[first])  # as if a run of the other had been stopped
    before = (ray / first).stat().st_mtime_ns

    addresses: set[str] = set()
    connect = executors._ray

    def watched(jobs: int) -> object:
        found = connect(jobs)
        addresses.update(listening())
        return found

    monkeypatch.setattr(executors, "_ray", watched)
    capfd.readouterr()
    assert main(ray, "ray") == 0
    assert "ravdess: 3 items, 1 without features\n  1: nothing in it\n" in capfd.readouterr().err
    assert files(ray) == files(local)
    assert (ray / first).stat().st_mtime_ns == before
    assert addresses
    assert addresses <= LOOPBACK
    assert [entry.failure for entry in Store(ray).read_manifest("ravdess")].count(None) == 2


@pytest.mark.usefixtures("alone")
def test_without_ray_the_extra_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def missing(name: str) -> object:
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    monkeypatch.setattr(executors.importlib, "import_module", missing)
    (tmp_path / "sst").mkdir()
    for split in SPLITS:
        (tmp_path / "sst" / f"{split}.csv").write_text("label,text\n3,good\n")
    assert prepare.main(["--data", str(tmp_path), "--out", str(tmp_path / "out"), "--executor", "ray"]) == 2
    error = "error: --executor ray needs Ray, which is not installed; run: pip install 'mmlatch-live[ray]'\n"
    assert capsys.readouterr().err == error


class Cluster:
    """Stands in for Ray, with a cluster that is not there."""

    def init(self, address: str, **_: object) -> None:
        raise ConnectionError(f"no {address}\nand more")


@pytest.mark.usefixtures("alone")
def test_a_cluster_that_cannot_be_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "head:6379")
    monkeypatch.setattr(executors.importlib, "import_module", lambda _: Cluster())
    message = error_of(lambda: executors._ray(1), TrainError)
    assert message == "the cluster at RAY_ADDRESS=head:6379 cannot be had: no head:6379; is it running?"


def test_whatever_a_library_makes_of_an_item_is_a_reason_and_the_others_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def features(_: object, content: Text) -> dict[str, np.ndarray]:
        if content.words == ("bad",):
            raise UnicodeDecodeError("utf-8", b"\xe9", 0, 1, "no title")
        return {"vectors": np.zeros((1, 2), np.float32)}

    monkeypatch.setattr(executors.Extractors, "features", features)
    store = Store(tmp_path)
    items = [Item(word, "test", "good", 1.0, Text((word,))) for word in ("good", "bad")]
    executors.Preparer(prepare.Config(), store).prepare(executors.Shard("0", items))
    failures = store.read_failures("0")
    assert list(failures) == [1]
    assert failures[1].startswith("UnicodeDecodeError: ")


def test_an_actor_hands_errors_on_as_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise TrainError("the disk is full")

    batch = {"shard": [executors.Shard("0", [Item("a", "test", "good", 1.0, Text(("good",)))])]}
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(executors.Preparer, "prepare", refuse)
    actor = executors._Actor(prepare.Config(), Store(tmp_path), tmp_path)
    assert actor(batch)["error"].tolist() == ["the disk is full"]
    elsewhere = executors._Actor(prepare.Config(), Store(tmp_path), tmp_path / "elsewhere")
    assert elsewhere(batch)["error"].tolist() == [
        f"{tmp_path / 'elsewhere'} cannot be had on every machine of the cluster: No such file or directory; share it"
    ]
