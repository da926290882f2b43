"""How a system is trained on a data set offline. Recipes stand in configs/systems/, with their figures' sources."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from models.systems import System
from stream import config
from stream.config import Section
from train.config import Count, FitConfig, ObjectiveConfig, Positive, Share

Form = Literal["published", "causal"]
FOLDER = Path(__file__).parents[1] / "configs" / "systems"
_PUBLISHED: tuple[System, ...] = ("mmlatch", "late-fusion", "mult", "mfm")


class SwapConfig(Section):
    """The probability that a step's features are those of another step of the train split, by modality."""

    text: Share = 0.0
    audio: Share = 0.0
    vision: Share = 0.0


class ScheduleConfig(Section):
    """The learning rate is multiplied by `factor` when the validation loss has not improved for `patience` epochs."""

    factor: Share = 0.5
    patience: Annotated[int, Field(ge=0)] = 2
    cooldown: Annotated[int, Field(ge=0)] = 0
    least: Annotated[float, Field(ge=0)] = 0.0


class OfflineFitConfig(Section):
    """The optimisation.

    Attributes:
        patience: Stop when the validation loss has not improved for so many epochs, and keep the best; 0: there is nothing to
            validate on, so go to the end, and keep the last.
        average: What an epoch keeps of the average of the weights over epochs, if there is nothing to validate on.
        clip: The longest gradient; 0 for any.
        noise: On the inputs, in standard deviations of the train split.
        sign: What the sign's logistic loss counts beside the absolute error's 1.
    """

    epochs: Count = 100
    batch: Count = 32
    learning_rate: Positive = 1e-3
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    clip: Annotated[float, Field(ge=0)] = 0.0
    patience: Annotated[int, Field(ge=0)] = 10
    schedule: ScheduleConfig | None = None
    average: Annotated[float, Field(ge=0, lt=1)] = 0.0
    sign: Annotated[float, Field(ge=0)] = 0.0
    noise: Annotated[float, Field(ge=0)] = 0.0
    swap: SwapConfig = SwapConfig()


class Recipe(Section):
    """A system, its form and shape, and how it is trained.

    Attributes:
        shape: What the form's configuration class has beside the widths, which follow from the data.
        standardise: Mean 0 and deviation 1 of each feature, fitted on the train split; the causal forms always do so.
    """

    system: System
    form: Form = "causal"
    shape: dict[str, bool | int | float | str | list[int] | list[float]] = Field(default_factory=dict)
    standardise: bool = False
    fit: OfflineFitConfig = OfflineFitConfig()
    objective: ObjectiveConfig = ObjectiveConfig()

    @model_validator(mode="after")
    def _form_exists(self) -> "Recipe":
        if self.form == "published" and self.system not in _PUBLISHED:
            raise ValueError(f"{self.system} has no published form that is known; expected form: causal")
        return self

    def live_fit(self) -> FitConfig:
        """The weights of the causal forms' loss: all steps count alike."""
        return FitConfig(batch=self.fit.batch, ramp=0.0, sign=self.fit.sign, spread=0.0)


def load(name: str, overrides: tuple[str, ...] = ()) -> Recipe:
    """Read a recipe: a file, or the name of one of those that come with the program; see `stream.config.parse`."""
    path = FOLDER / f"{name}.yaml"
    return config.parse(Recipe, path if path.exists() else Path(name), overrides, example=str(FOLDER / "mmlatch.yaml"))


def changed(recipe: Recipe, overrides: tuple[str, ...]) -> Recipe:
    """A recipe with some keys changed; see `stream.config.parse`."""
    return config.parse(Recipe, None, overrides, example=str(FOLDER / "mmlatch.yaml"), base=recipe.model_dump())
