import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.conftest import ROOT
from tests.train.corpus import small_store
from train.config import TrainConfig
from train.errors import TrainError
from train.pools import Pool, read_pool
from train.store import Store
from train.training import Training

CPU = torch.device("cpu")
SMALL = {
    "model": {"hidden": 8, "max_steps": 20},
    "fit": {"batch": 6, "steps": 30, "warmup": 2, "validate_every": 5, "save_every": 3, "patience": 3},
}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return small_store(tmp_path_factory.mktemp("features"))


@pytest.fixture(scope="module")
def pools(store: Store) -> dict[str, Pool]:
    return {corpus: read_pool(store, corpus, "train") for corpus in TrainConfig().mixture.corpora}


def settings(**changed: object) -> TrainConfig:
    return TrainConfig.model_validate(SMALL | changed)


def same(one: Training, other: Training) -> bool:
    pairs = zip(one.average.state_dict().items(), other.average.state_dict().items(), strict=True)
    return all(name == again and torch.equal(value, like) for (name, value), (again, like) in pairs)


@pytest.mark.parametrize("killed_after", [1, 7, 8, 13])
def test_a_run_that_was_killed_goes_on_with_the_same_bits(pools: dict[str, Pool], tmp_path: Path, killed_after: int) -> None:
    """Within a group of batches, between two, and before the moments have any past."""
    whole, first = Training(settings(), pools, CPU), Training(settings(), pools, CPU)
    terms = [whole.advance() for _ in range(16)]
    whole.judge(1.0)
    for _ in range(killed_after):
        first.advance()
    first.judge(2.0)
    first.save(tmp_path / "state")
    torch.manual_seed(99)  # another process, and whatever it drew
    second = Training(settings(), pools, CPU)
    second.load(tmp_path / "state")
    assert (second.step, second.best_error, second.best_step) == (killed_after, 2.0, killed_after)
    assert same(first, second)
    assert [second.advance() for _ in range(16 - killed_after)] == terms[killed_after:]
    assert same(whole, second)
    whole.save(tmp_path / "whole")
    second.judge(1.0)
    second.save(tmp_path / "second")
    one, other = load_file(tmp_path / "whole"), load_file(tmp_path / "second")
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_seeds_differ_and_a_seed_repeats(pools: dict[str, Pool]) -> None:
    found = [Training(settings(seed=seed), pools, CPU) for seed in (1, 1, 2)]
    for training in found:
        training.advance()
    assert same(found[0], found[1])
    assert not same(found[0], found[2])


def test_the_objective_becomes_smaller(pools: dict[str, Pool]) -> None:
    training = Training(settings(fit=SMALL["fit"] | {"steps": 100, "batch": 16, "learning_rate": 0.01}), pools, CPU)
    errors = [training.advance()["error"] for _ in range(100)]
    assert sum(errors[-20:]) < 0.8 * sum(errors[:20])


def test_the_best_weights_are_kept_and_a_run_that_no_longer_improves_ends(pools: dict[str, Pool]) -> None:
    training = Training(settings(), pools, CPU)
    for _ in range(5):
        training.advance()
    training.judge(1.0)
    best = training.average.head.weight.clone()
    while not training.finished:
        training.advance()
        if training.due(5):
            training.judge(1.5)
    assert training.step == 20  # three times without improvement
    assert torch.equal(training.best_model().head.weight, best)
    assert not torch.equal(training.average.head.weight, best)


def test_columns_that_never_vary_are_ignored(pools: dict[str, Pool]) -> None:
    model = Training(settings(), pools, CPU).average
    counted = model.spreads["vision"].counted()
    assert counted[:58].all()
    assert not counted[58:].any()  # a still face does not move


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: path.write_bytes(path.read_bytes()[:100]), "cannot be read.*delete it to begin anew"),
        (lambda path: None, "with other settings; give the same again"),
    ],
)
def test_a_state_that_does_not_fit_is_an_error(pools: dict[str, Pool], tmp_path: Path, damage: object, message: str) -> None:
    path = tmp_path / "state"
    first = Training(settings(), pools, CPU)
    first.advance()
    first.save(path)
    damage(path)  # type: ignore[operator]
    with pytest.raises(TrainError, match=message) as raised:
        Training(settings(seed=7), pools, CPU).load(path)
    assert "\n" not in str(raised.value)


def test_a_full_disk_is_an_error_and_leaves_the_last_state(
    pools: dict[str, Pool], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "state"
    training = Training(settings(), pools, CPU)
    training.advance()
    training.save(path)
    before = path.read_bytes()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    training.advance()
    with pytest.raises(TrainError, match="No space left on device; make room"):
        training.save(path)
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["state"]


PROCESS = """
import sys, torch
from pathlib import Path
from torch import distributed
from tests.train.test_training import CPU, settings
from train.config import TrainConfig
from train.fit import _processes
from train.pools import read_pool
from train.store import Store
from train.training import Training, rank

with _processes("cpu") as device:
    store = Store(Path(sys.argv[1]))
    training = Training(settings(), {c: read_pool(store, c, "train") for c in TrainConfig().mixture.corpora}, device)
    print(rank(), *sorted(training._next()[0].lanes), training._next()[0].target)
    for _ in range(3):
        training.advance()
    training.save(Path(sys.argv[1]) / f"state-{rank()}")
"""


def test_processes_share_their_gradients_and_draw_for_themselves(tmp_path: Path) -> None:
    store = small_store(tmp_path)
    script = tmp_path / "process.py"
    script.write_text(PROCESS)
    run = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone", script, store.folder],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    one, other = (load_file(tmp_path / f"state-{number}") for number in (0, 1))
    assert all(torch.equal(one[name], other[name]) for name in one)
    drawn = dict(line.split(" ", 1) for line in run.stdout.splitlines())
    assert drawn["0"] != drawn["1"]
