"""The typed configuration. What each key means, and its default, stands in configs/default.yaml too, where users look."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from stream.errors import UsageError
from stream.messages import Lane

TopicPart = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")]


class Section(BaseModel):
    """A part of the configuration: immutable, and unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid")


S = TypeVar("S", bound=Section)


class AsrConfig(Section):
    """Speech recognition."""

    engine: Literal["auto", "whisper", "sphinx", "none"] = "auto"
    model: Annotated[str, Field(min_length=1)] | None = None
    compute_type: Annotated[str, Field(min_length=1)] | None = None
    max_stretch_s: Annotated[float, Field(ge=2, le=30)] = 15.0
    language: Annotated[str, Field(pattern=r"^(auto|[a-z]{2,3})$")] = "en"


class WindowsConfig(Section):
    """The time grid and the utterances on it."""

    hop_ms: Annotated[int, Field(ge=100, le=1000)] = 250
    utterance_gap_s: Annotated[float, Field(gt=0, le=10)] = 1.0
    max_utterance_s: Annotated[float, Field(ge=5, le=120)] = 30.0

    @property
    def hop_ns(self) -> int:
        """The length of a window."""
        return self.hop_ms * 1_000_000

    @property
    def gap_windows(self) -> int:
        """Windows without a voice that end an utterance: the fewest that last `utterance_gap_s`."""
        return -(-round(self.utterance_gap_s * 1000) // self.hop_ms)

    @property
    def max_windows(self) -> int:
        """The longest utterance in windows."""
        return round(self.max_utterance_s * 1000) // self.hop_ms


class LatenessConfig(Section):
    """How far a lane of a live session may be behind the present before windows are settled without it."""

    text_s: Annotated[float, Field(ge=1, le=60)] = 25.0
    audio_s: Annotated[float, Field(ge=0.5, le=60)] = 2.0
    vision_s: Annotated[float, Field(ge=0.5, le=60)] = 2.0

    @property
    def lanes_ns(self) -> dict[Lane, int]:
        """The same by lane."""
        return {"text": round(self.text_s * 1e9), "audio": round(self.audio_s * 1e9), "vision": round(self.vision_s * 1e9)}


class ModelConfig(Section):
    """The model and how it runs."""

    checkpoint: Annotated[str, Field(min_length=1)] | None = None
    cuda_graphs: bool = True
    compile: bool = False


class ScoreConfig(Section):
    """How scores are presented."""

    smooth_tau_s: Annotated[float, Field(ge=0, le=60)] = 2.0


class MqttConfig(Section):
    """What is published to an MQTT broker, and how; whether at all is said on the command line or by `broker`."""

    broker: Annotated[str, Field(min_length=1)] | None = None
    required: bool = False
    version: Annotated[Literal["3.1.1", "5"], BeforeValidator(str)] = "3.1.1"
    prefix: TopicPart = "sentiment"
    username: Annotated[str, Field(min_length=1)] | None = None
    password_file: Path | None = None
    ca_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None
    keepalive_s: Annotated[int, Field(ge=5, le=3600)] = 30
    stats_s: Annotated[float, Field(ge=1, le=3600)] = 10.0
    retain_grace_s: Annotated[float, Field(ge=0, le=60)] = 1.0
    publish_text: bool = False
    commands: bool = False
    home_assistant: bool = False
    discovery_prefix: TopicPart = "homeassistant"

    @model_validator(mode="after")
    def _certificate_with_key(self) -> "MqttConfig":
        if (self.cert_file is None) != (self.key_file is None):
            raise ValueError("cert_file and key_file belong together; give both or none")
        return self


class DashboardConfig(Section):
    """The web page; whether there is one is said on the command line or by `address`."""

    address: Annotated[str, Field(min_length=1)] | None = None
    token_file: Path | None = None
    picture: bool = False


class RecordConfig(Section):
    """What is recorded, and where; whether at all is said on the command line or by `file`."""

    file: Path | None = None
    level: Literal["scores", "features", "media"] = "features"
    words: bool = False
    standby: bool = False
    part_minutes: Annotated[float, Field(gt=0, le=100_000)] | None = None
    part_mb: Annotated[float, Field(ge=1)] | None = None
    keep_parts: Annotated[int, Field(ge=1)] | None = None


class Config(Section):
    """Everything that a session can be told."""

    session: TopicPart = "live"
    node: TopicPart = "local"
    windows: WindowsConfig = WindowsConfig()
    lateness: LatenessConfig = LatenessConfig()
    asr: AsrConfig = AsrConfig()
    model: ModelConfig = ModelConfig()
    score: ScoreConfig = ScoreConfig()
    mqtt: MqttConfig = MqttConfig()
    dashboard: DashboardConfig = DashboardConfig()
    record: RecordConfig = RecordConfig()

    @property
    def tail_windows(self) -> int:
        """How many windows can be waiting to be settled: those of the longest utterance, or of the greatest lateness."""
        return max(self.windows.max_windows, -(-max(self.lateness.lanes_ns.values()) // self.windows.hop_ns) + 8)


def load(path: Path | None = None, overrides: tuple[str, ...] = (), base: Mapping[str, Any] | None = None) -> Config:
    """Read the configuration of a session; see `parse`."""
    return parse(Config, path, overrides, example="configs/default.yaml", base=base)


def parse(
    kind: type[S],
    path: Path | None,
    overrides: tuple[str, ...],
    *,
    example: str,
    base: Mapping[str, Any] | None = None,
) -> S:
    """Read a configuration.

    Args:
        kind: What to make of it.
        path: A YAML file; None for the defaults.
        overrides: `key=value` with dots in the key, as in `asr.engine=sphinx`; values are read as YAML. The last one wins.
        example: A file with every key, for error messages.
        base: Values that the file's go before, section by section.

    Raises:
        UsageError: The file cannot be read, a key is unknown or a value is wrong; all such errors in one line.
    """
    values: dict[str, Any] = _read(path, example) if path else {}
    for key, section in (base or {}).items():
        given = values.setdefault(key, section)
        if isinstance(section, Mapping) and isinstance(given, Mapping):
            values[key] = {**section, **given}
    for override in overrides:
        key, separator, text = override.partition("=")
        if not separator or not key:
            raise UsageError(f"--set {override}: expected KEY=VALUE, as in asr.engine=sphinx")
        try:
            _put(values, key.split("."), yaml.safe_load(text))
        except yaml.YAMLError as error:
            raise UsageError(f"--set {override}: the value is not valid YAML; put it in quotes") from error
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        raise UsageError("configuration: " + "; ".join(_explain(kind, detail) for detail in error.errors())) from error


def _read(path: Path, example: str) -> dict[str, Any]:
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise UsageError(f"--config {path}: cannot be read ({reason}); give a YAML file like {example}") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f" in line {mark.line + 1}" if mark else ""
        raise UsageError(f"--config {path}: not valid YAML{line}; see {example}") from error
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise UsageError(f"--config {path}: expected keys and values at the top; see {example}")
    return values


def _put(values: dict[str, Any], keys: list[str], value: Any) -> None:
    *parents, last = keys
    for parent in parents:
        if not isinstance(values.get(parent), dict):
            values[parent] = {}
        values = values[parent]
    values[last] = value


def _explain(kind: type[BaseModel], detail: Any) -> str:
    """One pydantic error as a user reads it."""
    key = ".".join(str(part) for part in detail["loc"]) or "top level"
    if detail["type"] != "extra_forbidden":
        return f"{key}: {detail['msg'][0].lower()}{detail['msg'][1:]}, got {detail['input']!r}"
    section: Any = kind
    for part in detail["loc"][:-1]:
        annotation = section.model_fields[part].annotation
        section = (*get_args(annotation), annotation)[0]  # of a section that may be left out, itself
    return f"{key}: unknown key, expected one of {', '.join(section.model_fields)}"
