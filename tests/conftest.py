"""What tests share: where the real clips, corpora and pretrained files are, and a reason to skip where they are not."""

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SHARED = Path(os.environ.get("MMLATCH_SHARED", ROOT.parent / "shared"))

# What keeps time, with real threads, devices, brokers or a browser: one after the other, and before all others.
CLOCKED = {
    "test_batcher",
    "test_broker",
    "test_camera",
    "test_clock",
    "test_console",
    "test_devices",
    "test_doctor",
    "test_feed",
    "test_jsonl",
    "test_live",
    "test_live_devices",
    "test_live_outlets",
    "test_microphone",
    "test_mqtt",
    "test_page",
    "test_server",
    "test_session",
    "test_session_live",
    "test_worker",
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests in those modules."""
    for item in items:
        if item.path.stem in CLOCKED:
            item.add_marker(pytest.mark.clocked)


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """As a session does: the tensors are small, and torch's threads would wait for each other far longer than they work."""
    import torch

    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with clips/, speech/, data/ and assets/, named by MMLATCH_SHARED or beside the checkout."""
    if not SHARED.is_dir():
        pytest.skip(
            "no real clips to test on: there is no folder shared beside the checkout, nor one that MMLATCH_SHARED names"
        )
    return SHARED


@pytest.fixture(scope="session")
def assets(shared: Path) -> Path:
    """The folder with pretrained files; MMLATCH_ASSETS names it while a test runs."""
    return shared / "assets"


@pytest.fixture
def with_assets(assets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MMLATCH_ASSETS", str(assets))
