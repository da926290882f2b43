"""What the benchmarks on speech share: finding and reading sound."""

import sys
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt
import torch
from torchaudio.functional import resample

from benchmarks.common import need
from extractors.sound import SAMPLE_RATE

ACTORS = range(1, 21)  # of RAVDESS; 21 to 24 stay untouched for later tests


@dataclass(frozen=True)
class Acted:
    """One RAVDESS recording, with the fields of its file's name that the benchmarks need."""

    path: Path
    emotion: str
    statement: str
    repetition: str
    actor: int


def ravdess(data: Path) -> list[Acted]:
    """The recordings of `ACTORS`, in the order of their names; the program ends with one line if there are none."""
    folder = need(data / "data" / "ravdess")
    found = []
    for path in sorted(folder.glob("*.flac")):
        _modality, _channel, emotion, _intensity, statement, repetition, actor = path.stem.split("-")
        if int(actor) in ACTORS:
            found.append(Acted(path, emotion, statement, repetition, int(actor)))
    return found or sys.exit(f"{folder} holds no recordings (*.flac)")


def read_speech(path: Path) -> npt.NDArray[np.int16]:
    """A sound file's samples as 16 kHz mono int16, shape (N,)."""
    with av.open(path) as container:
        mono = av.AudioResampler("s16", "mono")
        frames = [part for frame in container.decode(audio=0) for part in mono.resample(frame)]
        rate = frames[0].sample_rate
    samples = np.concatenate([frame.to_ndarray()[0] for frame in frames])
    if rate == SAMPLE_RATE:
        return samples
    resampled = resample(torch.from_numpy(samples.astype(np.float32)), rate, SAMPLE_RATE)
    return resampled.round().clamp(-32768, 32767).to(torch.int16).numpy()
