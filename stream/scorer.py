"""From windows to scores: adds the text vectors, which hang on the utterance, runs the engine, and smooths.

A window's text vector is that of its last word, given all words of the utterance so far. Which words those are is settled
only with the window, so the vector is made here and not in the text lane.
"""

import math
from typing import Literal

import numpy as np
import numpy.typing as npt

from extractors.text import WIDTH, TextEmbedder, normalise
from stream.engine import Engine
from stream.messages import LANES, Lane, LaneScore, Score, Window
from stream.track import Estimate, Step, Track

_NOTHING_THERE: dict[Lane, str] = {"text": "no_words", "audio": "silence", "vision": "no_face"}


class Scorer:
    """One session's utterance and smoothing state over an engine. All calls must come from the same thread."""

    def __init__(self, engine: Engine, embedder: TextEmbedder | None, *, hop_ns: int, smooth_tau_s: float) -> None:
        """Stand before the first window.

        Args:
            engine: Of which the session takes a slot.
            embedder: Of words; None if there will be none.
            hop_ns: The length of a window.
            smooth_tau_s: The smoothing's time constant; 0 for none.
        """
        self._track, self._longest = Track(engine), engine.tail
        self._embedder = embedder
        self._keep = math.exp(-hop_ns / 1e9 / smooth_tau_s) if smooth_tau_s > 0 else 0.0
        self._words: list[str] = []
        self._smooth: float | None = None
        self._vectors: dict[tuple[str, ...], npt.NDArray[np.float32]] = {}  # of the utterance's beginnings
        self._said: dict[int, tuple[int, float]] = {}  # of windows not settled: provisional scores so far, and the last one
        self._lost: dict[Lane, str] = {}

    def lose(self, lane: Lane, reason: str) -> None:
        """Say from now on why nothing comes from a lane: this session does not have it, or it failed."""
        self._lost[lane] = reason

    def commit(self, window: Window) -> Score:
        """The final score of a settled window; each comes here once, in order."""
        if window.restart:
            self._vectors.clear()
        step, self._words = self._step(window, self._words)
        estimate = self._track.commit(step)
        self._smooth = self._mix(self._smooth, estimate.sentiment)
        rev, last = self._said.pop(window.seq, (0, None))
        return self._score("final", rev, window, estimate, self._smooth, self._words, last)

    def speculate(self, tail: list[Window]) -> Score:
        """A provisional score of the last of the windows after the settled ones, at least one; finals do not depend on it."""
        tail = tail[: self._longest]  # beyond that the display falls behind
        words, smooth, steps = self._words, self._smooth, []
        for window in tail:
            step, words = self._step(window, words)
            steps.append(step)
        estimates = self._track.speculate(steps)
        for estimate in estimates:
            smooth = self._mix(smooth, estimate.sentiment)
        assert smooth is not None
        window = tail[-1]
        rev, _ = self._said.get(window.seq, (0, None))
        self._said[window.seq] = (rev + 1, estimates[-1].sentiment)
        return self._score("provisional", rev, window, estimates[-1], smooth, words, None)

    def _mix(self, smooth: float | None, sentiment: float) -> float:
        return sentiment if smooth is None else self._keep * smooth + (1 - self._keep) * sentiment

    def _step(self, window: Window, words: list[str]) -> tuple[Step, list[str]]:
        """The window for the engine, and the utterance's words up to its end."""
        new = [part for word in window.words for part in normalise(word.text)]
        words = ([] if window.restart else words) + new
        vector = self._vector(tuple(words)) if new else np.zeros(WIDTH, np.float32)
        inputs = []
        for name in LANES:
            lane = window.lanes[name]
            inputs += [vector if name == "text" else lane.values, np.array([lane.known, lane.presence], np.float32)]
        return Step(window.seq, window.restart, np.concatenate(inputs)), words

    def _vector(self, words: tuple[str, ...]) -> npt.NDArray[np.float32]:
        assert self._embedder is not None
        if words not in self._vectors:
            self._vectors[words] = self._embedder.embed(words)
        return self._vectors[words]

    def _score(
        self,
        kind: Literal["provisional", "final"],
        rev: int,
        window: Window,
        estimate: Estimate,
        smooth: float,
        words: list[str],
        revised_from: float | None,
    ) -> Score:
        return Score(
            kind=kind,
            seq=window.seq,
            rev=rev,
            t_start_ns=window.t_start_ns,
            t_end_ns=window.t_end_ns,
            sentiment=estimate.sentiment,
            uncertainty=estimate.uncertainty,
            smooth=smooth,
            lanes={lane: self._lane(lane, window, kind, weight) for lane, weight in zip(LANES, estimate.weights, strict=True)},
            words=window.words,
            utterance_words=len(words),
            voiced=window.voiced,
            revised_from=revised_from,
        )

    def _lane(self, lane: Lane, window: Window, kind: str, weight: float) -> LaneScore:
        found = window.lanes[lane]
        age_ns = None if found.last_ns is None else window.t_end_ns - found.last_ns
        if found.presence:
            partial = lane == "text" and not window.words_final
            return LaneScore("partial" if partial else "ok", "provisional_words" if partial else None, age_ns, weight)
        if found.known:
            return LaneScore("missing", _NOTHING_THERE[lane], age_ns, weight)
        if lane in self._lost:
            return LaneScore("unavailable", self._lost[lane], age_ns, weight)
        return LaneScore("unknown", "not_yet" if kind == "provisional" else "no_data", age_ns, weight)
