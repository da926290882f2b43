"""A broker inside this process, for who has none: amqtt (https://amqtt.readthedocs.io), MQTT 3.1.1, on this machine alone."""

import contextlib
import logging
import socket
from collections.abc import AsyncIterator

from amqtt.broker import Broker as AmqttBroker

from stream.broker import Broker

log = logging.getLogger(__name__)

_HOST, _PORT = "127.0.0.1", 1883
_CONNECTIONS = 100


@contextlib.asynccontextmanager
async def embedded_broker() -> AsyncIterator[Broker]:
    """Run one at the usual port, or at any where that is taken; its address is logged."""
    logging.getLogger("amqtt").setLevel(logging.ERROR)  # it warns of every client that leaves without a word
    logging.getLogger("transitions").setLevel(logging.ERROR)
    port = _free_port()
    running = AmqttBroker(
        {
            "listeners": {"default": {"type": "tcp", "bind": f"{_HOST}:{port}", "max_connections": _CONNECTIONS}},
            "plugins": {"amqtt.plugins.authentication.AnonymousAuthPlugin": {"allow_anonymous": True}},
        }
    )
    await running.start()
    log.warning("the embedded broker is at mqtt://%s:%d, for programs on this machine", _HOST, port)
    try:
        yield Broker(_HOST, port)
    finally:
        with contextlib.suppress(Exception):  # it is of no more use whatever becomes of it
            await running.shutdown()


def _free_port() -> int:
    for port in (_PORT, 0):
        with contextlib.suppress(OSError), socket.create_server((_HOST, port)) as found:
            return int(found.getsockname()[1])
    raise OSError("no port is free")
