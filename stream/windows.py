"""Windows: rows, words and voice activity of all lanes on one grid, settled by watermarks.

Window k covers [k * hop, (k + 1) * hop). It is settled when the watermarks of all lanes and of the voice detector have reached
its end; settled windows come out once, in order, and depend on the input alone. The windows after them, the tail, can be
built from what is known so far at any time.

A live session does not wait for ever: a part that is later than is allowed is overtaken (`force`). Such a window holds nothing
of it, not even what had come, so that it depends on nothing but the decision; what comes for it afterwards is counted and left.
"""

from collections import defaultdict, deque
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from extractors.asr.recogniser import Word
from extractors.audio import CONTRACT as AUDIO
from extractors.contract import FeatureContract, FeatureRows
from extractors.face import CONTRACT as FACE
from extractors.text import CONTRACT as TEXT
from stream.messages import (
    END_NS,
    PARTS,
    Lane,
    LaneUpdate,
    LaneWindow,
    Part,
    PartEnded,
    PartUnknown,
    RowsUpdate,
    VoiceUpdate,
    Window,
    WordsUpdate,
)
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


def feature_contracts() -> dict[str, str]:
    """What this version's features are, by lane."""
    return {"text": TEXT.tag, **{lane: contract.tag for lane, contract in ROW_LANES.items()}}


def contracts(hop_ns: int) -> dict[str, str]:
    """What a model is fed, by name: the features of each lane, and how windows are made of them."""
    return {**feature_contracts(), "windows": f"mean+std,words so far/{hop_ns}ns"}


def pooled_width(lane: Lane) -> int:
    """The length of a lane's pooled values."""
    return 2 * len(ROW_LANES[lane].columns)


class Windows:
    """Gathers the lanes' updates and gives out windows.

    Attributes:
        late: How many rows, chunks and words came for windows that were settled without them, by part.
    """

    def __init__(self, *, hop_ns: int, gap_windows: int, max_windows: int) -> None:
        """Stand before window 0, with every lane expected to report."""
        self.late: dict[Part, int] = dict.fromkeys(PARTS, 0)
        self._hop_ns = hop_ns
        self._watermark_ns: dict[Part, int] = dict.fromkeys(PARTS, 0)
        self._forced_ns: dict[Part, int] = dict.fromkeys(PARTS, 0)  # up to here nobody waits for the part
        self._unknown: dict[Part, deque[tuple[int, int, str]]] = {part: deque() for part in PARTS}  # (start, end, reason)
        self._rows: dict[Lane, dict[int, list[FeatureRows]]] = {lane: defaultdict(list) for lane in ROW_LANES}
        self._voice: dict[int, list[tuple[int, bool]]] = defaultdict(list)  # (nanoseconds in the window, voiced)
        self._words: dict[int, list[Word]] = defaultdict(list)
        self._guess: tuple[Word, ...] = ()
        self._last_ns: dict[Lane, int | None] = {"text": None, "audio": None, "vision": None}
        self._splitter = UtteranceSplitter(gap_windows=gap_windows, max_windows=max_windows)
        self._anew: set[int] = set()  # windows that start anew because somebody asked for it
        self._begin = 0  # the first window of all
        self._next = 0  # the first window that is not settled
        self._count = 0  # windows that hold any of the input so far

    def begin(self, seq: int, splitter: tuple[int, int, bool], last_ns: Mapping[Lane, int | None]) -> None:
        """Stand before window `seq` instead, which starts anew: those before it have been settled elsewhere.

        Args:
            seq: The first window to give out; what comes for those before it is left.
            splitter: Where the utterances' splitter stands before it.
            last_ns: The time of each lane's newest row or word in the windows before it.
        """
        self._begin = self._next = self._count = seq
        self._splitter.state = splitter
        self._last_ns.update(last_ns)

    def update(self, update: LaneUpdate) -> None:
        """Take what a lane has to say."""
        match update:
            case RowsUpdate(lane, rows, watermark_ns):
                self._add_rows(lane, rows)
                self._pass(lane, watermark_ns)
            case VoiceUpdate(chunks, watermark_ns):
                for chunk in chunks:
                    self._add_voice(chunk.t_ns, chunk.end_ns, chunk.voiced)
                self._pass("voice", watermark_ns)
            case WordsUpdate(final, provisional, watermark_ns):
                for word in final:
                    if self._touch("text", word.end_ns - 1):
                        self._words[(word.end_ns - 1) // self._hop_ns].append(word)
                self._guess = provisional
                self._pass("text", watermark_ns)
            case PartUnknown(part, watermark_ns, reason):
                if watermark_ns > self._watermark_ns[part]:
                    self._unknown[part].append((self._watermark_ns[part], watermark_ns, reason))
                self._pass(part, watermark_ns)
            case PartEnded(part):
                self._pass(part, END_NS)

    def watermark_ns(self, part: Part) -> int:
        """Nothing older will come from that part."""
        return self._watermark_ns[part]

    def force(self, part: Part, t_ns: int) -> None:
        """Wait no more for what a part has before `t_ns`: windows that end there or before are settled without it."""
        self._forced_ns[part] = max(self._forced_ns[part], t_ns)

    def start_anew(self, t_ns: int) -> int:
        """Let an utterance begin with the first open window that starts at or after `t_ns`; returns the window's number."""
        k = max(self._next, -(-t_ns // self._hop_ns))
        self._anew.add(k)
        return k

    def reach(self, t_ns: int) -> None:
        """Let there be windows up to `t_ns`, whether or not anything comes: a live session goes on."""
        self._count = max(self._count, t_ns // self._hop_ns)

    def settle(self) -> list[Window]:
        """The windows that have become settled since the last call."""
        passed_ns = min(max(self._watermark_ns[part], self._forced_ns[part]) for part in PARTS)
        settled = []
        while self._next < self._count and (end_ns := (self._next + 1) * self._hop_ns) <= passed_ns:
            forced = tuple(part for part in PARTS if self._watermark_ns[part] < end_ns)
            settled.append(self._build(self._next, self._splitter, self._last_ns, guess=(), forced=forced))
            for rows in self._rows.values():
                rows.pop(self._next, None)
            self._voice.pop(self._next, None)
            self._words.pop(self._next, None)
            self._anew.discard(self._next)
            for spans in self._unknown.values():
                while spans and spans[0][1] <= end_ns:
                    spans.popleft()
            self._next += 1
        return settled

    def tail(self, t_ns: int, longest: int) -> list[Window]:
        """The windows after the settled ones that end at or before `t_ns`, at most so many, from what is known now.

        Nothing is kept of it.
        """
        splitter, last_ns = self._splitter.copy(), dict(self._last_ns)
        end = min(t_ns // self._hop_ns, self._next + longest)
        return [self._build(k, splitter, last_ns, self._guess) for k in range(self._next, end)]

    def _pass(self, part: Part, watermark_ns: int) -> None:
        if part == "text" and watermark_ns == END_NS:
            self._guess = ()
        self._watermark_ns[part] = max(self._watermark_ns[part], watermark_ns)

    def _touch(self, part: Part, t_ns: int, number: int = 1) -> bool:
        """Note that the input reaches to a moment; returns whether its window is still open."""
        k = t_ns // self._hop_ns
        self._count = max(self._count, k + 1)
        self.late[part] += number * (self._begin <= k < self._next)
        return k >= self._next

    def _add_rows(self, lane: Lane, rows: FeatureRows) -> None:
        moments = np.concatenate([rows.t_ns, rows.absent_ns]) // self._hop_ns
        for k in np.unique(moments).tolist():
            inside, absent = rows.t_ns // self._hop_ns == k, rows.absent_ns // self._hop_ns == k
            if self._touch(lane, k * self._hop_ns, int(inside.sum() + absent.sum())):
                self._rows[lane][k].append(FeatureRows(rows.t_ns[inside], rows.values[inside], rows.absent_ns[absent]))

    def _add_voice(self, start_ns: int, end_ns: int, voiced: bool) -> None:
        while start_ns < end_ns:
            k = start_ns // self._hop_ns
            cut_ns = min(end_ns, (k + 1) * self._hop_ns)
            if k >= self._next:
                self._voice[k].append((cut_ns - start_ns, voiced))
            elif k >= self._begin:
                self.late["voice"] += 1
            start_ns = cut_ns

    def _build(
        self,
        k: int,
        splitter: UtteranceSplitter,
        last_ns: dict[Lane, int | None],
        guess: tuple[Word, ...],
        forced: tuple[Part, ...] = (),
    ) -> Window:
        start_ns, end_ns = k * self._hop_ns, (k + 1) * self._hop_ns
        heard = () if "voice" in forced else self._voice.get(k, ())
        heard_ns = sum(length for length, _ in heard)
        voiced_ns = sum(length for length, voiced in heard if voiced)
        guessed = tuple(word for word in guess if start_ns < word.end_ns <= end_ns)
        words = () if "text" in forced else (*self._words.get(k, ()), *guessed)
        if words:
            last_ns["text"] = words[-1].end_ns - 1
        # The recogniser has passed this window, and there was sound for it to hear.
        lost = self._lost("text", start_ns, end_ns)
        told = heard_ns > 0 and end_ns <= self._watermark_ns["text"] and not lost
        known = bool(words) or told
        text = LaneWindow(known, float(bool(words)), np.empty(0, np.float32), last_ns["text"], None if known else lost)
        return Window(
            seq=k,
            t_start_ns=start_ns,
            t_end_ns=end_ns,
            restart=splitter.next(voiced_ns > 0, anew=k in self._anew),
            lanes={"text": text, **{lane: self._pool(lane, k, last_ns, late=lane in forced) for lane in ROW_LANES}},
            words=words,
            words_final=not guessed,
            voiced=voiced_ns / heard_ns if heard_ns else None,
            forced=forced,
        )

    def _pool(self, lane: Lane, k: int, last_ns: dict[Lane, int | None], *, late: bool) -> LaneWindow:
        width = len(ROW_LANES[lane].columns)
        rows = FeatureRows.concatenate(() if late else self._rows[lane].get(k, ()), width)
        found, absent = len(rows.t_ns), len(rows.absent_ns)
        if found:
            last_ns[lane] = int(rows.t_ns[-1])
            return LaneWindow(True, found / (found + absent), pool(rows.values), last_ns[lane])
        lost = None if absent else self._lost(lane, k * self._hop_ns, (k + 1) * self._hop_ns)
        return LaneWindow(absent > 0, 0.0, np.zeros(2 * width, np.float32), last_ns[lane], lost)

    def _lost(self, part: Part, start_ns: int, end_ns: int) -> str | None:
        """Why nothing can be known of a part somewhere in [start_ns, end_ns), if so."""
        return next((why for first, last, why in self._unknown[part] if first < end_ns and start_ns < last), None)
