from dataclasses import replace

import numpy as np
import pytest

from extractors import audio, face, text
from extractors.contract import FeatureContract, FeatureRows

CONTRACT = FeatureContract("audio", 1, ("level_db", "pitch_hz"), {"hop": 160, "frame": 400})


def test_equal_contracts_have_equal_digests():
    again = FeatureContract("audio", 1, ("level_db", "pitch_hz"), {"frame": 400, "hop": 160})
    assert again.digest == CONTRACT.digest
    assert len(CONTRACT.digest) == 16
    int(CONTRACT.digest, 16)


def test_the_digest_does_not_depend_on_the_process():
    # Computed once, by hand: sha256 of the sorted JSON. Checkpoints store it, so it must never change for the same contract.
    assert CONTRACT.digest == "7ff04d3763e78b73"
    assert CONTRACT.tag == "audio.1@7ff04d3763e78b73"


@pytest.mark.parametrize(
    "change",
    [
        {"name": "sound"},
        {"version": 2},
        {"columns": ("pitch_hz", "level_db")},
        {"columns": ("level_db", "pitch_khz")},
        {"parameters": {"hop": 160, "frame": 401}},
        {"parameters": {"hop": 160}},
        {"parameters": {"hop": 400, "frame": 160}},
    ],
    ids=str,
)
def test_any_change_changes_the_digest_and_the_tag(change):
    assert replace(CONTRACT, **change).digest != CONTRACT.digest
    assert replace(CONTRACT, **change).tag != CONTRACT.tag


@pytest.mark.parametrize("contract", [audio.CONTRACT, face.CONTRACT, text.CONTRACT], ids=lambda contract: contract.name)
def test_columns_have_names_of_their_own(contract):
    assert len(set(contract.columns)) == len(contract.columns)


def test_lanes_have_contracts_of_their_own():
    assert len({contract.digest for contract in (audio.CONTRACT, face.CONTRACT, text.CONTRACT)}) == 3


def test_no_parts_give_no_rows_of_the_width():
    rows = FeatureRows.concatenate([], 3)
    assert rows.values.shape == (0, 3)
    assert (rows.t_ns.dtype, rows.values.dtype, rows.absent_ns.dtype) == (np.int64, np.float32, np.int64)
    assert len(rows.t_ns) == len(rows.absent_ns) == 0


def test_parts_follow_each_other():
    def part(t: int, count: int) -> FeatureRows:
        return FeatureRows(
            np.arange(t, t + count, dtype=np.int64), np.full((count, 2), t, np.float32), np.array([t + 50], np.int64)
        )

    rows = FeatureRows.concatenate([part(0, 2), FeatureRows.empty(2), part(100, 1)], 2)
    assert rows.t_ns.tolist() == [0, 1, 100]
    assert rows.values.tolist() == [[0, 0], [0, 0], [100, 100]]
    assert rows.absent_ns.tolist() == [50, 150]
