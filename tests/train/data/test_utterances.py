"""Videos of utterances, on a small file written here and on the real one."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.train.one_line import error_of
from train.data.aligned import MODALITIES
from train.data.utterances import read_utterances
from train.errors import DataError

IDS = ["b_1_10", "b_1_9", "a_2", "b_1_11", "c_7", "a_1"]
PARTS = ["train", "train", "train", "train", "test", "train"]
COLUMNS = {"text100": 3, "audio73": 2, "video100": 4}


def arrays(**change: Any) -> dict[str, Any]:
    """Row r is labelled r / 2; its text is all r + 1, its audio r + 101, its vision r + 201."""
    rows = np.arange(len(IDS), dtype=np.float64)
    features = {
        name: np.repeat(rows[:, None] + 100 * number + 1, width, 1) for number, (name, width) in enumerate(COLUMNS.items())
    }
    return {"id": np.array(IDS), "label": rows / 2, "feature_split": np.array(PARTS), **features} | change


def write(path: Path, **change: Any) -> Path:
    np.savez_compressed(path, **arrays(**change))
    return path


def test_utterances_stand_in_the_order_of_their_numbers_and_labels_end_with_the_video(tmp_path: Path) -> None:
    found = read_utterances(write(tmp_path / "a.npz"))
    assert list(found) == ["train", "test"]
    train, test = found["train"], found["test"]
    assert train.ids == ("a", "b_1")  # a video's name may have the separator in it
    assert test.ids == ("c",)
    assert np.array_equal(train.labels, np.array([[2.5, 1.0, np.nan], [0.5, 0.0, 1.5]], np.float32), equal_nan=True)
    assert test.labels.tolist() == [[2.0]]
    for number, m in enumerate(MODALITIES):
        assert train.lengths[m].tolist() == [2, 3]
        assert train.inputs[m].dtype == np.float32
        assert train.inputs[m].shape == (2, 3, list(COLUMNS.values())[number])
        assert train.inputs[m][0, :, 0].tolist() == [6 + 100 * number, 3 + 100 * number, 0]
        assert train.inputs[m][1, :, -1].tolist() == [2 + 100 * number, 1 + 100 * number, 4 + 100 * number]
    assert train.mended == dict.fromkeys(MODALITIES, 0)


def test_what_is_not_finite_is_0_and_counted(tmp_path: Path) -> None:
    audio = np.ones((len(IDS), 2))
    audio[4] = -np.inf, np.nan
    audio[1, 0] = 1e300  # more than a float32 holds
    found = read_utterances(write(tmp_path / "a.npz", audio73=audio))
    assert {part: segments.mended["audio"] for part, segments in found.items()} == {"train": 1, "test": 2}
    assert found["test"].inputs["audio"].tolist() == [[[0.0, 0.0]]]
    assert found["train"].inputs["audio"][1].tolist() == [[0.0, 1.0], [1.0, 1.0], [1.0, 1.0]]


class Hostile:
    def __init__(self, mark: Path) -> None:
        self._mark = mark

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return os.mkdir, (str(self._mark),)


def test_objects_in_a_file_are_refused_and_not_run(tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    path = write(tmp_path / "a.npz", id=np.array([Hostile(mark)] * len(IDS), dtype=object))
    assert "cannot be read as arrays" in error_of(lambda: read_utterances(path), DataError)
    assert not mark.exists()


@pytest.mark.parametrize("share", [0.0, 0.001, 0.5, 0.98])
def test_half_a_file_is_told(tmp_path: Path, share: float) -> None:
    path = write(tmp_path / "a.npz")
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    assert "get the whole file" in error_of(lambda: read_utterances(path), DataError)


@pytest.mark.parametrize("filler", [0x00, 0xFF], ids=["zeros", "ones"])
@pytest.mark.parametrize("place", [0.1, 0.3, 0.5])
def test_damage_inside_a_file_is_told(tmp_path: Path, place: float, filler: int) -> None:
    path = write(tmp_path / "a.npz", text100=np.random.default_rng(0).normal(size=(len(IDS), 3000)))
    data = bytearray(path.read_bytes())
    first = int(place * len(data))
    data[first : first + 4000] = bytes([filler]) * 4000
    path.write_bytes(data)
    assert str(path) in error_of(lambda: read_utterances(path), DataError)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"feature_split": np.array(["train"] * 6)}, "no utterance of feature_split test"),
        ({"label": np.zeros(2)}, "not a row an utterance"),
        ({"id": np.array([*IDS[:5], "b"])}, "id b, expected the video's name, _ and the utterance's number"),
        ({"id": np.array([*IDS[:5], "a_x"])}, "id a_x, expected"),
        ({"id": np.array([*IDS[:5], "7"])}, "id 7, expected"),
        ({"id": np.array([*IDS[:5], IDS[0]])}, "two utterances have the same id"),
        ({"id": np.array([b"a_1"] * 6)}, "ids are no text"),
        ({"id": np.array([*IDS[:5], "c_1"])}, "c in train and test; expected all utterances of a video in one of them"),
        ({"label": np.array([0, 0, 0, 0, 0, 3.5])}, "a label is none from -3 to 3"),
        ({"label": np.array([0, 0, 0, 0, 0, np.nan])}, "a label is none from -3 to 3"),
        ({"text100": np.array([["a"]] * 6)}, "labels or features are no numbers"),
        ({"feature_split": np.array([*PARTS[:5], "Train"])}, "feature_split Train, expected train, test"),
        ({"audio73": np.zeros(6)}, "not a row an utterance"),
        ({"feature_split": np.array([*PARTS[:3], "test"])}, "not a row an utterance"),
    ],
)
def test_what_does_not_fit_is_one_line(tmp_path: Path, change: dict[str, Any], expected: str) -> None:
    path = write(tmp_path / "a.npz", **change)
    assert expected in error_of(lambda: read_utterances(path), DataError)


def test_what_is_lacking_is_named(tmp_path: Path) -> None:
    given = arrays()
    del given["audio73"]
    np.savez(tmp_path / "a.npz", **given)
    text = error_of(lambda: read_utterances(tmp_path / "a.npz"), DataError)
    assert "audio73" in text
    assert "expected id, label, feature_split, text100, audio73, video100" in text
    assert "cannot be read" in error_of(lambda: read_utterances(tmp_path / "none.npz"), DataError)
    np.save(tmp_path / "b.npz.npy", np.zeros(3))
    assert "cannot be read" in error_of(lambda: read_utterances(tmp_path / "b.npz.npy"), DataError)


def test_the_real_file(shared: Path) -> None:
    path = shared / "data" / "mosi" / "utterance_features.npz"
    if not path.exists():
        pytest.skip("no features of utterances among the shared data")
    found = read_utterances(path)
    assert {part: len(segments.ids) for part, segments in found.items()} == {"train": 62, "test": 31}
    counts = {part: int(np.isfinite(segments.labels).sum()) for part, segments in found.items()}
    assert counts == {"train": 1447, "test": 752}
    assert not set(found["train"].ids) & set(found["test"].ids)
    for segments in found.values():
        assert [segments.inputs[m].shape[2] for m in MODALITIES] == [100, 73, 100]
        assert np.abs(segments.labels[np.isfinite(segments.labels)]).max() <= 3
        for m in MODALITIES:
            there = np.arange(segments.labels.shape[1]) < segments.lengths[m][:, None]
            assert np.array_equal(np.isfinite(segments.labels), there)
            assert np.isfinite(segments.inputs[m]).all()
            assert (segments.inputs[m][~there] == 0).all()
            assert (segments.inputs[m][there] != 0).any()
