"""What `train.prepare` has made of a corpus with this project's own extractors, as segments: one row a window."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from models.causal import FLAGS, MODALITIES
from stream.messages import LANES
from train.assess import samples
from train.data.aligned import Floats, Segments
from train.items import SPLITS, Split
from train.pools import read_pool
from train.store import Store

HOP_NS = 250_000_000  # what a clip is prepared at
LONGEST = 120  # windows of a segment, the newest; as a live session looks back


def read_prepared(folder: Path, corpus: str) -> Iterator[tuple[Split, Segments]]:
    """The splits of a corpus; a lane that an item does not have is all zeros, and its flags say so.

    Args:
        folder: What `train.prepare` wrote to.
        corpus: Its name there, as in `mosei`.

    Raises:
        DataError: It was not prepared, is damaged, or has a split without an item that can be used.
    """
    store = Store(folder)
    for split in SPLITS:
        pool = read_pool(store, corpus, split)
        found = samples(pool, HOP_NS, max_steps=LONGEST)
        lengths = np.array([sample.steps for sample in found], np.int64)
        inputs: dict[str, Floats] = {}
        flags: dict[str, Floats] = {}
        for lane in LANES:
            whole = np.zeros((len(found), int(lengths.max()), found[0].lanes[lane].shape[1]), np.float32)
            for row, sample in zip(whole, found, strict=True):
                row[: sample.steps] = sample.lanes[lane]
            inputs[lane], flags[lane] = whole[..., :-FLAGS].copy(), whole[..., -FLAGS:].copy()
        labels = np.array([sample.target for sample in found], np.float32)
        ids = tuple(entry.id for entry in pool.entries)
        yield split, Segments(ids, inputs, dict.fromkeys(MODALITIES, lengths), labels, dict.fromkeys(MODALITIES, 0), flags)
