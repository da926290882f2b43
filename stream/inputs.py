"""What the model is given of a window: features and flags of text, audio and vision in turn. Live and in training alike.

The text vector of a window is that of all words of the utterance so far, whether or not any end in this window; presence says
whether any do.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from extractors.text import WIDTH, normalise
from models.causal import FLAGS
from stream.messages import LANES, Lane, Window
from stream.windows import ROW_LANES, pooled_width

Floats = npt.NDArray[np.float32]

WIDTHS: dict[Lane, int] = {"text": WIDTH, **{lane: pooled_width(lane) for lane in ROW_LANES}}  # without flags
NO_WORDS = np.zeros(WIDTH, np.float32)


def lane_columns() -> dict[Lane, slice]:
    """Where each lane stands in an input, with its flags."""
    found, begin = {}, 0
    for lane in LANES:
        found[lane] = slice(begin, begin + WIDTHS[lane] + FLAGS)
        begin = found[lane].stop
    return found


def spoken(words: Sequence[str], window: Window) -> tuple[str, ...]:
    """The utterance's normalised words up to a window's end, from those up to its beginning."""
    new = (part for word in window.words for part in normalise(word.text))
    return (*(() if window.restart else words), *new)


def model_input(window: Window, vector: Floats, *, told: bool = True) -> Floats:
    """A window as the model takes it.

    Args:
        window: Any.
        vector: Of `spoken`, (768,); zeros if there are no words.
        told: False if the vector lacks words that are known: then the text is as good as unknown.

    Returns:
        float32, (770 + 70 + 118,) with the extractors' present widths.
    """
    parts = []
    for name in LANES:
        lane = window.lanes[name]
        flags = [float(lane.known), lane.presence] if told or name != "text" else [0.0, 0.0]
        parts += [vector if name == "text" else lane.values, np.array(flags, np.float32)]
    return np.concatenate(parts)
