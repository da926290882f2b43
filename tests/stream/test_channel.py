"""The channel against plain queues: order, waiting, giving up, closing, and senders that are cancelled."""

import asyncio
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable
from itertools import count

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream.channel import Channel, everything, oldest

Policy = Callable[[deque[int]], None]


def nothing(items: deque[int]) -> None:
    """Let it grow."""


def odd_ones(items: deque[int]) -> None:
    """Give up the first odd number, if there is one."""
    for index, item in enumerate(items):
        if item % 2:
            del items[index]
            return


async def quiet() -> None:
    """Let every task go on as far as it can."""
    for _ in range(60):
        await asyncio.sleep(0)


async def rest(channel: Channel[int]) -> list[int]:
    return [item async for item in channel]


def test_delivers_everything_in_order_and_ends_when_closed() -> None:
    async def scenario() -> list[int]:
        channel: Channel[int] = Channel(2)

        async def send() -> None:
            for number in range(10):
                assert await channel.put(number)
            channel.close()

        async with asyncio.TaskGroup() as group:
            group.create_task(send())
            return await rest(channel)

    assert asyncio.run(scenario()) == list(range(10))


def test_a_full_channel_makes_the_sender_wait_until_one_is_taken() -> None:
    async def scenario() -> None:
        channel: Channel[int] = Channel(1)
        await channel.put(0)
        second = asyncio.create_task(channel.put(1))
        await quiet()
        assert not second.done()
        assert (len(channel), channel.passed) == (1, 1)
        async for _ in channel:
            break
        assert await asyncio.wait_for(second, 5)
        assert (len(channel), channel.passed, channel.dropped) == (1, 2, 0)

    asyncio.run(scenario())


def test_senders_that_wait_have_their_turns_in_order() -> None:
    async def scenario() -> list[int]:
        channel: Channel[int] = Channel(1)
        senders = [asyncio.create_task(channel.put(number)) for number in range(6)]
        await quiet()
        found = [await anext(aiter(channel)) for _ in range(6)]
        assert await asyncio.gather(*senders) == [True] * 6
        return found

    assert asyncio.run(scenario()) == list(range(6))


def test_a_reader_that_waits_is_woken_by_what_comes() -> None:
    async def scenario() -> list[int]:
        waiting: Channel[int] = Channel(1)
        giving: Channel[int] = Channel(1, oldest)
        readers = [asyncio.create_task(rest(channel)) for channel in (waiting, giving)]
        await quiet()
        await waiting.put(1)
        sender = threading.Thread(target=giving.offer, args=(2,))
        sender.start()
        sender.join()
        await quiet()
        assert len(waiting) == len(giving) == 0
        waiting.close()
        giving.close()
        one, other = await asyncio.wait_for(asyncio.gather(*readers), 5)
        return one + other

    assert asyncio.run(scenario()) == [1, 2]


def test_what_waits_when_it_is_closed_is_delivered_and_nothing_more_is_taken() -> None:
    async def scenario() -> None:
        for channel in (Channel[int](4), Channel[int](4, oldest)):
            assert await channel.put(1)
            assert await channel.put(2)
            channel.close()
            channel.close()
            assert not await channel.put(3)
            assert await rest(channel) == [1, 2]
            assert await rest(channel) == []
            assert channel.passed == 2
        assert not channel.offer(4)

    asyncio.run(scenario())


def test_closing_from_a_thread_wakes_every_sender_and_tells_it_so() -> None:
    async def scenario() -> None:
        channel: Channel[int] = Channel(1)
        await channel.put(0)
        senders = [asyncio.create_task(channel.put(number)) for number in (1, 2, 3)]
        await quiet()
        threading.Thread(target=channel.close).start()
        assert await asyncio.wait_for(asyncio.gather(*senders), 5) == [False] * 3
        assert await rest(channel) == [0]
        assert channel.passed == 1

    asyncio.run(scenario())


def test_closing_from_a_thread_ends_a_reader_that_waits() -> None:
    async def scenario() -> list[int]:
        channel: Channel[int] = Channel(1)
        reader = asyncio.create_task(rest(channel))
        await quiet()
        threading.Thread(target=channel.close).start()
        return await asyncio.wait_for(reader, 5)

    assert asyncio.run(scenario()) == []


def test_another_reader_goes_on_where_one_was_cancelled() -> None:
    async def scenario() -> list[int]:
        channel: Channel[int] = Channel(2)
        first = asyncio.create_task(rest(channel))
        await quiet()
        first.cancel()
        await quiet()
        await channel.put(1)
        second = asyncio.create_task(rest(channel))
        await quiet()
        await channel.put(2)
        channel.close()
        return await asyncio.wait_for(second, 5)

    assert asyncio.run(scenario()) == [1, 2]


@pytest.mark.parametrize("late", [False, True], ids=["before its turn", "in its turn"])
def test_a_sender_that_is_cancelled_leaves_its_turn_to_the_next(late: bool) -> None:
    async def scenario() -> list[int]:
        channel: Channel[int] = Channel(1)
        await channel.put(0)
        cancelled, patient = (asyncio.create_task(channel.put(number)) for number in (1, 2))
        await quiet()
        if not late:
            cancelled.cancel()
            await quiet()
        assert await anext(aiter(channel)) == 0  # calls the first of them up
        if late:
            cancelled.cancel()
        assert await asyncio.wait_for(patient, 5)
        assert cancelled.cancelled()
        channel.close()
        return await rest(channel)

    assert asyncio.run(scenario()) == [2]


def test_only_a_channel_that_gives_something_up_takes_offers() -> None:
    channel: Channel[int] = Channel(1)
    with pytest.raises(RuntimeError, match="use put"):
        channel.offer(1)
    assert (len(channel), channel.passed) == (0, 0)


@pytest.mark.parametrize(
    ("policy", "left"),
    [(oldest, [4, 5, 6]), (everything, [6]), (nothing, [0, 1, 2, 3, 4, 5, 6]), (odd_ones, [0, 2, 4, 6])],
)
def test_what_is_given_up_is_the_policys(policy: Policy, left: list[int]) -> None:
    async def scenario() -> None:
        channel: Channel[int] = Channel(3, policy)
        for number in range(7):
            assert channel.offer(number) if number % 2 else await channel.put(number)
        assert (channel.passed, channel.dropped) == (7, 7 - len(left))
        channel.close()
        assert await rest(channel) == left

    asyncio.run(scenario())


@pytest.mark.parametrize("policy", [oldest, everything])
def test_of_what_threads_offer_nothing_is_lost_but_what_is_counted(policy: Policy) -> None:
    each, threads = 3000, 4

    async def scenario() -> list[int]:
        channel: Channel[int] = Channel(5, policy)

        def offer(first: int) -> None:
            for number in range(first, first + each):
                assert channel.offer(number)

        senders = [threading.Thread(target=offer, args=(index * each,)) for index in range(threads)]

        def close() -> None:
            for sender in senders:
                sender.join()
            channel.close()

        for thread in (*senders, threading.Thread(target=close)):
            thread.start()
        found = await asyncio.wait_for(rest(channel), 60)
        assert channel.passed == each * threads == len(found) + channel.dropped
        return found

    found = asyncio.run(scenario())
    for index in range(threads):
        of_one = [number for number in found if number // each == index]
        assert of_one == sorted(set(of_one))


@settings(deadline=None)
@given(st.integers(1, 3), st.sampled_from([oldest, everything, nothing, odd_ones]), st.lists(st.booleans(), max_size=40))
def test_a_channel_that_gives_up_does_as_a_plain_queue(capacity: int, policy: Policy, moves: list[bool]) -> None:
    async def scenario() -> None:
        channel: Channel[int] = Channel(capacity, policy)
        model: deque[int] = deque()
        read = aiter(channel)
        dropped = taken = 0
        for number, put in enumerate(moves):
            if put:
                if len(model) >= capacity:
                    before = len(model)
                    policy(model)
                    dropped += before - len(model)
                model.append(number)
                assert channel.offer(number)
            elif model:
                assert await anext(read) == model.popleft()
                taken += 1
            assert (len(channel), channel.dropped, channel.passed) == (len(model), dropped, dropped + taken + len(model))
        channel.close()
        assert [item async for item in read] == list(model)

    asyncio.run(scenario())


class Plain:
    """What a channel that makes senders wait should do, when everybody has gone on as far as he can."""

    def __init__(self, capacity: int) -> None:
        self.capacity, self.closed, self.reading = capacity, False, False
        self.items: deque[int] = deque()
        self.waiting: list[int] = []
        self.taken: list[int] = []
        self.refused: list[int] = []

    def put(self, number: int) -> None:
        if self.closed:
            self.refused.append(number)
        else:
            self.waiting.append(number)
        self.go_on()

    def go_on(self) -> None:
        while True:
            if self.items and self.reading:
                self.taken.append(self.items.popleft())
                self.reading = False
            elif self.waiting and len(self.items) < self.capacity:
                self.items.append(self.waiting.pop(0))
            else:
                return

    def close(self) -> None:
        self.closed = True
        self.refused += self.waiting
        self.waiting = []


MOVES = st.sampled_from(["put", "put", "put", "read", "read", "cancel", "cancel", "close"])
RACES = st.sampled_from(["put", "read", "cancel", "go on"])


@settings(deadline=None)
@given(st.integers(1, 3), st.lists(st.tuples(MOVES, st.integers(0, 3)), max_size=30))
def test_a_channel_that_makes_senders_wait_does_as_a_plain_queue(capacity: int, moves: list[tuple[str, int]]) -> None:
    async def scenario() -> None:
        channel, plain = Channel[int](capacity), Plain(capacity)
        read, taken, reading = aiter(channel), list[int](), None
        senders: dict[int, asyncio.Task[bool]] = {}
        for number, (move, which) in enumerate(moves):
            match move:
                case "put":
                    senders[number] = asyncio.create_task(channel.put(number))
                    plain.put(number)
                case "read" if not plain.reading and not plain.closed:
                    reading = asyncio.create_task(take(read, taken))
                    plain.reading = True
                    plain.go_on()
                case "cancel" if plain.waiting:
                    senders[plain.waiting.pop(which % len(plain.waiting))].cancel()
                case "close":
                    channel.close()
                    plain.close()
            await quiet()
            assert len(channel) == len(plain.items)
            assert taken == plain.taken
            assert [n for n, sender in senders.items() if not sender.done()] == plain.waiting
        refused = [n for n, sender in senders.items() if sender.done() and not sender.cancelled() and not sender.result()]
        assert sorted(refused) == sorted(plain.refused)
        channel.close()
        if reading:
            await asyncio.wait_for(asyncio.wait({reading}), 5)
        assert await rest(channel) == list(plain.items)

    asyncio.run(scenario())


async def take(read: AsyncIterator[int], taken: list[int]) -> None:
    async for item in read:
        taken.append(item)
        return


@settings(deadline=None, max_examples=200)
@given(st.integers(1, 3), st.lists(st.tuples(RACES, st.integers(0, 5)), max_size=40))
def test_nobody_waits_while_there_is_room_whoever_is_cancelled_when(capacity: int, moves: list[tuple[str, int]]) -> None:
    async def scenario() -> None:
        channel, numbers, taken = Channel[int](capacity), count(), list[int]()
        senders: list[asyncio.Task[bool]] = []
        for move, which in moves:
            match move:
                case "put":
                    senders.append(asyncio.create_task(channel.put(next(numbers))))
                case "read" if len(channel):
                    taken.append(await anext(aiter(channel)))
                case "cancel" if senders:
                    senders[which % len(senders)].cancel()
                case "go on":
                    await asyncio.sleep(0)
        await quiet()
        assert len(channel) == capacity or all(sender.done() for sender in senders)
        channel.close()
        await quiet()
        assert all(sender.done() for sender in senders)
        taken += await rest(channel)
        accepted = {n for n, sender in enumerate(senders) if not sender.cancelled() and sender.result()}
        assert len(taken) == len(set(taken)) == channel.passed
        assert accepted == set(taken)

    asyncio.run(scenario())


@pytest.mark.parametrize("policy", [None, oldest])
def test_needs_room_for_one(policy: Policy | None) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        Channel(0, policy)
