"""A thread of its own for blocking work, called from asyncio.

asyncio.to_thread will not do: its threads are shared, so a model would move from thread to thread, and the interpreter waits
for them at exit, for ever if one hangs in a driver.
"""

import asyncio
import queue
import threading
import time
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

from stream.futures import settle

P = ParamSpec("P")
R = TypeVar("R")


class Worker:
    """Runs one call at a time, in the order of the calls."""

    def __init__(self, name: str) -> None:
        """Start the thread; it is a daemon, so a call that never returns does not keep the process alive."""
        self._calls: queue.SimpleQueue[tuple[Callable[[], Any], asyncio.Future[Any]] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    async def call(self, function: Callable[P, R], *arguments: P.args, **options: P.kwargs) -> R:
        """Run `function` on the thread and return what it returns, or raise what it raises."""
        done: asyncio.Future[R] = asyncio.get_running_loop().create_future()
        self._calls.put((lambda: function(*arguments, **options), done))
        return await done

    async def close(self, timeout_s: float = 1.0) -> bool:
        """End the thread after the calls that wait; whether it ended within `timeout_s` seconds. A second time waits again."""
        self._calls.put(None)
        deadline_s = time.monotonic() + timeout_s
        while self._thread.is_alive() and time.monotonic() < deadline_s:
            await asyncio.sleep(0.002)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while (task := self._calls.get()) is not None:
            function, done = task
            result: Any = None
            error: BaseException | None = None
            try:
                result = function()
            except BaseException as raised:  # whatever it is belongs to the caller
                # No future takes a StopIteration.
                error = RuntimeError("StopIteration") if isinstance(raised, StopIteration) else raised
            settle(done, result, error)
            del task, function, done, result, error  # nothing of a call is kept while waiting for the next one
