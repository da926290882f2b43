from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from extractors.asr.recogniser import Word
from extractors.text import WIDTH, normalise
from models.causal import FLAGS
from stream.inputs import NO_WORDS, WIDTHS, Floats, lane_columns, model_input, spoken
from stream.messages import LANES, LaneWindow, Window

HOP = 250_000_000
RANDOM = np.random.default_rng(0)
VECTOR: Floats = RANDOM.normal(size=WIDTH).astype(np.float32)
AUDIO: Floats = RANDOM.normal(size=WIDTHS["audio"]).astype(np.float32)
VISION: Floats = RANDOM.normal(size=WIDTHS["vision"]).astype(np.float32)
NOTHING: Floats = np.empty(0, np.float32)


def window(*words: str, restart: bool = False) -> Window:
    """Words and a face that was seen in a quarter of the pictures; of the sound nothing is known."""
    return Window(
        seq=3,
        t_start_ns=3 * HOP,
        t_end_ns=4 * HOP,
        restart=restart,
        lanes={
            "vision": LaneWindow(True, 0.25, VISION, 3 * HOP),
            "text": LaneWindow(True, float(bool(words)), NOTHING, None),
            "audio": LaneWindow(False, 0.0, AUDIO, None),
        },
        words=tuple(Word(word, 3 * HOP, 4 * HOP) for word in words),
        words_final=True,
        voiced=None,
    )


# --- the layout


def test_lanes_stand_side_by_side_each_with_its_flags() -> None:
    columns = lane_columns()
    assert columns == {"text": slice(0, 770), "audio": slice(770, 840), "vision": slice(840, 958)}
    assert tuple(columns) == LANES
    assert [found.stop - found.start - FLAGS for found in columns.values()] == [WIDTHS[lane] for lane in LANES]


def test_a_window_lies_in_the_columns_of_its_lanes() -> None:
    found, columns = model_input(window("good"), VECTOR), lane_columns()
    assert (found.shape, found.dtype) == ((958,), np.float32)
    for lane, values, flags in (("text", VECTOR, [1, 1]), ("audio", AUDIO, [0, 0]), ("vision", VISION, [1, 0.25])):
        assert np.array_equal(found[columns[lane]], np.append(values, np.array(flags, np.float32)))  # type: ignore[index]


def test_the_vector_of_the_words_so_far_is_given_whether_or_not_any_end_here() -> None:
    found = model_input(window(), VECTOR)
    assert np.array_equal(found[:WIDTH], VECTOR)
    assert found[WIDTH : WIDTH + FLAGS].tolist() == [1, 0]  # known, and nothing said


def test_a_vector_that_lacks_words_makes_the_text_unknown_and_is_kept() -> None:
    told, not_told = model_input(window("good"), VECTOR), model_input(window("good"), VECTOR, told=False)
    assert not_told[WIDTH : WIDTH + FLAGS].tolist() == [0, 0]
    assert np.array_equal(not_told[:WIDTH], VECTOR)
    assert np.array_equal(not_told[WIDTH + FLAGS :], told[WIDTH + FLAGS :])  # the others' flags stay


def test_what_is_unknown_has_no_flags_though_it_has_been_looked_for() -> None:
    unknown = replace(window(), lanes={**window().lanes, "text": LaneWindow(False, 0.0, NOTHING, None, "lost")})
    assert not model_input(unknown, NO_WORDS)[: WIDTH + FLAGS].any()


def test_no_words_are_zeros() -> None:
    assert (NO_WORDS.shape, NO_WORDS.dtype) == ((WIDTH,), np.float32)
    assert not NO_WORDS.any()


# --- what has been said


@pytest.mark.parametrize(
    ("before", "words", "restart", "after"),
    [
        pytest.param((), (), False, (), id="nothing"),
        pytest.param(("so",), ("good",), False, ("so", "good"), id="a word"),
        pytest.param(("so",), (), False, ("so",), id="silence"),
        pytest.param(("so",), ("good",), True, ("good",), id="a new utterance"),
        pytest.param(("so",), (), True, (), id="a new stretch of silence"),
        pytest.param(("so",), ("so",), True, ("so",), id="the same word in a new utterance"),
        pytest.param((), ("Well-Made…", "ISN’T", "it?"), False, ("well", "made", "isn't", "it"), id="normalised"),
        pytest.param(("so",), ("[NOISE]", "<sil>", "--"), False, ("so",), id="marks"),
    ],
)
def test_words_so_far(before: tuple[str, ...], words: tuple[str, ...], restart: bool, after: tuple[str, ...]) -> None:
    assert spoken(before, window(*words, restart=restart)) == after


@given(st.lists(st.tuples(st.lists(st.sampled_from(["a", "B-c", "don't", "[x]"]), max_size=3), st.booleans()), max_size=8))
def test_words_so_far_are_those_of_the_windows_since_the_last_restart(said: list[tuple[list[str], bool]]) -> None:
    words: tuple[str, ...] = ()
    for new, restart in said:
        words = spoken(words, window(*new, restart=restart))
    begins = max((number for number, (_, restart) in enumerate(said) if restart), default=0)
    assert list(words) == normalise(" ".join(word for new, _ in said[begins:] for word in new))
