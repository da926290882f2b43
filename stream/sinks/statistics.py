"""How a node is doing: what MQTT's `stats` topic, the Prometheus endpoint and the page tell of its sessions."""

import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch

from stream.channel import Channel
from stream.messages import Event, Output, Score, SessionInfo
from stream.sinks.state import SessionState

_KEPT = 240  # latencies: those of the last minute, at four scores a second
_SHARES = (50, 95, 99)

Edges = Mapping[str, "Channel[Any]"]
"""A session's channels, by the name of what they lead to."""


class Watched(Protocol):
    """A session, as far as it is told of."""

    @property
    def name(self) -> str:
        """Its own."""
        ...

    @property
    def edges(self) -> Edges:
        """Its channels."""
        ...


@dataclass
class _Latencies:
    """Of the newest scores of one kind, milliseconds."""

    total: deque[float] = field(default_factory=lambda: deque(maxlen=_KEPT))
    feature: deque[float] = field(default_factory=lambda: deque(maxlen=_KEPT))
    text: deque[float] = field(default_factory=lambda: deque(maxlen=_KEPT))
    model: deque[float] = field(default_factory=lambda: deque(maxlen=_KEPT))


class _SessionStatistics:
    """Of one session."""

    def __init__(self, info: SessionInfo) -> None:
        self._info = info
        self._state = SessionState(info)
        self._latencies = {"provisional": _Latencies(), "final": _Latencies()}
        self._scores = {"provisional": 0, "final": 0}
        self._events: dict[str, int] = {}
        self._newest: Score | None = None

    def take(self, output: Output) -> None:
        self._state.take(output)
        match output:
            case Score(kind=kind, latency=latency):
                self._newest = output
                self._scores[kind] += 1
                if latency:
                    kept = self._latencies[kind]
                    kept.total.append(latency.total_ns / 1e6)
                    kept.feature.append(latency.feature_ns / 1e6)
                    kept.text.append(latency.text_ns / 1e6)
                    kept.model.append(latency.model_ns / 1e6)
            case Event(kind=kind, part=part, count=count):
                name = f"{kind} {part}"
                self._events[name] = self._events.get(name, 0) + count

    def end(self) -> None:
        self._state.end()

    def snapshot(self, edges: Edges) -> dict[str, Any]:
        newest = self._newest
        lag_ns = newest.text_lag_ns if newest else None
        return {
            **self._state.payload(),
            "scores": dict(self._scores),
            "latency_ms": {
                kind: {part: percentiles(values) for part, values in vars(kept).items()}
                for kind, kept in self._latencies.items()
            },
            "text_lag_ms": None if lag_ns is None else round(lag_ns / 1e6),
            "events": dict(self._events),
            "edges": {
                name: {"waiting": len(edge), "passed": edge.passed, "dropped": edge.dropped} for name, edge in edges.items()
            },
        }


class Statistics:
    """A sink of all sessions of a node, which keeps figures instead of showing scores."""

    name = "statistics"

    def __init__(self) -> None:
        """Nothing has happened yet."""
        self._begun_s = time.monotonic()
        self._sessions: dict[str, _SessionStatistics] = {}
        self._edges: dict[str, Edges] = {}
        self._parts: dict[str, Callable[[], dict[str, Any]]] = {}

    def watch(self, session: Watched) -> None:
        """Tell of a session's channels too."""
        self._edges[session.name] = session.edges

    def add(self, part: str, figures: Callable[[], dict[str, Any]]) -> None:
        """Tell what a part of the node, as the connection to a broker, says of itself."""
        self._parts[part] = figures

    async def run(self, info: SessionInfo, outputs: Channel[Output]) -> None:
        """Count until there are no more outputs."""
        session = self._sessions[info.session] = _SessionStatistics(info)
        async for output in outputs:
            session.take(output)
        session.end()

    def snapshot(self) -> dict[str, Any]:
        """All figures of the moment; counts since the start, latencies of the last minute."""
        return {
            "uptime_s": round(time.monotonic() - self._begun_s, 1),
            "gpu_memory_mb": round(torch.cuda.memory_allocated() / 1e6, 1) if torch.cuda.is_initialized() else None,
            **{part: figures() for part, figures in self._parts.items()},
            "sessions": {name: each.snapshot(self._edges.get(name, {})) for name, each in self._sessions.items()},
        }


def percentiles(values: Sequence[float] | deque[float]) -> dict[str, float | None]:
    """The 50th, 95th and 99th percentile, None where there are no values."""
    found = np.percentile(np.array(values), _SHARES) if values else [None] * len(_SHARES)
    return {f"p{share}": None if value is None else round(float(value), 2) for share, value in zip(_SHARES, found, strict=True)}
