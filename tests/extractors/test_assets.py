import hashlib
import sys
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from extractors import assets
from extractors.assets import ASSETS, FOLDER_VARIABLE, Asset
from extractors.errors import Unavailable

CONTENT = b"weights" * 10_000
NOWHERE = "http://127.0.0.1:9/tiny.bin"  # the discard port, where nobody listens


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache folder, and no folder named by the environment."""
    monkeypatch.delenv(FOLDER_VARIABLE, raising=False)
    monkeypatch.setattr(assets, "cache_folder", lambda: tmp_path / "cache")
    return tmp_path / "cache"


@pytest.fixture
def site(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """A folder and the address under which it is served."""
    folder = tmp_path / "site"
    folder.mkdir()
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(folder))) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield folder, f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def tiny(url: str = NOWHERE, package: tuple[str, str, str] | None = None) -> Asset:
    return Asset("tiny.bin", hashlib.sha256(CONTENT).hexdigest(), url, "test: tiny", "MIT", package)


def named_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes = CONTENT, name: str = "tiny.bin") -> Path:
    folder = tmp_path / "named"
    folder.mkdir()
    (folder / name).write_bytes(content)
    monkeypatch.setenv(FOLDER_VARIABLE, str(folder))
    return folder / name


def installed_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[tuple[str, str, str], Path]:
    """An importable package that carries the file."""
    module = tmp_path / "installed" / "carrier_of_tiny"
    (module / "model").mkdir(parents=True)
    (module / "__init__.py").touch()
    (module / "model" / "tiny.bin").write_bytes(CONTENT)
    monkeypatch.syspath_prepend(str(module.parent))
    return ("carrier-of-tiny", "carrier_of_tiny", "model/tiny.bin"), module / "model" / "tiny.bin"


def test_the_named_folder_comes_first_then_a_package_then_the_cache(tmp_path, cache, monkeypatch):
    cache.mkdir()
    (cache / "tiny.bin").write_bytes(CONTENT)
    assert assets.locate(tiny()) == cache / "tiny.bin"
    package, carried = installed_package(tmp_path, monkeypatch)
    assert assets.locate(tiny(package=package)) == carried
    path = named_folder(tmp_path, monkeypatch)
    assert assets.locate(tiny(package=package)) == path
    assert assets.fetch(tiny(package=package)) == path


def test_a_named_folder_without_the_file_is_passed_by(tmp_path, cache, monkeypatch):
    named_folder(tmp_path, monkeypatch, name="other.bin")
    assert assets.locate(tiny()) is None
    cache.mkdir()
    (cache / "tiny.bin").write_bytes(CONTENT)
    assert assets.fetch(tiny()) == cache / "tiny.bin"


def test_a_file_with_another_digest_is_refused(tmp_path, monkeypatch):
    path = named_folder(tmp_path, monkeypatch, b"something else")
    with pytest.raises(Unavailable) as refusal:
        assets.fetch(tiny())
    message = str(refusal.value)
    assert str(path) in message
    assert "is not the expected file" in message
    assert "remove it" in message
    assert "\n" not in message


def test_what_can_be_had_nowhere_names_the_ways_out():
    with pytest.raises(Unavailable) as refusal:
        assets.fetch(tiny(package=("carrier-of-tiny", "no_such_module_here", "tiny.bin")))
    message = str(refusal.value)
    assert NOWHERE in message
    assert FOLDER_VARIABLE in message
    assert "pip install carrier-of-tiny" in message
    assert "\n" not in message


@pytest.mark.parametrize("terminal", [False, True], ids=["log", "terminal"])
def test_a_download_is_verified_and_kept(site, cache, monkeypatch, capsys, terminal):
    folder, address = site
    (folder / "tiny.bin").write_bytes(CONTENT)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal)
    asset = tiny(f"{address}/tiny.bin")
    assert assets.locate(asset) is None
    path = assets.fetch(asset)
    assert path == cache / "tiny.bin"
    assert path.read_bytes() == CONTENT
    assert ("100%" in capsys.readouterr().err) == terminal
    (folder / "tiny.bin").unlink()
    assert assets.fetch(asset) == path  # from the cache


def test_a_corrupted_download_is_refused_and_not_kept(site, cache):
    folder, address = site
    (folder / "tiny.bin").write_bytes(CONTENT[:-1] + b"?")
    with pytest.raises(Unavailable, match="could not be downloaded"):
        assets.fetch(tiny(f"{address}/tiny.bin"))
    assert assets.locate(tiny()) is None
    assert not [path for path in cache.iterdir() if path.stat().st_size]


def test_a_missing_page_is_refused(site):
    _, address = site
    with pytest.raises(Unavailable, match=r"could not be downloaded \(HTTPError\)"):
        assets.fetch(tiny(f"{address}/tiny.bin"))


@pytest.mark.parametrize("asset", ASSETS.values(), ids=lambda asset: asset.name)
def test_assets_say_what_they_are(asset):
    assert len(asset.sha256) == 64
    int(asset.sha256, 16)
    assert asset.url.startswith("https://")
    assert asset.purpose.split(":")[0] in ("vision", "text")
    assert asset.licence


def test_the_shared_landmarker_is_the_published_one(with_assets, shared):
    assert assets.fetch(assets.FACE_LANDMARKER) == shared / "assets" / "face_landmarker.task"


@pytest.fixture
def only_tiny(monkeypatch: pytest.MonkeyPatch) -> Asset:
    asset = tiny()
    monkeypatch.setattr(assets, "ASSETS", {asset.name: asset})
    return asset


def test_list_says_what_is_where(only_tiny, tmp_path, monkeypatch, capsys):
    assert assets.main(["list"]) == 0
    assert "not here yet" in capsys.readouterr().out
    path = named_folder(tmp_path, monkeypatch)
    assert assets.main(["list", "tiny.bin"]) == 0
    listed = capsys.readouterr().out
    assert all(part in listed for part in ("tiny.bin", "test: tiny", "MIT", str(path)))


def test_check_fails_unless_the_file_is_here_and_whole(only_tiny, tmp_path, monkeypatch, capsys):
    assert assets.main(["check"]) == 1
    assert "python -m extractors.assets fetch tiny.bin" in capsys.readouterr().err
    path = named_folder(tmp_path, monkeypatch)
    assert assets.main(["check"]) == 0
    path.write_bytes(b"something else")
    assert assets.main(["check"]) == 1
    assert "is not the expected file" in capsys.readouterr().err


def test_fetch_downloads(site, cache, monkeypatch, capsys):
    folder, address = site
    (folder / "tiny.bin").write_bytes(CONTENT)
    monkeypatch.setattr(assets, "ASSETS", {"tiny.bin": tiny(f"{address}/tiny.bin")})
    assert assets.main(["fetch", "tiny.bin"]) == 0
    assert str(cache / "tiny.bin") in capsys.readouterr().out


def test_fetch_reports_what_it_cannot_get(only_tiny, capsys):
    assert assets.main(["fetch", "tiny.bin"]) == 1
    assert NOWHERE in capsys.readouterr().err


def test_an_unknown_name_is_a_mistake_of_use(only_tiny, capsys):
    assert assets.main(["fetch", "huge.bin"]) == 2
    error = capsys.readouterr().err
    assert "no asset huge.bin" in error
    assert "tiny.bin" in error
