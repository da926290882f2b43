"""What flows between the parts: typed, immutable, stamped in event time (integer nanoseconds since the session began)."""

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt

from extractors.asr.recogniser import Word
from extractors.contract import FeatureRows
from extractors.vad import VoiceChunk

Lane = Literal["text", "audio", "vision"]
LANES: tuple[Lane, ...] = ("text", "audio", "vision")
Part = Literal["text", "audio", "vision", "voice"]  # what has a watermark: the lanes and the voice detector
PARTS: tuple[Part, ...] = ("text", "audio", "vision", "voice")
END_NS = 2**62  # a watermark that is past everything: nothing more will come


# --- packets: from a source to the lanes


@dataclass(frozen=True, eq=False)
class VideoFrame:
    """A picture: RGB, uint8, (H, W, 3), upright, in view from `t_ns` on; and the JPEG that it was decoded from, if any."""

    t_ns: int
    image: npt.NDArray[np.uint8]
    jpeg: "Coded | None" = None


@dataclass(frozen=True, eq=False)
class AudioBlock:
    """Sound: 16 kHz mono, int16, (N,), the first sample at `t_ns`. A block that does not continue the last one is a gap."""

    t_ns: int
    samples: npt.NDArray[np.int16]


@dataclass(frozen=True, eq=False)
class VisionRows:
    """Face rows that a source brings ready-made instead of pictures; later ones have times of `t_ns` or after."""

    t_ns: int
    rows: FeatureRows


@dataclass(frozen=True)
class Transcript:
    """Words that a source brings instead of leaving them to a recogniser; later ones end after `t_ns`."""

    t_ns: int
    words: tuple[Word, ...]


@dataclass(frozen=True)
class Gap:
    """There is nothing of a kind from its last packet up to `t_ns`, and why: the device is gone, or has fallen silent."""

    kind: Literal["video", "audio"]
    t_ns: int
    reason: str


@dataclass(frozen=True)
class Heard:
    """What the audio lane says of voices, on its way to the text lane; `number` counts these from 0."""

    number: int
    update: "VoiceUpdate | PartUnknown"


# --- updates: from the lanes to the windows


@dataclass(frozen=True, eq=False)
class RowsUpdate:
    """New feature rows of the audio or the vision lane; none older than `watermark_ns` will follow."""

    lane: Lane
    rows: FeatureRows
    watermark_ns: int


@dataclass(frozen=True)
class VoiceUpdate:
    """Chunks of sound that the voice detector has decided; none that starts before `watermark_ns` will follow."""

    chunks: tuple[VoiceChunk, ...]
    watermark_ns: int


@dataclass(frozen=True)
class WordsUpdate:
    """New final words, and the present guess at those after them; no word that ends at or before `watermark_ns` will follow."""

    final: tuple[Word, ...]
    provisional: tuple[Word, ...]
    watermark_ns: int


@dataclass(frozen=True)
class PartUnknown:
    """It will stay unknown what a part had from its watermark up to `watermark_ns`, and why: lost, or left out."""

    part: Part
    watermark_ns: int
    reason: str


@dataclass(frozen=True)
class PartEnded:
    """The input has ended: nothing more will come from this part."""

    part: Part


LaneUpdate = RowsUpdate | VoiceUpdate | WordsUpdate | PartUnknown | PartEnded


def part_of(update: LaneUpdate) -> Part:
    """Whose watermark an update moves."""
    match update:
        case RowsUpdate(lane=lane):
            return lane
        case VoiceUpdate():
            return "voice"
        case WordsUpdate():
            return "text"
        case PartUnknown(part=part) | PartEnded(part=part):
            return part


def lane_of(update: LaneUpdate) -> Lane:
    """Whose it is; the audio lane speaks for the voice detector."""
    part = part_of(update)
    return "audio" if part == "voice" else part


@dataclass(frozen=True)
class Tick:
    """The present is `t_ns`, the end of a window; if `live`, there are windows up to it, and what is late is overtaken."""

    t_ns: int
    live: bool


@dataclass(frozen=True)
class Anew:
    """Somebody asked that an utterance begin with the first open window that starts at or after `t_ns`."""

    t_ns: int


@dataclass(frozen=True)
class Ended:
    """All input has come: what is not settled by now will be."""


# --- windows and scores


@dataclass(frozen=True, eq=False)
class LaneWindow:
    """One lane in one window: a value, known absence (`known` without `present`), or unknown.

    Attributes:
        known: Whether it is settled what was there.
        presence: The share of looks that found something, in [0, 1].
        values: The pooled features, float32, (D,); 0 where there is no value. Empty for the text lane, whose vector hangs
            on the utterance (`stream.scorer`).
        last_ns: The time of the newest row or word of this or any earlier window; None before the first.
        lost: Why it is unknown, if the lane could not be had here; None if it could, or if it is known.
    """

    known: bool
    presence: float
    values: npt.NDArray[np.float32]
    last_ns: int | None
    lost: str | None = None


@dataclass(frozen=True, eq=False)
class Window:
    """All lanes over [t_start_ns, t_end_ns).

    Attributes:
        seq: The number of the window in the session, from 0.
        restart: An utterance (or a stretch of silence) begins here: model state and text context start anew.
        words: Those that end in this window.
        words_final: False if some of them may still change.
        voiced: The share of the window's sound in which a voice was heard; None where no sound was heard.
        forced: The parts that it was settled without, because they were later than is allowed.
    """

    seq: int
    t_start_ns: int
    t_end_ns: int
    restart: bool
    lanes: dict[Lane, LaneWindow]
    words: tuple[Word, ...]
    words_final: bool
    voiced: float | None
    forced: tuple[Part, ...] = ()


@dataclass(frozen=True)
class LaneScore:
    """What a score says of one lane.

    Attributes:
        status: `ok`; `partial` (there are words that may still change); `missing` (known absence); `unknown` (not yet arrived,
            or lost on the way); `unavailable` (this session has no such lane, or had lost it here).
        reason: Why it is not `ok`; None if it is.
        age_ns: From the lane's newest row or word to the window's end; None before the first.
        weight: How far the model lets the lane through, in [0, 1].
    """

    status: Literal["ok", "partial", "missing", "unknown", "unavailable"]
    reason: str | None
    age_ns: int | None
    weight: float


@dataclass(frozen=True)
class Latency:
    """Where the time from a window's end to its score went, nanoseconds; the three add up to `total_ns`.

    Attributes:
        total_ns: From the window's end to the score.
        feature_ns: Until picture and sound had come through their lanes.
        text_ns: Then waiting for the words of the window to be settled; 0 for a provisional score, which does not wait.
        model_ns: Then waiting for the device, embedding and model.
    """

    total_ns: int
    feature_ns: int
    text_ns: int
    model_ns: int


@dataclass(frozen=True)
class Score:
    """The sentiment of one window.

    Attributes:
        kind: `final` once for each window, when all lanes have passed it; `provisional` before that, from what is known.
        seq: The window's number.
        rev: Counts what was said of this window, from 0.
        sentiment: In [-3, 3].
        uncertainty: The standard deviation of the label that the model expects about `sentiment`, in (0, 3).
        smooth: `sentiment` under an exponential mean over event time, in [-3, 3].
        lanes: What was known of each lane.
        words: The words that end in the window; of a provisional score, all those after the settled windows.
        utterance_words: How many words the utterance has so far.
        masks: The top-down mask of each lane, each column in (0, 1); empty unless the engine gives them.
        voiced: As in `Window`.
        revised_from: Of a final score, the last provisional sentiment of the window, if there was one.
        t_end_unix_ns: Wall time of the window's end; None where session time has nothing to do with the wall's.
        latency: Likewise.
        text_lag_ns: How far the recogniser is behind the present, likewise.
        dropped: What was given up since the session began, by lane: pictures, blocks of sound, updates for the recogniser.
    """

    kind: Literal["provisional", "final"]
    seq: int
    rev: int
    t_start_ns: int
    t_end_ns: int
    sentiment: float
    uncertainty: float
    smooth: float
    lanes: dict[Lane, LaneScore]
    words: tuple[Word, ...]
    utterance_words: int
    voiced: float | None
    revised_from: float | None
    t_end_unix_ns: int | None = None
    latency: Latency | None = None
    text_lag_ns: int | None = None
    dropped: dict[Lane, int] = field(default_factory=dict)
    masks: dict[Lane, tuple[float, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class Utterance:
    """A stretch of speech that is over.

    Attributes:
        number: Counts the utterances of the session, from 0.
        t_start_ns: The start of its first window.
        t_end_ns: The end of its last window with a voice or a word in it.
        sentiment: The final score of that window, which has heard all of it, in [-3, 3].
        mean: Of its windows' final scores.
        peak: The one of them that is furthest from 0.
        words: What was said.
    """

    number: int
    t_start_ns: int
    t_end_ns: int
    sentiment: float
    mean: float
    peak: float
    words: tuple[Word, ...]


@dataclass(frozen=True)
class Event:
    """Something that happened to the session itself.

    Attributes:
        t_ns: When, in session time.
        kind: `lost` (a device or a lane is gone), `recovered` (it is back), `dropped` (packets were given up), `forced` (a
            window was settled without a part that was too late), `late` (something came for a window that was settled),
            `recording` (one begins or ends); and what somebody asked for: `paused`, `resumed`, `reset` (an utterance begins
            here) and `marked`.
        part: Which lane, or which sink; `session` for what was asked for.
        reason: For a person.
        count: How many packets or windows it is about.
    """

    t_ns: int
    kind: Literal["lost", "recovered", "dropped", "forced", "late", "recording", "paused", "resumed", "reset", "marked"]
    part: str
    reason: str
    count: int = 1


Output = Score | Utterance | Event
Entry = LaneUpdate | Tick | Anew | Event | Ended  # all that scores depend on, in the order in which it came


# --- what a recording brings


@dataclass(frozen=True)
class Begin:
    """Where a recording begins in its session: at a window that starts anew. By default at the first of all.

    Attributes:
        seq: The window's number.
        splitter: Where the utterances' splitter stands before it; see `UtteranceSplitter.state`.
        last_ns: The time of each lane's newest row or word before it.
        smooth: The smoothed sentiment of the window before.
        said: Of windows from here on, by number, how many provisional scores there had been, and the last one.
        utterance: The number of the next utterance.
    """

    seq: int = 0
    splitter: tuple[int, int, bool] = (0, 0, False)
    last_ns: dict[Lane, int | None] = field(default_factory=dict)
    smooth: float | None = None
    said: dict[int, tuple[int, float]] = field(default_factory=dict)
    utterance: int = 0


@dataclass(frozen=True, eq=False)
class Text:
    """What the model is given as the words of a window.

    Attributes:
        vector: Of the utterance so far, float32, (768,); zeros if nothing was said.
        told: False if words are known that the vector lacks.
    """

    vector: npt.NDArray[np.float32]
    told: bool


@dataclass(frozen=True, eq=False)
class Scored:
    """A score that was given when the session was recorded, and the text of each of its windows, if that was recorded."""

    score: Score
    texts: tuple[Text, ...] | None


@dataclass(frozen=True)
class Due:
    """In place of an entry: the next update of a lane that hears or sees its packets again."""

    lane: Lane


@dataclass(frozen=True, eq=False)
class Replayed:
    """An entry that came at `t_ns`, and the scores that it gave then, in their order.

    Attributes:
        end: The number of the window at which the recording ends, where that is known by now: none from there on is scored.
    """

    t_ns: int
    entry: Entry | Due
    scores: tuple[Scored, ...] = ()
    end: int | None = None


@dataclass(frozen=True, eq=False)
class Given:
    """A packet for a lane to take as it was taken when the session was recorded.

    Attributes:
        t_ns: When it was taken.
        lane: Which lane took it.
        packet: The packet; of what was `Heard`, its number.
        behind: Whether the lane was to leave out what it need not do.
        lost: Why the packet was left out or failed; None if it was looked at or heard.
        failed: Whether it failed; the lane is not asked then.
    """

    t_ns: int
    lane: Lane
    packet: "VideoFrame | VisionRows | AudioBlock | Gap | Transcript | int"
    behind: bool
    lost: str | None
    failed: bool


@dataclass(frozen=True)
class Coded:
    """A packet of coded video as it came, or a whole picture that was coded by itself.

    Attributes:
        t_ns: From when on its picture is in view.
        format: FFmpeg's name of the codec; H.264 and HEVC with start codes (Annex B). `jpeg` for a picture by itself.
        data: The packet.
        extradata: What the decoder needs beside it.
        turns: How often the decoded picture is turned by 90 degrees against the clock until it is upright.
        key: Whether it can be decoded without those before it.
    """

    t_ns: int
    format: str
    data: bytes
    extradata: bytes = b""
    turns: int = 0
    key: bool = True


Packet = VideoFrame | AudioBlock | VisionRows | Transcript | Gap | Replayed | Given


def taker_of(packet: Packet | Coded) -> Lane:
    """Which lane takes it."""
    match packet:
        case AudioBlock() | Gap(kind="audio"):
            return "audio"
        case Transcript():
            return "text"
        case _:
            return "vision"


@dataclass(frozen=True)
class SessionInfo:
    """What holds for the whole session.

    Attributes:
        source: What is analysed, for display.
        live: It is what happens now: it does not wait.
        scripted: The source is a script, not a recording of anybody.
        model: Name and digest.
        trained_on: Tags of what the weights were fitted on; none if they are untrained, and mean nothing.
        device: Where the model runs.
        unavailable: Lanes that this session does not have, with the reason and the way out.
        notices: What else a user should know, a line each.
    """

    session: str
    node: str
    source: str
    live: bool
    scripted: bool
    model: str
    trained_on: tuple[str, ...]
    device: str
    smooth_tau_s: float
    unavailable: dict[Lane, str] = field(default_factory=dict)
    notices: tuple[str, ...] = ()
