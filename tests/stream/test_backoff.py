from hypothesis import given
from hypothesis import strategies as st

from stream.backoff import Backoff


@given(first=st.floats(0.01, 10), longest=st.floats(10, 100), resets=st.sets(st.integers(0, 49)))
def test_each_wait_is_up_to_twice_the_one_before_and_at_least_half_of_that(
    first: float, longest: float, resets: set[int]
) -> None:
    backoff, failures = Backoff(first, longest), 0
    for number in range(50):
        if number in resets:
            backoff.reset()
            failures = 0
        most = min(longest, first * 2**failures)
        assert most / 2 <= backoff.next_s() <= most
        failures += 1


def test_it_is_a_second_at_first_and_half_a_minute_after_ever_so_many_failures() -> None:
    backoff = Backoff()
    assert 0.5 <= backoff.next_s() <= 1
    for _ in range(5000):
        backoff.next_s()
    waits = [backoff.next_s() for _ in range(200)]
    assert 15 <= min(waits) < 20
    assert 25 < max(waits) <= 30


def test_those_who_failed_together_do_not_come_back_together() -> None:
    assert len({Backoff().next_s() for _ in range(20)}) == 20
