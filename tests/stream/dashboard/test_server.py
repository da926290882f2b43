"""The server as clients meet it: over real sockets, with many pages, and with one that never reads."""

import asyncio
import contextlib
import json
import socket
import urllib.error
import urllib.request
from collections.abc import AsyncIterator
from typing import Any

import numpy as np
import pytest
import websockets

from stream.channel import Channel
from stream.dashboard import server
from stream.dashboard.access import Address
from stream.dashboard.sink import Dashboard
from stream.errors import UsageError
from stream.messages import Output, SessionInfo
from stream.sinks.statistics import Statistics
from tests.stream.brokers import free_port
from tests.stream.dashboard.test_history import INFO, window
from tests.stream.sinks.test_payload import EVENT, UTTERANCE
from tests.stream.wiring import until


class Shown:
    """A page that is served, and the channel of its one session."""

    def __init__(self, sink: Dashboard, info: SessionInfo) -> None:
        self.sink, self.port = sink, sink.address.port
        self.outputs: Channel[Output] = Channel(64)
        self._running = asyncio.create_task(sink.run(info, self.outputs))

    async def get(self, path: str, **headers: str) -> tuple[int, bytes, dict[str, str]]:
        def ask() -> tuple[int, bytes, dict[str, str]]:
            request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", headers=headers)
            try:
                with urllib.request.urlopen(request, timeout=10) as answer:
                    return answer.status, answer.read(), dict(answer.headers)
            except urllib.error.HTTPError as error:
                return error.code, error.read(), dict(error.headers)

        return await asyncio.to_thread(ask)

    def listen(self) -> Any:
        return websockets.connect(f"ws://127.0.0.1:{self.port}/live", max_size=None)

    async def end(self) -> None:
        self.outputs.close()
        await self._running


@contextlib.asynccontextmanager
async def shown(*, pictures: bool = False) -> AsyncIterator[Shown]:
    async with Dashboard(Address("127.0.0.1", free_port(), None), Statistics(), pictures=pictures) as sink:
        found = Shown(sink, INFO)
        await asyncio.sleep(0)
        try:
            yield found
        finally:
            await found.end()


async def read(page: Any, kind: str) -> dict[str, Any]:
    """The next message of a kind."""
    while True:
        message = json.loads(await asyncio.wait_for(page.recv(), 10))
        if message["type"] == kind:
            return message


def test_the_page_and_all_it_needs_come_from_here() -> None:
    async def scenario() -> None:
        async with shown() as page:
            for path, kind in (
                ("/", "text/html"),
                ("/page.js", "javascript"),
                ("/style.css", "text/css"),
                ("/plotly.js", "java"),
            ):
                status, body, headers = await page.get(path)
                assert status == 200
                assert kind in headers["content-type"]
                assert body
                assert "default-src 'self'" in headers["content-security-policy"]
            _, text, _ = await page.get("/")
            assert b"http://" not in text
            assert b"https://" not in text
            assert (await page.get("/nothing"))[0] == 404
            assert (await page.get("/", Host="evil.example"))[0] == 401

    asyncio.run(scenario())


def test_who_comes_is_told_what_was_and_then_what_is() -> None:
    async def scenario() -> None:
        async with shown() as page:
            await page.outputs.put(window(0))
            async with page.listen() as one:
                assert (await read(one, "node"))["picture"] is False
                assert [each["seq"] for each in (await read(one, "session"))["scores"]] in ([], [0])
                await page.outputs.put(window(1, -0.5))
                await page.outputs.put(UTTERANCE)
                await page.outputs.put(EVENT)
                while (score := await read(one, "score"))["seq"] != 1:
                    pass
                assert score["sentiment"] == -0.5
                assert (await read(one, "utterance"))["text"] == "so what"
                assert (await read(one, "event"))["event"] == "dropped"
                page.outputs.close()
                while (await read(one, "state"))["state"] != "ended":
                    pass

    asyncio.run(scenario())


def test_the_summary_can_be_downloaded() -> None:
    async def scenario() -> None:
        async with shown() as page:
            await page.outputs.put(window(0, 0.5, "final", "good"))
            await until(lambda: not len(page.outputs))
            status, body, headers = await page.get("/sessions/cam0/summary.json")
            assert status == 200
            assert json.loads(body)["scores"][0]["words"] == "good"
            assert 'filename="lab-1-cam0.json"' in headers["content-disposition"]
            status, body, headers = await page.get("/sessions/cam0/summary.csv")
            assert body.decode().splitlines()[0].startswith("seq,t_start_s,t_end_s,sentiment")
            assert headers["content-type"].startswith("text/csv")
            for path in ("/sessions/cam1/summary.json", "/sessions/cam0/summary.exe", "/sessions/../summary.json"):
                assert (await page.get(path))[0] == 404

    asyncio.run(scenario())


def test_prometheus_reads_the_same_figures() -> None:
    async def scenario() -> None:
        async with shown() as page:
            status, body, _ = await page.get("/metrics")
            assert status == 200
            assert b"mmlatch_uptime_seconds" in body

    asyncio.run(scenario())


def test_pictures_are_shown_only_if_that_is_allowed() -> None:
    async def scenario(pictures: bool) -> tuple[int, bytes]:
        async with shown(pictures=pictures) as page:
            outline = np.array([[0.25, 0.25], [0.75, 0.25], [0.5, 0.75]], np.float32)
            page.sink._views["cam0"] = lambda: (np.full((480, 640, 3), 90, np.uint8), outline)
            if not pictures:
                return (await page.get("/sessions/cam0/picture"))[:2]
            reader, writer = await asyncio.open_connection("127.0.0.1", page.port)
            writer.write(b"GET /sessions/cam0/picture HTTP/1.1\r\nHost: localhost\r\n\r\n")
            body = await asyncio.wait_for(reader.readuntil(b"\xff\xd9"), 10)
            writer.close()
            return 200, body

    status, body = asyncio.run(scenario(False))
    assert status == 404
    assert b"dashboard.picture" in body
    status, body = asyncio.run(scenario(True))
    assert b"image/jpeg" in body
    assert b"\xff\xd8" in body


def test_a_hundred_pages_are_told_alike_and_one_that_never_reads_holds_up_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "_WAITING", 20)

    async def scenario() -> None:
        async with shown() as page, contextlib.AsyncExitStack() as open_pages:
            stuck = socket.create_connection(("127.0.0.1", page.port))
            stuck.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            key = "dGhlIHNhbXBsZSBub25jZQ=="
            ask = f"GET /live HTTP/1.1\r\nHost: localhost:{page.port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            stuck.sendall(f"{ask}Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n".encode())
            pages = [await open_pages.enter_async_context(page.listen()) for _ in range(100)]
            for each in pages:
                await read(each, "session")
            for seq in range(60):
                await page.outputs.put(window(seq))
                await asyncio.sleep(0)
            for each in pages:  # all of it, or a snapshot where it was too much
                last = -1
                while last < 59:
                    message = json.loads(await asyncio.wait_for(each.recv(), 20))
                    scores = message["scores"] if message["type"] == "session" else [message]
                    last = max([last, *(score["seq"] for score in scores if score.get("seq") is not None)])
            waiting = [len(channel) for channel in page.sink._pages._waiting]
            assert max(waiting) <= 20
            stuck.close()

    asyncio.run(scenario())


def test_more_pages_than_there_may_be_are_turned_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "_CLIENTS", 1)

    async def scenario() -> None:
        async with shown() as page, page.listen() as one:
            await read(one, "session")
            with pytest.raises(websockets.exceptions.InvalidStatus):
                async with page.listen():
                    pass

    asyncio.run(scenario())


def test_a_port_that_is_taken_is_one_line() -> None:
    async def scenario() -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            with pytest.raises(UsageError, match=f"--dashboard 127.0.0.1:{port}: .*; choose another port or address"):
                async with Dashboard(Address("127.0.0.1", port, None), Statistics()):
                    pass

    asyncio.run(scenario())
