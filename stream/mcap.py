"""Recordings on disk: records in MCAP (https://mcap.dev/spec), so that other tools open the file too.

The order in the file is the order in which things came. MCAP's log time is that of arrival, its publish time that of the event,
both in session time; its sequence counts the records of a session, over all parts of a recording. What is said of the whole
stands in a metadata record at the beginning.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, Literal, cast

from mcap.records import Channel, Header, McapRecord, Message, Metadata
from mcap.stream_reader import StreamReader
from mcap.writer import Writer
from pydantic import BaseModel, ConfigDict, ValidationError

from stream.config import Config
from stream.errors import SourceError
from stream.messages import END_NS, Begin, SessionInfo
from stream.records import KINDS, Kind, Record

METADATA = "mmlatch-live"
FORMAT = 2  # counted up when a reader of the old form would misread the new one
_CHUNK = 256 * 1024  # bytes before compression, as a reader has one in memory at a time
_LARGEST = 256 * 2**20  # a record beyond that is not ours

Level = Literal["scores", "features", "media"]


class About(BaseModel):
    """What is said of a whole recording.

    Attributes:
        id: Of the recording, at random: the same in all of its parts; None in a file of an earlier version, or of a media file.
        level: What is recorded: `scores`; `features`, all that scores depend on, but no picture and no sound; `media`, both.
        words: Whether words are recorded; if not, only how many there were and when.
        session: The session's; None for a file that was not made by one.
        config: The session's, without where it was published.
        packets: The kinds of packets that the file holds, as in `Source.provides`.
        name: What was analysed, for display.
        scripted: It is a script, not a recording of anybody.
        contracts: The features' tags, by lane.
        versions: Of the packages that numbers depend on, and of Python.
        bucket: How many sessions the engine's bucket held, and in which `row` this one was.
        start_unix_ns: Wall time of session time 0; None if session time had nothing to do with the wall's.
        begin: Where in the session the file begins.
        part: Counts the parts of a recording, from 1.
    """

    model_config = ConfigDict(frozen=True)

    id: str | None = None
    level: Level = "media"
    words: bool = True
    session: SessionInfo | None = None
    config: Config = Config()
    packets: tuple[str, ...] = ()
    name: str
    scripted: bool = False
    contracts: dict[str, str] = {}
    versions: dict[str, str] = {}
    bucket: int = 1
    row: int = 0
    start_unix_ns: int | None = None
    begin: Begin = Begin()
    part: int = 1

    @property
    def replayable(self) -> bool:
        """Whether it holds what scores depend on, so that they can be had again without its packets."""
        return self.session is not None and self.level != "scores"

    @property
    def settings(self) -> dict[str, Any]:
        """The configuration that its scores depend on, for `stream.config.load` to begin with."""
        if self.session is None:
            return {}
        kept = {"session", "node", "windows", "lateness", "asr", "model", "score"}
        return self.config.model_dump(mode="json", include=kept) | {"session": self.session.session}


class RecordingWriter:
    """Writes records of one session.

    Attributes:
        size: Bytes on disk so far.

    Example:
        with RecordingWriter(path, About(name="demo", scripted=True)) as recording:
            recording.write(Record(0, 0, AUDIO, block))
    """

    def __init__(self, path: Path, about: About) -> None:
        """Begin the file; raises FileExistsError if there is one, and OSError if there cannot be."""
        self._file = path.open("xb")
        self._writer = Writer(self._file, chunk_size=_CHUNK)
        self._writer.start(library=METADATA)
        self._channels: dict[str, int] = {}
        self._writer.add_metadata(METADATA, {"format": str(FORMAT), "about": about.model_dump_json()})
        self.flush()

    def __enter__(self) -> "RecordingWriter":
        """Write within `with`."""
        return self

    def __exit__(self, *_: object) -> None:
        """As `close`."""
        self.close()

    @property
    def size(self) -> int:
        """Bytes on disk so far."""
        return self._file.tell()

    def write(self, record: Record) -> None:
        """Append one record; raises OSError."""
        self.write_encoded(record, record.kind.encode(record.value))

    def write_encoded(self, record: Record, data: bytes) -> None:
        """Append one record that is encoded already; raises OSError."""
        kind = record.kind
        if kind.topic not in self._channels:
            schema = self._writer.register_schema(name=kind.name, encoding="jsonschema", data=json.dumps(kind.schema).encode())
            self._channels[kind.topic] = self._writer.register_channel(
                f"/{kind.topic}", message_encoding="json", schema_id=schema
            )
        self._writer.add_message(
            self._channels[kind.topic],
            log_time=max(0, record.t_ns),
            publish_time=max(0, event_ns(record)),
            sequence=record.number & 0xFFFFFFFF,
            data=data,
        )

    def flush(self) -> None:
        """Put all that was written into the file, where it survives this process; raises OSError."""
        self._writer.flush()

    def close(self) -> None:
        """Finish the index and close the file; raises OSError."""
        try:
            self._writer.finish()
        finally:
            self._file.close()

    def abandon(self) -> None:
        """Close the file as it is, after an error."""
        try:
            self._file.close()
        except OSError:  # what it still holds cannot be written either
            self._file.raw.close()


def event_ns(record: Record) -> int:
    """When what a record tells of happened; when it came, if it says nothing of that."""
    value = record.value
    for name in ("t_end_ns", "t_ns", "watermark_ns"):
        t_ns = getattr(value, name, None)
        if t_ns is not None and t_ns < END_NS:
            return cast(int, t_ns)
    return record.t_ns


class RecordingReader:
    """Reads records of one session, in the order in which they came.

    Attributes:
        path: The file.
        about: What is said of the whole.
        ended: Whether the last reading came to the file's proper end.
        problem: What was wrong with it, a line for the user, if so.
    """

    def __init__(self, path: Path) -> None:
        """Open a recording and read what it says of itself.

        Raises:
            SourceError: There is no such file, it is no recording, or one of a newer format.
        """
        self.path, self.ended = path, False
        self.problem: str | None = None
        try:
            with path.open("rb") as file:
                records = StreamReader(file, record_size_limit=_LARGEST).records
                first, second = next(records, None), next(records, None)
        except OSError as error:
            raise SourceError(f"{path}: cannot be opened ({error.strerror}); check the path") from error
        except Exception as error:  # on garbage the library raises whatever comes of it
            raise SourceError(f"{path}: not an MCAP file; give a recording made with --record") from error
        if not isinstance(first, Header) or not isinstance(second, Metadata) or second.name != METADATA:
            raise SourceError(f"{path}: an MCAP file, but not a recording of this program")
        said = second.metadata
        if (found := said.get("format", "")) != str(FORMAT):
            way = "update mmlatch-live" if found.isdecimal() and int(found) > FORMAT else "record it again"
            raise SourceError(f"{path}: recording format {found or 'unknown'}, this version reads {FORMAT}; {way}")
        try:
            self.about = About.model_validate_json(said["about"])
        except (KeyError, ValidationError) as error:
            raise SourceError(f"{path}: what it says of itself cannot be read; it was not made by this version") from error

    def records(self, topics: "frozenset[str] | None" = None) -> Iterator[Record]:
        """All records, or those of some topics, up to where the file ends or is damaged; `problem` says if it is."""
        self.ended, self.problem = False, None
        channels: dict[int, Kind[Any]] = {}
        last_ns = 0
        with self.path.open("rb") as file:
            found = StreamReader(file, validate_crcs=True, record_size_limit=_LARGEST).records
            while (record := self._next(found, file, last_ns)) is not None:
                if isinstance(record, Channel):
                    if record.topic[1:] in KINDS and (topics is None or record.topic[1:] in topics):
                        channels[record.id] = KINDS[record.topic[1:]]
                elif isinstance(record, Message) and record.channel_id in channels:
                    kind = channels[record.channel_id]
                    if record.log_time < last_ns:
                        self.problem = f"{self.path}: times run backwards at {last_ns / 1e9:.1f} s; what came before is used"
                        return
                    last_ns = record.log_time
                    try:
                        value = kind.decode(record.data)
                    except Exception as error:  # likewise
                        self._damaged(last_ns, error)
                        return
                    yield Record(record.sequence, record.log_time, kind, value)

    def _next(self, found: Iterator[McapRecord], file: IO[bytes], last_ns: int) -> McapRecord | None:
        """The next record of the container; None at the end, whichever it is."""
        try:
            record = next(found, None)
        except Exception as error:  # likewise
            if file.read(1):
                self._damaged(last_ns, error)
            else:
                self.problem = (
                    f"{self.path}: ends at {last_ns / 1e9:.1f} s without its index, as when the program was killed or is still "
                    "writing; what is there is used, python -m stream.recording repair mends it"
                )
        else:
            self.ended = record is None
            return record
        return None

    def _damaged(self, last_ns: int, error: Exception) -> None:
        self.problem = f"{self.path}: damaged after {last_ns / 1e9:.1f} s ({type(error).__name__}); what came before is used"
