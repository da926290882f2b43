"""Addresses, secrets and what a broker that does not answer is said to be: one line, and what to do."""

import asyncio
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from stream.broker import Broker, broker
from stream.config import MqttConfig
from stream.errors import UsageError
from stream.mqtt import Link
from tests.stream.brokers import Mosquitto, free_port, needs_mosquitto

needs_openssl = pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")


@pytest.mark.parametrize(
    ("address", "host", "port", "tls"),
    [
        ("broker", "broker", 1883, False),
        ("broker:1884", "broker", 1884, False),
        ("mqtt://broker", "broker", 1883, False),
        ("mqtts://broker", "broker", 8883, True),
        ("mqtts://broker:1", "broker", 1, True),
        ("[::1]:1884", "::1", 1884, False),
    ],
)
def test_an_address(address: str, host: str, port: int, tls: bool) -> None:
    found = broker(MqttConfig(), address)
    assert (found.host, found.port, found.tls is not None) == (host, port, tls)


@pytest.mark.parametrize(
    "address", ["", ":1883", "broker:0", "broker:x", "broker:70000", "http://broker", "broker/topic", "broker?x=1"]
)
def test_an_address_that_is_none(address: str) -> None:
    with pytest.raises(UsageError, match="expected HOST, HOST:PORT"):
        broker(MqttConfig(), address)


def test_a_password_in_the_address_is_refused_and_not_repeated() -> None:
    with pytest.raises(UsageError, match="MMLATCH_MQTT_PASSWORD") as raised:
        broker(MqttConfig(), "mqtt://me:hunter2@broker")
    assert "hunter2" not in str(raised.value)


def test_a_password_comes_from_a_file_or_rather_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    secret = tmp_path / "password"
    secret.write_text("hunter2\n")
    config = MqttConfig(username="me", password_file=secret)
    found = broker(config, "broker")
    assert (found.username, found.password) == ("me", "hunter2")
    assert "hunter2" not in repr(found)
    monkeypatch.setenv("MMLATCH_MQTT_USERNAME", "you")
    monkeypatch.setenv("MMLATCH_MQTT_PASSWORD", "sesame")
    found = broker(config, "broker")
    assert (found.username, found.password) == ("you", "sesame")


@pytest.mark.parametrize(
    ("key", "given"), [("password_file", {}), ("ca_file", {}), ("cert_file", {"key_file": Path("no.key")})]
)
def test_a_file_that_is_not_there_is_named(key: str, given: dict[str, Path]) -> None:
    with pytest.raises(UsageError, match=rf"mqtt\.{key} no\.such"):
        broker(MqttConfig.model_validate({key: Path("no.such"), **given}), "mqtts://broker")


def test_a_certificate_comes_with_its_key() -> None:
    for given in ({"cert_file": "a.pem"}, {"key_file": "a.key"}):
        with pytest.raises(ValueError, match="cert_file and key_file"):
            MqttConfig.model_validate(given)


# --- brokers that do not answer


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a connection that is hung up on before the broker has answered, the client hears nothing."""
    monkeypatch.setattr("stream.mqtt._TIMEOUT_S", 1.5)


def failure(target: Broker) -> str | None:
    async def scenario() -> str | None:
        async with Link(target, "test", "test/status") as link:
            return await asyncio.wait_for(link.first_failure(), 20)

    return asyncio.run(scenario())


def test_a_host_that_is_none_and_a_port_where_nobody_is() -> None:
    assert "there is no such host" in str(failure(Broker("nosuch.invalid", 1883)))
    assert "nobody answers at that port; start a broker there, or use --mqtt embedded" in str(
        failure(Broker("127.0.0.1", free_port()))
    )


def test_a_port_that_hangs_up() -> None:
    async def scenario() -> str | None:
        async def hang_up(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.close()

        server = await asyncio.start_server(hang_up, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        async with server, Link(Broker("127.0.0.1", port), "test", "test/status") as link:
            return await asyncio.wait_for(link.first_failure(), 20)

    assert asyncio.run(scenario())


@needs_mosquitto
@pytest.mark.parametrize("version", ["3.1.1", "5"])
def test_a_wrong_password(tmp_path: Path, version: str) -> None:
    passwords = tmp_path / "passwords"
    tool = shutil.which("mosquitto_passwd") or "/usr/bin/mosquitto_passwd"
    subprocess.run([tool, "-b", "-c", str(passwords), "me", "sesame"], check=True, capture_output=True)
    passwords.chmod(0o644)
    server = Mosquitto(tmp_path, f"password_file {passwords}", "allow_anonymous false")
    try:
        for password, expected in (("sesame", None), ("wrong", "MMLATCH_MQTT_PASSWORD or mqtt.password_file")):
            found = failure(Broker("127.0.0.1", server.port, version=version, username="me", password=password))  # type: ignore[arg-type]
            assert found is None if expected is None else expected in str(found)
            assert "wrong" not in str(found).replace("is wrong", "")
    finally:
        server.kill()


@pytest.fixture
def certificates(tmp_path: Path) -> Path:
    """An authority, a server's certificate and a client's, and another authority."""

    def run(*arguments: str) -> None:
        subprocess.run(["openssl", *arguments], check=True, capture_output=True, cwd=tmp_path)

    for name in ("ca", "other"):
        run(*f"req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN={name} -keyout {name}.key -out {name}.pem".split())
    for name in ("server", "client"):
        (tmp_path / f"{name}.ext").write_text("subjectAltName=IP:127.0.0.1,DNS:localhost\n")
        run(*f"req -newkey rsa:2048 -nodes -subj /CN={name} -keyout {name}.key -out {name}.csr".split())
        signed = f"x509 -req -in {name}.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -out {name}.pem"
        run(*signed.split(), "-extfile", f"{name}.ext")
    for file in tmp_path.iterdir():
        file.chmod(0o644)
    tmp_path.chmod(0o755)
    return tmp_path


@pytest.fixture
def encrypted(certificates: Path) -> Iterator[Mosquitto]:
    files = (f"cafile {certificates}/ca.pem", f"certfile {certificates}/server.pem", f"keyfile {certificates}/server.key")
    server = Mosquitto(certificates, *files, "require_certificate true", "allow_anonymous true")
    yield server
    server.kill()


@needs_mosquitto
@needs_openssl
def test_encryption_with_certificates_on_both_sides(encrypted: Mosquitto, certificates: Path) -> None:
    address = f"mqtts://127.0.0.1:{encrypted.port}"
    own = {"cert_file": certificates / "client.pem", "key_file": certificates / "client.key"}
    assert failure(broker(MqttConfig(ca_file=certificates / "ca.pem", **own), address)) is None
    wrong = failure(broker(MqttConfig(ca_file=certificates / "other.pem", **own), address))
    assert "its certificate is not trusted" in str(wrong)
    assert "mqtt.ca_file" in str(wrong)
    assert failure(broker(MqttConfig(ca_file=certificates / "ca.pem"), address))  # without a certificate of its own
    assert failure(Broker("127.0.0.1", encrypted.port))  # without encryption


def test_a_broker_that_accepts_and_says_nothing() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        found = failure(Broker("127.0.0.1", server.getsockname()[1]))
    assert "does not answer" in str(found)
