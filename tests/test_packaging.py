"""A wheel built from the tree holds what a user needs, and runs where the tree is not."""

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.conftest import ROOT


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"  # a copy, so that the build leaves nothing in the tree
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE", "stream", "models", "extractors", "train", "configs"):
        subprocess.run(["cp", "-r", str(ROOT / name), str(source)], check=True)
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "wheel", "--no-deps", "--no-build-isolation", "-w", str(folder), str(source)], check=True)
    return next(folder.glob("*.whl"))


def test_the_wheel_holds_configuration_demo_and_licence(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert {
        "configs/default.yaml",
        "stream/demo.mcap",
        "extractors/asr/sphinx_worker.py",
        "extractors/minilm-sentiment.safetensors",
        "models/mmlatch-causal/model.safetensors",
        "models/mfm-causal/model.safetensors",
        "stream/sinks/schemas/score.json",
        "stream/dashboard/page/index.html",
    } <= set(names)
    assert any(name.endswith("LICENSE") for name in names)
    assert not [name for name in names if name.startswith(("tests/", "benchmarks/", "scripts/"))]


def test_the_demo_runs_from_the_wheel_elsewhere(wheel: Path, tmp_path: Path) -> None:
    target = tmp_path / "site"
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "install", "--no-deps", "--no-index", "--target", str(target), str(wheel)], check=True)
    code = "import stream, sys; print(stream.__file__, file=sys.stderr); from stream.live import main; main()"
    run = subprocess.run(
        [sys.executable, "-c", code, "--source", "demo", "--speed", "max"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(target)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert str(target) in run.stderr
    assert [json.loads(line)["kind"] for line in run.stdout.splitlines()].count("final") == 82
