"""Utterances: where they begin, decided window by window from settled voice activity alone, and what they were when over.

Any timing gives the same answer, since only settled windows are asked.
"""

from extractors.asr.recogniser import Word
from stream.messages import Score, Utterance


class UtteranceSplitter:
    """Says of each window whether model state and text context start anew there.

    They do at the first voiced window after a silence, at the window by whose start a silence has lasted `gap_windows` (the
    utterance is over), and wherever an utterance or a silence would grow beyond `max_windows`.
    """

    def __init__(self, *, gap_windows: int, max_windows: int) -> None:
        """Stand before window 0."""
        self._gap_windows, self._max_windows = gap_windows, max_windows
        self._length = 0  # windows since the last restart
        self._silent = 0  # windows since the last voiced one
        self._speaking = False

    def next(self, voiced: bool, *, anew: bool = False) -> bool:
        """Take the next window, in which a voice was heard or not, and return whether it starts anew; `anew` makes it do so."""
        if anew:
            self._length, self._speaking = 0, False
        over = self._speaking and self._silent >= self._gap_windows
        if over:
            self._speaking = False
        onset = voiced and not self._speaking
        restart = over or onset or self._length in (0, self._max_windows)
        self._length = 1 if restart else self._length + 1
        self._silent = 0 if voiced else self._silent + 1
        self._speaking = self._speaking or voiced
        return restart

    @property
    def state(self) -> tuple[int, int, bool]:
        """Where it stands: windows since the last restart, windows since the last voiced one, whether somebody is speaking."""
        return self._length, self._silent, self._speaking

    @state.setter
    def state(self, state: tuple[int, int, bool]) -> None:
        self._length, self._silent, self._speaking = state

    def copy(self) -> "UtteranceSplitter":
        """One that stands at the same window: for the provisional tail."""
        other = UtteranceSplitter(gap_windows=self._gap_windows, max_windows=self._max_windows)
        other.state = self.state
        return other


class UtteranceLog:
    """Sums up each utterance when it is over, which is before the next run of windows begins; runs without a voice are none.

    Attributes:
        number: Of the next utterance.
    """

    def __init__(self, number: int = 0) -> None:
        """Stand where an utterance may begin; `number` is that of the next one."""
        self.number = number
        self._run: list[Score] = []  # the final scores since the last restart, while a voice was heard in them

    def take(self, score: Score) -> None:
        """Take the next final score; if its window starts anew, `finish` first."""
        if self._run or score.voiced:
            self._run.append(score)

    def finish(self) -> Utterance | None:
        """The utterance that is open, now that it is over; None if there is none."""
        run, self._run = self._run, []
        while run and not run[-1].voiced and not run[-1].words:  # the silence that showed that it was over
            run.pop()
        if not run:
            return None
        sentiments = [score.sentiment for score in run]
        words: tuple[Word, ...] = tuple(word for score in run for word in score.words)
        self.number += 1
        return Utterance(
            number=self.number - 1,
            t_start_ns=run[0].t_start_ns,
            t_end_ns=run[-1].t_end_ns,
            sentiment=sentiments[-1],
            mean=sum(sentiments) / len(sentiments),
            peak=max(sentiments, key=abs),
            words=words,
        )
