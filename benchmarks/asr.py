"""Should PocketSphinx hear a stretch of speech at once when it has ended, or in pieces while it lasts?

    python -m benchmarks.asr --data FOLDER

Heard at once, the stretch's own cepstral mean is taken off; in pieces, a running mean. The same voice activity finds the
stretches for both. Word error rate on normalised words, and seconds of CPU in the decoder for each second of sound, on
recordings read aloud (speech/: the LJ files and JFK) and on short neutral sentences of many speakers (data/ravdess/, the first
repetitions of actors 1 to 20; 21 to 24 stay untouched for later tests). The baseline is a decoder fed in pieces of 32 ms that
keeps its running mean from recording to recording, as in a long session.
"""

import csv
import re
import time
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pocketsphinx
from torchaudio.functional import edit_distance
from tqdm import tqdm

from benchmarks.common import Figure, need, options, show, write
from benchmarks.sound import ravdess, read_speech
from extractors.asr.recogniser import StretchRecogniser, Word
from extractors.asr.sphinx import SphinxRecogniser
from extractors.sound import SAMPLE_RATE
from extractors.text import normalise
from extractors.vad import CHUNK, VoiceActivity, VoiceChunk

JFK = "And so, my fellow Americans, ask not what your country can do for you, ask what you can do for your country."
RAVDESS = {"01": "Kids are talking by the door", "02": "Dogs are sitting by the door"}
NEUTRAL = "01"
BASELINE = "in pieces"


class Sphinx(StretchRecogniser):
    """The worker's decoder inside this process, so that its CPU time can be taken; word times are left out."""

    name = "pocketsphinx"

    def __init__(self, *, whole: bool) -> None:
        """Load the model; `whole` feeds each stretch at once."""
        super().__init__()
        self._decoder = pocketsphinx.Decoder(loglevel="FATAL")
        self._whole = whole
        self.cpu_s = 0.0

    def close(self) -> None:
        """Nothing to free."""

    def _recognise(self, t_ns: int, samples: npt.NDArray[np.int16]) -> list[Word]:
        before = time.process_time()
        self._decoder.start_utt()
        if self._whole:
            self._decoder.process_raw(samples.tobytes(), no_search=False, full_utt=True)
        else:
            for first in range(0, len(samples), CHUNK):
                self._decoder.process_raw(samples[first : first + CHUNK].tobytes(), no_search=False, full_utt=False)
        self._decoder.end_utt()
        texts = [re.sub(r"\(\d+\)$", "", segment.word) for segment in self._decoder.seg() or ()]
        self.cpu_s += time.process_time() - before
        return [Word(text, t_ns, t_ns + 1) for text in texts if not text.startswith("<")]


def words(recogniser: Sphinx | SphinxRecogniser, chunks: list[VoiceChunk]) -> list[str]:
    """What is recognised in a recording, normalised."""
    said = [word for chunk in chunks for word in recogniser.push(chunk).final] + list(recogniser.finish().final)
    return normalise(" ".join(word.text for word in said))


def corpora(folder: Path) -> dict[str, list[tuple[Path, str]]]:
    """The recordings with their transcripts, by corpus."""
    speech = folder / "speech"
    with need(speech / "ljspeech.csv").open(newline="", encoding="utf-8") as file:
        read = [(speech / f"{name}.wav", text) for name, text in csv.reader(file, delimiter="|", quoting=csv.QUOTE_NONE)]
    acted = [
        (each.path, RAVDESS[each.statement]) for each in ravdess(folder) if each.emotion == NEUTRAL and each.repetition == "01"
    ]
    return {"LJ and JFK": [*read, (speech / "jfk.wav", JFK)], "RAVDESS, neutral": acted}


def measure(recordings: list[tuple[Path, str]]) -> dict[str, dict[str, float]]:
    """For each way of feeding, its errors, and its CPU seconds a second of sound."""
    activity = VoiceActivity()
    kept, whole, shipped = Sphinx(whole=False), Sphinx(whole=True), SphinxRecogniser()
    errors = {BASELINE: 0, "in pieces, a new decoder each recording": 0, "whole stretches (as shipped)": 0}
    cpu_s = dict.fromkeys(errors, 0.0)
    total_words, total_s = 0, 0.0
    for path, text in tqdm(recordings, unit="file"):
        samples = read_speech(need(path))
        chunks = [*activity.push(0, samples), *activity.close()]
        truth = normalise(text)
        total_words += len(truth)
        total_s += len(samples) / SAMPLE_RATE
        fresh = Sphinx(whole=False)
        for name, recogniser in zip(errors, (kept, fresh, whole), strict=True):
            cpu_s[name] -= recogniser.cpu_s
            said = words(recogniser, chunks)
            cpu_s[name] += recogniser.cpu_s
            errors[name] += edit_distance(truth, said)
        # `said` is now that of whole stretches, which the project's own recogniser must repeat.
        assert words(shipped, chunks) == said, path
    shipped.close()
    return {
        name: {
            "recordings": len(recordings),
            "words": total_words,
            "sound_s": round(total_s, 1),
            "word_error_rate": errors[name] / total_words,
            "cpu_s_per_s": cpu_s[name] / total_s,
        }
        for name in errors
    }


def main() -> None:
    """Measure, print and write."""
    arguments = options(__doc__)
    figures = {corpus: measure(recordings) for corpus, recordings in corpora(arguments.data).items()}
    rows, flat = [], []
    for corpus, ways in figures.items():
        baseline = ways[BASELINE]
        print(f"{corpus}: {baseline['recordings']} recordings, {baseline['words']} words, {baseline['sound_s']:.0f} s")
        for name, found in ways.items():
            rows.append(
                [
                    corpus,
                    name,
                    f"{found['word_error_rate']:.3f}",
                    f"{found['word_error_rate'] / baseline['word_error_rate']:.2f}",
                    f"{found['cpu_s_per_s']:.2f}",
                    f"{found['cpu_s_per_s'] / baseline['cpu_s_per_s']:.2f}",
                ]
            )
            for key, unit in (("word_error_rate", "1"), ("cpu_s_per_s", "1")):
                flat.append(Figure.against(baseline[key], f"{corpus}, {name}: {key}", found[key], unit))
    show(["corpus", "the decoder is fed", "word error rate", "ratio", "CPU s per s", "ratio"], rows)
    write(arguments.json, flat)


if __name__ == "__main__":
    main()
