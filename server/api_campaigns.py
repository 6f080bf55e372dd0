"""Campaigns and candidates over HTTP, for people and their scripts."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Annotated, TypeVar

from fastapi import APIRouter, Path, Query, Request, Response
from sqlalchemy import Connection

from evolution.campaign import Campaign
from evolution.strategy import OptionError
from hypevolve import messages
from server import campaigns, candidates, changes, confirming, events, insights, judging, replaying, steering, strategies
from server.access import needs
from server.api_results import Weights
from server.caller import acting
from server.coordinator import coordinator_of
from server.errors import Forbidden, Invalid

router = APIRouter(tags=["campaigns"])

T = TypeVar("T")

Number = Annotated[int, Path(ge=-(2**31), lt=2**31)]  # what the database can hold
YAML_TYPES = ("application/yaml", "application/x-yaml", "text/yaml", "text/x-yaml")


async def _store(request: Request, work: Callable[[Connection], T]) -> T:
    coordinator = coordinator_of(request)
    return await coordinator.ordinary(lambda: coordinator.database.run(work))


@router.get("/campaigns", dependencies=[needs("read")])
async def list_campaigns(
    request: Request,
    cursor: Annotated[str | None, Query(max_length=64)] = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 50,
) -> messages.CampaignList:
    """Campaigns in numbers, the newest first. `next` is the cursor of the following page."""

    def work(connection: Connection) -> messages.CampaignList:
        rows, more = campaigns.page(connection, cursor, limit)
        return messages.CampaignList(items=[campaigns.summary(connection, row) for row in rows], next=more)

    return await _store(request, work)


@router.post(
    "/campaigns",
    dependencies=[needs("operator")],
    responses={200: {"description": "The same campaign was there already"}, 201: {"model": messages.Campaign}},
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": {"type": "object"}}, "application/yaml": {"schema": {"type": "string"}}},
        }
    },
)
async def create(request: Request, response: Response) -> messages.Campaign:
    """Create a campaign from a campaign file, as JSON or YAML, with the hyp set inline.

    Creating the same campaign again answers 200 and changes nothing.
    """
    body = await request.body()
    kind = request.headers.get("content-type", "application/json").partition(";")[0].strip().lower()
    campaign = _parse(body, kind)
    _strategy_is_here(campaign)
    if not acting.get().may_see(campaign.name):
        raise Forbidden(
            "bound", f"this token is bound to {', '.join(acting.get().only or [])}; '{campaign.name}' is none of them"
        )

    def work(connection: Connection) -> tuple[bool, messages.Campaign]:
        new = campaigns.create(connection, campaign)
        return new, campaigns.summary(connection, campaigns.find(connection, campaign.name))

    new, summary = await _store(request, work)
    coordinator_of(request).watch.stir()
    response.status_code = 201 if new else 200
    return summary


def _strategy_is_here(campaign: Campaign) -> None:
    """Raises Invalid where the campaign's strategy cannot be loaded by this coordinator."""
    try:
        strategies.create(campaign.strategy, campaign.options)
    except OptionError as error:
        raise Invalid("strategy", f"evolve.{error}") from error


def _parse(body: bytes, kind: str) -> Campaign:
    try:
        source = body.decode()
    except UnicodeDecodeError as error:
        raise Invalid("not-utf8", f"the body is not UTF-8: {error}") from error
    if kind in YAML_TYPES:
        return Campaign.read(source, "request", _no_files)
    try:
        document = json.loads(source, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise Invalid("not-json", f"the body is not JSON: {error}; send YAML as application/yaml") from error
    if not isinstance(document, dict):
        raise Invalid("not-an-object", "a campaign is a JSON object, as in the campaign file")
    return Campaign.from_document(document)


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is no JSON number")


def _no_files(name: str) -> str:
    raise FileNotFoundError(f"the coordinator opens no file of yours; put the contents of {name} inline")


@router.get("/campaigns/{name}", dependencies=[needs("read")])
async def show(request: Request, name: str) -> messages.Campaign:
    """One campaign in numbers that add up, with its best and its default candidate."""
    return await _store(request, lambda c: campaigns.summary(c, campaigns.find(c, name)))


async def _steer(request: Request, name: str, work: Callable[[Connection], object]) -> messages.Campaign:
    """Carry out a decision; how the campaign stands then."""

    def both(connection: Connection) -> messages.Campaign:
        work(connection)
        return campaigns.summary(connection, campaigns.find(connection, name))

    summary = await _store(request, both)
    coordinator_of(request).watch.stir()
    return summary


@router.patch("/campaigns/{name}", dependencies=[needs("operator")])
async def change(request: Request, name: str, body: messages.ChangeCampaign) -> messages.Campaign:
    """Set the budget anew (candidates, gpu_hours, deadline, patience), or priority and share; null takes a limit away."""
    return await _steer(request, name, lambda c: campaigns.change(c, name, body))


@router.post("/campaigns/{name}/pause", dependencies=[needs("operator")])
async def pause(request: Request, name: str) -> messages.Campaign:
    """Give out nothing until it is resumed; what trains is finished, and counts."""
    return await _steer(request, name, lambda c: steering.decide(c, name, "paused"))


@router.post("/campaigns/{name}/resume", dependencies=[needs("operator")])
async def resume(request: Request, name: str) -> messages.Campaign:
    """Go on with a campaign that was paused or drained."""
    return await _steer(request, name, lambda c: steering.decide(c, name, "running"))


@router.post("/campaigns/{name}/drain", dependencies=[needs("operator")])
async def drain(request: Request, name: str) -> messages.Campaign:
    """Give out nothing more; once what trains is finished, so is the campaign."""
    return await _steer(request, name, lambda c: steering.decide(c, name, "draining"))


@router.post("/campaigns/{name}/cancel", dependencies=[needs("operator")])
async def cancel(request: Request, name: str) -> messages.Cancelled:
    """End a campaign for good: what is queued or trains is cancelled, workers hear it at their next heartbeat."""
    return messages.Cancelled(cancelled=await _store(request, lambda c: steering.cancel(c, name)))


@router.patch("/campaigns/{name}/space", dependencies=[needs("operator")])
async def change_space(request: Request, name: str, body: messages.ChangeSpace) -> messages.Campaign:
    """Breed within other bounds from the next candidate on; rows outside of them still inform."""

    def work(connection: Connection) -> messages.Campaign:
        changes.change_space(connection, name, body.space)
        return campaigns.summary(connection, campaigns.find(connection, name))

    return await _store(request, work)


@router.put("/campaigns/{name}/fitness", dependencies=[needs("operator")])
async def change_fitness(request: Request, name: str, body: messages.ChangeFitness) -> messages.Campaign:
    """Judge every result by other weights, those to come too. Metrics are stored, so nothing is trained again."""
    return await _steer(request, name, lambda c: changes.change_fitness(c, name, body.weights))


@router.post("/campaigns/{name}/candidates", status_code=201, dependencies=[needs("operator")])
async def enqueue(request: Request, name: str, body: messages.Enqueue) -> messages.Enqueued:
    """Train hyp sets of one's own next, within the budget."""
    numbers = await _store(request, lambda c: changes.enqueue(c, name, body.request_id, body.hyps))
    coordinator_of(request).watch.stir()
    return messages.Enqueued(numbers=numbers)


@router.get("/campaigns/{name}/audit", dependencies=[needs("operator")])
async def audit(
    request: Request,
    name: str,
    after: Annotated[int, Query(ge=-1, lt=2**31)] = -1,
    limit: Annotated[int, Query(ge=1, le=50)] = 10,
) -> messages.AuditPage:
    """Breed candidates again from the rows that they were bred from, and compare. Takes as long as breeding did."""
    coordinator = coordinator_of(request)
    return await coordinator.drawing(lambda: coordinator.database.run(lambda c: replaying.audit(c, name, after, limit)))


@router.get("/campaigns/{name}/confirm", dependencies=[needs("read")])
async def confirmations(request: Request, name: str) -> messages.Confirmations:
    """What trainings anew with fresh seeds measured, of each hyp set that has any."""
    return await _store(request, lambda c: confirming.confirmations(c, name))


@router.post("/campaigns/{name}/confirm", dependencies=[needs("operator")])
async def confirm(request: Request, name: str, body: messages.Confirm) -> messages.Confirmations:
    """Train the best hyp sets again with fresh seeds, outside the budget. Repeating it queues only what lacks."""
    found = await _store(request, lambda c: confirming.confirm(c, name, body))
    coordinator_of(request).watch.stir()
    return found


@router.post("/campaigns/{name}/imported", dependencies=[needs("operator")])
async def import_rows(request: Request, name: str, body: messages.Import) -> messages.Imported:
    """Add results of earlier evolutions as parents, outside the budget. What the campaign has already changes nothing."""
    found = await _store(request, lambda c: changes.import_rows(c, name, body.rows))
    coordinator_of(request).watch.stir()
    return found


@router.post("/campaigns/{name}/retry", dependencies=[needs("operator")])
async def retry(request: Request, name: str) -> messages.Retried:
    """Offer every failed candidate again, once what made them fail is mended; a halted campaign goes on."""
    retried = await _store(request, lambda c: campaigns.retry(c, name))
    coordinator_of(request).watch.stir()
    return messages.Retried(retried=retried)


@router.post("/campaigns/{name}/candidates/{number}/cancel", dependencies=[needs("operator")])
async def cancel_candidate(request: Request, name: str, number: Number) -> messages.Candidate:
    """End one candidate; its place in the budget stays used."""

    def work(connection: Connection) -> messages.Candidate:
        steering.cancel_candidate(connection, name, number)
        return candidates.find(connection, campaigns.find(connection, name), number)

    return await _store(request, work)


@router.post("/campaigns/{name}/candidates/{number}/retry", dependencies=[needs("operator")])
async def retry_candidate(request: Request, name: str, number: Number) -> messages.Candidate:
    """Offer a failed or cancelled candidate again, as if it had never been tried."""

    def work(connection: Connection) -> messages.Candidate:
        steering.retry_candidate(connection, name, number)
        return candidates.find(connection, campaigns.find(connection, name), number)

    found = await _store(request, work)
    coordinator_of(request).watch.stir()
    return found


@router.get("/campaigns/{name}/candidates", dependencies=[needs("read")])
async def list_candidates(
    request: Request,
    name: str,
    state: messages.State | None = None,
    cursor: Annotated[str | None, Query(max_length=64)] = None,
    limit: Annotated[int, Query(ge=1, le=500)] = 100,
) -> messages.CandidatePage:
    """Candidates by number. `next` is the cursor of the following page."""
    return await _store(
        request, lambda c: candidates.page(c, campaigns.find(c, name).id, state=state, cursor=cursor, limit=limit)
    )


@router.get("/campaigns/{name}/candidates/{number}", dependencies=[needs("read")])
async def candidate(request: Request, name: str, number: int) -> messages.Candidate:
    return await _store(request, lambda c: candidates.find(c, campaigns.find(c, name), number))


@router.get("/campaigns/{name}/candidates/{number}/epochs", dependencies=[needs("read")])
async def curve(request: Request, name: str, number: int) -> messages.EpochCurve:
    """The learning curve of one candidate."""
    return await _store(request, lambda c: candidates.curve(c, campaigns.find(c, name), number))


@router.get("/campaigns/{name}/events", dependencies=[needs("read")])
async def list_events(
    request: Request,
    name: str,
    after: Annotated[str, Query(max_length=40)] = events.START,
    limit: Annotated[int, Query(ge=1, le=1000)] = 200,
) -> messages.EventPage:
    """Everything that changed, and who changed it, the oldest first. Who has read up to `next` has read all before it."""
    return await _store(request, lambda c: events.page(c, campaigns.find(c, name).id, cursor=after, limit=limit))


@router.get("/campaigns/{name}/best", dependencies=[needs("read")])
async def best(
    request: Request, name: str, n: Annotated[int, Query(ge=1, le=100)] = 1, fitness: Weights = None
) -> list[messages.Candidate]:
    """The fittest candidates, the best first."""
    weights = judging.read_weights(fitness)
    return await _store(request, lambda c: candidates.best(c, campaigns.find(c, name).id, n, weights))


@router.get("/campaigns/{name}/insight", dependencies=[needs("read")])
async def insight(request: Request, name: str, fitness: Weights = None) -> messages.Insight:
    """What the campaign has learned: which genes matter and how surely, the story of the best, is going on worth it."""
    coordinator = coordinator_of(request)
    weights = judging.read_weights(fitness)
    material = await _store(request, lambda c: insights.read(c, name, weights))
    return await coordinator.drawing(lambda: insights.report(material))
