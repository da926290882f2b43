"""Keeps a device's sound on the session's time axis, although its clock runs a little differently and its times jitter.

A block comes with the time at which its first sample was heard, as far as the system can tell: right on average, wrong by
milliseconds each time. `TimeFilter` smooths these times and learns how fast the device really runs; `SampleClock` gives out
blocks at exactly 16 kHz by the session's clock, by dropping or repeating one sample where that is needed.
"""

import math

import numpy as np
import numpy.typing as npt

from extractors.sound import SAMPLE_NS, SAMPLE_RATE
from stream.messages import AudioBlock

GAP_NS = 100_000_000  # a block whose time is off by more than that is late, or sound is missing before it
_BELIEVED = SAMPLE_RATE // 2  # samples in a row that must be off for it to be the latter

# The loop's bandwidth. Jitter of 15 ms is smoothed to 1 to 2 ms at the narrowest; the start is wide, to be right soon.
_WIDEST_HZ, _NARROWEST_HZ = 1.0, 0.02
_NARROWING = 0.5  # in between it is this over the seconds heard
_MAX_DRIFT = 1e-3  # sound cards are within 3e-4 of what they claim
_SETTLED = 10 * SAMPLE_RATE  # samples, before which the rate is not known well
_MEASURED = 20 * SAMPLE_RATE  # and as many after that make `drift_ppm` worth telling


class TimeFilter:
    """A delay-locked loop of second order over the times of blocks.

    Source: F. Adriaensen, "Using a DLL to filter time", Linux Audio Conference 2005. Its bandwidth there is fixed; here it
    starts wide and narrows with the time heard.

    Attributes:
        doubted: How many samples have come in a row with times off by more than `GAP_NS`. Such times are not followed.
    """

    def __init__(self) -> None:
        """Assume a device that runs at exactly 16 kHz."""
        self._period_ns = float(SAMPLE_NS)  # what a sample of the device lasts by the session's clock
        self._span_ns, self._span_samples = 0.0, 0
        self.restart()

    @property
    def drift_ppm(self) -> float | None:
        """How much faster than 16 kHz the device runs, over all that was heard; None in the first half minute."""
        if self._span_samples < _MEASURED:
            return None
        return (self._span_samples * SAMPLE_NS / self._span_ns - 1) * 1e6

    def restart(self) -> None:
        """Forget where the next block belongs, as sound is missing before it; the rate stays known."""
        self._next_ns: float | None = None
        self._heard = 0
        self.doubted = 0

    def push(self, t_ns: int, samples: int) -> float:
        """Take the next block.

        Args:
            t_ns: When its first sample was heard, nanoseconds of the session.
            samples: How many it has, at 16 kHz, at least one.

        Returns:
            The same moment, smoothed.
        """
        start_ns = float(t_ns) if self._next_ns is None else self._next_ns
        error_ns = t_ns - start_ns
        self.doubted = self.doubted + samples if abs(error_ns) > GAP_NS else 0
        if self.doubted:
            error_ns = 0.0
        self._heard += samples
        bandwidth_hz = max(_NARROWEST_HZ, min(_WIDEST_HZ, _NARROWING * SAMPLE_RATE / self._heard))
        omega = 2 * math.pi * bandwidth_hz * samples / SAMPLE_RATE
        self._next_ns = start_ns + samples * self._period_ns + math.sqrt(2) * omega * error_ns
        period_ns = self._period_ns + omega**2 * error_ns / samples
        self._period_ns = min(max(period_ns, SAMPLE_NS * (1 - _MAX_DRIFT)), SAMPLE_NS * (1 + _MAX_DRIFT))
        if self._heard > _SETTLED:
            self._span_ns += self._next_ns - start_ns
            self._span_samples += samples
        return start_ns


class SampleClock:
    """Makes audio blocks that continue each other exactly, at 16 kHz by the session's clock.

    What was given out so far ends at a whole number of samples. As long as no sound is missing, the next block begins right
    there. Where that differs from the block's smoothed time by more than one sample, one sample of it is dropped or repeated:
    3 ms a second at most, far more than any sound card drifts, and not to be heard. So sound keeps to the session's clock for
    hours.

    Sound is missing if the caller says so, or if the times of half a second of sound are off by more than `GAP_NS`: a single
    late block is no gap. The next block then begins at its own time. What of it lies before the end of what was given out is
    dropped, for time never goes back.

    Example:
        clock = SampleClock()
        block = clock.place(t_ns, samples)  # None if all of it was dropped
    """

    def __init__(self) -> None:
        """Nothing has been given out: the first block begins at its own time, and not before 0."""
        self._filter = TimeFilter()
        self._end_ns = 0
        self._anew = True

    @property
    def drift_ppm(self) -> float | None:
        """As `TimeFilter.drift_ppm`."""
        return self._filter.drift_ppm

    def place(self, t_ns: int, samples: npt.NDArray[np.int16], *, broken: bool = False) -> AudioBlock | None:
        """Place the device's next block.

        Args:
            t_ns: When its first sample was heard, nanoseconds of the session.
            samples: 16 kHz mono, int16, (N,), at least one.
            broken: Whether sound is missing before it.

        Returns:
            The block where it belongs; None if nothing of it is left.
        """
        if broken or self._filter.doubted >= _BELIEVED:
            self._filter.restart()
            self._anew = True
        off_ns = self._filter.push(t_ns, len(samples)) - self._end_ns
        start_ns = self._end_ns
        if self._anew:
            off = round(off_ns / SAMPLE_NS)
            start_ns += max(0, off) * SAMPLE_NS
            samples = samples[max(0, -off) :]
        elif off_ns > SAMPLE_NS:
            samples = np.append(samples, samples[-1])
        elif off_ns < -SAMPLE_NS:
            samples = samples[:-1]
        if not len(samples):
            return None
        self._anew = False
        self._end_ns = start_ns + len(samples) * SAMPLE_NS
        return AudioBlock(start_ns, samples)
