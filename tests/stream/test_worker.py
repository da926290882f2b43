import asyncio
import threading
import time

import pytest

from stream.worker import Worker


def test_calls_run_in_order_on_one_thread_beside_the_loop() -> None:
    async def scenario() -> list[tuple[int, str]]:
        worker = Worker("own")
        try:
            calls = [worker.call(lambda n=n: (n, threading.current_thread().name)) for n in range(5)]
            return list(await asyncio.gather(*calls))
        finally:
            assert worker.close()

    assert asyncio.run(scenario()) == [(n, "own") for n in range(5)]


def test_what_a_call_raises_reaches_the_caller_and_the_thread_lives_on() -> None:
    async def scenario() -> int:
        worker = Worker("own")
        with pytest.raises(ZeroDivisionError):
            await worker.call(lambda: 1 // 0)
        return await worker.call(lambda: 7)

    assert asyncio.run(scenario()) == 7


def test_a_cancelled_caller_does_not_disturb_the_next() -> None:
    async def scenario() -> int:
        worker = Worker("own")
        slow = asyncio.create_task(worker.call(time.sleep, 0.05))
        await asyncio.sleep(0.01)
        slow.cancel()
        return await worker.call(lambda: 7)

    assert asyncio.run(scenario()) == 7


def test_close_tells_when_a_call_hangs() -> None:
    async def scenario() -> bool:
        release = threading.Event()
        worker = Worker("own")
        hanging = asyncio.create_task(worker.call(release.wait))
        await asyncio.sleep(0.01)
        ended = worker.close(timeout_s=0.05)
        release.set()
        await hanging
        return ended

    assert asyncio.run(scenario()) is False
