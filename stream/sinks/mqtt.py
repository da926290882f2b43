"""MQTT: the topics of docs/mqtt.md, by one client for all sessions of a process.

What a broker that is away cannot take waits here, and nobody waits for it: provisional scores are given up first, final ones
are kept for ten minutes and go out in their order. A broker that is there is waited for, by files.
"""

import asyncio
import json
import logging
import time
from collections.abc import Callable, Mapping
from typing import Any, Self

from stream.broker import Broker
from stream.channel import Channel
from stream.config import MqttConfig
from stream.messages import Event, Output, Score, SessionInfo, Utterance
from stream.mqtt import Incoming, Link
from stream.sinks.discovery import EXPIRES_S, discovery
from stream.sinks.payload import about_session, encode, payload
from stream.sinks.sink import WAITING, provisional_first
from stream.sinks.state import SessionState
from stream.sinks.statistics import Statistics, percentiles

log = logging.getLogger(__name__)

_LOOK_S = 0.01  # between two looks at whether a broker that is there has come on
_LATEST_S = 1.0  # between two of the retained newest scores


class Mqtt:
    """A node on a broker.

    Example:
        async with Mqtt(broker, config.mqtt, "local", about={...}, statistics=statistics) as sink:
            session = Session(..., sinks=[sink], ...)

    Attributes:
        link: The connection.
    """

    name = "mqtt"

    def __init__(
        self,
        broker: Broker,
        config: MqttConfig,
        node: str,
        *,
        about: Mapping[str, Any],
        statistics: Statistics,
        obey: Callable[[str, bytes], dict[str, Any]] | None = None,
    ) -> None:
        """Nothing is connected yet.

        Args:
            broker: Whom to publish to.
            config: What, and under which names.
            node: The name of this node.
            about: What the `info` topic says of it.
            statistics: What the `stats` topic says.
            obey: Does what a command asks, given its verb and payload, and returns the answer; None if there are none.
        """
        self._config, self._node, self._about, self._statistics = config, node, about, statistics
        self._base = f"{config.prefix}/{node}"
        self._obey = obey
        subscribe = [f"{self._base}/cmd/+", f"{self._base}/cmd/record/+"] if obey else []
        if config.home_assistant:
            subscribe.append(f"{config.discovery_prefix}/status")
        self.link = Link(broker, f"{config.prefix}-{node}", f"{self._base}/status", subscribe=subscribe, receive=self._receive)
        self._discovered: dict[str, str] = {}  # Home Assistant's topics and what they hold
        self._waiting: dict[str, Channel[Output]] = {}  # by session
        self._dropped = 0
        self._left: list[str] = []  # topics to be emptied at the end
        self._telling: asyncio.Task[None] | None = None
        statistics.add("mqtt", self._figures)

    async def __aenter__(self) -> Self:
        """Begin to connect, in the background."""
        self._tell("info", self._about)
        await self.link.__aenter__()
        self._telling = asyncio.create_task(self._tell_statistics())
        return self

    async def __aexit__(self, *error: object) -> None:
        """Leave nothing of ended sessions on the broker, and take leave of it."""
        assert self._telling
        self._telling.cancel()
        if self.link.connected:
            await asyncio.sleep(self._config.retain_grace_s)
        for topic in self._left:
            self.link.retain(topic, None)
        self._tell("info", {**self._about, "last_exit": {"at_unix_s": round(time.time(), 3), "reason": _reason(error[1])}})
        await self.link.__aexit__(*error)

    async def run(self, info: SessionInfo, outputs: Channel[Output]) -> None:
        """Publish until there are no more outputs."""
        base, state, latest_s = f"{self._base}/{info.session}", SessionState(info), 0.0
        self._tell_state(info, state)
        self._left += [f"{base}/state", f"{base}/latest"]
        if self._config.home_assistant:
            topic, found = discovery(info, self._config)
            self._discovered[topic] = _json(found)
            self.link.retain(topic, self._discovered[topic])
            if not info.live:  # a file is not a device of the house
                self._left.append(topic)
        waiting = self._waiting[info.session] = Channel[Output](WAITING, provisional_first)
        publishing = asyncio.create_task(self._publish(info, waiting))
        try:
            async for output in outputs:
                if publishing.done():
                    publishing.result()  # which raises
                if state.take(output):
                    self._tell_state(info, state)
                if isinstance(output, Score) and time.monotonic() - latest_s >= _LATEST_S:
                    latest_s = time.monotonic()
                    self.link.retain(f"{base}/latest", _json({**payload(output, info), "expires_s": EXPIRES_S}))
                while self.link.connected and len(waiting) >= WAITING:
                    await asyncio.sleep(_LOOK_S)
                waiting.offer(output)
            waiting.close()
            while self.link.connected and not publishing.done():
                await asyncio.wait({publishing}, timeout=_LOOK_S)
        finally:
            if not publishing.done():
                publishing.cancel()
                why = "not in time" if self.link.connected else "there was no broker"
                log.warning("%d outputs of %s were not published: %s", len(waiting) + 1, info.session, why)
            self._dropped += self._waiting.pop(info.session).dropped
            state.end()
            self._tell_state(info, state)

    async def _publish(self, info: SessionInfo, waiting: Channel[Output]) -> None:
        base = f"{self._base}/{info.session}"
        async for output in waiting:
            match output:
                case Score(kind="provisional"):
                    if self.link.connected:  # else it will be old news
                        await self.link.publish(f"{base}/score", encode(output, info), qos=0)
                    else:
                        self._dropped += 1
                case Score():
                    await self.link.publish(f"{base}/score/final", encode(output, info), qos=1)
                case Utterance():
                    found = payload(output, info)
                    if self._config.publish_text:
                        found["text"] = " ".join(word.text for word in output.words)
                    await self.link.publish(f"{base}/utterance", _json(found), qos=1)
                case Event():
                    await self.link.publish(f"{base}/event", encode(output, info), qos=1)

    async def _receive(self, message: Incoming) -> None:
        """A command, or Home Assistant's birth: it has forgotten what it knew."""
        if message.topic == f"{self._config.discovery_prefix}/status":
            if message.payload == b"online":
                for topic, found in self._discovered.items():
                    self.link.retain(topic, found)
            return
        if message.retained or not self._obey:  # a retained command would be obeyed again at every connection
            return
        verb = message.topic.removeprefix(f"{self._base}/cmd/")
        answer = {"v": 1, "node": self._node, "kind": "result", **self._obey(verb, message.payload)}
        topic, told_by = message.answer_to or ("", None)
        if not topic or set(topic) & set("+#\0"):  # nobody can publish there
            topic = f"{self._base}/cmd/{verb}/result"
        await self.link.publish(topic, _json(answer), qos=1, told_by=told_by)

    def _tell_state(self, info: SessionInfo, state: SessionState) -> None:
        self.link.retain(
            f"{self._base}/{info.session}/state", _json({**about_session(info), "kind": "state", **state.payload()})
        )

    def _tell(self, topic: str, about: Mapping[str, Any]) -> None:
        self.link.retain(f"{self._base}/{topic}", _json({"v": 1, "node": self._node, "kind": topic, **about}))

    async def _tell_statistics(self) -> None:
        while True:
            await asyncio.sleep(self._config.stats_s)
            if self.link.connected:
                text = _json({"v": 1, "node": self._node, "kind": "stats", **self._statistics.snapshot()})
                await self.link.publish(f"{self._base}/stats", text, qos=0, expiry_s=round(3 * self._config.stats_s))

    def _figures(self) -> dict[str, Any]:
        figures = self.link.figures
        return {
            "connected": self.link.connected,
            "connections": figures.connections,
            "published": figures.published,
            "publish_ms": percentiles(figures.publish_ms),
            "dropped": self._dropped + sum(waiting.dropped for waiting in self._waiting.values()),
        }


def _json(found: Mapping[str, Any]) -> str:
    return json.dumps(found, separators=(",", ":"), allow_nan=False)


def _reason(error: object) -> str:
    return "ended" if error is None else "stopped" if isinstance(error, asyncio.CancelledError) else type(error).__name__
