"""Corpus files: fetched where that may be done, named with their origin where it is up to the user; `python -m train.download`.

A file comes in as NAME.part. NAME.json beside it says where it is from, how long it is and how the server tells its versions
apart, so what was interrupted goes on where it stopped, and two versions are never mixed. A file gets its name when it is whole
and has the digest that is published; where none is, NAME.json keeps that of what came in, and `--check` compares with it.
"""

import hashlib
import json
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

from pydantic import TypeAdapter
from tqdm import tqdm

from stream.errors import UsageError
from train import command
from train.errors import DataError, TrainError
from train.store import replacing

TIMEOUT_S = 60.0  # without a byte
_BLOCK = 1 << 20  # bytes
_HDF5 = b"\x89HDF\r\n\x1a\n"  # what a computational sequence begins with
_ELSE = "try again later, or from elsewhere: with or without --mirror"


@dataclass(frozen=True)
class File:
    """One file of a corpus.

    Attributes:
        path: Where it belongs in the data folder, the corpus first; a pattern, as in `*.flac`, where there are many.
        source: The URL to fetch it from; of a file to get by hand where it is to be had, and what to do with it.
        mirror: The URL of an unofficial copy, if there is one.
        sha256: The digest that is published for it, if there is one.
    """

    path: str
    source: str
    mirror: str | None = None
    sha256: str | None = None


@dataclass(frozen=True)
class Record:
    """What stands beside a file that was fetched, or is being fetched.

    Attributes:
        url: Where it is from.
        size: How long the whole is, bytes.
        version: The server's ETag, or else its date; None if it gave neither, and nothing can be resumed.
        sha256: The digest of what came in; None until it is whole.
    """

    url: str
    size: int
    version: str | None
    sha256: str | None = None


_RECORD = TypeAdapter(Record)

# By the CMU Multimodal SDK, https://github.com/CMU-MultiComp-Lab/CMU-MultimodalSDK; no digests are published.
_CMU = "http://immortal.multicomp.cs.cmu.edu/CMU-MOSEI"
_MIRROR = (
    "https://huggingface.co/datasets/reeha-parkar/cmu-mosei-comp-seq/resolve/5f8d513c34278006d27f98e5609564e6d4b353d7/data"
)
FETCHED = tuple(
    File(f"mosei/{Path(sequence).name}", f"{_CMU}/{sequence}", f"{_MIRROR}/{Path(sequence).name}")
    for sequence in (
        "labels/CMU_MOSEI_Labels.csd",
        "language/CMU_MOSEI_TimestampedWords.csd",
        "language/CMU_MOSEI_TimestampedWordVectors.csd",
        "acoustic/CMU_MOSEI_COVAREP.csd",
        "visual/CMU_MOSEI_VisualFacet42.csd",
    )
)

_SDK = "https://github.com/CMU-MultiComp-Lab/CMU-MultimodalSDK"
_MMSA = "https://drive.google.com/drive/folders/1A2S4pqCHryGmiqnNSPLv7rEg63WvjCSk of MMSA: MOSEI"
_MULT = "the Dropbox folder that https://github.com/yaohungt/Multimodal-Transformer links to"
_FER = "https://www.kaggle.com/c/challenges-in-representation-learning-facial-expression-recognition-challenge"
_SST = "https://nlp.stanford.edu/sentiment/: the sentences of each split with the label of their root, 0 to 4, as tables"
_MELD = "https://github.com/declare-lab/MELD: the tables of each split, with the columns named as in docs/training.md"
BY_HAND = (
    File("mosi/utterances.csv", f"{_SDK}: transcripts, labels, times and standard split of CMU-MOSI, as a table"),
    File("mosi/CMU_MOSI_ModifiedTimestampedWords.csd", "https://github.com/Justin1904/CMU-MultimodalSDK-Tutorials: data"),
    File("sst/train.csv", _SST),
    File("sst/valid.csv", _SST),
    File("sst/test.csv", _SST),
    File("meld/train.csv", _MELD),
    File("meld/valid.csv", _MELD),
    File("meld/test.csv", _MELD),
    File("ravdess/*.flac", "https://zenodo.org/records/1188976: Audio_Speech_Actors_01-24.zip, its WAV files made FLAC"),
    File("fer2013/fer2013_jpg.tar", f"{_FER}: each picture as SPLIT/LABEL/ROW.jpg, in an uncompressed archive"),
    File("fer2013/ferplus_fer2013new.csv", "https://github.com/microsoft/FERPlus: fer2013new.csv"),
    File("mosei/labels.csv", f"{_SDK}: labels, times and standard split of CMU-MOSEI, as a table"),
    File("mosei/*.mp4", "YouTube, by the names in labels.csv; many videos are no longer there"),
    File("mosei/aligned_50.pkl", _MMSA, sha256="45eccfb748a87c80ecab9bfac29582e7b1466bf6605ff29d3b338a75120bf791"),
    File("mosei/unaligned_50.pkl", _MMSA, sha256="ad8b23d50557045e7d47959ce6c5b955d8d983f2979c7d9b7b9226f6dd6fec1f"),
    File("mosei/mosei_senti_data.pkl", _MULT),
    File("mosei/mosei_senti_data_noalign.pkl", _MULT),
)
_EXAMPLES = """\
examples:
  python -m train.download --data corpora                                 all that may be fetched; then what is to get by hand
  python -m train.download mosei/CMU_MOSEI_Labels.csd --data corpora      one file
  python -m train.download --mirror --data corpora                        from an unofficial mirror, where CMU's server fails
  python -m train.download --check --data corpora                         what is there, and whether it is what it should be
"""


def main(arguments: list[str] | None = None) -> int:
    """Fetch or check corpus files; 0 if all is well, 2 if one cannot be had or is not what it should be."""
    options = command.parser("download", "Fetch what of the corpora may be fetched, and say where the rest is.", _EXAMPLES)
    options.add_argument("what", nargs="*", metavar="CORPUS|FILE", help="default: all")
    command.add_data(options)
    options.add_argument("--mirror", action="store_true", help="fetch unofficial copies, where there are any")
    options.add_argument("--check", action="store_true", help="fetch nothing; compare what is there with its digests")
    given = options.parse_args(arguments)

    def work() -> None:
        files = _chosen(given.what)
        if given.check:
            check(files, given.data)
            return
        _tell([file for file in files if file in BY_HAND], given.data)
        for file in files:
            if file in FETCHED:
                fetch(file, given.data, mirror=given.mirror)

    return command.run(work, stopped="run it again to go on from here")


def fetch(file: File, data: Path, *, mirror: bool = False) -> None:
    """Fetch a file, or the rest of it, unless it is there.

    Args:
        file: One of `FETCHED`.
        data: The data folder; made if it is not there.
        mirror: Whether to take the unofficial copy, if there is one.

    Raises:
        DataError: It cannot be fetched, the connection ended, or what came has another digest than is published.
        TrainError: It cannot be written.
    """
    path, url = data / file.path, (mirror and file.mirror) or file.source
    part = path.with_name(path.name + ".part")
    if path.exists():
        print(f"{file.path}: there already")  # noqa: T201
        return
    try:
        record = _read_record(path)
        have = part.stat().st_size if record and part.exists() else 0
        if record and have and record.url != url:
            raise DataError(
                f"{part} is from {record.url}, not {url}: change --mirror to go on with it, or delete it to begin anew"
            )
        if record is None or have != record.size:
            record = _receive(path, part, url, record, have)
        found = _digest(part)
        with part.open("rb") as received:
            if path.suffix == ".csd" and received.read(len(_HDF5)) != _HDF5:
                part.unlink()
                raise DataError(f"{url}: what came in is no HDF5 file but perhaps a page that says why; it is deleted, {_ELSE}")
        if file.sha256 and found != file.sha256:
            part.unlink()
            raise DataError(f"{url} has sha256 {found[:12]}…, expected {file.sha256[:12]}…; what came in is deleted, try again")
        _write_record(path, replace(record, sha256=found))
        part.replace(path)
    except OSError as error:
        raise TrainError(f"{part} cannot be written: {error.strerror or error}; make room or name another folder") from error
    known = "as published" if file.sha256 else f"none is published, so it is kept in {_record_path(path).name}"
    print(f"{file.path}: fetched, {record.size:,} bytes; sha256 {found}, {known}")  # noqa: T201


def check(files: Sequence[File], data: Path) -> None:
    """Say of each file whether it is there, and whether it has the digest that is published, or that it came in with.

    Raises:
        DataError: Some have another digest, or cannot be read.
    """
    wrong = []
    for file in files:
        path = data / file.path
        record = _read_record(path)
        expected = file.sha256 or (record.sha256 if record else None)
        if not any(data.glob(file.path)):
            found = "not there"
        elif expected is None:
            found = "there; no digest is known"
        elif (digest := _digest(path)) == expected:
            found = "as published" if file.sha256 else "as it was fetched"
        else:
            found = f"sha256 {digest[:12]}…, expected {expected[:12]}…"
            wrong.append(file.path)
        print(f"{file.path}: {found}")  # noqa: T201
    if wrong:
        raise DataError(f"{', '.join(wrong)} in {data}: not what it should be; delete it and get it again")


def _chosen(what: Sequence[str]) -> list[File]:
    """The files that are named, or of a corpus that is named; all if none is."""
    files = [*FETCHED, *BY_HAND]
    names = {file: {file.path, file.path.partition("/")[0]} for file in files}
    if unknown := set(what).difference(*names.values()):
        raise UsageError(f"{', '.join(sorted(unknown))}: neither a corpus nor a file of one; --check lists all of them")
    return [file for file in files if not what or not names[file].isdisjoint(what)]


def _tell(files: Sequence[File], data: Path) -> None:
    """Say which of the files that are up to the user are not there, and where they are to be had."""
    missing: dict[str, list[str]] = {}
    for file in files:
        if not any(data.glob(file.path)):
            missing.setdefault(file.source, []).append(file.path)
    if missing:
        print(f"to get by hand, into {data}, if you need it; all of it has terms of its own:")  # noqa: T201
    for source, paths in missing.items():
        print(f"  {', '.join(paths)}\n      from {source}")  # noqa: T201


def _receive(path: Path, part: Path, url: str, record: Record | None, have: int) -> Record:
    """Fetch what is not there yet of a file whose first `have` bytes are."""
    headers = {"User-Agent": "mmlatch-live"}
    if record and record.version and 0 < have < record.size:
        headers |= {"Range": f"bytes={have}-", "If-Range": record.version}  # the whole, if it is another version by now
    with _open(Request(url, headers=headers)) as answer:
        if answer.status == 206:
            whole = record and f"bytes {have}-{record.size - 1}/{record.size}"
            if record is None or not have or answer.headers["Content-Range"] != whole:
                raise DataError(f"{url}: the server sends another part than was asked for; delete {part} to begin anew")
        else:
            length = answer.headers["Content-Length"] or ""
            if not length.isdecimal():
                raise DataError(f"{url}: the server does not say how long it is, so nobody can tell whether it is whole")
            etag, have = answer.headers["ETag"], 0
            version = answer.headers["Last-Modified"] if etag is None or etag.startswith("W/") else etag
            part.unlink(missing_ok=True)
            record = Record(url, int(length), version)
            _write_record(path, record)
        with (
            part.open("ab") as out,
            tqdm(total=record.size, initial=have, desc=path.name, unit="B", unit_scale=True, disable=None) as bar,
        ):
            for block in _blocks(answer, url):
                if out.tell() + len(block) > record.size:
                    raise DataError(f"{url}: more comes than {record.size:,} bytes; delete {part} to begin anew")
                out.write(block)
                bar.update(len(block))
            out.flush()
            os.fsync(out.fileno())
            have = out.tell()
    if have != record.size:
        raise DataError(f"{url}: it ended after {have:,} of {record.size:,} bytes; run it again to go on from there")
    return record


def _open(request: Request) -> HTTPResponse:
    url = request.full_url
    try:
        answer: HTTPResponse = urlopen(request, timeout=TIMEOUT_S)
    except HTTPError as error:
        if error.code == 416 and request.has_header("Range"):  # the file is shorter by now: all of it, then
            request.remove_header("Range")
            return _open(request)
        raise DataError(f"{url} cannot be fetched: {error.code} {error.reason}; {_ELSE}") from error
    except (OSError, HTTPException, ValueError) as error:  # the last where a redirection is to no URL
        reason = error.reason if isinstance(error, URLError) else error
        raise DataError(f"{url} cannot be reached: {reason}; {_ELSE}") from error
    if url.startswith("https:") and not answer.url.startswith("https:"):
        answer.close()
        raise DataError(f"{url}: the server sends one on to {answer.url}, where nobody vouches for what comes; {_ELSE}")
    return answer


def _blocks(answer: HTTPResponse, url: str) -> Iterator[bytes]:
    try:
        while block := answer.read(_BLOCK):
            yield block
    except (OSError, HTTPException) as error:
        raise DataError(f"{url}: the connection broke: {error}; run it again to go on from there") from error


def _record_path(path: Path) -> Path:
    return path.with_name(path.name + ".json")


def _read_record(path: Path) -> Record | None:
    """What stands beside a file; None if nothing does, or nothing that can be read, and all begins anew."""
    try:
        return _RECORD.validate_json(_record_path(path).read_bytes(), strict=True)
    except (OSError, ValueError):
        return None


def _write_record(path: Path, record: Record) -> None:
    with replacing(_record_path(path)) as new:
        new.write_text(json.dumps(asdict(record), indent=1) + "\n", encoding="utf-8")


def _digest(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}; make it readable or delete it") from error


if __name__ == "__main__":
    sys.exit(main())
