"""What tests share: where the real clips, corpora and pretrained files are, and a reason to skip where they are not."""

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SHARED = Path(os.environ.get("MMLATCH_SHARED", ROOT.parent / "shared"))


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
