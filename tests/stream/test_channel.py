import asyncio

import pytest

from stream.channel import Channel


def test_delivers_everything_in_order_and_ends_when_closed() -> None:
    async def scenario() -> list[int]:
        channel: Channel[int] = Channel(2)

        async def send() -> None:
            for number in range(10):
                await channel.put(number)
            await channel.close()

        async with asyncio.TaskGroup() as group:
            group.create_task(send())
            return [number async for number in channel]

    assert asyncio.run(scenario()) == list(range(10))


def test_a_full_channel_makes_the_sender_wait() -> None:
    async def scenario() -> None:
        channel: Channel[int] = Channel(1)
        await channel.put(0)
        second = asyncio.create_task(channel.put(1))
        await asyncio.sleep(0.01)
        assert not second.done()
        assert len(channel) == 1
        async for _ in channel:
            break
        await second
        assert len(channel) == 1

    asyncio.run(scenario())


def test_closing_frees_a_waiting_sender_with_an_error() -> None:
    async def scenario() -> None:
        channel: Channel[int] = Channel(1)
        await channel.put(0)
        second = asyncio.create_task(channel.put(1))
        await asyncio.sleep(0)
        await channel.close()
        with pytest.raises(RuntimeError, match="closed"):
            await second

    asyncio.run(scenario())


def test_needs_room_for_one() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        Channel(0)
