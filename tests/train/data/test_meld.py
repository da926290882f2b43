from collections import Counter

import pytest

from tests.train.one_line import error_of
from train import scale
from train.data import meld, read_corpus
from train.errors import DataError
from train.items import SPLITS, Item, Text

HEADER = "dialogue_id,utterance_id,speaker,utterance,emotion,sentiment\n"
ROW = "3,7,Ross,What?,surprise,negative\n"


@pytest.fixture
def folder(tmp_path):
    for split in SPLITS:
        (tmp_path / f"{split}.csv").write_text(HEADER + ROW)
    return tmp_path


def test_lines_are_named_by_split_dialogue_and_utterance(folder):
    assert meld.items(folder) == [
        Item(f"{split}-3-7", split, "negative", -1.0, Text(("what",))) for split in ("train", "valid", "test")
    ]


@pytest.mark.parametrize(
    ("sentiment", "emotion", "value"),
    [
        ("positive", "joy", 1.8),
        ("positive", "surprise", 1.2),
        ("neutral", "neutral", 0.0),
        ("negative", "surprise", -1.0),
        ("negative", "fear", -1.2),
        ("negative", "sadness", -1.6),
        ("negative", "disgust", -1.8),
        ("negative", "anger", -1.8),
    ],
)
def test_a_line_is_placed_by_sentiment_and_emotion(folder, sentiment, emotion, value):
    (folder / "train.csv").write_text(HEADER + f'0,0,Joey,"Hey, you!",{emotion},{sentiment}\n')
    assert meld.items(folder)[0] == Item("train-0-0", "train", sentiment, value, Text(("hey", "you")))


def test_a_line_without_words_is_left_out(folder):
    (folder / "test.csv").write_text(HEADER + ROW.replace("What?", "…!") + ROW.replace("3,7", "3,8"), encoding="utf-8")
    assert [item.id for item in meld.items(folder)] == ["train-3-7", "valid-3-7", "test-3-8"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param(
            HEADER.replace("emotion,", ""), f" lacks the column emotion; it must have {', '.join(meld.COLUMNS)}", id="column"
        ),
        pytest.param(HEADER + ROW + ROW.replace("surprise", "joy"), ", line 3: ('negative', 'joy') is not known", id="pair"),
        pytest.param(HEADER + ROW.replace("surprise", "Joy"), ", line 2: ('negative', 'Joy') is not known", id="emotion"),
        pytest.param(HEADER + "3,7,Ross,What?\n", ", line 2: ('', '') is not known", id="no label"),
        pytest.param(HEADER + "3,7,Ross,…,surprise\n", ", line 2: ('', 'surprise') is not known", id="no label, no words"),
    ],
)
def test_says_what_is_wrong_in_one_line(folder, text, message):
    (folder / "valid.csv").write_text(text, encoding="utf-8")
    assert error_of(lambda: meld.items(folder), DataError) == f"{folder / 'valid.csv'}{message}"


@pytest.mark.parametrize("split", SPLITS)
def test_a_split_that_is_not_there(folder, split):
    (folder / f"{split}.csv").unlink()
    message = error_of(lambda: meld.items(folder), DataError)
    assert message == f"{folder / split}.csv cannot be read: No such file or directory"


def test_the_whole_corpus(shared):
    found = read_corpus("meld", shared / "data" / "meld")
    # One line to train has no words.
    assert Counter(item.split for item in found) == {"train": 9988, "valid": 1109, "test": 2610}
    assert Counter(item.label for item in found if item.split == "test") == {"neutral": 1256, "negative": 833, "positive": 521}
    assert len({item.id for item in found}) == len(found)
    assert {item.sentiment for item in found} == set(scale.MELD.values())
    for item in found:
        assert item.content.words
        assert {"positive": item.sentiment > 0, "neutral": item.sentiment == 0, "negative": item.sentiment < 0}[item.label]
