from collections import Counter

import pytest

from tests.train.one_line import error_of
from train.data import ravdess, read_corpus
from train.errors import DataError
from train.items import Item, Sound


def name(emotion=3, intensity=1, actor=1):
    return f"03-01-{emotion:02d}-{intensity:02d}-02-01-{actor:02d}.flac"


def read(folder, *names):
    for each in names:
        (folder / each).touch()
    return ravdess.items(folder)


@pytest.mark.parametrize(
    ("number", "emotion", "normal", "strong"),
    [
        (1, "neutral", 0.0, 0.0),  # nothing to be strong about
        (2, "calm", 0.8, 1.4),
        (3, "happy", 1.8, 2.4),
        (4, "sad", -1.6, -2.2),
        (5, "angry", -1.8, -2.4),
        (6, "fearful", -1.4, -2.0),
        (7, "disgust", -1.6, -2.2),
        (8, "surprised", None, None),
    ],
)
def test_a_strong_one_stands_further_out(tmp_path, number, emotion, normal, strong):
    found = read(tmp_path, name(number, 1), name(number, 2))
    assert [item.label for item in found] == [emotion] * 2
    assert [item.sentiment for item in found] == [pytest.approx(value) for value in (normal, strong)]


def test_actors_are_split(tmp_path):
    found = read(tmp_path, *(name(actor=actor) for actor in range(1, 25)))
    assert [item.split for item in found] == ["train"] * 18 + ["valid"] * 2 + ["test"] * 4


def test_recordings_come_by_name_and_nothing_else_is_taken_for_one(tmp_path):
    (tmp_path / "README.txt").touch()
    found = read(tmp_path, name(5, 2, 24), name(4, 1, 3))
    assert found == [
        Item("03-01-04-01-02-01-03", "train", "sad", -1.6, Sound(tmp_path / name(4, 1, 3))),
        Item("03-01-05-02-02-01-24", "test", "angry", -1.8 - 0.6, Sound(tmp_path / name(5, 2, 24))),
    ]


@pytest.mark.parametrize(
    "bad",
    [
        pytest.param("speech.flac", id="another name"),
        pytest.param("03-01-03-01-02-01.flac", id="six fields"),
        pytest.param("03-01-03-01-02-01-01-01.flac", id="eight fields"),
        pytest.param("03-01-xx-01-02-01-01.flac", id="no number"),
        pytest.param("03-01--01-02-01-01.flac", id="a field missing"),
        pytest.param(name(emotion=0), id="emotion 0"),
        pytest.param(name(emotion=9), id="emotion 9"),
        pytest.param(name(intensity=0), id="intensity 0"),
        pytest.param(name(intensity=3), id="intensity 3"),
        pytest.param(name(actor=0), id="actor 0"),
        pytest.param(name(actor=25), id="actor 25"),
    ],
)
def test_a_badly_named_file_is_an_error_and_names_it(tmp_path, bad):
    message = error_of(lambda: read(tmp_path, name(), bad), DataError)
    assert message == f"{tmp_path / bad} is not named as RAVDESS does, like 03-01-05-02-01-01-24.flac"


def test_a_folder_without_recordings(tmp_path):
    (tmp_path / "03-01-05-02-01-01-24.wav").touch()
    message = error_of(lambda: ravdess.items(tmp_path), DataError)
    assert message == f"{tmp_path} holds no recordings; expected files like 03-01-05-02-01-01-24.flac"


def test_the_whole_corpus(shared):
    found = read_corpus("ravdess", shared / "data" / "ravdess")
    assert Counter(item.split for item in found) == {"train": 18 * 60, "valid": 2 * 60, "test": 4 * 60}
    # Each actor has said both sentences twice at both intensities, but for the neutral ones, which have one.
    emotions = Counter(item.label for item in found)
    assert emotions == {emotion: 96 if emotion == "neutral" else 192 for emotion in ravdess.EMOTIONS}
    assert sorted(Counter(item.sentiment for item in found if item.label == "happy").items()) == [(1.8, 96), (2.4, 96)]
    assert {item.label for item in found if item.sentiment is None} == {"surprised"}
    assert len({item.id for item in found}) == 1440
    assert all(item.content.path.is_file() for item in found)
    pleasant = {item.label: item.sentiment for item in found if item.sentiment is not None}
    for groups, right in ((ravdess.POSITIVE, 1), (ravdess.NEGATIVE, -1), (ravdess.NEUTRAL, 0)):
        assert all((pleasant[each] > 0) - (pleasant[each] < 0) == right for each in groups)
