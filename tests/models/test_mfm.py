"""MFM as published: it scores, makes modalities again, and guesses one that is missing better than its mean does."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from models.causal import MODALITIES
from models.mfm import JOINT, MFM, MFMConfig, Weights

SIZES = {"text": 5, "audio": 4, "vision": 6}
SMALL: dict[str, Any] = {
    **SIZES,
    "hidden": (16, 16, 16),
    "codes": (8, 8, 8, 8),
    "factors": (8, 8, 8, 8),
    "memory": 8,
    "attention_hidden": 16,
    "attention_dropout": 0.0,
    "code_dropout": (0.0, 0.0, 0.0, 0.0),
}
LENGTHS = torch.tensor([7, 3])


def made(**config: Any) -> MFM:
    return MFM.untrained(MFMConfig(**SMALL | config), seed=1)


def sequences(batch: int = 2, steps: int = 7) -> dict[str, Tensor]:
    random = torch.Generator().manual_seed(0)
    return {m: torch.randn(batch, steps, size, generator=random) for m, size in SIZES.items()}


def test_it_scores_and_makes_every_modality_again() -> None:
    found = made()(sequences(), LENGTHS)
    assert found.sentiment.shape == (2,)
    assert {name: tuple(z.shape) for name, z in found.codes.items()} == dict.fromkeys((*MODALITIES, JOINT), (2, 8))
    assert {m: tuple(x.shape) for m, x in found.made.items()} == {m: (2, 7, size) for m, size in SIZES.items()}


def test_padding_and_batch_mates_do_not_count() -> None:
    model, inputs = made(), sequences()
    both = model(inputs, LENGTHS)
    alone = model({m: x[1:, :3] for m, x in inputs.items()}, LENGTHS[1:])
    assert_close(both.sentiment[1:], alone.sentiment)
    for name, z in both.codes.items():
        assert_close(z[1:], alone.codes[name])


def test_the_score_reads_the_joint_factor_alone() -> None:
    model, inputs = made(), sequences()
    codes = {name: z.detach().requires_grad_() for name, z in model(inputs, LENGTHS).codes.items()}
    found = torch.autograd.grad(model._decode(codes, 7).sentiment.sum(), list(codes.values()), allow_unused=True)
    assert {name for name, gradient in zip(codes, found, strict=True) if gradient is not None} == {JOINT}


@pytest.mark.parametrize("missing", MODALITIES)
def test_a_missing_modality_is_guessed_from_the_others(missing: str) -> None:
    model, inputs = made(), sequences()
    found = model({m: x for m, x in inputs.items() if m != missing}, LENGTHS)
    assert found.made[missing].shape == inputs[missing].shape
    full = model(inputs, LENGTHS)
    for m in MODALITIES:
        assert torch.equal(found.codes[m], full.codes[m]) == (m != missing)


def test_every_weight_learns_from_the_loss() -> None:
    model = made().train()
    parts = model.loss(sequences(), LENGTHS, torch.tensor([1.0, -1.0]), Weights())
    assert set(parts) == {"score", "made", "discrepancy", "surrogates", "score without", "made without"}
    torch.stack(list(parts.values())).sum().backward()
    lacking = [name for name, weight in model.named_parameters() if weight.grad is None or not weight.grad.isfinite().all()]
    assert lacking == []


def test_trained_it_makes_a_missing_modality_better_than_its_mean() -> None:
    """Sequences whose modalities hang on one hidden number, with noise; the audio is then missing."""
    torch.manual_seed(0)
    random = torch.Generator().manual_seed(1)
    directions = {m: torch.randn(size, generator=random) for m, size in SIZES.items()}

    def batch(count: int) -> tuple[dict[str, Tensor], Tensor]:
        cause = torch.randn(count, 1, 1, generator=random)
        inputs = {m: cause * d + 0.2 * torch.randn(count, 4, len(d), generator=random) for m, d in directions.items()}
        return inputs, cause[:, 0, 0]

    model = made().train()
    optimiser = torch.optim.Adam(model.parameters(), 5e-3)
    lengths = torch.full((64,), 4)
    weights = Weights(text=1, audio=1, vision=1, discrepancy=0.1)
    for _ in range(150):
        inputs, labels = batch(64)
        optimiser.zero_grad()
        torch.stack(list(model.loss(inputs, lengths, labels, weights).values())).sum().backward()
        optimiser.step()
    model.eval()
    inputs, labels = batch(200)
    lengths = torch.full((200,), 4)
    with torch.no_grad():
        guessed = model({m: inputs[m] for m in ("text", "vision")}, lengths)
    error = ((guessed.made["audio"] - inputs["audio"]) ** 2).mean()
    of_the_mean = ((inputs["audio"] - inputs["audio"].mean((0, 1))) ** 2).mean()
    assert error < 0.3 * of_the_mean
    assert torch.corrcoef(torch.stack([guessed.sentiment, labels]))[0, 1] > 0.9


def test_it_is_saved_and_loaded(tmp_path: Path) -> None:
    model, inputs = made(), sequences()
    model.save_pretrained(tmp_path)
    assert torch.equal(MFM.from_pretrained(tmp_path)(inputs, LENGTHS).sentiment, model(inputs, LENGTHS).sentiment)


def test_what_does_not_fit_is_refused() -> None:
    model, inputs = made(), sequences()
    with pytest.raises(ValueError, match="surrogates need two modalities"):
        model({"text": inputs["text"]}, LENGTHS)
    with pytest.raises(ValueError, match=r"audio is \(2, 6, 4\), expected \(B, L, 4\)"):
        model(inputs | {"audio": inputs["audio"][:, :6]}, LENGTHS)
    with pytest.raises(ValueError, match=r"lengths: \[8, 3\], expected one for each of B = 2, from 1 to L = 7"):
        model(inputs, torch.tensor([8, 3]))
    with pytest.raises(ValueError, match="codes is"):
        made(codes=(1, 2, 3))
