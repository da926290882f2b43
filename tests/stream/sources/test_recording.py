from pathlib import Path

import pytest

from stream.clock import UnpacedClock
from stream.errors import SourceError
from stream.messages import AudioBlock, Transcript, VisionRows
from stream.sources.recording import RecordingSource
from tests.conftest import ROOT

DEMO = ROOT / "stream" / "demo.mcap"


def test_the_demo_says_that_it_is_scripted_and_brings_all_lanes() -> None:
    source = RecordingSource(DEMO)
    packets = list(source.packets(UnpacedClock()))
    source.close()
    assert source.scripted
    assert source.provides == {"audio", "vision_rows", "words"}
    assert source.problems == []
    assert [p.t_ns for p in packets] == sorted(p.t_ns for p in packets)
    assert {type(p) for p in packets} == {AudioBlock, VisionRows, Transcript}


def test_the_demo_s_promises_hold() -> None:
    """No row before what was promised, no word that ends at or before it, no gap in the sound."""
    source = RecordingSource(DEMO)
    sound_ns = rows_ns = words_ns = 0
    for packet in source.packets(UnpacedClock()):
        match packet:
            case AudioBlock(t_ns, samples):
                assert t_ns == sound_ns
                sound_ns += len(samples) * 62_500
            case VisionRows(t_ns, rows):
                assert all(rows_ns <= t < t_ns for t in [*rows.t_ns, *rows.absent_ns])
                rows_ns = t_ns
            case Transcript(t_ns, words):
                assert all(words_ns < word.end_ns <= t_ns for word in words)
                assert all(word.start_ns < word.end_ns for word in words)
                words_ns = t_ns
    source.close()


def test_a_missing_file_is_one_line() -> None:
    with pytest.raises(SourceError, match="cannot be opened"):
        RecordingSource(Path("does-not-exist.mcap"))
