"""How a model is trained. What each key means, and its default, stands in configs/train.yaml too."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from models.causal import CausalModel
from models.systems import System, untrained
from stream import config
from stream.config import Section
from stream.messages import LANES, Lane

Share = Annotated[float, Field(ge=0, le=1)]
Weight = Annotated[float, Field(ge=0)]
Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]
_TRAINED = {"mosi": 0.4, "sst": 0.4, "ravdess": 1.2, "fer2013": 14.0}
_WORDS = {"mosi": 1.5, "sst": 3.0, "meld": 1.5}
_VALIDATED = {"mosi": 1.0, "sst": 1.0, "ravdess": 1.0, "fer2013": 1.0}


class ModelConfig(Section):
    """Which system, and its shape; widths follow from the features."""

    system: System = "mmlatch"
    hidden: Annotated[int, Field(ge=4, le=1024)] = 64
    max_steps: Annotated[int, Field(ge=8, le=1200)] = 120
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.2
    shape: dict[str, int | str] = Field(default_factory=dict)

    def untrained(self, widths: Mapping[Lane, int], *, seed: int) -> CausalModel:
        """The model, its weights drawn from a seed; raises ValueError where `shape` is not one of the system's."""
        try:
            return untrained(
                self.system,
                seed=seed,
                **{str(lane): width for lane, width in widths.items()},
                hidden=self.hidden,
                max_steps=self.max_steps,
                dropout=self.dropout,
                **self.shape,
            )
        except TypeError as error:
            raise ValueError(f"model.shape is {self.shape}, which {self.system} does not have: {error}") from error

    @model_validator(mode="after")
    def _shape_fits(self) -> "ModelConfig":
        self.untrained(dict.fromkeys(LANES, 1), seed=0)
        return self


class NoiseConfig(Section):
    """Noise on the inputs once they are spread, in standard deviations."""

    text: Share = 0.4
    audio: Share = 0.4
    vision: Share = 0.1


class MixtureConfig(Section):
    """What training sequences are drawn from, and what life does to them."""

    corpora: Annotated[dict[str, Positive], Field(min_length=1)] = Field(default=_TRAINED)
    balance: Share = 0.5
    beside_words: Share = 0.5
    beside_others: Share = 0.04
    like: Positive = 0.5
    neutral: Share = 0.25
    contrary: Share = 0.45
    known_absent: Share = 0.5
    lag: Share = 0.4
    max_lag_s: Annotated[float, Field(ge=0, le=30)] = 4.0
    max_silence_s: Annotated[float, Field(ge=0, le=10)] = 1.25
    noise: NoiseConfig = NoiseConfig()


class FitConfig(Section):
    """The optimisation."""

    steps: Count = 6500
    batch: Count = 96
    learning_rate: Positive = 2e-3
    warmup: Annotated[int, Field(ge=0)] = 100
    weight_decay: Annotated[float, Field(ge=0)] = 0.05
    clip: Positive = 1.0
    average: Annotated[float, Field(ge=0, lt=1)] = 0.998
    ramp: Annotated[float, Field(ge=0)] = 2.0
    sign: Annotated[float, Field(ge=0)] = 0.5
    spread: Annotated[float, Field(ge=0)] = 0.2
    precision: Literal["float32", "bfloat16"] = "float32"
    validate_every: Count = 500
    patience: Count = 8
    save_every: Count = 500


class FactorsConfig(Section):
    """MFM: what its parts count beside the score's loss (`models.mfm.Weights` has those of the paper)."""

    text: Weight = 0.1
    audio: Weight = 0.1
    vision: Weight = 0.1
    discrepancy: Weight = 0.1
    missing: Weight = 1.0


class InformationConfig(Section):
    """MMMIE: see `models.mmmie.Information`."""

    shared: Weight = 0.1
    kept: Weight = 0.01
    bound: Literal["infonce", "ba"] = "infonce"


class ObjectiveConfig(Section):
    """What systems add to the score's loss."""

    factors: FactorsConfig = FactorsConfig()
    information: InformationConfig = InformationConfig()


class ValidationConfig(Section):
    """What the best checkpoint is chosen by: the weighted mean of the corpora's mean absolute errors."""

    corpora: Annotated[dict[str, Positive], Field(min_length=1)] = Field(default=_VALIDATED)
    largest: Count = 1000


class AdapterConfig(Section):
    """The text lane's adapter (`train.adapt`)."""

    corpora: Annotated[dict[str, Positive], Field(min_length=1)] = Field(default=_WORDS)
    validation: Annotated[dict[str, Positive], Field(min_length=1)] = Field(default={"mosi": 1.0, "sst": 1.0})
    balance: Share = 0.5
    rank: Annotated[int, Field(ge=1, le=64)] = 8
    dropout: Annotated[float, Field(ge=0, lt=0.5)] = 0.1
    steps: Annotated[int, Field(ge=2)] = 600
    batch: Count = 32
    learning_rate: Positive = 2e-3
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    sign: Annotated[float, Field(ge=0)] = 0.2
    validate_every: Count = 100


class TrainConfig(Section):
    """Everything that training can be told."""

    seed: Annotated[int, Field(ge=0)] = 0
    hop_ms: Annotated[int, Field(ge=100, le=1000)] = 250
    adapter: AdapterConfig = AdapterConfig()
    model: ModelConfig = ModelConfig()
    mixture: MixtureConfig = MixtureConfig()
    fit: FitConfig = FitConfig()
    objective: ObjectiveConfig = ObjectiveConfig()
    validation: ValidationConfig = ValidationConfig()

    @property
    def hop_ns(self) -> int:
        """The length of a window."""
        return self.hop_ms * 1_000_000


def load(path: Path | None = None, overrides: tuple[str, ...] = ()) -> TrainConfig:
    """Read a configuration; see `stream.config.parse`."""
    return config.parse(TrainConfig, path, overrides, example="configs/train.yaml")
