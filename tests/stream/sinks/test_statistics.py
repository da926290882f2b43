import asyncio
import json
from pathlib import Path
from types import SimpleNamespace

import jsonschema

import stream.sinks
from stream.channel import Channel, oldest
from stream.messages import Output
from stream.sinks.statistics import Statistics, percentiles
from tests.stream.sinks.test_payload import EVENT, INFO, TIMED, UTTERANCE, score


def test_percentiles_of_nothing_are_unknown() -> None:
    assert percentiles([]) == {"p50": None, "p95": None, "p99": None}
    assert percentiles([1.0, 2.0, 3.0])["p50"] == 2.0


def test_what_has_been_counted() -> None:
    async def scenario() -> None:
        statistics, outputs, edge = Statistics(), Channel[Output](100), Channel[int](1, oldest)
        statistics.watch(SimpleNamespace(name="cam0", edges={"vision": edge}))  # type: ignore[arg-type]
        statistics.add("mqtt", lambda: {"connected": True})
        edge.offer(1)
        edge.offer(2)
        for output in (TIMED, TIMED, score(kind="final"), UTTERANCE, EVENT, EVENT):
            await outputs.put(output)
        running = asyncio.create_task(statistics.run(INFO, outputs))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        found = statistics.snapshot()
        session = found["sessions"]["cam0"]
        assert found["mqtt"] == {"connected": True}
        assert session["state"] == "running"
        assert session["scores"] == {"provisional": 2, "final": 1}
        assert session["latency_ms"]["provisional"]["total"] == {"p50": 212.04, "p95": 212.04, "p99": 212.04}
        assert session["latency_ms"]["final"]["total"]["p50"] is None
        assert session["text_lag_ms"] is None  # that of the newest score
        assert session["events"] == {"dropped vision": 14}
        assert session["edges"] == {"vision": {"waiting": 1, "passed": 2, "dropped": 1}}
        outputs.close()
        await running
        assert statistics.snapshot()["sessions"]["cam0"]["state"] == "ended"

    asyncio.run(scenario())


def test_nothing_at_all_is_a_valid_payload_too() -> None:
    schema = json.loads((Path(stream.sinks.__file__).parent / "schemas" / "stats.json").read_text(encoding="utf-8"))
    found = {"v": 1, "node": "n", "kind": "stats", **Statistics().snapshot()}
    jsonschema.validate(found, schema)
