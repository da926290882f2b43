"""MulT, the multimodal transformer, in two forms: causal, for streams, and as published, for whole sequences.

Y.-H. H. Tsai, S. Bai, P. P. Liang, J. Z. Kolter, L.-P. Morency, R. Salakhutdinov, "Multimodal Transformer for Unaligned
Multimodal Language Sequences", ACL 2019, arXiv 1906.00295; where the paper is silent, the authors' code
(github.com/yaohungt/Multimodal-Transformer). Each modality is translated into by the two others (crossmodal transformers), what
results is remembered by a transformer of its own, and the newest step of the three memories is read.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import permutations
from typing import ClassVar

import torch
from torch import Tensor, nn

from models.causal import (
    FLAGS,
    LARGEST,
    MODALITIES,
    CausalConfig,
    CausalModel,
    Prediction,
    check_transformer,
    flags_of,
    known,
    others,
)
from models.checkpoint import Pretrained
from models.layers import CausalTransformerLayer, Context, Projection, dropout, normalised, positions
from models.state import State

_LEAST_MEMORY_LAYERS = 3


@dataclass(frozen=True)
class CausalMulTConfig(CausalConfig):
    """The causal model's shape; see `CausalConfig`.

    Attributes:
        hidden: The common width, a multiple of `heads`, by default the paper's; a memory is twice as wide.
        dropout: Before the head; half of it in transformers and on their attention.
        heads: Of each attention.
        layers: Of a crossmodal transformer; a memory has as many, but at least three.
    """

    hidden: int = 40
    heads: int = 4
    layers: int = 3

    def __post_init__(self) -> None:
        super().__post_init__()
        check_transformer(self.hidden, self.heads, self.layers)


class CausalMulT(CausalModel):
    """The causal form.

    What differs from the paper: lanes are aligned by their windows, so that a step attends to the steps so far of another
    lane; inputs are spread alike, carry flags, and are projected by way of a hidden layer; beside the newest step the head
    reads the mean of all; the norms before an attention have no gains, its maps have them; the score is bounded and has an
    uncertainty beside it.
    """

    model_type: ClassVar[str] = "mult-causal"
    config_class: ClassVar[type] = CausalMulTConfig
    config: CausalMulTConfig

    def __init__(self, config: CausalMulTConfig) -> None:
        super().__init__(config)
        p, drop = config.hidden, config.dropout / 2
        self.projections = nn.ModuleList(Projection(size + FLAGS, p) for size in self.sizes)

        def transformer(lanes: int, size: int, layers: int) -> nn.ModuleList:
            return nn.ModuleList(CausalTransformerLayer(lanes, size, heads=config.heads, dropout=drop) for _ in range(layers))

        self.crossmodal = transformer(6, p, config.layers)  # targets in the order of `others`: those of a source by turns
        self.memories = transformer(3, 2 * p, self._memory_layers)
        self._make_head(12 * p)

    @property
    def _memory_layers(self) -> int:
        return max(self.config.layers, _LEAST_MEMORY_LAYERS)

    def recurrent(self) -> dict[str, tuple[int, int]]:
        """See `CausalModel.recurrent`."""
        return {"mean": (1, 6 * self.config.hidden)}

    def histories(self) -> dict[str, tuple[int, int]]:
        """See `CausalModel.histories`."""
        p = self.config.hidden
        return {"source": (3, p)} | {f"memory.{i}": (3, 2 * p) for i in range(self._memory_layers)}

    def forward(self, windows: Mapping[str, Tensor], state: State) -> tuple[Prediction, State]:
        """See `CausalModel.forward`."""
        context = Context(state, self._check(windows, state), max_steps=self.config.max_steps)
        bias = context.bias.repeat(3, 1, 1)  # of three memories
        flags = flags_of(windows)
        pairs = zip(self.projections, self._features(windows), flags, strict=True)
        low = torch.stack([project(torch.cat([lane, flag], -1)) for project, lane, flag in pairs])  # (3, B, T, P)
        placed = self._half_drop(low * math.sqrt(self.config.hidden) + positions(context.count, self.config.hidden))
        # A source stays as it is in all layers, so it is kept once.
        source = context.append("source", normalised(placed))
        x = others(placed)  # (6, B, T, P)
        for layer in self.crossmodal:
            x = layer(x, source, bias)
        audio_text, vision_text, text_audio, vision_audio, text_vision, audio_vision = normalised(x).unbind()
        x = torch.stack(
            [
                torch.cat([text_audio, text_vision], -1),
                torch.cat([audio_text, audio_vision], -1),
                torch.cat([vision_text, vision_audio], -1),
            ]
        )  # (3, B, T, 2 P)
        for number, layer in enumerate(self.memories):
            x = layer(x, context.append(f"memory.{number}", normalised(x)), bias)
        read = torch.cat(normalised(x).unbind(), -1)  # (B, T, 6 P)
        return self._predict(torch.cat([context.mean("mean", read), read], -1), known(flags)), context.after()


@dataclass(frozen=True)
class MulTConfig:
    """The published model's shape; defaults are those of the authors' code on CMU-MOSEI (GloVe, COVAREP, FACET 4.2).

    The paper's own setting (its Table 5) is hidden 40, heads 8, layers 4, kernels 1 or 3 for the text and 3 elsewhere.

    Attributes:
        text: Feature columns of the text; likewise `audio` and `vision`.
        hidden: The common width, a multiple of `heads`.
        heads: Of each attention.
        layers: Of a crossmodal transformer; a memory has as many, but at least three.
        kernels: How many steps of text, audio and vision the projection to `hidden` looks at, odd.
        attention_dropout: On the weights of attention to the text, and in memories.
        relu_dropout: Inside the feed-forward layers.
        embed_dropout: On the text's features, and on what goes into a transformer.
        residual_dropout: Before each residual connection.
        output_dropout: In the head.
        every_step: Score every step, and not the newest: for aligned sequences of utterances. The weights are the same.
    """

    text: int = 300
    audio: int = 74
    vision: int = 35
    hidden: int = 30
    heads: int = 5
    layers: int = 5
    kernels: tuple[int, int, int] = (1, 1, 1)
    attention_dropout: float = 0.1
    relu_dropout: float = 0.1
    embed_dropout: float = 0.25
    residual_dropout: float = 0.1
    output_dropout: float = 0.0
    every_step: bool = False

    def __post_init__(self) -> None:
        for name in (*MODALITIES, "hidden", "heads", "layers"):
            if not 1 <= getattr(self, name) <= LARGEST:
                raise ValueError(f"{name} is {getattr(self, name)}, expected 1 to {LARGEST}")
        if self.hidden % self.heads:
            raise ValueError(f"hidden is {self.hidden}, expected a multiple of heads, {self.heads}")
        if len(self.kernels) != len(MODALITIES) or any(kernel < 1 or kernel % 2 == 0 for kernel in self.kernels):
            raise ValueError(f"kernels is {self.kernels}, expected three odd numbers")
        for name in ("attention_dropout", "relu_dropout", "embed_dropout", "residual_dropout", "output_dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}, expected from 0 to below 1")


class MulT(Pretrained):
    """The published model; its sequences need not be aligned.

    Example:
        model = MulT(MulTConfig()).eval()
        sentiment = model({"text": text, "audio": audio, "vision": vision})  # text: (B, L, 300), audio: (B, M, 74)
    """

    model_type: ClassVar[str] = "mult"
    config_class: ClassVar[type] = MulTConfig
    config: MulTConfig

    def __init__(self, config: MulTConfig) -> None:
        super().__init__()
        self.config = config
        d = config.hidden
        self.projections = nn.ModuleList(
            nn.Identity() if getattr(config, m) == d else nn.Conv1d(getattr(config, m), d, k, padding=k // 2, bias=False)
            for m, k in zip(MODALITIES, config.kernels, strict=True)
        )

        def transformer(width: int, layers: int, attention_dropout: float) -> Transformer:
            return Transformer(config, width, layers, attention_dropout)

        # Text by audio, text by vision, audio by text and so on: in the authors' code attention to the text alone has dropout.
        self.crossmodal = nn.ModuleDict(
            {
                f"{target}_by_{source}": transformer(d, config.layers, config.attention_dropout if source == "text" else 0.0)
                for target, source in permutations(MODALITIES, 2)
            }
        )
        layers = max(config.layers, _LEAST_MEMORY_LAYERS)
        self.memories = nn.ModuleDict({m: transformer(2 * d, layers, config.attention_dropout) for m in MODALITIES})
        wide = 2 * d * len(MODALITIES)
        self.inner, self.outer, self.head = nn.Linear(wide, wide), nn.Linear(wide, wide), nn.Linear(wide, 1)

    def forward(self, sequences: Mapping[str, Tensor]) -> Tensor:
        """Score whole sequences.

        Args:
            sequences: For each modality (B, L, features), each with an L of its own, padded with zeros in *front*: the last
                step is the newest. As published, padding is not hidden from attention; it only has no position.

        Returns:
            Sentiment, (B,), or (B, L) of every step, not bounded.
        """
        self._check(sequences)
        low = {}
        for m, project in zip(MODALITIES, self.projections, strict=True):
            x = sequences[m]
            x = dropout(x, self.config.embed_dropout, self.training) if m == "text" else x
            low[m] = x if isinstance(project, nn.Identity) else project(x.mT).mT  # (B, L, d)
        newest = []
        for target in MODALITIES:
            translated = [
                self.crossmodal[f"{target}_by_{source}"](low[target], low[source]) for source in MODALITIES if source != target
            ]
            both = torch.cat(translated, -1)  # (B, L, 2 d)
            remembered = self.memories[target](both, both)
            newest.append(remembered if self.config.every_step else remembered[:, -1])
        read = torch.cat(newest, -1)  # (B, 6 d), or (B, L, 6 d)
        inner = dropout(self.inner(read).relu(), self.config.output_dropout, self.training)
        return self.head(read + self.outer(inner))[..., 0]

    def _check(self, sequences: Mapping[str, Tensor]) -> None:
        if missing := [m for m in MODALITIES if m not in sequences]:
            raise ValueError(f"sequences lack {', '.join(missing)}, expected {', '.join(MODALITIES)}")
        batch = len(sequences[MODALITIES[0]])
        for m in MODALITIES:
            shape, width = sequences[m].shape, getattr(self.config, m)
            if len(shape) != 3 or shape[0] != batch or not shape[1] or shape[2] != width:
                raise ValueError(f"{m} is {tuple(shape)}, expected (B, L, {width}), L at least 1, with the B of the text")
        if self.config.every_step and len({sequences[m].shape[1] for m in MODALITIES}) > 1:
            raise ValueError("every_step is for aligned sequences, expected the same L for all")


class Transformer(nn.Module):
    """Layers in which a target attends to a source that stays as it is, or, in a memory, to itself."""

    def __init__(self, config: MulTConfig, width: int, layers: int, attention_dropout: float) -> None:
        super().__init__()
        self.width, self.dropout = width, config.embed_dropout
        self.layers = nn.ModuleList(TransformerLayer(config, width, attention_dropout) for _ in range(layers))
        self.norm = nn.LayerNorm(width)

    def forward(self, target: Tensor, source: Tensor) -> Tensor:
        """Target (B, L, width) and source (B, S, width), which may be the same, to (B, L, width)."""
        x = self._placed(target)
        memory = None if source is target else self._placed(source)
        steps, others = target.shape[1], source.shape[1]
        # Nobody looks at what is later, as far as lengths that differ can be compared.
        hidden = torch.ones(steps, others, dtype=torch.bool, device=target.device).triu(1 + abs(steps - others))
        for layer in self.layers:
            x = layer(x, x if memory is None else memory, hidden)
        return self.norm(x)

    def _placed(self, x: Tensor) -> Tensor:
        """With its places; a step whose first column is 0 is taken for padding and has none."""
        places = positions(torch.arange(1, x.shape[1] + 1, device=x.device), self.width) * (x[..., :1] != 0)
        return dropout(x * math.sqrt(self.width) + places, self.dropout, self.training)


class TransformerLayer(nn.Module):
    """Attention and a feed-forward layer, each normalised first and added to what was there."""

    def __init__(self, config: MulTConfig, width: int, attention_dropout: float) -> None:
        super().__init__()
        self.residual_dropout, self.relu_dropout = config.residual_dropout, config.relu_dropout
        self.attention = nn.MultiheadAttention(width, config.heads, dropout=attention_dropout, batch_first=True)
        self.wide, self.narrow = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.attention_norm, self.wide_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        for linear in (self.attention.out_proj, self.wide, self.narrow):
            nn.init.xavier_uniform_(linear.weight)
            nn.init.zeros_(linear.bias)

    def forward(self, x: Tensor, source: Tensor, hidden: Tensor) -> Tensor:
        """X (B, L, width) and source (B, S, width) to (B, L, width); `hidden` (L, S), true where one must not look."""
        asked = self.attention_norm(source)  # one norm for both sides
        found, _ = self.attention(self.attention_norm(x), asked, asked, attn_mask=hidden, need_weights=False)
        x = x + dropout(found, self.residual_dropout, self.training)
        inner = dropout(self.wide(self.wide_norm(x)).relu(), self.relu_dropout, self.training)
        return x + dropout(self.narrow(inner), self.residual_dropout, self.training)
