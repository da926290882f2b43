"""What all causal models have in common: windows and a state in, a prediction at each window and the state out."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, cast, get_args, get_type_hints

import torch
from torch import Tensor, nn

from models.checkpoint import Pretrained
from models.layers import Normalise, Spread, Standardise, dropout
from models.state import State

MODALITIES = ("text", "audio", "vision")
FLAGS = 2  # after each modality's features: known (0 or 1), presence (the share of the window with something there, 0 to 1)
SCORE_LIMIT = 3.0
LARGEST = 2**16  # columns, widths and windows: beyond that a configuration is a mistake


def check_ranges(config: Any) -> None:
    """Raise a ValueError that names the first number of a configuration that is out of range."""
    for name in (*MODALITIES, "hidden", "max_steps"):
        if not 1 <= getattr(config, name, 1) <= LARGEST:
            raise ValueError(f"{name} is {getattr(config, name)}, expected 1 to {LARGEST}")
    if not 0 <= config.dropout < 1:
        raise ValueError(f"dropout is {config.dropout}, expected from 0 to below 1")


def check_choice(config: Any, name: str) -> None:
    """Raise a ValueError where a value is none of those that the configuration's type of it names."""
    choices = get_args(get_type_hints(type(config))[name])
    if getattr(config, name) not in choices:
        raise ValueError(f"{name} is {getattr(config, name)!r}, expected {' or '.join(map(repr, choices))}")


def check_transformer(hidden: int, heads: int, layers: int) -> None:
    """Raise a ValueError where a width cannot be shared among heads, or there is no layer."""
    if heads < 1 or hidden % heads:
        raise ValueError(f"heads is {heads}, expected a divisor of hidden, {hidden}")
    if not 1 <= layers <= LARGEST:
        raise ValueError(f"layers is {layers}, expected 1 to {LARGEST}")


def check_shapes(inputs: Mapping[str, Tensor], widths: Mapping[str, int]) -> int:
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


def others(x: Tensor) -> Tensor:
    """From text, audio and vision, (3, …), the others of each: those of text, of audio and of vision, (6, …)."""
    return torch.cat([x[1:], x[::2], x[:2]])


class Prediction(NamedTuple):
    """What a causal model says at each step.

    Attributes:
        sentiment: In [-3, 3], (B, T).
        uncertainty: The standard deviation of the label that the model expects about `sentiment`, in (0, 3), (B, T).
        weights: How far text, audio and vision are let through, in [0, 1], (B, T, 3): the mean of the lane's mask where the
            model has masks, else whether the lane is known.
        masks: Each modality's mask itself, in (0, 1), (B, T, columns); none where the model has none.
    """

    sentiment: Tensor
    uncertainty: Tensor
    weights: Tensor
    masks: dict[str, Tensor]


@dataclass(frozen=True)
class CausalConfig:
    """What every causal model is told.

    Attributes:
        text: Feature columns of the text lane, without the flags; likewise `audio` and `vision`.
        hidden: The common width.
        max_steps: How many windows back attention looks, with the present one: the longest utterance.
        dropout: After what is large; half of it elsewhere.
    """

    text: int
    audio: int
    vision: int
    hidden: int = 64
    max_steps: int = 120
    dropout: float = 0.2

    def __post_init__(self) -> None:
        check_ranges(self)


class CausalModel(Pretrained, ABC):
    """A causal model, `forward(windows (B, T, …), state) -> (prediction (B, T), state)` for training and serving alike.

    Example:
        model = CausalMMLatch(CausalMMLatchConfig(text=768, audio=68, vision=116)).eval()
        state = model.initial_state(batch=1)
        prediction, state = model(windows, state)  # windows["text"]: (1, T, 768 + 2)
    """

    config_class: ClassVar[type] = CausalConfig
    config: CausalConfig
    reading: nn.Linear  # the head's hidden layer
    head: nn.Linear  # to sentiment and uncertainty

    def __init__(self, config: CausalConfig) -> None:
        super().__init__()
        self.config = config
        # Sentence vectors are spread evenly; what voices and faces give is not.
        self.spread = nn.ModuleList(
            (Standardise if m == "text" else Normalise)(size) for m, size in zip(MODALITIES, self.sizes, strict=True)
        )

    @property
    def sizes(self) -> list[int]:
        """Feature columns of text, audio and vision."""
        return [getattr(self.config, m) for m in MODALITIES]

    @property
    def spreads(self) -> dict[str, Spread]:
        """What each modality's features pass first."""
        return {m: cast(Spread, each) for m, each in zip(MODALITIES, self.spread, strict=True)}

    @property
    def mask_widths(self) -> tuple[int, int, int]:
        """Columns of the masks of text, audio and vision; zeros where the model has none."""
        return (0, 0, 0)

    @abstractmethod
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

    @abstractmethod
    def recurrent(self) -> dict[str, tuple[int, int]]:
        """The blocks and the width of each part of the state that a step replaces, by name; at least one."""

    @abstractmethod
    def histories(self) -> dict[str, tuple[int, int]]:
        """Likewise of each sequence that later steps attend to; at least one, whose ring says how long the state is."""

    def initial_state(self, batch: int, *, capacity: int | None = None, in_place: bool = False) -> State:
        """The state before an utterance, on the model's device.

        Args:
            batch: B, the number of slots.
            capacity: For how many steps there is room; `max_steps` if not given. See `State`.
            in_place: See `State`.
        """
        capacity = self.config.max_steps if capacity is None else capacity
        zeros = self.head.weight.new_zeros
        zero = torch.zeros(batch, dtype=torch.int64, device=self.head.weight.device)
        return State(
            recurrent={name: zeros(count, batch, 1, size) for name, (count, size) in self.recurrent().items()},
            history={name: zeros(count, batch, capacity, size) for name, (count, size) in self.histories().items()},
            position=zero,
            length=zero,
            room=capacity,
            in_place=in_place,
        )

    def _check(self, windows: Mapping[str, Tensor], state: State) -> int:
        """The number of steps, if the inputs fit."""
        steps = check_shapes(windows, {m: size + FLAGS for m, size in zip(MODALITIES, self.sizes, strict=True)})
        batch = len(windows["text"])
        if len(state.length) != batch:
            raise ValueError(f"the state has {len(state.length)} slots and the windows have {batch}; B must be the same")
        if steps > state.room:
            raise ValueError(
                f"the windows are {steps} steps and the state has room for {state.room}; give initial_state a larger capacity"
            )
        return steps

    def _features(self, windows: Mapping[str, Tensor]) -> list[Tensor]:
        """The features of text, audio and vision, spread, (B, T, columns) each."""
        return [each(windows[m][..., :-FLAGS]) for m, each in zip(MODALITIES, self.spread, strict=True)]

    def _make_head(self, inputs: int) -> None:
        """The last of a subclass's parts."""
        self.reading = nn.Linear(inputs, 2 * self.config.hidden)
        self.head = nn.Linear(2 * self.config.hidden, 2)

    def _predict(self, read: Tensor, weights: Tensor, masks: dict[str, Tensor] | None = None) -> Prediction:
        """What the head says of (…, B, T, inputs)."""
        hidden = nn.functional.gelu(self.reading(self._drop(read)))  # (…, B, T, 2 P)
        sentiment, uncertainty = self.head(self._drop(hidden)).unbind(-1)  # (…, B, T) each
        return Prediction(SCORE_LIMIT * sentiment.tanh(), SCORE_LIMIT * uncertainty.sigmoid(), weights, masks or {})

    def _drop(self, x: Tensor) -> Tensor:
        return dropout(x, self.config.dropout, self.training)

    def _half_drop(self, x: Tensor) -> Tensor:
        return dropout(x, self.config.dropout / 2, self.training)


def lstm_state(name: str, count: int, hidden: int) -> dict[str, tuple[int, int]]:
    """What `CausalModel.recurrent` says of LSTMs that `Context.run` runs under that name."""
    return {f"{name}.{part}": (count, hidden) for part in "hc"}


def flags_of(windows: Mapping[str, Tensor]) -> Tensor:
    """Known and presence of text, audio and vision, (3, B, T, 2)."""
    return torch.stack([windows[m][..., -FLAGS:] for m in MODALITIES])


def known(flags: Tensor) -> Tensor:
    """Which lanes are known, (B, T, 3), of `flags_of`."""
    return flags[..., 0].movedim(0, -1)
