"""The command with a broker and a page: as it starts, is killed, is stopped, and where there is none."""

import json
import os
import signal
import subprocess
import sys
import urllib.request
from typing import Any

import pytest

from tests.conftest import ROOT
from tests.stream.brokers import Mosquitto, free_port, listens, mosquitto, subscriber  # noqa: F401
from tests.stream.wiring import wait_for

DEMO = ("--source", "demo", "--format", "none")


def start(*arguments: str, **environment: str) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "stream.live", *arguments]
    return subprocess.Popen(
        command, cwd=ROOT, env=os.environ | environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def run(*arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    process = start(*arguments, **environment)
    out, errors = process.communicate(timeout=120)
    return subprocess.CompletedProcess(process.args, process.returncode, out, errors)


def test_a_process_that_is_killed_is_offline_by_its_last_will_and_one_that_is_stopped_says_so(
    mosquitto: Mosquitto,  # noqa: F811
) -> None:
    options = (*DEMO, "--mqtt", f"127.0.0.1:{mosquitto.port}", "--set", "mqtt.version=5")
    with subscriber(mosquitto.port, "5") as heard:
        killed = start(*options)
        heard.wait("/score", within_s=60)
        assert heard.heard("/status")[-1].payload == "online"
        killed.send_signal(signal.SIGKILL)
        killed.communicate()
        wait_for(lambda: heard.heard("/status")[-1].payload == "offline")
        assert "last_exit" not in heard.heard("/info")[-1].json
        before = len(heard.heard())

        stopped = start(*options)
        wait_for(lambda: any(each.topic.endswith("/score") for each in heard.heard()[before:]), 60)
        stopped.send_signal(signal.SIGINT)
        stopped.communicate(timeout=20)
        wait_for(lambda: len(heard.heard("/status")) >= 4)
        assert [each.payload for each in heard.heard("/status")] == ["online", "offline", "online", "offline"]
        assert heard.heard("/info")[-1].json["last_exit"]["reason"] == "ended"
        assert heard.heard()[-1].topic.endswith("/status")
        assert stopped.returncode == 0


def test_the_finals_on_the_broker_are_those_on_the_standard_output(mosquitto: Mosquitto) -> None:  # noqa: F811
    with subscriber(mosquitto.port) as heard:
        found = run(
            "--source", "demo", "--format", "jsonl", "--speed", "max", "--mqtt", f"mqtt://127.0.0.1:{mosquitto.port}"
        )  # fmt: skip
        lines = [json.loads(line) for line in found.stdout.splitlines()]
        finals = [line for line in lines if line["kind"] == "final"]
        assert len(finals) == 82
        wait_for(lambda: heard.heard("/status")[-1].payload == "offline")
        assert [each.json for each in heard.heard("/score/final")] == finals


def test_the_embedded_broker_serves_whoever_asks_on_this_machine() -> None:
    process = start(*DEMO, "--speed", "4", "--mqtt", "embedded")
    assert process.stderr
    address = ""
    for line in process.stderr:
        if "embedded broker is at" in line:
            address = line.split("mqtt://")[1].split(",")[0]
            break
    host, port = address.split(":")
    assert host == "127.0.0.1"
    with subscriber(int(port)) as heard:
        heard.wait("/score/final", 5, within_s=60)
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
    assert process.returncode == 0


WRONG: dict[str, tuple[tuple[str, ...], str]] = {
    "address": (("--mqtt", "http://broker"), "error: --mqtt http://broker: expected HOST, HOST:PORT"),
    "secret": (("--mqtt", "mqtt://me:hunter2@broker"), "error: --mqtt: a name or a password in the address would be seen"),
    "prefix": (("--mqtt", "broker", "--set", "mqtt.prefix=a/#"), "error: configuration: mqtt.prefix"),
    "node": (("--mqtt", "broker", "--set", "node=+"), "error: configuration: node"),
    "nobody": ((), "error: --format none: nobody would see anything; add --mqtt BROKER, --dashboard or --record FILE"),
    "required": (("--mqtt-required", "--format", "jsonl"), "error: --mqtt-required and --home-assistant need a broker"),
    "page": (("--dashboard", "8765"), "error: --dashboard 8765: expected HOST:PORT"),
    "token": (("--dashboard", "0.0.0.0:8765"), "error: --dashboard 0.0.0.0:8765: others could see face, voice and words"),
    "key": (("--mqtt", "broker", "--set", "mqtt.cert_file=a.pem"), "error: configuration: mqtt: value error, cert_file and"),
}


@pytest.mark.parametrize("case", WRONG)
def test_bad_input_is_one_line(case: str) -> None:
    arguments, expected = WRONG[case]
    found = run("--source", "demo", "--format", "none", *arguments)
    assert found.returncode == 2
    assert found.stderr.startswith(expected)
    assert found.stderr.count("\n") == 1
    assert "hunter2" not in found.stderr


def about_the_broker(found: "subprocess.CompletedProcess[Any]") -> list[str]:
    return [line for line in found.stderr.splitlines() if "mqtt://" in line]


def test_without_a_broker_the_session_goes_on_and_a_line_says_why() -> None:
    port = free_port()
    found = run("--source", "demo", "--format", "jsonl", "--speed", "8", "--mqtt", f"127.0.0.1:{port}")
    assert found.returncode == 0
    assert found.stdout.count('"kind":"final"') == 82
    (line,) = about_the_broker(found)
    assert line.startswith(f"warning: mqtt://127.0.0.1:{port}: nobody answers at that port; start a broker there")


def test_the_page_is_there_as_long_as_the_session() -> None:
    port = free_port()
    process = start(*DEMO, "--dashboard", f"127.0.0.1:{port}")
    wait_for(lambda: listens(port), 60)
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=10) as answer:
        assert b"<title>mmlatch-live</title>" in answer.read()

    def masks() -> Any:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
            return b'mmlatch_scores_total{kind="final",session="live"}' in answer.read()

    wait_for(masks, 60)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=20)
    assert process.returncode == 0
    assert "Traceback" not in errors
    assert f"the page is at http://127.0.0.1:{port}/" in errors
    assert not listens(port)


def test_a_broker_that_is_required_is_waited_for_once() -> None:
    port = free_port()
    found = run(*DEMO, "--mqtt", f"127.0.0.1:{port}", "--mqtt-required")
    assert found.returncode == 2
    assert "nobody answers at that port" in found.stderr.splitlines()[-1]
    assert "Traceback" not in found.stderr
