"""Windows: pooling, the three cases of a lane, and that settled windows do not depend on how updates arrive."""

from dataclasses import replace

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
from stream.messages import LaneEnded, LaneUpdate, RowsUpdate, VoiceUpdate, Window, WordsUpdate
from stream.windows import ROW_LANES, Windows, contracts, pool, pooled_width

HOP = 250_000_000
MS = 1_000_000


def windows() -> Windows:
    return Windows(hop_ns=HOP, gap_windows=4, max_windows=20)


def rows(contract: FeatureContract, t_ns: list[int], absent_ns: list[int] | None = None, value: float = 1.0) -> FeatureRows:
    width = len(contract.columns)
    values = np.full((len(t_ns), width), value, np.float32) + np.arange(width, dtype=np.float32)
    return FeatureRows(np.array(t_ns, np.int64), values, np.array(absent_ns or [], np.int64))


def chunk(t_ns: int, voiced: bool = True) -> VoiceChunk:
    return VoiceChunk(t_ns, np.zeros(512, np.int16), voiced, voiced)


def feed(target: Windows, *updates: LaneUpdate) -> list[Window]:
    settled = []
    for update in updates:
        target.update(update)
        settled += target.settle()
    return settled


def end(*parts: str, lost: str | None = None) -> list[LaneEnded]:
    return [LaneEnded(part, lost) for part in parts]  # type: ignore[arg-type]


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
        "windows": "mean+std/250000000ns",
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
    parts = ("text", "audio", "vision", "voice")
    for last in parts:
        target = windows()
        others = [part for part in parts if part != last]
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


def test_no_word_is_known_absence_only_where_sound_was_heard_by_a_recogniser() -> None:
    heard = VoiceUpdate((chunk(0), chunk(HOP)), 2 * HOP)
    sound = RowsUpdate("audio", rows(AUDIO, [10, HOP + 10, 2 * HOP + 10]), 3 * HOP)
    ended = end("vision", "audio", "voice")
    known = [w.lanes["text"].known for w in feed(windows(), sound, heard, WordsUpdate((), (), 3 * HOP), *ended, *end("text"))]
    assert known == [True, True, False]  # no sound in the last
    known = [w.lanes["text"].known for w in feed(windows(), sound, heard, *ended, *end("text", lost="crashed"))]
    assert known == [False, False, False]
    lost_later = [WordsUpdate((), (), HOP), *ended, *end("text", lost="crashed")]
    assert [w.lanes["text"].known for w in feed(windows(), sound, heard, *lost_later)] == [True, False, False]


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
        tail = target.tail(2 * HOP + 3)
        assert [w.seq for w in tail] == [0, 1]
        assert [[w.text for w in window.words] for window in tail] == [[], ["maybe"]]
        assert [window.words_final for window in tail] == [True, False]
        assert [window.lanes["audio"].known for window in tail] == [True, False]
        assert [window.lanes["text"].known for window in tail] == [False, True]
    settled = feed(target, WordsUpdate((Word("surely", HOP, HOP + 60),), (), 2 * HOP), *end("vision", "audio", "voice", "text"))
    assert [[w.text for w in window.words] for window in settled] == [[], ["surely"]]
    assert all(window.words_final for window in settled)


def same(one: Window, other: Window) -> bool:
    lanes = all(
        one.lanes[lane].known == other.lanes[lane].known
        and one.lanes[lane].presence == other.lanes[lane].presence
        and one.lanes[lane].last_ns == other.lanes[lane].last_ns
        and np.array_equal(one.lanes[lane].values, other.lanes[lane].values)
        for lane in one.lanes
    )
    plain = ("seq", "t_start_ns", "t_end_ns", "restart", "words", "voiced", "words_final")
    return lanes and all(getattr(one, name) == getattr(other, name) for name in plain)


def lane_streams(data: st.DataObject) -> list[list[LaneUpdate]]:
    """Random contents of a few seconds for each lane, each cut into updates at random."""
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    length = int(rng.integers(1, 12)) * HOP
    streams: list[list[LaneUpdate]] = []
    for lane, contract, step in (("vision", FACE, 40 * MS), ("audio", AUDIO, 10 * MS)):
        times = np.arange(0, length, step)
        present = rng.random(len(times)) < 0.7
        updates: list[LaneUpdate] = []
        for part in np.split(np.arange(len(times)), np.sort(rng.integers(0, len(times), int(rng.integers(0, 6))))):
            values = rng.normal(size=(len(part), len(contract.columns))).astype(np.float32)
            some = FeatureRows(times[part][present[part]], values[present[part]], times[part][~present[part]])
            watermark = int(times[part[-1]]) + 1 if len(part) else 0
            watermark = max(watermark, updates[-1].watermark_ns if updates else 0)  # type: ignore[union-attr]
            updates.append(RowsUpdate(lane, some, watermark))  # type: ignore[arg-type]
        streams.append([*updates, LaneEnded(lane)])  # type: ignore[arg-type]
    chunks = [chunk(t, bool(rng.random() < 0.5)) for t in range(0, length, 32 * MS)]
    streams.append([*(VoiceUpdate((c,), c.end_ns) for c in chunks), LaneEnded("voice")])
    ends = np.sort(rng.integers(1, length, 5))
    words = [Word(str(n), max(0, int(t) - 100), int(t)) for n, t in enumerate(ends)]
    streams.append([*(WordsUpdate((w,), (), w.end_ns - 1) for w in words), LaneEnded("text")])
    return streams


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_settled_windows_do_not_depend_on_how_the_lanes_interleave(data: st.DataObject) -> None:
    streams = lane_streams(data)
    in_turn = feed(windows(), *(update for stream in streams for update in stream))
    target, mixed, left = windows(), [], [list(stream) for stream in streams]
    while any(left):
        stream = data.draw(st.sampled_from([stream for stream in left if stream]))
        mixed += feed(target, stream.pop(0))
        if data.draw(st.booleans()):
            target.tail(data.draw(st.integers(0, 12)) * HOP)  # a provisional look must not change anything
    assert [w.seq for w in in_turn] == list(range(len(in_turn)))
    assert len(mixed) == len(in_turn)
    assert all(same(one, other) for one, other in zip(mixed, in_turn, strict=True))
