"""Sound of a device that runs too fast or too slow, with times that jitter, put on the session's time axis."""

import itertools
import random
from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from extractors.sound import SAMPLE_NS, SAMPLE_RATE, continues
from stream.messages import AudioBlock
from stream.sources.drift import SampleClock, TimeFilter

MS = 1_000_000
S = 1_000_000_000
BLOCK = 320


@dataclass
class Device:
    """A microphone whose clock runs `ppm` too fast, and whose blocks' times are off by up to `jitter_ns`."""

    ppm: float = 0.0
    jitter_ns: int = 0
    seed: int = 0
    start_ns: float = 3.0 * S
    # Each block with the true time of its first sample.
    heard: list[tuple[AudioBlock, float]] = field(default_factory=list, repr=False)

    def __post_init__(self) -> None:
        self.now_ns = self.start_ns
        self.clock = SampleClock()
        self._random = random.Random(self.seed)

    def hear(self, seconds: float, *, late_ns: int = 0, broken: bool = False) -> None:
        for _ in range(round(seconds * SAMPLE_RATE / BLOCK)):
            t_ns = round(self.now_ns + late_ns + self._random.uniform(-self.jitter_ns, self.jitter_ns))
            block = self.clock.place(t_ns, np.zeros(BLOCK, np.int16), broken=broken)
            if block:
                # Of a block that was cut, the last samples are left.
                self.heard.append((block, self.now_ns + max(0, BLOCK - 1 - len(block.samples)) * SAMPLE_NS))
            self.now_ns += BLOCK * SAMPLE_NS / (1 + self.ppm * 1e-6)
            broken = False

    def miss(self, seconds: float) -> None:
        self.now_ns += seconds * S

    def gaps_ns(self) -> list[int]:
        """The holes between blocks; raises ValueError where one overlaps the last."""
        found = []
        for (one, _), (other, _) in itertools.pairwise(self.heard):
            end_ns = one.t_ns + len(one.samples) * SAMPLE_NS
            if not continues(other.t_ns, end_ns):
                found.append(other.t_ns - end_ns)
            assert other.t_ns % SAMPLE_NS == 0
            assert other.t_ns >= end_ns
        return found

    def error_ns(self, settle_s: float = 10) -> float:
        """How wrong block times were at most, `settle_s` after the start."""
        return max(abs(block.t_ns - true_ns) for block, true_ns in self.heard if true_ns > self.start_ns + settle_s * S)


@settings(max_examples=25, deadline=None)
@given(ppm=st.floats(-300, 300), jitter_ms=st.floats(0, 15), seed=st.integers(0, 2**32))
def test_whatever_the_drift_and_jitter_sound_keeps_to_the_session_s_clock(ppm: float, jitter_ms: float, seed: int) -> None:
    device = Device(ppm, round(jitter_ms * MS), seed)
    device.hear(90)
    assert device.gaps_ns() == []
    assert device.error_ns() < 5 * MS
    drift_ppm = device.clock.drift_ppm
    assert drift_ppm is not None
    assert drift_ppm == pytest.approx(ppm, abs=1 + 4 * jitter_ms)


@pytest.mark.parametrize("ppm", [-300.0, 300.0])
def test_an_hour_has_16_000_samples_a_second(ppm: float) -> None:
    device = Device(ppm, 2 * MS, seed=1)
    device.hear(3600)
    assert device.gaps_ns() == []
    assert device.error_ns() < 1 * MS
    samples = sum(len(block.samples) for block, _ in device.heard)
    # The very first time may be off by the jitter.
    assert samples / SAMPLE_RATE == pytest.approx((device.now_ns - device.start_ns) / S, abs=0.003)
    assert device.clock.drift_ppm == pytest.approx(ppm, abs=0.2)


def test_a_device_that_is_exact_is_left_alone() -> None:
    device = Device()
    device.hear(60)
    assert {len(block.samples) for block, _ in device.heard} == {BLOCK}
    assert device.clock.drift_ppm == pytest.approx(0, abs=1e-6)


def test_at_most_one_sample_a_block_is_dropped_or_repeated() -> None:
    device = Device(ppm=250, jitter_ns=15 * MS)
    device.hear(60)
    assert {len(block.samples) for block, _ in device.heard} == {BLOCK - 1, BLOCK, BLOCK + 1}


@settings(max_examples=25, deadline=None)
@given(
    ppm=st.floats(-300, 300),
    jitter_ms=st.floats(0, 15),
    seed=st.integers(0, 2**32),
    holes_s=st.lists(st.floats(0.05, 30), min_size=1, max_size=4),
)
def test_sound_that_is_lost_is_a_gap_of_its_length(ppm: float, jitter_ms: float, seed: int, holes_s: list[float]) -> None:
    device = Device(ppm, round(jitter_ms * MS), seed)
    device.hear(15)
    for hole_s in holes_s:
        device.miss(hole_s)
        device.hear(15, broken=True)
    assert device.gaps_ns() == pytest.approx([hole_s * S for hole_s in holes_s], abs=20 * MS)
    last = [abs(block.t_ns - true_ns) for block, true_ns in device.heard[-BLOCK:]]
    assert max(last) < 5 * MS


def test_sound_that_is_lost_without_notice_is_found_out() -> None:
    device = Device(ppm=50, jitter_ns=5 * MS)
    device.hear(15)
    device.miss(2)
    device.hear(15)
    assert device.gaps_ns() == pytest.approx([2 * S], abs=20 * MS)
    assert abs(device.heard[-1][0].t_ns - device.heard[-1][1]) < 5 * MS


def test_blocks_that_come_late_are_no_gap() -> None:
    device = Device(jitter_ns=1 * MS)
    device.hear(20)
    device.hear(0.4, late_ns=400 * MS)  # as when something held this process up
    device.hear(5)
    assert device.gaps_ns() == []
    assert device.error_ns() < 2 * MS


def test_time_never_goes_back() -> None:
    """The first second was stamped half a second late; that is found out, and the sound that would come twice is dropped."""
    device = Device()
    device.hear(1, late_ns=500 * MS)
    device.hear(15)
    assert device.gaps_ns() == []
    assert device.error_ns(settle_s=5) < 1 * MS
    assert sum(len(block.samples) for block, _ in device.heard) == pytest.approx(15.5 * SAMPLE_RATE, abs=2)


def test_nothing_is_before_the_session_began() -> None:
    clock = SampleClock()
    samples = np.arange(BLOCK, dtype=np.int16)
    assert clock.place(-30 * MS, samples) is None
    block = clock.place(-10 * MS, samples)
    assert block is not None
    assert (block.t_ns, len(block.samples), block.samples[-1]) == (0, BLOCK // 2, BLOCK - 1)


def test_the_rate_outlives_a_restart() -> None:
    times = TimeFilter()
    for number in range(3000):
        times.push(round(number * 20 * MS * (1 - 200e-6)), BLOCK)
    times.restart()
    start_ns = 100 * S
    assert times.push(start_ns, BLOCK) == start_ns
    assert times.push(0, BLOCK) - start_ns == pytest.approx(20 * MS * (1 - 200e-6), abs=100)
    assert times.doubted == BLOCK
