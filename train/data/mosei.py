"""CMU-MOSEI from its videos: labels and times of the segments, and the videos themselves.

A folder with `labels.csv`, columns `COLUMNS` (times in seconds of the video), and videos named `<video>.mp4`. A video that is
not there becomes a failure of `train.prepare`, as many are no longer to be had. Segments of the split `none` are left out. Some
begin up to half a second before their video, by the table; they begin with it. Source: A. Zadeh et al., "Multimodal Language
Analysis in the Wild: CMU-MOSEI Dataset and Interpretable Dynamic Fusion Graph", ACL 2018.
"""

from pathlib import Path

from train.data.tables import read_table
from train.items import SPLITS, Clip, Item

COLUMNS = ("video", "segment", "start", "end", "sentiment", "split")
_EARLY_NS = 500_000_000  # a segment may begin so long before its video


def items(folder: Path) -> list[Item]:
    """All segments that are in a split; raises `DataError`."""
    rows = read_table(folder / "labels.csv", COLUMNS, lambda row: _item(folder, row))
    return [item for item in rows if item is not None]


def _item(folder: Path, row: dict[str, str]) -> Item | None:
    sentiment = float(row["sentiment"])
    start_ns, end_ns = (round(float(row[column]) * 1e9) for column in ("start", "end"))
    if not -3 <= sentiment <= 3:
        raise ValueError(f"sentiment must lie in [-3, 3], got {row['sentiment']}")
    if not (start_ns >= -_EARLY_NS and max(0, start_ns) < end_ns):
        raise ValueError(f"start must be 0 or later and before end, got {row['start']} and {row['end']}")
    if row["split"] == "none":
        return None
    split = next((split for split in SPLITS if split == row["split"]), None)
    if split is None:
        raise ValueError(f"split must be one of {', '.join(SPLITS)}, got {row['split']}")
    label = "negative" if sentiment < 0 else "positive" if sentiment > 0 else "neutral"
    content = Clip(folder / f"{row['video']}.mp4", max(0, start_ns), end_ns)
    return Item(f"{row['video']}-{row['segment']}", split, label, sentiment, content)
