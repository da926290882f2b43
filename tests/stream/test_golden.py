"""Scores that were right once: a dependency that changes what is computed shows here, before it shows in a living room."""

import json

import numpy as np
import pytest

from stream.live import main
from tests.conftest import ROOT

# Of the untrained model, whose weights are drawn from a fixed seed. Write it anew, on purpose, when features or model change:
#   python -m stream.live --source demo --model untrained --speed max --format jsonl, the finals' sentiment and uncertainty
GOLDEN = ROOT / "tests" / "stream" / "golden" / "demo.json"


def test_the_demo_scores_as_it_always_did(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--source", "demo", "--model", "untrained", "--speed", "max", "--format", "jsonl"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    found = [[line["sentiment"], line["uncertainty"]] for line in lines if line["kind"] == "final"]
    # Other processors add up in another order; other features would be off by far more.
    np.testing.assert_allclose(found, json.loads(GOLDEN.read_text()), atol=2e-3)
