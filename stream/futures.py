"""Settling an asyncio future from any thread: what threads use to let a task go on."""

import asyncio
from typing import Any


def settle(future: "asyncio.Future[Any]", result: Any = None, error: BaseException | None = None) -> None:
    """Give a future its result, or its error, on its own loop; nothing happens if nobody waits for it any more."""
    loop = future.get_loop()
    if not loop.is_closed():
        loop.call_soon_threadsafe(_settle, future, result, error)


def _settle(future: "asyncio.Future[Any]", result: Any, error: BaseException | None) -> None:
    if future.done():  # its task was cancelled meanwhile
        return
    if error is None:
        future.set_result(result)
    else:
        future.set_exception(error)
