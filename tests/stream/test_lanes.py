"""Lanes: what they say of gaps, holes and what they let pass, with the real detectors of sound and small fakes for the rest."""

from collections.abc import Iterable, Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from extractors.asr.recogniser import Recognition, Word
from extractors.contract import FeatureRows
from extractors.face import CONTRACT as FACE
from extractors.sound import SAMPLE_NS, SAMPLE_RATE
from extractors.vad import CHUNK, VoiceChunk
from stream.lanes import HOLE, SKIPPED, AudioLane, TextLane, VisionLane
from stream.messages import (
    END_NS,
    PARTS,
    AudioBlock,
    Gap,
    LaneUpdate,
    PartEnded,
    PartUnknown,
    RowsUpdate,
    Transcript,
    VideoFrame,
    VisionRows,
    VoiceUpdate,
    Window,
    WordsUpdate,
)
from stream.windows import Windows
from tests.stream.test_windows import feed, image

MS = 1_000_000
SECOND = 1_000_000_000
HOP = 250 * MS
CHUNK_NS = CHUNK * SAMPLE_NS
SOUND = np.random.default_rng(0).normal(0, 3000, 6 * SAMPLE_RATE).astype(np.int16)
Heard = VoiceUpdate | PartUnknown


class FakeFace:
    """A row for a bright picture, absence for a dark one."""

    closed = False
    outline = None

    def push(self, t_ns: int, image: np.ndarray) -> FeatureRows:
        moment, found = np.array([t_ns], np.int64), int(image.any())
        values = np.full((found, len(FACE.columns)), image.flat[0], np.float32)
        return FeatureRows(moment[:found], values, moment[found:])

    def close(self) -> None:
        self.closed = True


class FakeRecogniser:
    """Says each chunk's number when its stretch of speech is over, and guesses them before."""

    name = "fake"
    skipped = 0

    def __init__(self) -> None:
        self._open: list[Word] = []
        self._end_ns = 0
        self.behind: list[bool] = []
        self.closed = False

    def push(self, chunk: VoiceChunk, *, behind: bool = False) -> Recognition:
        self.behind.append(behind)
        final = () if chunk.speech and chunk.t_ns == self._end_ns else self._say()
        if chunk.speech:
            self._open.append(Word(f"n{chunk.t_ns}", chunk.t_ns, chunk.end_ns))
        self._end_ns = chunk.end_ns
        return Recognition(final, tuple(self._open), self._open[0].start_ns if self._open else self._end_ns)

    def finish(self) -> Recognition:
        return Recognition(self._say(), (), self._end_ns)

    def close(self) -> None:
        self.closed = True

    def _say(self) -> tuple[Word, ...]:
        said, self._open = tuple(self._open), []
        return said


def frame(t_ns: int, value: int) -> VideoFrame:
    return VideoFrame(t_ns, np.full((2, 2, 3), value, np.uint8))


def block(t_ns: int, samples: int = 1600, first: int = 0) -> AudioBlock:
    return AudioBlock(t_ns, SOUND[first : first + samples])


def chunks(pattern: str, t_ns: int = 0) -> list[VoiceChunk]:
    """A chunk for each character: `s` speech, `.` none, `|` one that was lost."""
    kinds = [(t_ns + index * CHUNK_NS, kind == "s") for index, kind in enumerate(pattern) if kind != "|"]
    return [VoiceChunk(t, np.zeros(CHUNK, np.int16), speech, speech) for t, speech in kinds]


def voice(*found: VoiceChunk) -> VoiceUpdate:
    return VoiceUpdate(found, found[-1].end_ns if found else 0)


def text_lane() -> tuple[TextLane, FakeRecogniser]:
    recogniser = FakeRecogniser()
    return TextLane(recogniser), recogniser


def spoken(updates: Iterable[LaneUpdate]) -> list[str]:
    return [word.text for update in updates if isinstance(update, WordsUpdate) for word in update.final]


def lost(updates: Iterable[LaneUpdate]) -> list[tuple[str, int, str]]:
    return [(u.part, u.watermark_ns, u.reason) for u in updates if isinstance(u, PartUnknown)]


def fresh() -> Windows:
    return Windows(hop_ns=HOP, gap_windows=4, max_windows=20)


def hear(packets: Iterable[AudioBlock | Gap]) -> tuple[list[LaneUpdate], list[LaneUpdate]]:
    """The updates of the audio lane, and of a text lane that hears what it tells of the voice."""
    audio, (text, _) = AudioLane(), text_lane()
    updates = [update for packet in packets for update in audio.push(packet)] + audio.finish()
    said = [word for update in updates if is_heard(update) for word in text.push(update)]  # type: ignore[arg-type]
    return updates, said + text.finish()


def is_heard(update: LaneUpdate) -> bool:
    return isinstance(update, VoiceUpdate) or (isinstance(update, PartUnknown) and update.part == "voice")


def settled(*updates: Sequence[LaneUpdate]) -> list[Window]:
    everything = [update for each in updates for update in each]
    return feed(fresh(), *everything, *(PartEnded(part) for part in PARTS))


def watermarks(updates: Iterable[LaneUpdate]) -> dict[str, int]:
    windows = fresh()
    for update in updates:
        windows.update(update)
    return {part: windows.watermark_ns(part) for part in PARTS}


def assert_promises_are_kept(updates: Iterable[LaneUpdate]) -> None:
    """Nothing comes for a time that a watermark has passed."""
    windows = fresh()
    for update in updates:
        match update:
            case RowsUpdate(lane, rows, _):
                assert all(t >= windows.watermark_ns(lane) for t in (*rows.t_ns.tolist(), *rows.absent_ns.tolist()))
            case VoiceUpdate(found, _):
                assert all(chunk.t_ns >= windows.watermark_ns("voice") for chunk in found)
            case WordsUpdate(final, provisional, _):
                assert all(word.end_ns > windows.watermark_ns("text") for word in (*final, *provisional))
        windows.update(update)


# --- vision


def test_a_picture_gives_its_row_and_moves_the_watermark_past_it() -> None:
    face = FakeFace()
    lane = VisionLane(face)  # type: ignore[arg-type]
    found = [update for packet in (frame(0, 7), frame(40 * MS, 0)) for update in lane.push(packet)]
    assert [type(update) for update in found] == [RowsUpdate] * 2
    assert [(u.rows.t_ns.tolist(), u.rows.absent_ns.tolist(), u.watermark_ns) for u in found] == [  # type: ignore[union-attr]
        ([0], [], 1),
        ([], [40 * MS], 40 * MS + 1),
    ]
    assert lane.finish() == []
    lane.close()
    assert face.closed


def test_what_is_not_seen_is_unknown_up_to_where_it_is_known_again() -> None:
    lane = VisionLane(FakeFace())  # type: ignore[arg-type]
    updates = [
        *lane.push(frame(0, 7)),
        *lane.push(Gap("video", 2 * HOP, "unplugged")),
        *lane.push(frame(2 * HOP, 7)),
        *lane.skip(frame(3 * HOP, 7), "crashed"),
        *lane.push(frame(4 * HOP, 0)),
    ]
    assert lost(updates) == [("vision", 2 * HOP, "unplugged"), ("vision", 3 * HOP + 1, "crashed")]
    assert_promises_are_kept(updates)
    found = [window.lanes["vision"] for window in settled(updates)]
    assert [(lane.known, lane.lost) for lane in found] == [
        (True, None),
        (False, "unplugged"),
        (True, None),
        (False, "crashed"),
        (True, None),
    ]


def test_rows_that_a_source_brings_pass_through() -> None:
    rows = FeatureRows.empty(len(FACE.columns))
    lane = VisionLane(None)
    (update,) = lane.push(VisionRows(5, rows))
    assert isinstance(update, RowsUpdate)
    assert (update.lane, update.rows, update.watermark_ns) == ("vision", rows, 5)
    assert lost(lane.skip(VisionRows(9, rows), "x")) == [("vision", 9, "x")]
    lane.close()


# --- audio


def rows_of(updates: Iterable[LaneUpdate]) -> list[int]:
    found = [update.rows for update in updates if isinstance(update, RowsUpdate)]
    return sorted(t for rows in found for t in (*rows.t_ns.tolist(), *rows.absent_ns.tolist()))


def chunks_of(updates: Iterable[LaneUpdate]) -> list[VoiceChunk]:
    return [chunk for update in updates if isinstance(update, VoiceUpdate) for chunk in update.chunks]


def covered(updates: Iterable[LaneUpdate]) -> list[tuple[int, int]]:
    """The stretches of time that chunks cover without a gap."""
    spans: list[tuple[int, int]] = []
    for chunk in chunks_of(updates):
        if spans and spans[-1][1] == chunk.t_ns:
            spans[-1] = (spans[-1][0], chunk.end_ns)
        else:
            spans.append((chunk.t_ns, chunk.end_ns))
    return spans


def test_a_hole_in_the_sound_is_unknown_and_nothing_waits_for_it() -> None:
    before, after = [block(t * 100 * MS) for t in range(10)], [block(t * 100 * MS) for t in range(22, 30)]
    updates, said = hear([*before, *after])
    assert lost(updates) == [("audio", 2200 * MS, HOLE), ("voice", 2200 * MS, HOLE)]
    assert lost(said) == [("text", 2200 * MS, HOLE)]
    assert covered(updates) == [(0, SECOND), (2200 * MS, 3 * SECOND)]
    found = rows_of(updates)
    assert (min(found), max(t for t in found if t < 2 * SECOND)) == (25 * MS - SAMPLE_NS, 995 * MS - SAMPLE_NS)
    assert min(t for t in found if t > SECOND) == 2225 * MS - SAMPLE_NS
    assert_promises_are_kept(updates)
    assert_promises_are_kept(said)
    windows = settled(updates, said)
    audio, text = ([window.lanes[lane] for window in windows] for lane in ("audio", "text"))
    assert [lane.lost for lane in audio] == [None] * 4 + [HOLE] * 4 + [None] * 4
    assert [lane.known for lane in audio] == [True] * 4 + [False] * 4 + [True] * 4
    assert [lane.lost for lane in text] == [None] * 4 + [HOLE] * 5 + [None] * 3  # not all of the ninth was heard
    assert [lane.known for lane in text] == [True] * 4 + [False] * 5 + [True] * 3


@pytest.mark.parametrize("apart", [1, -1, 0])
def test_what_lies_less_than_a_sample_apart_is_no_hole(apart: int) -> None:
    updates, said = hear([block(0), block(100 * MS + apart * (SAMPLE_NS - 1), first=1600)])
    assert lost([*updates, *said]) == []
    assert len(covered(updates)) == 1


def test_a_gap_is_told_at_once_and_again_as_it_lasts() -> None:
    audio, (text, _) = AudioLane(), text_lane()
    updates, said, seen = list[LaneUpdate](), list[LaneUpdate](), []
    for packet in (block(0), Gap("audio", SECOND, "unplugged"), Gap("audio", 2 * SECOND, "unplugged still")):
        new = audio.push(packet)
        updates += new
        said += [word for update in new if is_heard(update) for word in text.push(update)]  # type: ignore[arg-type]
        seen.append([watermarks(updates + said)[part] for part in ("audio", "voice", "text")])
    assert seen[1:] == [[SECOND] * 3, [2 * SECOND] * 3]
    assert max(seen[0]) < 100 * MS
    assert covered(updates) == [(0, 100 * MS)]  # what was open has been closed
    new = audio.push(block(2 * SECOND))
    assert lost(new) == []  # it goes on just where the gap ended
    assert [window.lanes["audio"].lost for window in settled(updates, said)] == [None]
    windows = fresh()
    windows.reach(2 * SECOND)
    found = feed(windows, *updates, *said, *(PartEnded(part) for part in PARTS))
    assert [window.lanes["audio"].lost for window in found] == [None, *["unplugged"] * 3, *["unplugged still"] * 4]
    assert [window.lanes["text"].lost for window in found] == ["unplugged"] * 4 + ["unplugged still"] * 4


def test_a_gap_before_any_sound_and_one_that_ends_in_a_hole() -> None:
    updates, said = hear([Gap("audio", SECOND, "not there yet"), block(1500 * MS)])
    assert lost(updates) == [
        ("audio", SECOND, "not there yet"),
        ("voice", SECOND, "not there yet"),
        ("audio", 1500 * MS, HOLE),
        ("voice", 1500 * MS, HOLE),
    ]
    assert [reason for _, _, reason in lost(said)] == ["not there yet", HOLE]
    assert covered(updates) == [(1500 * MS, 1600 * MS)]
    assert_promises_are_kept(updates + said)


def test_sound_that_begins_later_is_no_hole() -> None:
    updates, _ = hear([block(3 * SECOND)])
    assert lost(updates) == []


def test_a_block_that_is_let_pass_is_unknown_and_the_next_is_heard() -> None:
    lane = AudioLane()
    updates = [
        *lane.push(block(0)),
        *lane.skip(block(100 * MS), "crashed"),
        *lane.skip(block(200 * MS), "crashed"),
        *lane.push(block(300 * MS)),
        *lane.finish(),
    ]
    assert covered(updates) == [(0, 100 * MS), (300 * MS, 400 * MS)]
    assert lost(updates) == [(part, t * MS, "crashed") for t in (200, 300) for part in ("audio", "voice")]
    assert_promises_are_kept(updates)


MOVES = st.lists(st.tuples(st.sampled_from(["push"] * 4 + ["hole", "gap", "skip"]), st.integers(1, 5000)), max_size=12)


@settings(deadline=None, max_examples=25)
@given(MOVES)
def test_whatever_is_missing_what_was_heard_is_told_once_and_in_time(moves: list[tuple[str, int]]) -> None:
    audio, (text, _) = AudioLane(), text_lane()
    updates, said, t_ns, pushed = list[LaneUpdate](), list[LaneUpdate](), 0, list[tuple[int, int]]()
    for move, length in moves:
        end_ns = t_ns + length * SAMPLE_NS
        new: list[LaneUpdate] = []
        match move:
            case "push":
                new = audio.push(block(t_ns, length))
                if pushed and pushed[-1][1] == t_ns:
                    pushed[-1] = (pushed[-1][0], end_ns)
                else:
                    pushed.append((t_ns, end_ns))
            case "gap":
                new = audio.push(Gap("audio", end_ns, "gap"))
            case "skip":
                new = audio.skip(block(t_ns, length), "skip")
        updates += new
        said += [word for update in new if is_heard(update) for word in text.push(update)]  # type: ignore[arg-type]
        t_ns = end_ns
        if move in ("gap", "skip"):
            marks = watermarks(updates + said)
            assert marks["voice"] == end_ns
            assert end_ns <= marks["audio"] < end_ns + 25 * MS  # a row is stamped with the end of its frame
            assert marks["text"] == end_ns
    updates += audio.finish()
    said += [word for chunk in chunks_of(updates[-2:]) for word in text.push(voice(chunk))] + text.finish()
    assert covered(updates) == pushed
    assert_promises_are_kept(updates)
    assert_promises_are_kept(said)
    assert spoken(said) == [f"n{chunk.t_ns}" for chunk in chunks_of(updates) if chunk.speech]


@settings(deadline=None, max_examples=15)
@given(st.lists(st.integers(1, 9000), max_size=12), st.booleans())
def test_windows_do_not_depend_on_how_the_sound_is_cut_into_blocks(lengths: list[int], hole: bool) -> None:
    def windows(lengths: list[int]) -> list[tuple[object, ...]]:
        packets, first = list[AudioBlock](), 0
        for length in [*lengths, len(SOUND)]:
            last = min(first + length, len(SOUND) // 2 if first < len(SOUND) // 2 else len(SOUND))
            start_ns = first * SAMPLE_NS + (SECOND if hole and first >= len(SOUND) // 2 else 0)
            packets.append(AudioBlock(start_ns, SOUND[first:last]))
            first = last
        packets.append(AudioBlock(first * SAMPLE_NS + hole * (first >= len(SOUND) // 2) * SECOND, SOUND[first:]))
        return [image(window) for window in settled(*hear(packets))]

    assert windows(lengths) == windows([])


# --- text


def test_words_that_a_source_brings_pass_through_without_marks_for_noise() -> None:
    lane = TextLane(None)
    said = (Word("Well,", 0, 5), Word("[noise]", 5, 6), Word("…", 6, 7), Word("yes", 7, 8))
    (update,) = lane.push(Transcript(9, said))
    assert update == WordsUpdate((said[0], said[3]), (), 9)
    assert lane.push(voice(*chunks("ss"))) == lane.push(PartUnknown("voice", 5, "x")) == []
    assert lane.finish() == []
    lane.close()


def test_speech_is_heard_chunk_by_chunk_and_what_is_open_at_the_end_is_told() -> None:
    lane, recogniser = text_lane()
    assert lane.finish() == []  # nothing was heard
    found = lane.push(voice(*chunks("ss.s")), behind=True)
    assert [(len(u.final), len(u.provisional), u.watermark_ns) for u in found if isinstance(u, WordsUpdate)] == [
        (0, 1, 0),
        (0, 2, 0),
        (2, 0, 3 * CHUNK_NS),
        (0, 1, 3 * CHUNK_NS),
    ]
    assert recogniser.behind == [True] * 4
    lane.push(voice(*chunks("s", 4 * CHUNK_NS)))
    assert recogniser.behind[-1] is False
    assert [(len(u.final), u.watermark_ns) for u in lane.finish() if isinstance(u, WordsUpdate)] == [(2, 5 * CHUNK_NS)]
    lane.close()
    assert recogniser.closed


def test_chunks_that_were_given_up_are_said_to_be_skipped() -> None:
    lane, _ = text_lane()
    found = [update for chunk in chunks("ss||ss.") for update in lane.push(voice(chunk))]
    assert lost(found) == [("text", 4 * CHUNK_NS, SKIPPED)]
    assert [type(u) for u in found] == [
        WordsUpdate,
        WordsUpdate,
        WordsUpdate,
        PartUnknown,
        WordsUpdate,
        WordsUpdate,
        WordsUpdate,
    ]
    assert spoken(found[:3]) == ["n0", f"n{CHUNK_NS}"]  # what was open is final first
    assert_promises_are_kept(found)


def test_a_lane_that_is_told_of_a_gap_ends_the_words_before_it() -> None:
    lane, _ = text_lane()
    lane.push(voice(*chunks("ss")))
    found = lane.push(PartUnknown("voice", 20 * CHUNK_NS, "unplugged"))
    assert [type(update) for update in found] == [WordsUpdate, PartUnknown]
    assert spoken(found) == ["n0", f"n{CHUNK_NS}"]
    assert lost(found) == [("text", 20 * CHUNK_NS, "unplugged")]
    assert lost(lane.push(voice(*chunks("s", 20 * CHUNK_NS)))) == []
    assert lost(lane.push(PartUnknown("voice", END_NS, "gone for good"))) == [("text", END_NS, "gone for good")]


@pytest.mark.parametrize(
    ("packet", "until"),
    [
        (voice(*chunks("ss", 2 * CHUNK_NS)), 4 * CHUNK_NS),
        (PartUnknown("voice", 9 * CHUNK_NS, "hole"), 9 * CHUNK_NS),
        (Transcript(9 * CHUNK_NS, ()), 9 * CHUNK_NS),
    ],
)
def test_what_is_let_pass_is_unknown_with_the_reason(packet: Heard | Transcript, until: int) -> None:
    lane, recogniser = text_lane()
    lane.push(voice(*chunks("ss")))
    found = lane.skip(packet, "crashed")
    assert lost(found) == [("text", until, "crashed")]
    assert len(spoken(found)) == 2
    assert len(recogniser.behind) == 2
    assert lost(lane.push(voice(*chunks("s", until)))) == []
    assert_promises_are_kept(found)


@settings(deadline=None)
@given(
    pattern=st.text("s.|", max_size=30).map(lambda pattern: "." + pattern.strip("|") + "s."),
    cuts=st.lists(st.booleans(), min_size=40, max_size=40),
    start=st.integers(0, 10) | st.just(10**18),
)
def test_words_do_not_depend_on_how_chunks_are_grouped(pattern: str, cuts: list[bool], start: int) -> None:
    lane, _ = text_lane()
    other, _ = text_lane()
    one_by_one = [update for chunk in chunks(pattern, start) for update in lane.push(voice(chunk))] + lane.finish()
    grouped, group = list[LaneUpdate](), list[VoiceChunk]()
    for chunk, cut in zip(chunks(pattern, start), cuts, strict=False):
        group.append(chunk)
        if cut:
            grouped += other.push(voice(*group))
            group = []
    grouped += [*other.push(voice()), *other.push(VoiceUpdate(tuple(group), 0)), *other.finish()]
    assert grouped == one_by_one
    assert spoken(grouped) == [f"n{chunk.t_ns}" for chunk in chunks(pattern, start) if chunk.speech]
    assert [until for _, until, _ in lost(grouped)] == [
        start + index * CHUNK_NS for index, kind in enumerate(pattern) if kind != "|" and index and pattern[index - 1] == "|"
    ]
    assert_promises_are_kept(grouped)


@settings(deadline=None)
@given(kept=st.lists(st.booleans(), min_size=8, max_size=40))
def test_where_chunks_were_given_up_it_is_unknown_what_was_said(kept: list[bool]) -> None:
    kept = [True, *kept, True]
    all_chunks = chunks("." * len(kept))
    lane, _ = text_lane()
    said = [update for chunk, keep in zip(all_chunks, kept, strict=True) if keep for update in lane.push(voice(chunk))]
    windows = fresh()
    windows.reach(len(kept) * CHUNK_NS)
    heard = voice(*all_chunks)
    for window in feed(windows, heard, *said, *(PartEnded(part) for part in PARTS)):
        given_up = [
            chunk
            for chunk, keep in zip(all_chunks, kept, strict=True)
            if not keep and chunk.t_ns < window.t_end_ns and chunk.end_ns > window.t_start_ns
        ]
        assert window.lanes["text"].lost == (SKIPPED if given_up else None)
        assert window.lanes["text"].known == (not given_up)
