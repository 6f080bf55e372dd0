"""What the routes of one coordinator process share: the database behind thread limiters, the breeder, the waiting asks."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from typing import TypeVar

import anyio
from anyio.to_thread import run_sync
from fastapi import Request

from hypevolve import messages
from server import asking, checkpoints, fair, pulse, results, tally
from server.artifacts import ArtifactStore
from server.breeding import Breeder
from server.caller import acting
from server.database import Database
from server.desk import Desk
from server.errors import Unavailable
from server.waiting import WorkWatch

T = TypeVar("T")

ESSENTIAL_THREADS = 4
ORDINARY_THREADS = 8
TRANSFERS = 16  # checkpoints on their way at once; more wait, and with them their senders
MOST_CHECKPOINT_BYTES = 4 << 30


class Coordinator:
    """Sync work is done in threads, waiting in the event loop."""

    def __init__(
        self, database: Database, artifacts: ArtifactStore | None = None, most_checkpoint_bytes: int = MOST_CHECKPOINT_BYTES
    ) -> None:
        self.database = database
        self.artifacts = artifacts
        self.most_checkpoint_bytes = most_checkpoint_bytes
        self.transfers = asyncio.Semaphore(TRANSFERS)
        self.breeder = Breeder(database)
        self.watch = WorkWatch(self._look)
        self._asks: Desk[asking.Asked, asking.Answer | asking.Chosen] = Desk("asks", self._answers)
        self._results = Desk("results", self._verdicts)
        self._essential = anyio.CapacityLimiter(ESSENTIAL_THREADS)
        self._ordinary = anyio.CapacityLimiter(ORDINARY_THREADS)
        self._drawing = anyio.CapacityLimiter(1)
        self._moving = anyio.CapacityLimiter(TRANSFERS)

    async def essential(self, work: Callable[[], T]) -> T:
        """Run a heartbeat, result or release: never behind asks or pages."""
        return await run_sync(work, limiter=self._essential)

    async def ordinary(self, work: Callable[[], T]) -> T:
        return await run_sync(work, limiter=self._ordinary)

    async def ask(self, asked: messages.Ask) -> asking.Answer:
        """Serve an ask, together with those that came at the same time where it can be."""
        caller = acting.get()
        answer = await self._asks.bring(asking.Asked(asked, caller)) if caller.campaigns is None else None
        if isinstance(answer, asking.Answer):
            return answer
        if answer is not None:
            return await self.ordinary(lambda: asking.bred(self.database, self.breeder, asked, answer))
        return await self.ordinary(lambda: asking.ask(self.database, self.breeder, asked))

    def _answers(self, asked: Sequence[asking.Asked]) -> list[asking.Answer | asking.Chosen | None]:
        return self.database.run(lambda connection: asking.together(connection, self.breeder, asked))

    async def result(self, candidate: int, token: str, body: messages.Result) -> results.Verdict:
        """Store a result, together with those that came at the same time where it can be."""
        verdict = await self._results.bring(results.Posted(candidate, token, body, acting.get()))
        if verdict is not None:
            return verdict
        return await self.essential(
            lambda: self.database.run(lambda c: results.store_result(c, candidate, token, body), essential=True)
        )

    def _verdicts(self, posted: Sequence[results.Posted]) -> list[results.Verdict | None]:
        return self.database.run(lambda connection: results.store_together(connection, posted), essential=True)

    async def drawing(self, work: Callable[[], T]) -> T:
        """Draw a picture: a second of computing, in which asks must not queue."""
        return await run_sync(work, limiter=self._drawing)

    async def moving(self, work: Callable[[], T]) -> T:
        """Read or write a piece of an artifact: disks and buckets may be slow, and nothing else waits for them."""
        return await run_sync(work, limiter=self._moving)

    async def _look(self) -> list[fair.Work]:
        """One look for all asks that wait. A strategy that waits for results has no work until there is one."""
        return self.breeder.waiting.without(await self.ordinary(lambda: self.database.run(fair.works)))

    async def beat(self) -> None:
        """Write the service's pulse, and keep its numbers short, until cancelled."""
        while True:
            with contextlib.suppress(Unavailable):
                await self.essential(lambda: self.database.run(pulse.beat, essential=True))
                await self.ordinary(lambda: self.database.run(tally.fold))
            await asyncio.sleep(pulse.INTERVAL_S)

    async def collect(self) -> None:
        """Remove checkpoints that nobody will read again, until cancelled."""
        store = self.artifacts
        while store is not None:
            await asyncio.sleep(checkpoints.COLLECT_EVERY_S)
            with contextlib.suppress(Unavailable):
                await self.moving(lambda: checkpoints.collect(self.database, store))


def coordinator_of(request: Request) -> Coordinator:
    coordinator: Coordinator = request.app.state.coordinator
    return coordinator
