"""Audio: acoustic rows every 10 ms, the same bits however the sound is cut into blocks.

What a row holds, and why. Twenty MFCC carry the spectral envelope: on RAVDESS they serve as well as the 40 log-mel energies
that they are made of, in half the columns. To them come the low-level descriptors of the Geneva minimalistic set that
speech-emotion work agrees on: pitch on a semitone scale, voicing and harmonics-to-noise ratio, level, spectral flux, alpha
ratio, Hammarberg index and two spectral slopes, and four common descriptors of spectral shape. They add 0.04 of balanced
accuracy to the MFCC there (benchmarks/audio_features.py, figures in docs/benchmarks.md).

Sources: F. Eyben et al., "The Geneva Minimalistic Acoustic Parameter Set (GeMAPS) for Voice Research and Affective
Computing", IEEE Trans. Affective Computing 7(2), 2016, section 3; P. Boersma, "Accurate short-term analysis of the fundamental
frequency and the harmonics-to-noise ratio of a sampled sound", Proc. IFA Amsterdam 17, 1993 (pitch, voicing, HNR); filter
bank and DCT:
https://docs.pytorch.org/audio/stable/functional.html
"""

import math
from functools import cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from extractors.contract import FeatureContract, FeatureRows
from extractors.sound import SAMPLE_NS, SAMPLE_RATE, check_samples, continues

HOP = 160  # samples, 10 ms
FRAME = 400  # samples, 25 ms: spectrum and level
PITCH_FRAME = 800  # samples, 50 ms: three periods of the lowest pitch
BLOCK_ROWS = 10  # rows in each call of the one fixed shape
N_FFT = 512
N_MELS = 40
N_MFCC = 20
PITCH_RANGE = (60.0, 500.0)  # Hz
VOICED = 0.45  # the least normalised autocorrelation of a voiced frame, Boersma's default threshold
SILENCE_DB = -60.0  # dB below full scale; a frame under it is known absence: there is nothing to hear
_FLOOR = 1e-10  # power, -100 dB: keeps logarithms of digital silence finite

COLUMNS = (
    *(f"mfcc_{index}" for index in range(N_MFCC)),
    "level_db",
    "pitch_semitones",  # above 27.5 Hz; 0 where unvoiced
    "voicing",  # normalised autocorrelation at the pitch period, 0 to 1
    "hnr_db",  # harmonics-to-noise ratio, -20 to 40
    "zero_crossing_rate",  # of neighbouring samples, 0 to 1
    "centroid_khz",
    "spread_khz",
    "rolloff_khz",  # 85 % of the power lies below
    "flatness_db",  # geometric over arithmetic mean of the power
    "flux",  # distance of neighbouring unit spectra, 0 to sqrt(2)
    "alpha_ratio_db",  # 50-1000 Hz over 1-5 kHz
    "hammarberg_db",  # strongest peak in 0-2 kHz over that in 2-5 kHz
    "slope_low_db_per_khz",  # 0-500 Hz
    "slope_mid_db_per_khz",  # 500-1500 Hz
)
CONTRACT = FeatureContract(
    name="audio",
    version=1,
    columns=COLUMNS,
    parameters={
        "sample_rate_hz": SAMPLE_RATE,
        "hop": HOP,
        "frame": FRAME,
        "pitch_frame": PITCH_FRAME,
        "n_fft": N_FFT,
        "n_mels": N_MELS,
        "silence_db": SILENCE_DB,
    },
)

# A block's samples begin where the first row's pitch frame begins. Every frame ends where its row's time is.
_BLOCK = PITCH_FRAME + (BLOCK_ROWS - 1) * HOP
_HISTORY = PITCH_FRAME - FRAME  # zeros before the first sample, so that the first row lies 25 ms after it


class AudioExtractor:
    """Turns a stream of 16 kHz mono samples into rows.

    Inside, rows are computed in calls of one fixed shape that start at the stream's first sample, so each row's bits depend on
    the samples alone and not on how they were handed over.

    Example:
        extractor = AudioExtractor()
        rows = [extractor.push(t_ns, samples) for t_ns, samples in blocks] + [extractor.close()]
    """

    contract = CONTRACT

    def __init__(self) -> None:
        """Start with nothing heard."""
        self._pending: npt.NDArray[np.int16]
        self._restart(0)

    def push(self, t_ns: int, samples: npt.NDArray[np.int16]) -> FeatureRows:
        """Hear the next block.

        Args:
            t_ns: The time of the first sample, nanoseconds. A block that does not continue the last one to within one sample
                starts anew after the gap: no frame reaches across it.
            samples: 16 kHz mono, int16, shape (N,), any N.

        Returns:
            The rows that are complete now; up to 100 ms of sound wait for their block to fill.

        Raises:
            ValueError: The samples have another shape or type, or the block starts before the last one ended.
        """
        check_samples(samples)
        done = []
        heard = self._next_ns > self._start_ns
        if not heard:
            self._restart(t_ns)
        elif not continues(t_ns, self._next_ns):
            done.append(self.close())
            self._restart(t_ns)
        self._next_ns += len(samples) * SAMPLE_NS
        self._pending = np.concatenate([self._pending, samples])
        while len(self._pending) >= _BLOCK:
            done.append(self._compute(self._pending[:_BLOCK], BLOCK_ROWS))
            self._pending = self._pending[BLOCK_ROWS * HOP :]
        return FeatureRows.concatenate(done, len(COLUMNS))

    @property
    def watermark_ns(self) -> int:
        """No later row is stamped before this time."""
        return self._start_ns + (self._rows * HOP + FRAME - 1) * SAMPLE_NS

    def close(self) -> FeatureRows:
        """Return the rows of the last, incomplete block and start anew."""
        count = max(0, (len(self._pending) - PITCH_FRAME) // HOP + 1)
        # Zeros fill the block up to its fixed shape; the rows kept do not reach into them.
        block = np.zeros(_BLOCK, np.int16)
        block[: len(self._pending)] = self._pending
        rows = self._compute(block, count)
        self._restart(self._next_ns)
        return rows

    def _restart(self, t_ns: int) -> None:
        self._start_ns = self._next_ns = t_ns
        self._pending = np.zeros(_HISTORY, np.int16)
        self._rows = 0

    def _compute(self, block: npt.NDArray[np.int16], count: int) -> FeatureRows:
        values = _block_rows(torch.from_numpy(block.astype(np.float32) / 32768.0))[:count].numpy()  # (count, D)
        last_sample = (np.arange(self._rows, self._rows + count) * HOP + FRAME - 1).astype(np.int64)
        t_ns = self._start_ns + last_sample * SAMPLE_NS
        self._rows += count
        audible = values[:, COLUMNS.index("level_db")] > SILENCE_DB
        return FeatureRows(t_ns[audible], values[audible], t_ns[~audible])


class _Tables(NamedTuple):
    """What every block needs and no block changes."""

    window: torch.Tensor  # (FRAME,)
    mel: torch.Tensor  # (F, N_MELS)
    dct: torch.Tensor  # (N_MELS, N_MFCC)
    khz: torch.Tensor  # (F,)
    pitch_window: torch.Tensor  # (PITCH_FRAME,)
    pitch_window_correlation: torch.Tensor  # (LAGS,)


_PITCH_FFT = 2048  # more than PITCH_FRAME plus the longest lag, so the circular correlation is the linear one
_LAGS = slice(math.ceil(SAMPLE_RATE / PITCH_RANGE[1]), math.floor(SAMPLE_RATE / PITCH_RANGE[0]) + 1)


@cache
def _tables() -> _Tables:
    from torchaudio import functional

    bins = N_FFT // 2 + 1
    window = torch.hann_window(FRAME, periodic=False)
    pitch_window = torch.hann_window(PITCH_FRAME, periodic=False)
    correlation = _autocorrelation(pitch_window)
    return _Tables(
        window=window,
        mel=functional.melscale_fbanks(bins, 20.0, SAMPLE_RATE / 2, N_MELS, SAMPLE_RATE, mel_scale="htk"),
        dct=functional.create_dct(N_MFCC, N_MELS, norm="ortho"),
        khz=torch.linspace(0, SAMPLE_RATE / 2000, bins),
        pitch_window=pitch_window,
        pitch_window_correlation=correlation / correlation[0],
    )


def _autocorrelation(frames: torch.Tensor) -> torch.Tensor:
    """The autocorrelation of each (…, PITCH_FRAME) frame at lags 0 to one past the longest pitch period, (…, LAGS)."""
    return torch.fft.irfft(torch.fft.rfft(frames, n=_PITCH_FFT).abs().square(), n=_PITCH_FFT)[..., : _LAGS.stop + 1]


@torch.inference_mode()
def _block_rows(samples: torch.Tensor) -> torch.Tensor:
    """The rows of one block, (_BLOCK,) float32 in [-1, 1) to (BLOCK_ROWS, D)."""
    tables = _tables()
    frames = samples[_HISTORY - HOP :].unfold(0, FRAME, HOP)  # (1 + BLOCK_ROWS, FRAME), one frame before the first row's
    power = torch.fft.rfft(frames * tables.window, n=N_FFT).abs().square()  # (1 + BLOCK_ROWS, F)
    unit = power.sqrt() / power.sum(1, keepdim=True).clamp_min(_FLOOR).sqrt()
    flux = (unit[1:] - unit[:-1]).norm(dim=1)  # (BLOCK_ROWS,)
    frames, power = frames[1:], power[1:]

    mfcc = (power @ tables.mel).clamp_min(_FLOOR).log() @ tables.dct  # (BLOCK_ROWS, N_MFCC)
    level = _db(frames.square().mean(1))
    crossings = ((frames[:, 1:] < 0) != (frames[:, :-1] < 0)).float().mean(1)
    pitch, voicing, hnr = _pitch(samples.unfold(0, PITCH_FRAME, HOP), tables)

    khz = tables.khz
    share = power / power.sum(1, keepdim=True).clamp_min(_FLOOR)  # (BLOCK_ROWS, F), sums to 1
    centroid = share @ khz
    spread = (share * (khz - centroid[:, None]).square()).sum(1).sqrt()
    rolloff = khz[(share.cumsum(1) < 0.85).sum(1).clamp_max(len(khz) - 1)]
    decibel = _db(power)
    flatness = decibel.mean(1) - _db(power.mean(1))

    def band(low: float, high: float) -> slice:
        return slice(math.ceil(low * N_FFT / SAMPLE_RATE), math.floor(high * N_FFT / SAMPLE_RATE) + 1)

    alpha = _db(power[:, band(50, 1000)].sum(1)) - _db(power[:, band(1000, 5000)].sum(1))
    hammarberg = decibel[:, band(0, 2000)].amax(1) - decibel[:, band(2000, 5000)].amax(1)

    def slope(low: float, high: float) -> torch.Tensor:
        centred = khz[band(low, high)] - khz[band(low, high)].mean()
        return decibel[:, band(low, high)] @ centred / centred.square().sum()

    shape = (centroid, spread, rolloff, flatness, flux, alpha, hammarberg, slope(0, 500), slope(500, 1500))
    return torch.cat([mfcc, torch.stack([level, pitch, voicing, hnr, crossings, *shape], 1)], 1)  # (BLOCK_ROWS, D)


def _pitch(frames: torch.Tensor, tables: _Tables) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Pitch in semitones above 27.5 Hz, voicing and HNR in dB of (N, PITCH_FRAME) frames, each (N,).

    Boersma 1993: the autocorrelation of the windowed frame, divided by that of the window, peaks at the period with the share
    of the power that is periodic.
    """
    frames = (frames - frames.mean(1, keepdim=True)) * tables.pitch_window
    correlation = _autocorrelation(frames)  # (N, LAGS)
    correlation = correlation / correlation[:, :1].clamp_min(_FLOOR) / tables.pitch_window_correlation
    # A slight preference for the shorter of equal periods avoids octave errors (Boersma's octave cost, 0.01 an octave).
    lags = torch.arange(_LAGS.start, _LAGS.stop)
    cost = 0.01 * torch.log2(lags / _LAGS.start)
    best = (correlation[:, _LAGS] - cost).argmax(1) + _LAGS.start  # (N,)
    before, peak, after = (correlation.gather(1, (best + offset)[:, None])[:, 0] for offset in (-1, 0, 1))
    bend = before - 2 * peak + after
    shift = torch.where(bend < 0, 0.5 * (before - after) / bend, torch.zeros_like(bend)).clamp(-0.5, 0.5)
    voicing = peak.clamp(0, 1)
    semitones = 12 * torch.log2(SAMPLE_RATE / (best + shift) / 27.5)
    hnr = 10 * torch.log10(voicing.clamp(1e-2, 1 - 1e-4) / (1 - voicing.clamp(1e-2, 1 - 1e-4)))
    return torch.where(voicing > VOICED, semitones, torch.zeros_like(semitones)), voicing, hnr


def _db(power: torch.Tensor) -> torch.Tensor:
    return 10 * power.clamp_min(_FLOOR).log10()
