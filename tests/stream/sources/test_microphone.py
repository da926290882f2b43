"""Microphones: real sound through PortAudio, ALSA and a PulseAudio server of our own; and what is said where there is none."""

import itertools
import signal
import sys
import threading
import time
import wave
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from extractors.sound import SAMPLE_NS, SAMPLE_RATE
from stream.clock import PacedClock
from stream.errors import SourceError
from stream.messages import AudioBlock
from stream.sources import microphone
from stream.sources.microphone import Microphone, MicrophoneSource, choose, microphones
from tests.stream.sources.pulse import PulseServer, missing

MS = 1_000_000
S = 1_000_000_000


@pytest.fixture(scope="module")
def pulse(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PulseServer]:
    if lacking := missing():
        pytest.skip(f"no sound server to test on: apt-get install {lacking}")
    server = PulseServer(tmp_path_factory.mktemp("pulse"))
    server.start()
    with pytest.MonkeyPatch.context() as environment:
        for name, value in server.env.items():
            environment.setenv(name, value)
        yield server
    server.stop()


@pytest.fixture
def running(pulse: PulseServer) -> PulseServer:
    """The server, also where a test before has stopped it."""
    pulse.start()
    return pulse


@pytest.fixture
def no_server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    if lacking := missing():
        pytest.skip(f"no sound system to test on: apt-get install {lacking}")
    for name, value in PulseServer(tmp_path).env.items():
        monkeypatch.setenv(name, value)


def hear(source: MicrophoneSource, clock: PacedClock, seconds: float) -> list[AudioBlock]:
    end_ns = clock.now_ns() + round(seconds * S)
    return list(itertools.takewhile(lambda block: block.t_ns < end_ns, source.packets(clock)))


def end_ns(block: AudioBlock) -> int:
    return block.t_ns + len(block.samples) * SAMPLE_NS


def gaps_ns(blocks: list[AudioBlock]) -> list[int]:
    return [two.t_ns - end_ns(one) for one, two in itertools.pairwise(blocks) if two.t_ns != end_ns(one)]


def read(path: Path) -> npt.NDArray[np.int16]:
    with wave.open(str(path)) as file:
        assert (file.getnchannels(), file.getframerate()) == (1, SAMPLE_RATE)
        return np.frombuffer(file.readframes(file.getnframes()), np.int16)


def found_at_ns(piece: npt.NDArray[np.int16], blocks: list[AudioBlock]) -> tuple[int, float]:
    """When a piece of sound was heard, and how much it is like what was played, at most 1."""
    heard = np.concatenate([block.samples for block in blocks]).astype(float)
    size = 1 << (len(heard) + len(piece)).bit_length()
    match = np.fft.irfft(np.fft.rfft(heard, size) * np.conj(np.fft.rfft(piece.astype(float), size)), size)
    at = int(match[: len(heard) - len(piece)].argmax())
    return blocks[0].t_ns + at * SAMPLE_NS, float(np.corrcoef(heard[at : at + len(piece)], piece)[0, 1])


@pytest.mark.parametrize("settings", [(16_000, 1), (48_000, 1), (44_100, 2)])
def test_what_is_played_is_heard_when_it_was_played(
    running: PulseServer, shared: Path, monkeypatch: pytest.MonkeyPatch, settings: tuple[int, int]
) -> None:
    source = MicrophoneSource()
    assert source.name == "microphone default"
    assert (source.live, source.scripted, source.provides, source.problems) == (True, False, {"audio"}, [])
    assert source._found is not None
    monkeypatch.setattr(source, "_found", source._found._replace(rate=settings[0], channels=settings[1]))
    clock = PacedClock()
    played_ns: list[int] = []

    def play() -> None:
        played_ns.append(clock.now_ns())
        running.play(shared / "speech" / "jfk.wav")

    threading.Timer(1, play).start()
    blocks = hear(source, clock, 8)
    assert gaps_ns(blocks) == []
    assert blocks[0].t_ns < 1 * S
    assert {block.samples.dtype for block in blocks} == {np.dtype(np.int16)}
    assert sum(len(block.samples) for block in blocks) / SAMPLE_RATE == pytest.approx(8, abs=1)
    assert (source.overflows, source.dropped) == (0, 0)
    speech = read(shared / "speech" / "jfk.wav")
    delays_ns = []
    for start_s in (1, 3.5, 4, 6):  # short and loud pieces, since sound is fitted to the clock sample by sample
        start = round(start_s * SAMPLE_RATE)
        at_ns, likeness = found_at_ns(speech[start : start + SAMPLE_RATE // 4], blocks)
        assert likeness > 0.8
        delays_ns.append(at_ns - played_ns[0] - start * SAMPLE_NS)
    # Some 10 ms where nothing else runs; a busy machine takes longer to start the player.
    assert min(delays_ns) > -30 * MS
    assert max(delays_ns) < 400 * MS
    assert max(delays_ns) - min(delays_ns) < 50 * MS


def test_a_microphone_that_goes_away_is_an_error_and_can_come_back(
    running: PulseServer, shared: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    source = MicrophoneSource("0")
    clock = PacedClock()
    packets = source.packets(clock)
    before = [next(packets) for _ in range(20)]
    running.stop()
    stopped_s = time.monotonic()
    with pytest.raises(SourceError, match="microphone pulse: it has gone; plug it in again"):
        before += packets
    assert time.monotonic() - stopped_s < 3
    with pytest.raises(SourceError, match="no microphone was found; plug one in"):
        next(source.packets(clock))
    running.start()
    running.play(shared / "speech" / "jfk.wav")
    after = hear(source, clock, 3)
    assert after[0].t_ns > end_ns(before[-1])
    assert gaps_ns(after) == []
    assert np.abs(np.concatenate([block.samples for block in after])).max() > 3000


def test_a_microphone_that_falls_silent_is_an_error(running: PulseServer) -> None:
    """The server hangs, and so does closing the stream; that must not hold up the news, nor the next stream."""
    source = MicrophoneSource()
    packets = source.packets(PacedClock())
    next(packets)
    assert running._daemon is not None
    running._daemon.send_signal(signal.SIGSTOP)
    stopped_s = time.monotonic()
    try:
        with pytest.raises(SourceError, match="it delivers nothing; plug it out and in again"):
            list(packets)
        assert 1.5 < time.monotonic() - stopped_s < 5
    finally:
        running._daemon.send_signal(signal.SIGCONT)
    assert next(source.packets(PacedClock()))


def test_a_driver_that_hangs_is_said(running: PulseServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(microphone, "_BUSY_S", 0.1)
    with microphone._lock:  # as whoever is stuck in the driver
        assert "the driver hangs; plug the microphone out and in again" in opening_fails_with(None)


def test_who_does_not_listen_misses_the_oldest(running: PulseServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(microphone, "_WAITING", 25)  # half a second
    source = MicrophoneSource()
    clock = PacedClock()
    packets = source.packets(clock)
    blocks = [next(packets) for _ in range(20)]
    time.sleep(1.5)
    blocks += [next(packets) for _ in range(40)]
    assert source.dropped == pytest.approx(50, abs=15)
    assert gaps_ns(blocks) == pytest.approx([source.dropped * 20 * MS], abs=25 * MS)
    assert blocks[-1].t_ns < clock.now_ns()


def test_a_closed_microphone_ends_soon_and_stays_closed(running: PulseServer) -> None:
    source = MicrophoneSource()
    packets = source.packets(PacedClock())
    next(packets)
    threading.Timer(0.2, source.close).start()
    started_s = time.monotonic()
    assert all(isinstance(block, AudioBlock) for block in packets)
    assert time.monotonic() - started_s < 1
    assert list(source.packets(PacedClock())) == []


def test_looking_for_microphones_disturbs_none_that_is_open(running: PulseServer) -> None:
    packets = MicrophoneSource().packets(PacedClock())
    blocks = [next(packets) for _ in range(10)]
    assert [(one.index, one.name, one.default) for one in microphones()] == [(0, "pulse", False), (1, "default", True)]
    MicrophoneSource("pulse")
    blocks += [next(packets) for _ in range(50)]
    assert gaps_ns(blocks) == []


def test_a_device_that_refuses_16_khz_and_mono_is_taken_as_it_is(running: PulseServer, monkeypatch: pytest.MonkeyPatch) -> None:
    import sounddevice  # type: ignore[import-untyped]

    check = sounddevice.check_input_settings

    def picky(device: int, **settings: Any) -> None:
        if settings["channels"] != 2 or settings["samplerate"] == SAMPLE_RATE:
            raise sounddevice.PortAudioError("Invalid sample rate", -9997)
        check(device, **settings)

    monkeypatch.setattr(sounddevice, "check_input_settings", picky)
    source = MicrophoneSource()
    assert source._found is not None
    assert (source._found.rate, source._found.channels) == (44_100, 2)
    assert gaps_ns(hear(source, PacedClock(), 1)) == []


def test_a_device_that_refuses_everything_is_one_line(running: PulseServer, monkeypatch: pytest.MonkeyPatch) -> None:
    import sounddevice

    def refuse(*_: Any, **__: Any) -> None:
        raise sounddevice.PortAudioError("Device unavailable", -9985)

    monkeypatch.setattr(sounddevice, "check_input_settings", refuse)
    assert opening_fails_with("pulse") == (
        "microphone pulse: it cannot be opened (Device unavailable); close what uses it, or take another; "
        "python -m stream.devices lists those there are"
    )


# --- errors


def opening_fails_with(device: int | str | None) -> str:
    with pytest.raises(SourceError) as caught:
        MicrophoneSource(device)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.usefixtures("no_server")
def test_where_there_is_no_microphone_the_next_step_is_said(capfd: pytest.CaptureFixture[str]) -> None:
    assert microphones() == []
    assert opening_fails_with(None) == "no microphone was found; plug one in, or check that the sound server runs"
    assert capfd.readouterr().err == ""


AMONG = (
    Microphone(0, "HDA Intel PCH: ALC257 Analog (hw:0,0)", False, 48_000, 2),
    Microphone(3, "USB Audio (hw:1,0)", False, 48_000, 1),
    Microphone(4, "USB Audio (hw:2,0)", False, 48_000, 1),
    Microphone(7, "default", True, 44_100, 32),
)


@pytest.mark.parametrize(
    ("device", "index"), [(None, 7), (3, 3), ("default", 7), ("alc257", 0), ("usb audio (hw:2,0)", 4), ("hw:1", 3)]
)
def test_a_microphone_is_named_by_its_index_or_a_part_of_its_name(device: int | str | None, index: int) -> None:
    assert choose(device, AMONG).index == index


def test_a_name_that_is_another_s_beginning_is_its_own() -> None:
    assert choose("pulse", (Microphone(0, "pulse", True, 1, 1), Microphone(1, "pulse monitor", False, 1, 1))).index == 0


@pytest.mark.parametrize(
    ("device", "line"),
    [
        (1, "microphone 1: there is none; give one of 0 'HDA Intel PCH: ALC257 Analog (hw:0,0)', 3 'USB Audio (hw:1,0)', "),
        ("Yeti", "microphone Yeti: there is none; give one of 0 "),
        ("usb", "microphone usb: there are 2 of that name; give one of 3 'USB Audio (hw:1,0)', 4 'USB Audio (hw:2,0)'"),
    ],
)
def test_a_microphone_that_is_not_there_is_one_line_with_those_that_are(device: int | str, line: str) -> None:
    with pytest.raises(SourceError) as caught:
        choose(device, AMONG)
    assert str(caught.value).startswith(line)


def test_no_default_is_said() -> None:
    with pytest.raises(SourceError, match="default microphone: there is none; give one of 3 "):
        choose(None, AMONG[1:2])


@pytest.mark.parametrize(
    ("error", "line"),
    [
        ("OSError('PortAudio library not found')", "the microphone needs PortAudio; on Debian: sudo apt install libportaudio2"),
        ("ImportError('no')", "the microphone needs sounddevice; run: pip install 'mmlatch-live[mic]'"),
    ],
)
def test_a_missing_library_is_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, error: str, line: str) -> None:
    (tmp_path / "sounddevice.py").write_text(f"raise {error}\n")
    monkeypatch.delitem(sys.modules, "sounddevice", raising=False)
    monkeypatch.syspath_prepend(str(tmp_path))
    assert opening_fails_with(None) == line


# --- times


def stamps_of(*heard: tuple[int, float, float]) -> list[int]:
    """The times of blocks of 20 ms, given when their callbacks ran, were called, and the sound was first heard."""
    stamps, block = microphone._Stamps(microphone._Found(0, "", SAMPLE_RATE, 1)), np.zeros((320, 1), np.int16)
    return [
        stamps.first_heard_ns(microphone._Heard(now_ns, called_s, adc_s, number, 0, block))
        for number, (now_ns, called_s, adc_s) in enumerate(heard)
    ]


def test_a_callback_that_had_to_wait_does_not_move_the_sound() -> None:
    steady = (1000 * MS, 500.0, 499.97), (1020 * MS, 500.02, 499.99)
    waited = (1340 * MS, 500.04, 500.01)  # 0.3 s for Python's lock
    assert stamps_of(*steady, waited) == pytest.approx([970 * MS, 990 * MS, 1010 * MS], abs=1000)


def test_a_driver_without_a_clock_is_taken_to_deliver_at_once() -> None:
    assert stamps_of((1000 * MS, 0.0, 0.0), (1020 * MS, 500.0, 500.0)) == [980 * MS, 1000 * MS]


@pytest.mark.parametrize("step_s", [-3600.0, 3600.0])
def test_a_system_clock_that_is_set_does_not_move_the_sound(step_s: float) -> None:
    before, after = (1000 * MS, 5000.0, 4999.97), (1020 * MS, 5000.02 + step_s, 4999.99 + step_s)
    assert stamps_of(before, after) == pytest.approx([970 * MS, 990 * MS], abs=1000)
