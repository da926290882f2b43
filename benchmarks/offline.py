"""What does it cost to train a system on CMU-MOSEI from one of the files in which it is passed around?

    python -m benchmarks.offline [--share 0.05] [--device cuda] [--json FILE]

A pickle of MulT's is written, in a temporary folder, with as many segments of 50 steps as the real one has (train 16,326, valid
1,871, test 4,659; GloVe, COVAREP and FACET, 300, 74 and 35 columns, float64), but drawn at random: each segment is 1 to 50
steps long, padded in front. Then `train.compare` trains the published MMLatch on it for one epoch, on one thread, in a process
of its own, of which the largest resident memory is taken, with what is mapped of files. Its baseline is that of a process that
reads the same pickle as MulT's code does: whole for each split, of which a copy in float32 is kept. Times are the wall's.
"""

import argparse
import os
import pickle
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch

from benchmarks.common import Figure, parser, show_figures, write

SIZES = {"train": 16_326, "valid": 1_871, "test": 4_659}
WIDTHS = {"text": 300, "audio": 74, "vision": 35}
STEPS = 50


def write_corpus(path: Path, sizes: Mapping[str, int]) -> None:
    """Draw the splits, and pickle them."""
    random = np.random.default_rng(0)
    corpus: dict[str, dict[str, object]] = {}
    for split, count in sizes.items():
        padding = np.arange(STEPS) < random.integers(0, STEPS, count)[:, None]  # (N, L)
        corpus[split] = {
            "labels": random.uniform(-3, 3, (count, 1, 1)),
            "id": np.array([[str(n), "0", "1"] for n in range(count)]),
        }
        for m, width in WIDTHS.items():
            corpus[split][m] = x = random.standard_normal((count, STEPS, width))
            x[padding] = 0
    with path.open("wb") as file:
        pickler = pickle.Pickler(file, protocol=4)
        pickler.fast = True  # keeps nothing of what is written
        pickler.dump(corpus)


def read_whole(path: Path, splits: list[str]) -> float:
    """Read it as MulT's code does; returns this process's peak, GB.

    Source: src/dataset.py of github.com/yaohungt/Multimodal-Transformer.
    """

    def tensors(split: str) -> list[torch.Tensor]:
        with path.open("rb") as file:
            corpus = pickle.load(file)
        return [torch.tensor(corpus[split][m].astype(np.float32)) for m in WIDTHS]

    kept = [tensors(split) for split in splits]
    assert len(kept) == len(splits)
    return _gb(resource.getrusage(resource.RUSAGE_SELF))


def _gb(usage: resource.struct_rusage) -> float:
    return usage.ru_maxrss * 1024 / 1e9  # Linux counts in KiB


def compared(path: Path, device: str) -> tuple[float, float, float]:
    """Seconds until `train.compare` has the data as plain arrays, and from there to its figures; and its peak, GB."""
    command = [sys.executable, "-m", "train.compare", "mmlatch", "--data", str(path), "--format", "mult"]
    command += ["--out", str(path.parent / "out"), "--seeds", "1", "--set", "fit.epochs=1", "--device", device]
    lines = []
    begun_s = converted_s = time.monotonic()
    # Threads that have to wait for other work wait far longer than they compute.
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("train: "):
            converted_s = time.monotonic()
        lines.append(line)
    _, status, usage = os.wait4(process.pid, 0)
    ended_s = time.monotonic()
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit("".join(lines))
    return converted_s - begun_s, ended_s - converted_s, _gb(usage)


def measured(arguments: argparse.Namespace, folder: Path) -> list[Figure]:
    """All figures; what is large is done in processes of its own."""
    sizes = {split: max(1, round(arguments.share * size)) for split, size in SIZES.items()}
    path = folder / "mosei.pkl"
    with ProcessPoolExecutor(1, get_context("spawn"), max_tasks_per_child=1) as pool:
        pool.submit(write_corpus, path, sizes).result()
        whole_gb = pool.submit(read_whole, path, list(sizes)).result()
    converting_s, training_s, peak_gb = compared(path, arguments.device)
    return [
        Figure("the pickle", path.stat().st_size / 1e9, "GB"),
        Figure("to plain arrays, with the program's start", converting_s, "s"),
        Figure("one epoch, with its validation and the test", training_s, "s"),
        Figure("segments of the train split in that time", sizes["train"] / training_s, "1/s"),
        Figure.against(whole_gb, "largest resident memory; baseline: the pickle as MulT's code reads it", peak_gb, "GB"),
    ]


def main() -> None:
    """Measure, print and write."""
    options = parser(__doc__)
    options.add_argument("--share", type=float, default=1.0, help="of the real number of segments (default 1)")
    options.add_argument("--device", default="cpu", help="cpu (default), cuda or cuda:N")
    arguments = options.parse_args()
    folder = Path(tempfile.mkdtemp())
    try:
        figures = measured(arguments, folder)
    finally:
        shutil.rmtree(folder)
    show_figures(figures)
    write(arguments.json, figures)


if __name__ == "__main__":
    main()
