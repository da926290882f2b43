import asyncio
import threading
import time

import pytest

from stream.futures import settle


def test_a_thread_wakes_a_loop_that_has_nothing_else_to_do() -> None:
    async def scenario() -> object:
        future = asyncio.get_running_loop().create_future()
        threading.Timer(0.05, settle, (future, 7)).start()
        return await asyncio.wait_for(future, 30)

    begun_s = time.monotonic()
    assert asyncio.run(scenario()) == 7
    assert time.monotonic() - begun_s < 10


def test_an_error_is_raised_where_it_is_waited_for() -> None:
    async def scenario() -> None:
        future = asyncio.get_running_loop().create_future()
        settle(future, error=KeyError("gone"))
        with pytest.raises(KeyError, match="gone"):
            await future

    asyncio.run(scenario())


def test_a_future_that_nobody_waits_for_any_more_is_left_alone() -> None:
    wrong: list[object] = []

    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: wrong.append(context))
        settled, cancelled = loop.create_future(), loop.create_future()
        settled.set_result(1)
        cancelled.cancel()
        for future in (settled, cancelled):
            settle(future, 2)
            settle(future, error=KeyError())
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert settled.result() == 1
        assert cancelled.cancelled()

    asyncio.run(scenario())
    assert wrong == []


def test_a_loop_that_has_ended_is_no_trouble() -> None:
    async def scenario() -> "asyncio.Future[int]":
        return asyncio.get_running_loop().create_future()

    settle(asyncio.run(scenario()), 7)
