"""CMU-MOSI's utterances: transcripts and labels, with the standard split.

The file is a CSV table with a header and the columns of `COLUMNS`: one row an utterance, `start` and `end` in seconds of the
video, `split` one of `SPLITS`. Source of the corpus and its split: A. Zadeh et al., "Multimodal Sentiment Intensity Analysis in
Videos: Facial Gestures and Verbal Messages", IEEE Intelligent Systems 31(6), 2016; https://github.com/CMU-MultiComp-Lab/CMU-MultimodalSDK
"""

import csv
from dataclasses import dataclass
from pathlib import Path

from train.errors import DataError

COLUMNS = ("id", "video", "text", "sentiment", "start", "end", "split")
SPLITS = ("train", "valid", "test")


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
    split: str


def read(path: Path) -> list[Utterance]:
    """Read the utterances in the file's order.

    Args:
        path: The CSV file, UTF-8.

    Raises:
        DataError: The file cannot be read, lacks a column, or holds a value that cannot be; says which, and the line.

    Example:
        utterances = [utterance for utterance in read(Path("utterances.csv")) if utterance.split == "train"]
    """
    try:
        with path.open(newline="", encoding="utf-8") as file:
            table = csv.DictReader(file, restval="")
            missing = [column for column in COLUMNS if column not in (table.fieldnames or ())]
            if missing:
                raise DataError(f"{path} lacks the column {', '.join(missing)}; it must have {', '.join(COLUMNS)}")
            utterances = []
            for row in table:
                try:
                    utterances.append(_utterance(row))
                except ValueError as error:
                    raise DataError(f"{path}, line {table.line_num}: {error}") from error
            return utterances
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from error


def _utterance(row: dict[str, str]) -> Utterance:
    sentiment = float(row["sentiment"])
    start_ns, end_ns = (round(float(row[column]) * 1e9) for column in ("start", "end"))
    if not -3 <= sentiment <= 3:
        raise ValueError(f"sentiment must lie in [-3, 3], got {row['sentiment']}")
    if not 0 <= start_ns <= end_ns:
        raise ValueError(f"start must be 0 or later and not after end, got {row['start']} and {row['end']}")
    if row["split"] not in SPLITS:
        raise ValueError(f"split must be one of {', '.join(SPLITS)}, got {row['split']}")
    return Utterance(row["id"], row["video"], row["text"], sentiment, start_ns, end_ns, row["split"])
