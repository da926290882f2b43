"""Training: `python -m train.fit`, or `torchrun --nproc-per-node N -m train.fit` on several GPUs or machines.

Plain PyTorch under torchrun: the loop is a page, and what a framework would add to it is state that has to be saved too.
"""

import logging
import math
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path

import numpy as np
import torch
from torch import distributed
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from models.checkpoint import Card
from stream.engine import resolve_device
from stream.windows import contracts
from train import assess, calibrate, command, config
from train.config import TrainConfig
from train.errors import TrainError
from train.pools import read_pool
from train.sequences import Sample
from train.store import Store
from train.training import Training, rank

log = logging.getLogger("train.fit")

STATE, CHECKPOINT = "state.safetensors", "checkpoint"
_EXAMPLES = """\
examples:
  python -m train.fit --features features --out runs/0
  python -m train.fit --features features --out runs/1 --set seed=1 --set fit.steps=1000
  torchrun --nproc-per-node 4 -m train.fit --features features --out runs/0 --device cuda

Under torchrun with --device cuda each process has a GPU of its own.
A run that was stopped goes on when the same command is given again. Every key: configs/train.yaml
"""


def main(arguments: list[str] | None = None) -> int:
    """Train one model; 0 if it came to its end, 2 if it could not."""
    options = command.parser("fit", "Train the causal MMLatch on prepared features.", _EXAMPLES)
    command.add_features(options)
    options.add_argument("--out", type=Path, metavar="FOLDER", required=True, help="the run: its state, logs and checkpoint")
    command.add_settings(options)
    given = options.parse_args(arguments)

    def work() -> None:
        settings = config.load(given.config, tuple(given.set))
        with _processes(given.device) as device:
            fit(settings, Store(given.features), given.out, device)

    return command.run(work, stopped="the same command goes on from the last saved step")


@contextmanager
def _processes(name: str) -> Iterator[torch.device]:
    """The device of this process: under torchrun the process joins the others, and has a GPU of its own."""
    if "WORLD_SIZE" not in os.environ:
        yield resolve_device(name)
        return
    on_gpu = name.startswith("cuda")
    device = resolve_device(f"cuda:{os.environ['LOCAL_RANK']}" if on_gpu else name)
    if on_gpu:
        torch.cuda.set_device(device)
    distributed.init_process_group("nccl" if on_gpu else "gloo")
    try:
        yield device
    finally:
        distributed.destroy_process_group()


def fit(settings: TrainConfig, store: Store, out: Path, device: torch.device) -> Path:
    """Train, or go on training, to the end; returns the checkpoint's folder.

    Raises:
        DataError: Features are missing or damaged.
        TrainError: The run cannot be written, or was begun with another configuration.
    """
    torch.set_num_threads(1)
    pools = {corpus: read_pool(store, corpus, "train") for corpus in settings.mixture.corpora}
    weights, largest = settings.validation.corpora, settings.validation.largest
    validation = {
        corpus: assess.samples(
            read_pool(store, corpus, "valid"), settings.hop_ns, max_steps=settings.model.max_steps, largest=largest
        )
        for corpus in weights
    }
    training = Training(settings, pools, device)
    if (out / STATE).exists():
        training.load(out / STATE)
        log.info("going on from step %d", training.step)
    first = rank() == 0
    board = SummaryWriter(str(out / "tensorboard"), purge_step=training.step) if first else None
    bar = tqdm(total=settings.fit.steps, initial=training.step, unit="step", disable=None if first else True)
    with board or nullcontext(), bar:
        while not training.finished:
            found = {"train": training.advance()}
            bar.update()
            if training.due(settings.fit.validate_every):
                metrics = assess.validate(training.average, validation)
                error = assess.weighted_error(metrics, weights)
                training.judge(error)
                found |= {f"valid/{corpus}": values for corpus, values in metrics.items()} | {"valid": {"error": error}}
                bar.set_postfix_str(f"error {error:.4f}, best {training.best_error:.4f} at {training.best_step}")
            if board:
                for group, values in found.items():
                    for name, value in values.items():
                        board.add_scalar(f"{group}/{name}", value, training.step)
            if first and (training.due(settings.fit.save_every) or training.finished):
                training.save(out / STATE)
    return _finish(training, validation, out) if first else out / CHECKPOINT


def _finish(training: Training, validation: Mapping[str, list[Sample]], out: Path) -> Path:
    """Calibrate the best weights, and write them as a checkpoint."""
    settings, model = training.settings, training.best_model()
    scores = {corpus: assess.last_scores(model, samples) for corpus, samples in validation.items()}
    error = np.concatenate([scores[corpus][0] - assess.truths(samples) for corpus, samples in validation.items()])
    calibrate.apply(model, *calibrate.fitted(np.concatenate([uncertainty for _, uncertainty in scores.values()]), error))
    model.card = Card(
        contracts=contracts(settings.hop_ns),
        data=tuple(f"{corpus}/train" for corpus in sorted(settings.mixture.corpora)),
        metrics={
            f"valid/{corpus}/{name}": value
            for corpus, values in assess.validate(model, validation).items()
            for name, value in values.items()
            if math.isfinite(value)
        },
    )
    try:
        model.save_pretrained(out / CHECKPOINT)
    except OSError as error:
        raise TrainError(f"{out / CHECKPOINT} cannot be written: {error.strerror}; make room there") from error
    return out / CHECKPOINT


if __name__ == "__main__":
    sys.exit(main())
