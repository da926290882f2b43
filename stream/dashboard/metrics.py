"""The node's statistics as Prometheus wants them (https://prometheus.github.io/client_python)."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric

_STATES = ("starting", "running", "degraded", "paused", "ended")


class Metrics:
    """Reads the statistics whenever it is asked."""

    def __init__(self, figures: Callable[[], Mapping[str, Any]]) -> None:
        """Tell of `figures`, as `Statistics.snapshot` gives them."""
        self._figures = figures
        self._registry = CollectorRegistry()
        self._registry.register(self)

    def text(self) -> tuple[str, bytes]:
        """The content type and the text."""
        return CONTENT_TYPE_LATEST, generate_latest(self._registry)

    def collect(self) -> Iterator[Metric]:
        """All metrics; the library calls this."""
        found = self._figures()
        yield GaugeMetricFamily("mmlatch_uptime_seconds", "Since the node has started", found["uptime_s"])
        if found["gpu_memory_mb"] is not None:
            yield GaugeMetricFamily("mmlatch_gpu_memory_bytes", "Taken on the GPU", 1e6 * found["gpu_memory_mb"])
        if mqtt := found.get("mqtt"):
            yield GaugeMetricFamily("mmlatch_mqtt_connected", "Whether there is a broker", float(mqtt["connected"]))
            for name, what in (("connections", "Made"), ("published", "Messages"), ("dropped", "Messages given up")):
                yield CounterMetricFamily(f"mmlatch_mqtt_{name}", what, mqtt[name])
            yield _quantiles("mmlatch_mqtt_publish_seconds", "Until acknowledged", [], [([], mqtt["publish_ms"])])
        sessions: Mapping[str, Any] = found["sessions"]
        state = GaugeMetricFamily("mmlatch_session_state", "1 for the state that it is in", labels=["session", "state"])
        scores = CounterMetricFamily("mmlatch_scores", "Given", labels=["session", "kind"])
        events = CounterMetricFamily("mmlatch_events", "What happened", labels=["session", "event", "part"])
        waiting = GaugeMetricFamily("mmlatch_edge_waiting", "Before a part", labels=["session", "edge"])
        passed = CounterMetricFamily("mmlatch_edge_passed", "To a part", labels=["session", "edge"])
        dropped = CounterMetricFamily("mmlatch_edge_dropped", "Given up before a part", labels=["session", "edge"])
        lag = GaugeMetricFamily("mmlatch_text_lag_seconds", "How far words are behind", labels=["session"])
        latencies = []
        for name, session in sessions.items():
            for each in _STATES:
                state.add_metric([name, each], float(session["state"] == each))
            for kind, count in session["scores"].items():
                scores.add_metric([name, kind], count)
                for part, values in session["latency_ms"][kind].items():
                    latencies.append(([name, kind, part], values))
            for event, count in session["events"].items():
                events.add_metric([name, *event.split(" ", 1)], count)
            for edge, counts in session["edges"].items():
                waiting.add_metric([name, edge], counts["waiting"])
                passed.add_metric([name, edge], counts["passed"])
                dropped.add_metric([name, edge], counts["dropped"])
            if session["text_lag_ms"] is not None:
                lag.add_metric([name], session["text_lag_ms"] / 1e3)
        yield from (state, scores, events, waiting, passed, dropped, lag)
        yield _quantiles("mmlatch_latency_seconds", "Of scores, of the last minute", ["session", "kind", "part"], latencies)


def _quantiles(name: str, about: str, labels: list[str], found: list[tuple[list[str], Mapping[str, float | None]]]) -> Metric:
    metric = GaugeMetricFamily(name, about, labels=[*labels, "quantile"])
    for values, percentiles in found:
        for share, value in percentiles.items():
            if value is not None:
                metric.add_metric([*values, f"0.{share[1:]}"], value / 1e3)
    return metric
