"""A microphone, heard through PortAudio.

Source: https://python-sounddevice.readthedocs.io
"""

import contextlib
import itertools
import os
import queue
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from extractors.sound import SAMPLE_RATE
from stream.clock import Clock
from stream.errors import SourceError
from stream.messages import AudioBlock
from stream.sources.drift import SampleClock
from stream.sources.source import Provides

_BLOCK_S = 0.02
_LATENCY_S = 0.1  # what the driver may hold while this process is busy elsewhere
_WAITING = 250  # blocks, 5 s: what may wait for the reader
_START_S = 5.0  # until the first block: a Bluetooth headset takes its time
_SILENCE_S = 2.0  # without a block after that, and the microphone is lost
_LOOK_S = 0.1  # how often to see whether the source was closed
_HANG_S = 1.0  # after which a stream that does not close is left alone
_BUSY_S = 5.0  # in which another thread must be done with PortAudio
_LIST = "python -m stream.devices lists those there are"
NONE_FOUND = "no microphone was found; plug one in, or check that the sound server runs"

_lock = threading.Lock()  # PortAudio and its list of devices are one for the whole process
_streams: set[Any] = set()  # those that are open


@dataclass(frozen=True)
class Microphone:
    """An input of this machine.

    Attributes:
        index: What `MicrophoneSource` takes; another one after something was plugged in or out.
        name: What PortAudio calls it.
        default: It is taken if none is asked for.
        rate: The sample rate that it prefers, Hz.
        channels: How many it has.
    """

    index: int
    name: str
    default: bool
    rate: int
    channels: int


def microphones() -> list[Microphone]:
    """The inputs of this machine, by index.

    Raises:
        SourceError: PortAudio cannot be had.
    """
    with _portaudio("the sound system") as sounddevice:
        if not _streams:  # PortAudio looks for devices as it starts; to end it would close what is open
            if sounddevice._initialized:
                sounddevice._terminate()
            sounddevice._initialize()
        default = sounddevice.default.device[0]
        return [
            Microphone(
                index=device["index"],
                name=device["name"],
                default=device["index"] == default,
                rate=round(device["default_samplerate"]),
                channels=device["max_input_channels"],
            )
            for device in sounddevice.query_devices()
            if device["max_input_channels"] > 0
        ]


def choose(device: int | str | None, among: Sequence[Microphone]) -> Microphone:
    """The microphone that is meant.

    Args:
        device: An index; a name, or a part of it that no other has; None for the default.
        among: Those there are.

    Raises:
        SourceError: None is, or more than one.
    """
    if not among:
        raise SourceError(NONE_FOUND)
    match device:
        case None:
            wanted, found = "default microphone", [one for one in among if one.default]
        case int():
            wanted, found = f"microphone {device}", [one for one in among if one.index == device]
        case _:
            wanted = f"microphone {device}"
            part = device.casefold()
            found = [one for one in among if one.name.casefold() == part]
            found = found or [one for one in among if part in one.name.casefold()]
    if len(found) != 1:
        number = f"there are {len(found)} of that name" if found else "there is none"
        names = ", ".join(f"{one.index} {one.name!r}" for one in found or among)
        raise SourceError(f"{wanted}: {number}; give one of {names}")
    return found[0]


class MicrophoneSource:
    """Sound from one microphone, at exactly 16 kHz on the session's clock.

    PortAudio's callback stamps a block with the session's time and leaves it in a buffer; `packets` takes it from there. The
    time of a block is that at which its first sample was heard, as far as the driver tells. `SampleClock` smooths these times
    and follows the drift of the sound card, so that blocks continue each other exactly; where sound is missing (PortAudio's
    buffer has overflowed, ours has, or the device was lost for a while), the next block begins at its own time, after a gap.

    Example:
        source = MicrophoneSource()  # or MicrophoneSource("USB"), MicrophoneSource(3)
        for block in source.packets(clock): ...

    Attributes:
        overflows: How often PortAudio or the driver had no room left, and sound was lost.
        dropped: How many blocks of 20 ms were given up because nobody took them for 5 s.
    """

    scripted = False
    live = True
    provides: frozenset[Provides] = frozenset({"audio"})

    def __init__(self, device: int | str | None = None) -> None:
        """Look for the microphone and check that it can be heard.

        Args:
            device: An index, as a number or in digits; a name, or a part of it that no other has; None for the default.

        Raises:
            SourceError: There is no such microphone, it cannot be opened, or PortAudio cannot be had.
        """
        self.problems: list[str] = []
        self.overflows = self.dropped = 0
        self._device = int(device) if isinstance(device, str) and device.isdecimal() else device
        self._closed = False
        self._clock = SampleClock()
        with _notices_hidden():
            self._found: _Found | None = self._find()
        self.name = f"microphone {self._found.name}"

    @property
    def drift_ppm(self) -> float | None:
        """How much faster than it claims the device runs, by the session's clock; None in the first half minute."""
        return self._clock.drift_ppm

    def packets(self, clock: Clock) -> Iterator[AudioBlock]:
        """Sound until the source is closed, in blocks of about 20 ms; see `Source.packets`."""
        # What the constructor has found serves the first time; after that the device may be another one.
        found, self._found = self._found or self._find(), None
        waiting: queue.SimpleQueue[_Heard] = queue.SimpleQueue()
        numbers = itertools.count()

        def hear(block: npt.NDArray[np.int16], _: int, times: Any, status: Any) -> None:
            """What PortAudio calls, on a thread that must not wait."""
            now_ns = clock.now_ns()
            self.overflows += status.input_overflow
            if waiting.qsize() >= _WAITING:
                with contextlib.suppress(queue.Empty):
                    waiting.get_nowait()
                    self.dropped += 1
            heard = _Heard(now_ns, times.currentTime, times.inputBufferAdcTime, next(numbers), self.overflows, block.copy())
            waiting.put(heard)

        last: _Heard | None = None
        stamps, to_16_khz = _Stamps(found), _Resampler(found)
        with _recording(self.name, found, hear) as stream:
            lost_s = time.monotonic() + _START_S
            while not self._closed:
                try:
                    heard = waiting.get(timeout=_LOOK_S)
                except queue.Empty:
                    if not stream.active:
                        raise SourceError(f"{self.name}: it has gone; plug it in again") from None
                    if time.monotonic() > lost_s:
                        raise SourceError(f"{self.name}: it delivers nothing; plug it out and in again") from None
                    continue
                lost_s = time.monotonic() + _SILENCE_S
                broken = not last or (heard.number, heard.overflows) != (last.number + 1, last.overflows)
                last = heard
                if broken:
                    to_16_khz = _Resampler(found)
                t_ns, samples = to_16_khz.push(stamps.first_heard_ns(heard), heard.block)
                if len(samples) and (block := self._clock.place(t_ns, samples, broken=broken)):
                    yield block

    def close(self) -> None:
        """Let `packets` end within a tenth of a second."""
        self._closed = True

    def _find(self) -> "_Found":
        """The microphone and the settings that it takes; raises SourceError."""
        there = microphones()
        one = choose(self._device, there)
        if self._device is not None and [other.name for other in there].count(one.name) == 1:
            self._device = one.name  # the index may be another one's when the device is looked for again
        with _portaudio(f"microphone {one.name}") as sounddevice:
            refusal: Exception | None = None
            for channels, rate in itertools.product((1, 2), (SAMPLE_RATE, one.rate)):
                try:
                    sounddevice.check_input_settings(one.index, channels=channels, dtype="int16", samplerate=rate)
                except sounddevice.PortAudioError as error:
                    refusal = refusal or error
                else:
                    return _Found(one.index, one.name, rate, channels)
            assert refusal is not None
            raise refusal


class _Found(NamedTuple):
    """A microphone, by its index, with the settings that it takes."""

    device: int
    name: str
    rate: int
    channels: int


class _Heard(NamedTuple):
    """What the callback leaves for the reader.

    Attributes:
        now_ns: When it ran, by the session's clock.
        called_s: When it was called, by PortAudio's; 0 if the driver has none.
        adc_s: When the first sample was heard, by PortAudio's.
        number: Of the block, from 0.
        overflows: How many there have been.
        block: The sound, (N, channels).
    """

    now_ns: int
    called_s: float
    adc_s: float
    number: int
    overflows: int
    block: npt.NDArray[np.int16]


class _Stamps:
    """Tells when a block was first heard, by the session's clock.

    PortAudio's clock is some clock of the system, and so is the session's, so the two differ by a constant. What a callback
    sees is that constant and how long it had to wait for Python's lock; the least of some seconds is taken for the constant.
    """

    def __init__(self, found: _Found) -> None:
        """Nothing has been seen."""
        self._rate = found.rate
        self._seen_ns: deque[int] = deque(maxlen=_WAITING)

    def first_heard_ns(self, heard: _Heard) -> int:
        """The time of a block's first sample, nanoseconds of the session."""
        age_s = heard.called_s - heard.adc_s
        if not heard.called_s or not 0 < age_s < 1:  # some drivers do not tell
            return heard.now_ns - len(heard.block) * 1_000_000_000 // self._rate
        difference_ns = heard.now_ns - round(heard.called_s * 1e9)
        if self._seen_ns and difference_ns - self._seen_ns[-1] > 1_000_000_000:  # the system's clock was set back
            self._seen_ns.clear()
        self._seen_ns.append(difference_ns)
        return min(self._seen_ns) + round(heard.adc_s * 1e9)


class _Resampler:
    """Makes 16 kHz mono of what a device delivers, and tells when the first sample of that was heard."""

    def __init__(self, found: _Found) -> None:
        """Nothing is held back yet."""
        self._rate, self._layout = found.rate, "mono" if found.channels == 1 else "stereo"
        self._taken = self._given = 0
        self._resampler: Any = None
        if (found.rate, found.channels) != (SAMPLE_RATE, 1):
            import av
            from av.audio.resampler import AudioResampler

            self._av = av
            self._resampler = AudioResampler(format="s16", layout="mono", rate=SAMPLE_RATE)

    def push(self, t_ns: int, block: npt.NDArray[np.int16]) -> tuple[int, npt.NDArray[np.int16]]:
        """Take a block, (N, channels), first heard at `t_ns`; returns the time and the samples, (M,), that come of it."""
        if not self._resampler:
            return t_ns, block[:, 0]
        held_ns = round((self._taken / self._rate - self._given / SAMPLE_RATE) * 1e9)
        frame = self._av.AudioFrame.from_ndarray(block.reshape(1, -1), format="s16", layout=self._layout)
        frame.sample_rate = self._rate
        made = [out.to_ndarray()[0] for out in self._resampler.resample(frame)]
        samples = np.concatenate(made) if made else np.empty(0, np.int16)
        self._taken += len(block)
        self._given += len(samples)
        return t_ns - held_ns, samples


@contextlib.contextmanager
def _portaudio(name: str) -> Iterator[Any]:
    """The module sounddevice, for one thread at a time; what it raises becomes a SourceError about `name`."""
    try:
        import sounddevice  # type: ignore[import-untyped]
    except ImportError as error:
        raise SourceError("the microphone needs sounddevice; run: pip install 'mmlatch-live[mic]'") from error
    except OSError as error:
        raise SourceError("the microphone needs PortAudio; on Debian: sudo apt install libportaudio2") from error
    if not _lock.acquire(timeout=_BUSY_S):
        raise SourceError(f"{name}: the driver hangs; plug the microphone out and in again, or restart the sound server")
    try:
        yield sounddevice
    except sounddevice.PortAudioError as error:
        reason = str(error.args[0]).removeprefix("Error opening InputStream: ")
        raise SourceError(f"{name}: it cannot be opened ({reason}); close what uses it, or take another; {_LIST}") from error
    finally:
        _lock.release()


@contextlib.contextmanager
def _recording(name: str, found: _Found, hear: Callable[..., None]) -> Iterator[Any]:
    """An open stream that calls `hear`; raises SourceError about `name`."""
    with _portaudio(name) as sounddevice:
        stream = sounddevice.InputStream(
            device=found.device,
            channels=found.channels,
            samplerate=found.rate,
            dtype="int16",
            blocksize=round(_BLOCK_S * found.rate),
            latency=_LATENCY_S,
            callback=hear,
        )
        _streams.add(stream)
    try:
        with _portaudio(name):
            stream.start()
        yield stream
    finally:
        # A driver can hang for good, as PulseAudio's library now and then when its server dies. Such a stream is left alone:
        # PortAudio opens others beside it, it only does not look for devices any more.
        closing = threading.Thread(target=_close, args=(stream,), daemon=True)
        with _lock:
            closing.start()
            closing.join(_HANG_S)


def _close(stream: Any) -> None:
    stream.close()
    _streams.remove(stream)


@contextlib.contextmanager
def _notices_hidden() -> Iterator[None]:
    """Keep what native code writes to the standard error away from it: ALSA and PortAudio tell each attempt that fails."""
    sys.stderr.flush()
    shown = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(shown, 2)
        os.close(shown)
        os.close(nowhere)
