import csv
import io
import json
from dataclasses import replace
from typing import Any

import pytest

from extractors.asr.recogniser import Word
from stream.dashboard.history import BINS, History, Message
from stream.messages import LANES, Event, Output, Score, SessionInfo
from tests.stream.sinks.test_payload import EVENT, UTTERANCE, score

INFO = SessionInfo("cam0", "lab-1", "camera", True, False, "m@1", ("mosi/train",), "cpu", 2.0)
MASKS = {lane: tuple(number / 64 for number in range(64)) for lane in LANES}


def window(seq: int, sentiment: float = 0.5, kind: str = "final", *words: str) -> Score:
    said = tuple(Word(word, 0, 1) for word in words)
    end_ns = (seq + 1) * 250_000_000
    return score(
        sentiment,
        kind=kind,
        seq=seq,
        t_start_ns=end_ns - 250_000_000,
        t_end_ns=end_ns,
        smooth=sentiment,
        words=said,
        masks=MASKS,
    )


def told(history: History, *outputs: Output) -> list[Message]:
    return [message for output in outputs for message in history.take(output)]


def test_a_page_is_told_scores_with_their_words_and_masks() -> None:
    history = History(INFO)
    state, first = told(history, window(0, 0.5, "provisional", "good", "day"))
    assert (state["type"], state["state"]) == ("state", "running")
    assert (first["type"], first["session"], first["kind"], first["words"]) == ("score", "cam0", "provisional", ["good", "day"])
    assert {lane: len(mask) for lane, mask in first["masks"].items()} == dict.fromkeys(LANES, BINS)
    assert first["masks"]["text"][0] == pytest.approx(sum(range(4)) / 64 / 4, abs=1e-3)
    json.dumps(first, allow_nan=False)


def test_without_masks_there_are_none() -> None:
    (_, first) = told(History(INFO), replace(window(0), masks={}))
    assert first["masks"] == {}


def test_a_snapshot_holds_the_last_minutes_and_is_no_larger_after_a_day() -> None:
    history = History(INFO)
    told(history, window(0, -1.0), UTTERANCE, EVENT, window(1, 0.5, "provisional"))
    snapshot = history.snapshot()
    assert [each["seq"] for each in snapshot["scores"]] == [0]
    assert (snapshot["newest"]["seq"], snapshot["newest"]["kind"]) == (1, "provisional")
    assert [each["utterance"] for each in snapshot["utterances"]] == [3]
    assert snapshot["utterances"][0]["text"] == "so what"
    assert [each["event"] for each in snapshot["events"]] == ["dropped"]
    assert (snapshot["state"], snapshot["source"], snapshot["trained"]) == ("running", "camera", True)
    told(history, *(window(seq) for seq in range(1, 5000)), *[EVENT] * 2000, *[UTTERANCE] * 100)
    snapshot = history.snapshot()
    assert len(snapshot["scores"]) == 1201  # of five minutes
    assert (len(snapshot["utterances"]), len(snapshot["events"])) == (20, 20)
    assert len(history.summary()["scores"]) == 5000
    assert len(history.summary()["events"]) == 1000


def test_what_is_kept_for_the_summary_is_of_twelve_hours() -> None:
    history = History(INFO)
    hour = 4 * 3600
    told(history, window(0), window(11 * hour), window(13 * hour))
    assert [each["seq"] for each in history.summary()["scores"]] == [11 * hour, 13 * hour]


def test_the_summary_sums_up() -> None:
    history = History(INFO)
    assert history.summary()["mean"] is None
    told(history, window(0, -1.0), window(1, 0.5), window(2, 2.0, "final", "great"))
    history.end()
    summary = history.summary()
    assert (summary["state"], summary["windows"], summary["mean"], summary["positive_share"]) == ("ended", 3, 0.5, 0.6667)
    assert (summary["most_negative"], summary["most_positive"]) == (-1.0, 2.0)
    json.dumps(summary, allow_nan=False)
    rows = list(csv.DictReader(io.StringIO(history.table())))
    assert [row["sentiment"] for row in rows] == ["-1.0", "0.5", "2.0"]
    assert rows[2]["words"] == "great"


@pytest.mark.parametrize("word", ["=1+1", "+1", "-1", "@sum"])
def test_a_word_is_no_formula(word: str) -> None:
    history = History(INFO)
    told(history, window(0, 0.5, "final", word))
    (row,) = csv.DictReader(io.StringIO(history.table()))
    assert row["words"] == f"'{word}"


def test_what_happens_to_the_session_is_told_with_its_state() -> None:
    history = History(INFO)
    told(history, window(0))
    messages: list[Any] = told(history, Event(0, "lost", "vision", "the camera is gone"))
    assert [each["type"] for each in messages] == ["state", "event"]
    assert messages[0]["modalities"]["vision"] == {"status": "lost", "reason": "the camera is gone"}
    assert history.end()["state"] == "ended"
