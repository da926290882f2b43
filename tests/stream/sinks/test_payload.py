import json
import re
from collections.abc import Mapping

import pytest

from extractors.asr.recogniser import Word
from stream.messages import Event, LaneScore, Latency, Output, Score, SessionInfo, Utterance
from stream.sinks.payload import encode
from tests.conftest import ROOT

INFO = SessionInfo("cam0", "lab-1", "a.mp4", False, False, "mmlatch@abc", (), "cpu", 2.0)
LATENCY = Latency(212_040_000, 40_000_000, 169_600_000, 2_440_000)
UTTERANCE = Utterance(3, 1_250_000_000, 4_000_000_000, -0.51239, 0.25, -1.75, (Word("so", 0, 1), Word("what", 1, 2)))
EVENT = Event(2_500_000_000, "dropped", "vision", "more came than could be dealt with", 7)


def score(sentiment: float = 0.4, **changes: object) -> Score:
    lanes = {
        "text": LaneScore("partial", "provisional_words", 1_430_000_000, 0.41),
        "audio": LaneScore("ok", None, 38_000_000, 0.33),
        "vision": LaneScore("missing", "no_face", None, 0.0),
    }
    values: dict[str, object] = {
        "kind": "provisional", "seq": 3650, "rev": 2, "t_start_ns": 912_500_000_000, "t_end_ns": 912_750_000_000,
        "sentiment": sentiment, "uncertainty": 0.81236, "smooth": 0.37, "lanes": lanes, "words": (), "utterance_words": 7,
        "voiced": 0.834, "revised_from": None,
    }  # fmt: skip
    return Score(**(values | changes))  # type: ignore[arg-type]


TIMED = score(
    t_end_unix_ns=1_792_231_145_312_400_000,
    latency=LATENCY,
    text_lag_ns=1_700_400_000,
    dropped={"text": 0, "audio": 2, "vision": 31},
)


def test_the_payload_of_a_score_follows_the_contract() -> None:
    assert json.loads(encode(TIMED, INFO)) == {
        "v": 1, "seq": 3650, "rev": 2, "kind": "provisional", "session": "cam0", "node": "lab-1", "model": "mmlatch@abc",
        "trained": False, "scripted": False, "t_start_s": 912.5, "t_end_s": 912.75, "t_end_unix_s": 1792231145.312,
        "sentiment": 0.4, "score_range": [-3, 3], "sentiment_smooth": 0.37, "smooth_tau_s": 2.0, "class7": 0,
        "polarity": "positive", "uncertainty": 0.8124, "revised_from": None,
        "modalities": {
            "text": {
                "status": "partial", "reason": "provisional_words", "age_ms": 1430, "words": 7, "lag_ms": 1700, "weight": 0.41,
            },
            "audio": {"status": "ok", "age_ms": 38, "voiced": 0.83, "weight": 0.33},
            "vision": {"status": "missing", "reason": "no_face", "age_ms": None, "weight": 0.0},
        },
        "latency_ms": {"capture_to_publish": 212.0, "feature": 40.0, "text": 169.6, "model": 2.4},
        "dropped": {"text": 0, "audio": 2, "vision": 31},
    }  # fmt: skip


def test_the_payload_of_an_utterance_follows_the_contract() -> None:
    assert json.loads(encode(UTTERANCE, INFO)) == {
        "v": 1, "kind": "utterance", "session": "cam0", "node": "lab-1", "utterance": 3, "t_start_s": 1.25, "t_end_s": 4.0,
        "sentiment": -0.5124, "mean": 0.25, "peak": -1.75, "words": 2,
    }  # fmt: skip


def test_the_payload_of_an_event_follows_the_contract() -> None:
    assert json.loads(encode(EVENT, INFO)) == {
        "v": 1, "kind": "event", "session": "cam0", "node": "lab-1", "t_s": 2.5, "event": "dropped", "part": "vision",
        "reason": "more came than could be dealt with", "count": 7,
    }  # fmt: skip


def described() -> dict[str, set[str]]:
    """The keys of each table of docs/payload.md, by the heading or the line before it."""
    found: dict[str, set[str]] = {}
    title = ""
    for line in (ROOT / "docs" / "payload.md").read_text(encoding="utf-8").splitlines():
        if line.startswith("## ") or line.startswith("Each of the modalities"):
            title = line.strip("# :")
        elif line.startswith("| `"):
            found.setdefault(title, set()).update(re.findall(r"`(\w+)`", line.split("|")[1]))
    return found


def test_every_key_is_described_and_every_key_that_is_described_is_there() -> None:
    tables, always = described(), {"v", "session", "node"}
    found: Mapping[str, Mapping[str, object]] = {
        name: json.loads(encode(output, INFO))
        for name, output in (("Scores", TIMED), ("Utterances", UTTERANCE), ("Events", EVENT))
    }
    for name, payload in found.items():
        assert payload.keys() - always - {"kind"} == tables[name] - {"kind"}
        assert payload.keys() >= always | {"kind"}
    lanes = json.loads(encode(TIMED, INFO))["modalities"]
    assert {key for lane in lanes.values() for key in lane} == tables["Each of the modalities"]
    text = (ROOT / "docs" / "payload.md").read_text(encoding="utf-8")
    assert all(f"`{key}`" in text for key in (*always, *json.loads(encode(TIMED, INFO))["latency_ms"]))


def test_without_a_present_there_is_no_latency() -> None:
    found = json.loads(encode(score(), INFO))
    assert found["latency_ms"] is None
    assert found["t_end_unix_s"] is None
    assert found["modalities"]["text"]["lag_ms"] is None
    assert found["dropped"] == {}


def test_classes_and_polarity() -> None:
    seen = {value: json.loads(encode(score(value), INFO)) for value in (-2.6, -0.5, 0.0, 0.5, 1.5, 2.999)}
    assert {value: found["class7"] for value, found in seen.items()} == {-2.6: -3, -0.5: 0, 0.0: 0, 0.5: 0, 1.5: 2, 2.999: 3}
    assert [found["polarity"] for found in seen.values()] == [
        "negative",
        "negative",
        "neutral",
        "positive",
        "positive",
        "positive",
    ]


@pytest.mark.parametrize("output", [TIMED, score(words=(Word("secret", 0, 1),)), UTTERANCE, EVENT])
def test_one_compact_line_without_words(output: Output) -> None:
    text = encode(output, INFO)
    assert "\n" not in text
    assert ": " not in text
    assert "secret" not in text
    assert "what" not in text


def test_what_is_no_number_is_never_written() -> None:
    with pytest.raises(ValueError, match="JSON"):
        encode(score(smooth=float("nan")), INFO)
