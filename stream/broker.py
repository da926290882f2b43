"""Where an MQTT broker is, how to speak to it, and what it means if it does not answer."""

import logging
import os
import socket
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

import aiomqtt
from aiomqtt.exceptions import MqttConnectError
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from stream.config import MqttConfig
from stream.errors import UsageError

log = logging.getLogger(__name__)

LARGEST = 16_384  # bytes of an incoming message; what is larger is not looked at
_NO_DELAY = ((socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),)  # small messages are not held back for company
_USERNAME, _PASSWORD = "MMLATCH_MQTT_USERNAME", "MMLATCH_MQTT_PASSWORD"
# Reason codes of MQTT 5, which paho translates those of 3.1.1 into.
_REFUSED = {
    132: "it does not speak this version of MQTT; set mqtt.version to the other one",
    133: "it does not take the client's name",
    134: f"the user name or the password is wrong; set {_USERNAME}, and {_PASSWORD} or mqtt.password_file",
    135: f"this user may not connect; set {_USERNAME}, and {_PASSWORD} or mqtt.password_file, or ask who runs the broker",
    138: "this client is banned; ask who runs the broker",
}


@dataclass(frozen=True)
class Broker:
    """Where a broker is, and how to speak to it.

    Attributes:
        tls: What is trusted, and by which certificate this client is known; None for a connection that is not encrypted.
        version: Of the protocol.
    """

    host: str
    port: int
    tls: ssl.SSLContext | None = None
    version: Literal["3.1.1", "5"] = "3.1.1"
    username: str | None = None
    password: str | None = None
    keepalive_s: int = 30

    def __repr__(self) -> str:
        """Its address, and nothing that is secret."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'mqtts' if self.tls else 'mqtt'}://{host}:{self.port}"


def broker(config: MqttConfig, address: str) -> Broker:
    """The broker at `HOST`, `HOST:PORT`, `mqtt://HOST:PORT` or `mqtts://HOST:PORT`; secrets come from environment or file.

    Raises:
        UsageError: The address is not understood, or a file cannot be read.
    """
    expected = "expected HOST, HOST:PORT, mqtt://HOST:PORT or mqtts://HOST:PORT"
    parts = urlsplit(address if "://" in address else f"mqtt://{address}")
    if "@" in parts.netloc:
        raise UsageError(
            f"--mqtt: a name or a password in the address would be seen by others; set {_USERNAME} and {_PASSWORD}"
        )
    try:
        port = parts.port
    except ValueError:
        port = 0
    if parts.scheme not in ("mqtt", "mqtts") or not parts.hostname or port == 0 or parts.path.strip("/") or parts.query:
        raise UsageError(f"--mqtt {address}: {expected}")
    encrypted = parts.scheme == "mqtts"
    return Broker(
        parts.hostname,
        port or (8883 if encrypted else 1883),
        _tls(config) if encrypted else None,
        config.version,
        os.environ.get(_USERNAME) or config.username,
        os.environ.get(_PASSWORD) or (_secret(config.password_file) if config.password_file else None),
        config.keepalive_s,
    )


def make_client(broker: Broker, name: str, *, timeout_s: float, **options: Any) -> aiomqtt.Client:
    """A client, not connected yet, that the broker is to remember nothing of; see `aiomqtt.Client` for more options."""
    if broker.version == "5":
        properties = Properties(PacketTypes.CONNECT)
        properties.MaximumPacketSize = 2 * LARGEST
        options |= {"protocol": aiomqtt.ProtocolVersion.V5, "clean_start": True, "properties": properties}
    else:
        options |= {"protocol": aiomqtt.ProtocolVersion.V311, "clean_session": True}
    return aiomqtt.Client(
        broker.host,
        broker.port,
        username=broker.username,
        password=broker.password,
        identifier=name,
        timeout=timeout_s,
        keepalive=broker.keepalive_s,
        tls_context=broker.tls,
        socket_options=_NO_DELAY,
        logger=log,
        **options,
    )


def _tls(config: MqttConfig) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=config.ca_file)
    except (OSError, ssl.SSLError) as error:
        raise UsageError(f"mqtt.ca_file {config.ca_file}: {_reason(error)}; expected certificates in PEM") from error
    if config.cert_file:
        try:
            context.load_cert_chain(config.cert_file, config.key_file, password="")
        except (OSError, ssl.SSLError) as error:
            wrong = f"mqtt.cert_file {config.cert_file}, mqtt.key_file {config.key_file}: {_reason(error)}"
            raise UsageError(f"{wrong}; expected a certificate and its key, not encrypted, in PEM") from error
    return context


def _secret(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"mqtt.password_file {path}: {_reason(error)}; expected a file with the password alone") from error


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)


def explain(broker: Broker, error: BaseException) -> str:
    """Why there is no connection, in a line, and what to do."""
    # aiomqtt raises an error of its own "from None"; what it met with is still its context.
    cause = error.__context__ if isinstance(error, aiomqtt.MqttError) and error.__context__ else error
    if isinstance(error, MqttConnectError):
        code = error.rc.value if isinstance(error.rc, ReasonCode) else error.rc
        return f"{broker!r} refuses: {_REFUSED.get(code or 0, str(error))}"
    if isinstance(cause, socket.gaierror):
        return f"{broker!r}: there is no such host; check the name, or whether this machine has a network"
    if isinstance(cause, ConnectionRefusedError):
        return f"{broker!r}: nobody answers at that port; start a broker there, or use --mqtt embedded"
    if isinstance(cause, ssl.SSLCertVerificationError):
        return f"{broker!r}: its certificate is not trusted ({cause.verify_message}); name who signed it with mqtt.ca_file"
    if isinstance(cause, ssl.SSLError):
        return (
            f"{broker!r}: no encrypted connection ({cause.reason or cause}); is that port for TLS? does it want mqtt.cert_file?"
        )
    if isinstance(cause, TimeoutError) or "timed out" in str(error):
        return f"{broker!r} does not answer; check the address, and whether a firewall is between"
    return f"{broker!r}: the connection broke off ({_reason(cause) if isinstance(cause, OSError) else error})"
