"""Should an audio row hold log-mel energies or MFCC, and what do the other descriptors add?

    python -m benchmarks.audio_features --data FOLDER

RAVDESS speech (data/ravdess/), the sign of the valence: calm and happy against sad, angry, fearful and disgust; neutral and
surprised are left out. Each recording becomes the mean and the standard deviation over time of its audible rows; a support
vector machine (RBF kernel, standardised columns, classes weighted equally) tells the sign. Five folds of four actors each, two
women and two men; C is chosen on the training actors alone, again by actors. Actors 21 to 24 stay untouched for later tests.
The baseline is 40 log-mel energies, computed from the very window and filter bank that the extractor uses.
"""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from sklearn.metrics import balanced_accuracy_score
from sklearn.model_selection import GridSearchCV, LeaveOneGroupOut
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC
from tqdm import tqdm

from benchmarks.common import need, options, read_speech, show, write
from extractors import audio

POSITIVE = {"02", "03"}  # calm, happy
NEGATIVE = {"04", "05", "06", "07"}  # sad, angry, fearful, disgust
ACTORS = range(1, 21)
FOLD = 4  # actors; odd numbers are men and even ones women
MFCC = [index for index, name in enumerate(audio.COLUMNS) if name.startswith("mfcc_")]
DESCRIPTORS = [index for index in range(len(audio.COLUMNS)) if index not in MFCC]
BASELINE = "log-mel 40"

Array = npt.NDArray[np.float32]


def log_mel(samples: npt.NDArray[np.int16]) -> Array:
    """The log-mel energies under each of the extractor's rows, (N, N_MELS)."""
    tables = audio._tables()
    frames = torch.from_numpy(samples.astype(np.float32) / 32768).unfold(0, audio.FRAME, audio.HOP)
    power = torch.fft.rfft(frames * tables.window, n=audio.N_FFT).abs().square()
    return (power @ tables.mel).clamp_min(audio._FLOOR).log().numpy()


def recording(path: Path) -> dict[str, Array]:
    """Each feature set's mean and standard deviation over the recording's audible rows, (2 D,)."""
    samples = read_speech(path)
    extractor = audio.AudioExtractor()
    parts = [extractor.push(0, samples), extractor.close()]
    rows = np.concatenate([part.values for part in parts])  # (N, D)
    t_ns = np.concatenate([part.t_ns for part in parts])
    mel = log_mel(samples)[(t_ns // audio.SAMPLE_NS - (audio.FRAME - 1)) // audio.HOP]  # (N, N_MELS)
    mfcc, descriptors = rows[:, MFCC], rows[:, DESCRIPTORS]
    # The comparison is only fair if the log-mel energies are those that the MFCC are made of.
    assert np.allclose(mel @ audio._tables().dct.numpy(), mfcc, atol=1e-2)
    sets = {
        BASELINE: mel,
        "MFCC 20": mfcc,
        "MFCC 13": mfcc[:, :13],
        "descriptors 14": descriptors,
        "log-mel 40 + descriptors": np.hstack([mel, descriptors]),
        "MFCC 20 + descriptors (the extractor's rows)": rows,
    }
    return {name: np.concatenate([values.mean(0), values.std(0)]) for name, values in sets.items()}


def accuracies(values: Array, positive: npt.NDArray[np.bool_], folds: npt.NDArray[np.int64]) -> list[float]:
    """The balanced accuracy on each fold, of a machine fitted on the others."""
    found = []
    for fitted, held in LeaveOneGroupOut().split(values, positive, folds):
        machine = make_pipeline(StandardScaler(), SVC(class_weight="balanced"))
        search = GridSearchCV(
            machine, {"svc__C": [0.1, 0.3, 1, 3, 10, 30, 100]}, scoring="balanced_accuracy", cv=LeaveOneGroupOut()
        )
        search.fit(values[fitted], positive[fitted], groups=folds[fitted])
        found.append(float(balanced_accuracy_score(positive[held], search.predict(values[held]))))
    return found


def main() -> None:
    """Measure, print and write."""
    arguments = options(__doc__)
    paths, positive, folds = [], [], []
    for path in sorted(need(arguments.data / "data" / "ravdess").glob("*.flac")):
        _, _, emotion, *_, actor = path.stem.split("-")
        if int(actor) in ACTORS and emotion in POSITIVE | NEGATIVE:
            paths.append(path)
            positive.append(emotion in POSITIVE)
            folds.append((int(actor) - 1) // FOLD)
    recordings = [recording(path) for path in tqdm(paths, unit="file")]
    figures = {
        name: accuracies(np.stack([each[name] for each in recordings]), np.array(positive), np.array(folds))
        for name in recordings[0]
    }
    rows = []
    for name, found in figures.items():
        gain = np.subtract(found, figures[BASELINE])
        rows.append(
            [
                name,
                f"{np.mean(found):.3f} ± {np.std(found, ddof=1):.3f}",
                "baseline" if name == BASELINE else f"{gain.mean():+.3f} ± {gain.std(ddof=1):.3f}",
                f"{(gain > 0).sum()} of {len(gain)}" if name != BASELINE else "",
                f"{found[-1]:.3f}",
            ]
        )
    print(f"{len(paths)} recordings, {sum(positive)} positive; mean and standard deviation over {max(folds) + 1} folds")
    show(["columns", "balanced accuracy", "difference, fold by fold", "folds better", "last fold, actors 17-20"], rows)
    write(arguments.json, {"recordings": len(paths), "balanced_accuracy_by_fold": figures})


if __name__ == "__main__":
    main()
