from collections import Counter

import pytest

from tests.train.one_line import error_of
from train.data import mosei, read_corpus
from train.errors import DataError
from train.items import Clip, Item

HEADER = "video,segment,start,end,sentiment,happy,split\n"
ROW = "abc,0,1.5,3.25,1.6666,0.0,valid\n"


@pytest.fixture
def path(tmp_path):
    return tmp_path / "labels.csv"


def read(path, text):
    path.write_text(text)
    return mosei.items(path.parent)


def test_a_segment_is_a_part_of_its_video_which_need_not_be_there(path):
    found = read(path, HEADER + ROW + "-3nN,12,0,7.001,-3,0,train\nabc,1,3.25,4,0,0,test\n")
    assert found == [
        Item("abc-0", "valid", "positive", 1.6666, Clip(path.parent / "abc.mp4", 1_500_000_000, 3_250_000_000)),
        Item("-3nN-12", "train", "negative", -3.0, Clip(path.parent / "-3nN.mp4", 0, 7_001_000_000)),
        Item("abc-1", "test", "neutral", 0.0, Clip(path.parent / "abc.mp4", 3_250_000_000, 4_000_000_000)),
    ]


def test_a_segment_that_begins_before_its_video_begins_with_it(path):
    (item,) = read(path, HEADER + ROW.replace("1.5,", "-0.487528344671,"))
    assert item.content == Clip(path.parent / "abc.mp4", 0, 3_250_000_000)


def test_a_segment_of_no_split_is_left_out(path):
    assert [item.id for item in read(path, HEADER + ROW.replace("valid", "none") + ROW.replace("abc", "xyz"))] == ["xyz-0"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param(
            HEADER.replace("split", "fold"), f" lacks the column split; it must have {', '.join(mosei.COLUMNS)}", id="column"
        ),
        pytest.param(ROW + ROW.replace("1.6666", "3.01"), ", line 3: sentiment must lie in [-3, 3], got 3.01", id="sentiment"),
        pytest.param(ROW.replace("1.6666", "nan"), ", line 2: sentiment must lie in [-3, 3], got nan", id="nan"),
        pytest.param(ROW.replace("1.6666", ""), ", line 2: could not convert string to float: ''", id="no label"),
        pytest.param(
            ROW.replace("3.25", "1.5"), ", line 2: start must be 0 or later and before end, got 1.5 and 1.5", id="empty"
        ),
        pytest.param(
            ROW.replace("1.5", "-0.6"), ", line 2: start must be 0 or later and before end, got -0.6 and 3.25", id="early"
        ),
        pytest.param(
            ROW.replace("1.5,3.25", "-0.4,-0.1"),
            ", line 2: start must be 0 or later and before end, got -0.4 and -0.1",
            id="before",
        ),
        pytest.param(ROW.replace("3.25", "inf"), ", line 2: cannot convert float infinity to integer", id="infinite"),
        pytest.param(ROW.replace("3.25", "nan"), ", line 2: cannot convert float NaN to integer", id="no time"),
        pytest.param(ROW.replace("valid", "dev"), ", line 2: split must be one of train, valid, test, got dev", id="split"),
        pytest.param("abc,0,1.5,3.25,1\n", ", line 2: split must be one of train, valid, test, got ", id="short row"),
    ],
)
def test_says_what_is_wrong_in_one_line(path, text, message):
    text = text if text.startswith("video") else HEADER + text
    assert error_of(lambda: read(path, text), DataError) == f"{path}{message}"


def test_a_table_that_is_not_there(path):
    assert error_of(lambda: mosei.items(path.parent), DataError) == f"{path} cannot be read: No such file or directory"


def test_the_whole_corpus(shared):
    folder = shared / "data" / "mosei"
    found = read_corpus("mosei", folder)
    assert Counter(item.split for item in found) == {"train": 16_327, "valid": 1_871, "test": 4_662}
    assert len({item.id for item in found}) == len(found)
    for item in found:
        assert item.sentiment is not None
        assert -3 <= item.sentiment <= 3
        assert 0 <= item.content.start_ns < item.content.end_ns
    there = [item for item in found if item.content.path.exists()]
    assert [(item.id, item.split, item.content.start_ns) for item in there] == [
        ("-3nNcZdcdvU-0", "train", 0),
        ("-3nNcZdcdvU-1", "train", 12_014_000_000),
        ("-3nNcZdcdvU-2", "train", 36_399_000_000),
    ]
