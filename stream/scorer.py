"""From windows to scores: adds the text vectors, which hang on the utterance, runs the engine, and smooths.

A window's text vector is that of all words of the utterance so far. Which words those are is settled only with the window, so
the vector is made here and not in the text lane.
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import numpy.typing as npt

from extractors.text import TextEmbedder
from stream.engine import Engine
from stream.inputs import NO_WORDS, model_input, spoken
from stream.messages import LANES, Lane, LaneScore, Score, Text, Window
from stream.track import Estimate, Request, Step, Track, advance

# A provisional score looks up so many new vectors, the newest, 10 to 20 ms each; when all the words of a stretch change at
# once, the windows before keep the vectors they had, or wait. A final score has its window's own vector, always.
_FRESH = 1
_AHEAD = 6  # likewise, while nobody waits
_KEPT = 256  # vectors, more than a tail has windows
_NOTHING_THERE: dict[Lane, str] = {"text": "no_words", "audio": "silence", "vision": "no_face"}


class Scorer:
    """One session's utterance and smoothing state over an engine. All calls must come from the same thread.

    Attributes:
        longest: The longest tail that is scored, in windows; of a longer one the newest are left out.
        texts: What the model was given as the words of each window of the last job.
    """

    def __init__(
        self,
        engine: Engine,
        embedder: TextEmbedder | None,
        *,
        hop_ns: int,
        smooth_tau_s: float,
        known: Mapping[int, Text] | None = None,
    ) -> None:
        """Stand before the first window.

        Args:
            engine: Of which the session takes a slot.
            embedder: Of words; None if there will be none, or if they are not known, only what they came to.
            hop_ns: The length of a window.
            smooth_tau_s: The smoothing's time constant; 0 for none.
            known: In place of an embedder, the text of windows by number; of others, words are as good as unknown.
        """
        self._track, self.longest = Track(engine), engine.tail
        self._embedder, self._known = embedder, known
        self.texts: tuple[Text, ...] = ()
        self._mask_ends = (0, *itertools.accumulate(engine.mask_widths))
        self._keep = math.exp(-hop_ns / 1e9 / smooth_tau_s) if smooth_tau_s > 0 else 0.0
        self._words: tuple[str, ...] = ()  # of the utterance, settled
        self._smooth: float | None = None
        self._vectors: dict[tuple[str, ...], npt.NDArray[np.float32]] = {}  # of utterances' beginnings, oldest first
        self._shown: dict[int, npt.NDArray[np.float32]] = {}  # the last vector of each window that is not settled
        self._said: dict[int, tuple[int, float]] = {}  # of windows not settled: provisional scores so far, and the last one
        self._next_words: tuple[str, ...] = ()  # of the utterance up to the end of the job that is being done

    @property
    def place(self) -> tuple[int, int]:
        """The row of the engine's bucket that the session has, and how many rows a bucket has."""
        return self._track.slot.place % self._track.engine.bucket, self._track.engine.bucket

    def begin(self, smooth: float | None, said: Mapping[int, tuple[int, float]]) -> None:
        """Stand before a window that starts anew, after others that were scored elsewhere.

        Args:
            smooth: The smoothed sentiment of the window before.
            said: Of windows to come, how many provisional scores there have been, and the last one.
        """
        self._smooth, self._said = smooth, dict(said)

    def close(self) -> None:
        """Give the slot back."""
        self._track.close()

    def commit(self, window: Window) -> Score:
        """The final score of a settled window; each comes here once, in order."""
        return score([Job(self, [window], final=True)])[0]

    def speculate(self, tail: list[Window]) -> Score:
        """A provisional score of the last of the windows after the settled ones, at least one; finals do not depend on it."""
        return score([Job(self, tail, final=False)])[0]

    def prepare(self, tail: list[Window]) -> bool:
        """Look up one vector of the newest words in the windows after the settled ones, before a score waits for it.

        Returns:
            Whether there are more to look up.
        """
        if self._embedder is None or self._known is not None:
            return False
        unseen = self._unseen(self._said_by(tail[: self.longest]))[-_AHEAD:]
        if unseen:
            self._embed(unseen[-1])
        return len(unseen) > 1

    def request(self, job: "Job") -> Request:
        """What the engine has to do for a job of this session."""
        windows = job.windows[: self.longest]  # beyond that the display falls behind
        said = self._said_by(windows)
        self._next_words = said[-1]
        self.texts = job.texts if job.texts and len(job.texts) == len(windows) else self._texts(windows, said, final=job.final)
        steps = [
            Step(window.seq, window.restart, model_input(window, text.vector, told=text.told))
            for window, text in zip(windows, self.texts, strict=True)
        ]
        return Request(self._track, steps, job.final)

    def _said_by(self, windows: list[Window]) -> list[tuple[str, ...]]:
        """The words of the utterance up to each window's end."""
        words, said = self._words, []
        for window in windows:
            words = spoken(words, window)
            said.append(words)
        return said

    def _unseen(self, said: list[tuple[str, ...]]) -> list[tuple[str, ...]]:
        """Those that have no vector yet."""
        return [words for words in dict.fromkeys(said) if words and words not in self._vectors]

    def _texts(self, windows: list[Window], said: list[tuple[str, ...]], *, final: bool) -> tuple[Text, ...]:
        """What the model is to be given of the words said up to each window's end."""
        if self._known is not None:
            return self._known_texts(self._known, windows)
        unseen = self._unseen(said)
        for each in unseen if final else unseen[-_FRESH:]:
            self._embed(each)
        held = self._vectors.get(self._words, NO_WORDS)
        texts = []
        for window, each in zip(windows, said, strict=True):
            vector = self._vectors.get(each, self._shown.get(window.seq)) if each else NO_WORDS
            told = vector is not None or not window.words
            held = (NO_WORDS if window.restart else held) if vector is None else vector
            if each and vector is not None:
                self._shown[window.seq] = vector
            texts.append(Text(held, told))
        return tuple(texts)

    def _known_texts(self, known: Mapping[int, Text], windows: list[Window]) -> tuple[Text, ...]:
        """The same where it is known what words came to, once they have come."""
        before = known.get(windows[0].seq - 1)
        held, texts = before.vector if before else NO_WORDS, []
        for window in windows:
            text = known.get(window.seq) if window.lanes["text"].known else None
            held = text.vector if text else NO_WORDS if window.restart else held
            texts.append(text or Text(held, not window.words))
        return tuple(texts)

    def result(self, job: "Job", estimates: list[Estimate]) -> Score:
        """The score of a job's last window, once the engine has done that."""
        smooth = self._smooth
        for estimate in estimates:
            smooth = self._mix(smooth, estimate.sentiment)
        assert smooth is not None
        windows, estimate = job.windows[: len(estimates)], estimates[-1]
        seq = windows[-1].seq
        if job.final:
            self._words, self._smooth = self._next_words, smooth
            self._shown.pop(seq, None)
            rev, last = self._said.pop(seq, (0, None))
            return self._score("final", rev, windows, estimate, smooth, last)
        rev, _ = self._said.get(seq, (0, None))
        self._said[seq] = (rev + 1, estimate.sentiment)
        return self._score("provisional", rev, windows, estimate, smooth, None)

    def _mix(self, smooth: float | None, sentiment: float) -> float:
        return sentiment if smooth is None else self._keep * smooth + (1 - self._keep) * sentiment

    def _embed(self, words: tuple[str, ...]) -> None:
        assert self._embedder is not None
        self._vectors[words] = self._embedder.embed(words)
        if len(self._vectors) > _KEPT:
            del self._vectors[next(iter(self._vectors))]

    def _score(
        self,
        kind: Literal["provisional", "final"],
        rev: int,
        windows: list[Window],
        estimate: Estimate,
        smooth: float,
        revised_from: float | None,
    ) -> Score:
        window = windows[-1]
        lanes = {lane: _lane(lane, window, kind, weight) for lane, weight in zip(LANES, estimate.weights, strict=True)}
        if not all(each.words_final for each in windows):
            lanes["text"] = replace(lanes["text"], status="partial", reason="provisional_words")
        return Score(
            kind=kind,
            seq=window.seq,
            rev=rev,
            t_start_ns=window.t_start_ns,
            t_end_ns=window.t_end_ns,
            sentiment=estimate.sentiment,
            uncertainty=estimate.uncertainty,
            smooth=smooth,
            lanes=lanes,
            words=tuple(word for each in windows for word in each.words),
            utterance_words=len(self._next_words),
            voiced=window.voiced,
            revised_from=revised_from,
            masks=self._masks(estimate),
        )

    def _masks(self, estimate: Estimate) -> dict[Lane, tuple[float, ...]]:
        if not estimate.masks:
            return {}
        ends = itertools.pairwise(self._mask_ends)
        return {lane: estimate.masks[first:last] for lane, (first, last) in zip(LANES, ends, strict=True)}


def _lane(lane: Lane, window: Window, kind: str, weight: float) -> LaneScore:
    found = window.lanes[lane]
    age_ns = None if found.last_ns is None else window.t_end_ns - found.last_ns
    if found.presence:
        return LaneScore("ok", None, age_ns, weight)
    if found.known:
        return LaneScore("missing", _NOTHING_THERE[lane], age_ns, weight)
    if found.lost:
        return LaneScore("unavailable", found.lost, age_ns, weight)
    reason = "not_yet" if kind == "provisional" else "late" if lane in window.forced else "no_data"
    return LaneScore("unknown", reason, age_ns, weight)


@dataclass(frozen=True, eq=False)
class Job:
    """What a session wants scored: a settled window for good, or the windows of its tail.

    Attributes:
        scorer: The session's.
        windows: The one window if `final`; else those after the settled ones, at least one.
        final: Whether it is for good.
        texts: What the model is to be given as the words of each window, if that is known already.
    """

    scorer: Scorer
    windows: list[Window]
    final: bool
    texts: tuple[Text, ...] | None = None


def score(jobs: Sequence[Job]) -> list[Score]:
    """Do the jobs of several sessions of one engine, each session's at most one, together."""
    estimates = advance([job.scorer.request(job) for job in jobs])
    return [job.scorer.result(job, found) for job, found in zip(jobs, estimates, strict=True)]
