"""Recordings made from recordings, and from media files: cropped, merged, mended, imported."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from stream.clock import UnpacedClock
from stream.cropping import Cut
from stream.errors import SourceError, UsageError
from stream.mcap import About, RecordingReader, RecordingWriter
from stream.messages import AudioBlock, Coded, Score
from stream.records import AUDIO, VIDEO, Record
from stream.sources.media import MediaSource


def write(path: Path, about: About, records: Iterable[Record]) -> int:
    """Write a recording; returns how many records it has. What cannot be finished is not left behind.

    Raises:
        UsageError: There is such a file already, or it cannot be written.
        SourceError: As reading the records does.
    """
    count = 0
    try:
        recording = RecordingWriter(path, about)
        try:
            for record in records:
                recording.write(record)
                count += 1
            recording.close()
        except BaseException:
            recording.abandon()
            path.unlink()
            raise
    except FileExistsError as error:
        raise UsageError(f"{path}: is there already; give another name") from error
    except OSError as error:
        raise UsageError(f"{path}: cannot be written ({error.strerror}); check the folder, and the room on the disk") from error
    return count


def crop(path: Path, out: Path, start_ns: int | None, end_ns: int | None) -> About:
    """Write the part of a recording between two moments, see `Cut`; returns what it says of itself."""
    cut = Cut(RecordingReader(path), start_ns, end_ns)
    write(out, cut.about, cut.records())
    return cut.about


def merge(paths: Sequence[Path], out: Path) -> None:
    """Join the parts of one recording.

    Raises:
        UsageError: They are not of one session, or something between them is missing.
    """
    readers = sorted((RecordingReader(path) for path in paths), key=lambda reader: reader.about.begin.seq)
    first = readers[0].about
    if whole := next((reader for reader in readers if reader.about.session is None), None):
        raise UsageError(f"{whole.path}: of a media file, not of a session; give the parts of one recorded session")
    if other := next((reader for reader in readers if not _same_recording(reader.about, first)), None):
        raise UsageError(f"{other.path}: of another session, or recorded otherwise, than {readers[0].path}")
    write(out, first, _joined(readers))


def _same_recording(one: About, other: About) -> bool:
    without = {"begin", "part"}
    return one.model_dump(exclude=without) == other.model_dump(exclude=without)


def _joined(readers: Sequence[RecordingReader]) -> Iterator[Record]:
    last, settled = -1, -1  # the number of the last record, and of the last window that was settled
    t_ns = 0
    for reader in readers:
        if settled >= 0 and reader.about.begin.seq > settled + 1:
            raise UsageError(f"{reader.path}: begins after the part before it has ended; there is a part missing")
        reached = last
        for record in reader.records():
            if record.number <= reached:  # a part begins with what its first windows need of the one before
                continue
            if record.t_ns < t_ns:
                raise UsageError(f"{reader.path}: begins before the part before it has ended; it is of another session")
            last, t_ns = record.number, record.t_ns
            if isinstance(record.value, Score) and record.value.kind == "final":
                settled = record.value.seq
            yield record
        if reader.problem:
            raise SourceError(reader.problem)


def repair(path: Path, out: Path) -> tuple[int, str | None]:
    """Write all that can be read of a recording into a whole file; returns the number of records, and what was wrong."""
    reader = RecordingReader(path)
    return write(out, reader.about, reader.records()), reader.problem


def import_media(location: str, out: Path) -> list[str]:
    """Make a recording of a media file: its video as it is coded, and its sound; returns what was wrong with it."""
    source = MediaSource(location)
    about = About(name=source.name, packets=tuple(sorted(source.provides)))
    write(out, about, _imported(source))
    return source.problems


def _imported(source: MediaSource) -> Iterator[Record]:
    waiting: list[Coded] = []
    source.tap = waiting.append
    number = t_ns = 0
    for packet in source.packets(UnpacedClock()):
        t_ns = max(t_ns, packet.t_ns)
        for value in [*waiting, packet]:
            if isinstance(value, Coded | AudioBlock):  # not the pictures, which are coded already
                yield Record(number, t_ns, VIDEO if isinstance(value, Coded) else AUDIO, value)
                number += 1
        waiting.clear()
