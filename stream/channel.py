"""A bounded, closable queue between asyncio tasks; Python 3.11's own cannot be closed."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from typing import Generic, TypeVar

T = TypeVar("T")


class Channel(Generic[T]):
    """Delivers every item in order; a full channel makes the sender wait.

    Example:
        channel: Channel[int] = Channel(capacity=8)
        await channel.put(1)
        channel.close()
        async for item in channel: ...  # ends when the channel is closed and empty
    """

    def __init__(self, capacity: int) -> None:
        """Open, empty, for at most `capacity` waiting items."""
        if capacity < 1:
            raise ValueError(f"capacity must be at least 1, got {capacity}")
        self.capacity = capacity
        self._items: deque[T] = deque()
        self._closed = False
        self._changed = asyncio.Condition()

    def __len__(self) -> int:
        """How many items wait."""
        return len(self._items)

    async def put(self, item: T) -> None:
        """Append an item, waiting while the channel is full.

        Raises:
            RuntimeError: The channel is closed.
        """
        async with self._changed:
            await self._changed.wait_for(lambda: self._closed or len(self._items) < self.capacity)
            if self._closed:
                raise RuntimeError("the channel is closed")
            self._items.append(item)
            self._changed.notify_all()

    async def close(self) -> None:
        """Take no more items; what waits is still delivered. Closing twice does no harm."""
        async with self._changed:
            self._closed = True
            self._changed.notify_all()

    async def __aiter__(self) -> AsyncIterator[T]:
        """The items in order, until the channel is closed and empty."""
        while True:
            async with self._changed:
                await self._changed.wait_for(lambda: self._closed or bool(self._items))
                if not self._items:
                    return
                item = self._items.popleft()
                self._changed.notify_all()
            yield item
