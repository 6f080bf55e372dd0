"""The long poll: asks that found no work wait in the event loop and cost nothing there.

One look at the database per interval serves all of them, and wakes no more asks than there is work for. Whatever may have made
work in this process (a failure, a release, a new campaign) stirs the watch at once; work made through another replica is found
by the next look, so correctness never depends on being told.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping
from typing import NamedTuple

from sqlalchemy import Connection, text

from server.campaigns import HALTED
from server.errors import Unavailable
from server.pulse import LEASES_MAY_EXPIRE

LOOK_S = 0.5


def work_by_campaign(connection: Connection) -> dict[str, int]:
    """How many asks each campaign could serve now."""
    rows = connection.execute(
        text(
            f"""
            select c.name, case when {HALTED} then 0 else c.candidates - c.bred end
                 + (select count(*) from candidate k where k.campaign_id = c.id and k.state = 'queued')
                 + (select count(*) from lease l where l.campaign_id = c.id and l.expires_at < clock_timestamp()
                    and {LEASES_MAY_EXPIRE}) as work
            from campaign c
            """
        )
    )
    return {row.name: row.work for row in rows if row.work > 0}


class _Waiter(NamedTuple):
    woken: asyncio.Future[bool]
    campaigns: frozenset[str] | None


class WorkWatch:
    """Asks that wait, first come first served.

    Args:
        look: how many asks each campaign could serve now.
    """

    def __init__(self, look: Callable[[], Awaitable[Mapping[str, int]]]) -> None:
        self._look = look
        self._waiting: list[_Waiter] = []
        self._stirred = asyncio.Event()

    def __len__(self) -> int:
        return len(self._waiting)

    def stir(self) -> None:
        """Look now: something here may have made work."""
        self._stirred.set()

    async def wait(self, campaigns: list[str] | None, seconds: float) -> bool:
        """True as soon as there may be work, False after ``seconds``."""
        waiter = _Waiter(asyncio.get_running_loop().create_future(), None if campaigns is None else frozenset(campaigns))
        self._waiting.append(waiter)
        try:
            return await asyncio.wait_for(waiter.woken, seconds)
        except TimeoutError:
            return False
        finally:
            with contextlib.suppress(ValueError):
                self._waiting.remove(waiter)

    def dismiss(self) -> None:
        """Send everybody away: the coordinator stops."""
        for waiter in self._waiting:
            if not waiter.woken.done():
                waiter.woken.set_result(False)

    async def run(self) -> None:
        """Look and wake, until cancelled."""
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stirred.wait(), LOOK_S)
            self._stirred.clear()
            if not self._waiting:
                continue
            try:
                work = dict(await self._look())
            except Unavailable:
                continue  # the asks go on waiting; the next look may find the database again
            for waiter in list(self._waiting):
                name = next((name for name in work if waiter.campaigns is None or name in waiter.campaigns), None)
                if name is None or waiter.woken.done():
                    continue
                waiter.woken.set_result(True)
                work[name] -= 1
                if work[name] == 0:
                    del work[name]
