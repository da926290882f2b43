import json

from stream.messages import LaneScore, Score, SessionInfo
from stream.sinks.payload import encode

INFO = SessionInfo("cam0", "lab-1", "a.mp4", False, "mmlatch@abc", False, "cpu", 2.0)


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


def test_the_payload_follows_the_contract() -> None:
    found = json.loads(encode(score(t_end_unix_ns=1_792_231_145_312_400_000, latency_ns=212_040_000, model_ns=2_440_000), INFO))
    assert found == {
        "v": 1, "seq": 3650, "rev": 2, "kind": "provisional", "session": "cam0", "node": "lab-1", "model": "mmlatch@abc",
        "trained": False, "scripted": False, "t_start_s": 912.5, "t_end_s": 912.75, "t_end_unix_s": 1792231145.312,
        "sentiment": 0.4, "score_range": [-3, 3], "sentiment_smooth": 0.37, "smooth_tau_s": 2.0, "class7": 0,
        "polarity": "positive", "uncertainty": 0.8124, "revised_from": None,
        "modalities": {
            "text": {"status": "partial", "reason": "provisional_words", "age_ms": 1430, "words": 7, "weight": 0.41},
            "audio": {"status": "ok", "age_ms": 38, "voiced": 0.83, "weight": 0.33},
            "vision": {"status": "missing", "reason": "no_face", "age_ms": None, "weight": 0.0},
        },
        "latency_ms": {"capture_to_publish": 212.0, "model": 2.4},
    }  # fmt: skip


def test_without_a_present_there_is_no_latency() -> None:
    found = json.loads(encode(score(), INFO))
    assert found["latency_ms"] is None
    assert found["t_end_unix_s"] is None


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


def test_one_compact_line_without_words() -> None:
    text = encode(score(), INFO)
    assert "\n" not in text
    assert ": " not in text
