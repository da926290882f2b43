"""The floors of docs/architecture.md: arrows between packages point one way, and committed text speaks of the project alone."""

import ast
import re
import subprocess

import pytest
import yaml

from tests.conftest import ROOT

MAY_USE = {
    "extractors": {"extractors"},
    "models": {"models"},
    "stream": {"stream", "extractors", "models"},
    "train": {"train", "stream", "extractors", "models"},
    "configs": {"configs"},
}
# Inside stream/, from the ground up: a module may use those of its own floor and of the floors below.
FLOORS = [
    {"errors", "clock", "channel", "config", "messages", "worker"},
    {"utterances", "windows", "lanes", "engine", "scorer", "track", "bucket", "mcap"},
    {"sources", "sinks", "parts", "session"},
    {"live"},
]


def imports(package: str) -> list[tuple[str, str]]:
    found = []
    for path in sorted((ROOT / package).rglob("*.py")):
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            targets = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            targets += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            found += [(name, target) for target in targets]
    return found


@pytest.mark.parametrize("package", MAY_USE)
def test_arrows_between_packages_point_one_way(package: str) -> None:
    ours = [(name, target) for name, target in imports(package) if target.split(".")[0] in MAY_USE]
    assert [(name, target) for name, target in ours if target.split(".")[0] not in MAY_USE[package]] == []


def test_models_know_torch_alone() -> None:
    allowed = {"models", "torch", "numpy", "safetensors", "collections", "dataclasses", "typing"}
    assert {target.split(".")[0] for _, target in imports("models")} <= allowed


def test_extractors_know_nothing_of_tasks() -> None:
    assert not [pair for pair in imports("extractors") if pair[1].split(".")[0] in ("asyncio", "queue")]


def test_every_floor_of_the_stream_uses_only_those_below() -> None:
    height = {module: number for number, floor in enumerate(FLOORS) for module in floor}
    modules = {path.stem for path in (ROOT / "stream").iterdir() if path.stem[0] != "_" and path.suffix in ("", ".py")}
    assert modules == set(height)
    for name, target in imports("stream"):
        if name.count(".") and target.startswith("stream."):
            assert height[target.split(".")[1]] <= height[name.split(".")[1]], f"{name} uses {target}"


def test_nothing_is_unpickled() -> None:
    for package in MAY_USE:
        assert not [pair for pair in imports(package) if pair[1].split(".")[0] in ("pickle", "dill", "joblib")]


def test_every_key_of_the_default_configuration_is_documented() -> None:
    lines = (ROOT / "configs" / "default.yaml").read_text().splitlines()
    sections = set(yaml.safe_load("\n".join(lines)))
    for above, line in zip(["", *lines], lines, strict=False):
        key = re.match(r"\s*(\w+):", line)
        if key and key[1] not in sections - {"session", "node"}:
            assert above.strip().startswith("#") or key[1] == "node", f"{key[1]} has no comment above it"


def test_committed_text_names_no_machine() -> None:
    try:
        files = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("not a git checkout: nothing says which files are committed")
    pattern = re.compile(rb"/(?:home|root|work|farm)/\w|" + b"pypi" + rb"\.org|registry\.npmjs")
    texts = {name: (ROOT / name).read_bytes() for name in files if (ROOT / name).is_file()}
    assert [name for name, text in texts.items() if pattern.search(text)] == []
