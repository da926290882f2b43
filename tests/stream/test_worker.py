import asyncio
import contextlib
import gc
import threading
import time
import weakref

import pytest

from stream.worker import Worker


class Big:
    """What nobody wants to keep: a picture."""


def where(number: int) -> tuple[int, str]:
    return number, threading.current_thread().name


def test_calls_run_in_order_on_one_thread_beside_the_loop() -> None:
    async def scenario() -> list[tuple[int, str]]:
        worker = Worker("own")
        try:
            calls = [worker.call(where, number) for number in range(5)]
            return list(await asyncio.gather(*calls))
        finally:
            assert await worker.close()

    assert asyncio.run(scenario()) == [(n, "own") for n in range(5)]


def test_arguments_and_options_reach_the_function() -> None:
    async def scenario() -> list[int]:
        worker = Worker("own")
        found = await worker.call(sorted, [1, 3, 2], reverse=True)
        assert await worker.close()
        return found

    assert asyncio.run(scenario()) == [3, 2, 1]


@pytest.mark.parametrize("error", [ZeroDivisionError("x"), KeyError("x"), asyncio.CancelledError("x")], ids=repr)
def test_what_a_call_raises_reaches_the_caller_and_the_thread_lives_on(error: BaseException) -> None:
    async def scenario() -> int:
        def fail() -> None:
            raise error

        worker = Worker("own")
        with pytest.raises(type(error), match="x"):
            await worker.call(fail)
        return await worker.call(lambda: 7)

    assert asyncio.run(scenario()) == 7


def test_an_iterator_that_is_at_its_end_does_not_hang_the_caller() -> None:
    async def scenario() -> None:
        # A future takes no StopIteration; it must come as some other error, as from a coroutine.
        with pytest.raises(RuntimeError):
            await asyncio.wait_for(Worker("own").call(next, iter(())), 2)

    asyncio.run(scenario())


def test_a_cancelled_caller_does_not_disturb_the_next() -> None:
    async def scenario() -> int:
        worker = Worker("own")
        slow = asyncio.create_task(worker.call(time.sleep, 0.05))
        await asyncio.sleep(0.01)
        slow.cancel()
        return await worker.call(lambda: 7)

    assert asyncio.run(scenario()) == 7


@pytest.mark.parametrize("fails", [False, True])
def test_nothing_of_a_call_is_kept_when_it_is_over(fails: bool) -> None:
    def look(at: Big) -> Big:
        if fails:
            raise ValueError
        return at

    async def scenario() -> None:
        worker = Worker("own")
        big = Big()
        seen = weakref.ref(big)
        with contextlib.suppress(ValueError):
            await worker.call(look, big)
        del big
        await asyncio.sleep(0.05)  # the thread waits for its next call
        gc.collect()
        assert seen() is None
        assert await worker.close()

    asyncio.run(scenario())


def test_close_tells_when_a_call_hangs_and_the_loop_goes_on_meanwhile() -> None:
    async def scenario() -> list[bool]:
        release, ticks = threading.Event(), 0
        worker = Worker("own")
        hanging = asyncio.create_task(worker.call(release.wait))
        await asyncio.sleep(0.01)
        closing = asyncio.create_task(worker.close(timeout_s=0.1))
        while not closing.done():
            await asyncio.sleep(0.005)
            ticks += 1
        assert ticks > 2
        release.set()
        await hanging
        return [await closing, await worker.close(timeout_s=5)]

    assert asyncio.run(scenario()) == [False, True]


def test_close_waits_no_longer_than_it_must() -> None:
    begun_s = time.monotonic()
    assert asyncio.run(Worker("own").close(timeout_s=30))
    assert time.monotonic() - begun_s < 10


def test_what_was_asked_for_before_the_close_is_still_done() -> None:
    async def scenario() -> list[int]:
        worker, done = Worker("own"), list[int]()
        calls = [asyncio.create_task(worker.call(done.append, number)) for number in range(20)]
        await asyncio.sleep(0)
        assert await worker.close(timeout_s=5)
        await asyncio.wait_for(asyncio.gather(*calls), 5)
        return done

    assert asyncio.run(scenario()) == list(range(20))


def test_a_call_that_hangs_does_not_keep_the_process() -> None:
    worker = Worker("own")
    assert worker._thread.daemon
