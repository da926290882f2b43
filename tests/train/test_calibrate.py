import numpy as np
import pytest
import torch

from models.mmlatch import SCORE_LIMIT, CausalMMLatch, CausalMMLatchConfig
from train import calibrate
from train.batches import predict
from train.calibrate import Evidence, Head
from train.sequences import Sample

RANDOM = np.random.default_rng(0)
WIDTHS = {"text": 4, "audio": 3, "vision": 2}


def drawn(count: int, head: Head, *, scale: float = 1.0) -> Evidence:
    """Errors as wide as a head says."""
    read = torch.from_numpy(RANDOM.normal(size=(count, len(head.weight))))
    sigma = SCORE_LIMIT * (read @ head.weight + head.bias).sigmoid()
    return Evidence(read, scale * sigma * torch.from_numpy(RANDOM.normal(size=count)), torch.full((count,), 1 / count))


def test_the_uncertainty_becomes_what_the_errors_are_like() -> None:
    true = Head(torch.tensor([0.6, -0.4, 0.0, 0.2], dtype=torch.float64), torch.tensor(-1.0, dtype=torch.float64))
    before = Head(true.weight / 3, true.bias - 1.5)  # too small, and too much the same
    after = calibrate.fitted(drawn(4000, true), before)
    test = drawn(4000, true)
    assert after.cost(test) < before.cost(test) - 0.3
    assert after.cost(test) == pytest.approx(float(true.cost(test)), abs=0.01)


def test_little_evidence_changes_little_but_the_size() -> None:
    head = Head(torch.from_numpy(RANDOM.normal(0, 0.1, 128)), torch.tensor(-1.0, dtype=torch.float64))
    after = calibrate.fitted(drawn(200, head, scale=1.5), head)
    test = drawn(4000, head, scale=1.5)
    assert after.cost(test) < head.cost(test)


def test_every_corpus_counts_the_same() -> None:
    model = CausalMMLatch.untrained(CausalMMLatchConfig(**WIDTHS, hidden=8, max_steps=6)).eval()
    few, many = ([sequence(target) for _ in range(count)] for target, count in ((2.9, 10), (0.0, 200)))
    calibrate.calibrate(model, {"few": few, "many": many})
    error, said = [], []
    for samples in (few, many):
        found = np.array([each[-1] for each in predict(model, samples)])
        error.append(np.mean((found[:, 0] - samples[0].target) ** 2))
        said.append(np.mean(found[:, 1] ** 2))
    assert sum(said) / 2 == pytest.approx(sum(error) / 2, rel=0.35)


def sequence(target: float) -> Sample:
    lanes = {lane: RANDOM.normal(size=(5, width + 2)).astype(np.float32) for lane, width in WIDTHS.items()}
    return Sample(lanes, target)


def test_the_sentiment_stays_as_it_is() -> None:
    model = CausalMMLatch.untrained(CausalMMLatchConfig(**WIDTHS, hidden=8, max_steps=6)).eval()
    samples = [sequence(target) for target in RANDOM.uniform(-2, 2, 50)]
    before = np.array([each[-1] for each in predict(model, samples)])
    calibrate.calibrate(model, {"some": samples})
    after = np.array([each[-1] for each in predict(model, samples)])
    assert np.array_equal(before[:, 0], after[:, 0])
    assert not np.allclose(before[:, 1], after[:, 1], atol=1e-3)


def test_reliability_has_groups_of_like_size_in_order() -> None:
    uncertainty, error = RANDOM.uniform(0.1, 2, 101), RANDOM.normal(size=101)
    groups = calibrate.reliability(uncertainty, error, bins=8)
    assert sum(group.size for group in groups) == 101
    assert max(group.size for group in groups) - min(group.size for group in groups) <= 1
    assert [group.expected for group in groups] == sorted(group.expected for group in groups)
