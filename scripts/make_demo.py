"""Makes the bundled demo anew: `python scripts/make_demo.py`; needs Debian's espeak-ng.

A short scripted session: a synthetic voice speaks a few sentences (espeak-ng, which also tells when each word begins), and
scripted face coefficients go with what is said. Nobody was recorded. The result is stream/demo.mcap.
"""

import ctypes
import ctypes.util
import itertools
import math
import sys
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from extractors.asr.recogniser import Word
from extractors.contract import FeatureRows
from extractors.face import BLENDSHAPES, CONTRACT
from extractors.sound import SAMPLE_NS, SAMPLE_RATE
from stream.mcap import About, RecordingWriter
from stream.messages import AudioBlock, Packet, Transcript, VisionRows
from stream.records import AUDIO, FACES, WORDS, Kind, Record

OUTPUT = Path(__file__).parent.parent / "stream" / "demo.mcap"


class Line(NamedTuple):
    """One scripted utterance: what is said, what the face shows (-1 to 1), and the silence after it in seconds."""

    text: str
    mood: float
    pause_s: float


SCRIPT = (
    Line("I really love this little camera. It works wonderfully, and it made my whole family happy.", 0.9, 1.6),
    Line("But the manual is terrible. I wasted a whole evening on it, and I am still angry.", -0.9, 1.8),
    Line("Tomorrow I will read it again.", 0.0, 2.2),
    Line("All in all, it was the best present of the year!", 1.0, 1.0),
)
KINDS: dict[type, Kind[Any]] = {AudioBlock: AUDIO, VisionRows: FACES, Transcript: WORDS}
START_S = 0.5
AWAY_AFTER = 2  # nobody is in view for a while in the silence after this line
FRAME_NS = 40_000_000  # 25 pictures a second
FRAMES_A_MESSAGE = 5
BLOCK = SAMPLE_RATE // 10


class _Event(ctypes.Structure):
    """espeak_EVENT, from espeak-ng's speak_lib.h."""

    _fields_ = [
        ("type", ctypes.c_int),
        ("unique_identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("id", ctypes.c_char * 8),
    ]


_SYNCHRONOUS, _UTF8, _WORD, _END_OF_LIST = 2, 1, 1, 0
_CALLBACK = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event))


@cache
def _espeak() -> tuple[ctypes.CDLL, int]:
    """The library, initialised (it does not survive a second time), and its sample rate in Hz."""
    name = ctypes.util.find_library("espeak-ng")
    if not name:
        sys.exit("error: espeak-ng is not installed; run: sudo apt-get install -y espeak-ng")
    library = ctypes.CDLL(name)
    rate = library.espeak_Initialize(_SYNCHRONOUS, 0, None, 0)
    library.espeak_SetVoiceByName(b"en-us")
    return library, rate


def speak(text: str) -> tuple[npt.NDArray[np.int16], list[Word]]:
    """The synthetic voice: 16 kHz int16 (N,), and the words with times from its first sample."""
    library, rate = _espeak()
    pieces: list[npt.NDArray[np.int16]] = []
    events_at: list[tuple[int, int]] = []  # (sample, character)

    def heard(samples: "ctypes._Pointer[ctypes.c_short]", count: int, events: "ctypes._Pointer[_Event]") -> int:
        if samples:
            pieces.append(np.ctypeslib.as_array(samples, (count,)).copy())
        index = 0
        while events[index].type != _END_OF_LIST:
            if events[index].type == _WORD and events[index].length:
                events_at.append((events[index].sample, events[index].text_position - 1))
            index += 1
        return 0

    callback = _CALLBACK(heard)
    library.espeak_SetSynthCallback(callback)
    encoded = text.encode()
    library.espeak_Synth(encoded, len(encoded) + 1, 0, 1, 0, _UTF8, None, None)

    voice = np.concatenate(pieces)
    audible = np.flatnonzero(np.abs(voice) > 200)
    voice = voice[: audible[-1] + 1]  # without the pause at the end
    words = []
    bounds = [*events_at, (len(voice), len(text))]
    for (start, first), (end, last) in itertools.pairwise(bounds):
        spoken = text[
            first:last
        ].split()  # the voice draws short words together, as in "of the": they share the time by letters
        edges = np.cumsum([0, *map(len, spoken)]) / sum(map(len, spoken)) * (end - start) + start
        times_ns = [round(float(edge) / rate * 1e9) for edge in edges]
        words += [Word(word, times_ns[i], times_ns[i + 1], 1.0) for i, word in enumerate(spoken)]
    import torch
    from torchaudio import functional

    resampled = functional.resample(torch.from_numpy(voice.astype(np.float32)), rate, SAMPLE_RATE).numpy()
    return np.clip(resampled.round(), -32768, 32767).astype(np.int16), words


def face(t_s: float, mood: float, loudness: float) -> list[float]:
    """Scripted coefficients at a moment: a smile or a frown by mood, a jaw that follows the voice, blinks, a moving head."""
    shapes = dict.fromkeys(BLENDSHAPES, 0.02)
    smile, frown = max(0.0, mood), max(0.0, -mood)
    blink = 0.9 if t_s % 3.1 < 0.15 else 0.05
    for side in ("Left", "Right"):
        shapes[f"mouthSmile{side}"] = 0.75 * smile + 0.02
        shapes[f"cheekSquint{side}"] = 0.4 * smile + 0.02
        shapes[f"browDown{side}"] = 0.6 * frown + 0.05
        shapes[f"mouthFrown{side}"] = 0.5 * frown + 0.02
        shapes[f"noseSneer{side}"] = 0.3 * frown
        shapes[f"eyeBlink{side}"] = blink
    shapes["browInnerUp"] = 0.25 * smile + 0.1
    shapes["jawOpen"] = 0.5 * loudness
    pose = (0.15 * math.sin(0.7 * t_s), 0.05 * math.sin(1.1 * t_s), 0.04 * math.sin(0.5 * t_s))
    position = (1.5 * math.sin(0.4 * t_s), 1.0, -45.0 + 2 * math.sin(0.3 * t_s))
    return [round(value, 3) for value in (*shapes.values(), *pose, *position)]


def main() -> None:
    """Write the demo."""
    sounds: list[npt.NDArray[np.int16]] = [np.zeros(round(START_S * SAMPLE_RATE), np.int16)]
    words: list[Word] = []
    moods: list[tuple[int, float]] = [(0, 0.0)]  # from this time on
    away = (0, 0)
    for index, line in enumerate(SCRIPT):
        begin_ns = sum(map(len, sounds)) * SAMPLE_NS
        voice, spoken = speak(line.text)
        words += [Word(w.text, begin_ns + w.start_ns, begin_ns + w.end_ns, w.confidence) for w in spoken]
        sounds += [voice, np.zeros(round(line.pause_s * SAMPLE_RATE), np.int16)]
        end_ns = begin_ns + len(voice) * SAMPLE_NS
        moods += [(begin_ns, line.mood), (end_ns + 500_000_000, 0.0)]
        if index == AWAY_AFTER:
            away = (end_ns + 400_000_000, end_ns + 1_700_000_000)
    sound = np.concatenate(sounds)
    # A quiet room instead of digital silence: -70 dB below full scale.
    sound = (
        (sound + np.random.default_rng(0).normal(0, 32768 * 10 ** (-70 / 20), len(sound))).clip(-32768, 32767).astype(np.int16)
    )

    packets: list[Packet] = [
        AudioBlock(first * SAMPLE_NS, sound[first : first + BLOCK]) for first in range(0, len(sound), BLOCK)
    ]
    length_ns = len(sound) * SAMPLE_NS
    mood, t_ns = 0.0, np.empty(0, np.int64)
    rows: list[list[float]] = []
    for number, t in enumerate(range(0, length_ns, FRAME_NS)):
        target = next(m for since, m in reversed(moods) if since <= t)
        mood += 0.12 * (target - mood)  # a face takes about a third of a second to change
        around = sound[max(0, t // SAMPLE_NS - 400) : t // SAMPLE_NS + 400].astype(np.float64)
        rows.append(face(t / 1e9, mood, min(1.0, math.sqrt(float(np.mean(around**2))) / 4000)))
        t_ns = np.append(t_ns, t)
        if (number + 1) % FRAMES_A_MESSAGE == 0 or t + FRAME_NS >= length_ns:
            gone = (t_ns >= away[0]) & (t_ns < away[1])
            values = np.array(rows, np.float32).reshape(-1, len(CONTRACT.columns))
            packets.append(VisionRows(t + FRAME_NS, FeatureRows(t_ns[~gone], values[~gone], t_ns[gone])))
            rows, t_ns = [], np.empty(0, np.int64)
    for t in range(250_000_000, length_ns + 250_000_000, 250_000_000):
        packets.append(Transcript(t, tuple(word for word in words if t - 250_000_000 < word.end_ns <= t)))

    OUTPUT.unlink(missing_ok=True)
    packets.sort(key=lambda packet: packet.t_ns)
    about = About(
        name="scripted demo",
        scripted=True,
        packets=("audio", "vision_rows", "words"),
        contracts={"vision": CONTRACT.tag},
    )
    with RecordingWriter(OUTPUT, about) as recording:
        for number, packet in enumerate(packets):
            recording.write(Record(number, packet.t_ns, KINDS[type(packet)], packet))
    print(f"{OUTPUT.name}: {length_ns / 1e9:.1f} s, {len(words)} words, {OUTPUT.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
