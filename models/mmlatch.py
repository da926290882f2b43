"""MMLatch in two forms: causal, for streams, and as published, for whole sequences.

G. Paraskevopoulos, E. Georgiou, A. Potamianos, "MMLatch: Bottom-up Top-down Fusion for Multimodal Sentiment Analysis", ICASSP
2022, arXiv 2201.09828; where the paper is silent, the authors' code (github.com/georgepar/mmlatch, commit 2d9bfc9). Two passes
through the same encoders: the first yields high-level sequences; for each modality those of the other two become masks over its
input (top-down); the second pass encodes the masked inputs, and only it is fused.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from models.checkpoint import Pretrained
from models.layers import (
    HIDDEN,
    Attention,
    CausalLSTM,
    Context,
    Normalise,
    Projection,
    Spread,
    Standardise,
    dropout,
    running_mean,
)
from models.state import State

MODALITIES = ("text", "audio", "vision")
FLAGS = 2  # after each modality's features: known (0 or 1), presence (the share of the window with something there, 0 to 1)
SCORE_LIMIT = 3.0
LARGEST = 2**16  # columns, widths and windows: beyond that a configuration is a mistake


def _check_ranges(config: Any) -> None:
    """Raise a ValueError that names the first number of a configuration that is out of range."""
    for name in (*MODALITIES, "hidden", "max_steps"):
        if not 1 <= getattr(config, name, 1) <= LARGEST:
            raise ValueError(f"{name} is {getattr(config, name)}, expected 1 to {LARGEST}")
    if not 0 <= config.dropout < 1:
        raise ValueError(f"dropout is {config.dropout}, expected from 0 to below 1")


def _check_shapes(inputs: Mapping[str, Tensor], widths: Mapping[str, int]) -> int:
    """The number of steps of inputs (B, T, width); a ValueError names the first that does not fit."""
    if missing := [m for m in MODALITIES if m not in inputs]:
        raise ValueError(f"inputs lack {', '.join(missing)}, expected {', '.join(MODALITIES)}")
    first = inputs[MODALITIES[0]]
    batch, steps = first.shape[:2] if first.ndim == 3 else (1, 1)
    for m in MODALITIES:
        if inputs[m].shape != (batch, steps, widths[m]) or not steps:
            raise ValueError(
                f"{m} is {tuple(inputs[m].shape)}, expected (B, T, {widths[m]}), T at least 1, with the B and T of the text"
            )
    return int(steps)


def _joined(groups: list[Tensor]) -> Tensor:
    """The lanes of all groups, (3, …)."""
    return torch.cat(groups) if len(groups) > 1 else groups[0]


def _others(x: Tensor) -> Tensor:
    """From text, audio and vision, (3, …), the others of each: those of text, of audio and of vision, (6, …)."""
    return torch.cat([x[1:], x[::2], x[:2]])


class CrossModalFusion(nn.Module):
    """Attention both ways between every two modalities, and from the text to what vision and audio say together."""

    def __init__(self, size: int, *, dropout: float, keys: bool) -> None:
        super().__init__()
        self.pairs = Attention(6, size, dropout=dropout, keys=keys)  # text, audio and vision, each read by its `_others`
        self.text = Attention(1, size, dropout=dropout, keys=keys)

    def forward(self, high: Tensor, memory: Tensor, bias: Tensor) -> Tensor:
        """High-level sequences (3, B, T, P) and what may be attended to of them (3, B, S, P) to (B, T, 7 P).

        `bias` is that of the three memories, (3 B, T or 1, S), as in `Attention`. The order is that of the reference: text,
        audio, vision, their pairs, text by pair.
        """
        asking = _others(high)
        text_audio, text_vision, audio_text, audio_vision, vision_text, vision_audio = (
            self.pairs(asking, memory, bias) + asking  # the one who asks is added: the reference's crossed residual
        ).unbind()
        ta, tv, va = text_audio + audio_text, text_vision + vision_text, audio_vision + vision_audio
        tav = self.text(va[None], memory[:1], bias[: va.shape[0]])[0]
        return torch.cat([*high.unbind(), ta, tv, va, tav], -1)


class Prediction(NamedTuple):
    """What the causal model says at each step.

    Attributes:
        sentiment: In [-3, 3], (B, T).
        uncertainty: The standard deviation of the label that the model expects about `sentiment`, in (0, 3), (B, T).
        weights: The mean top-down mask of text, audio and vision, in (0, 1), (B, T, 3): how far each lane is let through.
        masks: Each modality's mask itself, in (0, 1), (B, T, columns). Columns are features with `masking="features"`, else
            those of the modality's projection.
    """

    sentiment: Tensor
    uncertainty: Tensor
    weights: Tensor
    masks: dict[str, Tensor]


@dataclass(frozen=True)
class CausalMMLatchConfig:
    """The causal model's shape.

    Attributes:
        text: Feature columns of the text lane, without the flags; likewise `audio` and `vision`.
        hidden: The common width, the paper's projection size.
        max_steps: How many windows back attention looks, with the present one: the longest utterance.
        masking: What the masks lie over: the `features`, as in the paper, or a learned `projection` of them to `hidden`
            columns, which says more of them, and costs less where a lane has many columns, since a mask's LSTM is as wide as
            what it masks.
        dropout: After the encoders, on their attention and on the masks; half of it elsewhere, as in the reference.
    """

    text: int
    audio: int
    vision: int
    hidden: int = 64
    max_steps: int = 120
    masking: Literal["projection", "features"] = "projection"
    dropout: float = 0.2

    def __post_init__(self) -> None:
        _check_ranges(self)


class CausalMMLatch(Pretrained):
    """The causal model, `forward(windows (B, T, …), state) -> (prediction (B, T), state)` for training and serving alike.

    What differs from the paper: inputs are spread alike, whatever their range; LSTMs run forward only, so the fusion's is
    `hidden` wide; attention sees the steps so far; in place of the sum over time, whose size depends on the length, the head
    reads a running mean, and beside it the newest step and the newest masked inputs, and has a hidden layer; inputs carry
    flags, so that "absent" and "unknown" are not confused with zeros; the score is bounded to the label's range and has an
    uncertainty beside it.

    Example:
        model = CausalMMLatch(CausalMMLatchConfig(text=768, audio=68, vision=116)).eval()
        state = model.initial_state(batch=1)
        prediction, state = model(windows, state)  # windows["text"]: (1, T, 768 + 2)
    """

    model_type: ClassVar[str] = "mmlatch-causal"
    config_class: ClassVar[type] = CausalMMLatchConfig
    config: CausalMMLatchConfig

    def __init__(self, config: CausalMMLatchConfig) -> None:
        super().__init__()
        self.config = config
        p, drop = config.hidden, config.dropout
        sizes = [getattr(config, m) for m in MODALITIES]
        # Sentence vectors are spread evenly; what voices and faces give is not.
        self.spread = nn.ModuleList(
            Standardise(size) if m == "text" else Normalise(size) for m, size in zip(MODALITIES, sizes, strict=True)
        )
        self.projections = nn.ModuleList(Projection(size, p) for size in sizes if config.masking == "projection")
        # Lanes of one width are run side by side: projected ones are, those of features have a width of their own.
        groups = [(3, p)] if self.projections else [(1, size) for size in sizes]
        self.encoders = nn.ModuleList(CausalLSTM(lanes, width + FLAGS, p) for lanes, width in groups)
        self.encoder_attention = Attention(3, p, dropout=drop, keys=False)
        self.masks = nn.ModuleList(CausalLSTM(2 * lanes, p, width) for lanes, width in groups)  # in the order of `_others`
        self.cross_modal = CrossModalFusion(p, dropout=drop / 2, keys=False)
        self.fusion = CausalLSTM(1, 7 * p, p)
        self.fusion_attention = Attention(1, p, dropout=drop / 2, keys=False)
        self.reading = nn.Linear(2 * p + sum(self.mask_widths), 2 * p)
        self.head = nn.Linear(2 * p, 2)

    @property
    def spreads(self) -> dict[str, Spread]:
        """What each modality's features pass first."""
        return {m: cast(Spread, each) for m, each in zip(MODALITIES, self.spread, strict=True)}

    @property
    def mask_widths(self) -> tuple[int, int, int]:
        """Columns of the masks of text, audio and vision."""
        config = self.config
        return (config.hidden,) * 3 if self.projections else (config.text, config.audio, config.vision)

    def initial_state(self, batch: int, *, capacity: int | None = None, in_place: bool = False) -> State:
        """The state before an utterance, on the model's device.

        Args:
            batch: B, the number of slots.
            capacity: For how many steps there is room; `max_steps` if not given. See `State`.
            in_place: See `State`.
        """
        capacity = self.config.max_steps if capacity is None else capacity
        lstms: dict[str, Any] = {f"first.{i}": lstm for i, lstm in enumerate(self.encoders)}
        lstms |= {f"masks.{i}": lstm for i, lstm in enumerate(self.masks)}
        lstms |= {f"second.{i}": lstm for i, lstm in enumerate(self.encoders)} | {"fusion": self.fusion}
        mean = self.fusion.bias.new_zeros(1, batch, 1, self.config.hidden)
        recurrent = {"mean": mean}
        for name, lstm in lstms.items():
            for part in "hc":
                recurrent[f"{name}.{part}"] = mean.new_zeros(lstm.count, batch, 1, lstm.hidden)
        zero = torch.zeros(batch, dtype=torch.int64, device=mean.device)
        histories = {"first": 3, "second": 3, "high": 3, "fusion": 1}
        return State(
            recurrent=recurrent,
            history={name: mean.new_zeros(count, batch, capacity, self.config.hidden) for name, count in histories.items()},
            position=zero,
            length=zero,
            room=capacity,
            in_place=in_place,
        )

    def forward(self, windows: Mapping[str, Tensor], state: State) -> tuple[Prediction, State]:
        """Run over the next T windows.

        Args:
            windows: For each modality (B, T, features + 2), the last two columns being the flags (see `FLAGS`); features
                are 0 where nothing is known.
            state: From `initial_state` or an earlier call.

        Returns:
            The prediction at each window, and the state after the last one.

        Raises:
            ValueError: An input's shape is wrong, or the state has no room for T more steps.
        """
        steps = self._check(windows, state)
        context = Context(state, steps, max_steps=self.config.max_steps)
        bias = context.bias.repeat(3, 1, 1)  # of three memories
        recurrent: dict[str, Tensor] = {}

        # One tensor a group of lanes: (lanes, B, T, columns).
        flags = self._group([windows[m][..., -FLAGS:] for m in MODALITIES])
        lanes = [each(windows[m][..., :-FLAGS]) for m, each in zip(MODALITIES, self.spread, strict=True)]
        if self.projections:
            lanes = [project(lane) for project, lane in zip(self.projections, lanes, strict=True)]
        lanes = self._group(lanes)

        def run(name: str, lstm: nn.Module, x: Tensor) -> Tensor:
            outputs, cells = lstm(x, state.recurrent[f"{name}.h"][:, :, -1], state.recurrent[f"{name}.c"][:, :, -1])
            recurrent[f"{name}.h"], recurrent[f"{name}.c"] = outputs, cells
            return outputs

        def encode(name: str, lanes: list[Tensor]) -> Tensor:
            """The high-level sequences (3, B, T, P). Both passes share weights, not states."""
            inputs = [torch.cat(pair, -1) for pair in zip(lanes, flags, strict=True)]
            encoded = [run(f"{name}.{i}", lstm, x) for i, (lstm, x) in enumerate(zip(self.encoders, inputs, strict=True))]
            high = self._drop(_joined(encoded))
            return self.encoder_attention(high, context.append(name, high), bias)

        sources = _others(encode("first", lanes)).chunk(len(lanes))  # (2 lanes, B, T, P) each
        opened = [run(f"masks.{i}", lstm, x) for i, (lstm, x) in enumerate(zip(self.masks, sources, strict=True))]
        masks = [self._half_drop(x).sigmoid().unflatten(0, (-1, 2)).mean(1) for x in opened]
        masked = [lane * self._drop(mask) for lane, mask in zip(lanes, masks, strict=True)]
        high = encode("second", masked)

        crossed = self.cross_modal(high, context.append("high", high), bias)  # (B, T, 7 P)
        fused = self._half_drop(run("fusion", self.fusion, crossed[None]))  # (1, B, T, P)
        attended = self.fusion_attention(fused, context.append("fusion", fused), context.bias)[0]
        pooled, sums = running_mean(attended, state.recurrent["mean"][0], context.count)
        read = [pooled, attended, *(lane for group in masked for lane in group.unbind())]  # (B, T, …) each
        hidden = nn.functional.gelu(self.reading(self._drop(torch.cat(read, -1))))  # (B, T, 2 P)
        sentiment, uncertainty = self.head(self._drop(hidden)).unbind(-1)  # (B, T) each
        weights = _joined([group.mean(-1) for group in masks]).movedim(0, -1)  # (B, T, 3)
        lane_masks = dict(zip(MODALITIES, (lane for group in masks for lane in group.unbind()), strict=True))
        return (
            Prediction(SCORE_LIMIT * sentiment.tanh(), SCORE_LIMIT * uncertainty.sigmoid(), weights, lane_masks),
            State(
                recurrent=recurrent | {"mean": sums[None]},
                history=context.history,
                position=state.position + steps,
                length=state.length + steps,
                room=state.room - steps,
                in_place=state.in_place,
            ),
        )

    def _drop(self, x: Tensor) -> Tensor:
        return dropout(x, self.config.dropout, self.training)

    def _half_drop(self, x: Tensor) -> Tensor:
        return dropout(x, self.config.dropout / 2, self.training)

    def _group(self, lanes: list[Tensor]) -> list[Tensor]:
        """Lanes (B, T, columns) as one tensor a group, (lanes, B, T, columns)."""
        return [torch.stack(lanes)] if self.projections else [lane[None] for lane in lanes]

    def _check(self, windows: Mapping[str, Tensor], state: State) -> int:
        """The number of steps, if the inputs fit."""
        steps = _check_shapes(windows, {m: getattr(self.config, m) + FLAGS for m in MODALITIES})
        batch = len(windows["text"])
        if len(state.length) != batch:
            raise ValueError(f"the state has {len(state.length)} slots and the windows have {batch}; B must be the same")
        if steps > state.room:
            raise ValueError(
                f"the windows are {steps} steps and the state has room for {state.room}; give initial_state a larger capacity"
            )
        return steps


@dataclass(frozen=True)
class MMLatchConfig:
    """The published model's shape; defaults are those of the reference on CMU-MOSEI (GloVe, COVAREP, FACET 4.2).

    Attributes:
        text: Feature columns of the text; likewise `audio` and `vision`.
        hidden: The paper's projection size.
        feedback: How masks are made: by LSTMs (`sequence`, the paper's MMLatch), by linear maps (`static`), or not at all
            (`none`: the paper's late-fusion baseline).
        dropout: After the encoders, on their attention and on the masks; half of it elsewhere.
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
    mask_dropout_in_eval: bool = False
    ignore_lengths: bool = False

    def __post_init__(self) -> None:
        _check_ranges(self)


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
        targets = [] if config.feedback == "none" else [size for size in sizes for _ in range(2)]  # in the order of `_others`
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
            Sentiment, (B,), not bounded; and the masks over each modality's features, in (0, 1), (B, L, features) each, none
            without feedback.
        """
        size = _check_shapes(sequences, {m: getattr(self.config, m) for m in MODALITIES})
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
            return self.encoder_attention(merged, merged, bias)

        high = encode(inputs)
        masks: list[Tensor] = []
        if self.masks:
            opened = [self._open(mask, other).sigmoid() for mask, other in zip(self.masks, _others(high), strict=True)]
            masks = [(one + other) / 2 for one, other in zip(opened[::2], opened[1::2], strict=True)]
            always = self.training or self.config.mask_dropout_in_eval
            high = encode([x * dropout(mask, drop, always) for x, mask in zip(inputs, masks, strict=True)])
        crossed = self.cross_modal(high, high, bias)  # (B, L, 7 P)
        fused = dropout(over_time(self.fusion, crossed), drop / 2, self.training)[None]  # (1, B, L, 2 P)
        attended = self.fusion_attention(fused, fused, bias[: len(real)])[0] * real[..., None]
        return self.head(attended.sum(1))[:, 0], dict(zip(MODALITIES, masks, strict=False))

    def _open(self, mask: nn.Module, high: Tensor) -> Tensor:
        """A mask before its sigmoid, (B, L, features)."""
        if self.config.feedback == "static":
            return mask(high)
        return dropout(mask(high)[0], self.config.dropout / 2, self.training)
