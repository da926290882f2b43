"""The contract as a subscriber sees it: a real broker, and another process that listens."""

import asyncio
import contextlib
import dataclasses
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest

import stream.sinks
from stream.broker import Broker, make_client
from stream.channel import Channel
from stream.config import MqttConfig
from stream.messages import Event, Output, Score, SessionInfo
from stream.mqtt import Backoff
from stream.sinks.mqtt import Mqtt
from stream.sinks.payload import payload
from stream.sinks.sink import WAITING, provisional_first
from stream.sinks.statistics import Statistics
from tests.stream.brokers import Mosquitto, Received, mosquitto, subscriber  # noqa: F401
from tests.stream.sinks.test_payload import EVENT, INFO, UTTERANCE, score
from tests.stream.wiring import until

VERSIONS = ("3.1.1", "5")
LIVE = dataclasses.replace(INFO, live=True)
ABOUT = {
    "version": "0", "commit": None, "python": "3", "torch": "2", "config": "c", "model": "m", "trained_on": [], "contracts": {},
    "device": "cpu", "started_at_unix_s": 0.0, "sessions": {},
}  # fmt: skip
SCHEMAS = {
    path.stem: json.loads(path.read_text(encoding="utf-8"))
    for path in (Path(stream.sinks.__file__).parent / "schemas").glob("*.json")
}
BASE = "sentiment/lab-1"


def window(seq: int, kind: str = "final") -> Score:
    return score(kind=kind, seq=seq, t_start_ns=seq * 250_000_000, t_end_ns=(seq + 1) * 250_000_000)


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stream.mqtt.Backoff", lambda: Backoff(0.2, 0.4))


class Node:
    """A sink at work, and the channel of its one session."""

    def __init__(self, sink: Mqtt, info: SessionInfo) -> None:
        self.sink, self.outputs = sink, Channel[Output](WAITING, provisional_first)
        self._running = asyncio.create_task(sink.run(info, self.outputs))

    def put(self, *outputs: Output) -> None:
        for output in outputs:
            self.outputs.offer(output)

    async def end(self) -> None:
        self.outputs.close()
        await asyncio.wait_for(self._running, 20)


@contextlib.asynccontextmanager
async def node(
    port: int, version: str = "3.1.1", info: SessionInfo = LIVE, obey: Any = None, **options: Any
) -> AsyncIterator[Node]:
    config = MqttConfig(version=version, retain_grace_s=0.1, stats_s=1.0, **options)  # type: ignore[arg-type]
    target = Broker("127.0.0.1", port, version=config.version)
    sink = Mqtt(target, config, info.node, about=ABOUT, statistics=Statistics(), obey=obey)
    async with sink:
        found = Node(sink, info)
        try:
            yield found
        finally:
            await found.end()


def valid(message: Received) -> None:
    """Whether a payload is what its schema says, and no less strict than JSON is."""

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    found = json.loads(message.payload, parse_constant=refuse)
    kind = {"provisional": "score", "final": "score"}.get(found["kind"], found["kind"])
    jsonschema.validate(found, SCHEMAS[kind])


@pytest.mark.parametrize("version", VERSIONS)
def test_what_is_retained_comes_first_and_online_last_of_all(mosquitto: Mosquitto, version: str) -> None:  # noqa: F811
    async def scenario() -> None:
        with subscriber(mosquitto.port, version) as heard:
            async with node(mosquitto.port, version, home_assistant=True) as live:
                await until(lambda: heard.heard("/status"))
                first = [each.topic for each in heard.heard()]
                assert first[0] == f"{BASE}/info"
                assert first[-1] == f"{BASE}/status"
                assert set(first) == {
                    f"{BASE}/info",
                    f"{BASE}/cam0/state",
                    "homeassistant/device/lab-1_cam0/config",
                    f"{BASE}/status",
                }
                live.put(window(0, "provisional"), window(0))
                await until(lambda: heard.heard("/score/final") and heard.heard("/latest") and heard.heard("/stats"))
                # Who comes later finds all that is retained, and none of the rest.
                with subscriber(mosquitto.port, version) as late:
                    await until(lambda: len(late.heard()) >= 5)
                    assert {each.topic for each in late.heard() if each.retain} == {*first, f"{BASE}/cam0/latest"}
                assert json.loads(late.heard("/state")[0].payload)["state"] == "running"

    asyncio.run(scenario())


@pytest.mark.parametrize("version", VERSIONS)
def test_each_output_has_its_topic_its_quality_and_a_payload_that_its_schema_allows(mosquitto: Mosquitto, version: str) -> None:  # noqa: F811
    async def scenario() -> None:
        with subscriber(mosquitto.port, version) as heard:
            async with node(mosquitto.port, version) as live:
                await until(lambda: heard.heard("/status"))
                live.put(window(0, "provisional"), window(0), UTTERANCE, EVENT)
                await until(lambda: heard.heard("/event") and heard.heard("/stats"))
        found = {each.topic.removeprefix(f"{BASE}/"): each for each in heard.heard()}
        qos = {"cam0/score": 0, "cam0/score/final": 1, "cam0/utterance": 1, "cam0/event": 1, "stats": 0}
        assert {topic: found[topic].qos for topic in qos} == qos
        assert "text" not in found["cam0/utterance"].json
        for each in heard.heard():
            if each.payload and not each.topic.endswith("/status"):
                valid(each)
        if version == "5":
            assert found["stats"].properties["MessageExpiryInterval"] == 3

    asyncio.run(scenario())


def test_every_schema_is_one_and_refuses_what_is_not() -> None:
    assert set(SCHEMAS) == {"score", "utterance", "event", "state", "info", "stats", "result"}
    for schema in SCHEMAS.values():
        jsonschema.Draft202012Validator.check_schema(schema)
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate({"v": 2}, schema)


def test_consumers_may_be_told_more_one_day() -> None:
    found = payload(window(0), INFO)
    jsonschema.validate(found | {"something_new": [1]}, SCHEMAS["score"])
    for wrong in ({"sentiment": 3.5}, {"kind": "guess"}, {"seq": -1}, {"class7": 0.5}, {"session": "a/b"}):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(found | wrong, SCHEMAS["score"])


def test_words_are_published_only_if_that_is_asked_for(mosquitto: Mosquitto) -> None:  # noqa: F811
    async def scenario() -> None:
        with subscriber(mosquitto.port) as heard:
            async with node(mosquitto.port, publish_text=True) as live:
                live.put(UTTERANCE)
                await until(lambda: heard.heard("/utterance"))
        (found,) = heard.heard("/utterance")
        assert found.json["text"] == "so what"
        valid(found)

    asyncio.run(scenario())


@pytest.mark.parametrize("info", [LIVE, INFO], ids=["devices", "file"])
def test_a_clean_end_leaves_only_what_says_so(mosquitto: Mosquitto, info: SessionInfo) -> None:  # noqa: F811
    async def scenario() -> None:
        with subscriber(mosquitto.port) as heard:
            async with node(mosquitto.port, info=info, home_assistant=True) as live:
                live.put(window(0))
                await until(lambda: heard.heard("/latest"))
            await until(lambda: heard.heard("/status")[-1].payload == "offline")
            states = [each.payload and each.json["state"] for each in heard.heard("/state")]
            assert states[-2:] == ["ended", ""]
            assert heard.heard()[-1].topic.endswith("/status")
            with subscriber(mosquitto.port) as late:
                await until(lambda: len(late.heard()) >= 2 + info.live)
                kept = {each.topic: each for each in late.heard()}
        discovered = {"homeassistant/device/lab-1_cam0/config"} if info.live else set()
        assert set(kept) == {f"{BASE}/status", f"{BASE}/info"} | discovered
        assert kept[f"{BASE}/info"].json["last_exit"]["reason"] == "ended"
        valid(kept[f"{BASE}/info"])

    asyncio.run(scenario())


@pytest.mark.parametrize("version", VERSIONS)
def test_a_broker_that_was_killed_gets_every_final_once_and_in_order_when_it_is_back(
    mosquitto: Mosquitto,  # noqa: F811
    version: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    away = False

    def client(*given: Any, **options: Any) -> Any:
        if away:
            raise ConnectionRefusedError
        return make_client(*given, **options)

    monkeypatch.setattr("stream.mqtt.make_client", client)

    async def scenario() -> None:
        nonlocal away
        with subscriber(mosquitto.port, version) as heard:
            async with node(mosquitto.port, version, home_assistant=True) as live:
                await until(lambda: heard.heard("/status"))
                seq = 0

                async def go_on(windows: int) -> None:
                    nonlocal seq
                    for _ in range(windows):
                        live.put(window(seq, "provisional"), window(seq))
                        seq += 1
                        await asyncio.sleep(0.01)

                await go_on(20)
                await until(lambda: len(heard.heard("/score/final")) == 20)  # what a broker takes to its grave is nobody's
                mosquitto.kill()
                away = True
                await go_on(150)
                assert not live.outputs  # nobody waits for it
                mosquitto.start()
                await until(lambda: heard.subscribed == 2)  # or it could not hear all
                away = False
                await go_on(20)
                await until(lambda: len(heard.heard("/score/final")) >= seq)
                assert [each.json["seq"] for each in heard.heard("/score/final")] == list(range(seq))
                figures = live.sink._figures()
                assert figures["connections"] == 2
                # Of quality 0: what was on its way when the broker died is counted by nobody.
                assert 100 <= figures["dropped"] <= seq - len(heard.heard("/score")) <= figures["dropped"] + 3
                # What a broker without a memory has lost is there again, and online is said last of it.
                back = [each.topic for each in heard.heard() if each.topic.endswith(("/status", "/info", "/config"))][-3:]
                assert back[-1] == f"{BASE}/status"
                assert {f"{BASE}/info", "homeassistant/device/lab-1_cam0/config"} == set(back[:2])

    asyncio.run(scenario())


def test_home_assistant_that_was_restarted_is_told_again(mosquitto: Mosquitto) -> None:  # noqa: F811
    async def scenario() -> None:
        with subscriber(mosquitto.port) as heard:
            async with node(mosquitto.port, home_assistant=True) as live:
                await until(lambda: heard.heard("/config") and heard.heard("lab-1/status"))
                await live.sink.link.publish("homeassistant/status", "online", qos=1)
                await until(lambda: len(heard.heard("/config")) == 2)
        one, two = heard.heard("/config")
        assert one.json == two.json
        score_sensor = one.json["components"]["score"]
        assert score_sensor["state_topic"] == f"{BASE}/cam0/latest"
        assert score_sensor["expire_after"] > 0
        for component in one.json["components"].values():
            assert component["platform"]
            assert component["unique_id"].startswith("lab-1_cam0")

    asyncio.run(scenario())


class Asked:
    def __init__(self) -> None:
        self.commands: list[tuple[str, bytes]] = []

    def __call__(self, verb: str, payload: bytes) -> dict[str, Any]:
        self.commands.append((verb, payload))
        return {"id": 7, "verb": verb, "ok": True, "sessions": ["cam0"]}


@pytest.mark.parametrize("version", VERSIONS)
def test_a_command_is_obeyed_and_answered_a_retained_one_ignored_and_a_huge_one_not_looked_at(
    mosquitto: Mosquitto,  # noqa: F811
    version: str,
) -> None:
    async def scenario() -> None:
        asked = Asked()
        async with node(mosquitto.port, version) as other:
            with subscriber(mosquitto.port, version) as heard:
                other.sink.link.retain(f"{BASE}/cmd/pause", "{}")
                await until(lambda: heard.heard("/pause"))
                async with node(mosquitto.port, version, obey=asked) as live:
                    await until(lambda: live.sink.link.connected)
                    await other.sink.link.publish(f"{BASE}/cmd/mark", "x" * 20_000, qos=1)
                    await other.sink.link.publish(f"{BASE}/cmd/reset", "{}", qos=1)
                    await until(lambda: heard.heard("/result"))
                    assert asked.commands == [("reset", b"{}")]
                    if version == "3.1.1":
                        assert live.sink.link.figures.ignored == 1
                (answer,) = heard.heard("/result")
                assert answer.topic == f"{BASE}/cmd/reset/result"
                valid(answer)

    asyncio.run(scenario())


def test_without_leave_no_command_is_listened_to(mosquitto: Mosquitto) -> None:  # noqa: F811
    async def scenario() -> None:
        with subscriber(mosquitto.port) as heard:
            async with node(mosquitto.port) as live:
                await until(lambda: live.sink.link.connected)
                await live.sink.link.publish(f"{BASE}/cmd/reset", "{}", qos=1)
                live.put(Event(0, "marked", "session", "after it"))
                await until(lambda: heard.heard("/event"))
                assert not heard.heard("/result")

    asyncio.run(scenario())
