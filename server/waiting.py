"""The long poll: asks that found no work wait in the event loop and cost nothing there.

One look at the database per interval serves all of them, and wakes no more asks than there is work for. Whatever may have made
work in this process (a failure, a release, a new campaign) stirs the watch at once; work made through another replica is found
by the next look, so correctness never depends on being told.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple

from server.errors import Unavailable
from server.fair import Offer, Work

LOOK_S = 0.5


class _Waiter(NamedTuple):
    woken: asyncio.Future[bool]
    campaigns: frozenset[str] | None
    offer: Offer


class WorkWatch:
    """Asks that wait, first come first served.

    Args:
        look: the campaigns that could serve asks now, in fair order.
    """

    def __init__(self, look: Callable[[], Awaitable[Sequence[Work]]]) -> None:
        self._look = look
        self._waiting: list[_Waiter] = []
        self._stirred = asyncio.Event()

    def __len__(self) -> int:
        return len(self._waiting)

    def stir(self) -> None:
        """Look now, if anybody waits: something here may have made work."""
        if self._waiting:
            self._stirred.set()

    async def wait(self, campaigns: list[str] | None, offer: Offer, seconds: float) -> bool:
        """True as soon as there may be work that the offer suits, False after ``seconds``."""
        names = None if campaigns is None else frozenset(campaigns)
        waiter = _Waiter(asyncio.get_running_loop().create_future(), names, offer)
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
                works = await self._look()
            except Unavailable:
                continue  # the asks go on waiting; the next look may find the database again
            left = {work.id: work.returned + work.unbred for work in works}
            for waiter in list(self._waiting):
                suited = (work for work in works if left[work.id] and work.suits(waiter.offer, waiter.campaigns))
                work = next(suited, None)
                if work is None or waiter.woken.done():
                    continue
                waiter.woken.set_result(True)
                left[work.id] -= 1
