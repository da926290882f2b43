"""The thread that owns model and device: what sessions want of it at the same time goes through in one batch."""

import asyncio

from stream.messages import Score, Window
from stream.scorer import Job, Scorer, score
from stream.worker import Worker


class Batcher:
    """Scores for all sessions of one engine.

    Example:
        final = await batcher.score(Job(scorer, [window], final=True))
    """

    def __init__(self) -> None:
        """Start the thread."""
        self._worker = Worker("device")
        self._waiting: list[tuple[Job, asyncio.Future[Score]]] = []
        self._running: asyncio.Task[None] | None = None

    async def score(self, job: Job) -> Score:
        """Do a job, with those that others ask for meanwhile; a session asks for one at a time."""
        done: asyncio.Future[Score] = asyncio.get_running_loop().create_future()
        self._waiting.append((job, done))
        if self._running is None:
            self._running = asyncio.create_task(self._run())
        return await done

    async def prepare(self, scorer: Scorer, tail: list[Window]) -> bool:
        """Let a session's next scores find their words looked up; see `Scorer.prepare`."""
        return await self._worker.call(scorer.prepare, tail)

    async def close(self) -> bool:
        """End the thread; whether it did within a second."""
        return await self._worker.close()

    async def _run(self) -> None:
        while self._waiting:
            await asyncio.sleep(0)  # sessions whose windows end at the same moment all come in
            batch, self._waiting = self._waiting, []
            try:
                scores = await self._worker.call(score, [job for job, _ in batch])
            except Exception as error:
                for _, done in batch:
                    if not done.done():
                        done.set_exception(error)
            else:
                for (_, done), found in zip(batch, scores, strict=True):
                    if not done.done():  # its session was cancelled meanwhile
                        done.set_result(found)
        self._running = None
