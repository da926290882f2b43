"""JSON lines into real pipes: at once, whole, and without holding anybody up."""

import asyncio
import contextlib
import json
import os
import sys
from collections.abc import Iterator
from dataclasses import replace
from typing import TextIO

import pytest

from stream.channel import Channel
from stream.messages import Event, Output
from stream.sinks.jsonl import JsonLines
from tests.stream.sinks.test_payload import EVENT, INFO, TIMED, UTTERANCE

LONG = replace(EVENT, reason="x" * 30_000)
Pipe = tuple[int, TextIO]


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    """A pipe's two ends."""
    reader, writer = os.pipe()
    out = os.fdopen(writer, "w", encoding="utf-8")
    yield reader, out
    for close in (out.close, lambda: os.close(reader)):
        with contextlib.suppress(OSError):
            close()


def channel(*outputs: Output) -> Channel[Output]:
    made: Channel[Output] = Channel(1000, lambda items: None)
    for output in outputs:
        made.offer(output)
    return made


async def read_lines(reader: int, count: int) -> list[dict]:
    def read() -> list[dict]:
        text = b""
        while text.count(b"\n") < count:
            some = os.read(reader, 1 << 16)
            assert some
            text += some
        assert text.endswith(b"\n")
        return [json.loads(line) for line in text.splitlines()]

    return await asyncio.wait_for(asyncio.to_thread(read), 20)


def test_every_output_is_a_line_and_there_at_once(pipe: Pipe) -> None:
    async def scenario() -> None:
        reader, out = pipe
        outputs = channel()
        running = asyncio.create_task(JsonLines(out).run(INFO, outputs))
        for output, kind in ((TIMED, "provisional"), (UTTERANCE, "utterance"), (EVENT, "event")):
            outputs.offer(output)
            (line,) = await read_lines(reader, 1)
            assert (line["kind"], line["session"]) == (kind, "cam0")
        outputs.close()
        await asyncio.wait_for(running, 5)

    asyncio.run(scenario())


def test_a_reader_that_does_not_read_holds_up_nobody_and_misses_nothing(pipe: Pipe) -> None:
    async def scenario() -> None:
        reader, out = pipe
        outputs = channel(*(replace(LONG, count=number) for number in range(20)))
        running = asyncio.create_task(JsonLines(out).run(INFO, outputs))
        for _ in range(50):  # the loop goes on, though the pipe is full
            await asyncio.sleep(0.002)
        assert 10 < len(outputs) < 20
        assert not running.done()
        outputs.close()
        assert [line["count"] for line in await read_lines(reader, 20)] == list(range(20))
        await asyncio.wait_for(running, 5)

    asyncio.run(asyncio.wait_for(scenario(), 30))


def test_it_can_be_left_while_a_reader_does_not_read(pipe: Pipe) -> None:
    async def scenario() -> None:
        reader, out = pipe
        running = asyncio.create_task(JsonLines(out).run(INFO, channel(*[LONG] * 20)))
        await asyncio.sleep(0.05)
        running.cancel()
        await asyncio.wait({running}, timeout=5)
        assert running.cancelled()
        os.set_blocking(reader, False)
        while True:  # let the thread go
            try:
                os.read(reader, 1 << 20)
                await asyncio.sleep(0.01)
            except BlockingIOError:
                break

    asyncio.run(asyncio.wait_for(scenario(), 30))


def test_it_ends_when_the_reader_has_gone_and_nothing_fails_afterwards(pipe: Pipe, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        reader, out = pipe
        monkeypatch.setattr(sys, "stdout", out)
        outputs = channel()
        running = asyncio.create_task(JsonLines(out).run(INFO, outputs))
        outputs.offer(EVENT)
        await read_lines(reader, 1)
        os.close(reader)
        outputs.offer(EVENT)
        await asyncio.wait_for(running, 5)
        out.write("as the interpreter does at its end")
        out.flush()

    asyncio.run(scenario())


def test_it_ends_for_every_session_when_the_reader_has_gone(pipe: Pipe, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        reader, out = pipe
        monkeypatch.setattr(sys, "stdout", out)
        lines, sessions = JsonLines(out), [channel(), channel()]
        running = [asyncio.create_task(lines.run(INFO, outputs)) for outputs in sessions]
        os.close(reader)
        for outputs, task in zip(sessions, running, strict=True):
            outputs.offer(EVENT)
            await asyncio.wait_for(task, 3)

    asyncio.run(scenario())


def test_lines_of_several_sessions_are_whole_and_each_in_order(pipe: Pipe) -> None:
    async def scenario() -> None:
        reader, out = pipe
        lines, names = JsonLines(out), ["one", "two", "three"]
        sessions = [channel(*(replace(LONG, count=number) for number in range(15))) for _ in names]
        running = [
            asyncio.create_task(lines.run(replace(INFO, session=name), outputs))
            for name, outputs in zip(names, sessions, strict=True)
        ]
        for outputs in sessions:
            outputs.close()
        found = await read_lines(reader, 45)
        await asyncio.wait_for(asyncio.gather(*running), 5)
        for name in names:
            assert [line["count"] for line in found if line["session"] == name] == list(range(15))

    asyncio.run(asyncio.wait_for(scenario(), 30))


def test_what_is_wrong_with_an_output_is_raised_to_the_session(pipe: Pipe) -> None:
    async def scenario() -> None:
        broken = Event(0, "lost", "text", "x", count=float("nan"))  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="JSON"):
            await asyncio.wait_for(JsonLines(pipe[1]).run(INFO, channel(broken)), 5)

    asyncio.run(scenario())
