"""What train.prepare has made, as segments."""

from pathlib import Path

import numpy as np
import pytest

from stream.inputs import WIDTHS
from tests.train.corpus import small_store
from train import compare
from train.assess import samples
from train.data.prepared import HOP_NS, read_prepared
from train.errors import DataError
from train.items import SPLITS
from train.pools import read_pool


def test_the_rows_are_those_that_a_model_would_be_given_live(tmp_path: Path) -> None:
    store = small_store(tmp_path)
    found = dict(read_prepared(tmp_path, "ravdess"))
    assert tuple(found) == SPLITS
    pool = read_pool(store, "ravdess", "valid")
    valid = found["valid"]
    assert valid.ids == tuple(entry.id for entry in pool.entries)
    assert valid.labels.tolist() == pytest.approx(pool.sentiments.tolist())
    for number, features in enumerate(pool.features):
        steps = len(features["inputs"])
        assert valid.lengths["audio"][number] == steps
        lane = samples(pool, HOP_NS, max_steps=120)[number].lanes["audio"]
        assert np.array_equal(valid.inputs["audio"][number, :steps], lane[:, :-2])
        assert valid.flags is not None
        assert np.array_equal(valid.flags["audio"][number, :steps], lane[:, -2:])
        assert not valid.flags["text"][number].any()  # nobody knows what was said
        assert not valid.inputs["audio"][number, steps:].any()
    assert not valid.inputs["text"].any()
    assert {m: x.shape[2] for m, x in valid.inputs.items()} == WIDTHS


def test_a_system_is_trained_on_them(tmp_path: Path) -> None:
    small_store(tmp_path / "features")
    out = tmp_path / "out"
    arguments = ["late-fusion-causal", "--data", str(tmp_path / "features" / "mosi"), "--format", "prepared", "--out", str(out)]
    assert compare.main([*arguments, "--seeds", "1", "--set", "fit.epochs=1", "--set", "shape.hidden=8"]) == 0
    assert "late-fusion-causal/text+audio+vision" in (out / "table.md").read_text()


def test_what_was_not_prepared_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"mosei\.jsonl cannot be read: .*; run python -m train\.prepare mosei"):
        dict(read_prepared(tmp_path, "mosei"))
