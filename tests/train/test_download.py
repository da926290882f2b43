"""Fetching corpus files, from a server on this machine that can be told to misbehave."""

import hashlib
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.train.one_line import error_of
from train import download
from train.data import CORPORA
from train.download import File
from train.errors import DataError, TrainError

BODY = b"\x89HDF\r\n\x1a\n" + bytes(range(256)) * 4000  # about 1 MB, more than one block at a time
SHA256 = hashlib.sha256(BODY).hexdigest()
NAME = "mosei/sequence.csd"


@dataclass
class Server:
    """What is served, and how; and what was asked for.

    Attributes:
        url: Of the file; `moved` in its place leads there too.
        version: The file's ETag; none is sent if it is empty.
        ranges: Whether parts are sent to who asks for them.
        cut: After how many bytes of an answer the connection ends; never if None.
        sized: Whether it says how long an answer is.
        status: What it answers with; no file if that is not 200.
        ranged: What it answers with who asks for a part, in place of `status`.
        headers: What it says beside, or in place of what it would.
        asked: Of each request the range, or None.
    """

    url: str
    body: bytes = BODY
    version: str = '"one"'
    ranges: bool = True
    cut: int | None = None
    sized: bool = True
    status: int = 200
    ranged: int | None = None
    headers: dict[str, str] = field(default_factory=dict)
    asked: list[str | None] = field(default_factory=list)


@pytest.fixture
def server() -> Iterator[Server]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path == "/moved":
                self.send_response(302)
                self.send_header("Location", told.url)
                self.end_headers()
                return
            told.asked.append(self.headers["Range"])
            status = told.ranged if told.ranged and self.headers["Range"] else told.status
            if status not in (200, 206, 302):
                self.send_error(status)
                return
            start = 0
            if told.ranges and self.headers["Range"] and self.headers["If-Range"] == told.version:
                start = int(self.headers["Range"].removeprefix("bytes=").removesuffix("-"))
            self.send_response(206 if start else status)
            headers = {"ETag": told.version} if told.version else {}
            if start:
                headers["Content-Range"] = f"bytes {start}-{len(told.body) - 1}/{len(told.body)}"
            if told.sized:
                headers["Content-Length"] = str(len(told.body) - start)
            for name, value in (headers | told.headers).items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(told.body[start:][: told.cut])

        def log_message(self, *_: object) -> None:
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    told = Server(f"http://127.0.0.1:{http.server_address[1]}/sequence.csd")
    threading.Thread(target=http.serve_forever, args=(0.01,), daemon=True).start()
    yield told
    http.shutdown()
    http.server_close()


def there(data: Path) -> set[str]:
    return {path.name for path in (data / "mosei").iterdir()}


def fetched(data: Path) -> bytes:
    """The file, beside which nothing is left but its record."""
    assert there(data) == {"sequence.csd", "sequence.csd.json"}
    return (data / NAME).read_bytes()


def interrupted(file: File, data: Path, server: Server, cut: int = 300_000) -> None:
    """A fetch that ends after so many bytes, and leaves no more than a part."""
    server.cut = cut
    message = error_of(lambda: download.fetch(file, data), DataError)
    assert message == f"{server.url}: it ended after {cut:,} of {len(BODY):,} bytes; run it again to go on from there"
    assert there(data) == {"sequence.csd.part", "sequence.csd.json"}
    server.cut = None


# --- fetching


def test_a_file_is_fetched_and_its_digest_is_kept_where_none_is_published(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    download.fetch(File(NAME, server.url), tmp_path)
    assert fetched(tmp_path) == BODY
    record = json.loads((tmp_path / f"{NAME}.json").read_text())
    assert record == {"url": server.url, "size": len(BODY), "version": '"one"', "sha256": SHA256}
    said = f"{NAME}: fetched, {len(BODY):,} bytes; sha256 {SHA256}, none is published, so it is kept in sequence.csd.json\n"
    assert capsys.readouterr().out == said


def test_what_is_there_is_not_fetched_again(server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mosei").mkdir()
    (tmp_path / NAME).write_bytes(b"by hand")
    download.fetch(File(NAME, server.url), tmp_path)
    assert (tmp_path / NAME).read_bytes() == b"by hand"
    assert server.asked == []
    assert capsys.readouterr().out == f"{NAME}: there already\n"


def test_a_download_that_was_cut_goes_on_from_there(server: Server, tmp_path: Path) -> None:
    file = File(NAME, server.url, sha256=SHA256)
    interrupted(file, tmp_path, server)
    server.cut = 100_000
    error_of(lambda: download.fetch(file, tmp_path), DataError)
    server.cut = None
    download.fetch(file, tmp_path)
    assert fetched(tmp_path) == BODY
    assert server.asked == [None, "bytes=300000-", "bytes=400000-"]


def test_a_download_that_was_killed_before_it_got_its_name_needs_no_server(server: Server, tmp_path: Path) -> None:
    interrupted(File(NAME, server.url), tmp_path, server)
    (tmp_path / f"{NAME}.part").write_bytes(BODY)
    server.status = 500
    download.fetch(File(NAME, server.url), tmp_path)
    assert fetched(tmp_path) == BODY


def test_a_server_that_sends_one_elsewhere_is_followed_when_going_on_too(server: Server, tmp_path: Path) -> None:
    file = File(NAME, server.url.replace("sequence.csd", "moved"))
    server.cut = 300_000
    error_of(lambda: download.fetch(file, tmp_path), DataError)
    server.cut = None
    download.fetch(file, tmp_path)
    assert fetched(tmp_path) == BODY
    assert server.asked == [None, "bytes=300000-"]


@pytest.mark.parametrize("change", ["no ranges", "another version", "no version", "too much", "no record"])
def test_what_cannot_be_gone_on_with_begins_anew(server: Server, tmp_path: Path, change: str) -> None:
    server.version = "" if change == "no version" else server.version
    interrupted(File(NAME, server.url), tmp_path, server)
    match change:
        case "no ranges":
            server.ranges = False
        case "another version":
            server.version, server.body = '"two"', BODY[:8] + BODY[:7:-1]
        case "too much":
            (tmp_path / f"{NAME}.part").write_bytes(BODY + b"more")
        case "no record":
            (tmp_path / f"{NAME}.json").write_text("{")
    download.fetch(File(NAME, server.url), tmp_path)
    assert fetched(tmp_path) == server.body


# --- what can be wrong


def test_a_part_that_is_longer_than_the_file_has_become_begins_anew(server: Server, tmp_path: Path) -> None:
    file = File(NAME, server.url)
    interrupted(file, tmp_path, server)
    server.ranged, server.body = 416, BODY[:200_000]
    download.fetch(file, tmp_path)
    assert fetched(tmp_path) == BODY[:200_000]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"status": 206, "headers": {"Content-Range": f"bytes 100-199/{len(BODY)}"}}, "another part than was asked for"),
        ({"body": b"<html>please log in</html>"}, "is no HDF5 file but perhaps a page that says why"),
        ({"headers": {"Content-Length": "abc"}}, "does not say how long it is"),
        ({"status": 302, "headers": {"Location": "http://[::1"}}, "cannot be reached"),
    ],
)
def test_an_answer_that_is_not_the_file_is_not_taken_for_it(
    server: Server, tmp_path: Path, change: dict[str, Any], expected: str
) -> None:
    for name, value in change.items():
        setattr(server, name, value)
    assert expected in error_of(lambda: download.fetch(File(NAME, server.url), tmp_path), DataError)
    assert not (tmp_path / NAME).exists()


def test_nobody_is_followed_from_an_encrypted_address_to_one_that_is_not(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    follow = download.urlopen
    monkeypatch.setattr(download, "urlopen", lambda _, timeout: follow(server.url, timeout=timeout))
    text = error_of(lambda: download.fetch(File(NAME, "https://example.org/sequence.csd"), tmp_path), DataError)
    assert f"sends one on to {server.url}" in text
    assert not (tmp_path / "mosei").exists()


def test_no_more_is_written_than_the_file_has(server: Server, tmp_path: Path) -> None:
    file = File(NAME, server.url)
    interrupted(file, tmp_path, server)
    whole = f"bytes 300000-{len(BODY) - 1}/{len(BODY)}"
    server.body, server.sized, server.headers = BODY * 4, False, {"Content-Range": whole}
    assert "more comes than" in error_of(lambda: download.fetch(file, tmp_path), DataError)
    assert (tmp_path / f"{NAME}.part").stat().st_size <= len(BODY)


@pytest.mark.parametrize("record", ['{"size": "7"}', "[]", '{"url": "a", "size": null, "version": null}', "\xff"])
def test_a_record_that_says_nothing_is_none(server: Server, tmp_path: Path, record: str) -> None:
    (tmp_path / "mosei").mkdir()
    (tmp_path / f"{NAME}.json").write_text(record, encoding="latin1")
    (tmp_path / f"{NAME}.part").write_bytes(BODY[:10])
    download.fetch(File(NAME, server.url), tmp_path)
    assert fetched(tmp_path) == BODY


def test_a_wrong_digest(server: Server, tmp_path: Path) -> None:
    file = File(NAME, server.url, sha256="0123456789ab" + "0" * 52)
    message = error_of(lambda: download.fetch(file, tmp_path), DataError)
    assert message == f"{server.url} has sha256 {SHA256[:12]}…, expected 0123456789ab…; what came in is deleted, try again"
    assert there(tmp_path) == {"sequence.csd.json"}


def test_a_file_that_the_server_does_not_have(server: Server, tmp_path: Path) -> None:
    server.status = 404
    message = error_of(lambda: download.fetch(File(NAME, server.url), tmp_path), DataError)
    assert message.startswith(f"{server.url} cannot be fetched: 404 Not Found; try again later")
    assert list(tmp_path.iterdir()) == []


def test_a_server_that_is_not_there(tmp_path: Path) -> None:
    message = error_of(lambda: download.fetch(File(NAME, "http://127.0.0.1:1/x.csd"), tmp_path), DataError)
    assert message.startswith("http://127.0.0.1:1/x.csd cannot be reached: [Errno 111] Connection refused; try again later")


def test_a_server_that_falls_silent(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "TIMEOUT_S", 0.2)
    wait, send = threading.Event(), server.body

    class Slow(bytes):
        def __getitem__(self, key: object) -> bytes:
            wait.wait(5)
            return send

    server.body = Slow(send)
    message = error_of(lambda: download.fetch(File(NAME, server.url), tmp_path), DataError)
    wait.set()
    assert message == f"{server.url}: the connection broke: timed out; run it again to go on from there"


def test_a_server_that_does_not_say_how_long_the_file_is(server: Server, tmp_path: Path) -> None:
    server.sized = False
    message = error_of(lambda: download.fetch(File(NAME, server.url), tmp_path), DataError)
    assert message == f"{server.url}: the server does not say how long it is, so nobody can tell whether it is whole"


def test_a_part_of_something_else_is_not_gone_on_with(server: Server, tmp_path: Path) -> None:
    file = File(NAME, server.url, mirror=f"{server.url}?mirror")
    interrupted(file, tmp_path, server)
    message = error_of(lambda: download.fetch(file, tmp_path, mirror=True), DataError)
    part = tmp_path / f"{NAME}.part"
    assert message == (
        f"{part} is from {server.url}, not {server.url}?mirror: change --mirror to go on with it, or delete it to begin anew"
    )
    part.unlink()
    download.fetch(file, tmp_path, mirror=True)
    assert json.loads((tmp_path / f"{NAME}.json").read_text())["url"] == f"{server.url}?mirror"


def test_a_folder_that_cannot_be_written(server: Server, tmp_path: Path) -> None:
    (tmp_path / "mosei").touch()
    message = error_of(lambda: download.fetch(File(NAME, server.url), tmp_path), TrainError)
    assert message == f"{tmp_path / NAME}.part cannot be written: Not a directory; make room or name another folder"


# --- the command


@pytest.fixture
def command(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """One file to fetch, and two to get by hand; returns the data folder."""
    by_hand = (File("mosei/a.pkl", "a drive", sha256=SHA256), File("sst/*.csv", "a page"))
    monkeypatch.setattr(download, "FETCHED", (File(NAME, server.url),))
    monkeypatch.setattr(download, "BY_HAND", by_hand)
    return tmp_path


def test_it_fetches_and_says_what_is_to_get_by_hand(command: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (command / "sst").mkdir()
    (command / "sst" / "train.csv").touch()
    assert download.main(["--data", str(command)]) == 0
    first, *rest = capsys.readouterr().out.splitlines()
    assert first == f"to get by hand, into {command}, if you need it; all of it has terms of its own:"
    assert rest[:2] == ["  mosei/a.pkl", "      from a drive"]
    assert rest[2].startswith(f"{NAME}: fetched")
    assert len(rest) == 3


def test_only_what_is_named(command: Path, server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    assert download.main(["sst", "mosei/a.pkl", "--data", str(command)]) == 0
    assert "a drive" in (said := capsys.readouterr().out)
    assert "a page" in said
    assert server.asked == []


def test_check(command: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert download.main(["mosei", "--data", str(command)]) == 0
    (command / "mosei" / "a.pkl").write_bytes(BODY)
    (command / "sst").mkdir()
    (command / "sst" / "train.csv").touch()
    capsys.readouterr()
    assert download.main(["--check", "--data", str(command)]) == 0
    assert capsys.readouterr().out.splitlines() == [
        f"{NAME}: as it was fetched",
        "mosei/a.pkl: as published",
        "sst/*.csv: there; no digest is known",
    ]
    for name in (NAME, "mosei/a.pkl"):
        (command / name).write_bytes(b"other")
    assert download.main(["mosei", "--check", "--data", str(command)]) == 2
    out, err = capsys.readouterr()
    other = hashlib.sha256(b"other").hexdigest()
    assert out.splitlines() == [f"{name}: sha256 {other[:12]}…, expected {SHA256[:12]}…" for name in (NAME, "mosei/a.pkl")]
    assert err == f"error: {NAME}, mosei/a.pkl in {command}: not what it should be; delete it and get it again\n"


def test_check_of_what_is_not_there_and_of_a_part(command: Path, server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    interrupted(download.FETCHED[0], command, server)
    assert download.main(["mosei", "--check", "--data", str(command)]) == 0
    assert capsys.readouterr().out.splitlines() == [f"{NAME}: not there", "mosei/a.pkl: not there"]


def test_an_error_is_one_line(command: Path, server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    server.status = 404
    assert download.main([NAME, "--data", str(command)]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert download.main(["iemocap", "--data", str(command)]) == 2
    assert capsys.readouterr().err == "error: iemocap: neither a corpus nor a file of one; --check lists all of them\n"


def test_all_belongs_to_corpora_that_are_read() -> None:
    assert {file.path.partition("/")[0] for file in (*download.FETCHED, *download.BY_HAND)} == set(CORPORA)
    assert all(len(file.sha256) == 64 for file in download.BY_HAND if file.sha256)
