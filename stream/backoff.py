"""How long to wait before the next try: doubling, bounded, and jittered so that many do not come back at once."""

import random


class Backoff:
    """1, 2, 4 … up to 30 s, each shortened at random by up to a half."""

    def __init__(self, first_s: float = 1.0, longest_s: float = 30.0) -> None:
        """Wait at most `first_s` seconds before the first new try, never more than `longest_s`."""
        self._first_s, self._longest_s = first_s, longest_s
        self._failures = 0

    def next_s(self) -> float:
        """How long to wait after this failure, seconds."""
        wait_s = min(self._longest_s, self._first_s * 2**self._failures)
        self._failures = min(self._failures + 1, 32)
        return wait_s * random.uniform(0.5, 1.0)

    def reset(self) -> None:
        """It has worked for a while."""
        self._failures = 0
