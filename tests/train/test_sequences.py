import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from extractors.asr.recogniser import Word
from extractors.contract import FeatureRows
from extractors.face import CONTRACT as FACE
from stream.inputs import WIDTHS, model_input, spoken
from stream.messages import PARTS, PartEnded, RowsUpdate, WordsUpdate
from stream.windows import Windows
from tests.train.corpus import WIDTH
from train.sequences import COLUMNS, Rate, audio_lane, clip_lanes, nothing, placed, text_lane, vision_lane

HOP = 250_000_000
RANDOM = np.random.default_rng(0)


def vectors(count: int) -> np.ndarray:
    return RANDOM.normal(size=(count, WIDTHS["text"])).astype(np.float32)


def live(words: list[int], found: np.ndarray, steps: int) -> np.ndarray:
    """The text lane as a session makes it of words that end then, with sound to hear in every window."""
    windows = Windows(hop_ns=HOP, gap_windows=100, max_windows=1000)
    windows.update(WordsUpdate(tuple(Word(f"w{n}", 0, end_ns) for n, end_ns in enumerate(words)), (), 2**61))
    windows.reach(steps * HOP)
    for part in PARTS:
        windows.update(PartEnded(part))
    rows, said = [], ()
    for window in windows.settle():
        said = spoken(said, window)
        vector = found[len(said) - 1] if said else np.zeros(WIDTHS["text"], np.float32)
        rows.append(model_input(window, vector)[COLUMNS["text"]])
    return np.stack(rows)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(1, 20 * HOP), min_size=1, max_size=12).map(sorted))
def test_words_stand_where_a_session_puts_them(ends_ns: list[int]) -> None:
    found, steps = vectors(len(ends_ns)), -(-ends_ns[-1] // HOP)
    lane, expected = placed(found, np.array(ends_ns), steps, HOP), live(ends_ns, found, steps)
    assert np.array_equal(lane[:, :-2], expected[:, :-2])
    assert np.array_equal(lane[:, -1], expected[:, -1])  # presence
    assert lane[:, -2].all()  # known: there was sound to hear, which `live` leaves out


def test_words_with_times_keep_them_and_the_length_of_the_utterance() -> None:
    features = {"vectors": vectors(2), "ends_ns": np.array([HOP, 5 * HOP]), "length_ns": np.array([9 * HOP + 1])}
    lane = text_lane(features, HOP, Rate(3.0, 0))
    assert len(lane) == 10
    assert np.flatnonzero(lane[:, -1]).tolist() == [0, 4]
    assert np.array_equal(lane[9, :-2], features["vectors"][1])


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 60), st.integers(0, 2**31 - 1))
def test_words_without_times_are_spoken_at_the_rate(count: int, seed: int) -> None:
    features = {"vectors": vectors(count)}
    rate = Rate.draw(np.random.default_rng(seed))
    assert 2.0 <= rate.words_a_second <= 4.5
    lane = text_lane(features, HOP, rate)
    assert len(lane) * 0.25 == pytest.approx(count / rate.words_a_second, abs=0.26)
    assert np.array_equal(lane[-1, :-2], features["vectors"][-1])
    assert np.array_equal(lane, text_lane(features, HOP, rate))


def test_a_face_held_still_is_what_a_session_makes_of_the_same_row_again_and_again() -> None:
    row = RANDOM.uniform(size=(1, len(FACE.columns))).astype(np.float32)
    windows = Windows(hop_ns=HOP, gap_windows=4, max_windows=100)
    times = np.arange(0, 3 * HOP, HOP // 5)
    windows.update(RowsUpdate("vision", FeatureRows(times, row.repeat(len(times), 0), times[:0]), 3 * HOP))
    for part in PARTS:
        windows.update(PartEnded(part))
    expected = [model_input(window, np.zeros(WIDTHS["text"], np.float32)) for window in windows.settle()]
    assert np.array_equal(vision_lane({"face": row}, 3, RANDOM), np.stack(expected)[:, COLUMNS["vision"]])


@given(st.integers(1, 8), st.integers(1, 30), st.integers(0, 2**31 - 1))
def test_a_window_of_a_face_is_the_mean_of_looks_at_it_and_it_does_not_move(looks: int, steps: int, seed: int) -> None:
    rows = RANDOM.normal(size=(looks, len(FACE.columns))).astype(np.float32)
    lane = vision_lane({"face": rows}, steps, np.random.default_rng(seed))
    mean, deviation = lane[:, : len(FACE.columns)], lane[:, len(FACE.columns) : -2]
    assert (mean >= rows.min(0) - 1e-6).all()
    assert (mean <= rows.max(0) + 1e-6).all()
    assert not deviation.any()
    assert (lane[:, -2:] == 1).all()
    assert np.array_equal(lane, vision_lane({"face": rows}, steps, np.random.default_rng(seed)))


def test_lanes_of_windows_are_their_columns() -> None:
    inputs = RANDOM.normal(size=(3, WIDTH)).astype(np.float32)
    features = {"inputs": inputs, "restart": np.zeros(3, np.bool_)}
    lanes = clip_lanes(features)
    assert np.array_equal(np.concatenate([lanes["text"], lanes["audio"], lanes["vision"]], 1), inputs)
    assert np.array_equal(audio_lane(features), lanes["audio"])


def test_nothing_is_unknown_or_known_to_be_absent() -> None:
    assert not nothing("audio", 4).any()
    lane = nothing("audio", 4, known=True)
    assert lane[:, -2].all()
    assert not np.delete(lane, -2, 1).any()
