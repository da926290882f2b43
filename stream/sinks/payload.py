"""The payloads, version 1: what JSON lines print and MQTT publishes. docs/payload.md describes every key."""

import json
from typing import Any

from stream.messages import Event, Latency, Output, Score, SessionInfo, Utterance

CONTRACT_VERSION = 1
SCORE_RANGE = (-3, 3)


def payload(output: Output, info: SessionInfo) -> dict[str, Any]:
    """An output as the JSON object of the contract: seconds and milliseconds, no NaN, null where nothing is known."""
    about = about_session(info)
    match output:
        case Score():
            return about | _score(output, info)
        case Utterance():
            return about | _utterance(output)
        case Event(t_ns, kind, part, reason, count):
            return about | {
                "kind": "event", "t_s": _seconds(t_ns), "event": kind, "part": part, "reason": reason, "count": count
            }  # fmt: skip


def about_session(info: SessionInfo) -> dict[str, Any]:
    """What every payload of a session begins with."""
    return {"v": CONTRACT_VERSION, "session": info.session, "node": info.node}


def encode(output: Output, info: SessionInfo) -> str:
    """The payload as one compact line without its end."""
    return json.dumps(payload(output, info), separators=(",", ":"), allow_nan=False)


def _score(score: Score, info: SessionInfo) -> dict[str, Any]:
    return {
        "seq": score.seq,
        "rev": score.rev,
        "kind": score.kind,
        "model": info.model,
        "trained": bool(info.trained_on),
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
        "latency_ms": None if score.latency is None else _latency(score.latency),
        "dropped": score.dropped,
    }


def _utterance(utterance: Utterance) -> dict[str, Any]:
    return {
        "kind": "utterance",
        "utterance": utterance.number,
        "t_start_s": _seconds(utterance.t_start_ns),
        "t_end_s": _seconds(utterance.t_end_ns),
        "sentiment": round(utterance.sentiment, 4),
        "mean": round(utterance.mean, 4),
        "peak": round(utterance.peak, 4),
        "words": len(utterance.words),
    }


def _latency(latency: Latency) -> dict[str, float]:
    return {
        "capture_to_publish": _milliseconds(latency.total_ns),
        "feature": _milliseconds(latency.feature_ns),
        "text": _milliseconds(latency.text_ns),
        "model": _milliseconds(latency.model_ns),
    }


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
        about["lag_ms"] = None if score.text_lag_ns is None else round(score.text_lag_ns / 1e6)
    if lane == "audio":
        about["voiced"] = None if score.voiced is None else round(score.voiced, 2)
    return about | {"weight": round(found.weight, 3)}


def _seconds(t_ns: int) -> float:
    return t_ns / 1e9


def _milliseconds(t_ns: int) -> float:
    return round(t_ns / 1e6, 1)
