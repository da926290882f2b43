"""Where utterances begin: decided window by window from settled voice activity alone, so any timing gives the same answer."""


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

    def next(self, voiced: bool) -> bool:
        """Take the next window, in which a voice was heard or not, and return whether it starts anew."""
        over = self._speaking and self._silent >= self._gap_windows
        if over:
            self._speaking = False
        onset = voiced and not self._speaking
        restart = over or onset or self._length in (0, self._max_windows)
        self._length = 1 if restart else self._length + 1
        self._silent = 0 if voiced else self._silent + 1
        self._speaking = self._speaking or voiced
        return restart

    def copy(self) -> "UtteranceSplitter":
        """One that stands at the same window: for the provisional tail."""
        other = UtteranceSplitter(gap_windows=self._gap_windows, max_windows=self._max_windows)
        other._length, other._silent, other._speaking = self._length, self._silent, self._speaking
        return other
