"""Two questions that machines ask: is the process alive, and can it serve."""

from __future__ import annotations

from fastapi import APIRouter, Request
from sqlalchemy import text

from hypevolve import messages
from hypevolve.messages import Answer
from server.coordinator import coordinator_of

router = APIRouter(tags=["health"])


class Health(Answer):
    status: str


@router.get("/healthz")
async def healthz() -> Health:
    """The process answers. It does not look at the database: restarting a coordinator mends no database."""
    return Health(status="alive")


@router.get("/readyz", responses={503: {"model": messages.Problem, "description": "The database cannot answer now"}})
async def readyz(request: Request) -> Health:
    """The database answers, so that requests may be sent here."""
    coordinator = coordinator_of(request)
    await coordinator.essential(lambda: coordinator.database.run(lambda c: c.execute(text("select 1")).all(), essential=True))
    return Health(status="ready")
