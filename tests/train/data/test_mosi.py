import pytest

from train.data import mosi
from train.errors import DataError

HEADER = "id,video,text,sentiment,start,end,split\n"
ROW = 'abc_1,abc,"WELL, IT WAS",2.4,51.905,55.945,train\n'


@pytest.fixture
def path(tmp_path):
    return tmp_path / "utterances.csv"


def test_reads_in_order_with_integer_nanoseconds(path):
    path.write_text(HEADER + ROW + "abc_2,abc,NO,-3,0,0.1,test\nxyz_1,xyz,YES,0,7,7,valid\n")
    assert mosi.read(path) == [
        mosi.Utterance("abc_1", "abc", "WELL, IT WAS", 2.4, 51_905_000_000, 55_945_000_000, "train"),
        mosi.Utterance("abc_2", "abc", "NO", -3.0, 0, 100_000_000, "test"),
        mosi.Utterance("xyz_1", "xyz", "YES", 0.0, 7_000_000_000, 7_000_000_000, "valid"),
    ]


def test_missing_file(path):
    with pytest.raises(DataError, match=r"utterances.csv cannot be read: No such file"):
        mosi.read(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param("id,video,text,start,end\n", "lacks the column sentiment, split;", id="columns"),
        pytest.param("", "lacks the column id,", id="empty"),
        pytest.param(HEADER + ROW + ROW.replace("2.4", "high"), "line 3: could not convert .*'high'", id="no number"),
        pytest.param(HEADER + ROW.replace("2.4", "3.5"), r"line 2: sentiment must lie in \[-3, 3\], got 3.5", id="sentiment"),
        pytest.param(HEADER + ROW.replace("2.4", "nan"), "line 2: sentiment", id="nan"),
        pytest.param(HEADER + ROW.replace("55.945", "51.904"), "line 2: start must be", id="backwards"),
        pytest.param(HEADER + ROW.replace("train", "dev"), "line 2: split must be one of", id="split"),
        pytest.param(HEADER + "abc_1,abc,NO\n", "line 2: ", id="short row"),
    ],
)
def test_says_what_is_wrong_in_one_line(path, text, message):
    path.write_text(text)
    with pytest.raises(DataError, match=message) as raised:
        mosi.read(path)
    assert "\n" not in str(raised.value)
