"""Windows: pooling, the three cases of a lane, what is forced, and that settled windows do not depend on how updates arrive."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from extractors.asr.recogniser import Word
from extractors.audio import CONTRACT as AUDIO
from extractors.contract import FeatureContract, FeatureRows
from extractors.face import CONTRACT as FACE
from extractors.text import CONTRACT as TEXT
from extractors.vad import VoiceChunk
from stream import windows as module
from stream.messages import (
    END_NS,
    LANES,
    PARTS,
    Lane,
    LaneUpdate,
    Part,
    PartEnded,
    PartUnknown,
    RowsUpdate,
    VoiceUpdate,
    Window,
    WordsUpdate,
)
from stream.utterances import UtteranceSplitter
from stream.windows import ROW_LANES, Windows, contracts, pool, pooled_width

HOP = 250_000_000
MS = 1_000_000


def windows() -> Windows:
    return Windows(hop_ns=HOP, gap_windows=4, max_windows=20)


def rows(contract: FeatureContract, t_ns: list[int], absent_ns: list[int] | None = None, value: float = 1.0) -> FeatureRows:
    width = len(contract.columns)
    values = (value + np.arange(width, dtype=np.float32) + np.zeros((len(t_ns), 1))).astype(np.float32)
    return FeatureRows(np.array(t_ns, np.int64), values, np.array(absent_ns or [], np.int64))


def chunk(t_ns: int, voiced: bool = True) -> VoiceChunk:
    return VoiceChunk(t_ns, np.zeros(512, np.int16), voiced, voiced)


def feed(target: Windows, *updates: LaneUpdate) -> list[Window]:
    settled = []
    for update in updates:
        target.update(update)
        settled += target.settle()
    return settled


def end(*parts: Part) -> list[PartEnded]:
    return [PartEnded(part) for part in parts]


def test_pooling_is_mean_and_standard_deviation_of_each_column() -> None:
    pooled = pool(np.array([[1, 10], [3, 10]], np.float32))
    assert pooled.tolist() == [2, 10, 1, 0]
    assert pooled.dtype == np.float32
    assert pool(np.array([[5, 6]], np.float32)).tolist() == [5, 6, 0, 0]


def test_a_model_is_told_what_each_lane_and_the_windows_are() -> None:
    assert contracts(HOP) == {
        "text": TEXT.tag,
        "audio": AUDIO.tag,
        "vision": FACE.tag,
        "windows": "mean+std,words so far/250000000ns",
    }
    assert {name for name, tag in contracts(HOP + 1).items() if tag != contracts(HOP)[name]} == {"windows"}


@pytest.mark.parametrize("lane", ["text", "audio", "vision"])
@pytest.mark.parametrize("change", [{"version": 99}, {"columns": ("x",)}, {"parameters": {}}], ids=str)
def test_another_feature_set_is_another_contract_of_its_lane(
    lane: str, change: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = contracts(HOP)
    if lane == "text":
        monkeypatch.setattr(module, "TEXT", replace(TEXT, **change))  # type: ignore[arg-type]
    else:
        monkeypatch.setitem(ROW_LANES, lane, replace(ROW_LANES[lane], **change))  # type: ignore[index, misc, arg-type]
    after = contracts(HOP)
    assert after.keys() == before.keys()
    assert {name for name in before if after[name] != before[name]} == {lane}


def test_a_window_is_half_open() -> None:
    target = windows()
    settled = feed(
        target,
        *end("text", "audio", "voice"),
        RowsUpdate("vision", rows(FACE, [HOP - 1], value=1), HOP),
        RowsUpdate("vision", rows(FACE, [HOP], value=2), HOP + 1),
        *end("vision"),
    )
    assert [w.lanes["vision"].values[0] for w in settled] == [1, 2]
    assert [(w.t_start_ns, w.t_end_ns) for w in settled] == [(0, HOP), (HOP, 2 * HOP)]


def test_a_word_belongs_to_the_window_in_which_it_ends() -> None:
    target = windows()
    words = (Word("a", 0, HOP), Word("b", HOP, HOP + 1))
    settled = feed(target, WordsUpdate(words, (), 2 * HOP), *end("text", "audio", "voice", "vision"))
    assert [[word.text for word in w.words] for w in settled] == [["a"], ["b"]]


def test_a_window_waits_for_every_lane_and_for_the_voice() -> None:
    for last in PARTS:
        target = windows()
        others = [part for part in PARTS if part != last]
        assert feed(target, RowsUpdate("vision", rows(FACE, [10]), 11), *end(*others)) == []
        assert [w.seq for w in feed(target, *end(last))] == [0]


def test_value_known_absence_and_unknown_are_told_apart() -> None:
    target = windows()
    settled = feed(
        target,
        *end("text", "audio", "voice"),
        RowsUpdate("vision", rows(FACE, [10], [20, 30]), 31),
        RowsUpdate("vision", rows(FACE, [], [HOP + 10]), HOP + 11),
        RowsUpdate("vision", rows(FACE, [3 * HOP]), 3 * HOP + 1),
        *end("vision"),
    )
    seen = [(w.lanes["vision"].known, round(w.lanes["vision"].presence, 2)) for w in settled]
    assert seen == [(True, 0.33), (True, 0.0), (False, 0.0), (True, 1.0)]
    assert not settled[1].lanes["vision"].values.any()
    assert len(settled[1].lanes["vision"].values) == pooled_width("vision")
    assert [w.lanes["vision"].last_ns for w in settled] == [10, 10, 10, 3 * HOP]


HEARD = VoiceUpdate((chunk(0), chunk(HOP)), 2 * HOP)
SOUND = RowsUpdate("audio", rows(AUDIO, [10, HOP + 10, 2 * HOP + 10]), 3 * HOP)
OTHERS = end("vision", "audio", "voice")


@pytest.mark.parametrize(
    ("text", "known", "lost"),
    [
        ([WordsUpdate((), (), 3 * HOP), *end("text")], [True, True, False], [None] * 3),  # no sound in the last
        (end("text"), [True, True, False], [None] * 3),
        ([PartUnknown("text", END_NS, "crashed")], [False] * 3, ["crashed"] * 3),
        (
            [WordsUpdate((), (), HOP), PartUnknown("text", END_NS, "crashed")],
            [True, False, False],
            [None, "crashed", "crashed"],
        ),
        (
            [WordsUpdate((), (), HOP - 1), PartUnknown("text", HOP, "lag"), *end("text")],
            [False, True, False],
            ["lag", None, None],
        ),
        (
            [WordsUpdate((), (), HOP), PartUnknown("text", HOP + 1, "lag"), *end("text")],
            [True, False, False],
            [None, "lag", None],
        ),
        (
            [WordsUpdate((Word("a", 0, HOP - 1),), (), HOP - 1), PartUnknown("text", END_NS, "crashed")],
            [True, False, False],
            [None, "crashed", "crashed"],
        ),
    ],
)
def test_no_word_is_known_absence_only_where_sound_was_heard_by_a_recogniser(
    text: list[LaneUpdate], known: list[bool], lost: list[str | None]
) -> None:
    settled = feed(windows(), SOUND, HEARD, *OTHERS, *text)
    assert [w.lanes["text"].known for w in settled] == known
    assert [w.lanes["text"].lost for w in settled] == lost


def test_the_share_of_voice_is_by_time() -> None:
    target = windows()
    # 32 ms chunks: 224 to 256 ms is voiced and lies in both windows.
    chunks = [chunk(t * 32 * MS, voiced=t == 7) for t in range(16)]
    sound = RowsUpdate("audio", rows(AUDIO, [10, HOP + 10]), 2 * HOP)
    settled = feed(target, sound, VoiceUpdate(tuple(chunks), 2 * HOP), *end("audio", "voice", "vision", "text"))
    assert settled[0].voiced == (250 - 224) / 250
    assert settled[1].voiced == 6 / 250


def test_the_tail_shows_what_is_known_and_keeps_nothing() -> None:
    target = windows()
    feed(
        target,
        RowsUpdate("vision", rows(FACE, [10, HOP + 10]), HOP + 11),
        RowsUpdate("audio", rows(AUDIO, [10]), HOP),
        VoiceUpdate((chunk(0),), 32 * MS),
        WordsUpdate((), (Word("maybe", HOP, HOP + 50),), 0),
    )
    for _ in range(2):
        tail = target.tail(2 * HOP + 3, 1000)
        assert [w.seq for w in tail] == [0, 1]
        assert [[w.text for w in window.words] for window in tail] == [[], ["maybe"]]
        assert [window.words_final for window in tail] == [True, False]
        assert [window.lanes["audio"].known for window in tail] == [True, False]
        assert [window.lanes["text"].known for window in tail] == [False, True]
    settled = feed(target, WordsUpdate((Word("surely", HOP, HOP + 60),), (), 2 * HOP), *end("vision", "audio", "voice", "text"))
    assert [[w.text for w in window.words] for window in settled] == [[], ["surely"]]
    assert all(window.words_final for window in settled)


def test_a_guess_is_forgotten_when_the_words_have_ended() -> None:
    target = windows()
    feed(target, WordsUpdate((), (Word("maybe", 0, 50),), 0))
    assert [w.words_final for w in target.tail(HOP, 1000)] == [False]
    feed(target, *end("text"))
    assert [(w.words, w.words_final) for w in target.tail(HOP, 1000)] == [((), True)]


def test_a_guess_stands_in_the_window_in_which_it_ends() -> None:
    target = windows()
    feed(target, WordsUpdate((), tuple(Word(str(t_ns), 0, t_ns) for t_ns in (1, HOP, HOP + 1, 2 * HOP)), 0))
    assert [[word.end_ns for word in w.words] for w in target.tail(2 * HOP, 1000)] == [[1, HOP], [HOP + 1, 2 * HOP]]


def test_what_is_lost_so_far_is_named_in_the_tail() -> None:
    target = windows()
    feed(target, PartUnknown("vision", HOP, "unplugged"))
    assert [w.lanes["vision"].lost for w in target.tail(2 * HOP, 1000)] == ["unplugged", None]


def test_what_is_lost_is_named_where_nothing_is_known_and_only_there() -> None:
    settled = feed(
        windows(),
        *end("text", "voice"),
        PartUnknown("audio", END_NS, "no microphone"),
        RowsUpdate("vision", rows(FACE, [10]), 11),
        PartUnknown("vision", HOP + 1, "blinked"),  # the rest of the first window, and a little of the second
        RowsUpdate("vision", rows(FACE, [], [2 * HOP - 1]), 2 * HOP),
        RowsUpdate("vision", rows(FACE, []), 3 * HOP),
        PartUnknown("vision", 4 * HOP, "unplugged"),
        PartUnknown("vision", 4 * HOP + 5, "unplugged again"),
        RowsUpdate("vision", rows(FACE, [5 * HOP]), 5 * HOP + 1),
        *end("vision"),
    )
    assert [w.lanes["vision"].lost for w in settled] == [None, None, None, "unplugged", "unplugged again", None]
    assert [w.lanes["vision"].known for w in settled] == [True, True, False, False, False, True]
    assert {w.lanes["audio"].lost for w in settled} == {"no microphone"}
    assert {w.forced for w in settled} == {()}


@pytest.mark.parametrize("t_ns", [0, 100, 150])
def test_what_is_said_to_be_lost_where_the_part_has_been_already_is_nothing(t_ns: int) -> None:
    settled = feed(
        windows(),
        *end("vision", "audio"),
        VoiceUpdate((chunk(0),), HOP),
        WordsUpdate((), (), 150),
        PartUnknown("text", t_ns, "lag"),
        *end("voice", "text"),
        RowsUpdate("vision", rows(FACE, [10]), 11),
    )
    assert [(w.lanes["text"].known, w.lanes["text"].lost) for w in settled] == [(True, None)]


def test_an_utterance_begins_anew_with_the_first_open_window_from_a_moment_on() -> None:
    target = windows()
    target.reach(HOP)
    settled = feed(target, VoiceUpdate((chunk(0),), HOP), *end("text", "audio", "vision"))
    assert [window.seq for window in settled] == [0]
    assert target.start_anew(0) == 1  # window 0 is over
    assert target.start_anew(2 * HOP + 1) == 3
    target.reach(5 * HOP)
    assert [window.seq for window in target.tail(5 * HOP, 9) if window.restart] == [1, 3]
    assert [window.seq for window in feed(target, *end("voice")) if window.restart] == [1, 3]
    assert not target._anew


def test_a_watermark_never_goes_back() -> None:
    target = windows()
    for update in (
        RowsUpdate("audio", rows(AUDIO, []), 100),
        PartUnknown("voice", 100, "x"),
        WordsUpdate((), (), 100),
        RowsUpdate("audio", rows(AUDIO, []), 50),
        VoiceUpdate((), 50),
        PartUnknown("text", 50, "x"),
    ):
        target.update(update)
    assert [target.watermark_ns(part) for part in PARTS] == [100, 100, 0, 100]
    target.update(PartEnded("audio"))
    assert target.watermark_ns("audio") == END_NS


def test_windows_are_there_as_far_as_time_has_come_though_nothing_comes() -> None:
    target = windows()
    assert feed(target, *end(*PARTS)) == []
    target.reach(3 * HOP - 1)
    settled = target.settle()
    assert [w.seq for w in settled] == [0, 1]
    assert not any(lane.known for w in settled for lane in w.lanes.values())
    target.reach(5 * HOP)
    target.reach(HOP)
    assert [w.seq for w in target.settle()] == [2, 3, 4]
    target.reach(2 * HOP)
    assert target.settle() == []


def full(seq: int, text: str = "word") -> list[LaneUpdate]:
    """Something of every part in a window, and the watermarks at its end."""
    start_ns, end_ns = seq * HOP, (seq + 1) * HOP
    return [
        RowsUpdate("vision", rows(FACE, [start_ns + 1, start_ns + 2], value=seq), end_ns),
        RowsUpdate("audio", rows(AUDIO, [start_ns + 3], value=seq), end_ns),
        VoiceUpdate((chunk(start_ns),), end_ns),
        WordsUpdate((Word(text, start_ns, end_ns - 5),), (), end_ns),
    ]


PART_OF = {"vision": 0, "audio": 1, "voice": 2, "text": 3}  # in `full`


@pytest.mark.parametrize("part", PARTS)
def test_a_window_that_is_settled_without_a_part_holds_nothing_of_it(part: Part) -> None:
    late, never = windows(), windows()
    for seq in range(3):
        updates = full(seq)
        missing = updates.pop(PART_OF[part])
        if seq == 0:  # all but the watermark comes
            assert feed(late, replace(missing, watermark_ns=HOP - 1)) == []  # type: ignore[arg-type]
        assert feed(late, *updates) == feed(never, *updates) == []
    for target in (late, never):
        target.force(part, HOP - 1)
        assert target.settle() == []
        target.force(part, 2 * HOP + 7)
        target.force(part, 5)
    found, expected = late.settle(), never.settle()
    assert [image(w) for w in found] == [image(w) for w in expected]
    assert [w.forced for w in found] == [(part,), (part,)]
    lost = {"text": "text", "audio": "audio", "vision": "vision"}.get(part)
    for window in found:
        if lost:
            lane = window.lanes[lost]  # type: ignore[index]
            assert (lane.known, lane.presence, lane.last_ns, lane.lost) == (False, 0.0, None, None)
            assert not lane.values.any()
        assert (window.words == ()) == (part == "text")
        assert (window.voiced is None) == (part == "voice")
    assert not any(late.late.values())
    settled = feed(late, *(full(seq)[PART_OF[part]] for seq in (1, 2)))
    assert late.late == {**dict.fromkeys(PARTS, 0), part: 2 if part == "vision" else 1}
    assert [(w.seq, w.forced) for w in settled] == [(2, ())]
    assert (
        image(settled[0])[1:] == image(feed(windows(), *(u for seq in range(3) for u in full(seq)))[2])[1:] or part == "voice"
    )


def test_a_part_that_is_in_time_is_not_forced() -> None:
    target = windows()
    for part in PARTS:
        target.force(part, END_NS)
    settled = feed(target, *full(0)[:2], *full(0)[2:])
    assert [w.forced for w in settled] == [("text", "audio", "voice")]  # what comes first is there
    target = windows()
    feed(target, *full(0))
    target.force("text", HOP)
    assert feed(target, *full(1)) != []
    assert target.late == dict.fromkeys(PARTS, 0)


def test_in_the_end_all_is_settled_with_what_has_come() -> None:
    target = windows()
    settled = feed(target, *full(0), *full(1)[:2], RowsUpdate("vision", rows(FACE, [3 * HOP]), 3 * HOP + 1), PartEnded("audio"))
    assert [w.seq for w in settled] == [0]
    for part in PARTS:
        target.force(part, END_NS)
    settled = target.settle()
    assert [w.seq for w in settled] == [1, 2, 3]
    assert [w.forced for w in settled] == [("text", "voice"), ("text", "voice"), ("text", "vision", "voice")]
    assert [w.lanes["vision"].known for w in settled] == [True, False, False]
    assert [w.lanes["audio"].known for w in settled] == [True, False, False]
    assert target.settle() == []


def test_many_holes_one_after_the_other_are_not_kept_when_they_are_past() -> None:
    target = windows()
    feed(target, *end("text", "audio", "voice"))
    for t_ns in range(0, 1000 * HOP, HOP // 2):
        target.reach(t_ns)
        feed(target, PartUnknown("vision", t_ns, f"gone at {t_ns}"))
        assert sum(len(spans) for spans in target._unknown.values()) <= 3


def kept(target: Windows) -> int:
    """How many windows it holds something of."""
    return sum(len(held) for held in target._rows.values()) + len(target._words) + len(target._voice)


def test_what_is_settled_or_came_too_late_is_not_kept() -> None:
    target = windows()
    for seq in range(10):
        assert len(feed(target, *full(seq))) == 1
    assert kept(target) == 0
    target = windows()
    target.reach(10 * HOP)
    for part in PARTS:
        target.force(part, END_NS)
    assert len(target.settle()) == 10
    for seq in range(10):
        assert feed(target, *full(seq)) == []
    assert kept(target) == 0
    assert all(number >= 10 for number in target.late.values())


# --- against a plain model, for any contents, cuts, order and forcing


@dataclass(frozen=True)
class Hole:
    """It is unknown what was in [start_ns, end_ns)."""

    start_ns: int
    end_ns: int
    reason: str


@dataclass(frozen=True, eq=False)
class Row:
    """A row of features, or a moment where nothing was found."""

    t_ns: int
    values: np.ndarray | None

    @property
    def end_ns(self) -> int:
        return self.t_ns + 1


Content = Mapping[Part, list[Any]]  # of each part in time order: rows, chunks or words, and holes
CONTRACTS: dict[Lane, FeatureContract] = {"audio": AUDIO, "vision": FACE}


def contents(rng: np.random.Generator) -> Content:
    """A few seconds of everything, some of it lost."""
    length = int(rng.integers(1, 10)) * HOP
    found: dict[Part, list[Any]] = {}
    for lane, contract, step in (("vision", FACE, 40 * MS), ("audio", AUDIO, 30 * MS)):
        times = np.arange(0, length, step) + int(rng.integers(0, step))
        values = rng.normal(size=(len(times), len(contract.columns))).astype(np.float32)
        found[lane] = [Row(int(t), each if rng.random() < 0.7 else None) for t, each in zip(times, values, strict=True)]  # type: ignore[index]
    found["voice"] = [chunk(t, bool(rng.random() < 0.4)) for t in range(0, length, 32 * MS)]
    ends = np.unique(rng.integers(1, length, 6))
    found["text"] = [Word(str(n), max(0, int(t) - 100), int(t)) for n, t in enumerate(ends)]
    for part, items in found.items():
        if rng.random() < 0.5 and len(items) > 2:
            first, last = sorted(rng.choice(len(items) - 1, 2, replace=False) + 1)
            start_ns, end_ns = items[first - 1].end_ns, _begin_ns(items[last])
            if start_ns < end_ns:
                items[first:last] = [Hole(start_ns, end_ns, f"no {part}")]
    return found


def _begin_ns(item: Any) -> int:
    """Up to here the watermark may be before the item has come."""
    return item.end_ns - 1 if isinstance(item, Word) else item.start_ns if isinstance(item, Hole) else item.t_ns


def cut(content: Content, rng: np.random.Generator) -> dict[Part, list[LaneUpdate]]:
    """The same in updates of any sizes, with watermarks as late as they can be, or later."""
    return {part: [*_cut(part, items, rng), PartEnded(part)] for part, items in content.items()}


def _cut(part: Part, items: list[Any], rng: np.random.Generator) -> list[LaneUpdate]:
    updates: list[LaneUpdate] = []
    group: list[Any] = []
    for index, item in enumerate(items):
        if isinstance(item, Hole):
            updates.append(PartUnknown(part, item.end_ns, item.reason))
            continue
        group.append(item)
        coming = items[index + 1] if index + 1 < len(items) else None
        if isinstance(coming, Hole) or coming is None or rng.random() < 0.3:
            latest_ns = _begin_ns(coming) if coming else item.end_ns
            earliest_ns = _begin_ns(item)
            watermark_ns = (
                latest_ns if isinstance(coming, Hole) else int(rng.integers(earliest_ns, max(latest_ns, earliest_ns) + 1))
            )
            updates.append(_update(part, group, watermark_ns))
            group = []
    return updates


def _update(part: Part, group: list[Any], watermark_ns: int) -> LaneUpdate:
    if part == "voice":
        return VoiceUpdate(tuple(group), watermark_ns)
    if part == "text":
        return WordsUpdate(tuple(group), (), watermark_ns)
    found = [row for row in group if row.values is not None]
    width = len(CONTRACTS[part].columns)
    values = np.stack([row.values for row in found]) if found else np.empty((0, width), np.float32)
    absent = [row.t_ns for row in group if row.values is None]
    return RowsUpdate(
        part, FeatureRows(np.array([row.t_ns for row in found], np.int64), values, np.array(absent, np.int64)), watermark_ns
    )


def expected(content: Content, forced: Mapping[int, tuple[Part, ...]], count: int) -> list[tuple[object, ...]]:
    """What the windows should be, each worked out from all of the contents."""
    splitter = UtteranceSplitter(gap_windows=4, max_windows=20)
    last_ns: dict[Lane, int | None] = dict.fromkeys(LANES)
    found: list[tuple[object, ...]] = []
    for seq in range(count):
        start_ns, end_ns, without = seq * HOP, (seq + 1) * HOP, forced.get(seq, ())

        def lost(part: Part, start_ns: int = start_ns, end_ns: int = end_ns) -> str | None:
            holes = [each for each in content[part] if isinstance(each, Hole)]
            return next((hole.reason for hole in holes if hole.start_ns < end_ns and hole.end_ns > start_ns), None)

        inside: dict[Part, list[Any]] = {}
        for part in ("audio", "vision"):
            inside[part] = [row for row in content[part] if isinstance(row, Row) and start_ns <= row.t_ns < end_ns]
        inside["text"] = [word for word in content["text"] if isinstance(word, Word) and start_ns < word.end_ns <= end_ns]
        heard = [
            (min(each.end_ns, end_ns) - max(each.t_ns, start_ns), each.voiced)
            for each in content["voice"]
            if not isinstance(each, Hole) and each.t_ns < end_ns and each.end_ns > start_ns
        ]
        inside |= {part: [] for part in without}
        heard = [] if "voice" in without else heard
        words = tuple(inside["text"])
        last_ns["text"] = words[-1].end_ns - 1 if words else last_ns["text"]
        known = bool(words) or bool(heard and "text" not in without and not lost("text"))
        text_lost = None if known or "text" in without else lost("text")
        lanes: list[object] = [("text", known, float(bool(words)), b"", last_ns["text"], text_lost)]
        for lane in ("audio", "vision"):
            values = [row.values for row in inside[lane] if row.values is not None]
            times = [row.t_ns for row in inside[lane] if row.values is not None]
            last_ns[lane] = times[-1] if times else last_ns[lane]
            share = len(values) / len(inside[lane]) if values else 0.0
            pooled = pool(np.stack(values)) if values else np.zeros(pooled_width(lane), np.float32)
            lane_lost = None if inside[lane] or lane in without else lost(lane)
            lanes.append((lane, bool(inside[lane]), share, pooled.tobytes(), last_ns[lane], lane_lost))
        voiced_ns, heard_ns = sum(ns for ns, voiced in heard if voiced), sum(ns for ns, _ in heard)
        voiced = voiced_ns / heard_ns if heard_ns else None
        found.append((seq, start_ns, end_ns, splitter.next(voiced_ns > 0), tuple(lanes), words, True, voiced, without))
    return found


def image(window: Window) -> tuple[object, ...]:
    """All of a window, to the bit."""
    lanes = tuple(
        (name, lane.known, lane.presence, lane.values.tobytes(), lane.last_ns, lane.lost) for name, lane in window.lanes.items()
    )
    plain = (window.words, window.words_final, window.voiced, window.forced)
    return (window.seq, window.t_start_ns, window.t_end_ns, window.restart, lanes, *plain)


def reach_of(content: Content) -> int:
    """How many windows hold something of a lane."""
    return 1 + max(_begin_ns(each) // HOP for part in LANES for each in content[part] if not isinstance(each, Hole))


@settings(max_examples=80, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1))
def test_settled_windows_depend_on_what_was_in_the_lanes_alone(what: int, how: int) -> None:
    content, rng = contents(np.random.default_rng(what)), np.random.default_rng(how)
    streams = cut(content, rng)
    target, mixed = windows(), list[Window]()
    while left := [stream for stream in streams.values() if stream]:
        mixed += feed(target, left[rng.integers(len(left))].pop(0))
        if rng.random() < 0.5:
            target.tail(int(rng.integers(12)) * HOP, 1000)  # a provisional look must not change anything
    assert [image(w) for w in mixed] == expected(content, {}, reach_of(content))
    assert not any(target.late.values())


@settings(max_examples=120, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1))
def test_a_window_depends_besides_on_what_it_was_settled_without(what: int, how: int) -> None:
    content, rng = contents(np.random.default_rng(what)), np.random.default_rng(how)
    streams = cut(content, rng)
    target, settled, late = windows(), list[Window](), set[Part]()
    forced_ns: dict[Part, int] = dict.fromkeys(PARTS, 0)
    count = reach_of(content)
    target.reach(count * HOP)
    while left := [part for part, stream in streams.items() if stream]:
        part = left[rng.integers(len(left))]
        if rng.random() < 0.2:
            t_ns = int(rng.integers(count * HOP + 1))
            forced_ns[part] = max(forced_ns[part], t_ns)
            target.force(part, t_ns)
        else:
            update = streams[part].pop(0)
            if any(moment_ns < len(settled) * HOP for moment_ns in moments(update)):
                late.add(part)
            target.update(update)
        for window in target.settle():
            behind = {each for each in PARTS if target.watermark_ns(each) < window.t_end_ns}
            assert set(window.forced) == behind
            assert all(forced_ns[each] >= window.t_end_ns for each in behind)
            settled.append(window)
    found = [image(w) for w in settled]
    without = {w.seq: w.forced for w in settled}
    assert [forget_why(each) for each in found] == [forget_why(each) for each in expected(content, without, count)]
    assert {part for part, number in target.late.items() if number} == late


def moments(update: LaneUpdate) -> list[int]:
    match update:
        case RowsUpdate(_, some, _):
            return [*some.t_ns.tolist(), *some.absent_ns.tolist()]
        case VoiceUpdate(chunks, _):
            return [each.t_ns for each in chunks]
        case WordsUpdate(words, _, _):
            return [word.end_ns - 1 for word in words]
    return []


def forget_why(image: tuple[object, ...]) -> tuple[object, ...]:
    """Without the reason why a lane that was forced is unknown: that hangs on how much of a hole had been told."""
    lanes: Any = image[4]
    return (*image[:4], tuple((*lane[:5], None if lane[0] in image[8] else lane[5]) for lane in lanes), *image[5:])  # type: ignore[operator]


def test_a_tail_is_no_longer_than_asked_however_far_the_clock_has_run() -> None:
    assert [window.seq for window in windows().tail(10**6 * HOP, 3)] == [0, 1, 2]
