"""Windows: rows, words and voice activity of all lanes on one grid, settled by watermarks.

Window k covers [k * hop, (k + 1) * hop). It is settled when the watermarks of all lanes and of the voice detector have reached
its end; settled windows come out once, in order, and depend on the input alone. The windows after them, the tail, can be
built from what is known so far at any time.
"""

from collections import defaultdict

import numpy as np
import numpy.typing as npt

from extractors.asr.recogniser import Word
from extractors.audio import CONTRACT as AUDIO
from extractors.contract import FeatureContract, FeatureRows
from extractors.face import CONTRACT as FACE
from extractors.text import CONTRACT as TEXT
from stream.messages import END_NS, Lane, LaneEnded, LaneUpdate, LaneWindow, Part, RowsUpdate, VoiceUpdate, Window, WordsUpdate
from stream.utterances import UtteranceSplitter

ROW_LANES: dict[Lane, FeatureContract] = {"audio": AUDIO, "vision": FACE}


def pool(rows: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """The one pooling of a window's rows, live and offline: each column's mean, then each column's standard deviation.

    Args:
        rows: float32, shape (N, D), N >= 1.

    Returns:
        float32, shape (2 * D,).
    """
    exact = rows.astype(np.float64)
    return np.concatenate([exact.mean(0), exact.std(0)]).astype(np.float32)


def contracts(hop_ns: int) -> dict[str, str]:
    """What a model is fed, by name: the features of each lane, and how windows are made of them."""
    return {"text": TEXT.tag, **{lane: contract.tag for lane, contract in ROW_LANES.items()}, "windows": f"mean+std/{hop_ns}ns"}


def pooled_width(lane: Lane) -> int:
    """The length of a lane's pooled values."""
    return 2 * len(ROW_LANES[lane].columns)


class Windows:
    """Gathers the lanes' updates and gives out windows."""

    def __init__(self, *, hop_ns: int, gap_windows: int, max_windows: int) -> None:
        """Stand before window 0, with every lane expected to report."""
        self._hop_ns = hop_ns
        self._watermark_ns: dict[Part, int] = {"text": 0, "audio": 0, "vision": 0, "voice": 0}
        self._rows: dict[Lane, dict[int, list[FeatureRows]]] = {lane: defaultdict(list) for lane in ROW_LANES}
        self._voice: dict[int, list[tuple[int, bool]]] = defaultdict(list)  # (nanoseconds in the window, voiced)
        self._words: dict[int, list[Word]] = defaultdict(list)
        self._guess: tuple[Word, ...] = ()
        self._text_lost_ns = END_NS  # from here on it is unknown what was said
        self._last_ns: dict[Lane, int | None] = {"text": None, "audio": None, "vision": None}
        self._splitter = UtteranceSplitter(gap_windows=gap_windows, max_windows=max_windows)
        self._next = 0  # the first window that is not settled
        self._count = 0  # windows that hold any of the input so far

    def update(self, update: LaneUpdate) -> None:
        """Take what a lane has to say."""
        match update:
            case RowsUpdate(lane, rows, watermark_ns):
                self._add_rows(lane, rows)
                self._watermark_ns[lane] = watermark_ns
            case VoiceUpdate(chunks, watermark_ns):
                for chunk in chunks:
                    self._add_voice(chunk.t_ns, chunk.end_ns, chunk.voiced)
                self._watermark_ns["voice"] = watermark_ns
            case WordsUpdate(final, provisional, watermark_ns):
                for word in final:
                    self._words[self._touch(word.end_ns - 1)].append(word)
                self._guess = provisional
                self._watermark_ns["text"] = watermark_ns
            case LaneEnded(part, lost):
                if part == "text":
                    self._guess = ()
                    if lost:
                        self._text_lost_ns = self._watermark_ns["text"]
                self._watermark_ns[part] = END_NS

    def settle(self) -> list[Window]:
        """The windows that have become settled since the last call."""
        watermark_ns = min(self._watermark_ns.values())
        settled = []
        while self._next < self._count and (self._next + 1) * self._hop_ns <= watermark_ns:
            settled.append(self._build(self._next, self._splitter, self._last_ns, guess=()))
            for rows in self._rows.values():
                rows.pop(self._next, None)
            self._voice.pop(self._next, None)
            self._words.pop(self._next, None)
            self._next += 1
        return settled

    def tail(self, t_ns: int) -> list[Window]:
        """The windows after the settled ones that end at or before `t_ns`, from what is known now; nothing is kept of it."""
        splitter, last_ns = self._splitter.copy(), dict(self._last_ns)
        return [self._build(k, splitter, last_ns, self._guess) for k in range(self._next, t_ns // self._hop_ns)]

    def _touch(self, t_ns: int) -> int:
        """The window of a moment, which holds some of the input."""
        k = t_ns // self._hop_ns
        self._count = max(self._count, k + 1)
        return k

    def _add_rows(self, lane: Lane, rows: FeatureRows) -> None:
        moments = np.concatenate([rows.t_ns, rows.absent_ns]) // self._hop_ns
        for k in np.unique(moments):
            inside, absent = rows.t_ns // self._hop_ns == k, rows.absent_ns // self._hop_ns == k
            part = FeatureRows(rows.t_ns[inside], rows.values[inside], rows.absent_ns[absent])
            self._rows[lane][self._touch(int(k) * self._hop_ns)].append(part)

    def _add_voice(self, start_ns: int, end_ns: int, voiced: bool) -> None:
        while start_ns < end_ns:
            k = start_ns // self._hop_ns
            cut_ns = min(end_ns, (k + 1) * self._hop_ns)
            self._voice[k].append((cut_ns - start_ns, voiced))
            start_ns = cut_ns

    def _build(self, k: int, splitter: UtteranceSplitter, last_ns: dict[Lane, int | None], guess: tuple[Word, ...]) -> Window:
        start_ns, end_ns = k * self._hop_ns, (k + 1) * self._hop_ns
        heard_ns = sum(length for length, _ in self._voice.get(k, ()))
        voiced_ns = sum(length for length, voiced in self._voice.get(k, ()) if voiced)
        guessed = tuple(word for word in guess if start_ns < word.end_ns <= end_ns)
        words = (*self._words.get(k, ()), *guessed)
        if words:
            last_ns["text"] = words[-1].end_ns - 1
        # The recogniser has passed this window, and there was sound for it to hear.
        told = heard_ns > 0 and end_ns <= min(self._watermark_ns["text"], self._text_lost_ns)
        text = LaneWindow(bool(words) or told, float(bool(words)), np.empty(0, np.float32), last_ns["text"])
        return Window(
            seq=k,
            t_start_ns=start_ns,
            t_end_ns=end_ns,
            restart=splitter.next(voiced_ns > 0),
            lanes={"text": text, **{lane: self._pool(lane, k, last_ns) for lane in ROW_LANES}},
            words=words,
            words_final=not guessed,
            voiced=voiced_ns / heard_ns if heard_ns else None,
        )

    def _pool(self, lane: Lane, k: int, last_ns: dict[Lane, int | None]) -> LaneWindow:
        width = len(ROW_LANES[lane].columns)
        rows = FeatureRows.concatenate(self._rows[lane].get(k, ()), width)
        found, absent = len(rows.t_ns), len(rows.absent_ns)
        if found:
            last_ns[lane] = int(rows.t_ns[-1])
            return LaneWindow(True, found / (found + absent), pool(rows.values), last_ns[lane])
        return LaneWindow(absent > 0, 0.0, np.zeros(2 * width, np.float32), last_ns[lane])
