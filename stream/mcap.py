"""Recordings on disk: packets in MCAP, each topic with a JSON schema, so that other tools open the file too.

Sound uses Foxglove's published RawAudio schema; face rows and words have schemas of this project. MCAP's log time is the
arrival, its publish time the event. Sources: https://mcap.dev/spec, https://docs.foxglove.dev/docs/sdk/schemas/raw-audio
"""

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from mcap.reader import make_reader
from mcap.writer import Writer

from extractors.asr.recogniser import Word
from extractors.contract import FeatureRows
from extractors.face import CONTRACT as FACE
from extractors.sound import SAMPLE_RATE
from stream.errors import SourceError
from stream.messages import AudioBlock, Packet, Transcript, VisionRows

METADATA = "mmlatch-live"
FORMAT = 1  # counted up when a reader of the old form would misread the new one

_INTEGER, _NUMBER, _TEXT = {"type": "integer"}, {"type": "number"}, {"type": "string"}


def _array(items: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": items}


def _object(title: str, **properties: dict[str, Any]) -> dict[str, Any]:
    return {"title": title, "type": "object", "properties": properties, "required": list(properties)}


_TIME = {"type": "object", "title": "time", "properties": {"sec": _INTEGER, "nsec": _INTEGER}}
_SCHEMAS = {
    "audio": _object(
        "foxglove.RawAudio",
        timestamp=_TIME,
        data={"type": "string", "contentEncoding": "base64"},
        format=_TEXT,
        sample_rate=_INTEGER,
        number_of_channels=_INTEGER,
    ),
    "vision_rows": _object(
        "mmlatch.VisionRows",
        t_ns=_INTEGER,
        rows_t_ns=_array(_INTEGER),
        values=_array(_array(_NUMBER)),
        absent_ns=_array(_INTEGER),
    ),
    "words": _object(
        "mmlatch.Words",
        t_ns=_INTEGER,
        words=_array(_object("mmlatch.Word", text=_TEXT, start_ns=_INTEGER, end_ns=_INTEGER)),
    ),
}


class RecordingWriter:
    """Writes packets of one session.

    Example:
        with RecordingWriter(path, name="demo", scripted=True) as recording:
            recording.write(packet)
    """

    def __init__(self, path: Path, *, name: str, scripted: bool) -> None:
        """Begin the file, replacing one that is there."""
        self._file = path.open("wb")
        self._writer = Writer(self._file)
        self._writer.start(library=METADATA)
        about = {"format": str(FORMAT), "name": name, "scripted": json.dumps(scripted), "vision_contract": FACE.digest}
        self._channels: dict[str, int] = {}
        self._writer.add_metadata(METADATA, about)

    def __enter__(self) -> "RecordingWriter":
        """Write within `with`."""
        return self

    def __exit__(self, *_: object) -> None:
        """Finish the index and close the file."""
        self._writer.finish()
        self._file.close()

    def write(self, packet: Packet) -> None:
        """Append one packet; pictures are not recorded yet."""
        match packet:
            case AudioBlock(t_ns, samples):
                topic, message = "audio", _audio_message(t_ns, samples)
            case VisionRows(t_ns, rows):
                topic, message = "vision_rows", _rows_message(t_ns, rows)
            case Transcript(t_ns, words):
                topic, message = "words", {"t_ns": t_ns, "words": [vars(word) for word in words]}
            case _:
                raise TypeError(f"a {type(packet).__name__} cannot be recorded")
        if topic not in self._channels:
            schema = self._writer.register_schema(
                name=_SCHEMAS[topic]["title"], encoding="jsonschema", data=json.dumps(_SCHEMAS[topic]).encode()
            )
            self._channels[topic] = self._writer.register_channel(f"/{topic}", message_encoding="json", schema_id=schema)
        data = json.dumps(message, separators=(",", ":")).encode()
        self._writer.add_message(self._channels[topic], log_time=t_ns, publish_time=t_ns, data=data)


class RecordingReader:
    """Reads packets of one session, in order."""

    def __init__(self, path: Path) -> None:
        """Open a recording and read what it says of itself.

        Raises:
            SourceError: It is no MCAP file, is cut short, is of a newer format, or holds rows of other features.
        """
        self.path = path
        self._file = path.open("rb")
        try:
            self._reader = make_reader(self._file)
            about = next((m.metadata for m in self._reader.iter_metadata() if m.name == METADATA), None)
            summary = self._reader.get_summary()
        except Exception as error:  # on garbage the library raises whatever comes of it
            self.close()
            raise SourceError(f"{path}: not a complete MCAP file ({type(error).__name__}); record or copy it again") from error
        if about is None or summary is None:
            self.close()
            raise SourceError(f"{path}: an MCAP file, but not a recording of this program")
        if int(about["format"]) > FORMAT:
            self.close()
            raise SourceError(
                f"{path}: recording format {about['format']}, this version reads up to {FORMAT}; update mmlatch-live"
            )
        self.topics = {channel.topic.removeprefix("/") for channel in summary.channels.values()}
        if "vision_rows" in self.topics and about["vision_contract"] != FACE.digest:
            self.close()
            raise SourceError(f"{path}: its face rows are of another version of the extractor; make the recording again")
        self.name, self.scripted = about["name"], about["scripted"] == "true"

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def packets(self) -> Iterator[Packet]:
        """All packets by time.

        Raises:
            SourceError: The file is damaged further on.
        """
        try:
            for _, channel, message in self._reader.iter_messages():
                yield _packet(channel.topic.removeprefix("/"), json.loads(message.data))
        except Exception as error:  # likewise
            raise SourceError(f"{self.path}: damaged ({type(error).__name__}); what came before was analysed") from error


def _audio_message(t_ns: int, samples: Any) -> dict[str, Any]:
    return {
        "timestamp": {"sec": t_ns // 1_000_000_000, "nsec": t_ns % 1_000_000_000},
        "data": base64.b64encode(samples.tobytes()).decode(),
        "format": "pcm-s16",
        "sample_rate": SAMPLE_RATE,
        "number_of_channels": 1,
    }


def _rows_message(t_ns: int, rows: FeatureRows) -> dict[str, Any]:
    # The shortest decimals that read back as the same float32.
    values = [[float(str(value)) for value in row] for row in rows.values]
    return {"t_ns": t_ns, "rows_t_ns": rows.t_ns.tolist(), "values": values, "absent_ns": rows.absent_ns.tolist()}


def _packet(topic: str, message: dict[str, Any]) -> Packet:
    if topic == "audio":
        samples = np.frombuffer(base64.b64decode(message["data"]), np.int16)
        return AudioBlock(message["timestamp"]["sec"] * 1_000_000_000 + message["timestamp"]["nsec"], samples)
    if topic == "vision_rows":
        values = np.array(message["values"], np.float32).reshape(-1, len(FACE.columns))
        t_ns, absent_ns = (np.array(message[key], np.int64) for key in ("rows_t_ns", "absent_ns"))
        return VisionRows(message["t_ns"], FeatureRows(t_ns, values, absent_ns))
    return Transcript(message["t_ns"], tuple(Word(**word) for word in message["words"]))
