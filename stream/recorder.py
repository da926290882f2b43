"""Records a session: all that its scores depend on, in the order in which it came, and the scores themselves.

What comes is noted at once and written on a thread of its own, so that a slow disk holds up nobody. A recording has no holes:
if the disk is full, or so slow that too much waits, it ends there, says so, and the session goes on. A recording that is begun
while the session runs begins at the next window that starts anew (`stream.progress`), and so does each further part of one.
"""

import contextlib
import errno
import logging
import platform
import queue
import secrets
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal, NamedTuple

from stream.config import Config, DashboardConfig, MqttConfig, RecordConfig
from stream.errors import UsageError
from stream.mcap import About, RecordingWriter
from stream.messages import (
    AudioBlock,
    Begin,
    Coded,
    Entry,
    Event,
    Gap,
    Heard,
    Lane,
    Output,
    Score,
    SessionInfo,
    Text,
    Transcript,
    VideoFrame,
    VisionRows,
)
from stream.pictures import decode_jpeg, encode_jpeg
from stream.progress import Progress
from stream.records import (
    AUDIO,
    ENTRIES,
    ENTRY_TOPICS,
    FACES,
    GAP,
    OUTPUT_TOPICS,
    OUTPUTS,
    PICTURE,
    TAKEN,
    TEXTS,
    VECTOR,
    VECTORS,
    VIDEO,
    WORDS,
    Kind,
    Record,
    TakenRecord,
    Texts,
    TextVector,
    without_words,
)
from stream.runner import Taken
from stream.windows import feature_contracts

log = logging.getLogger(__name__)

_FLUSH_S = 1.0  # what is younger is lost if the process is killed
_MOST_BYTES = 256 * 2**20  # waiting to be written; a second of pictures is a few million
_MOST_RECORDS = 200_000  # likewise, half an hour of features
_MOST_SHOWN = 1000  # packets of video from one picture that stands by itself to the next
_PACKAGES = ("mmlatch-live", "torch", "numpy", "mediapipe", "onnxruntime", "silero-vad", "av", "transformers", "tokenizers")


def versions() -> dict[str, str]:
    """Of the packages that numbers depend on, and of Python."""
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:  # as when it runs from a source tree, or is not needed
            continue
    return found


def part_path(path: Path, part: int) -> Path:
    """Where a part of a recording is: `talk.mcap`, `talk-0002.mcap` and so on."""
    return path if part == 1 else path.with_name(f"{path.stem}-{part:04d}{path.suffix}")


class Recorder:
    """Records one session.

    Attributes:
        tell: Is called with what happens to the recording, from any thread.

    Example:
        recorder = Recorder(Path("talk.mcap"), config, info, packets=frozenset({"audio", "video"}))
        session = Session(..., recorder=recorder)
    """

    def __init__(
        self,
        path: Path,
        config: Config,
        info: SessionInfo,
        *,
        packets: frozenset[str],
        place: tuple[int, int] = (0, 1),
        start_unix_ns: int | None = None,
        begin: Begin | None = None,
        words: bool = True,
    ) -> None:
        """Begin the recording, unless the configuration says that it waits to be asked for.

        Args:
            path: Where to; further parts stand beside it.
            config: The session's.
            info: The session's.
            packets: The kinds of packets that its sources bring.
            place: See `Scorer.place`.
            start_unix_ns: Wall time of session time 0, if that is known.
            begin: Where the session begins, if it is a replay of a part of one.
            words: Whether its sources tell the words; a recording without them tells only how many there were.

        Raises:
            UsageError: The file is there already, or cannot be made; also if it is to be made later. Or there are no packets.
        """
        self._path, self._limits = path, config.record
        self._media = config.record.level == "media"
        packets -= {"updates", "script"}  # those of a recording, which are no packets
        if self._media and not packets:
            raise UsageError(
                "--record-level media: features have no pictures and no sound; leave it out, or replay --from media"
            )
        self._about = About(
            id=secrets.token_hex(8),
            level=config.record.level,
            words=words and (config.record.words or self._media),
            session=info,
            config=config.model_copy(update={"mqtt": MqttConfig(), "dashboard": DashboardConfig(), "record": RecordConfig()}),
            packets=tuple(sorted(packets)) if self._media else (),
            name=info.source,
            scripted=info.scripted,
            contracts=feature_contracts(),
            versions=versions(),
            row=place[0],
            bucket=place[1],
            start_unix_ns=start_unix_ns,
            begin=begin or Begin(),
        )
        self._progress = Progress(
            hop_ns=config.windows.hop_ns,
            gap_windows=config.windows.gap_windows,
            max_windows=config.windows.max_windows,
            begin=begin,
        )
        self.tell: Callable[[Event], object] = lambda event: None
        self._lock = threading.Lock()
        self._queue: queue.SimpleQueue[_Note | None] = queue.SimpleQueue()
        self._number = self._t_ns = 0  # of the last record
        self._waiting = self._waiting_bytes = 0
        self._coded_come = False  # the source gives its pictures coded as well
        self._trouble: str | None = None  # why pictures cannot be recorded
        self._given_up = False  # since there was an error, or too much waited
        self._problem: str | None = None  # the last such reason, for whoever asks at the end
        self._wanted = not config.record.standby
        self._part = 0
        self._written: deque[Path] = deque()  # the parts that are kept
        self._file: RecordingWriter | None = None
        self._begun_ns = self._begun_seq = 0  # of the present part
        self._texts: Record | None = None  # of the score that comes next
        self._shown: list[Record] = []  # coded video since the last picture that stands by itself
        self._vectors: OrderedDict[bytes, int] = OrderedDict()  # the numbers of those in the present part, oldest first
        try:
            if self._wanted:
                self._open(self._about)
            else:  # whether it could be made is not left to be found out when somebody asks for it
                path.touch(exist_ok=False)
                path.unlink()
        except OSError as error:
            raise UsageError(f"--record {path}: {_explain(error)}") from error
        self._thread = threading.Thread(target=self._run, name="recorder", daemon=True)
        self._thread.start()

    def start(self) -> None:
        """Record from the next window on that starts anew."""
        self._wanted, self._given_up = True, False

    def stop(self) -> None:
        """End the recording; `start` begins another part."""
        self._wanted = False

    def finish(self) -> None:
        """The session is over."""
        self._queue.put(None)

    def close(self, timeout_s: float = 10.0) -> str | None:
        """Wait until all is written; returns why the recording ended before the session, a line for the user, if it did."""
        self.finish()
        self._thread.join(timeout_s)
        if self._thread.is_alive():
            return (
                f"--record {self._path}: the disk is too slow, not all was written within {timeout_s:g} s; "
                "python -m stream.recording repair mends what is there"
            )
        return self._problem

    # --- what the session tells

    def picture(self, frame: VideoFrame) -> VideoFrame:
        """The picture that is to be looked at: what coding leaves of it, if it is to be recorded and did not come coded."""
        if not self._media or self._coded_come:
            return frame
        try:
            coded = frame.jpeg or encode_jpeg(frame)
            picture = frame if frame.jpeg else decode_jpeg(coded)
        except Exception as error:  # the session goes on with the picture as it is
            self._trouble = str(error) or type(error).__name__
            return frame
        self._note(self._t_ns, PICTURE, coded, len(coded.data))
        return picture

    def coded(self, coded: Coded) -> None:
        """A packet of coded video has come, from any thread; its pictures will."""
        self._coded_come = True
        self._note(self._t_ns, VIDEO, coded, len(coded.data))

    def taken(self, t_ns: int, lane: Lane, packet: object, taken: Taken) -> None:
        """A lane has taken a packet."""
        if not self._media:
            return
        match packet:
            case Heard(number=key):
                pass
            case VideoFrame(t_ns=key):
                pass
            case AudioBlock(t_ns=key, samples=samples):
                self._note(t_ns, AUDIO, packet, samples.nbytes)
            case Gap(t_ns=key):
                self._note(t_ns, GAP, packet)
            case VisionRows(t_ns=key):
                self._note(t_ns, FACES, packet)
            case Transcript(t_ns=key):
                self._note(t_ns, WORDS, packet)
            case _:
                raise TypeError(f"a {type(packet).__name__} cannot be recorded")
        self._note(t_ns, TAKEN, TakenRecord(lane, key, taken.behind, taken.lost, taken.failed))

    def entry(self, t_ns: int, entry: Entry) -> None:
        """Something has come that scores depend on."""
        self._note(t_ns, ENTRIES[type(entry)], entry)

    def output(self, t_ns: int, output: Output, texts: tuple[Text, ...]) -> None:
        """Something is put out; `texts` are those of the windows of a score."""
        if isinstance(output, Score):
            self._note(t_ns, TEXTS, texts)
        self._note(t_ns, OUTPUTS[type(output)], output)

    def _note(self, t_ns: int, kind: Kind[Any], value: Any, size: int = 0) -> None:
        with self._lock:
            self._t_ns = max(self._t_ns, t_ns)
            self._number += 1
            self._waiting += 1
            self._waiting_bytes += size
            self._queue.put(_Note(Record(self._number, self._t_ns, kind, value), size))

    # --- on the recorder's thread

    def _run(self) -> None:
        flushed_s = time.monotonic()
        ended = False
        while not ended:
            note: _Note | None = None
            with contextlib.suppress(queue.Empty):
                note = self._queue.get(timeout=_FLUSH_S)
                ended = note is None
            try:
                if note:
                    with self._lock:
                        self._waiting -= 1
                        self._waiting_bytes -= note.size
                    self._take(note.record)
                if self._file and (ended or not self._wanted):
                    self._close()
                if self._file and time.monotonic() - flushed_s > _FLUSH_S:
                    self._file.flush()
                    flushed_s = time.monotonic()
            except OSError as error:
                self._give_up(_explain(error))
            except Exception as error:  # whatever it is, the session goes on, and what waits must not grow
                log.debug("recording", exc_info=error)
                self._give_up(str(error) or type(error).__name__)
            if self._trouble:
                self._give_up(self._trouble)
            if self._waiting > _MOST_RECORDS or self._waiting_bytes > _MOST_BYTES:
                self._give_up("the disk is too slow for it; record less, or elsewhere")

    def _take(self, record: Record) -> None:
        kind, value = record.kind, record.value
        if kind is TEXTS:  # belong to the score that follows, in its part
            self._texts = record
            return
        records = [record]
        if kind is VIDEO:
            self._shown = [] if value.key or len(self._shown) == _MOST_SHOWN else self._shown
            if value.key or self._shown:
                self._shown.append(record)
        elif kind.topic in ENTRY_TOPICS:
            self._progress.entry(record)
        elif kind.topic in OUTPUT_TOPICS:
            if self._progress.output(value):
                self._begin_part()
            if isinstance(value, Score) and self._texts:
                records.insert(0, replace(self._texts, t_ns=record.t_ns))
        for each in records:
            if self._file and self._kept(each.kind):
                self._write(self._file, each)

    def _kept(self, kind: Kind[Any]) -> bool:
        """Whether that is recorded at this level; packets come only at theirs."""
        return self._about.level != "scores" or kind.topic in OUTPUT_TOPICS

    def _write(self, file: RecordingWriter, record: Record) -> None:
        if record.kind is TEXTS:
            record = replace(record, value=self._numbered(file, record))
        elif not self._about.words:
            record = replace(record, value=without_words(record.value))
        file.write(record)

    def _numbered(self, file: RecordingWriter, record: Record) -> Texts:
        """The texts, with numbers in place of vectors; those that the part lacks are written first."""
        numbers: list[int | None] = []
        for text in record.value:
            data = text.vector.tobytes()
            if not text.vector.any():
                numbers.append(None)
                continue
            if data not in self._vectors:
                self._vectors[data] = record.number * VECTORS + len(numbers)
                file.write(replace(record, kind=VECTOR, value=TextVector(self._vectors[data], text.vector)))
                if len(self._vectors) > VECTORS:
                    self._vectors.popitem(last=False)
            numbers.append(self._vectors[data])
        return Texts(tuple(numbers), tuple(text.told for text in record.value))

    # --- parts

    def _begin_part(self) -> None:
        """At a window that starts anew, let a part begin if there is none, or the present one is long or large enough."""
        if not self._wanted or self._given_up:
            return
        if self._file:
            long = self._limits.part_minutes and self._t_ns - self._begun_ns >= self._limits.part_minutes * 60e9
            large = self._limits.part_mb and self._file.size >= self._limits.part_mb * 1e6
            if self._progress.begin.seq == self._begun_seq or not (long or large):
                return
            self._close()
        self._open(self._about.model_copy(update={"begin": self._progress.begin}))
        for record in sorted([*self._progress.lead(), *self._shown], key=lambda each: each.number):
            if self._file and self._kept(record.kind):
                self._write(self._file, record)

    def _open(self, about: About) -> None:
        self._part += 1
        while self._part > 1 and part_path(self._path, self._part).exists():
            self._part += 1
        path = part_path(self._path, self._part)
        self._file = RecordingWriter(path, about.model_copy(update={"part": self._part}))
        self._written.append(path)
        self._begun_ns, self._begun_seq = self._t_ns, about.begin.seq
        self._vectors.clear()
        self._tell("recording", f"a recording begins here: {path.name}")
        if self._limits.keep_parts and len(self._written) > self._limits.keep_parts:
            self._written.popleft().unlink(missing_ok=True)

    def _close(self) -> None:
        file, self._file = self._file, None
        if file:
            file.close()
            self._tell("recording", "the recording ends here")

    def _give_up(self, reason: str) -> None:
        if self._file:
            self._file.abandon()
            self._file = None
        if not self._given_up:
            self._given_up = True
            self._problem = f"--record {self._path}: the recording ended before the session: {reason}"
            self._tell("lost", f"the recording ends here: {reason}")

    def _tell(self, kind: Literal["lost", "recording"], reason: str) -> None:
        self.tell(Event(self._t_ns, kind, "recording", reason))


class _Note(NamedTuple):
    """What waits to be written, and about how large it is, if it is large."""

    record: Record
    size: int


def _explain(error: OSError) -> str:
    if isinstance(error, FileExistsError):
        return "the file is there already; give another name, or remove it"
    if error.errno == errno.ENOSPC:
        return "the disk is full; make room"
    return f"cannot be written ({error.strerror}); check the folder and the permissions"
