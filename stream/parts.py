"""What a session is made of: loads extractors, recogniser and model for a source, and says which lanes cannot be had."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TypeVar

import torch

from extractors import asr
from extractors.errors import ExtractorError
from extractors.face import FaceExtractor
from extractors.text import WIDTH, TextEmbedder
from models import systems
from models.causal import CausalModel
from models.checkpoint import CheckpointError
from stream.config import Config, LatenessConfig, WindowsConfig
from stream.engine import Engine
from stream.errors import UsageError
from stream.lanes import AudioLane, TextLane, VisionLane
from stream.messages import LANES, Begin, Lane, SessionInfo
from stream.scorer import Scorer
from stream.sources.recording import RecordingSource
from stream.sources.source import Provides, Source
from stream.windows import Windows, contracts, pooled_width

log = logging.getLogger(__name__)

UNTRAINED = "untrained"  # in place of a checkpoint: weights that mean nothing

T = TypeVar("T")


@dataclass(frozen=True)
class Input:
    """What one session analyses.

    Attributes:
        session: The session's name.
        sources: One file, or a camera, a microphone or both.
    """

    session: str
    sources: tuple[Source, ...]

    @property
    def name(self) -> str:
        """For display."""
        return " and ".join(source.name for source in self.sources)

    @property
    def provides(self) -> frozenset[Provides]:
        """The kinds of packets that it brings."""
        return frozenset().union(*(source.provides for source in self.sources))

    @property
    def recording(self) -> RecordingSource | None:
        """The recording that is replayed, if it is one."""
        return next((source for source in self.sources if isinstance(source, RecordingSource)), None)


@dataclass
class Lanes:
    """The lanes that an input feeds, and the windows that they fill; a lane that is None is unavailable.

    Attributes:
        unavailable: Why, by lane.
        notices: What there is to say about the others.
    """

    vision: VisionLane | None
    audio: AudioLane | None
    text: TextLane | None
    windows: Windows
    unavailable: dict[Lane, str]
    notices: list[str]

    def close(self) -> None:
        """Free what they hold."""
        for lane in (self.vision, self.audio, self.text):
            if lane:
                lane.close()


@dataclass
class Parts(Lanes):
    """A session's parts, ready to be wired.

    Attributes:
        begin: Where they stand.
    """

    scorer: Scorer
    info: SessionInfo
    begin: Begin = field(default_factory=Begin)

    def close(self) -> None:
        """Free what the lanes hold, and the engine's slot."""
        super().close()
        self.scorer.close()


def load(config: Config, inputs: Sequence[Input], device: torch.device) -> list[Parts]:
    """Load everything that the inputs' lanes need, and one engine for all of them.

    A lane whose part is missing is left out, logged and named in its session's information.

    Raises:
        UsageError: A session can have no lane at all, or the model cannot be loaded.
    """
    # One thread for each model: the lanes run side by side, and sums must not depend on how many cores the machine has.
    torch.set_num_threads(1)
    model, name = _model(config)
    # A replay is in the place that its session had: in their last digits finals depend on it.
    was = inputs[0].recording.about if len(inputs) == 1 and inputs[0].recording else None
    engine = Engine(
        model,
        device,
        bucket=was.bucket if was else len(inputs),
        tail=config.tail_windows,
        graphs=config.model.cuda_graphs,
        compile=config.model.compile,
        masks=config.dashboard.address is not None,
    )
    for _ in range(was.row if was else 0):
        engine.open()
    embedder = cache(TextEmbedder)
    loaded: list[Parts] = []
    try:
        for given in inputs:
            loaded.append(_session(config, given, engine, model, name, embedder))
    except BaseException:
        for parts in loaded:
            parts.close()
        raise
    return loaded


def load_lanes(config: Config, given: Input, device: torch.device, embedder: Callable[[], TextEmbedder]) -> Lanes:
    """Load the lanes of an input, as a session has them.

    Args:
        config: Of the session.
        given: The input.
        device: Where a recogniser may run.
        embedder: Makes the embedder of the words, which the text lane is of no use without.

    Raises:
        UsageError: There can be no lane at all.
    """
    windows = Windows(
        hop_ns=config.windows.hop_ns, gap_windows=config.windows.gap_windows, max_windows=config.windows.max_windows
    )
    if "updates" in given.provides:
        was = given.recording.about.session if given.recording else None
        return Lanes(None, None, None, windows, dict(was.unavailable) if was else {}, [])
    unavailable: dict[Lane, str] = {}
    notices: list[str] = []

    def attempt(lane: Lane, make: Callable[[], T]) -> T | None:
        try:
            return make()
        except ExtractorError as error:
            unavailable[lane] = str(error)
            return None

    vision = attempt("vision", lambda: _vision(given))
    audio = attempt("audio", lambda: _audio(given))
    text = attempt("text", lambda: _text(given, audio, config, device, embedder, notices))
    if len(unavailable) == len(LANES):
        raise UsageError("nothing to analyse: " + "; ".join(f"{lane}: {why}" for lane, why in unavailable.items()))
    return Lanes(vision, audio, text, windows, unavailable, notices)


def _session(
    config: Config, given: Input, engine: Engine, model: CausalModel, name: str, embedder: Callable[[], TextEmbedder]
) -> Parts:
    if "script" in given.provides and given.recording and _timing(given.recording.about.config) != _timing(config):
        raise UsageError("windows and lateness are other than recorded; leave them, or replay with --arrivals ideal")
    lanes = load_lanes(config, given, engine.device, embedder)
    notices = lanes.notices
    if not model.card.data:
        notices.append("the model is untrained: its scores mean nothing yet")
    info = SessionInfo(
        session=given.session,
        node=config.node,
        source=given.name,
        live=any(source.live for source in given.sources),
        scripted=any(source.scripted for source in given.sources),
        model=f"{name}@{model.digest()}",
        trained_on=model.card.data,
        device=str(engine.device),
        smooth_tau_s=config.score.smooth_tau_s,
        unavailable=lanes.unavailable,
        notices=tuple(notices),
    )
    if info.scripted:
        log.warning("%s is a script with a synthetic voice and face, not a recording of anybody", info.source)
    for lane, why in lanes.unavailable.items():
        log.warning("%s lane unavailable: %s", lane, why)
    for notice in notices:
        log.warning("%s", notice)
    known = given.recording.known if given.recording else None
    words = lanes.text is not None or ("updates" in given.provides and "text" not in lanes.unavailable)
    scorer = Scorer(
        engine,
        embedder() if words and known is None else None,
        hop_ns=config.windows.hop_ns,
        smooth_tau_s=config.score.smooth_tau_s,
        known=known,
    )
    begin = given.recording.about.begin if given.recording else Begin()
    lanes.windows.begin(begin.seq, begin.splitter, begin.last_ns)
    scorer.begin(begin.smooth, begin.said)
    return Parts(
        lanes.vision,
        lanes.audio,
        lanes.text,
        lanes.windows,
        lanes.unavailable,
        notices,
        scorer=scorer,
        info=info,
        begin=begin,
    )


def _timing(config: Config) -> tuple[WindowsConfig, LatenessConfig]:
    return config.windows, config.lateness


def _model(config: Config) -> tuple[CausalModel, str]:
    """The model that is asked for, and what it is called.

    Raises:
        UsageError: Its checkpoint cannot be loaded, or does not suit the configuration.
    """
    longest = config.windows.max_windows
    location = config.model.checkpoint or "mmlatch"
    widths = {"text": WIDTH, "audio": pooled_width("audio"), "vision": pooled_width("vision")}
    if location == UNTRAINED:
        return systems.untrained("mmlatch", **widths, max_steps=longest), "mmlatch-causal-untrained"
    location = str(systems.SHIPPED.get(location, location))
    try:
        model = systems.load(location, contracts=contracts(config.windows.hop_ns))
    except CheckpointError as error:
        other = "" if config.model.checkpoint else f", keep windows.hop_ms as it is, or give --model {UNTRAINED}"
        raise UsageError(f"--model {error}{other}") from error
    if wrong := [lane for lane in LANES if getattr(model.config, lane) != widths[lane]]:
        raise UsageError(
            f"--model {location}: {', '.join(wrong)} of another width than the features; take the version it was made with"
        )
    if longest > model.config.max_steps:
        raise UsageError(
            f"--model {location}: looks back over {model.config.max_steps} windows, and windows.max_utterance_s asks for "
            f"{longest}; set it to {model.config.max_steps * config.windows.hop_ms / 1000:g} or less"
        )
    return model, Path(location).resolve().name


class _NotThere(ExtractorError):
    """The source does not bring what the lane needs."""


def _vision(given: Input) -> VisionLane:
    if "vision_rows" in given.provides:
        return VisionLane(None)
    if "video" not in given.provides:
        raise _NotThere("the source has no video")
    return VisionLane(FaceExtractor())


def _audio(given: Input) -> AudioLane:
    if "audio" not in given.provides:
        raise _NotThere("the source has no audio")
    return AudioLane()


def _text(
    given: Input,
    audio: AudioLane | None,
    config: Config,
    device: torch.device,
    embedder: Callable[[], TextEmbedder],
    notices: list[str],
) -> TextLane:
    if "words" in given.provides:
        embedder()
        return TextLane(None)
    asked = config.asr
    if asked.engine == "none":
        raise _NotThere("recognition is switched off (--asr none)")
    if audio is None:
        reason = "the audio lane is unavailable" if "audio" in given.provides else "the source has no audio"
        raise _NotThere(f"no words can be recognised, because {reason}")
    embedder()  # without it words are of no use
    recogniser, notice = asr.create(
        asked.engine,
        model=asked.model,
        compute_type=asked.compute_type,
        language=asked.language,
        device=device.type,
        max_stretch_ns=round(asked.max_stretch_s * 1e9),
    )
    if notice:
        notices.append(notice)
    return TextLane(recogniser)
