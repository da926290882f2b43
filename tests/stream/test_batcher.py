"""The device's thread: what sessions want at the same time goes through together, and nobody's trouble is another's."""

import asyncio
import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream.batcher import Batcher
from stream.messages import Score
from stream.scorer import Job, Scorer
from tests.stream.test_channel import quiet
from tests.stream.test_scorer import TALK, LastWordEmbedder, made, scorer, window

SESSIONS = 3


class Embedder(LastWordEmbedder):
    """Waits at `stop` until it is released, and breaks at `break`."""

    def __init__(self) -> None:
        super().__init__()
        self.stopped, self.release = threading.Event(), threading.Event()
        self.threads: set[str] = set()

    def embed(self, words: tuple[str, ...]) -> np.ndarray:
        self.threads.add(threading.current_thread().name)
        if words[-1] == "stop":
            self.stopped.set()
            assert self.release.wait(30)
        if words[-1] == "break":
            raise RuntimeError("out of memory")
        return super().embed(words)


def sessions(embedder: LastWordEmbedder) -> tuple[list[Scorer], list[int]]:
    engine, calls = made(bucket=SESSIONS)
    return [scorer(embedder, engine=engine) for _ in range(SESSIONS)], calls


def first(scorer: Scorer, *words: str, final: bool = True) -> Job:
    return Job(scorer, [window(0, *words, restart=True)], final)


async def stopped(batcher: Batcher, scorer: Scorer, embedder: Embedder) -> "asyncio.Task[Score]":
    """A job on which the thread is at work."""
    running = asyncio.create_task(batcher.score(first(scorer, "stop")))
    while not embedder.stopped.is_set():
        await asyncio.sleep(0.001)
    return running


def test_what_is_wanted_at_the_same_time_is_one_batch() -> None:
    async def scenario() -> None:
        scorers, calls = sessions(Embedder())
        batcher = Batcher()
        for final in (False, True):
            found = await asyncio.gather(*(batcher.score(first(each, "a", final=final)) for each in scorers))
            assert [(score.kind, score.seq) for score in found] == [("final" if final else "provisional", 0)] * SESSIONS
        assert calls == [1]  # three provisional ones, which settle as they are
        assert await batcher.close()

    asyncio.run(scenario())


def test_who_comes_a_moment_later_is_in_the_same_batch() -> None:
    async def scenario() -> None:
        scorers, calls = sessions(LastWordEmbedder())
        batcher = Batcher()

        async def later() -> Score:
            await asyncio.sleep(0)
            return await batcher.score(first(scorers[1], "b"))

        await asyncio.gather(batcher.score(first(scorers[0], "a")), later())
        assert calls == [1]
        assert await batcher.close()

    asyncio.run(scenario())


def test_what_is_wanted_while_the_device_works_is_the_next_batch() -> None:
    async def scenario() -> None:
        embedder = Embedder()
        scorers, calls = sessions(embedder)
        batcher = Batcher()
        running = await stopped(batcher, scorers[0], embedder)
        waiting = []
        for each in scorers[1:]:
            waiting.append(asyncio.create_task(batcher.score(first(each, "a"))))
            await quiet()
        assert calls == []
        embedder.release.set()
        scores = await asyncio.wait_for(asyncio.gather(running, *waiting), 10)
        assert calls == [1, 1]
        assert [len(score.words) for score in scores] == [1] * 3
        assert embedder.threads == {"device"}
        assert await batcher.close()

    asyncio.run(scenario())


def test_an_error_reaches_all_of_its_batch_and_nobody_else() -> None:
    async def scenario() -> None:
        embedder = Embedder()
        scorers, _ = sessions(embedder)
        batcher = Batcher()
        running = await stopped(batcher, scorers[0], embedder)
        batch = [batcher.score(first(scorers[1], "a")), batcher.score(first(scorers[2], "break"))]
        failing = asyncio.gather(*batch, return_exceptions=True)
        await quiet()
        embedder.release.set()
        assert [str(error) for error in await asyncio.wait_for(failing, 10)] == ["out of memory"] * 2
        assert (await running).kind == "final"
        for each in scorers[1:]:
            assert (await asyncio.wait_for(batcher.score(first(each, "b")), 10)).kind == "final"
        assert await batcher.close()

    asyncio.run(scenario())


def test_a_session_that_is_cancelled_takes_nobody_with_it() -> None:
    async def scenario() -> None:
        embedder = Embedder()
        scorers, _ = sessions(embedder)
        batcher = Batcher()
        running = await stopped(batcher, scorers[0], embedder)
        gone = asyncio.create_task(batcher.score(first(scorers[1], "a")))
        left = asyncio.create_task(batcher.score(first(scorers[2], "b")))
        await quiet()
        running.cancel()
        gone.cancel()
        await quiet()
        embedder.release.set()
        assert (await asyncio.wait_for(left, 10)).words[0].text == "b"
        assert running.cancelled()
        assert gone.cancelled()
        assert await batcher.close()

    asyncio.run(scenario())


def test_close_tells_when_the_device_hangs() -> None:
    async def scenario() -> list[bool]:
        embedder = Embedder()
        scorers, _ = sessions(embedder)
        batcher = Batcher()
        running = await stopped(batcher, scorers[0], embedder)
        ended = await batcher.close()
        embedder.release.set()
        await asyncio.wait_for(running, 10)
        return [ended, await batcher.close()]

    assert asyncio.run(scenario()) == [False, True]


ALONE: dict[int, list[Score]] = {}


def alone(row: int) -> list[Score]:
    """The finals of a session that shares its engine with nobody, in that row."""
    if row not in ALONE:
        scorers, _ = sessions(LastWordEmbedder())
        ALONE[row] = [scorers[row].commit(each) for each in TALK]
    return ALONE[row]


@settings(deadline=None, max_examples=20)
@given(st.lists(st.lists(st.tuples(st.booleans(), st.integers(0, 5)), max_size=8), min_size=SESSIONS, max_size=SESSIONS))
def test_finals_are_to_the_bit_what_they_are_without_neighbours(pauses: list[list[tuple[bool, int]]]) -> None:
    async def session(batcher: Batcher, scorer: Scorer, pauses: list[tuple[bool, int]]) -> list[Score]:
        finals = []
        for seq, each in enumerate(TALK):
            guess, pause = pauses[seq] if seq < len(pauses) else (False, 0)
            for _ in range(pause):
                await asyncio.sleep(0)
            if guess:
                await batcher.score(Job(scorer, TALK[seq : seq + 1 + pause], False))
            finals.append(await batcher.score(Job(scorer, [each], True)))
        return finals

    async def scenario() -> list[list[Score]]:
        scorers, _ = sessions(LastWordEmbedder())
        batcher = Batcher()
        found = await asyncio.gather(*(session(batcher, *each) for each in zip(scorers, pauses, strict=True)))
        assert await batcher.close()
        return found

    for row, finals in enumerate(asyncio.run(scenario())):
        expected = alone(row)
        assert [(s.seq, s.sentiment, s.uncertainty, s.smooth, s.utterance_words, s.lanes) for s in finals] == [
            (s.seq, s.sentiment, s.uncertainty, s.smooth, s.utterance_words, s.lanes) for s in expected
        ]


def test_an_error_for_somebody_who_has_gone_does_not_stop_the_others() -> None:
    async def scenario() -> None:
        embedder = Embedder()
        scorers, _ = sessions(embedder)
        batcher = Batcher()
        running = await stopped(batcher, scorers[0], embedder)
        gone = asyncio.create_task(batcher.score(first(scorers[1], "break")))
        left = asyncio.create_task(batcher.score(first(scorers[2], "a")))
        await quiet()
        gone.cancel()
        await quiet()
        embedder.release.set()
        with pytest.raises(RuntimeError, match="memory"):
            await asyncio.wait_for(left, 10)
        assert (await running).kind == "final"
        assert (await asyncio.wait_for(batcher.score(first(scorers[2], "a")), 10)).kind == "final"
        assert await batcher.close()

    asyncio.run(scenario())


@pytest.mark.parametrize("count", [1, 2])
def test_nothing_waits_when_all_is_done(count: int) -> None:
    async def scenario() -> None:
        scorers, _ = sessions(LastWordEmbedder())
        batcher = Batcher()
        for seq in range(count):
            await batcher.score(Job(scorers[0], [TALK[seq]], True))
            await quiet()
            assert batcher._waiting == []
            assert batcher._running is None
        assert await batcher.close()

    asyncio.run(scenario())
