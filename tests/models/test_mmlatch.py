import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from models.layers import State
from models.mmlatch import MODALITIES, CausalMMLatch, MMLatchConfig

CONFIG = MMLatchConfig(text=12, audio=7, vision=9, hidden=8, max_steps=16)
SIZES = {"text": CONFIG.text, "audio": CONFIG.audio, "vision": CONFIG.vision}
STEPS = 10
Windows = dict[str, Tensor]


def made(config: MMLatchConfig = CONFIG) -> CausalMMLatch:
    torch.manual_seed(0)
    return CausalMMLatch(config).eval()


@pytest.fixture
def model() -> CausalMMLatch:
    return made()


def windows(batch: int = 2, steps: int = STEPS, seed: int = 1) -> Windows:
    """Random features, all known and present."""
    random = torch.Generator().manual_seed(seed)
    return {
        m: torch.cat([torch.randn(batch, steps, size, generator=random), torch.ones(batch, steps, 2)], -1)
        for m, size in SIZES.items()
    }


def steps_of(x: Windows, first: int, last: int) -> Windows:
    return {m: value[:, first:last] for m, value in x.items()}


def rows_of(x: dict[str, Tensor], first: int, last: int) -> dict[str, Tensor]:
    return {key: value[first:last] for key, value in x.items()}


def assert_close(one: State, other: State) -> None:
    assert one.keys() == other.keys()
    for key in one:
        torch.testing.assert_close(one[key], other[key], rtol=1e-5, atol=1e-5)


def published(model: CausalMMLatch, x: Windows) -> tuple[Tensor, Tensor]:
    """The paper's two passes and fusion over whole sequences, made causal: sentiment and masks' means, by formula."""

    def attention(layer: torch.nn.Module, queries: Tensor, others: Tensor) -> Tensor:
        q, k, v = layer.queries(queries), layer.keys(others), layer.values(others)
        return torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)

    def encode(m: str, inputs: Tensor) -> Tensor:
        encoded, _ = model.encoders[m].lstm(inputs)
        return attention(model.encoder_attentions[m], encoded, encoded)

    def mask(m: str) -> Tensor:
        one, other = (model.masks[f"{m}_from_{o}"].lstm(high[o])[0].sigmoid() for o in MODALITIES if o != m)
        return (one + other) / 2

    def pair(one: str, other: str) -> Tensor:
        x, y = second[one], second[other]
        return attention(model.pairs[f"{one}_{other}"], y, x) + y + attention(model.pairs[f"{other}_{one}"], x, y) + x

    high = {m: encode(m, x[m]) for m in MODALITIES}
    masks = {m: mask(m) for m in MODALITIES}
    second = {m: encode(m, torch.cat([x[m][..., :-2] * masks[m], x[m][..., -2:]], -1)) for m in MODALITIES}
    ta, tv, va = pair("text", "audio"), pair("text", "vision"), pair("vision", "audio")
    tav = attention(model.text_from_pair, va, second["text"])
    fused, _ = model.fusion.lstm(torch.cat([second["text"], second["audio"], second["vision"], ta, tv, va, tav], -1))
    attended = attention(model.fusion_attention, fused, fused)
    mean = attended.cumsum(1) / torch.arange(1, attended.shape[1] + 1)[:, None]
    return 3 * model.head(mean)[..., 0].tanh(), torch.stack([masks[m].mean(-1) for m in MODALITIES], -1)


def test_it_is_the_published_model_made_causal(model):
    x = windows()
    sentiment, weights = published(model, x)
    prediction, _ = model(x, model.initial_state(2))
    torch.testing.assert_close(prediction.sentiment, sentiment, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(prediction.weights, weights, rtol=1e-5, atol=1e-5)


@settings(deadline=None, max_examples=15)
@given(st.lists(st.integers(0, STEPS), max_size=6).map(sorted))
def test_in_chunks_as_in_one(edges):
    model, x = made(), windows()
    whole, end = model(x, model.initial_state(2))
    state, parts = model.initial_state(2), []
    for first, last in zip([0, *edges], [*edges, STEPS], strict=True):
        if first < last:
            part, state = model(steps_of(x, first, last), state)
            parts.append(part)
    torch.testing.assert_close(torch.cat([part.sentiment for part in parts], 1), whole.sentiment, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(torch.cat([part.weights for part in parts], 1), whole.weights, rtol=1e-5, atol=1e-5)
    assert_close(state, end)


@pytest.mark.parametrize("output", ["sentiment", "weights"])
@pytest.mark.parametrize("at", [0, 3, STEPS - 1])
def test_a_score_depends_on_the_past_alone(model, output, at):
    x = {m: value.requires_grad_() for m, value in windows().items()}
    prediction, _ = model(x, model.initial_state(2))
    getattr(prediction, output)[:, at].sum().backward()
    for m in MODALITIES:
        assert (x[m].grad[:, at + 1 :] == 0).all()
        assert (x[m].grad[:, : at + 1].abs().sum(-1) > 0).all()


def test_a_kept_state_can_be_run_again(model):
    _, kept = model(windows(steps=5), model.initial_state(2))
    before = {key: value.clone() for key, value in kept.items()}
    tail = windows(steps=3, seed=2)
    (once, after_once), (again, after_again) = model(tail, kept), model(tail, kept)
    assert all(torch.equal(kept[key], before[key]) for key in kept)
    assert torch.equal(once.sentiment, again.sentiment)
    assert torch.equal(once.weights, again.weights)
    assert all(torch.equal(after_once[key], after_again[key]) for key in kept)
    assert any(not torch.equal(after_once[key], kept[key]) for key in kept)


def test_inputs_are_left_as_they_are(model):
    x, state = windows(), model.initial_state(2)
    copies = {m: value.clone() for m, value in x.items()}
    model(x, state)
    assert all(torch.equal(x[m], copies[m]) for m in MODALITIES)
    assert all((value == 0).all() for value in state.values())


def test_batch_mates_do_not_matter(model):
    x = windows(3)
    together, state = model(x, model.initial_state(3))
    for row in range(3):
        alone, alone_state = model(rows_of(x, row, row + 1), model.initial_state(1))
        torch.testing.assert_close(together.sentiment[row], alone.sentiment[0], rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(together.weights[row], alone.weights[0], rtol=1e-6, atol=1e-6)
        assert_close(rows_of(state, row, row + 1), alone_state)


def test_a_neighbours_garbage_does_not_leak(model):
    x = windows(3)
    clean, clean_state = model(x, model.initial_state(3))
    for m in MODALITIES:
        x[m][1] = torch.nan
    soiled, soiled_state = model(x, model.initial_state(3))
    assert soiled.sentiment[1].isnan().all()
    for row in (0, 2):
        assert torch.equal(soiled.sentiment[row], clean.sentiment[row])
        assert torch.equal(soiled.weights[row], clean.weights[row])
        assert all(torch.equal(soiled_state[key][row], clean_state[key][row]) for key in clean_state)


def test_the_state_covers_every_block(model):
    start = model.initial_state(2)
    _, after = model(windows(), start)
    assert after.keys() == start.keys()
    for key, value in start.items():
        assert len(value) == 2
        assert (after[key].shape, after[key].dtype) == (value.shape, value.dtype)
        assert not torch.equal(after[key], value), key  # each is used
        with pytest.raises(KeyError):
            model(windows(), {other: start[other] for other in start if other != key})


def test_the_passes_share_weights_and_keep_states_of_their_own(model):
    _, after = model(windows(), model.initial_state(2))
    for m in MODALITIES:
        assert not torch.equal(after[f"pass1.{m}.lstm.h"], after[f"pass2.{m}.lstm.h"])
        assert not torch.equal(after[f"pass1.{m}.attention.k"], after[f"pass2.{m}.attention.k"])


@settings(deadline=None, max_examples=15)
@given(st.floats(0, 1e4), st.integers(0, 100))
def test_outputs_are_bounded(scale, seed):
    model = made()
    with torch.no_grad():
        model.head.weight *= 100
    x = {m: torch.cat([value[..., :-2] * scale, value[..., -2:]], -1) for m, value in windows(seed=seed).items()}
    prediction, _ = model(x, model.initial_state(2))
    assert prediction.sentiment.shape == (2, STEPS)
    assert prediction.weights.shape == (2, STEPS, 3)
    assert (prediction.sentiment.abs() <= 3).all()
    assert ((prediction.weights > 0) & (prediction.weights < 1)).all()


def test_weights_are_those_of_text_audio_and_vision(model):
    # A mask that is wide open for one modality shows in that modality's weight.
    for index, m in enumerate(MODALITIES):
        model = made()
        with torch.no_grad():
            for other in MODALITIES:
                if other != m:
                    size = SIZES[m]
                    lstm = model.masks[f"{m}_from_{other}"].lstm
                    for gate in (0, 2, 3):  # input, cell, output
                        lstm.bias_ih_l0[gate * size : (gate + 1) * size] = 20.0
        weights = model(windows(), model.initial_state(2))[0].weights[:, -1].mean(0)
        assert weights.argmax() == index
        assert weights[index] > 0.7


def test_the_mask_is_made_from_the_other_modalities():
    # What text says moves the masks over audio and vision, not the one over text.
    model, x = made(), windows()
    before = model(x, model.initial_state(2))[0].weights
    changed = model(x | {"text": windows(seed=2)["text"]}, model.initial_state(2))[0].weights
    assert torch.equal(changed[..., 0], before[..., 0])
    assert (changed[..., 1:] != before[..., 1:]).all()


def test_evaluation_is_deterministic_and_training_is_not(model):
    x, state = windows(), model.initial_state(2)
    assert torch.equal(model(x, state)[0].sentiment, model(x, state)[0].sentiment)
    model.train()
    assert not torch.equal(model(x, state)[0].sentiment, model(x, state)[0].sentiment)


@pytest.mark.parametrize("masked", [True, False], ids=["with masks", "flags alone"])
@pytest.mark.parametrize("m", MODALITIES)
def test_absent_is_not_unknown(model, m, masked):
    if not masked:  # the masks are 1/2 whatever the first pass finds, so the flags must reach the second
        for parameter in model.masks.parameters():
            torch.nn.init.zeros_(parameter)
    scores = []
    for known, presence in ((0, 0), (1, 0), (1, 1)):
        x = windows()
        x[m] = torch.zeros_like(x[m])
        x[m][..., -2:] = torch.tensor([known, presence])
        scores.append(model(x, model.initial_state(2))[0].sentiment[:, -1])
    assert len({tuple(score.tolist()) for score in scores}) == 3


def test_every_parameter_learns(model):
    model.train()
    prediction, _ = model(windows(4), model.initial_state(4))
    (prediction.sentiment - 1).square().mean().backward()
    still = [
        name for name, parameter in model.named_parameters() if parameter.grad is None or not parameter.grad.abs().sum() > 0
    ]
    assert not still


@pytest.mark.parametrize("config", [CONFIG, MMLatchConfig(text=384, audio=34, vision=58)], ids=["tiny", "real"])
def test_the_number_of_parameters(config):
    def lstm(inputs: int, hidden: int) -> int:
        return 4 * hidden * (inputs + hidden + 2)

    def attention(size: int) -> int:
        return 3 * size * size

    p = config.hidden
    sizes = (config.text, config.audio, config.vision)
    encoders = sum(lstm(size + 2, p) + attention(p) for size in sizes)
    masks = sum(2 * lstm(p, size) for size in sizes)
    pairs = 6 * attention(p) + attention(p)
    fusion = lstm(7 * p, 2 * p) + attention(2 * p)
    head = 2 * p + 1
    count = sum(parameter.numel() for parameter in CausalMMLatch(config).parameters())
    assert count == encoders + masks + pairs + fusion + head


def test_weights_travel_by_name(model):
    torch.manual_seed(1)
    other = CausalMMLatch(CONFIG).eval()
    x = windows()
    assert not torch.equal(other(x, other.initial_state(2))[0].sentiment, model(x, model.initial_state(2))[0].sentiment)
    other.load_state_dict(model.state_dict())
    assert torch.equal(other(x, other.initial_state(2))[0].sentiment, model(x, model.initial_state(2))[0].sentiment)
    assert model.state_dict().keys() == dict(model.named_parameters()).keys()  # nothing is kept beside the parameters
    blocks = {name.partition(".")[0] for name in model.state_dict()}
    expected = "encoders encoder_attentions masks pairs text_from_pair fusion fusion_attention head"
    assert blocks == set(expected.split())


def test_an_utterance_may_be_as_long_as_stated(model):
    state = model.initial_state(1)
    for _ in range(CONFIG.max_steps):
        prediction, state = model(windows(1, 1), state)
    assert prediction.sentiment.isfinite().all()
    with pytest.raises(RuntimeError):
        model(windows(1, 1), state)
