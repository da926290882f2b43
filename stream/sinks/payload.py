"""The score payload, version 1: what JSON lines print and MQTT will publish. docs/payload.md describes every key."""

import json
from typing import Any

from stream.messages import Score, SessionInfo

CONTRACT_VERSION = 1
SCORE_RANGE = (-3, 3)


def payload(score: Score, info: SessionInfo) -> dict[str, Any]:
    """One score as the JSON object of the contract: seconds and milliseconds, no NaN, null where nothing is known."""
    return {
        "v": CONTRACT_VERSION,
        "seq": score.seq,
        "rev": score.rev,
        "kind": score.kind,
        "session": info.session,
        "node": info.node,
        "model": info.model,
        "trained": info.trained,
        "scripted": info.scripted,
        "t_start_s": _seconds(score.t_start_ns),
        "t_end_s": _seconds(score.t_end_ns),
        "t_end_unix_s": None if score.t_end_unix_ns is None else round(score.t_end_unix_ns / 1e9, 3),
        "sentiment": round(score.sentiment, 4),
        "score_range": SCORE_RANGE,
        "sentiment_smooth": round(score.smooth, 4),
        "smooth_tau_s": info.smooth_tau_s,
        "class7": round(score.sentiment),
        "polarity": polarity(score.sentiment),
        "uncertainty": round(score.uncertainty, 4),
        "revised_from": None if score.revised_from is None else round(score.revised_from, 4),
        "modalities": {lane: _modality(score, lane) for lane in score.lanes},
        "latency_ms": None
        if score.latency_ns is None or score.model_ns is None
        else {"capture_to_publish": _milliseconds(score.latency_ns), "model": _milliseconds(score.model_ns)},
    }


def encode(score: Score, info: SessionInfo) -> str:
    """The payload as one compact line without its end."""
    return json.dumps(payload(score, info), separators=(",", ":"), allow_nan=False)


def polarity(sentiment: float) -> str:
    """`positive`, `negative`, or `neutral` for exactly 0."""
    return "positive" if sentiment > 0 else "negative" if sentiment < 0 else "neutral"


def _modality(score: Score, lane: Any) -> dict[str, Any]:
    found = score.lanes[lane]
    about: dict[str, Any] = {"status": found.status}
    if found.reason:
        about["reason"] = found.reason
    about["age_ms"] = None if found.age_ns is None else round(found.age_ns / 1e6)
    if lane == "text":
        about["words"] = score.utterance_words
    if lane == "audio":
        about["voiced"] = None if score.voiced is None else round(score.voiced, 2)
    return about | {"weight": round(found.weight, 3)}


def _seconds(t_ns: int) -> float:
    return t_ns / 1e9


def _milliseconds(t_ns: int) -> float:
    return round(t_ns / 1e6, 1)
