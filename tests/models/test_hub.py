"""Loading from the hub, by the hub's own client, against a server on this machine that answers as the hub does."""

import hashlib
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote

import pytest
from huggingface_hub import constants
from huggingface_hub.utils import close_session

from models.checkpoint import Card, CheckpointError
from models.mmlatch import CausalMMLatch, CausalMMLatchConfig
from tests.conftest import ROOT

CONFIG = CausalMMLatchConfig(text=3, audio=2, vision=2, hidden=2, max_steps=4)
NAMES = ("config.json", "model.safetensors")


class Hub(ThreadingHTTPServer):
    """Repositories at revisions, each a folder; and what was asked for."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answer)
        self.address = f"http://127.0.0.1:{self.server_port}"
        self.folders: dict[tuple[str, str], Path] = {}
        self.asked: list[str] = []
        self.trouble: str | int = 0

    def publish(self, folder: Path, repository: str = "owner/name", revision: str = "main") -> str:
        """Its commit."""
        commit = hashlib.sha1(b"".join((folder / name).read_bytes() for name in NAMES)).hexdigest()
        self.folders[repository, revision] = self.folders[repository, commit] = folder
        return commit

    def leave(self) -> None:
        self.shutdown()
        self.server_close()


class _Answer(BaseHTTPRequestHandler):
    server: Hub

    def do_GET(self) -> None:
        self.do_HEAD()

    def do_HEAD(self) -> None:
        hub = self.server
        if "/resolve/" in self.path:  # the client also asks after news that have nothing to do with a repository
            hub.asked.append(f"{self.command} {self.path}")
        repository, _, rest = self.path.lstrip("/").partition("/resolve/")
        revision, _, name = rest.partition("/")
        folder = hub.folders.get((repository, unquote(revision)))
        if hub.trouble == "hangs up":
            return
        if hub.trouble == "another site":
            return self._say(200, {}, b"please log in")
        if isinstance(hub.trouble, int) and hub.trouble:
            return self._say(hub.trouble, {})
        if repository not in {known for known, _ in hub.folders}:
            return self._say(401, {"X-Error-Code": "RepoNotFound", "X-Error-Message": "Invalid username or password."})
        if folder is None:
            return self._say(404, {"X-Error-Code": "RevisionNotFound"})
        commit = next(c for (_, c), known in hub.folders.items() if known is folder and len(c) == 40)
        if not (folder / name).exists():
            return self._say(404, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": commit})
        content = (folder / name).read_bytes()
        return self._say(200, {"ETag": f'"{hashlib.sha1(content).hexdigest()}"', "X-Repo-Commit": commit}, content)

    def _say(self, status: int, headers: dict[str, str], content: bytes = b"") -> None:
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(content))} | headers).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content[: len(content) // 2] if self.server.trouble == "breaks off" else content)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def slept(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """For how long the client would have waited before it tried again."""
    waits: list[float] = []
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", waits.append)
    return waits


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, slept: list[float]) -> Iterator[Hub]:
    with Hub() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        template = server.address + "/{repo_id}/resolve/{revision}/{filename}"
        for name, value in {
            "ENDPOINT": server.address,
            "HUGGINGFACE_CO_URL_TEMPLATE": template,
            "HF_HUB_CACHE": str(tmp_path / "cache"),
            "HF_TOKEN_PATH": str(tmp_path / "token"),
            "AGENT_HARNESSES_PATH": str(tmp_path / "harnesses.json"),
            "HF_HUB_OFFLINE": False,
        }.items():
            monkeypatch.setattr(constants, name, value)
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        monkeypatch.chdir(tmp_path)
        close_session()
        yield server
        close_session()
        server.shutdown()
        thread.join()


def saved(folder: Path, seed: int = 0) -> CausalMMLatch:
    model = CausalMMLatch.untrained(CONFIG, seed=seed)
    model.card = Card({"text": "text@0"}, (f"seed {seed}",), {"mae": 0.5})
    model.save_pretrained(folder)
    return model


def refusal(location: str) -> str:
    """What is said after the location."""
    with pytest.raises(CheckpointError) as caught:
        CausalMMLatch.from_pretrained(location)
    text = str(caught.value)
    assert "\n" not in text
    assert text.startswith(f"{location}: ")
    return text.removeprefix(f"{location}: ")


def test_a_repository_is_loaded_as_a_folder_is(hub: Hub, tmp_path: Path) -> None:
    model = saved(tmp_path / "here")
    (tmp_path / "here" / "pytorch_model.bin").write_bytes(b"not wanted")
    commit = hub.publish(tmp_path / "here")
    loaded = CausalMMLatch.from_pretrained("owner/name", contracts=model.card.contracts)
    assert (loaded.config, loaded.card, loaded.digest()) == (CONFIG, model.card, model.digest())
    assert not loaded.training
    fetched = [line for line in hub.asked if line.startswith("GET ")]
    assert fetched == [
        f"GET /owner/name/resolve/{revision}/{name}" for revision, name in zip(("main", commit), NAMES, strict=True)
    ]
    with pytest.raises(CheckpointError, match="text is other here and text@0 there"):
        CausalMMLatch.from_pretrained("owner/name", contracts={"text": "other"})


@pytest.mark.parametrize("revision", ["v1", "refs/pr/1", "a commit"])
def test_a_revision_is_a_tag_a_branch_or_a_commit(revision: str, hub: Hub, tmp_path: Path) -> None:
    old, new = saved(tmp_path / "old", seed=1), saved(tmp_path / "new", seed=2)
    hub.publish(tmp_path / "new")
    commit = hub.publish(tmp_path / "old", revision=revision)
    asked = commit if revision == "a commit" else revision
    assert CausalMMLatch.from_pretrained(f"owner/name@{asked}").digest() == old.digest()
    assert CausalMMLatch.from_pretrained("owner/name").digest() == new.digest()


def test_what_was_fetched_once_is_not_fetched_again_and_loads_without_the_hub(
    hub: Hub, tmp_path: Path, slept: list[float]
) -> None:
    model = saved(tmp_path / "here")
    commit = hub.publish(tmp_path / "here")
    CausalMMLatch.from_pretrained("owner/name")
    hub.asked.clear()
    assert CausalMMLatch.from_pretrained("owner/name").digest() == model.digest()
    assert not [line for line in hub.asked if line.startswith("GET")]
    hub.leave()
    for location in ("owner/name", "owner/name@main", f"owner/name@{commit}"):
        assert CausalMMLatch.from_pretrained(location).digest() == model.digest()
    assert slept == []


def test_a_newer_commit_is_fetched(hub: Hub, tmp_path: Path) -> None:
    for seed in (1, 2):
        model = saved(tmp_path / str(seed), seed=seed)
        hub.publish(tmp_path / str(seed))
        assert CausalMMLatch.from_pretrained("owner/name").digest() == model.digest()


def test_a_repository_that_changes_meanwhile_is_not_mixed(hub: Hub, tmp_path: Path) -> None:
    models = [saved(tmp_path / str(seed), seed=seed) for seed in (1, 2)]
    hub.publish(tmp_path / "1")

    class Changing(list[str]):
        def append(self, line: str) -> None:
            if "HEAD" in line and "safetensors" in line:
                hub.publish(tmp_path / "2")

    hub.asked = Changing()
    with suppress(CheckpointError):
        loaded = CausalMMLatch.from_pretrained("owner/name")
        assert (loaded.card, loaded.digest()) in [(model.card, model.digest()) for model in models]


def test_a_folder_of_that_name_comes_first(hub: Hub, tmp_path: Path) -> None:
    there, here = saved(tmp_path / "there", seed=1), saved(tmp_path / "owner" / "name", seed=2)
    hub.publish(tmp_path / "there")
    assert CausalMMLatch.from_pretrained("owner/name").digest() == here.digest() != there.digest()
    assert hub.asked == []


# --- what cannot be had


@pytest.mark.parametrize(
    "location",
    [
        *("a/b/c", "nofolder", "/nowhere/at/all", "owner/name/", "owner/a name", "@main", "~/x", "https://hub/owner/name"),
        "",
        pytest.param("long" * 100, id="long"),
    ],
)
def test_what_is_no_name_is_told_at_once(location: str, hub: Hub) -> None:
    assert "there is no such folder, nor is it a repository's name (owner/name)" in refusal(location)
    assert hub.asked == []


@pytest.mark.parametrize("location", ["./missing", "../missing", "-a/b", "a/b--c", "a/..", "a/ä", f"a/{'b' * 97}"])
def test_a_name_that_no_repository_can_have_is_told_at_once(location: str, hub: Hub) -> None:
    assert "give a folder" in refusal(location)
    assert hub.asked == []


def unknown(hub: Hub, tmp_path: Path) -> list[str]:
    """What is said of a repository that is not there, of a revision and of a file."""
    saved(tmp_path / "here")
    hub.publish(tmp_path / "here")
    (tmp_path / "here" / "model.safetensors").rename(tmp_path / "elsewhere")
    return [refusal(location) for location in ("owner/other", "owner/name@v9", "owner/name")]


def test_an_unknown_repository_revision_or_file_is_told_at_once(hub: Hub, tmp_path: Path, slept: list[float]) -> None:
    for text in unknown(hub, tmp_path):
        assert "cannot be fetched from the hub" in text
        assert "check the name, or give a folder" in text
    assert slept == []


def test_an_unknown_repository_revision_and_file_are_told_apart(hub: Hub, tmp_path: Path) -> None:
    assert len(set(unknown(hub, tmp_path))) == 3


@pytest.mark.parametrize(
    "trouble",
    [*("hangs up", "breaks off"), "another site", 400, 403, 404, 429, 500, 503],
)
def test_a_hub_in_trouble_is_told(trouble: str | int, hub: Hub, tmp_path: Path) -> None:
    saved(tmp_path / "here")
    hub.publish(tmp_path / "here")
    hub.trouble = trouble
    text = refusal("owner/name")
    assert "cannot be fetched from the hub" in text
    assert "give a folder" in text


def test_a_hub_that_cannot_be_reached_is_told(hub: Hub) -> None:
    hub.leave()
    text = refusal("owner/name@v1")
    assert "cannot be fetched from the hub" in text
    assert "give a folder" in text


@pytest.mark.parametrize("trouble", [0, 500, 503], ids=["gone", "500", "503"])
def test_nobody_waits_long_for_a_hub_that_does_not_serve(trouble: int, hub: Hub, slept: list[float]) -> None:
    hub.trouble = trouble
    if not trouble:
        hub.leave()
    refusal("owner/name")
    assert sum(slept) < 5


def test_offline_mode_is_told(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert "give a folder" in refusal("owner/name")
    assert hub.asked == []


def test_without_the_hubs_client_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    assert refusal("owner/name") == "fetching needs huggingface_hub; pip install huggingface_hub, or give a folder"


def test_a_process_of_its_own_takes_hub_and_cache_from_the_environment_and_imports_the_client_late(
    hub: Hub, tmp_path: Path
) -> None:
    model = saved(tmp_path / "here")
    hub.publish(tmp_path / "here")
    code = (
        "import sys; from models.mmlatch import CausalMMLatch; assert 'huggingface_hub' not in sys.modules;"
        "print(CausalMMLatch.from_pretrained('owner/name').digest())"
    )
    environment = os.environ | {"HF_ENDPOINT": hub.address, "HF_HOME": str(tmp_path / "home")}
    environment.pop("HF_HUB_CACHE", None)
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert run.stdout == model.digest() + "\n", run.stderr
    assert list((tmp_path / "home" / "hub").glob("models--owner--name"))
