"""A bounded, closable queue into one asyncio task; Python 3.11's own cannot be closed, and drops nothing.

What happens when it is full is the edge's delivery policy: the sender waits (a file, a recording: nothing is lost), or
something is given up and counted (a camera, a microphone: the world does not wait).
"""

import asyncio
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import Generic, TypeVar

from stream.futures import settle

T = TypeVar("T")


def oldest(items: deque[T]) -> None:
    """Give up the item that has waited longest."""
    items.popleft()


def everything(items: deque[T]) -> None:
    """Give up all that waits: one long hole instead of many short ones."""
    items.clear()


class Channel(Generic[T]):
    """Delivers items in order to one reader; senders may be tasks, or threads if the channel does not make them wait.

    Example:
        channel: Channel[int] = Channel(capacity=8)
        await channel.put(1)
        channel.close()
        async for item in channel: ...  # ends when the channel is closed and empty

    Attributes:
        passed: How many items have been accepted.
        dropped: How many of them were given up.
    """

    def __init__(self, capacity: int, give_up: Callable[[deque[T]], None] | None = None) -> None:
        """Open, empty.

        Args:
            capacity: How many items may wait.
            give_up: What to remove when one more comes, as `oldest`; it may also let the channel grow by removing nothing.
                None if the sender waits.
        """
        if capacity < 1:
            raise ValueError(f"capacity must be at least 1, got {capacity}")
        self.capacity = capacity
        self.passed = self.dropped = 0
        self._give_up = give_up
        self._items: deque[T] = deque()
        self._closed = False
        self._lock = threading.Lock()
        self._reader: asyncio.Future[None] | None = None
        self._senders: deque[asyncio.Future[None]] = deque()

    def __len__(self) -> int:
        """How many items wait."""
        return len(self._items)

    def offer(self, item: T) -> bool:
        """Append an item without waiting, from any thread; returns False if the channel is closed.

        Raises:
            RuntimeError: The channel gives nothing up: `put` into it.
        """
        if self._give_up is None:
            raise RuntimeError("this channel makes senders wait; use put")
        with self._lock:
            return self._append(item)

    async def put(self, item: T) -> bool:
        """Append an item, waiting while the channel is full if it gives nothing up; returns False if it is closed."""
        while True:
            with self._lock:
                if self._give_up or self._closed or len(self._items) < self.capacity:
                    return self._append(item)
                turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
                self._senders.append(turn)
            try:
                await turn
            except asyncio.CancelledError:
                self._pass_on(turn)
                raise

    def close(self) -> None:
        """Take no more items, from any thread; what waits is still delivered. Closing twice does no harm."""
        with self._lock:
            self._closed = True
            self._wake_reader()
            while self._senders:
                settle(self._senders.popleft())

    async def __aiter__(self) -> AsyncIterator[T]:
        """The items in order, until the channel is closed and empty."""
        while True:
            with self._lock:
                if self._items:
                    item = self._items.popleft()
                    self._wake_sender()
                    arrival = None
                elif self._closed:
                    return
                else:
                    self._reader = arrival = asyncio.get_running_loop().create_future()
            if arrival:
                await arrival
            else:
                yield item

    def _append(self, item: T) -> bool:
        if self._closed:
            return False
        if self._give_up and len(self._items) >= self.capacity:
            before = len(self._items)
            self._give_up(self._items)
            self.dropped += before - len(self._items)
        self._items.append(item)
        self.passed += 1
        self._wake_reader()
        return True

    def _pass_on(self, turn: "asyncio.Future[None]") -> None:
        """A sender that was called up and will not come lets the next one have its turn."""
        with self._lock:
            if turn in self._senders:
                self._senders.remove(turn)
            elif len(self._items) < self.capacity:
                self._wake_sender()

    def _wake_reader(self) -> None:
        if self._reader:
            settle(self._reader)
            self._reader = None

    def _wake_sender(self) -> None:
        if self._senders:
            settle(self._senders.popleft())
