import numpy as np
import pytest

from extractors.sound import SAMPLE_NS, SAMPLE_RATE, check_samples, continues


def test_a_sample_lasts_a_whole_number_of_nanoseconds():
    assert SAMPLE_NS * SAMPLE_RATE == 1_000_000_000


@pytest.mark.parametrize(("offset_ns", "answer"), [(0, True), (SAMPLE_NS - 1, True), (1 - SAMPLE_NS, True), (SAMPLE_NS, False)])
def test_sound_continues_to_within_one_sample(offset_ns, answer):
    assert continues(10**9 + offset_ns, 10**9) is answer


def test_sound_does_not_run_backwards():
    with pytest.raises(ValueError, match=r"at 999937500 ns starts before .* end at 1000000000 ns"):
        continues(10**9 - SAMPLE_NS, 10**9)


@pytest.mark.parametrize(
    "samples",
    [np.zeros(160, np.float32), np.zeros(160, np.int32), np.zeros((160, 1), np.int16), np.int16(0)],
    ids=["float", "int32", "two axes", "no axis"],
)
def test_other_forms_are_refused(samples):
    with pytest.raises(ValueError, match="int16 at 16 kHz, got"):
        check_samples(np.asarray(samples))
