"""MMLatch in two forms: causal, for streams, and as published, for whole sequences.

G. Paraskevopoulos, E. Georgiou, A. Potamianos, "MMLatch: Bottom-up Top-down Fusion for Multimodal Sentiment Analysis", ICASSP
2022, arXiv 2201.09828; where the paper is silent, the authors' code (github.com/georgepar/mmlatch, commit 2d9bfc9). Two passes
through the same encoders: the first yields high-level sequences; for each modality those of the other two become masks over its
input (top-down); the second pass encodes the masked inputs, and only it is fused.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, cast

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from models.causal import (
    FLAGS,
    MODALITIES,
    CausalConfig,
    CausalModel,
    Prediction,
    check_choice,
    check_ranges,
    check_shapes,
    flags_of,
    known,
    lstm_state,
    others,
)
from models.checkpoint import Pretrained
from models.layers import HIDDEN, Attention, CausalLSTM, Context, Projection, dropout
from models.state import State


def _joined(groups: list[Tensor]) -> Tensor:
    """The lanes of all groups, (3, …)."""
    return torch.cat(groups) if len(groups) > 1 else groups[0]


class CrossModalFusion(nn.Module):
    """Attention both ways between every two modalities, and from the text to what vision and audio say together."""

    def __init__(self, size: int, *, dropout: float, keys: bool) -> None:
        super().__init__()
        self.pairs = Attention(6, size, dropout=dropout, keys=keys)  # text, audio and vision, each read by its `others`
        self.text = Attention(1, size, dropout=dropout, keys=keys)

    def forward(self, high: Tensor, memory: Tensor, bias: Tensor) -> Tensor:
        """High-level sequences (3, B, T, P) and what may be attended to of them (3, B, S, P) to (B, T, 7 P).

        `bias` is that of the three memories, (3 B, T or 1, S), as in `Attention`. The order is that of the reference: text,
        audio, vision, their pairs, text by pair.
        """
        asking = others(high)
        text_audio, text_vision, audio_text, audio_vision, vision_text, vision_audio = (
            self.pairs(asking, memory, bias) + asking  # the one who asks is added: the reference's crossed residual
        ).unbind()
        ta, tv, va = text_audio + audio_text, text_vision + vision_text, audio_vision + vision_audio
        tav = self.text(va[None], memory[:1], bias[: va.shape[0]])[0]
        return torch.cat([*high.unbind(), ta, tv, va, tav], -1)


@dataclass(frozen=True)
class CausalMMLatchConfig(CausalConfig):
    """The causal model's shape; see `CausalConfig`.

    Attributes:
        hidden: The paper's projection size.
        masking: What the masks lie over: the `features`, as in the paper, or a learned `projection` of them to `hidden`
            columns, which says more of them, and costs less where a lane has many columns, since a mask's LSTM is as wide as
            what it masks; or `none`, one pass without masks: the paper's late-fusion baseline.
        dropout: After the encoders, on their attention and on the masks; half of it elsewhere, as in the reference.
    """

    masking: Literal["projection", "features", "none"] = "projection"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice(self, "masking")


class CausalMMLatch(CausalModel):
    """The causal form.

    What differs from the paper: inputs are spread alike, whatever their range; LSTMs run forward only, so the fusion's is
    `hidden` wide; attention sees the steps so far; in place of the sum over time, whose size depends on the length, the head
    reads a running mean, and beside it the newest step and the newest masked inputs, and has a hidden layer; inputs carry
    flags, so that "absent" and "unknown" are not confused with zeros; the score is bounded to the label's range and has an
    uncertainty beside it.
    """

    model_type: ClassVar[str] = "mmlatch-causal"
    config_class: ClassVar[type] = CausalMMLatchConfig
    config: CausalMMLatchConfig

    def __init__(self, config: CausalMMLatchConfig) -> None:
        super().__init__(config)
        p, drop, sizes = config.hidden, config.dropout, self.sizes
        self.projections = nn.ModuleList(Projection(size, p) for size in sizes if config.masking != "features")
        # Lanes of one width are run side by side: projected ones are, those of features have a width of their own.
        groups = [(3, p)] if self.projections else [(1, size) for size in sizes]
        self.encoders = nn.ModuleList(CausalLSTM(lanes, width + FLAGS, p) for lanes, width in groups)
        self.encoder_attention = Attention(3, p, dropout=drop, keys=False)
        masked = [] if config.masking == "none" else groups
        self.masks = nn.ModuleList(CausalLSTM(2 * lanes, p, width) for lanes, width in masked)  # in the order of `others`
        self.cross_modal = CrossModalFusion(p, dropout=drop / 2, keys=False)
        self.fusion = CausalLSTM(1, 7 * p, p)
        self.fusion_attention = Attention(1, p, dropout=drop / 2, keys=False)
        self._make_head(2 * p + sum(lanes * width for lanes, width in groups))

    @property
    def mask_widths(self) -> tuple[int, int, int]:
        """See `CausalModel.mask_widths`."""
        config = self.config
        if config.masking == "none":
            return (0, 0, 0)
        return (config.hidden,) * 3 if self.projections else (config.text, config.audio, config.vision)

    def recurrent(self) -> dict[str, tuple[int, int]]:
        """See `CausalModel.recurrent`."""
        found = {"mean": (1, self.config.hidden)}
        passes = ("first", "second") if self.masks else ("second",)
        lstms: dict[str, Any] = {f"{name}.{i}": lstm for name in passes for i, lstm in enumerate(self.encoders)}
        lstms |= {f"masks.{i}": lstm for i, lstm in enumerate(self.masks)} | {"fusion": self.fusion}
        for name, lstm in lstms.items():
            found |= lstm_state(name, lstm.count, lstm.hidden)
        return found

    def histories(self) -> dict[str, tuple[int, int]]:
        """See `CausalModel.histories`."""
        found = {"second": 3, "high": 3, "fusion": 1} | ({"first": 3} if self.masks else {})
        return {name: (count, self.config.hidden) for name, count in found.items()}

    def forward(self, windows: Mapping[str, Tensor], state: State) -> tuple[Prediction, State]:
        """See `CausalModel.forward`."""
        context = Context(state, self._check(windows, state), max_steps=self.config.max_steps)
        bias = context.bias.repeat(3, 1, 1)  # of three memories

        # One tensor a group of lanes: (lanes, B, T, columns).
        flags = flags_of(windows)
        lanes = self._features(windows)
        if self.projections:
            lanes = [project(lane) for project, lane in zip(self.projections, lanes, strict=True)]
        lanes, grouped_flags = self._group(lanes), self._group(list(flags.unbind()))

        def run(name: str, blocks: nn.ModuleList, inputs: Iterable[Tensor]) -> list[Tensor]:
            """The outputs of LSTMs, one block of them a group."""
            pairs = zip(blocks, inputs, strict=True)
            return [context.run(f"{name}.{i}", cast(CausalLSTM, lstm), x)[0] for i, (lstm, x) in enumerate(pairs)]

        def encode(name: str, lanes: list[Tensor]) -> Tensor:
            """The high-level sequences (3, B, T, P). Both passes share weights, not states."""
            inputs = [torch.cat(pair, -1) for pair in zip(lanes, grouped_flags, strict=True)]
            high = self._drop(_joined(run(name, self.encoders, inputs)))
            return self.encoder_attention(high, context.append(name, high), bias)

        masks: list[Tensor] = []
        if self.masks:
            sources = others(encode("first", lanes)).chunk(len(lanes))  # (2 lanes, B, T, P) each
            opened = run("masks", self.masks, sources)
            masks = [self._half_drop(x).sigmoid().unflatten(0, (-1, 2)).mean(1) for x in opened]
            lanes = [lane * self._drop(mask) for lane, mask in zip(lanes, masks, strict=True)]
        high = encode("second", lanes)

        crossed = self.cross_modal(high, context.append("high", high), bias)  # (B, T, 7 P)
        fused = self._half_drop(context.run("fusion", self.fusion, crossed[None])[0])  # (1, B, T, P)
        attended = self.fusion_attention(fused, context.append("fusion", fused), context.bias)[0]
        read = [context.mean("mean", attended), attended, *(lane for group in lanes for lane in group.unbind())]
        weights = _joined([group.mean(-1) for group in masks]).movedim(0, -1) if masks else known(flags)  # (B, T, 3)
        lane_masks = dict(zip(MODALITIES, (lane for group in masks for lane in group.unbind()), strict=False))
        return self._predict(torch.cat(read, -1), weights, lane_masks), context.after()

    def _group(self, lanes: list[Tensor]) -> list[Tensor]:
        """Lanes (B, T, columns) as one tensor a group, (lanes, B, T, columns)."""
        return [torch.stack(lanes)] if self.projections else [lane[None] for lane in lanes]


@dataclass(frozen=True)
class MMLatchConfig:
    """The published model's shape; defaults are those of the reference on CMU-MOSEI (GloVe, COVAREP, FACET 4.2).

    Attributes:
        text: Feature columns of the text; likewise `audio` and `vision`.
        hidden: The paper's projection size.
        feedback: How masks are made: by LSTMs (`sequence`, the paper's MMLatch), by linear maps (`static`), or not at all
            (`none`: the paper's late-fusion baseline).
        dropout: After the encoders, on their attention and on the masks; half of it elsewhere.
        every_step: Score every step, and not their sum: for sequences of utterances. What attention finds is then added to
            what asked, as else a step would lose itself among the others. The weights are the same.
        mask_dropout_in_eval: Leave the masks' dropout on in evaluation, as the reference does by mistake: the same input then
            gives another score each time.
        ignore_lengths: Take padding for data, as the reference does by mistake: a score then depends on its batch-mates.
    """

    text: int = 300
    audio: int = 74
    vision: int = 35
    hidden: int = 100
    feedback: Literal["sequence", "static", "none"] = "sequence"
    dropout: float = 0.2
    every_step: bool = False
    mask_dropout_in_eval: bool = False
    ignore_lengths: bool = False

    def __post_init__(self) -> None:
        check_ranges(self)
        check_choice(self, "feedback")


class MMLatch(Pretrained):
    """The published model: bidirectional LSTMs, attention over the whole sequence, sum over time.

    An LSTM's output lies in (-1, 1), so a `sequence` mask lies in (0.27, 0.73): it can neither fully open nor close. That is
    the paper's model, and it is kept.

    Example:
        model = MMLatch(MMLatchConfig()).eval()
        sentiment, masks = model({"text": text, "audio": audio, "vision": vision}, lengths)  # text: (B, L, 300)
    """

    model_type: ClassVar[str] = "mmlatch"
    config_class: ClassVar[type] = MMLatchConfig
    config: MMLatchConfig

    def __init__(self, config: MMLatchConfig) -> None:
        super().__init__()
        self.config = config
        p, drop = config.hidden, config.dropout
        sizes = [getattr(config, m) for m in MODALITIES]
        self.encoders = nn.ModuleList(nn.LSTM(size, p, batch_first=True, bidirectional=True) for size in sizes)
        self.encoder_attention = Attention(3, p, dropout=drop)
        targets = [] if config.feedback == "none" else [size for size in sizes for _ in range(2)]  # in the order of `others`
        self.masks: nn.ModuleList = nn.ModuleList(
            nn.LSTM(p, size, batch_first=True) if config.feedback == "sequence" else nn.Linear(p, size) for size in targets
        )
        self.cross_modal = CrossModalFusion(p, dropout=drop / 2, keys=True)
        self.fusion = nn.LSTM(7 * p, p, batch_first=True, bidirectional=True)
        self.fusion_attention = Attention(1, 2 * p, dropout=drop / 2)
        self.head = nn.Linear(2 * p, 1)

    def forward(self, sequences: Mapping[str, Tensor], lengths: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Score whole sequences.

        Args:
            sequences: For each modality (B, L, features), padded at the end.
            lengths: How many steps of each are data, at least 1, int64, (B,).

        Returns:
            Sentiment, (B,), or (B, L) of every step, not bounded; and the masks over each modality's features, in (0, 1),
            (B, L, features) each, none without feedback.
        """
        size = check_shapes(sequences, {m: getattr(self.config, m) for m in MODALITIES})
        inputs, drop = [sequences[m] for m in MODALITIES], self.config.dropout
        if lengths.shape != inputs[0].shape[:1] or lengths.min() < 1 or lengths.max() > size:
            raise ValueError(
                f"lengths: {lengths.tolist()}, expected one for each of B = {len(inputs[0])}, from 1 to L = {size}"
            )
        if self.config.ignore_lengths:
            lengths = torch.full_like(lengths, size)
        real = torch.arange(size, device=lengths.device) < lengths[:, None]  # (B, L)
        # Of three memories, (3 B, 1, L).
        bias = ((~real) * HIDDEN)[:, None].repeat(3, 1, 1)
        on_cpu = lengths.cpu()  # as packing asks

        def over_time(lstm: nn.Module, x: Tensor) -> Tensor:
            """Both directions over the real steps, (B, L, 2 hidden)."""
            packed = pack_padded_sequence(x, on_cpu, batch_first=True, enforce_sorted=False)
            return pad_packed_sequence(lstm(packed)[0], batch_first=True, total_length=size)[0]

        def encode(inputs: list[Tensor]) -> Tensor:
            """The high-level sequences (3, B, L, P)."""
            encoded = torch.stack([over_time(lstm, x) for lstm, x in zip(self.encoders, inputs, strict=True)])
            forward, backward = dropout(encoded, drop, self.training).chunk(2, -1)
            merged = forward + backward
            return self._reached(self.encoder_attention(merged, merged, bias), merged)

        high = encode(inputs)
        masks: list[Tensor] = []
        if self.masks:
            opened = [self._open(mask, other).sigmoid() for mask, other in zip(self.masks, others(high), strict=True)]
            masks = [(one + other) / 2 for one, other in zip(opened[::2], opened[1::2], strict=True)]
            always = self.training or self.config.mask_dropout_in_eval
            high = encode([x * dropout(mask, drop, always) for x, mask in zip(inputs, masks, strict=True)])
        crossed = self.cross_modal(high, high, bias)  # (B, L, 7 P)
        fused = dropout(over_time(self.fusion, crossed), drop / 2, self.training)[None]  # (1, B, L, 2 P)
        attended = self._reached(self.fusion_attention(fused, fused, bias[: len(real)]), fused)[0] * real[..., None]
        read = attended if self.config.every_step else attended.sum(1)
        return self.head(read)[..., 0], dict(zip(MODALITIES, masks, strict=False))

    def _reached(self, found: Tensor, asking: Tensor) -> Tensor:
        """What attention comes to."""
        return found + asking if self.config.every_step else found

    def _open(self, mask: nn.Module, high: Tensor) -> Tensor:
        """A mask before its sigmoid, (B, L, features)."""
        if self.config.feedback == "static":
            return mask(high)
        return dropout(mask(high)[0], self.config.dropout / 2, self.training)
