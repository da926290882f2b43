"""What a split's items give."""

import numpy as np

from train.pools import Pool
from train.sequences import COLUMNS
from train.store import Entry


def test_clips_are_clips_though_the_first_had_nothing_but_sound() -> None:
    silent, spoken = np.zeros((2, 4, COLUMNS["vision"].stop), np.float32)
    silent[:, COLUMNS["audio"]] = spoken[:, COLUMNS["audio"]] = 1
    spoken[:, COLUMNS["text"]] = 1
    entries = [Entry(name, "train", "label", float(place), "0", place, None) for place, name in enumerate("ab")]
    assert Pool(entries, [{"inputs": silent}, {"inputs": spoken}]).kind == "clip"
    assert Pool(entries, [{"inputs": silent}, {"inputs": silent}]).kind == "audio"
