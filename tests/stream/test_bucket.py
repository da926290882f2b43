from collections.abc import Iterator
from unittest import mock

import numpy as np
import pytest
import torch

from models.causal import FLAGS, MODALITIES
from models.mmlatch import CausalMMLatch, CausalMMLatchConfig
from stream.bucket import Bucket, Floats, Ints, Steps
from stream.engine import Engine

CONFIG = CausalMMLatchConfig(text=7, audio=5, vision=6, hidden=24, max_steps=6)
SIZE, LONGEST = 3, 5
ALL = np.arange(SIZE)


@pytest.fixture(autouse=True)
def no_gpu_is_asked() -> Iterator[None]:
    with mock.patch.object(torch.cuda, "graph_pool_handle"):
        yield


def made(*, as_for_graphs: bool) -> tuple[Bucket, list[int]]:
    """A bucket on the CPU, and the number of windows of each call; padded as calls are that are captured once for all."""
    model, calls = CausalMMLatch.untrained(CONFIG), []
    engine = Engine(model, torch.device("cpu"), bucket=SIZE, tail=LONGEST)
    engine._graphs = as_for_graphs
    bucket = engine._new_bucket()
    for row in ALL:
        bucket.start(int(row), None)
    model.register_forward_pre_hook(lambda _, args: calls.append(args[0]["text"].shape[1]))
    return bucket, calls


def steps(seq: Ints, count: Ints, version: int = 0) -> Steps:
    width = sum(getattr(CONFIG, m) + FLAGS for m in MODALITIES)
    longest = int(count.max())
    inputs = np.empty((len(seq), longest, width), np.float32)
    for row, first in enumerate(seq):
        for ahead in range(longest):
            inputs[row, ahead] = np.random.default_rng([row, first + ahead, version]).normal(size=width)
    return Steps(seq, count, (seq[:, None] + np.arange(longest)) % 7 == 3, inputs)


def play(bucket: Bucket, counts: list[list[int]]) -> tuple[list[Floats], list[Floats]]:
    """Tails of so many windows at each tick, after which the first window of each is settled: tails and finals."""
    tails, finals = [], []
    with torch.inference_mode():
        for seq, count in enumerate(counts):
            wrong = steps(np.full(SIZE, seq), np.full(SIZE, LONGEST), version=1)
            bucket.extend(ALL, wrong)
            tail = bucket.extend(ALL, steps(np.full(SIZE, seq), np.array(count)))
            tails.append(np.concatenate([row[:each] for row, each in zip(tail, count, strict=True)]))
            finals.append(bucket.settle(ALL))
    return tails, finals


@pytest.mark.parametrize(("windows", "call"), [(1, 1), (2, 2), (3, 4), (4, 4), (5, 8)])
def test_captured_calls_are_of_1_2_4_windows_and_so_on(windows: int, call: int) -> None:
    for as_for_graphs, expected in ((True, call), (False, windows)):
        bucket, calls = made(as_for_graphs=as_for_graphs)
        with torch.inference_mode():
            bucket.extend(ALL, steps(np.full(SIZE, 4), np.full(SIZE, windows)))
        assert calls[0] == expected


def test_padded_calls_change_nothing_but_the_last_digits_of_a_tail() -> None:
    counts = [[1 + (seq * (who + 2)) % LONGEST for who in range(SIZE)] for seq in range(60)]
    (padded, calls), (exact, _) = made(as_for_graphs=True), made(as_for_graphs=False)
    (tails, finals), (expected_tails, expected) = play(padded, counts), play(exact, counts)
    assert all(np.array_equal(one, other) for one, other in zip(finals, expected, strict=True))
    for one, other in zip(tails, expected_tails, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-5)
    assert set(calls) == {1, 2, 4, 8}
