from pathlib import Path

import numpy as np
import pytest

from extractors.asr.recogniser import Word
from stream.clock import UnpacedClock
from stream.errors import SourceError
from stream.messages import AudioBlock, Packet, Transcript
from stream.sources.words import TranscribedSource, read_words

HEADER = "word,start_s,end_s\n"


class Sounds:
    """A file with a block of sound every quarter of a second."""

    name, scripted, live = "talk.wav", False, False
    provides = frozenset({"audio"})

    def __init__(self, *, live: bool = False, words: bool = False) -> None:
        self.live, self.closed = live, False
        self.problems: list[str] = []
        self.provides = frozenset({"audio", "words"}) if words else frozenset({"audio"})

    def packets(self, clock: object):
        for t in range(0, 1_000_000_000, 250_000_000):
            yield AudioBlock(t, np.zeros(4000, np.int16))
        self.problems.append("cut short")

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "talk.csv"


def test_words_come_when_they_have_ended_and_the_last_ones_after_the_sound(path: Path) -> None:
    path.write_text(HEADER + "i,0,0.1\nlove,0.2,0.25\nit,0.3,0.9\n")
    inner = Sounds()
    source = TranscribedSource(inner, path)
    packets: list[Packet] = list(source.packets(UnpacedClock()))
    told = [(packet.t_ns, [word.text for word in packet.words]) for packet in packets if isinstance(packet, Transcript)]
    assert told == [(0, []), (250_000_000, ["i", "love"]), (500_000_000, []), (750_000_000, []), (900_000_000, ["it"])]
    assert [packet.t_ns for packet in packets if isinstance(packet, AudioBlock)] == list(range(0, 10**9, 250_000_000))
    assert source.provides == {"audio", "words"}
    assert source.problems == ["cut short"]
    source.close()
    assert inner.closed


def test_times_are_integer_nanoseconds(path: Path) -> None:
    path.write_text(HEADER + "yes,0.1,0.3\n")
    assert read_words(path) == [Word("yes", 100_000_000, 300_000_000)]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("word,start_s\nno,1\n", "lacks the column end_s; it must have word, start_s, end_s"),
        (HEADER + "no,1,1\n", "line 2: 1 to 1 cannot be"),
        (HEADER + "no,1,2\nyes,0.5,1.5\n", "line 3: 0.5 to 1.5 cannot be.*ends before the one above"),
        (HEADER + "no,one,two\n", "line 2: one to two cannot be; expected seconds"),
        (HEADER + "no,0,inf\n", "line 2"),
        (HEADER + "no\n", "line 2"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(path: Path, text: str, message: str) -> None:
    path.write_text(text)
    with pytest.raises(SourceError, match=message) as raised:
        read_words(path)
    assert "\n" not in str(raised.value)


def test_a_file_that_is_not_there_or_no_text(path: Path) -> None:
    with pytest.raises(SourceError, match=r"cannot be read \(No such file"):
        read_words(path)
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(SourceError, match="cannot be read"):
        read_words(path)


def test_a_live_source_and_one_with_words_of_its_own_take_none(path: Path) -> None:
    path.write_text(HEADER)
    for source, reason in ((Sounds(live=True), "is live"), (Sounds(words=True), "has words of its own")):
        with pytest.raises(SourceError, match=f"--words .* talk.wav {reason}; leave the option out"):
            TranscribedSource(source, path)
