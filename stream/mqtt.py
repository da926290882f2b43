"""A connection to an MQTT broker that is kept up: what is retained is published anew after each interruption.

Uses aiomqtt (https://aiomqtt.bo3hm.com), whose client is one connection: what is asked of it while it is down fails, or waits
for its time limit. Here a message waits until the broker has it, over as many connections as that takes.
"""

import asyncio
import contextlib
import logging
import secrets
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Self

import aiomqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from stream.backoff import Backoff
from stream.broker import LARGEST, Broker, explain, make_client

log = logging.getLogger(__name__)

_TIMEOUT_S = 10.0  # for the broker to answer; then the connection is given up
_WAITING = 64  # incoming messages
_LATENCIES = 1000  # that are kept
_LEFT_S = 2.0  # to take leave


@dataclass(frozen=True)
class Incoming:
    """A message that was subscribed to.

    Attributes:
        answer_to: The topic on which the sender wants its answer, and what tells it which that is (MQTT 5); else None.
    """

    topic: str
    payload: bytes
    retained: bool
    answer_to: tuple[str, bytes | None] | None


@dataclass
class Figures:
    """What a link has done so far.

    Attributes:
        connections: How often it has connected.
        published: Messages that were handed over.
        publish_ms: How long the last thousand of quality 1 took to be acknowledged.
        ignored: Incoming messages that were too large to be looked at.
    """

    connections: int = 0
    published: int = 0
    publish_ms: deque[float] = field(default_factory=lambda: deque(maxlen=_LATENCIES))
    ignored: int = 0


class Link:
    """One client of a broker.

    Example:
        async with Link(broker, "sentiment-local", "sentiment/local/status") as link:
            link.retain("sentiment/local/info", "{}")
            await link.publish("sentiment/local/live/score/final", "{}", qos=1)

    Attributes:
        figures: What it has done so far.
    """

    def __init__(
        self,
        broker: Broker,
        client: str,
        status: str,
        *,
        subscribe: Sequence[str] = (),
        receive: Callable[[Incoming], Awaitable[object]] | None = None,
    ) -> None:
        """Nothing is connected yet.

        Args:
            broker: Whom to connect to.
            client: How the client's name begins; random letters follow, since two of one name would throw each other out.
            status: The topic that holds `online` while there is a connection, else `offline`, the client's last will.
            subscribe: To what.
            receive: Is given each message of that, one after the other.
        """
        self._broker, self._status, self._subscribe, self._receive = broker, status, subscribe, receive
        self._name = f"{client}-{secrets.token_hex(4)}"
        self._retained: dict[str, str] = {}
        self._changed: dict[str, None] = {}  # topics, in the order of their changes
        self._some_changed = asyncio.Event()
        self._client: aiomqtt.Client | None = None
        self._up = asyncio.Event()
        self._lost: asyncio.Future[None] | None = None  # of the present connection: fails when something asked of it does
        self._tried = asyncio.Event()
        self._failure: str | None = None
        self._running: asyncio.Task[None] | None = None
        self.figures = Figures()

    async def __aenter__(self) -> Self:
        """Begin to connect, in the background."""
        self._running = asyncio.create_task(self._run())
        return self

    async def __aexit__(self, *_: object) -> None:
        """Take leave, if there is a connection: what is retained is handed over, then `offline`."""
        assert self._running
        if self._client and self._up.is_set():
            with contextlib.suppress(TimeoutError, aiomqtt.MqttError):
                async with asyncio.timeout(_LEFT_S):
                    await self._hand_over(self._client)
                    await self._client.publish(self._status, "offline", 1, retain=True)
        self._running.cancel()
        await asyncio.wait({self._running}, timeout=_LEFT_S)

    @property
    def connected(self) -> bool:
        """Whether there is a connection now."""
        return self._up.is_set()

    async def first_failure(self) -> str | None:
        """Wait for the first attempt to connect; why it failed, or None."""
        await self._tried.wait()
        return self._failure

    def retain(self, topic: str, payload: str | None) -> None:
        """Let a topic hold a payload from now on, over all connections to come; None removes it."""
        if payload is None:
            self._retained.pop(topic, None)
        else:
            self._retained[topic] = payload
        self._changed[topic] = None
        self._some_changed.set()

    async def publish(
        self,
        topic: str,
        payload: str,
        *,
        qos: Literal[0, 1],
        expiry_s: int | None = None,
        told_by: bytes | None = None,
    ) -> None:
        """Hand a message over: wait for a connection and, with quality 1, for the acknowledgement, until there is one.

        With quality 1 a message comes at least once: twice if the connection broke just before its acknowledgement.

        Args:
            topic: Where to.
            payload: What.
            qos: The quality.
            expiry_s: After how many seconds the broker may forget it (MQTT 5).
            told_by: What tells the receiver which question this answers (MQTT 5).
        """
        properties = None
        if self._broker.version == "5":
            properties = Properties(PacketTypes.PUBLISH)
            if expiry_s is not None:
                properties.MessageExpiryInterval = expiry_s
            if told_by is not None:
                properties.CorrelationData = told_by
        while True:
            await self._up.wait()
            client = self._client
            assert client
            begun_s = time.monotonic()
            try:
                await self._unless_lost(client.publish(topic, payload, qos, properties=properties))
            except aiomqtt.MqttError as error:
                self._give_up(client, error)
                continue
            self.figures.published += 1
            if qos:
                self.figures.publish_ms.append(1e3 * (time.monotonic() - begun_s))
            return

    # --- the connection

    async def _run(self) -> None:
        backoff, told = Backoff(), False
        while True:
            try:
                async with self._connection() as client:
                    self._failure = None
                    self._tried.set()
                    if told:
                        log.warning("%r is back", self._broker)
                    told = False
                    backoff.reset()
                    await self._serve(client)
            except Exception as error:
                log.debug("%r", self._broker, exc_info=error)
                self._failure = explain(self._broker, error)
                self._tried.set()
                log.log(logging.DEBUG if told else logging.WARNING, "%s; trying again", self._failure)
                told = True
            await asyncio.sleep(backoff.next_s())

    @contextlib.asynccontextmanager
    async def _connection(self) -> AsyncIterator[aiomqtt.Client]:
        """Connect, publish all that is retained and then, last of all, that this client is online."""
        client = make_client(
            self._broker,
            self._name,
            timeout_s=_TIMEOUT_S,
            will=aiomqtt.Will(self._status, "offline", 1, retain=True),
            max_queued_incoming_messages=_WAITING,
        )
        client.pending_calls_threshold = 1000  # each session waits for an acknowledgement of its own
        async with client:
            for topic in self._subscribe:
                await client.subscribe(topic, 1)
            self._changed = dict.fromkeys([*self._retained, *self._changed])
            await self._hand_over(client)
            await client.publish(self._status, "online", 1, retain=True)
            self.figures.connections += 1
            self._client, self._lost = client, asyncio.get_running_loop().create_future()
            self._up.set()
            try:
                yield client
            finally:
                self._up.clear()
                self._client = None
                if not self._lost.done():
                    self._lost.set_exception(aiomqtt.MqttError("the connection is lost"))
                self._lost.exception()  # whoever waits for it or not

    async def _serve(self, client: aiomqtt.Client) -> None:
        """Listen and keep what is retained up to date, until the connection is lost."""
        assert self._lost
        tasks = {asyncio.ensure_future(each) for each in (self._listen(client), self._keep_retained(client))}
        try:
            done, _ = await asyncio.wait({*tasks, self._lost}, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _listen(self, client: aiomqtt.Client) -> None:
        async for message in client.messages:
            payload = message.payload if isinstance(message.payload, bytes) else str(message.payload).encode()
            if len(payload) > LARGEST:
                self.figures.ignored += 1
            elif self._receive:
                answer_to = getattr(message.properties, "ResponseTopic", None)
                told_by = getattr(message.properties, "CorrelationData", None)
                await self._receive(
                    Incoming(str(message.topic), payload, message.retain, (answer_to, told_by) if answer_to else None)
                )

    async def _keep_retained(self, client: aiomqtt.Client) -> None:
        while True:
            await self._some_changed.wait()
            await self._hand_over(client)

    async def _hand_over(self, client: aiomqtt.Client) -> None:
        """Publish what has changed of what is retained."""
        self._some_changed.clear()
        while self._changed:
            topic = next(iter(self._changed))
            del self._changed[topic]  # first: what changes meanwhile is published again
            try:
                await client.publish(topic, self._retained.get(topic, ""), 1, retain=True)
            except BaseException:
                self._changed.setdefault(topic)
                raise

    async def _unless_lost(self, asked: Coroutine[Any, Any, None]) -> None:
        """Wait for the answer, but no longer than there is a connection on which it could come."""
        assert self._lost
        attempt = asyncio.ensure_future(asked)
        try:
            await asyncio.wait({attempt, self._lost}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            attempt.cancel()
        if not attempt.done() or attempt.cancelled():
            raise aiomqtt.MqttError("the connection is lost")
        attempt.result()

    def _give_up(self, client: aiomqtt.Client, error: aiomqtt.MqttError) -> None:
        """Something that was asked of a connection has failed: it is lost, if it is still the present one."""
        if client is self._client:
            self._up.clear()
            if self._lost and not self._lost.done():
                self._lost.set_exception(error)
