"""Sequences to padded batches, and a model run over them."""

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from models.causal import CausalModel
from stream.messages import LANES
from train.sequences import Sample

Batch = tuple[dict[str, Tensor], Tensor, Tensor]
"""For each lane (B, T, columns + 2), zeros after a sequence's end; targets (B,); lengths (B,)."""


def collate(samples: Sequence[Sample], device: torch.device) -> Batch:
    """Pad sequences to the longest."""
    longest = max(sample.steps for sample in samples)
    lanes: dict[str, Tensor] = {}
    for lane in LANES:
        rows = np.zeros((len(samples), longest, samples[0].lanes[lane].shape[1]), np.float32)  # (B, T, columns + 2)
        for row, sample in zip(rows, samples, strict=True):
            row[: sample.steps] = sample.lanes[lane]
        lanes[lane] = torch.from_numpy(rows).to(device)
    targets = torch.tensor([sample.target for sample in samples], dtype=torch.float32, device=device)
    return lanes, targets, torch.tensor([sample.steps for sample in samples], device=device)


def by_length(lengths: Sequence[int], size: int) -> Iterator[list[int]]:
    """Numbers of sequences in batches of like length, so that little is padded."""
    order = sorted(range(len(lengths)), key=lengths.__getitem__)
    for begin in range(0, len(order), size):
        yield order[begin : begin + size]


def predict(model: CausalModel, samples: Sequence[Sample], size: int = 64) -> list[npt.NDArray[np.float32]]:
    """Sentiment and uncertainty at each step of each sample, (T, 2)."""
    device = next(model.parameters()).device
    found: list[npt.NDArray[np.float32]] = [np.empty((0, 2), np.float32)] * len(samples)
    training = model.training
    model.eval()
    with torch.inference_mode():
        for numbers in by_length([sample.steps for sample in samples], size):
            lanes, _, steps = collate([samples[number] for number in numbers], device)
            prediction, _ = model(lanes, model.initial_state(len(numbers)))
            both = torch.stack([prediction.sentiment, prediction.uncertainty], -1).cpu().numpy()  # (B, T, 2)
            for number, row, length in zip(numbers, both, steps.tolist(), strict=True):
                found[number] = row[:length]
    model.train(training)
    return found
