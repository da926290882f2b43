"""The floors of docs/architecture.md: arrows between packages point one way, and committed text speaks of the project alone."""

import ast
import re
import subprocess
import sys

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
    {"errors", "futures", "clock", "channel", "config", "messages", "worker", "backoff", "memory"},
    {"utterances", "windows", "inputs", "lanes", "latency", "engine", "scorer", "track", "batcher", "bucket", "mcap"}
    | {"records", "progress", "cropping", "pictures"}
    | {"broker", "embedded", "mqtt", "node"},
    {"sources", "sinks", "parts", "feed", "runner", "session", "commands", "outlets", "dashboard"}
    | {"recorder", "editing", "verifying", "export"},
    {"live", "replay", "recording", "launch", "devices", "doctor"},
]
# What runs on a machine that has torch, numpy and safetensors, and models/ besides.
CORE = {"stream.engine", "stream.bucket", "stream.errors"}
ENGINE_ALONE = """
import sys

TORCH = "torch torchgen functorch typing_extensions filelock sympy mpmath networkx jinja2 markupsafe fsspec triton"
FREE = {"stream", "models", "numpy", "safetensors", *TORCH.split(), *sys.stdlib_module_names}


class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] not in FREE:
            raise ModuleNotFoundError(f"{name} is refused", name=name)


sys.meta_path.insert(0, Refuse())
try:
    import yaml
except ModuleNotFoundError:
    pass
else:
    sys.exit("nothing is refused")

import models.checkpoint
import models.mmlatch
import numpy as np
import stream.engine
import torch
from stream.bucket import Steps

config = models.mmlatch.CausalMMLatchConfig(text=4, audio=3, vision=2, hidden=8, max_steps=4)
engine = stream.engine.Engine(models.mmlatch.CausalMMLatch.untrained(config), torch.device("cpu"))
slots = [engine.open()]
engine.extend(slots, Steps(np.array([0]), np.array([1]), np.array([[True]]), np.ones((1, 1, 15), np.float32)))
assert abs(engine.settle(slots).sentiment[0]) <= 3
print(*(name for name in sys.modules if name.partition(".")[0] == "stream"))
"""


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


def test_models_and_the_engine_know_torch_numpy_and_safetensors_alone() -> None:
    core = [(name, target) for package in ("models", "stream") for name, target in imports(package)]
    core = [(name, target) for name, target in core if name.startswith("models.") or name in CORE]
    allowed = {"models", "torch", "numpy", "safetensors", *sys.stdlib_module_names}
    others = {(name, target) for name, target in core if target.split(".")[0] not in allowed and target not in CORE}
    assert {(name, target.split(".")[0]) for name, target in others} <= {("models.hub", "huggingface_hub")}
    for node in ast.parse((ROOT / "models" / "hub.py").read_text(encoding="utf-8")).body:
        assert isinstance(node, ast.FunctionDef) or "huggingface_hub" not in ast.unparse(node)


def test_the_engine_runs_where_there_is_nothing_else() -> None:
    found = subprocess.run([sys.executable, "-c", ENGINE_ALONE], cwd=ROOT, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr
    assert set(found.stdout.split()) == {"stream", *CORE}


def test_extractors_know_nothing_of_tasks() -> None:
    assert not [pair for pair in imports("extractors") if pair[1].split(".")[0] in ("asyncio", "queue")]


def test_every_floor_of_the_stream_uses_only_those_below() -> None:
    height = {module: number for number, floor in enumerate(FLOORS) for module in floor}
    modules = {path.stem for path in (ROOT / "stream").iterdir() if path.stem[0] != "_" and path.suffix in ("", ".py")}
    assert modules == set(height)
    for name, target in imports("stream"):
        if name.count(".") and target.startswith("stream."):
            assert height[target.split(".")[1]] <= height[name.split(".")[1]], f"{name} uses {target}"


def test_nothing_is_unpickled_but_by_the_restricted_reader() -> None:
    for package in MAY_USE:
        found = {name for name, target in imports(package) if target.split(".")[0] in ("pickle", "dill", "joblib")}
        assert found <= {"train.data.unpickle"}


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
