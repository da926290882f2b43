"""Causal MMLatch: top-down masks from the other modalities gate what each modality's encoder sees.

G. Paraskevopoulos, E. Georgiou, A. Potamianos, "MMLatch: Bottom-up Top-down Fusion for Multimodal Sentiment Analysis", ICASSP
2022, arXiv 2201.09828. Two passes through the same encoders: the first yields high-level sequences; for each modality those of
the other two become masks over its input; the second pass encodes the masked inputs, and only it is fused.

What makes it causal, and differs from the paper: LSTMs run forward only, attention sees the steps so far, a running mean
replaces the sum over time (whose size depends on the length), inputs carry flags so that "absent" and "unknown" are not
confused with zeros, and the score is bounded to the label's range.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from models.layers import CausalAttention, CausalLSTM, RunningMean, State

MODALITIES = ("text", "audio", "vision")
FLAGS = 2  # after each modality's features: known (0 or 1), presence (the share of the window with something there, 0 to 1)
SCORE_LIMIT = 3.0


class Prediction(NamedTuple):
    """What the model says at each step.

    Attributes:
        sentiment: In [-3, 3], (B, T).
        weights: The mean top-down mask of text, audio and vision, in (0, 1), (B, T, 3): how far each lane is let through.
    """

    sentiment: Tensor
    weights: Tensor


@dataclass(frozen=True)
class MMLatchConfig:
    """The model's shape.

    Attributes:
        text: Feature columns of the text lane, without the flags; likewise `audio` and `vision`.
        hidden: The common width, the paper's projection size.
        max_steps: The longest utterance in windows; attention keeps that many keys and values.
        dropout: After the encoders, on their attention and on the masks; half of it elsewhere, as in the reference.
    """

    text: int
    audio: int
    vision: int
    hidden: int = 100
    max_steps: int = 120
    dropout: float = 0.2


class CausalMMLatch(nn.Module):
    """The model, `forward(windows (B, T, …), state) -> (prediction (B, T), state)` for training and serving alike.

    Example:
        model = CausalMMLatch(MMLatchConfig(text=384, audio=68, vision=116)).eval()
        state = model.initial_state(batch=1)
        prediction, state = model(windows, state)  # windows["text"]: (1, T, 384 + 2)
    """

    def __init__(self, config: MMLatchConfig) -> None:
        super().__init__()
        self.config = config
        p, drop, steps = config.hidden, config.dropout, config.max_steps
        sizes = {"text": config.text, "audio": config.audio, "vision": config.vision}

        def attention(size: int, dropout: float) -> CausalAttention:
            return CausalAttention(size, max_steps=steps, dropout=dropout)

        self.encoders = nn.ModuleDict({m: CausalLSTM(sizes[m] + FLAGS, p) for m in MODALITIES})
        self.encoder_attentions = nn.ModuleDict({m: attention(p, drop) for m in MODALITIES})
        self.masks = nn.ModuleDict({f"{m}_from_{other}": CausalLSTM(p, sizes[m]) for m in MODALITIES for other in _others(m)})
        self.pairs = nn.ModuleDict({f"{first}_{second}": attention(p, drop / 2) for first, second in _PAIR_DIRECTIONS})
        self.text_from_pair = attention(p, drop / 2)
        self.fusion = CausalLSTM(7 * p, 2 * p)
        self.fusion_attention = attention(2 * p, drop / 2)
        self.mean = RunningMean(2 * p)
        self.head = nn.Linear(2 * p, 1)
        self.dropout = nn.Dropout(drop)
        self.half_dropout = nn.Dropout(drop / 2)

    def initial_state(self, batch: int) -> State:
        """The state before an utterance: tensors with the batch as their first axis, on the model's device.

        Both passes share the encoders' weights, not their states.
        """
        device = self.head.weight.device
        blocks: dict[str, Any] = {}  # each has initial_state(batch, device)
        for number in (1, 2):
            for m in MODALITIES:
                blocks[f"pass{number}.{m}.lstm"] = self.encoders[m]
                blocks[f"pass{number}.{m}.attention"] = self.encoder_attentions[m]
        blocks |= {**self.masks, **self.pairs}
        blocks |= {name: getattr(self, name) for name in ("text_from_pair", "fusion", "fusion_attention", "mean")}
        return {
            f"{name}.{key}": value
            for name, block in blocks.items()
            for key, value in block.initial_state(batch, device).items()
        }

    def forward(self, windows: Mapping[str, Tensor], state: State) -> tuple[Prediction, State]:
        """Run over the next T windows.

        Args:
            windows: For each modality (B, T, features + 2), the last two columns being the flags (see `FLAGS`); features
                are 0 where nothing is known.
            state: From `initial_state` or an earlier call; left as it is. An utterance has at most `max_steps` windows.

        Returns:
            The prediction at each window, and the state after the last one.
        """
        kept = _Kept(state)
        features = {m: windows[m][..., :-FLAGS] for m in MODALITIES}
        flags = {m: windows[m][..., -FLAGS:] for m in MODALITIES}

        first = {m: self._encode(1, m, windows[m], kept) for m in MODALITIES}  # each (B, T, P)
        masks = {}  # each (B, T, features)
        for m in MODALITIES:
            opened = [kept.run(f"{m}_from_{o}", self.masks[f"{m}_from_{o}"], first[o]) for o in _others(m)]
            masks[m] = sum(self.half_dropout(x).sigmoid() for x in opened) / len(opened)
        masked = {m: torch.cat([features[m] * self.dropout(masks[m]), flags[m]], -1) for m in MODALITIES}
        text, audio, vision = (self._encode(2, m, masked[m], kept) for m in MODALITIES)

        def pair(one: str, other: str, x: Tensor, y: Tensor) -> Tensor:
            """Attention both ways, each with the querying side added (the reference's cross residual)."""
            from_one = kept.run(f"{one}_{other}", self.pairs[f"{one}_{other}"], y, x) + y
            from_other = kept.run(f"{other}_{one}", self.pairs[f"{other}_{one}"], x, y) + x
            return from_one + from_other

        ta = pair("text", "audio", text, audio)
        va = pair("vision", "audio", vision, audio)
        tv = pair("text", "vision", text, vision)
        tav = kept.run("text_from_pair", self.text_from_pair, va, text)
        fused = kept.run("fusion", self.fusion, torch.cat([text, audio, vision, ta, tv, va, tav], -1))  # (B, T, 2P)
        fused = self.half_dropout(fused)
        attended = kept.run("fusion_attention", self.fusion_attention, fused, fused)
        score = self.head(kept.run("mean", self.mean, attended))[..., 0]  # (B, T)
        weights = torch.stack([masks[m].mean(-1) for m in MODALITIES], -1)  # (B, T, 3)
        return Prediction(SCORE_LIMIT * score.tanh(), weights), kept.after

    def _encode(self, number: int, modality: str, x: Tensor, kept: "_Kept") -> Tensor:
        name = f"pass{number}.{modality}"
        encoded = self.dropout(kept.run(f"{name}.lstm", self.encoders[modality], x))
        return kept.run(f"{name}.attention", self.encoder_attentions[modality], encoded, encoded)


class _Kept:
    """Hands each block its part of the state and gathers the parts that come back."""

    def __init__(self, before: State) -> None:
        self._before = before
        self.after: State = {}

    def run(self, name: str, block: nn.Module, *inputs: Tensor) -> Tensor:
        part = {key.removeprefix(f"{name}."): value for key, value in self._before.items() if key.rpartition(".")[0] == name}
        y, part = block(*inputs, part)
        self.after |= {f"{name}.{key}": value for key, value in part.items()}
        return y


def _others(modality: str) -> list[str]:
    return [m for m in MODALITIES if m != modality]


# Keys and values from the first, queries from the second.
_PAIR_DIRECTIONS = [(one, other) for one in MODALITIES for other in _others(one)]
