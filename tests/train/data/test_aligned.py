"""The files of MulT, MMSA and the CMU SDK, small ones written from the formats' descriptions, give the same segments."""

import pickle
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from tests.train.one_line import error_of
from train.data.aligned import MODALITIES, Segments, read_mmsa, read_mult
from train.data.sdk import ComputationalSequence, averaged, read_sdk
from train.errors import DataError
from train.items import SPLITS

WIDTHS = {"text": 5, "audio": 4, "vision": 3}
LENGTHS = [3, 6, 1]
RANDOM = np.random.default_rng(0)


def steps(m: str, length: int) -> Any:
    """Features without a zero, so that padding can be told apart."""
    return RANDOM.normal(size=(length, WIDTHS[m])) + 5


ROWS = {m: [steps(m, length) for length in LENGTHS] for m in MODALITIES}
LABELS = [-1.2, 0.0, 3.0]


def padded(m: str, *, front: bool, size: int = 6) -> Any:
    x = np.zeros((len(LENGTHS), size, WIDTHS[m]))
    for row, each in zip(x, ROWS[m], strict=True):
        row[size - len(each) :] = each if front else 0
        if not front:
            row[: len(each)] = each
    return x


def mult(**change: Any) -> dict[str, Any]:
    split = {m: padded(m, front=True) for m in MODALITIES}
    ids = np.array([["video", str(n), str(n + 1)] for n in range(3)])
    split |= {"labels": np.array(LABELS).reshape(3, 1, 1), "id": ids} | change
    return {name: dict(split) for name in SPLITS}


def mmsa(**change: Any) -> dict[str, Any]:
    split: dict[str, Any] = {m: padded(m, front=False) for m in MODALITIES}
    mask = np.array([[n < length for n in range(6)] for length in LENGTHS], int)
    split |= {
        "text_bert": np.stack([mask, mask, mask], 1),
        "regression_labels": np.array(LABELS),
        "raw_text": ["a", "b", "c"],
        "id": [f"video$_${n}" for n in range(3)],
    } | change
    return {name: dict(split) for name in SPLITS}


def write(path: Path, value: Any) -> Path:
    path.write_bytes(pickle.dumps(value))
    return path


def check(found: Segments) -> None:
    assert found.lengths["audio"].tolist() == LENGTHS
    assert found.labels.tolist() == pytest.approx(LABELS)
    for m in MODALITIES:
        for row, each in zip(found.inputs[m], ROWS[m], strict=True):
            assert np.allclose(row[: len(each)], each)
            assert (row[len(each) :] == 0).all()


def test_a_file_of_mult_and_one_of_mmsa_hold_the_same(tmp_path: Path) -> None:
    from_mult = dict(read_mult(write(tmp_path / "a.pkl", mult())))
    from_mmsa = dict(read_mmsa(write(tmp_path / "b.pkl", mmsa())))
    for split in SPLITS:
        check(from_mult[split])
        check(from_mmsa[split])
    assert from_mult["train"].ids == ("video_0_1", "video_1_2", "video_2_3")
    assert from_mmsa["test"].ids == ("video$_$0", "video$_$1", "video$_$2")


def test_lengths_of_a_file_that_is_not_aligned_are_its_own(tmp_path: Path) -> None:
    long = np.ones((3, 20, 4))
    found = dict(read_mmsa(write(tmp_path / "a.pkl", mmsa(audio=long, audio_lengths=[20, 7, 0]))))["valid"]
    assert found.lengths["audio"].tolist() == [20, 7, 1]
    assert found.lengths["text"].tolist() == LENGTHS


def test_in_an_aligned_file_a_word_without_sound_or_face_is_a_word(tmp_path: Path) -> None:
    """Else its sound would be moved against its words."""
    audio, vision = padded("audio", front=True), padded("vision", front=True)
    audio[1, :2], vision[0] = 0, 0
    found = dict(read_mult(write(tmp_path / "a.pkl", mult(audio=audio, vision=vision))))["train"]
    assert all(lengths.tolist() == LENGTHS for lengths in found.lengths.values())
    assert np.allclose(found.inputs["audio"][1, 2:], ROWS["audio"][1][2:])
    audio, vision = padded("audio", front=False), padded("vision", front=False)
    audio[1, 4:], vision[0] = 0, 0
    given = mmsa(audio=audio, vision=vision)
    for split in given.values():
        del split["text_bert"]
    found = dict(read_mmsa(write(tmp_path / "b.pkl", given)))["train"]
    assert all(lengths.tolist() == LENGTHS for lengths in found.lengths.values())


def test_sequences_of_their_own_lengths_begin_each_with_its_first_step(tmp_path: Path) -> None:
    audio = np.zeros((3, 9, 4))
    audio[:, 5:] = 1
    found = dict(read_mult(write(tmp_path / "a.pkl", mult(audio=audio))))["train"]
    assert found.lengths["audio"].tolist() == [4, 4, 4]
    assert found.lengths["text"].tolist() == LENGTHS
    assert (found.inputs["audio"][:, :4] == 1).all()
    assert (found.inputs["audio"][:, 4:] == 0).all()


def test_what_is_not_finite_becomes_nothing_and_is_counted(tmp_path: Path) -> None:
    audio = padded("audio", front=True)
    audio[0, -1, 2], audio[1, -1, 0] = -np.inf, np.nan
    found = dict(read_mult(write(tmp_path / "a.pkl", mult(audio=audio))))["train"]
    assert found.mended == {"text": 0, "audio": 2, "vision": 0}
    assert found.inputs["audio"][0, 2, 2] == 0
    assert np.isfinite(found.inputs["audio"]).all()


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ([1], "holds no splits"),
        ({"train": {}, "test": {}}, "lacks the split valid"),
        (mult(audio=np.zeros((3, 6))), "audio is float64 (3, 6), expected numbers (N, L, D)"),
        (mult(labels=np.zeros(2)), "labels are (2,), expected 3 numbers from -3 to 3"),
        (mult(labels=np.full(3, 9.0)), "expected 3 numbers from -3 to 3"),
        (mult(vision=padded("vision", front=True)[:2]), "3 ids, 2 of vision"),
        (mult(labels=np.array(["a", "b", "c"])), "train: not as expected (could not convert string to float"),
        (mult() | {"test": mult(audio=np.ones((3, 6, 2)))["test"]}, "test: columns are {'text': 5, 'audio': 2, 'vision': 3}"),
    ],
)
def test_a_file_that_is_not_what_it_should_be_is_one_line(tmp_path: Path, value: Any, expected: str) -> None:
    with pytest.raises(DataError) as caught:
        dict(read_mult(write(tmp_path / "a.pkl", value)))
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)


# --- the SDK's sequences


def sequence(path: Path, videos: dict[str, tuple[Any, Any]]) -> Path:
    with h5py.File(path, "w") as file:
        for video, (features, intervals) in videos.items():
            group = file.create_group(f"a root name/data/{video}")
            group["features"], group["intervals"] = features, intervals
    return path


def test_what_overlaps_a_word_is_averaged_and_what_touches_it_is_not() -> None:
    """Words of 1 s; frames of 0.5 s, of which the third lies half in each; none for the third word."""
    words = np.array([[0.0, 1.0], [1.0, 2.0], [5.0, 6.0]])
    intervals = np.array([[0.0, 0.5], [0.5, 1.0], [0.75, 1.25], [1.5, 2.0], [2.0, 2.5]])
    features = np.array([[1.0], [2.0], [6.0], [10.0], [100.0]])
    assert averaged(words, features, intervals).tolist() == [[3.0], [8.0], [0.0]]


def corpus(folder: Path) -> dict[str, Any]:
    words = np.array([[n, n + 1.0] for n in range(6)])
    videos = {
        f"v{n}": {"text": np.full((6, 2), n + 1.0) + np.arange(6)[:, None], "frames": np.arange(24.0).reshape(12, 2)}
        for n in range(3)
    }
    frames = np.array([[n / 2, n / 2 + 0.5] for n in range(12)])
    videos["v0"]["frames"][0, 0] = -np.inf
    sound = {v: (x["frames"], frames) for v, x in videos.items()} | {"other": ([[0, 0]], [[0, 1]])}
    return {
        "sequences": {
            "text": sequence(folder / "text.csd", {v: (x["text"], words) for v, x in videos.items()}),
            "audio": sequence(folder / "audio.csd", sound),
            "vision": sequence(folder / "vision.csd", {v: (x["frames"][:, :1], frames) for v, x in videos.items()}),
        },
        "labels": sequence(folder / "labels.csd", {v: ([[1.5, 9.0], [-2.0, 9.0]], [[0, 2.0], [2.0, 6.0]]) for v in videos}),
        "folds": {"train": ("v0", "not there"), "valid": ("v1",), "test": ("v2",)},
    }


def test_sequences_become_segments_of_words(tmp_path: Path) -> None:
    found = read_sdk(**corpus(tmp_path))
    train = found["train"]
    assert train.ids == ("v0[0]", "v0[1]")
    assert train.labels.tolist() == [1.5, -2.0]
    assert train.lengths["text"].tolist() == [2, 4]
    assert train.inputs["text"][0, :2, 0].tolist() == [1, 2]
    assert train.inputs["text"][1, :4, 0].tolist() == [3, 4, 5, 6]
    # The first word has frames 0 and 1, of which one value was not finite.
    assert train.inputs["audio"][0, :2].tolist() == [[1.0, 2.0], [5.0, 6.0]]
    assert train.mended == {"text": 0, "audio": 1, "vision": 1}
    assert train.inputs["vision"].shape == (2, 4, 1)
    assert found["valid"].inputs["audio"][0, 0].tolist() == [1.0, 2.0]


def test_of_a_long_segment_the_newest_steps_are_kept(tmp_path: Path) -> None:
    found = read_sdk(**corpus(tmp_path), longest=3)["train"]
    assert found.inputs["text"][1, :, 0].tolist() == [4, 5, 6]


def test_what_no_float32_holds_is_mended_in_sequences_too(tmp_path: Path) -> None:
    given = corpus(tmp_path)
    with h5py.File(given["sequences"]["audio"], "a") as file:
        features = next(iter(file.values()))["data/v0/features"]
        features[0, 0] = 1e300
    assert read_sdk(**given)["train"].mended["audio"] == 1


@pytest.mark.parametrize(
    "change",
    [
        lambda group: [group.pop("features"), group.create_group("features")],
        lambda group: group.parent.parent.pop("data"),
        lambda group: [group.pop("features"), group.create_dataset("features", data=np.zeros((2, 0)))],
        lambda group: [group.pop("features"), group.create_dataset("features", data=np.full((2, 1), 999.0))],
    ],
    ids=["group", "no data", "no columns", "label"],
)
def test_labels_that_are_none_are_one_line(tmp_path: Path, change: Any) -> None:
    given = corpus(tmp_path)
    with h5py.File(given["labels"], "a") as file:
        change(next(iter(file.values()))["data/v0"])
    text = error_of(lambda: read_sdk(**given), DataError)
    assert "v0" in text or "not a whole computational sequence" in text


def test_what_is_wrong_with_sequences_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "half.csd").write_bytes(b"\x89HDF\r\n\x1a\n....")
    with pytest.raises(DataError, match="not a whole computational sequence"):
        ComputationalSequence(tmp_path / "half.csd")
    given = corpus(tmp_path)
    with pytest.raises(DataError, match="the folds lack valid, test"):
        read_sdk(**given | {"folds": {"train": ()}})
    with pytest.raises(DataError, match="no segment of the split test is in all files"):
        read_sdk(**given | {"folds": given["folds"] | {"test": ("elsewhere",)}})
    wrong = sequence(tmp_path / "wrong.csd", {v: (np.zeros((2, 1)), np.zeros((3, 2))) for v in ("v0", "v1", "v2")})
    with pytest.raises(DataError, match=r"wrong\.csd, v0: features \(2, 1\) and intervals \(3, 2\)"):
        read_sdk(**given | {"sequences": given["sequences"] | {"vision": wrong}})
    with h5py.File(wrong, "a") as file:
        del file["a root name/data/v0/intervals"]
    with pytest.raises(DataError, match=r"wrong\.csd, v0: cannot be read .*; download the file again"):
        read_sdk(**given | {"sequences": given["sequences"] | {"vision": wrong}})


def test_a_real_sequence_is_read(shared: Path) -> None:
    path = shared / "data" / "mosi" / "CMU_MOSI_ModifiedTimestampedWords.csd"
    if not path.exists():
        pytest.skip("no computational sequence among the shared data")
    with h5py.File(path, "r") as file:
        expected = len(next(iter(file.values()))["data"])
    with ComputationalSequence(path) as words:
        assert len(words.videos) == expected
        assert words.width == 1
