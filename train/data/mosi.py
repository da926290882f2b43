"""CMU-MOSI's utterances: transcripts, labels and word times, with the standard split.

A folder with `utterances.csv`, one row an utterance, `start` and `end` in seconds of the video, `split` one of `SPLITS`; and
`CMU_MOSI_ModifiedTimestampedWords.csd`, an HDF5 file with the words of each video and their seconds. Source: A. Zadeh et al.,
"Multimodal Sentiment Intensity Analysis in Videos: Facial Gestures and Verbal Messages", IEEE Intelligent Systems 31(6), 2016;
https://github.com/CMU-MultiComp-Lab/CMU-MultimodalSDK
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from pathlib import Path
from typing import NamedTuple

import numpy as np

from extractors.text import normalise
from train.data.tables import read_table
from train.errors import DataError
from train.items import SPLITS, Item, Split, Text

_OVER_NS = 1_000_000_000  # the labelled span is a little short: the last words may end so far beyond it
COLUMNS = ("id", "video", "text", "sentiment", "start", "end", "split")
TABLE, TIMES = "utterances.csv", "CMU_MOSI_ModifiedTimestampedWords.csd"


@dataclass(frozen=True)
class Utterance:
    """One labelled segment.

    Attributes:
        id: Its name in the corpus, as in `03bSnISJMiM_1`.
        video: The video it is from; a video's utterances all lie in one split.
        text: The transcript as the corpus writes it; `extractors.text.normalise` gives its words.
        sentiment: The mean of the annotators, from -3 (strongly negative) to 3.
        start_ns: Its start in the video, nanoseconds.
        end_ns: Its end, exclusive; equal to `start_ns` in the one utterance whose time the corpus does not know.
        split: `train`, `valid` or `test`.
    """

    id: str
    video: str
    text: str
    sentiment: float
    start_ns: int
    end_ns: int
    split: Split


def read(path: Path) -> list[Utterance]:
    """Read the utterances in the file's order.

    Args:
        path: The CSV file, UTF-8.

    Raises:
        DataError: The file cannot be read, lacks a column, or holds a value that cannot be; says which, and the line.

    Example:
        utterances = [utterance for utterance in read(Path("utterances.csv")) if utterance.split == "train"]
    """
    return read_table(path, COLUMNS, _utterance)


def _utterance(row: dict[str, str]) -> Utterance:
    sentiment = float(row["sentiment"])
    start_ns, end_ns = (round(float(row[column]) * 1e9) for column in ("start", "end"))
    if not -3 <= sentiment <= 3:
        raise ValueError(f"sentiment must lie in [-3, 3], got {row['sentiment']}")
    if not 0 <= start_ns <= end_ns:
        raise ValueError(f"start must be 0 or later and not after end, got {row['start']} and {row['end']}")
    split = next((split for split in SPLITS if split == row["split"]), None)
    if split is None:
        raise ValueError(f"split must be one of {', '.join(SPLITS)}, got {row['split']}")
    return Utterance(row["id"], row["video"], row["text"], sentiment, start_ns, end_ns, split)


class Timed(NamedTuple):
    """A word, and when it ends in its video, nanoseconds."""

    word: str
    end_ns: int


def items(folder: Path) -> list[Item]:
    """All utterances that have any words, each word with its time; raises `DataError`."""
    utterances = read(folder / TABLE)
    times = word_times(folder / TIMES, {utterance.video for utterance in utterances})
    return [_item(utterance, times[utterance.video]) for utterance in utterances if normalise(utterance.text)]


def word_times(path: Path, videos: set[str]) -> dict[str, list[Timed]]:
    """The words of each video in turn; raises `DataError` where the file cannot be read or lacks a video."""
    import h5py

    found: dict[str, list[Timed]] = {}
    try:
        with h5py.File(path) as file:
            data = file[next(iter(file))]["data"]
            for video in sorted(videos):
                if video not in data:
                    raise DataError(f"{path} lacks the video {video}; get the whole file")
                words, seconds = data[video]["features"][:, 0], data[video]["intervals"][:, 1]
                found[video] = [
                    Timed(part, round(float(end) * 1e9))
                    for word, end in zip(words, seconds, strict=True)
                    for part in normalise(word.decode())
                ]
    except (OSError, RuntimeError, LookupError, ValueError, OverflowError, TypeError, AttributeError, StopIteration) as error:
        # All of these come of files that are damaged, or are something else.
        raise DataError(f"{path} cannot be read as a computational sequence: {error}") from error
    return found


def _item(utterance: Utterance, times: Sequence[Timed]) -> Item:
    words = normalise(utterance.text)
    length_ns = utterance.end_ns - utterance.start_ns
    inside = [timed for timed in times if utterance.start_ns < timed.end_ns <= utterance.end_ns + _OVER_NS]
    ends_ns = [timed.end_ns - utterance.start_ns for timed in inside]
    ends_ns = _placed(words, [timed.word for timed in inside], ends_ns, length_ns) if length_ns else []
    label = "negative" if utterance.sentiment < 0 else "positive" if utterance.sentiment > 0 else "neutral"
    # Without any of its words found, or without a span, the utterance has no times.
    known = Text(tuple(words), tuple(ends_ns), max(length_ns, ends_ns[-1])) if ends_ns else Text(tuple(words))
    return Item(utterance.id, utterance.split, label, utterance.sentiment, known)


def _placed(words: Sequence[str], heard: Sequence[str], ends_ns: Sequence[int], length_ns: int) -> list[int]:
    """When each word of a transcript ends, from what an aligner heard; words between two that it heard are spread evenly."""
    known: Mapping[int, int] = {
        block.a + step: ends_ns[block.b + step]
        for block in SequenceMatcher(None, words, heard, autojunk=False).get_matching_blocks()
        for step in range(block.size)
    }
    if not known:
        return []
    places = sorted(known)
    # Words before the first are spread over the time before it, those after the last over what is left of the length.
    found = np.interp(range(len(words)), places, [known[place] for place in places])
    first, last = places[0], places[-1]
    found[:first] = known[first] * (np.arange(first) + 1) / (first + 1)
    found[last:] = np.linspace(known[last], max(length_ns, known[last]), len(words) - last)
    return [round(each) for each in np.maximum.accumulate(found)]
