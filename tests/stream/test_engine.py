import numpy as np
import pytest
import torch

from models.mmlatch import FLAGS, MODALITIES, CausalMMLatch
from stream.engine import Engine, Step, resolve_device, untrained_model, weights_digest
from stream.errors import UsageError

SIZES = {"text": 8, "audio": 6, "vision": 4}


@pytest.fixture
def model() -> CausalMMLatch:
    return untrained_model(**SIZES, max_steps=12)


def steps(count: int, restarts: tuple[int, ...] = (0,), seed: int = 0) -> list[Step]:
    rng = np.random.default_rng(seed)
    return [
        Step(k in restarts, {m: rng.normal(size=SIZES[m] + FLAGS).astype(np.float32) for m in MODALITIES}) for k in range(count)
    ]


def test_speculating_in_between_does_not_change_a_bit_of_what_is_committed(model: CausalMMLatch) -> None:
    inputs = steps(10, restarts=(0, 6))
    quiet, busy = Engine(model, torch.device("cpu")), Engine(model, torch.device("cpu"))
    expected = [quiet.commit(step) for step in inputs]
    found = []
    for k, step in enumerate(inputs):
        busy.speculate(steps(5, restarts=(2,), seed=k))
        found.append(busy.commit(step))
    assert found == expected


def test_the_tail_agrees_with_what_is_committed_later(model: CausalMMLatch) -> None:
    engine = Engine(model, torch.device("cpu"))
    inputs = steps(10, restarts=(0, 6))
    engine.commit(inputs[0])
    tail = engine.speculate(inputs[1:])
    committed = [engine.commit(step) for step in inputs[1:]]
    assert np.allclose([e.sentiment for e in tail], [e.sentiment for e in committed], atol=1e-5)
    assert np.allclose([e.weights for e in tail], [e.weights for e in committed], atol=1e-5)


def test_a_restart_forgets_all_that_was_before(model: CausalMMLatch) -> None:
    fresh, used = Engine(model, torch.device("cpu")), Engine(model, torch.device("cpu"))
    for step in steps(5, seed=1):
        used.commit(step)
    assert [used.commit(step) for step in steps(3)] == [fresh.commit(step) for step in steps(3)]


def test_untrained_weights_are_the_same_every_time_and_leave_the_random_state_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    one = untrained_model(**SIZES, max_steps=12)
    assert torch.rand(1) == expected
    assert weights_digest(one) == weights_digest(untrained_model(**SIZES, max_steps=12))
    assert weights_digest(one) != weights_digest(untrained_model(**SIZES, max_steps=12, seed=1))


@pytest.mark.parametrize("name", ["tpu", "gpu", "cuda:x", "", "mps", "meta"])
def test_an_unknown_device_is_named_with_those_that_are_known(name: str) -> None:
    with pytest.raises(UsageError, match=r"expected cpu, cuda or cuda:N"):
        resolve_device(name)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_cuda_without_a_gpu_says_what_is_missing() -> None:
    with pytest.raises(UsageError, match="no NVIDIA GPU") as caught:
        resolve_device("cuda")
    assert "\n" not in str(caught.value)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no NVIDIA GPU here")
def test_cuda_agrees_with_the_cpu(model: CausalMMLatch) -> None:
    inputs = steps(10, restarts=(0, 6))
    on_cpu = [Engine(model, torch.device("cpu")).commit(step) for step in inputs[:1]]
    cpu = Engine(model, torch.device("cpu"))
    on_cpu = [cpu.commit(step) for step in inputs]
    gpu = Engine(untrained_model(**SIZES, max_steps=12), resolve_device("cuda"))
    on_gpu = [gpu.commit(step) for step in inputs]
    assert np.allclose([e.sentiment for e in on_gpu], [e.sentiment for e in on_cpu], atol=1e-4)
