"""Access tokens over HTTP, and what happened to the service itself: for those who look after it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, TypeVar

from fastapi import APIRouter, Query, Request
from sqlalchemy import Connection

from hypevolve import messages
from server import events, tokens
from server.access import needs
from server.coordinator import coordinator_of

router = APIRouter(tags=["access"])

T = TypeVar("T")


async def _store(request: Request, work: Callable[[Connection], T]) -> T:
    coordinator = coordinator_of(request)
    return await coordinator.ordinary(lambda: coordinator.database.run(work))


@router.post("/tokens", status_code=201, dependencies=[needs("admin")])
async def create(request: Request, body: messages.CreateToken) -> messages.NewToken:
    """Make an access token. This answer shows it; nobody can show it again."""
    return await _store(request, lambda c: tokens.create(c, body))


@router.get("/tokens", dependencies=[needs("admin")])
async def list_tokens(request: Request) -> messages.TokenList:
    """Every token that was ever made, the newest first, without what it says."""
    return messages.TokenList(items=await _store(request, tokens.listed))


@router.delete("/tokens/{token_name}", dependencies=[needs("admin")])
async def revoke(request: Request, token_name: str) -> messages.Token:
    """End a token, within five seconds on every coordinator. What its workers were training is offered to others at once."""
    return await _store(request, lambda c: tokens.revoke(c, token_name))


@router.get("/events", dependencies=[needs("admin")])
async def list_events(
    request: Request,
    after: Annotated[str, Query(max_length=40)] = events.START,
    limit: Annotated[int, Query(ge=1, le=1000)] = 200,
) -> messages.EventPage:
    """What changed in the service itself (tokens), and who changed it, the oldest first."""
    return await _store(request, lambda c: events.page(c, None, cursor=after, limit=limit))
