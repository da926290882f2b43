"""Should an audio row hold log-mel energies or MFCC, and what do the other descriptors add?

    python -m benchmarks.audio_features --data FOLDER

RAVDESS speech (data/ravdess/), the sign of the valence: calm and happy against sad, angry, fearful and disgust; neutral and
surprised are left out. Each recording becomes the mean and the standard deviation over time of its audible rows; a support
vector machine (RBF kernel, standardised columns, classes weighted equally) tells the sign of actors that it was not fitted on:
five folds of two women and two men each, drawn anew four times; C is chosen on the fitted actors alone, again by folds. Actors
differ more than feature sets do, so the difference to the baseline is taken actor by actor, and its standard error is that over
the twenty actors. Actors 21 to 24 stay untouched for later tests. The baseline is 40 log-mel energies, computed with the very
window and filter bank that the extractor uses.
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

from benchmarks.common import Figure, options, show, write
from benchmarks.sound import ACTORS, ravdess, read_speech
from extractors import audio
from extractors.sound import SAMPLE_NS

POSITIVE = {"02", "03"}  # calm, happy
NEGATIVE = {"04", "05", "06", "07"}  # sad, angry, fearful, disgust
PAIRS = len(ACTORS) // 2  # odd numbers are men and even ones women, so that neighbours make a pair
FOLD = 2  # pairs
REPEATS = 4
MFCC = [index for index, name in enumerate(audio.COLUMNS) if name.startswith("mfcc_")]
DESCRIPTORS = [index for index in range(len(audio.COLUMNS)) if index not in MFCC]
BASELINE = "log-mel 40"
MEL_ALL = "log-mel 40 + descriptors"
MFCC_ALL = "MFCC 20 + descriptors (the extractor's rows)"

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
    mel = log_mel(samples)[(t_ns // SAMPLE_NS - (audio.FRAME - 1)) // audio.HOP]  # (N, N_MELS)
    mfcc, descriptors = rows[:, MFCC], rows[:, DESCRIPTORS]
    # The comparison is only fair if the log-mel energies are those that the MFCC are made of.
    assert np.allclose(mel @ audio._tables().dct.numpy(), mfcc, atol=1e-2)
    sets = {
        BASELINE: mel,
        "MFCC 20": mfcc,
        "MFCC 13": mfcc[:, :13],
        "descriptors 14": descriptors,
        MEL_ALL: np.hstack([mel, descriptors]),
        MFCC_ALL: rows,
    }
    return {name: np.concatenate([values.mean(0), values.std(0)]) for name, values in sets.items()}


def accuracies(values: Array, positive: npt.NDArray[np.bool_], actors: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """The balanced accuracy on each actor, of machines fitted on others, the mean over the repeats, (len(ACTORS),)."""
    found = np.zeros((REPEATS, len(ACTORS)))
    for repeat in range(REPEATS):
        folds = np.random.default_rng(repeat).permutation(PAIRS)[(actors - 1) // 2] // FOLD
        for fitted, held in LeaveOneGroupOut().split(values, positive, folds):
            search = GridSearchCV(
                make_pipeline(StandardScaler(), SVC(class_weight="balanced")),
                {"svc__C": [0.3, 1, 3, 10, 30]},
                scoring="balanced_accuracy",
                cv=LeaveOneGroupOut(),
            )
            search.fit(values[fitted], positive[fitted], groups=folds[fitted])
            prediction = search.predict(values[held])
            for actor in np.unique(actors[held]):
                mine = actors[held] == actor
                found[repeat, actor - 1] = balanced_accuracy_score(positive[held][mine], prediction[mine])
    return found.mean(0)


def difference(found: npt.NDArray[np.float64], baseline: npt.NDArray[np.float64]) -> str:
    """The mean difference over the actors, its standard error, and how many actors gain."""
    gain = found - baseline
    return f"{gain.mean():+.3f} ± {gain.std(ddof=1) / np.sqrt(len(gain)):.3f}, {(gain > 0).sum()} of {len(gain)}"


def main() -> None:
    """Measure, print and write."""
    arguments = options(__doc__)
    chosen = [each for each in ravdess(arguments.data) if each.emotion in POSITIVE | NEGATIVE]
    positive = np.array([each.emotion in POSITIVE for each in chosen])
    actors = np.array([each.actor for each in chosen])
    recordings = [recording(each.path) for each in tqdm(chosen, unit="file")]
    figures = {
        name: accuracies(np.stack([each[name] for each in recordings]), positive, actors)
        for name in tqdm(recordings[0], unit="set")
    }
    print(f"{len(chosen)} recordings, {positive.sum()} positive")
    show(
        ["columns", "balanced accuracy", "difference, actors that gain"],
        [
            [name, f"{found.mean():.3f}", "baseline" if name == BASELINE else difference(found, figures[BASELINE])]
            for name, found in figures.items()
        ],
    )
    print("beside the descriptors, MFCC 20 in place of log-mel 40:", difference(figures[MFCC_ALL], figures[MEL_ALL]))
    baseline = figures[BASELINE].mean()
    write(
        arguments.json,
        [Figure.against(baseline, f"{name}: balanced accuracy", found.mean(), "1") for name, found in figures.items()],
    )


if __name__ == "__main__":
    main()
