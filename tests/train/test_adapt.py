import csv
import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from extractors.errors import Unavailable
from extractors.text import ADAPTER, CONTRACT, TextEmbedder, adapted
from tests.train.one_line import error_of
from train import adapt
from train.config import AdapterConfig, TrainConfig
from train.errors import DataError

SENTENCES = ["a wonderful film", "dreadful", "it was not bad at all i would say", "the door is green"]
SMALL = AdapterConfig(corpora={"sst": 1.0}, validation={"sst": 1.0}, steps=4, batch=4, validate_every=2, rank=2)


@pytest.fixture(scope="module")
def published() -> TextEmbedder:
    try:
        return TextEmbedder(adapter=None)
    except Unavailable as error:
        pytest.skip(str(error))


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A corpus in which praise and complaint are easily told."""
    folder = tmp_path / "corpora" / "sst"
    folder.mkdir(parents=True)
    for split in ("train", "valid", "test"):
        with (folder / f"{split}.csv").open("w", encoding="utf-8", newline="") as file:
            table = csv.writer(file)
            table.writerow(["label", "text"])
            table.writerows([(4, f"a wonderful {thing}") for thing in ("film", "cast", "plot", "score")])
            table.writerows([(0, f"a dreadful {thing}") for thing in ("film", "cast", "plot", "score")])
    return folder.parent


def trained(data: Path, out: Path, **changes: object) -> adapt.Adapter:
    settings = TrainConfig(adapter=SMALL.model_copy(update=changes))
    return adapt.adapt(settings, data, out, torch.device("cpu"))


def test_before_the_first_step_nothing_is_changed(published: TextEmbedder) -> None:
    model = adapt.Adapted(published.encoder, SMALL)
    tensors = model.adapter()
    weights = published.encoder.state_dict()
    assert tensors
    for name, weight in adapted(weights, tensors).items():
        assert torch.equal(weight, weights[name])
        assert tensors[f"{name}.up"].shape[1] == tensors[f"{name}.down"].shape[0] == SMALL.rank


def test_what_was_trained_is_what_is_served(published: TextEmbedder, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = adapt.Adapted(published.encoder, SMALL).eval()
    with torch.no_grad():
        for name, value in model.named_parameters():
            if name.endswith(".up"):
                value.normal_(0, 0.02)
    seen = []
    model.reader.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    save_file(model.adapter(), tmp_path / "adapter.safetensors")
    served = TextEmbedder(adapter=tmp_path / "adapter.safetensors")
    pieces = [served.pieces(sentence.split()) for sentence in SENTENCES]
    with torch.inference_mode():
        model(*adapt._padded(pieces, torch.device("cpu")))
    vectors = np.stack([served.embed(sentence.split()) for sentence in SENTENCES])
    np.testing.assert_allclose(seen[0].numpy() / np.sqrt(384), vectors, atol=1e-5)
    assert not np.allclose(vectors[0], published.embed(SENTENCES[0].split()), atol=1e-2)


def test_it_learns_and_the_published_weights_stay_as_they_are(published: TextEmbedder, data: Path, tmp_path: Path) -> None:
    before = {name: value.clone() for name, value in published.encoder.state_dict().items()}
    found = trained(data, tmp_path / "out", steps=24, learning_rate=5e-3)
    assert found.metrics["sst"]["accuracy_2_nonzero"] == 1.0
    assert found.metrics["sst"]["mae"] < 1.2
    after = published.encoder.state_dict()
    assert all(torch.equal(value, after[name]) for name, value in before.items())


def test_the_same_seed_gives_the_same_adapter(published: TextEmbedder, data: Path, tmp_path: Path) -> None:
    first, second = (trained(data, tmp_path / name).tensors for name in ("first", "second"))
    assert first.keys() == second.keys()
    assert all(torch.equal(value, second[name]) for name, value in first.items())


def test_the_command_writes_what_can_be_served(data: Path, tmp_path: Path) -> None:
    sets = [f"adapter.{key}={value}" for key, value in {"corpora": '{"sst":1}', "validation": '{"sst":1}', "steps": 2}.items()]
    given = [word for each in (*sets, "adapter.batch=2") for word in ("--set", each)]
    assert adapt.main(["--data", str(data), "--out", str(tmp_path / "out"), *given]) == 0
    vector = TextEmbedder(adapter=tmp_path / "out" / ADAPTER.name).embed(["yes"])
    assert np.isfinite(vector).all()


def test_corpora_that_are_missing_or_have_no_words_are_named(
    published: TextEmbedder, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "mosi is missing" in error_of(lambda: adapt.sentences(data, "mosi", "train", published), DataError)
    assert adapt.main(["--data", str(tmp_path), "--out", str(tmp_path / "out")]) == 2
    assert "is missing" in capsys.readouterr().err
    assert not (tmp_path / "out" / ADAPTER.name).exists()


def test_the_packages_adapter_is_named_in_the_contract_and_fits_the_encoder(published: TextEmbedder) -> None:
    adapter = load_file(ADAPTER)
    weights = published.encoder.state_dict()
    changed = adapted(weights, adapter)
    assert len(changed) == 5 * 6  # queries, values, attention's output, feed-forward in and out; 6 layers
    assert all(torch.isfinite(weight).all() and weight.shape == weights[name].shape for name, weight in changed.items())
    assert CONTRACT.parameters["adapter_sha256"] == hashlib.sha256(ADAPTER.read_bytes()).hexdigest()
