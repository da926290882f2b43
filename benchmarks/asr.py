"""How well is speech recognised while it streams, and how soon?

    python -m benchmarks.asr --data FOLDER --json FILE

Each back-end twice. Streaming, as shipped: blocks of 32 ms through the voice activity detector, stretch by stretch, one
recogniser for all recordings of a corpus, as in a long session. Whole file, the baseline: each recording decoded once, in one
piece. Recordings: read aloud (speech/: the LJ files and JFK), short neutral sentences of many speakers (data/ravdess/, the
first repetitions of actors 1 to 20; 21 to 24 stay untouched for later tests), and one GRID clip, the only one with true word
times.

What is measured:
    word error rate: of the final words, normalised. Provisional: of what stands there just before each stretch ends.
    error of word ends: mean absolute, in seconds, over the words that are right.
    seen after, final after: how much sound after a word's end it first stood there with about its final time, and was final;
        the mean over the final words, right or wrong, in seconds. The 0.2 s in which the detector decides are in it; the
        decoding itself is not, as it takes machine time, not sound.
    CPU: seconds in the recogniser and its child process for each second of the recordings, without loading.
"""

import csv
import resource
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from difflib import SequenceMatcher
from pathlib import Path

import numpy as np
import numpy.typing as npt
from torchaudio.functional import edit_distance
from tqdm import tqdm

from benchmarks.common import Figure, need, options, show, write
from benchmarks.sound import ravdess, read_speech
from extractors.asr.recogniser import Recogniser, Recognition, Word
from extractors.asr.sphinx import SphinxRecogniser
from extractors.asr.whisper import WhisperRecogniser
from extractors.errors import Unavailable
from extractors.sound import SAMPLE_NS, SAMPLE_RATE
from extractors.text import normalise
from extractors.vad import CHUNK, VoiceActivity, VoiceChunk

JFK = "And so, my fellow Americans, ask not what your country can do for you, ask what you can do for your country."
RAVDESS = {"01": "Kids are talking by the door", "02": "Dogs are sitting by the door"}
NEUTRAL = "01"
GRID = "grid_swwp2s"
ALIGN_NS = 40_000  # the unit of GRID's times, 1/25000 s
PAUSE_NS = 20_000_000_000  # between two recordings: whatever a recogniser remembers of the text, it forgets
BACK_ENDS: dict[str, Callable[[], Recogniser]] = {
    "PocketSphinx": SphinxRecogniser,
    "Whisper": lambda: WhisperRecogniser(download=False),
}
COLUMNS = (
    "word error rate",
    "provisional",
    "error of word ends, s",
    "seen after, s",
    "final after, s",
    "CPU s per s",
)


@dataclass(frozen=True)
class Recording:
    """A sound file, its words, and where they end, nanoseconds from its start; none if nobody knows."""

    path: Path
    words: list[str]
    ends_ns: tuple[int, ...] = ()


@dataclass
class Heard:
    """What came of one recording."""

    final: list[Word] = field(default_factory=list)
    standing: list[Word] = field(default_factory=list)  # just before each stretch ended
    seen_after_ns: list[int] = field(default_factory=list)
    final_after_ns: list[int] = field(default_factory=list)


def corpora(folder: Path) -> dict[str, list[Recording]]:
    """The recordings by corpus."""
    speech, clips = folder / "speech", folder / "clips"
    with need(speech / "ljspeech.csv").open(newline="", encoding="utf-8") as file:
        read = [(f"{name}.wav", text) for name, text in csv.reader(file, delimiter="|", quoting=csv.QUOTE_NONE)]
    lines = [line.split() for line in need(clips / f"{GRID}.align").read_text().splitlines()]
    timed = [(word, int(end) * ALIGN_NS) for _start, end, word in lines if word != "sil"]
    return {
        "LJ and JFK": [Recording(speech / name, normalise(text)) for name, text in [*read, ("jfk.wav", JFK)]],
        "RAVDESS, neutral": [
            Recording(each.path, normalise(RAVDESS[each.statement]))
            for each in ravdess(folder)
            if each.emotion == NEUTRAL and each.repetition == "01"
        ],
        "GRID": [Recording(clips / f"{GRID}.mpg", [word for word, _ in timed], tuple(end_ns for _, end_ns in timed))],
    }


class Listener:
    """A recogniser, what it has cost, and where its time axis has got to."""

    def __init__(self, create: Callable[[], Recogniser]) -> None:
        """Load it."""
        self.recogniser = create()
        self.cpu_s = 0.0
        self.now_ns = 0

    def whole(self, samples: npt.NDArray[np.int16]) -> Heard:
        """Hear a recording in one piece, decoded once."""
        self._push(VoiceChunk(self.now_ns, samples, True, True), behind=True)
        self.now_ns += len(samples) * SAMPLE_NS
        return Heard(final=list(self._finish().final))

    def stream(self, samples: npt.NDArray[np.int16]) -> Heard:
        """Hear a recording as it comes."""
        activity, heard = VoiceActivity(), Heard()
        guesses: list[tuple[int, Word]] = []  # with the time at which each stood there
        stretch: list[Word] = []  # final words of the stretch that lasts
        guess: tuple[Word, ...] = ()

        def note(known: Recognition) -> None:
            for word in known.final:
                alike = (
                    now_ns
                    for now_ns, early in guesses
                    if early.text == word.text and early.start_ns < word.end_ns and word.start_ns < early.end_ns
                )
                heard.seen_after_ns.append(min(alike, default=self.now_ns) - word.end_ns)
                heard.final_after_ns.append(self.now_ns - word.end_ns)
            heard.final += known.final
            guesses.extend((self.now_ns, word) for word in known.provisional)

        for first in range(0, len(samples) + CHUNK, CHUNK):
            block = samples[first : first + CHUNK]
            at_ns = self.now_ns
            self.now_ns += len(block) * SAMPLE_NS
            for chunk in activity.push(at_ns, block) if len(block) else activity.close():
                if not chunk.speech:
                    heard.standing += [*stretch, *guess]
                    stretch, guess = [], ()
                known = self._push(chunk)
                note(known)
                if chunk.speech:
                    stretch += known.final
                    guess = known.provisional
        heard.standing += [*stretch, *guess]
        note(self._finish())
        return heard

    def _push(self, chunk: VoiceChunk, *, behind: bool = False) -> Recognition:
        before_s = time.process_time()
        known = self.recogniser.push(chunk, behind=behind)
        self.cpu_s += time.process_time() - before_s
        return known

    def _finish(self) -> Recognition:
        before_s = time.process_time()
        known = self.recogniser.finish()
        self.cpu_s += time.process_time() - before_s
        return known


def tokens(words: list[Word]) -> list[tuple[str, int]]:
    """The normalised words, each with the time at which it ends."""
    return [(text, word.end_ns) for word in words for text in normalise(word.text)]


def children_s() -> float:
    """The CPU time of all child processes that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def measure(create: Callable[[], Recogniser], recordings: list[Recording], *, streaming: bool) -> dict[str, float]:
    """The values of `COLUMNS` that there are."""
    before_s = children_s()
    Listener(create).recogniser.close()
    loading_s = children_s() - before_s
    listener = Listener(create)
    words = wrong = wrong_standing = 0
    sound_s = 0.0
    apart_ns: list[int] = []
    seen_after_ns: list[int] = []
    final_after_ns: list[int] = []
    for recording in tqdm(recordings, unit="file", leave=False):
        samples = read_speech(need(recording.path))
        start_ns = listener.now_ns
        heard = listener.stream(samples) if streaming else listener.whole(samples)
        said = tokens(heard.final)
        texts = [text for text, _ in said]
        words += len(recording.words)
        sound_s += len(samples) / SAMPLE_RATE
        wrong += edit_distance(recording.words, texts)
        wrong_standing += edit_distance(recording.words, [text for text, _ in tokens(heard.standing)])
        seen_after_ns += heard.seen_after_ns
        final_after_ns += heard.final_after_ns
        if recording.ends_ns:
            for true, found, length in SequenceMatcher(None, recording.words, texts, autojunk=False).get_matching_blocks():
                for index in range(length):
                    apart_ns.append(abs(said[found + index][1] - start_ns - recording.ends_ns[true + index]))
        listener.now_ns += PAUSE_NS
    listener.recogniser.close()
    values = {
        "word error rate": wrong / words,
        "CPU s per s": (listener.cpu_s + children_s() - before_s - 2 * loading_s) / sound_s,
    }
    if apart_ns:
        values["error of word ends, s"] = float(np.mean(apart_ns)) / 1e9
    if streaming:
        values["provisional"] = wrong_standing / words
        values["seen after, s"] = float(np.mean(seen_after_ns)) / 1e9
        values["final after, s"] = float(np.mean(final_after_ns)) / 1e9
    return values


def main() -> None:
    """Measure, print and write."""
    arguments = options(__doc__)
    rows: list[list[str]] = []
    figures: list[Figure] = []
    missing: dict[str, str] = {}
    for corpus, recordings in corpora(arguments.data).items():
        for name, create in BACK_ENDS.items():
            try:
                whole = measure(create, recordings, streaming=False)
                streaming = measure(create, recordings, streaming=True)
            except Unavailable as error:
                missing[name] = str(error)
                rows.append([corpus, name, "not available", *[""] * len(COLUMNS)])
                continue
            for way, values in (("streaming", streaming), ("whole file", whole)):
                rows.append([corpus, name, way, *(f"{values[key]:.3f}" if key in values else "" for key in COLUMNS)])
                for key, value in values.items():
                    label, unit = f"{corpus}, {name}, {way}: {key.removesuffix(', s')}", "s" if key.endswith(", s") else "1"
                    figures.append(
                        Figure.against(whole[key], label, value, unit) if key in whole else Figure(label, value, unit)
                    )
    show(["corpus", "back-end", "heard", *COLUMNS], rows)
    for name, reason in missing.items():
        print(f"{name}: {reason}")
    write(arguments.json, figures)


if __name__ == "__main__":
    main()
