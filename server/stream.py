"""The live event stream (server-sent events): what ``…/events`` answers page by page, sent as it happens.

Streams wait in the event loop and cost nothing there: one look at the database a second serves all of them, and a stream reads
only when its campaign has something new. What a browser has seen it says itself when it comes back (``Last-Event-ID``), and the
order of events is final, so nothing is lost or told twice between two streams.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping
from typing import Annotated

from fastapi import APIRouter, Header, Query, Request
from fastapi.responses import StreamingResponse
from sqlalchemy import Connection

from hypevolve import messages
from server import campaigns, events
from server.access import FRESH_S, door_of, needs
from server.coordinator import Coordinator, coordinator_of
from server.errors import CoordinatorError, Unavailable
from server.events import Place

router = APIRouter(tags=["campaigns"])

LOOK_S = 1.0
QUIET_S = 15.0  # after so long without an event a comment is sent, so that no proxy takes the stream for dead
AT_ONCE = 200  # events
MOST = 256  # streams of one coordinator


class EventWatch:
    """Streams that wait for the next event of their campaign.

    Args:
        look: the newest place of each of these campaigns.
    """

    def __init__(self, look: Callable[[Collection[int]], Awaitable[Mapping[int, Place]]]) -> None:
        self._look = look
        self._waiting: dict[int, set[asyncio.Future[bool]]] = {}
        self._newest: dict[int, Place] = {}
        self.open = 0
        self.closed = False

    async def wait(self, campaign: int, place: Place, seconds: float) -> bool:
        """True as soon as the campaign may have events beyond ``place``, False after ``seconds``."""
        if self._newest.get(campaign, place) > place or self.closed:
            return True
        woken = asyncio.get_running_loop().create_future()
        waiting = self._waiting.setdefault(campaign, set())
        waiting.add(woken)
        try:
            return await asyncio.wait_for(woken, seconds)
        except TimeoutError:
            return False
        finally:
            waiting.discard(woken)

    def close(self) -> None:
        """End every stream: the coordinator stops. Clients come back to whoever serves then."""
        self.closed = True
        for campaign in list(self._waiting):
            self._wake(campaign)

    async def run(self) -> None:
        """Look and wake, until cancelled."""
        while True:
            await asyncio.sleep(LOOK_S)
            self._waiting = {campaign: waiting for campaign, waiting in self._waiting.items() if waiting}
            self._newest = {campaign: place for campaign, place in self._newest.items() if campaign in self._waiting}
            if not self._waiting:
                continue
            with contextlib.suppress(Unavailable):  # the next look may find the database again
                for campaign, place in (await self._look(list(self._waiting))).items():
                    if self._newest.get(campaign) != place:
                        self._newest[campaign] = place
                        self._wake(campaign)

    def _wake(self, campaign: int) -> None:
        for woken in self._waiting.pop(campaign, ()):
            if not woken.done():
                woken.set_result(True)


@router.get(
    "/campaigns/{name}/events/stream",
    dependencies=[needs("read")],
    response_class=StreamingResponse,
    responses={200: {"content": {"text/event-stream": {"schema": {"type": "string"}}}}},
)
async def stream(
    request: Request,
    name: str,
    after: Annotated[str | None, Query(max_length=40)] = None,
    last_event_id: Annotated[str | None, Header(max_length=40)] = None,
) -> StreamingResponse:
    """Everything that changes, as it changes: each `data:` is an event as `…/events` has it, each `id:` its place.

    Begins after `Last-Event-ID` or `after` (`0-0`: at the first event), else with what comes next.
    """
    coordinator = coordinator_of(request)
    watch: EventWatch = request.app.state.event_watch
    if watch.open >= MOST:
        raise Unavailable("streams", f"{MOST} event streams are open here; ask `…/events` instead, or another coordinator")

    def begin(connection: Connection) -> tuple[int, Place]:
        campaign: int = campaigns.find(connection, name).id
        asked = last_event_id or after
        if asked is not None:
            return campaign, events.read_place(asked)
        return campaign, events.newest(connection, [campaign]).get(campaign, events.read_place(events.START))

    campaign, place = await coordinator.ordinary(lambda: coordinator.database.run(begin))
    return StreamingResponse(
        _sent(request, coordinator, watch, campaign, place),
        media_type="text/event-stream",
        headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
    )


async def _sent(
    request: Request, coordinator: Coordinator, watch: EventWatch, campaign: int, place: Place
) -> AsyncIterator[str]:
    """The text of a stream. It ends with the coordinator, and within seconds once its caller is let in no more."""

    def read(connection: Connection) -> list[tuple[Place, messages.Event]]:
        return events.after(connection, campaign, place, AT_ONCE)

    watch.open += 1
    try:
        yield f": from {events.write_place(place)}\n\n"
        asked_at = told_at = time.monotonic()
        news = True
        while not watch.closed:
            found = []
            if news:
                try:
                    found = await coordinator.ordinary(lambda: coordinator.database.run(read))
                except Unavailable:
                    return  # the client comes back with the place it has reached
            for place, event in found:
                yield f"id: {events.write_place(place)}\ndata: {event.model_dump_json()}\n\n"
            now = time.monotonic()
            if not found and now - told_at > QUIET_S:
                yield ": still here\n\n"
            if found or now - told_at > QUIET_S:
                told_at = now
            if now - asked_at > FRESH_S:
                asked_at = now
                if not await _still_let_in(request):
                    return
            news = len(found) == AT_ONCE or await watch.wait(campaign, place, FRESH_S)
    finally:
        watch.open -= 1


async def _still_let_in(request: Request) -> bool:
    try:
        await door_of(request).caller("GET", request.headers, request.client.host if request.client else "")
    except CoordinatorError:
        return False
    return True


def event_watch(coordinator: Coordinator) -> EventWatch:
    async def look(listened: Collection[int]) -> Mapping[int, Place]:
        return await coordinator.ordinary(lambda: coordinator.database.run(lambda c: events.newest(c, listened)))

    return EventWatch(look)
