"""The command on small files of every format, written here: figures, going on, sweeps, and what is wrong in one line."""

import csv
import json
import math
import os
import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from models.causal import MODALITIES
from tests.train.one_line import error_of
from tests.train.segments import SHAPES, segments
from train import compare, metrics, offline
from train.compare import SDK_FILES, SUBSETS
from train.data.aligned import Segments
from train.errors import DataError
from train.items import SPLITS
from train.recipe import FOLDER

CORPUS: dict[str, Segments] = {split: segments(10, seed=number) for number, split in enumerate(SPLITS)}
SMALL = ("late-fusion", "--seeds", "2", "--set", "fit.epochs=2", "--set", "shape.hidden=4")
FIGURES = [
    "mae",
    "pearson_r",
    "accuracy_2_nonzero",
    "f1_weighted_nonzero",
    "accuracy_2_has_zero",
    "accuracy_7",
    "accuracy_7_outward",
]
ALL = "text+audio+vision"

# The corpus in the formats in which it is passed around.


def mult(**change: Any) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for split, data in CORPUS.items():
        found[split] = {"labels": data.labels.reshape(-1, 1, 1), "id": np.array([[name, "0", "1"] for name in data.ids])}
        for m in MODALITIES:
            x = np.zeros(data.inputs[m].shape)
            for row, given, length in zip(x, data.inputs[m], data.lengths[m], strict=True):
                row[len(row) - length :] = given[:length]
            found[split][m] = x
    return found | change


def mmsa() -> dict[str, Any]:
    found: dict[str, Any] = {}
    for split, data in CORPUS.items():
        mask = (np.arange(5) < data.lengths["text"][:, None]).astype(int)
        found[split] = {m: x.astype(np.float64) for m, x in data.inputs.items()}
        found[split] |= {"text_bert": np.stack([mask] * 3, 1), "regression_labels": data.labels, "id": list(data.ids)}
    return found


def write_pickle(path: Path, value: Any) -> Path:
    path.write_bytes(pickle.dumps(value))
    return path


def write_sdk(folder: Path) -> Path:
    """A video a segment, words and frames of a second."""
    folder.mkdir()
    files = {name: h5py.File(folder / file, "w") for name, file in SDK_FILES.items()}
    folds = ["video,split"]
    for split, data in CORPUS.items():
        for number, length in enumerate(data.lengths["text"].tolist()):
            video = f"{split}{number}"
            folds.append(f"{video},{split}")
            times = np.array([[step, step + 1.0] for step in range(length)])
            rows = {m: (data.inputs[m][number, :length], times) for m in MODALITIES}
            rows["labels"] = (data.labels[number].reshape(1, 1), np.array([[0.0, length]]))
            for name, (features, intervals) in rows.items():
                group = files[name].create_group(f"root/data/{video}")
                group["features"], group["intervals"] = features, intervals
    for file in files.values():
        file.close()
    (folder / "labels.csv").write_text("\n".join(folds) + "\n")
    return folder


def write_utterances(path: Path) -> Path:
    rows: dict[str, list[Any]] = {name: [] for name in ("id", "label", "feature_split", "text100", "audio73", "video100")}
    for part in ("train", "test"):
        data = segments(10, every_step=True, seed=len(part))
        for video, length in enumerate(data.lengths["text"].tolist()):
            for step in range(length):
                rows["id"].append(f"{part}{video}_{step + 1}")
                rows["label"].append(data.labels[video, step])
                rows["feature_split"].append(part)
                for column, m in (("text100", "text"), ("audio73", "audio"), ("video100", "vision")):
                    rows[column].append(data.inputs[m][video, step])
    np.savez(path, **{name: np.array(each) for name, each in rows.items()})
    return path


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_pickle(tmp_path / "a.pkl", mult())


def run(data: Path, kind: str, out: Path, *arguments: str) -> int:
    return compare.main([*arguments, "--data", str(data), "--format", kind, "--out", str(out)])


def figures_of(out: Path) -> dict[str, list[dict[str, float]]]:
    return json.loads((out / "figures.json").read_text())


def run_of(out: Path, name: str) -> dict[str, Any]:
    return json.loads((out / "runs" / f"{name}.json").read_text())


class Counted:
    """What is trained from now on: recipe by recipe, with its modalities and seed."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, fails_at: int | None = None) -> None:
        self.runs: list[tuple[Any, ...]] = []
        fit = offline.fit

        def counted(recipe: Any, *splits: Any, seed: int, modalities: Sequence[str], **more: Any) -> Any:
            if len(self.runs) == fails_at:
                raise KeyboardInterrupt
            self.runs.append((recipe.fit.learning_rate, tuple(modalities), seed))
            return fit(recipe, *splits, seed=seed, modalities=modalities, **more)

        monkeypatch.setattr(offline, "fit", counted)


# Figures.


@pytest.mark.parametrize("kind", ["mult", "mmsa", "sdk"])
def test_the_command_writes_figures_and_a_table(kind: str, tmp_path: Path) -> None:
    write = {"mult": lambda: write_pickle(tmp_path / "a.pkl", mult()), "mmsa": lambda: write_pickle(tmp_path / "b.pkl", mmsa())}
    path = write.get(kind, lambda: write_sdk(tmp_path / "sdk"))()
    out = tmp_path / "out"
    assert run(path, kind, out, "mult-causal", *SMALL, "--set", "fit.batch=4") == 0
    figures = figures_of(out)
    assert list(figures) == [f"mult-causal/{ALL}", f"late-fusion/{ALL}"]
    assert all(list(each) == FIGURES for seeds in figures.values() for each in seeds)
    assert [len(seeds) for seeds in figures.values()] == [2, 2]
    table = (out / "table.md").read_text().splitlines()
    assert table[0] == "| system | " + " | ".join(FIGURES) + " |"
    assert [line.split(" | ")[0] for line in table[2:]] == [f"| mult-causal/{ALL}", f"| late-fusion/{ALL}"]
    errors = [each["mae"] for each in figures[f"late-fusion/{ALL}"]]
    assert table[3].split(" | ")[1] == f"{np.mean(errors):.3f} ± {np.std(errors, ddof=1):.3f}"
    found = run_of(out, f"late-fusion-{ALL}-1")
    assert found["test"] == figures[f"late-fusion/{ALL}"][1]
    assert found["chosen"]["fit"]["batch"] == 4
    assert [epoch["number"] for epoch in found["epochs"]] == [1, 2]


def test_all_formats_give_the_same_figures(tmp_path: Path) -> None:
    """The same segments in another file: the same bits."""
    paths = {
        "mult": write_pickle(tmp_path / "a.pkl", mult()),
        "mmsa": write_pickle(tmp_path / "b.pkl", mmsa()),
        "sdk": write_sdk(tmp_path / "sdk"),
    }
    for kind, path in paths.items():
        assert run(path, kind, tmp_path / kind, *SMALL) == 0
    found = [figures_of(tmp_path / kind)[f"late-fusion/{ALL}"] for kind in paths]
    # The SDK's order is that of the videos' names, which is that of their numbers here; its words are averaged in float64.
    assert found[0] == found[1]
    for one, other in zip(found[0], found[2], strict=True):
        assert other == pytest.approx(one, abs=1e-6)


def test_figures_are_those_of_the_test_split(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, Any] = {}
    predicted = offline.predicted

    def noted(*arguments: Any) -> Any:
        seen["scores"], seen["truths"] = predicted(*arguments)
        return seen["scores"], seen["truths"]

    monkeypatch.setattr(offline, "predicted", noted)
    assert run(data, "mult", tmp_path / "out", *SMALL, "--seeds", "1") == 0
    assert np.allclose(seen["truths"], CORPUS["test"].labels)
    [found] = figures_of(tmp_path / "out")[f"late-fusion/{ALL}"]
    assert found["mae"] == metrics.mean_absolute_error(seen["scores"], seen["truths"])
    assert found["accuracy_7_outward"] == metrics.accuracy_7_outward(seen["scores"], seen["truths"])


def test_videos_of_utterances_are_trained_without_a_validation_split(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, out = write_utterances(tmp_path / "a.npz"), tmp_path / "out"
    settings = ["--set", "fit.patience=0", "--set", "fit.average=0.9"]
    assert run(path, "utterances", out, *SMALL, *settings) == 0
    assert run_of(out, f"late-fusion-{ALL}-0")["epochs"] == 2
    assert len(figures_of(out)[f"late-fusion/{ALL}"]) == 2
    assert run(path, "utterances", out, *SMALL, "--set", "fit.patience=3") == 2
    assert "late-fusion: fit.patience is for data with a validation split" in one_line(capsys)
    assert run(path, "utterances", out, *SMALL, *settings, "--sweep", "fit.batch=4,8") == 2
    assert "--sweep chooses by the validation split, and these data have none" in one_line(capsys)


def test_subsets_are_seven_and_each_is_trained_on_what_it_has(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted = Counted(monkeypatch)
    assert run(data, "mult", tmp_path / "out", *SMALL, "--seeds", "1", "--subsets") == 0
    assert len({subset for _, subset, _ in counted.runs}) == len(counted.runs) == 7
    assert list(figures_of(tmp_path / "out")) == [f"late-fusion/{'+'.join(subset)}" for subset in SUBSETS]
    assert len({json.dumps(each) for each in figures_of(tmp_path / "out").values()}) == 7
    table = (tmp_path / "out" / "table.md").read_text().splitlines()
    assert len(table) == 9
    assert "±" not in table[2]  # of one seed there is no deviation


def test_without_names_it_is_every_system_that_suits_the_data(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    named: list[str] = []
    monkeypatch.setattr(compare, "compare", lambda recipes, *_, **__: named.extend(recipes))
    assert run(data, "mult", tmp_path / "out") == 0
    mosei = sorted(path.stem for path in FOLDER.glob("*.yaml") if not path.stem.startswith("utterances-"))
    assert named == mosei
    named.clear()
    assert run(write_utterances(tmp_path / "a.npz"), "utterances", tmp_path / "out") == 0
    assert named == sorted(path.stem for path in FOLDER.glob("utterances-*.yaml"))


def test_of_data_that_are_not_aligned_it_is_what_can_do_with_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    named: list[str] = []
    monkeypatch.setattr(compare, "compare", lambda recipes, *_, **__: named.extend(recipes))
    given = mmsa()
    for split in given.values():
        split["audio"] = np.repeat(split["audio"], 2, 1)
        split["audio_lengths"] = [10] * len(split["id"])
    assert run(write_pickle(tmp_path / "b.pkl", given), "mmsa", tmp_path / "out") == 0
    assert named == ["mult"]


def test_a_figure_that_is_not_defined_is_null_and_an_empty_cell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compare.assess, "regression", lambda *_: {"mae": 1.0, "pearson_r": math.nan})
    path = write_pickle(tmp_path / "a.pkl", mult())
    assert run(path, "mult", tmp_path / "out", *SMALL) == 0
    assert "NaN" not in (tmp_path / "out" / "figures.json").read_text()
    assert figures_of(tmp_path / "out")[f"late-fusion/{ALL}"][0]["pearson_r"] is None
    assert "| 1.000 ± 0.000 |  |" in (tmp_path / "out" / "table.md").read_text()


# Going on.


@pytest.mark.parametrize("left", [b"", b"{", b"{}", b"[]", b"\xff"])
def test_a_run_whose_figures_cannot_be_read_is_done_again(data: Path, tmp_path: Path, left: bytes) -> None:
    out = tmp_path / "out"
    assert run(data, "mult", out, *SMALL, "--seeds", "1") == 0
    before = figures_of(out)
    (out / "runs" / f"late-fusion-{ALL}-0.json").write_bytes(left)
    assert run(data, "mult", out, *SMALL, "--seeds", "1") == 0
    assert figures_of(out) == before


def test_after_a_kill_the_same_command_goes_on_where_it_stopped(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ("mmlatch-causal", *SMALL)
    assert run(data, "mult", tmp_path / "whole", *arguments) == 0
    with monkeypatch.context() as patch:
        killed = Counted(patch, fails_at=3)
        assert run(data, "mult", tmp_path / "other", *arguments) == 130
        assert len(killed.runs) == 3
    assert not (tmp_path / "other" / "figures.json").exists()
    with monkeypatch.context() as patch:
        rest = Counted(patch)
        assert run(data, "mult", tmp_path / "other", *arguments) == 0
        assert [seed for *_, seed in rest.runs] == [1]
    for name in ("figures.json", "table.md"):
        assert (tmp_path / "other" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_what_is_there_is_not_done_again_unless_recipe_sweep_or_data_are_others(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"

    def trained(*arguments: str) -> int:
        with monkeypatch.context() as patch:
            counted = Counted(patch)
            assert run(data, "mult", out, *SMALL, *arguments) == 0
        return len(counted.runs)

    assert [trained(), trained(), trained("--seeds", "3")] == [2, 0, 1]
    assert [trained("--set", "fit.batch=5"), trained("--set", "fit.batch=5")] == [2, 0]
    assert [trained("--sweep", "fit.batch=5,6"), trained("--sweep", "fit.batch=5,6")] == [4, 0]
    trained()
    before = data.stat()
    os.utime(data, ns=(before.st_atime_ns, before.st_mtime_ns + 1))
    assert [trained(), trained()] == [2, 0]


# Sweeps.


def test_a_sweep_is_decided_by_the_validation_split_alone(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of four candidates, one diverged at once, and one is best on the test split and has never been good on validation."""
    errors = {0.1: float("nan"), 0.2: 0.9, 0.3: 0.5, 0.4: 0.7}
    tested: list[float] = []
    fit = offline.fit

    def fitted(recipe: Any, *splits: Any, **more: Any) -> Any:
        found = fit(recipe, *splits, **more)
        rate = recipe.fit.learning_rate
        found.system.rate = rate
        error = errors[rate]
        epochs = [epoch._replace(error=error) for epoch in found.epochs]
        return offline.Fitted(found.system, epochs, float("inf") if np.isnan(error) else error)

    def predicted(system: Any, segments: Segments, *_: Any) -> Any:
        if np.allclose(segments.labels, CORPUS["test"].labels):
            tested.append(system.rate)
        return np.zeros(len(segments.ids)), segments.labels.astype(float)

    monkeypatch.setattr(offline, "fit", fitted)
    monkeypatch.setattr(offline, "predicted", predicted)
    sweep = ["--sweep", "fit.learning_rate=0.1,0.2,0.3,0.4"]
    assert run(data, "mult", tmp_path / "out", *SMALL, "--seeds", "1", *sweep) == 0
    assert tested == [0.3]
    found = run_of(tmp_path / "out", f"late-fusion-{ALL}-0")
    assert found["chosen"]["fit"]["learning_rate"] == 0.3
    assert found["about"]["recipe"]["fit"]["learning_rate"] == 0.0005


def test_two_sweeps_are_every_combination(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    counted = Counted(monkeypatch)
    sweeps = ["--sweep", "fit.learning_rate=0.1,0.2", "--sweep", "fit.batch=5,6,7"]
    assert run(data, "mult", tmp_path / "out", *SMALL, "--seeds", "1", *sweeps) == 0
    assert sorted(rate for rate, *_ in counted.runs) == [0.1] * 3 + [0.2] * 3


# What is wrong.


def one_line(capsys: pytest.CaptureFixture[str]) -> str:
    lines = capsys.readouterr().err.splitlines()
    [line] = [each for each in lines if each.startswith("error: ")]
    assert not any("Traceback" in each for each in lines)
    return line


class Hostile:
    def __init__(self, mark: Path) -> None:
        self._mark = mark

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return os.mkdir, (str(self._mark),)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["mulan"], "--config mulan: cannot be read (No such file or directory)"),
        (["mmlatch", "--set", "fit.speed=1"], "fit.speed: unknown key, expected one of epochs"),
        (["mmlatch", "--set", "shape.colour=1"], "mmlatch: shape is {'hidden': 100, "),
        (["mmlatch", "--set", "shape.hidden=0"], "mmlatch: hidden is 0, expected 1 to"),
        (["mmlatch", "--sweep", "fit.speed=1,2"], "fit.speed: unknown key"),
        (["mmlatch", "--sweep", "fit.epochs"], "--sweep fit.epochs: expected KEY=VALUE,VALUE"),
        (["mmlatch", "--seeds", "0"], "--seeds 0: expected 1 or more"),
        (["mmlatch", "--device", "tpu"], "--device tpu: unknown device"),
        (["mmlatch", "mmlatch"], "mmlatch mmlatch: two systems have the same name"),
    ],
    ids=lambda given: given[-1] if isinstance(given, list) else "",
)
def test_a_wrong_argument_is_one_line(
    arguments: list[str], expected: str, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(data, "mult", tmp_path / "out", *arguments) == 2
    assert expected in one_line(capsys)
    assert not (tmp_path / "out" / "figures.json").exists()


def test_what_is_wrong_with_a_recipe_is_said_before_the_data_are_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(tmp_path / "none.pkl", "mult", tmp_path / "out", "mulan") == 2
    assert "mulan" in one_line(capsys)


def test_wrong_data_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    half = write_pickle(tmp_path / "half.pkl", mult())
    half.write_bytes(half.read_bytes()[:-1000])
    flat = mult()
    flat["train"]["audio"] = flat["train"]["audio"][:, 0]
    narrow = mult()
    narrow["test"]["audio"] = narrow["test"]["audio"][..., :2]
    cases = {
        tmp_path / "none.pkl": "cannot be read (No such file or directory); python -m train.download",
        half: "not a whole pickle (UnpicklingError); download it again",
        write_pickle(tmp_path / "flat.pkl", flat): "train: audio is float64 (10, 4), expected numbers (N, L, D)",
        write_pickle(tmp_path / "narrow.pkl", narrow): "test: columns are {'text': 6, 'audio': 2, 'vision': 3}",
        write_pickle(tmp_path / "fold.pkl", {"train": {}, "test": {}}): "lacks the split valid",
        write_pickle(tmp_path / "hostile.pkl", mult(more=Hostile(tmp_path / "ran"))): "asks for posix.mkdir",
        tmp_path: "cannot be read (Is a directory)",
    }
    for path, expected in cases.items():
        assert run(path, "mult", tmp_path / "out", *SMALL) == 2
        assert expected in one_line(capsys)
        assert not (tmp_path / "out" / "data").exists()
    assert not (tmp_path / "ran").exists()


def test_wrong_files_of_the_sdk_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_sdk(tmp_path / "sdk")
    folds, audio = folder / "labels.csv", folder / SDK_FILES["audio"]

    def line() -> str:
        assert run(folder, "sdk", tmp_path / "out", *SMALL) == 2
        return one_line(capsys)

    whole = folds.read_text()
    folds.write_text(whole.replace(",valid", ",train"))
    assert "no segment of the split valid is in all files" in line()
    folds.write_text(whole.replace("split", "fold", 1))
    assert "labels.csv: no table of folds ('split'); expected the columns video and split" in line()
    folds.write_bytes(b"\xff\xfe")
    assert "no table of folds" in line()
    folds.write_text(whole)
    audio.write_bytes(audio.read_bytes()[:-3000])
    assert "not a whole computational sequence" in line()
    audio.unlink()
    assert f"{audio}: cannot be read (No such file or directory)" in line()


def test_wrong_utterances_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_utterances(tmp_path / "a.npz")
    path.write_bytes(path.read_bytes()[:-500])
    assert run(path, "utterances", tmp_path / "out", *SMALL) == 2
    assert "cannot be read as arrays" in one_line(capsys)


def test_a_training_that_diverges_is_one_line(tmp_path: Path, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wild = ["--set", "fit.learning_rate=1e30", "--set", "fit.batch=2"]
    assert run(data, "mult", tmp_path / "out", *SMALL, *wild) == 2
    assert "late-fusion: no epoch has a finite error on the validation split" in one_line(capsys)
    path = write_utterances(tmp_path / "a.npz")
    assert run(path, "utterances", tmp_path / "out", *SMALL, *wild, "--set", "fit.patience=0") == 2
    assert "late-fusion: prediction must be finite" in one_line(capsys)
    assert not (tmp_path / "out" / "runs").exists()


def test_a_recipe_of_ones_own_is_known_by_its_files_name(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mine = tmp_path / "folder" / "mine.yaml"
    mine.parent.mkdir()
    mine.write_text(json.dumps({"system": "mmmie", "shape": SHAPES["mmmie", "causal"], "fit": {"epochs": 1}}))
    assert run(data, "mult", tmp_path / "out", str(mine), "--seeds", "1") == 0
    assert list(figures_of(tmp_path / "out")) == [f"mine/{ALL}"]
    assert (tmp_path / "out" / "runs" / f"mine-{ALL}-0.json").exists()
    assert [path.name for path in mine.parent.iterdir()] == ["mine.yaml"]
    assert run(data, "mult", tmp_path / "out", str(mine), "mine", "--seeds", "1") == 2
    assert "mine" in one_line(capsys)


def test_what_was_not_finite_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    given = mult()
    given["train"]["audio"][0, -1, :2] = -np.inf
    caplog.set_level("INFO", "train.compare")
    assert run(write_pickle(tmp_path / "a.pkl", given), "mult", tmp_path / "out", *SMALL, "--seeds", "1") == 0
    assert "train: 10; set to 0, as they were not finite: 2 of audio" in caplog.messages
    assert "valid: 10" in caplog.messages


def test_a_sweep_of_lists_is_split_between_them() -> None:
    assert compare._sweep("shape.kernels=[1,3,3],[3,3,3]") == ("shape.kernels", ["[1,3,3]", "[3,3,3]"])


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ("a,train\na,test", "a in two splits; expected each video in one"),
        ("a,Train", "a split Train; expected train, valid, test, or none"),
        ("a", "a split None; expected train"),
        (f"a,{'x' * 200_000}", "no table of folds"),
    ],
)
def test_folds_that_cannot_be_are_one_line(tmp_path: Path, lines: str, expected: str) -> None:
    (tmp_path / "labels.csv").write_text(f"video,split\n{lines}\n")
    assert expected in error_of(lambda: compare.read_folds(tmp_path / "labels.csv"), DataError)


def test_folds_are_read_from_a_table(tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    with path.open("w", newline="") as file:
        table = csv.DictWriter(file, ["split", "segment", "video"])
        table.writeheader()
        for number, (video, split) in enumerate([("b", "train"), ("a", "train"), ("a", "train"), ("c", "test"), ("d", "none")]):
            table.writerow({"video": video, "split": split, "segment": number})
    assert compare.read_folds(path) == {"train": ("a", "b"), "valid": (), "test": ("c",)}
