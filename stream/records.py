"""What a recording holds: kinds of records, each a JSON object with a schema of its own, and how they are written and read.

Sound and pictures use Foxglove's published schemas, so that its viewer shows them; scores are plain numbers that it plots.
Features are little-endian float32 in base64: exact, and small. Sources: https://docs.foxglove.dev/docs/sdk/schemas/raw-audio,
https://docs.foxglove.dev/docs/sdk/schemas/compressed-video, https://docs.foxglove.dev/docs/sdk/schemas/compressed-image
"""

import base64
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar

import numpy as np
import numpy.typing as npt
from pydantic import TypeAdapter

from extractors.asr.recogniser import Word
from extractors.contract import FeatureRows
from extractors.sound import SAMPLE_RATE
from extractors.text import WIDTH, normalise
from extractors.vad import VoiceChunk
from stream.messages import (
    Anew,
    AudioBlock,
    Coded,
    Ended,
    Event,
    Gap,
    Lane,
    PartEnded,
    PartUnknown,
    RowsUpdate,
    Score,
    Tick,
    Transcript,
    Utterance,
    VisionRows,
    VoiceUpdate,
    WordsUpdate,
)
from stream.windows import ROW_LANES

T = TypeVar("T")


@dataclass(frozen=True)
class TakenRecord:
    """A lane has taken a packet.

    Attributes:
        lane: Which lane.
        key: The packet's time, `t_ns`; of what the text lane hears, its number.
        behind: As in `Taken`, like the others.
    """

    lane: Lane
    key: int
    behind: bool
    lost: str | None
    failed: bool


@dataclass(frozen=True, eq=False)
class TextVector:
    """What an utterance so far came to, float32, (768,); texts refer to it by its number."""

    number: int
    vector: npt.NDArray[np.float32]


@dataclass(frozen=True)
class Texts:
    """The text of each window of the score that follows: the number of its vector, None for nothing said, and `Text.told`."""

    vectors: tuple[int | None, ...]
    told: tuple[bool, ...]


@dataclass(frozen=True)
class Kind(Generic[T]):
    """A kind of records.

    Attributes:
        topic: Where they are in the file, without the slash before it.
        name: Of the schema.
        schema: JSON schema.
        encode: To JSON.
        decode: From JSON; raises ValueError, KeyError or TypeError on what is not of the kind.
    """

    topic: str
    name: str
    schema: dict[str, Any]
    encode: Callable[[T], bytes]
    decode: Callable[[bytes], T]


@dataclass(frozen=True, eq=False)
class Record:
    """One record.

    Attributes:
        number: Its place in the session.
        t_ns: When it came, session time.
        kind: What it is.
        value: The object that `kind` encodes.
    """

    number: int
    t_ns: int
    kind: Kind[Any]
    value: Any


def _plain(topic: str, kind: type[T]) -> Kind[T]:
    """Of a dataclass of plain values."""
    adapter = TypeAdapter(kind)
    schema = adapter.json_schema() | {"title": f"mmlatch.{kind.__name__}"}
    return Kind(topic, f"mmlatch.{kind.__name__}", schema, adapter.dump_json, adapter.validate_json)


def _wired(
    topic: str, name: str, properties: dict[str, Any], encode: Callable[[T], dict[str, Any]], decode: Callable[[Any], T]
) -> Kind[T]:
    """Of what has arrays in it."""
    schema = {"title": name, "type": "object", "properties": properties, "required": list(properties)}
    return Kind(
        topic,
        name,
        schema,
        lambda value: json.dumps(encode(value), separators=(",", ":")).encode(),
        lambda data: decode(json.loads(data)),
    )


# --- arrays

_INTEGER, _TEXT = {"type": "integer"}, {"type": "string"}
_INTEGERS, _BOOLEANS = {"type": "array", "items": _INTEGER}, {"type": "array", "items": {"type": "boolean"}}
_BYTES = {"type": "string", "contentEncoding": "base64"}
_FLOATS = _BYTES | {"description": "float32, little-endian, row by row"}
_FOXGLOVE = {"hevc": "h265", "libdav1d": "av1"}  # codecs that its schema has another name for
_TIME = {"type": "object", "title": "time", "properties": {"sec": _INTEGER, "nsec": _INTEGER}}


def _packed(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _floats(values: npt.NDArray[np.float32]) -> str:
    return _packed(values.astype("<f4", copy=False).tobytes())


def _unpacked_floats(text: str, width: int) -> npt.NDArray[np.float32]:
    values = np.frombuffer(base64.b64decode(text, validate=True), "<f4").astype(np.float32).reshape(-1, width)  # (N, width)
    if not np.isfinite(values).all():
        raise ValueError("a value that is not finite")
    return values


def _time(t_ns: int) -> dict[str, int]:
    return {"sec": t_ns // 1_000_000_000, "nsec": t_ns % 1_000_000_000}


def _nanoseconds(time: dict[str, int]) -> int:
    return int(time["sec"]) * 1_000_000_000 + int(time["nsec"])


def _rows(rows: FeatureRows) -> dict[str, Any]:
    return {"rows_t_ns": rows.t_ns.tolist(), "values": _floats(rows.values), "absent_ns": rows.absent_ns.tolist()}


def _unpacked_rows(lane: Lane, wire: dict[str, Any]) -> FeatureRows:
    t_ns, absent_ns = (np.array(wire[key], np.int64) for key in ("rows_t_ns", "absent_ns"))
    values = _unpacked_floats(wire["values"], len(ROW_LANES[lane].columns))
    if t_ns.shape != (len(values),) or absent_ns.ndim != 1:
        raise ValueError("rows and their times differ in number")
    return FeatureRows(t_ns, values, absent_ns)


_ROWS = {"rows_t_ns": _INTEGERS, "values": _FLOATS, "absent_ns": _INTEGERS}


def _sound(wire: dict[str, Any]) -> AudioBlock:
    if (wire["format"], wire["sample_rate"], wire["number_of_channels"]) != ("pcm-s16", SAMPLE_RATE, 1):
        raise ValueError("sound of another format")
    samples = np.frombuffer(base64.b64decode(wire["data"], validate=True), "<i2").astype(np.int16)
    return AudioBlock(_nanoseconds(wire["timestamp"]), samples)


def _code(coded: Coded) -> dict[str, Any]:
    return {
        "timestamp": _time(coded.t_ns),
        "frame_id": "camera",
        "data": _packed(coded.data),
        "format": _FOXGLOVE.get(coded.format, coded.format),
        "extradata": _packed(coded.extradata),
        "turns": coded.turns,
        "key": coded.key,
    }


def _coded(wire: dict[str, Any]) -> Coded:
    data, extradata = (base64.b64decode(wire[key], validate=True) for key in ("data", "extradata"))
    codec = {name: codec for codec, name in _FOXGLOVE.items()}.get(wire["format"], wire["format"])
    return Coded(_nanoseconds(wire["timestamp"]), codec, data, extradata, wire["turns"], wire["key"])


def _voice(wire: dict[str, Any]) -> VoiceUpdate:
    # Windows ask only for how long a chunk was; its sound is not kept here.
    chunks = zip(wire["start_ns"], wire["samples"], wire["voiced"], wire["speech"], strict=True)
    silent = np.zeros(1, np.int16)
    return VoiceUpdate(
        tuple(VoiceChunk(t_ns, np.broadcast_to(silent, (length,)), voiced, speech) for t_ns, length, voiced, speech in chunks),
        wire["watermark_ns"],
    )


# --- the kinds

AUDIO = _wired(
    "audio",
    "foxglove.RawAudio",
    {"timestamp": _TIME, "data": _BYTES, "format": _TEXT, "sample_rate": _INTEGER, "number_of_channels": _INTEGER},
    lambda block: {
        "timestamp": _time(block.t_ns),
        "data": _packed(block.samples.astype("<i2", copy=False).tobytes()),
        "format": "pcm-s16",
        "sample_rate": SAMPLE_RATE,
        "number_of_channels": 1,
    },
    _sound,
)
_CODED = {
    "timestamp": _TIME, "frame_id": _TEXT, "data": _BYTES, "format": _TEXT, "extradata": _BYTES, "turns": _INTEGER,
    "key": {"type": "boolean"},
}  # fmt: skip
VIDEO = _wired("video", "foxglove.CompressedVideo", _CODED, _code, _coded)
PICTURE = _wired("picture", "foxglove.CompressedImage", _CODED, _code, _coded)
FACES = _wired(
    "vision_rows",
    "mmlatch.VisionRows",
    {"t_ns": _INTEGER} | _ROWS,
    lambda packet: {"t_ns": packet.t_ns} | _rows(packet.rows),
    lambda wire: VisionRows(wire["t_ns"], _unpacked_rows("vision", wire)),
)
WORDS = _plain("words", Transcript)
GAP = _plain("gap", Gap)
TAKEN = _plain("taken", TakenRecord)
PACKETS: dict[str, Kind[Any]] = {kind.topic: kind for kind in (AUDIO, VIDEO, PICTURE, FACES, WORDS, GAP)}

ROWS = _wired(
    "update/rows",
    "mmlatch.RowsUpdate",
    {"lane": _TEXT, "watermark_ns": _INTEGER} | _ROWS,
    lambda update: {"lane": update.lane, "watermark_ns": update.watermark_ns} | _rows(update.rows),
    lambda wire: RowsUpdate(wire["lane"], _unpacked_rows(wire["lane"], wire), wire["watermark_ns"]),
)
VOICE = _wired(
    "update/voice",
    "mmlatch.VoiceUpdate",
    {"start_ns": _INTEGERS, "samples": _INTEGERS, "voiced": _BOOLEANS, "speech": _BOOLEANS, "watermark_ns": _INTEGER},
    lambda update: {
        "start_ns": [chunk.t_ns for chunk in update.chunks],
        "samples": [len(chunk.samples) for chunk in update.chunks],
        "voiced": [bool(chunk.voiced) for chunk in update.chunks],
        "speech": [bool(chunk.speech) for chunk in update.chunks],
        "watermark_ns": update.watermark_ns,
    },
    _voice,
)
HAPPENED = _plain("happened", Event)  # from outside, as when a device is lost
ENTRIES: dict[type[Any], Kind[Any]] = {
    RowsUpdate: ROWS,
    VoiceUpdate: VOICE,
    WordsUpdate: _plain("update/words", WordsUpdate),
    PartUnknown: _plain("update/unknown", PartUnknown),
    PartEnded: _plain("update/ended", PartEnded),
    Tick: _plain("tick", Tick),
    Anew: _plain("anew", Anew),
    Event: HAPPENED,
    Ended: _plain("end", Ended),
}
OUTPUTS: dict[type[Any], Kind[Any]] = {
    Score: _plain("score", Score),
    Utterance: _plain("utterance", Utterance),
    Event: _plain("event", Event),
}
VECTOR = _wired(
    "text/vector",
    "mmlatch.TextVector",
    {"number": _INTEGER, "values": _FLOATS},
    lambda text: {"number": text.number, "values": _floats(text.vector)},
    lambda wire: TextVector(wire["number"], _unpacked_floats(wire["values"], WIDTH)[0]),
)
TEXTS = _plain("text", Texts)

KINDS: dict[str, Kind[Any]] = {
    kind.topic: kind for kind in (*PACKETS.values(), TAKEN, *ENTRIES.values(), *OUTPUTS.values(), VECTOR, TEXTS)
}
ENTRY_TOPICS = {kind.topic for kind in ENTRIES.values()}
OUTPUT_TOPICS = {kind.topic for kind in OUTPUTS.values()}
VECTORS = 2048  # the newest so many are referred to; a vector that is older is written again


def without_words(value: Any) -> Any:
    """The same with a stand-in for every word: how many there were and when is kept, not what they were."""
    match value:
        case WordsUpdate(final, provisional, watermark_ns):
            return WordsUpdate(_stand_ins(final), _stand_ins(provisional), watermark_ns)
        case Score() | Utterance():
            return replace(value, words=_stand_ins(value.words))
        case _:
            return value


def _stand_ins(words: tuple[Word, ...]) -> tuple[Word, ...]:
    # As many as `normalise` makes of the word, so that counts stay.
    return tuple(replace(word, text=" ".join(["x"] * len(normalise(word.text)))) for word in words)
