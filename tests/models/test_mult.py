"""MulT as published: its size, who sees what, and that it can be saved. And causal: by formula."""

from dataclasses import replace
from functools import partial
from itertools import permutations
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from models.causal import MODALITIES
from models.layers import positions
from models.mult import CausalMulT, CausalTransformerLayer, MulT, MulTConfig, Transformer
from tests.models import test_causal
from tests.models.formulas import attend, feed_forward, head, lanes_of, mean_so_far, normalise, project, seen_so_far
from tests.models.test_causal import LOOK_BACK, SIZES, STEPS, Inputs, begun, rows, windows

LENGTHS = {"text": 7, "audio": 11, "vision": 9}


def made(**config: Any) -> MulT:
    return MulT.untrained(MulTConfig(**{**SIZES, "hidden": 8, "heads": 2, "layers": 2} | config), seed=1)


def sequences(batch: int = 2, **lengths: int) -> dict[str, Tensor]:
    random = torch.Generator().manual_seed(0)
    return {m: torch.randn(batch, {**LENGTHS, **lengths}[m], SIZES[m], generator=random) for m in MODALITIES}


def weights(model: MulT) -> int:
    return sum(each.numel() for each in model.parameters())


def test_it_has_the_weights_that_others_counted() -> None:
    assert weights(MulT(MulTConfig())) == 1_073_731
    assert weights(MulT(MulTConfig(hidden=40, heads=8, layers=4))) == 1_540_601
    assert weights(MulT(MulTConfig(hidden=40, heads=8, layers=4, kernels=(1, 3, 3)))) == 1_549_321


def test_sequences_of_any_lengths_give_a_score_each() -> None:
    found = made()(sequences())
    assert found.shape == (2,)
    assert found.isfinite().all()


def test_every_step_may_have_a_score_which_nothing_later_changes() -> None:
    model, inputs = made(every_step=True), sequences(audio=7, vision=7)
    scores = model(inputs)
    assert scores.shape == (2, 7)
    for step in range(1, 8):
        later = {m: x.clone() for m, x in inputs.items()}
        for x in later.values():
            x[:, step:] = 9.0
        assert_close(model(later)[:, :step], scores[:, :step], rtol=0.0, atol=1e-6)
        so_far = {m: x[:, :step] for m, x in inputs.items()}
        # The newest step's is the score of what there was so far, by the same weights.
        assert_close(made()(so_far), scores[:, step - 1], rtol=0.0, atol=1e-6)


def test_scoring_every_step_takes_the_same_weights() -> None:
    assert_close(made(every_step=True).state_dict(), made().state_dict(), rtol=0.0, atol=0.0)


@pytest.mark.parametrize("every_step", [False, True])
def test_a_score_does_not_depend_on_its_batch_mates(every_step: bool) -> None:
    model, inputs = made(every_step=every_step), sequences(**dict.fromkeys(LENGTHS, 7) if every_step else {})
    alone = torch.cat([model({m: x[row : row + 1] for m, x in inputs.items()}) for row in range(2)])
    assert_close(model(inputs), alone)


@pytest.mark.parametrize("m", MODALITIES)
def test_every_modality_and_every_weight_counts(m: str) -> None:
    model, inputs = made(), sequences()
    inputs[m].requires_grad_()
    model(inputs).sum().backward()
    gradient = inputs[m].grad
    assert gradient is not None
    assert (gradient.abs().sum((0, 2)) > 0).all()
    assert all(each.grad is not None and each.grad.isfinite().all() for each in model.parameters())


def test_nobody_looks_at_what_is_later() -> None:
    transformer = Transformer(MulTConfig(hidden=8, heads=2), 8, 2, 0.0).eval()
    x = torch.randn(1, 6, 8, generator=torch.Generator().manual_seed(0), requires_grad=True)
    for step in range(6):
        (gradient,) = torch.autograd.grad(transformer(x, x)[0, step, 0], x)  # of one column: all add up to the norm's constant
        assert (gradient[0, step + 1 :] == 0).all()
        assert (gradient[0, : step + 1] != 0).any(-1).all()


def test_where_lengths_differ_each_step_looks_as_much_further_on() -> None:
    transformer = Transformer(MulTConfig(hidden=8, heads=2), 8, 1, 0.0).eval()
    random = torch.Generator().manual_seed(0)
    target, source = torch.randn(1, 3, 8, generator=random), torch.randn(1, 5, 8, generator=random, requires_grad=True)
    (gradient,) = torch.autograd.grad(transformer(target, source)[0, 0, 0], source)
    assert (gradient[0] != 0).any(-1).tolist() == [True, True, True, False, False]


def test_padding_has_no_place() -> None:
    transformer = Transformer(made().config, 8, 1, 0.0).eval()
    x = torch.ones(1, 3, 8)
    x[0, 0, 0] = 0
    placed = transformer._placed(x)
    assert_close(placed[0, 0], x[0, 0] * 8**0.5)
    assert_close(placed[0, 1], x[0, 1] * 8**0.5 + positions(torch.tensor(2), 8))


def test_dropout_is_for_training_only() -> None:
    model, inputs = made(), sequences()
    assert torch.equal(model(inputs), model(inputs))
    model.train()
    assert not torch.equal(model(inputs), model(inputs))


def test_a_source_brings_the_dropout_of_its_attention() -> None:
    model = made(attention_dropout=0.3)
    found = {name: each.layers[0].attention.dropout for name, each in model.crossmodal.items()}  # type: ignore[union-attr,index]
    assert {name for name, share in found.items() if share == 0.3} == {"audio_by_text", "vision_by_text"}
    assert set(found.values()) == {0.0, 0.3}
    assert {each.layers[0].attention.dropout for each in model.memories.values()} == {0.3}  # type: ignore[union-attr,index]


def test_it_is_saved_and_loaded(tmp_path: Path) -> None:
    model, inputs = made(), sequences()
    model.save_pretrained(tmp_path)
    loaded = MulT.from_pretrained(tmp_path)
    assert loaded.config == model.config
    assert_close(loaded(inputs), model(inputs))


@pytest.mark.parametrize(
    ("wrong", "expected"),
    [
        ({"hidden": 9}, "hidden is 9, expected a multiple of heads, 2"),
        ({"kernels": (1, 2, 1)}, "kernels is (1, 2, 1), expected three odd numbers"),
        ({"layers": 0}, "layers is 0, expected 1 to"),
        ({"relu_dropout": 1.0}, "relu_dropout is 1.0, expected from 0 to below 1"),
    ],
)
def test_a_configuration_that_cannot_be_is_refused(wrong: dict[str, Any], expected: str) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        made(**wrong)
    assert expected in str(caught.value)


def test_inputs_that_do_not_fit_are_refused() -> None:
    model, inputs = made(), sequences()
    with pytest.raises(ValueError, match="sequences lack vision"):
        model({m: inputs[m] for m in ("text", "audio")})
    with pytest.raises(ValueError, match=r"audio is \(2, 11, 4\), expected \(B, L, 4\)"):
        model(inputs | {"text": inputs["text"][:1]})
    with pytest.raises(ValueError, match=r"vision is \(2, 0, 6\)"):
        model(inputs | {"vision": inputs["vision"][:, :0]})


def test_all_six_ways_between_the_modalities_are_there() -> None:
    assert set(made().crossmodal) == {f"{target}_by_{source}" for target, source in permutations(MODALITIES, 2)}


# The causal form.


def causal(**config: Any) -> CausalMulT:
    model = test_causal.made("mult", **config)
    assert isinstance(model, CausalMulT)
    return model


def causal_by_formula(model: CausalMulT, x: Inputs) -> tuple[Tensor, Tensor]:
    p, look = model.config.hidden, partial(attend, seen_so_far(STEPS, LOOK_BACK))

    def layer(block: CausalTransformerLayer, index: int, x: Tensor, memory: Tensor) -> Tensor:
        x = x + look(block.attention, index, normalise(x), normalise(memory))
        return x + feed_forward(block.network, index, normalise(x))

    inputs = [torch.cat(pair, -1) for pair in zip(*lanes_of(model, x), strict=True)]
    places = positions(torch.arange(1, STEPS + 1), p)
    placed = [project(each, lane) * p**0.5 + places for each, lane in zip(model.projections, inputs, strict=True)]

    def translated(target: int, source: int, index: int) -> Tensor:
        x = placed[target]
        for block in model.crossmodal:
            x = layer(block, index, x, placed[source])
        return normalise(x)

    text, audio, vision = range(3)
    memories = [
        torch.cat([translated(text, audio, 2), translated(text, vision, 4)], -1),
        torch.cat([translated(audio, text, 0), translated(audio, vision, 5)], -1),
        torch.cat([translated(vision, text, 1), translated(vision, audio, 3)], -1),
    ]
    for block in model.memories:
        memories = [layer(block, index, x, x) for index, x in enumerate(memories)]
    read = torch.cat([normalise(x) for x in memories], -1)
    return head(model, torch.cat([mean_so_far(read), read], -1))


def test_the_causal_model_is_that_of_the_formula(device: str) -> None:
    model, x = causal(), windows()
    expected = [causal_by_formula(model, rows(x, slot)) for slot in range(2)]
    model.to(device)
    found, _ = model({m: value.to(device) for m, value in x.items()}, begun(model))
    for slot, scores in enumerate(expected):
        assert_close((found.sentiment[slot].cpu(), found.uncertainty[slot].cpu()), scores, rtol=0.0, atol=1e-5)


@pytest.mark.parametrize(("layers", "memories"), [(1, 3), (3, 3), (4, 4)])
def test_a_memory_has_as_many_layers_but_at_least_three(layers: int, memories: int) -> None:
    model = causal(layers=layers)
    assert (len(model.crossmodal), len(model.memories)) == (layers, memories)
    assert {"source", *(f"memory.{i}" for i in range(memories))} == set(model.histories())


def test_the_same_window_at_another_place_gives_another_score() -> None:
    model, one = causal(), windows(1, 1)
    found, _ = model({m: value.expand(1, STEPS, -1) for m, value in one.items()}, begun(model, 1))
    assert len({round(score, 5) for score in found.sentiment[0].tolist()}) == STEPS


def test_every_step_is_for_aligned_sequences() -> None:
    inputs = sequences()
    inputs["audio"] = inputs["audio"][:, :-1]
    model = MulT.untrained(replace(made().config, every_step=True))
    with pytest.raises(ValueError, match="every_step is for aligned sequences"):
        model(inputs)
