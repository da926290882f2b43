import csv
import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from models.mmlatch import CausalMMLatch
from stream.windows import contracts
from tests.train.corpus import small_store
from train import assess, evaluate, fit, prepare
from train.pools import read_pool
from train.store import Store

FAST = ["model.hidden=8", "fit.batch=6", "fit.steps=12", "fit.warmup=2", "fit.validate_every=4", "fit.save_every=4"]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return small_store(tmp_path_factory.mktemp("features"))


def arguments(store: Store, out: Path, *settings: str) -> list[str]:
    return ["--features", str(store.folder), "--out", str(out), *(word for each in settings for word in ("--set", each))]


def one_line(capsys: pytest.CaptureFixture[str]) -> str:
    lines = capsys.readouterr().err.splitlines()
    [line] = [each for each in lines if each.startswith("error: ")]
    assert not any("Traceback" in each for each in lines)
    return line


def test_a_run_leaves_a_checkpoint_that_serves_and_says_what_it_is(store: Store, tmp_path: Path) -> None:
    assert fit.main(arguments(store, tmp_path, *FAST)) == 0
    model = CausalMMLatch.from_pretrained(tmp_path / "checkpoint", contracts=contracts(250_000_000))
    assert model.card.data == ("fer2013/train", "mosi/train", "ravdess/train", "sst/train")
    assert "valid/mosi/mae" in model.card.metrics
    assert list((tmp_path / "tensorboard").glob("events*"))


SYSTEMS = {"mmlatch": [], "mfm": ["model.shape={code: 4, memory: 8}"], "mmmie": ["model.shape={layers: 1}"]}


@pytest.mark.parametrize("system", SYSTEMS)
def test_the_same_command_goes_on_and_ends_as_if_it_had_never_stopped(
    system: str, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = [*FAST, f"model.system={system}", *SYSTEMS[system]]
    assert fit.main(arguments(store, tmp_path / "whole", *settings)) == 0
    advance = fit.Training.advance

    def killed(self: fit.Training) -> dict[str, float]:
        if self.step == 7:  # between two saves
            raise KeyboardInterrupt
        return advance(self)

    monkeypatch.setattr(fit.Training, "advance", killed)
    assert fit.main(arguments(store, tmp_path / "other", *settings)) == 130
    monkeypatch.setattr(fit.Training, "advance", advance)
    assert fit.main(arguments(store, tmp_path / "other", *settings)) == 0
    for file in ("state.safetensors", "checkpoint/model.safetensors"):
        whole, other = (load_file(tmp_path / run / file) for run in ("whole", "other"))
        assert whole.keys() == other.keys()
        assert all(torch.equal(whole[name], other[name]) for name in whole)
    whole, other = ((tmp_path / run / "checkpoint" / "config.json").read_text() for run in ("whole", "other"))
    assert whole == other


def test_bad_input_is_one_line(store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cases = {
        ("fit.steps=0", "fit.speed=1"): "fit.steps: .* fit.speed: unknown key, expected one of steps",
        ("mixture.corpora={iemocap: 1}",): r"iemocap.jsonl cannot be read: .*; run python -m train.prepare iemocap",
        ("mixture.corpora={}",): "mixture.corpora",
        ("model.system=mult", "model.shape={colour: 1}"): r"model.shape is \{'colour': 1\}, which mult does not have: .*colour",
        ("model.system=mulan",): "model.system: input should be 'mmlatch', 'late-fusion', .*, got 'mulan'",
    }
    for settings, message in cases.items():
        assert fit.main(arguments(store, tmp_path / "run", *settings)) == 2
        assert re.search(message, one_line(capsys))


def test_nan_among_the_features_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = small_store(tmp_path / "features", {"train": 4, "valid": 4, "test": 4})
    entries = store.read_manifest("ravdess")
    features = store.features([entry for entry in entries if entry.split == "train"])
    features[2]["inputs"][0, 400] = np.nan
    store.write_shard("ravdess-train", list(features))
    assert fit.main(arguments(store, tmp_path / "run", *FAST)) == 2
    assert re.search("train-2: inputs is not finite in .*ravdess-train.safetensors", one_line(capsys))


def test_an_evaluation_writes_tables_figures_and_plots(
    store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = []
    for seed in (0, 1):
        assert fit.main(arguments(store, tmp_path / str(seed), *FAST, f"seed={seed}")) == 0
        runs.append(str(tmp_path / str(seed) / "checkpoint"))
    out = tmp_path / "report"
    assert evaluate.main([*runs, "--features", str(store.folder), "--out", str(out)]) == 0
    assert {path.name for path in out.iterdir()} == {"figures.json", "report.md", "early.png", "lag.png", "reliability.png"}
    figures = json.loads((out / "figures.json").read_text())
    assert list(figures) == runs
    for name in ("mosi/accuracy_2_nonzero", "fer2013/balanced_accuracy_3", "lag/3/mae", "early/0.5/mae", "lanes/agree/all/mae"):
        assert all(np.isfinite(each[name]) for each in figures.values())
    assert figures[runs[0]]["lag/0/mae"] == figures[runs[0]]["mosi/mae"] == figures[runs[0]]["early/1/mae"]
    report = (out / "report.md").read_text()
    assert "mean ± standard deviation" in report
    assert evaluate.main([*runs, "--features", str(store.folder), "--out", str(out), "--hop-ms", "500"]) == 2
    assert "trained on other features: windows is" in one_line(capsys)


@pytest.mark.usefixtures("with_assets")
def test_training_on_real_words_beats_the_majority(shared: Path, tmp_path: Path) -> None:
    """MOSI from its table to scores, with rows of its own splits; the test split is not chosen by."""
    corpus = tmp_path / "data" / "mosi"
    corpus.mkdir(parents=True)
    (corpus / "CMU_MOSI_ModifiedTimestampedWords.csd").symlink_to(shared / "data/mosi/CMU_MOSI_ModifiedTimestampedWords.csd")
    with (shared / "data/mosi/utterances.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if float(row["end"]) - float(row["start"]) < 4]
    count = {"train": 220, "valid": 60, "test": 120}
    chosen = [row for split, most in count.items() for row in [each for each in rows if each["split"] == split][:most]]
    with (corpus / "utterances.csv").open("w", newline="") as file:
        table = csv.DictWriter(file, list(rows[0]))
        table.writeheader()
        table.writerows(chosen)
    features, run = tmp_path / "features", tmp_path / "run"
    assert prepare.main(["mosi", "--data", str(tmp_path / "data"), "--out", str(features)]) == 0
    only = ["mixture.corpora={mosi: 1}", "validation.corpora={mosi: 1}"]
    small = ["model.hidden=32", "fit.batch=32", "fit.steps=150", "fit.warmup=10", "fit.validate_every=50", "fit.average=0.95"]
    assert fit.main(arguments(Store(features), run, *only, *small)) == 0
    model = CausalMMLatch.from_pretrained(run / "checkpoint", contracts=contracts(250_000_000))
    samples = assess.samples(read_pool(Store(features), "mosi", "test"), 250_000_000, max_steps=120)
    truth = assess.truths(samples)
    found = assess.regression(assess.last_scores(model, samples)[0], truth)
    signed = truth[truth != 0]
    majority = max((signed > 0).mean(), (signed < 0).mean())
    assert found["accuracy_2_nonzero"] > majority + 0.05
    assert found["mae"] < np.abs(truth - np.median(truth)).mean()
    torch.set_num_threads(1)
