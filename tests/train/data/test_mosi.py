from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from extractors.text import normalise
from tests.train.one_line import error_of
from train.data import mosi, read_corpus
from train.errors import DataError
from train.items import Item, Text

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
        pytest.param(HEADER + ROW.replace("2.4", ""), "line 2: could not convert string to float: ''", id="no label"),
        pytest.param(HEADER + ROW.replace("55.945", "inf"), "line 2: cannot convert float infinity", id="endless"),
    ],
)
def test_says_what_is_wrong_in_one_line(path, text, message):
    path.write_text(text)
    with pytest.raises(DataError, match=message) as raised:
        mosi.read(path)
    assert "\n" not in str(raised.value)


# --- words with times


def folder_of(tmp_path, rows, videos):
    """A corpus with these rows, and words heard in its videos, each with its start and end in seconds."""
    h5py = pytest.importorskip("h5py")
    (tmp_path / mosi.TABLE).write_text(HEADER + "".join(rows))
    with h5py.File(tmp_path / mosi.TIMES, "w") as file:
        for video, heard in videos.items():
            words = np.array([[word.encode()] for word, _, _ in heard], "S32").reshape(-1, 1)
            file[f"words/data/{video}/features"] = words
            file[f"words/data/{video}/intervals"] = np.array([times for _, *times in heard], np.float64).reshape(-1, 2)
    return tmp_path


def row(text, number=1, start=10.0, end=14.0, video="abc", sentiment=1.0):
    return f'{video}_{number},{video},"{text}",{sentiment},{start},{end},train\n'


def ends(tmp_path, text, heard):
    """When the words of an utterance from second 10 to 14 end, in seconds since it began."""
    (item,) = mosi.items(folder_of(tmp_path, [row(text)], {"abc": heard}))
    assert item.content.words == tuple(text.lower().split())
    return [end_ns / 1e9 for end_ns in item.content.ends_ns]


def test_a_word_ends_where_the_aligner_heard_it_end(tmp_path):
    heard = [
        ("before", 9, 10.0),
        ("it", 10, 10.5),
        ("sp", 10.5, 11),
        ("was", 11, 11.25),
        ("good", 11.5, 14.0),
        ("after", 14, 14.5),
    ]
    rows = [row("IT WAS, GOOD!", sentiment=-2)]
    (item,) = mosi.items(folder_of(tmp_path, rows, {"abc": heard}))
    assert item == Item(
        "abc_1",
        "train",
        "negative",
        -2.0,
        Text(("it", "was", "good"), (500_000_000, 1_250_000_000, 4_000_000_000), 4_000_000_000),
    )


def test_words_that_the_aligner_did_not_hear_are_spread_between_those_around_them(tmp_path):
    heard = [("one", 10, 11.0), ("other", 11, 12), ("four", 12, 12.5), ("five", 12.5, 13)]
    assert ends(tmp_path, "one two three four five", heard) == pytest.approx([1.0, 1.5, 2.0, 2.5, 3.0])


def test_words_before_the_first_that_was_heard_are_spread_over_the_time_before_it(tmp_path):
    assert ends(tmp_path, "a b c heard", [("heard", 10, 12.0)]) == pytest.approx([0.5, 1.0, 1.5, 2.0])


def test_words_after_the_last_that_was_heard_are_spread_over_what_is_left():
    second = 1_000_000_000
    found = mosi._placed(["known", "b", "c", "d", "e"], ["known", "mumble"], [second, 9 * second], 3 * second)
    assert found == [second * share // 2 for share in (2, 3, 4, 5, 6)]
    assert mosi._placed(["known", "b"], ["known"], [4 * second], 3 * second) == [4 * second] * 2


def test_times_never_decrease_even_where_the_aligners_do(tmp_path):
    heard = [("one", 10, 12.0), ("two", 10, 11.0), ("three", 12, 13.0)]
    assert ends(tmp_path, "one two three", heard) == pytest.approx([2.0, 2.0, 3.0])


@pytest.mark.parametrize(
    "heard",
    [
        pytest.param([], id="nothing"),
        pytest.param([("other", 10, 12.0)], id="other words"),
        pytest.param([("one", 1, 2.0), ("two", 20, 21.0)], id="at other times"),
    ],
)
def test_an_utterance_none_of_whose_words_was_heard_has_no_times(tmp_path, heard):
    (item,) = mosi.items(folder_of(tmp_path, [row("one two")], {"abc": heard}))
    assert item.content == Text(("one", "two"))


def test_a_word_that_is_two_when_normalised_ends_as_one(tmp_path):
    assert ends(tmp_path, "a well made film", [("well-made", 10, 11.0), ("film", 11, 12.0)]) == pytest.approx([0.5, 1, 1, 2])


def test_words_are_looked_for_in_the_utterances_own_video_and_time(tmp_path):
    rows = [row("yes", 1, 10, 11), row("yes", 2, 11, 12), row("yes", 1, 10, 11, video="xyz"), row("...", 3, 12, 13)]
    heard = {"abc": [("yes", 10, 10.5), ("yes", 11, 11.75)], "xyz": [("yes", 10, 10.25)], "other": []}
    found = mosi.items(folder_of(tmp_path, rows, heard))
    assert [(item.id, item.content.ends_ns) for item in found] == [
        ("abc_1", (500_000_000,)),
        ("abc_2", (750_000_000,)),
        ("xyz_1", (250_000_000,)),
    ]


@settings(max_examples=200, deadline=None)
@given(
    words=st.lists(st.sampled_from("abcd"), min_size=1, max_size=12),
    heard=st.lists(st.tuples(st.sampled_from("abcdx"), st.integers(1000, 10**10)), max_size=12),
    length_ns=st.integers(1000, 10**10),
)
def test_each_word_has_a_time_of_its_own_that_does_not_decrease_and_lies_in_the_utterance(words, heard, length_ns):
    heard.sort(key=lambda each: each[1])
    found = mosi._placed(words, [word for word, _ in heard], [end_ns for _, end_ns in heard], length_ns)
    if not set(words) & {word for word, _ in heard}:
        assert found == []
        return
    assert len(found) == len(words)
    assert found == sorted(found)
    assert found[0] > 0
    assert found[-1] <= max(length_ns, heard[-1][1])
    assert set(found) & {end_ns for word, end_ns in heard if word in words}


def test_a_video_that_is_missing_is_an_error(tmp_path):
    folder = folder_of(tmp_path, [row("yes"), row("no", video="xyz")], {"abc": [("yes", 10, 11)]})
    message = error_of(lambda: mosi.items(folder), DataError)
    assert message == f"{folder / mosi.TIMES} lacks the video xyz; get the whole file"


@pytest.mark.parametrize("what", ["words", "words/data", "words/data/abc/intervals", "words/data/abc/features"])
@pytest.mark.parametrize("instead", [None, np.zeros(2), np.zeros((3, 2))], ids=["nothing", "a row", "a table"])
def test_a_file_of_another_kind_is_an_error(tmp_path, what, instead):
    folder = folder_of(tmp_path, [row("yes")], {"abc": [("yes", 10, 11)]})
    import h5py

    with h5py.File(folder / mosi.TIMES, "r+") as file:
        del file[what]
        if instead is not None:
            file[what] = instead
    message = error_of(lambda: mosi.items(folder), DataError)
    assert message.startswith(f"{folder / mosi.TIMES} ")


@pytest.mark.parametrize(
    "content", [None, b"", b"no HDF5", b"\x89HDF\r\n\x1a\n" + bytes(1000)], ids=["missing", "empty", "text", "header"]
)
def test_times_that_cannot_be_read(tmp_path, content):
    pytest.importorskip("h5py")
    (tmp_path / mosi.TABLE).write_text(HEADER + ROW)
    if content is not None:
        (tmp_path / mosi.TIMES).write_bytes(content)
    message = error_of(lambda: mosi.items(tmp_path), DataError)
    assert message.startswith(f"{tmp_path / mosi.TIMES} cannot be read as a computational sequence: ")


@pytest.mark.parametrize(
    ("damage", "why"),
    [
        pytest.param(lambda whole: whole[: len(whole) // 2], "truncated file", id="cut"),
        pytest.param(lambda whole: whole.replace(b"SNOD", b"snod"), "bad symbol table node signature", id="folders"),
        pytest.param(lambda whole: whole.replace(b"really\0", b"r\xe9ally\0"), "can't decode byte 0xe9", id="words"),
    ],
)
def test_a_damaged_copy_of_the_real_times(shared, tmp_path, damage, why):
    (tmp_path / mosi.TIMES).write_bytes(damage((shared / "data" / "mosi" / mosi.TIMES).read_bytes()))
    message = error_of(lambda: mosi.word_times(tmp_path / mosi.TIMES, {"03bSnISJMiM"}), DataError)
    assert why in message


def test_the_whole_corpus(shared):
    folder = shared / "data" / "mosi"
    utterances = {utterance.id: utterance for utterance in mosi.read(folder / mosi.TABLE)}
    found = read_corpus("mosi", folder)
    assert [item.id for item in found] == list(utterances)  # all have words
    assert Counter(item.split for item in found) == {"train": 1284, "valid": 229, "test": 686}
    assert sum(not item.content.ends_ns for item in found) <= 10
    for item in found:
        utterance = utterances[item.id]
        assert (item.sentiment, item.split) == (utterance.sentiment, utterance.split)
        assert list(item.content.words) == normalise(utterance.text)
        ends_ns, length_ns = item.content.ends_ns, item.content.length_ns
        if ends_ns:
            assert len(ends_ns) == len(item.content.words)
            assert 0 <= length_ns - (utterance.end_ns - utterance.start_ns) <= 1_000_000_000  # to the end of the last word
            assert list(ends_ns) == sorted(ends_ns)
            assert 0 < ends_ns[0] <= ends_ns[-1] <= length_ns
