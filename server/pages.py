"""The web pages: rendered here, complete without a script, each with a ``.json`` twin from the same function.

An error on a page is a page too; on a twin it stays the problem document of the API. Every link is a path made from a route's
name, so that a prefix (``--root-path``) needs no further thought. The Content-Security-Policy lets a page ask
nobody but this host.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Coroutine
from datetime import datetime
from functools import lru_cache, partial
from pathlib import Path
from typing import Annotated, Any, TypeVar
from urllib.parse import quote

import jinja2
from fastapi import APIRouter, Query, Request, Response
from fastapi import Path as InPath
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, PlainTextResponse
from fastapi.routing import APIRoute
from pydantic import BaseModel
from sqlalchemy import Connection

from evolution import fitness
from evolution.campaign import Campaign
from evolution.result_files import ResultRow, yaml_value
from hypevolve import __version__, messages
from server import campaigns, candidates, charts, health, insights, judging, page_words, plots, result_rows, views, worker_views
from server.access import COOKIE, needs
from server.api_results import Weights
from server.caller import acting
from server.coordinator import coordinator_of
from server.errors import CoordinatorError, NotFound, Unavailable
from server.page_messages import CampaignPage, CampaignsPage, CandidatePage, InsightPage, WorkersPage

FOLDER = Path(__file__).parent
REFRESH_S = 5
POLICY = (
    "default-src 'self'; img-src 'self' data:; object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cache-Control": "no-store",
}

T = TypeVar("T")

Number = Annotated[int, InPath(ge=-(2**31), lt=2**31)]  # what the database can hold
Cursor = Annotated[str | None, Query(max_length=64)]


class PageRoute(APIRoute):
    """A route for people: what goes wrong is said on a page."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        answer = super().get_route_handler()

        async def answer_people(request: Request) -> Response:
            try:
                return await answer(request)
            except CoordinatorError as error:
                return await problem(request, error.status, str(error), again=isinstance(error, Unavailable))
            except RequestValidationError:
                return await problem(request, 404, "This address has a part that no page has, such as a number that is none.")

        return answer_people


router = APIRouter()
twins = APIRouter(tags=["pages"])
pages = APIRouter(route_class=PageRoute, include_in_schema=False)


@twins.get("/campaigns.json", dependencies=[needs("read")])
async def campaigns_twin(request: Request, cursor: Cursor = None) -> CampaignsPage:
    """What the page of all campaigns shows, from `cursor` on."""
    return await _read(request, partial(views.campaign_list, cursor=cursor))


@twins.get("/workers.json", dependencies=[needs("read")])
async def workers_twin(request: Request) -> WorkersPage:
    """What the page of workers shows."""
    return await _read(request, worker_views.workers)


@twins.get("/c/{name}.json", dependencies=[needs("read")])
async def campaign_twin(
    request: Request, name: str, state: messages.State | None = None, cursor: Cursor = None
) -> CampaignPage:
    """What a campaign's page shows, with the page of candidates that `cursor` names."""
    return await _read(request, partial(views.campaign, name=name, state=state, cursor=cursor))


@twins.get("/c/{name}/insight.json", dependencies=[needs("read")])
async def insight_twin(request: Request, name: str, fitness: Weights = None) -> InsightPage:
    """What a campaign has learned."""
    return await _insight(request, name, fitness)


@twins.get("/c/{name}/candidates/{number}.json", dependencies=[needs("read")])
async def candidate_twin(request: Request, name: str, number: Number) -> CandidatePage:
    """What a candidate's page shows."""
    return await _read(request, partial(views.candidate, name=name, number=number))


@pages.get("/", dependencies=[needs("read")])
async def campaigns_page(request: Request, cursor: Cursor = None) -> Response:
    shown = await _read(request, partial(views.campaign_list, cursor=cursor))
    alive = not shown.items or any(c.state != "finished" for c in shown.items)
    return await _page(request, "campaigns.html", shown, alive=alive, cursor=cursor)


@pages.get("/workers", dependencies=[needs("read")])
async def workers_page(request: Request) -> Response:
    return await _page(
        request, "workers.html", await _read(request, worker_views.workers), alive=True, gone_s=worker_views.GONE_S
    )


@pages.get("/c/{name}", dependencies=[needs("read")])
async def campaign_page(request: Request, name: str, state: messages.State | None = None, cursor: Cursor = None) -> Response:
    shown = await _read(request, partial(views.campaign, name=name, state=state, cursor=cursor))
    alive = shown.campaign.state != "finished"  # a halted one goes on once somebody retries
    return await _page(
        request,
        "campaign.html",
        shown,
        alive=alive,
        campaign=name,
        state=state,
        cursor=cursor,
        candidate_link=partial(_candidate, request, name),
        sheet_version=_sheet_version(shown.campaign.created_at, shown.campaign.counts.done),
        sheet_size=plots.size(len(shown.genes)) if shown.genes else None,
        halt_after=campaigns.HALT_AFTER,
    )


@pages.get("/c/{name}/insight", dependencies=[needs("read")])
async def insight_page(request: Request, name: str, fitness: Weights = None) -> Response:
    shown = await _insight(request, name, fitness or None)  # an empty field is none
    to_candidate = partial(_candidate, request, name)
    alive = shown.state == "running"
    return await _page(request, "insight.html", shown, alive=alive, campaign=name, candidate_link=to_candidate)


async def _insight(request: Request, name: str, fitness: str | None) -> InsightPage:
    weights = judging.read_weights(fitness)

    def look(connection: Connection) -> tuple[messages.Campaign, insights.Material]:
        return campaigns.summary(connection, campaigns.find(connection, name)), insights.read(connection, name, weights)

    summary, material = await _read(request, look)
    found = await coordinator_of(request).drawing(lambda: insights.report(material))
    return InsightPage(state=summary.state, formula=weights or summary.weights, judged_by=fitness, insight=found)


@pages.get("/c/{name}/sheet.png", dependencies=[needs("read")])
async def evolve_sheet(request: Request, name: str, v: str = "", dark: bool = False) -> Response:
    """`evolve.png` for the page: on paper of the page's colour, and kept by the browser until there is another result."""

    def read(connection: Connection) -> tuple[Campaign, int, list[ResultRow], str]:
        row = campaigns.find(connection, name)
        done, rows = result_rows.sample(connection, row, None)
        campaign = Campaign.from_document({**row.document, "imported": []})
        return campaign, done, rows, _sheet_version(row.created_at, done)

    coordinator = coordinator_of(request)
    campaign, done, rows, version = await _read(request, read)
    if not rows:
        raise NotFound("no-result", f"no candidate of '{name}' has finished yet, so there is nothing to draw")
    space, title = campaign.space, campaign.name
    png = await coordinator.drawing(lambda: plots.evolve_png(space, rows, title=title, dark=dark, done=done))
    kept = "private, max-age=86400, immutable" if v == version else "no-store"
    return Response(png, media_type="image/png", headers={"Cache-Control": kept})


@pages.get("/c/{name}/candidates/{number}.yaml", dependencies=[needs("read")])
async def candidate_yaml(request: Request, name: str, number: Number) -> Response:
    """The hyp set of one candidate as a file for `train.py --hyp`."""

    def read(connection: Connection) -> messages.Candidate:
        return candidates.find(connection, campaigns.find(connection, name), number)

    found = await _read(request, read)
    judged = "no fitness" if found.fitness is None else f"fitness {found.fitness:.6g}"
    lines = [f"# Campaign: {' '.join(name.split())}", f"# Candidate: {number}, {found.state}, {judged}", ""]
    lines += [f"{gene}: {yaml_value(value)}" for gene, value in found.hyp.items()]
    return PlainTextResponse("\n".join(lines) + "\n", media_type="application/yaml", headers={"Cache-Control": "no-store"})


@pages.get("/c/{name}/candidates/{number}", dependencies=[needs("read")])
async def candidate_page(request: Request, name: str, number: Number) -> Response:
    shown = await _read(request, partial(views.candidate, name=name, number=number))
    alive = shown.candidate.state in ("queued", "leased", "running")
    return await _page(request, "candidate.html", shown, alive=alive, campaign=name, curves=_curves(shown))


@pages.get("/docs", dependencies=[needs("read")])
async def docs(request: Request) -> Response:
    """The API's description, shown by a viewer that lies in this repository."""
    openapi = f"{request.scope.get('root_path', '').rstrip('/')}{request.app.openapi_url}"
    return await _page(request, "docs.html", None, alive=False, openapi=openapi)


router.include_router(health.router)
router.include_router(twins)  # first: `/c/{name}` would take `/c/x.json` for a campaign of that name
router.include_router(pages)


async def _read(request: Request, work: Callable[[Connection], T]) -> T:
    coordinator = coordinator_of(request)
    return await coordinator.ordinary(lambda: coordinator.database.run(work))


async def problem(request: Request, status: int, detail: str, *, again: bool = False) -> Response:
    return await _page(request, "problem.html", None, alive=again, status=status, detail=detail)


async def show(request: Request, template: str, *, status: int = 200, **more: Any) -> Response:
    """A page that shows nothing of the database."""
    return await _page(request, template, None, alive=False, status=status, **more)


async def _page(
    request: Request,
    template: str,
    shown: BaseModel | None,
    *,
    alive: bool,
    campaign: str | None = None,
    status: int = 200,
    **more: Any,
) -> Response:
    """A template with its numbers; ``alive`` pages look again every few seconds, and when ``campaign`` has an event.

    Drawing takes tens of milliseconds, so it is done in a thread: the event loop answers heartbeats meanwhile.
    """
    numbers = dict(
        page=shown,
        link=partial(link, request),
        asset=partial(_asset, request),
        origin=str(request.base_url).rstrip("/"),
        twin=_twin(request) if shown is not None else None,
        refresh_s=REFRESH_S if alive else None,
        events=link(request, "stream", name=campaign) if alive and campaign is not None else None,
        may_steer="operator" in acting.get().scopes,
        logged_in=acting.get().name if COOKIE in request.cookies and status not in (401, 403) else None,
        status=status,
        **more,
    )
    html = await coordinator_of(request).ordinary(lambda: templates().get_template(template).render(numbers))
    return HTMLResponse(html, status, HEADERS)


def link(request: Request, route: str, /, **values: Any) -> str:
    """The path of a route, prefix included. Values are quoted: a name is never a piece of an address."""
    return request.url_for(route, **{key: quote(str(value), safe="") for key, value in values.items()}).path


def _sheet_version(created_at: datetime, results: int) -> str:
    """Names one drawing: results never change, and a campaign of that name in another database was created at another time."""
    return f"{int(created_at.timestamp())}-{results}"


def _candidate(request: Request, campaign: str, number: int) -> str:
    return link(request, "candidate_page", name=campaign, number=number)


def _curves(shown: CandidatePage) -> dict[str, str]:
    """Learning curve and losses as SVG; the default's and the best's curve in grey behind it."""

    def line(name: str, metric: str, rows: list[messages.EpochRow], *, muted: bool = False) -> charts.Series:
        shift = 1 - shown.first_epoch  # people count from 1
        return charts.Series(name, [(row.epoch + shift, row.metrics[metric]) for row in rows if metric in row.metrics], muted)

    quality = [line(word, key, shown.curve) for key, word in page_words.METRICS.items() if key != "f1"]
    behind = [line("default", "map50_95", shown.default_curve, muted=True)]
    behind.append(line(f"#{shown.best_number}", "map50_95", shown.best_curve, muted=True))
    losses = sorted({key for row in shown.curve for key in row.metrics if key.startswith(("train_", "val_"))})
    parts = list(dict.fromkeys(key.partition("_")[2] for key in losses))
    drawn = [
        line(key.replace("_", " "), key, shown.curve)._replace(
            hue=parts.index(key.partition("_")[2]), dashed=key.startswith("val_")
        )
        for key in losses
    ]
    ended = shown.candidate.state in ("done", "failed", "cancelled")
    return {
        "quality": charts.learning_curve(
            [*behind, *quality] if shown.curve else [],
            label="quality over epochs",
            until=shown.epochs,
            empty="no epoch was evaluated" if ended else "not evaluated yet",
        ),
        "losses": charts.learning_curve(drawn, label="losses over epochs", until=shown.epochs, zero=True) if drawn else "",
    }


def _asset(request: Request, name: str) -> str:
    """A static file's path; the query changes with its content, so that a browser never shows an old page in new clothes."""
    return f"{request.url_for('static', path=name).path}?v={_fingerprint(name)}"


@lru_cache
def _fingerprint(name: str) -> str:
    return hashlib.sha256((FOLDER / "static" / name).read_bytes()).hexdigest()[:12]


def _twin(request: Request) -> str:
    path = "campaigns.json" if request.url.path.endswith("/") else request.url.path.rpartition("/")[2] + ".json"
    return f"{path}?{request.url.query}" if request.url.query else path


@lru_cache
def templates() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(FOLDER / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(page_words.FILTERS)
    environment.globals.update(charts=charts, formula=fitness.formula, version=__version__)
    environment.globals.update(states=page_words.STATES, icons=page_words.ICONS, metric_words=page_words.METRICS)
    return environment
