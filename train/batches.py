"""Sequences to padded batches, and a model run over them."""

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from models.causal import CausalModel
from models.mfm import CausalMFM
from stream.messages import LANES, Lane
from train.sequences import Sample

Scores = npt.NDArray[np.float64]
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


def analysed(model: CausalMFM, samples: Sequence[Sample], lane: Lane, size: int = 64) -> tuple[Scores, float]:
    """What MFM makes of samples whatever is missing of them, and of a lane that its surrogates have to guess.

    Returns:
        The sentiment at each last step if no surrogate stands in for a lane, (N,); and the squared error of the lane as
        the surrogates make it, as a share of that of the training data's mean, 1 being as good as that.
    """
    scores = np.zeros(len(samples))
    made, mean = 0.0, 0.0
    number = LANES.index(lane)
    model.eval()
    with torch.inference_mode():
        for numbers in by_length([sample.steps for sample in samples], size):
            lanes, _, steps = collate([samples[each] for each in numbers], next(model.parameters()).device)
            found = model.analyse(lanes, model.initial_state(len(numbers)))
            scores[numbers] = found.full.sentiment.gather(1, steps[:, None] - 1)[:, 0].cpu().numpy()
            there = lanes[lane][..., -1] > 0  # (B, T)
            features = found.features[number]  # spread: the training data's mean is 0
            made += float((found.made_without[number] - features)[there].square().sum())
            mean += float(features[there].square().sum())
    return scores, made / mean if mean else float("nan")
