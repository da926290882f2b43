"""A recording that begins later begins with all that its windows depend on."""

from extractors.asr.recogniser import Word
from stream.messages import LANES, Anew, Ended, Entry, LaneScore, PartUnknown, Score, WordsUpdate
from stream.progress import Progress
from stream.records import ENTRIES, Record
from tests.stream.wiring import HOP


def following(entries: list[Entry], windows: int) -> Progress:
    """A session in which all that came before so many windows were settled."""
    progress = Progress(hop_ns=HOP, gap_windows=4, max_windows=4)
    for number, entry in enumerate(entries):
        progress.entry(Record(number, 0, ENTRIES[type(entry)], entry))
    for seq in range(windows):
        progress.output(final(seq))
    return progress


def final(seq: int) -> Score:
    lanes = {lane: LaneScore("ok", None, None, 0.5) for lane in LANES}
    return Score("final", seq, 0, seq * HOP, (seq + 1) * HOP, 0.0, 1.0, 0.0, lanes, (), 0, 1.0, None)


def lead(progress: Progress) -> list[Entry]:
    return [record.value for record in progress.lead()]


def test_a_new_utterance_that_was_asked_for_within_the_window_before_is_begun_again() -> None:
    progress = following([Anew(HOP // 3), Anew(HOP + 1)], 3)
    assert progress.begin.seq == 2
    assert lead(progress) == [Anew(HOP + 1)]
    for seq in range(3, 7):
        progress.output(final(seq))
    assert progress.begin.seq == 6
    assert lead(progress) == []


def test_windows_that_the_end_has_settled_are_settled_by_it_again() -> None:
    assert lead(following([Ended()], 5)) == [Ended()]


def test_words_that_were_withdrawn_do_not_come_back() -> None:
    withdrawn = WordsUpdate((), (), 3 * HOP)
    unknown = PartUnknown("text", 5 * HOP, "recognition fell behind")
    progress = following([WordsUpdate((), (Word("ghost", 4 * HOP, 6 * HOP),), 2 * HOP), withdrawn, unknown], 5)
    assert progress.begin.seq == 4
    assert lead(progress)[-2:] == [withdrawn, unknown]
