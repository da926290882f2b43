"""MFM, the multimodal factorization model, in two forms: causal, for streams, and as published, for whole, aligned sequences.

Y.-H. H. Tsai, P. P. Liang, A. Zadeh, L.-P. Morency, R. Salakhutdinov, "Learning Factorized Multimodal Representations", ICLR
2019, arXiv 1806.06176; where the paper is silent, the authors' code (github.com/pliang279/factorized). What all modalities say
together becomes one *discriminative* factor, which alone is read for the score; what each says by itself becomes a *generative*
factor of its own. From the two, a modality is made again. Where a modality is missing, surrogates guess both codes from the
other two.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence

from models.causal import (
    FLAGS,
    LARGEST,
    MODALITIES,
    CausalConfig,
    CausalModel,
    Prediction,
    flags_of,
    known,
    lstm_state,
    others,
)
from models.checkpoint import Pretrained
from models.information import discrepancy
from models.layers import CausalLSTM, Context, Linears, Projection
from models.state import State

JOINT = "joint"  # the code and the factor of all modalities together


@dataclass(frozen=True)
class CausalMFMConfig(CausalConfig):
    """The causal model's shape; see `CausalConfig`.

    Attributes:
        code: Columns of each code, those of text, audio and vision and the joint one; a factor has as many.
        memory: Of the memory fusion network.
    """

    code: int = 32
    memory: int = 64

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("code", "memory"):
            if not 1 <= getattr(self, name) <= LARGEST:
                raise ValueError(f"{name} is {getattr(self, name)}, expected 1 to {LARGEST}")


class Analysis(NamedTuple):
    """What the causal model makes of windows, for training; M is text, audio, vision.

    Attributes:
        full: The prediction from all lanes as they are, whatever is missing.
        without: Those from the surrogates of each lane in turn, which do not see it; each tensor has M in front.
        codes: Of the lanes and the joint one, (4, B, T, code).
        guessed: Each lane's own code as its surrogate guesses it, (3, B, T, code).
        guessed_joint: The joint code as guessed without each lane, (3, B, T, code).
        features: What went in, spread, (B, T, columns) a lane.
        made: The same as made again from the codes.
        made_without: The same as made again from the surrogates' codes.
    """

    full: Prediction
    without: Prediction
    codes: Tensor
    guessed: Tensor
    guessed_joint: Tensor
    features: list[Tensor]
    made: list[Tensor]
    made_without: list[Tensor]


class CausalMFM(CausalModel):
    """The causal form.

    What differs from the paper: there are codes at each window, of the utterance so far, and they are asked to make that
    window again, not the whole sequence; inputs are spread alike, carry flags, and are projected by way of a hidden layer; the
    score is bounded and has an uncertainty beside it. A lane counts as missing while the utterance has had nothing known of
    it: then the joint code is what the lane's surrogate guesses from the other two, and the mean of the surrogates where
    several are missing. A lane that is lost later is still remembered, and is not.
    """

    model_type: ClassVar[str] = "mfm-causal"
    config_class: ClassVar[type] = CausalMFMConfig
    config: CausalMFMConfig

    def __init__(self, config: CausalMFMConfig) -> None:
        super().__init__(config)
        p, z, memory = config.hidden, config.code, config.memory
        self.projections = nn.ModuleList(Projection(size, p) for size in self.sizes)
        self.encoders = CausalLSTM(3, p + FLAGS, p)
        self.codes = Linears(3, p, z)
        # The memory fusion network: cells, what changes in them, and the memory's gates.
        self.cells = CausalLSTM(3, p + FLAGS, p)
        self.attention = _network(6 * p, 6 * p, hidden=2 * p, dropout=config.dropout)
        self.candidate = _network(6 * p, memory, hidden=2 * p, dropout=config.dropout)
        self.gates_of_cells, self.gates_of_memory = nn.Linear(6 * p, 2 * p), nn.Linear(memory, 2 * p, bias=False)
        self.gates = nn.Linear(2 * p, 2 * memory)
        self.joint_code = nn.Linear(3 * p + memory, z)
        # For each missing lane, from the other two: its own code, then the joint one.
        self.surrogates = CausalLSTM(6, 2 * (p + FLAGS), p)
        self.surrogate_codes = Linears(6, p, z)
        self.joint_factor, self.factors = _network(z, z, hidden=z, dropout=config.dropout), Linears(3, z, z)
        self.decoders = nn.ModuleList(_network(2 * z, size, hidden=2 * p, dropout=0.0) for size in self.sizes)
        self._make_head(z)

    def recurrent(self) -> dict[str, tuple[int, int]]:
        """See `CausalModel.recurrent`."""
        p = self.config.hidden
        found = lstm_state("cells", 3, p) | lstm_state("surrogates", 6, p)
        return found | {"memory": (1, self.config.memory), "seen": (3, 1)}

    def histories(self) -> dict[str, tuple[int, int]]:
        """See `CausalModel.histories`: nothing is attended to, so the one there is has no columns."""
        return {"nothing": (1, 0)}

    def forward(self, windows: Mapping[str, Tensor], state: State) -> tuple[Prediction, State]:
        """See `CausalModel.forward`."""
        context = Context(state, self._check(windows, state), max_steps=self.config.max_steps)
        flags = flags_of(windows)
        inputs = self._inputs(self._features(windows), flags)
        joint, (_, guessed) = self._joint(context, inputs), self._guess(context, inputs)
        # How much of each lane the utterance has had, known or not: 1 or 0, (3, B, T, 1).
        seen = torch.maximum(context.before("seen"), flags[..., :1].cummax(2).values)
        context.keep("seen", seen)
        context.append("nothing", joint[None, ..., :0])
        complete, missing = seen.prod(0), 1 - seen
        chosen = (complete * joint + (missing * guessed).sum(0)) / (complete + missing.sum(0))  # (B, T, code)
        return self._predict(self._factor(chosen), known(flags)), context.after()

    def analyse(self, windows: Mapping[str, Tensor], state: State) -> Analysis:
        """All that training looks at, of windows from the beginning of an utterance on."""
        context = Context(state, self._check(windows, state), max_steps=self.config.max_steps)
        flags, features = flags_of(windows), self._features(windows)
        inputs = self._inputs(features, flags)
        nothing = inputs.new_zeros(3, inputs.shape[1], self.config.hidden)
        outputs, _ = self.encoders(inputs, nothing, nothing)  # nothing of it is kept: a prediction does not need it
        own, joint = self.codes(outputs), self._joint(context, inputs)
        guessed, guessed_joint = self._guess(context, inputs)
        factor, factor_without = self._factor(joint), self._factor(guessed_joint)

        def made(codes: Tensor, joint: Tensor) -> list[Tensor]:
            read = torch.cat([joint, self.factors(codes).relu()], -1)  # (3, B, T, 2 code)
            return [decode(x) for decode, x in zip(self.decoders, read, strict=True)]

        return Analysis(
            self._predict(factor, known(flags)),
            self._predict(factor_without, known(flags)),
            torch.cat([own, joint[None]]),
            guessed,
            guessed_joint,
            features,
            made(own, factor.expand(3, -1, -1, -1)),
            made(guessed, factor_without),
        )

    def _inputs(self, features: list[Tensor], flags: Tensor) -> Tensor:
        """(3, B, T, P + 2)."""
        lanes = [project(lane) for project, lane in zip(self.projections, features, strict=True)]
        return torch.cat([torch.stack(lanes), flags], -1)

    def _joint(self, context: Context, inputs: Tensor) -> Tensor:
        """The joint code, (B, T, code), by the memory fusion network."""
        before = context.before("cells.c")
        outputs, cells = context.run("cells", self.cells, inputs)
        earlier = torch.cat([before, cells[:, :, :-1]], 2)
        both = torch.cat([*earlier.unbind(), *cells.unbind()], -1)  # (B, T, 6 P)
        attended = self.attention(both).softmax(-1) * both
        candidates, opened = self.candidate(attended).tanh(), self.gates_of_cells(attended)
        memory, memories = context.before("memory")[0, :, 0], []
        for candidate, gate in zip(candidates.unbind(1), opened.unbind(1), strict=True):
            keep, take = self.gates((gate + self.gates_of_memory(memory)).relu()).sigmoid().chunk(2, -1)
            memory = keep * memory + take * candidate
            memories.append(memory)
        remembered = torch.stack(memories, 1)  # (B, T, memory)
        context.keep("memory", remembered[None])
        return self.joint_code(torch.cat([*outputs.unbind(), remembered], -1))

    def _guess(self, context: Context, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Each lane's own code and the joint one from the other two lanes, (3, B, T, code) each."""
        pairs = torch.stack([torch.cat(pair.unbind(), -1) for pair in others(inputs).chunk(3)])  # (3, B, T, 2 (P + 2))
        outputs, _ = context.run("surrogates", self.surrogates, pairs.repeat(2, 1, 1, 1))
        own, joint = self.surrogate_codes(outputs).chunk(2)
        return own, joint

    def _factor(self, code: Tensor) -> Tensor:
        """The discriminative factor of a joint code, (…, code)."""
        return self.joint_factor(code).relu()


def _network(inputs: int, outputs: int, *, hidden: int, dropout: float) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, hidden), nn.ReLU(), nn.Dropout(dropout), nn.Linear(hidden, outputs))


@dataclass(frozen=True)
class MFMConfig:
    """The published model's shape; defaults are those of the authors' best on CMU-MOSI.

    Attributes:
        text: Feature columns of the text; likewise `audio` and `vision`.
        hidden: Of the encoders of text, audio and vision, alone and in the memory fusion network.
        codes: Columns of the codes of text, audio and vision, and of the joint one.
        factors: Columns of the factors made of them, likewise.
        memory: Of the memory fusion network.
        attention_hidden: Of its networks; their dropout is `attention_dropout`.
        code_dropout: Between code and factor, of text, audio, vision and the joint one.
        head_dropout: In the head.
    """

    text: int = 300
    audio: int = 5
    vision: int = 20
    hidden: tuple[int, int, int] = (88, 64, 48)
    codes: tuple[int, int, int, int] = (32, 8, 80, 32)
    factors: tuple[int, int, int, int] = (88, 8, 8, 16)
    memory: int = 64
    attention_hidden: int = 128
    attention_dropout: float = 0.5
    code_dropout: tuple[float, float, float, float] = (0.2, 0.2, 0.7, 0.0)
    head_dropout: float = 0.0

    def __post_init__(self) -> None:
        for name in (*MODALITIES, "memory", "attention_hidden"):
            if not 1 <= getattr(self, name) <= LARGEST:
                raise ValueError(f"{name} is {getattr(self, name)}, expected 1 to {LARGEST}")
        for name, count in (("hidden", 3), ("codes", 4), ("factors", 4)):
            if len(getattr(self, name)) != count or not all(1 <= each <= LARGEST for each in getattr(self, name)):
                raise ValueError(f"{name} is {getattr(self, name)}, expected {count} numbers from 1 to {LARGEST}")
        dropouts = (self.attention_dropout, self.head_dropout, *self.code_dropout)
        if len(self.code_dropout) != 4 or not all(0 <= each < 1 for each in dropouts):
            raise ValueError("code_dropout, attention_dropout, head_dropout: expected four, one and one from 0 to below 1")


class Factorized(NamedTuple):
    """What the model makes of sequences.

    Attributes:
        sentiment: (B,), not bounded.
        codes: Of each modality and `JOINT`, (B, columns).
        made: Each modality made again, (B, L, features).
    """

    sentiment: Tensor
    codes: dict[str, Tensor]
    made: dict[str, Tensor]


@dataclass(frozen=True)
class Weights:
    """What each part of the loss counts, beside the score's absolute error; those of the authors' best on CMU-MOSI.

    Attributes:
        text: Of the squared error of the text made again; likewise `audio` and `vision`.
        discrepancy: Of the codes' distance from normal distributions.
        missing: Of the surrogates' squared errors, and of scores and modalities made with them.
    """

    text: float = 1.0
    audio: float = 0.01
    vision: float = 0.5
    discrepancy: float = 1.0
    missing: float = 1.0


class MFM(Pretrained):
    """The published model, with surrogates for missing modalities.

    Example:
        model = MFM(MFMConfig()).eval()
        sentiment, codes, made = model({"text": text, "audio": audio, "vision": vision}, lengths)
        guessed = model({"text": text, "vision": vision}, lengths).made["audio"]
    """

    model_type: ClassVar[str] = "mfm"
    config_class: ClassVar[type] = MFMConfig
    config: MFMConfig

    def __init__(self, config: MFMConfig) -> None:
        super().__init__()
        self.config = config
        sizes = dict(zip(MODALITIES, (config.text, config.audio, config.vision), strict=True))
        hidden = dict(zip(MODALITIES, config.hidden, strict=True))
        names = (*MODALITIES, JOINT)
        codes, factors = (dict(zip(names, each, strict=True)) for each in (config.codes, config.factors))
        self.encoders = nn.ModuleDict({m: SequenceEncoder(sizes[m], hidden[m], codes[m]) for m in MODALITIES})
        self.joint = MemoryFusion(config, sizes, codes[JOINT])
        self.factors = nn.ModuleDict(
            {
                name: nn.Sequential(
                    nn.Linear(codes[name], factors[name]),
                    nn.ReLU(),
                    nn.Dropout(p),
                    nn.Linear(factors[name], factors[name]),
                    nn.ReLU(),
                )
                for name, p in zip(names, config.code_dropout, strict=True)
            }
        )
        self.decoders = nn.ModuleDict({m: SequenceDecoder(factors[JOINT] + factors[m], sizes[m]) for m in MODALITIES})
        width = factors[JOINT]
        self.head = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Dropout(config.head_dropout), nn.Linear(width, 1))
        # For each missing modality: its code, and the joint one, from the other two.
        rest = {m: sum(sizes[other] for other in MODALITIES if other != m) for m in MODALITIES}
        self.surrogates = nn.ModuleDict({m: SequenceEncoder(rest[m], hidden[m], codes[m]) for m in MODALITIES})
        self.joint_surrogates = nn.ModuleDict({m: SequenceEncoder(rest[m], hidden[m], codes[JOINT]) for m in MODALITIES})

    def forward(self, sequences: Mapping[str, Tensor], lengths: Tensor) -> Factorized:
        """Score sequences and make them again.

        Args:
            sequences: For each modality, or for two of them, (B, L, features), padded at the end.
            lengths: How many steps are data, at least 1, int64, (B,).
        """
        missing = self._check(sequences, lengths)
        steps = next(iter(sequences.values())).shape[1]
        if missing is None:
            codes = {m: self.encoders[m](sequences[m], lengths) for m in MODALITIES}
            codes[JOINT] = self.joint(sequences, lengths)
        else:
            codes = {m: self.encoders[m](x, lengths) for m, x in sequences.items()} | self.guess(sequences, lengths, missing)
        return self._decode(codes, steps)

    def guess(self, sequences: Mapping[str, Tensor], lengths: Tensor, missing: str) -> dict[str, Tensor]:
        """The codes of a missing modality and of all together, as the other two tell them; (B, columns) each."""
        given = torch.cat([sequences[m] for m in MODALITIES if m != missing], -1)
        return {missing: self.surrogates[missing](given, lengths), JOINT: self.joint_surrogates[missing](given, lengths)}

    def loss(self, sequences: Mapping[str, Tensor], lengths: Tensor, labels: Tensor, weights: Weights) -> dict[str, Tensor]:
        """The parts of the loss, weighted, to be added up; labels (B,).

        All modalities must be there; each in turn is taken for missing, so that its surrogates learn.
        """
        full = self(sequences, lengths)
        target = {m: getattr(weights, m) for m in MODALITIES}
        error = {m: _squared_error(full.made[m], sequences[m], lengths) for m in MODALITIES}
        parts = {
            "score": (full.sentiment - labels).abs().mean(),
            "made": _total(target[m] * error[m] for m in MODALITIES),
            "discrepancy": weights.discrepancy * _total(discrepancy(torch.randn_like(z), z) for z in full.codes.values()),
        }
        if weights.missing:
            guessed = {m: self.guess(sequences, lengths, m) for m in MODALITIES}
            without = {m: self._decode(full.codes | guessed[m], full.made[m].shape[1]) for m in MODALITIES}
            parts["surrogates"] = weights.missing * _total(
                nn.functional.mse_loss(z, full.codes[name]) for found in guessed.values() for name, z in found.items()
            )
            parts["score without"] = weights.missing * _total(
                (each.sentiment - labels).abs().mean() for each in without.values()
            )
            parts["made without"] = weights.missing * _total(
                target[m] * _squared_error(without[m].made[m], sequences[m], lengths) for m in MODALITIES
            )
        return parts

    def _decode(self, codes: dict[str, Tensor], steps: int) -> Factorized:
        factors = {name: self.factors[name](z) for name, z in codes.items()}
        made = {m: self.decoders[m](torch.cat([factors[JOINT], factors[m]], -1), steps) for m in MODALITIES}
        return Factorized(self.head(factors[JOINT])[:, 0], codes, made)

    def _check(self, sequences: Mapping[str, Tensor], lengths: Tensor) -> str | None:
        """Which modality is missing, if one is; raises ValueError for what does not fit."""
        missing = [m for m in MODALITIES if m not in sequences]
        if len(missing) > 1:
            raise ValueError(f"sequences lack {', '.join(missing)}; surrogates need two modalities")
        first = next(iter(sequences.values()))
        for m, x in sequences.items():
            width = getattr(self.config, m)
            if x.ndim != 3 or x.shape[:2] != first.shape[:2] or x.shape[2] != width or not x.shape[1]:
                raise ValueError(f"{m} is {tuple(x.shape)}, expected (B, L, {width}), L at least 1, the same B and L for all")
        if lengths.shape != first.shape[:1] or lengths.min() < 1 or lengths.max() > first.shape[1]:
            raise ValueError(
                f"lengths: {lengths.tolist()}, expected one for each of B = {len(first)}, from 1 to L = {first.shape[1]}"
            )
        return missing[0] if missing else None


class SequenceEncoder(nn.Module):
    """An LSTM's last state, mapped to a code."""

    def __init__(self, inputs: int, hidden: int, code: int) -> None:
        super().__init__()
        self.lstm, self.out = nn.LSTM(inputs, hidden, batch_first=True), nn.Linear(hidden, code)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        """Sequences (B, L, inputs) to codes (B, code)."""
        packed = pack_padded_sequence(x, lengths.cpu(), batch_first=True, enforce_sorted=False)
        return self.out(self.lstm(packed)[1][0][-1])


class SequenceDecoder(nn.Module):
    """An LSTM that is given the factors once, and then its own state again and again."""

    def __init__(self, factors: int, outputs: int) -> None:
        super().__init__()
        self.cell, self.out = nn.LSTMCell(factors, factors), nn.Linear(factors, outputs)

    def forward(self, factors: Tensor, steps: int) -> Tensor:
        """Factors (B, factors) to a sequence (B, steps, outputs)."""
        h = c = torch.zeros_like(factors)
        x, states = factors, []
        for _ in range(steps):
            h, c = self.cell(x, (h, c))
            x = h
            states.append(h)
        return self.out(torch.stack(states, 1))


class MemoryFusion(nn.Module):
    """The memory fusion network (A. Zadeh et al., AAAI 2018, arXiv 1802.00927): what changes together is kept together."""

    def __init__(self, config: MFMConfig, sizes: Mapping[str, int], code: int) -> None:
        super().__init__()
        self.cells = nn.ModuleDict({m: nn.LSTMCell(sizes[m], h) for m, h in zip(MODALITIES, config.hidden, strict=True)})
        self.sizes = dict(zip(MODALITIES, config.hidden, strict=True))
        self.memory = config.memory
        cells, wide, p = sum(config.hidden), config.attention_hidden, config.attention_dropout

        self.attention = _network(2 * cells, 2 * cells, hidden=wide, dropout=p)
        self.candidate = _network(2 * cells, config.memory, hidden=wide, dropout=p)
        self.keep = _network(2 * cells + config.memory, config.memory, hidden=wide, dropout=p)
        self.take = _network(2 * cells + config.memory, config.memory, hidden=wide, dropout=p)
        self.out = nn.Linear(cells + config.memory, code)

    def forward(self, sequences: Mapping[str, Tensor], lengths: Tensor) -> Tensor:
        """Sequences (B, L, features) to codes (B, code)."""
        first = sequences[MODALITIES[0]]
        batch, steps = first.shape[:2]
        state = {m: (first.new_zeros(batch, size),) * 2 for m, size in self.sizes.items()}
        memory = first.new_zeros(batch, self.memory)
        for step in range(steps):
            real = (step < lengths)[:, None]  # a sequence that is over stays as it is
            before = torch.cat([c for _, c in state.values()], -1)
            after = {m: cell(sequences[m][:, step], state[m]) for m, cell in self.cells.items()}
            both = torch.cat([before, *(c for _, c in after.values())], -1)  # (B, 2 cells)
            attended = self.attention(both).softmax(-1) * both
            gates = torch.cat([attended, memory], -1)
            kept = self.keep(gates).sigmoid() * memory + self.take(gates).sigmoid() * self.candidate(attended).tanh()
            memory = torch.where(real, kept, memory)
            state = {m: tuple(torch.where(real, new, old) for new, old in zip(after[m], state[m], strict=True)) for m in state}  # type: ignore[misc]
        return self.out(torch.cat([*(h for h, _ in state.values()), memory], -1))


def _total(parts: Iterable[Tensor]) -> Tensor:
    return torch.stack(list(parts)).sum()


def _squared_error(made: Tensor, given: Tensor, lengths: Tensor) -> Tensor:
    """Over the steps that are data."""
    real = torch.arange(given.shape[1], device=given.device) < lengths[:, None]  # (B, L)
    return ((made - given) ** 2)[real].mean()
