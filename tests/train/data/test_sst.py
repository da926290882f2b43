from collections import Counter

import pytest

from extractors.text import normalise
from tests.train.one_line import error_of
from train import scale
from train.data import read_corpus, sst
from train.errors import DataError
from train.items import SPLITS, Item, Text

HEADER = "label,text\n"


@pytest.fixture
def folder(tmp_path):
    for split in SPLITS:
        (tmp_path / f"{split}.csv").write_text(HEADER + f'3,"A fine, {split} film ."\n')
    return tmp_path


def test_sentences_are_normalised_and_placed_on_the_scale(folder):
    (folder / "train.csv").write_text(HEADER + "".join(f"{label},it 's WELL-MADE\n" for label in range(5)))
    found = sst.items(folder)
    assert [item.sentiment for item in found if item.split == "train"] == [-2.4, -1.2, 0.0, 1.2, 2.4]
    assert [item.label for item in found if item.split == "train"] == list("01234")
    assert found[0].content == Text(("it", "s", "well", "made"))
    assert found[5:] == [
        Item("valid-0", "valid", "3", 1.2, Text(("a", "fine", "valid", "film"))),
        Item("test-0", "test", "3", 1.2, Text(("a", "fine", "test", "film"))),
    ]


def test_a_sentence_without_words_is_left_out_and_the_others_keep_their_names(folder):
    (folder / "valid.csv").write_text(HEADER + "1,no\n2,...\n4,yes\n")
    assert [item.id for item in sst.items(folder)] == ["train-0", "valid-0", "valid-2", "test-0"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param("label,sentence\n", " lacks the column text; it must have label, text", id="column"),
        pytest.param(HEADER + "0,a\n5,b\n", ", line 3: label must be one of 0, 1, 2, 3, 4, got 5", id="label"),
        pytest.param(HEADER + "-1,b\n", ", line 2: label must be one of 0, 1, 2, 3, 4, got -1", id="negative"),
        pytest.param(HEADER + "good,b\n", ", line 2: invalid literal for int() with base 10: 'good'", id="word"),
        pytest.param(HEADER + ",b\n", ", line 2: invalid literal for int() with base 10: ''", id="no label"),
    ],
)
def test_says_what_is_wrong_in_one_line(folder, text, message):
    (folder / "valid.csv").write_text(text)
    assert error_of(lambda: sst.items(folder), DataError) == f"{folder / 'valid.csv'}{message}"


@pytest.mark.parametrize("split", SPLITS)
def test_a_split_that_is_not_there(folder, split):
    (folder / f"{split}.csv").unlink()
    message = error_of(lambda: sst.items(folder), DataError)
    assert message == f"{folder / split}.csv cannot be read: No such file or directory"


def test_a_folder_that_is_not_there(tmp_path):
    message = error_of(lambda: read_corpus("sst", tmp_path / "sst"), DataError)
    assert message == f"{tmp_path / 'sst'} is missing; sst is expected there (docs/training.md says what it needs)"


def test_the_whole_corpus(shared):
    found = read_corpus("sst", shared / "data" / "sst")
    assert Counter(item.split for item in found) == {"train": 8544, "valid": 1101, "test": 2210}  # each has words
    assert Counter(item.label for item in found if item.split == "test") == {"0": 279, "1": 633, "2": 389, "3": 510, "4": 399}
    assert len({item.id for item in found}) == len(found)
    for item in found:
        assert item.sentiment == scale.SST[int(item.label)]
        assert item.content.words
        assert list(item.content.words) == normalise(" ".join(item.content.words))
        assert (item.content.ends_ns, item.content.length_ns) == ((), 0)
