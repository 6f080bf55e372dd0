"""The result files of a campaign over HTTP: sent line by line as they are read, however many candidates there are."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from itertools import islice
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import PlainTextResponse, StreamingResponse
from sqlalchemy import Connection, Row

from evolution import result_files
from evolution.campaign import Campaign
from evolution.result_files import ResultRow
from server import campaigns, candidates, judging, result_rows, tally
from server.access import needs
from server.coordinator import Coordinator, coordinator_of
from server.errors import NotFound
from server.plots import evolve_png

router = APIRouter(tags=["results"])

Weights = Annotated[
    str | None,
    Query(max_length=200, description="Judge by these weights instead of the campaign's: `map50=0.1,map50_95=0.9`."),
]


def _file(media_type: str) -> dict[str, Any]:
    """How a route describes that it answers a file."""
    content = {media_type: {"schema": {"type": "object" if "yaml" in media_type else "string"}}}
    return {"response_class": Response, "responses": {200: {"content": content}}, "dependencies": [needs("read")]}


class _Asked:
    """A campaign, and its results judged by the weights of the query, if any.

    Raises:
        NotFound: no such campaign.
        Invalid: the weights are none, or a result lacks a metric that has one.
    """

    def __init__(self, connection: Connection, name: str, written: str | None) -> None:
        self.row: Row[Any] = campaigns.find(connection, name)
        self.weights = judging.read_weights(written)
        self.campaign = Campaign.from_document({**self.row.document, "imported": []})
        if self.weights is not None:
            judging.refuse_unweighable(connection, self.row.id, self.weights)
            self.campaign = replace(self.campaign, weights=self.weights)


async def _asked(request: Request, name: str, written: str | None = None) -> tuple[Coordinator, _Asked]:
    coordinator = coordinator_of(request)
    asked = await coordinator.ordinary(lambda: coordinator.database.run(lambda c: _Asked(c, name, written)))
    return coordinator, asked


async def _sent(coordinator: Coordinator, lines: Iterator[str], media_type: str) -> StreamingResponse:
    """Lines as they come. What goes wrong before the first is answered as an error; after it the file is cut off."""

    async def piece() -> str:
        return await coordinator.ordinary(lambda: "".join(islice(lines, result_rows.PIECE)))

    first = await piece()

    async def pieces() -> AsyncIterator[str]:
        sent = first
        while sent:
            yield sent
            sent = await piece()

    return StreamingResponse(pieces(), media_type=media_type)


@router.get("/campaigns/{name}/hyp_evolved.yaml", **_file("application/yaml"))
async def hyp_evolved(request: Request, name: str, fitness: Weights = None) -> Any:
    """The best hyp set so far, as the file that `train.py --hyp` takes."""

    def work(connection: Connection) -> str:
        asked = _Asked(connection, name, fitness)
        best = candidates.best(connection, asked.row.id, 1, asked.weights)
        if not best:
            raise NotFound("no-result", f"no candidate of '{name}' has finished yet, so there is no best hyp set")
        found = best[0]
        row = ResultRow(found.number, found.hyp, found.metrics or {}, found.fitness or 0.0)
        done, campaign = tally.of(connection, asked.row.id).done, asked.campaign
        return result_files.hyp_yaml(campaign.name, row, of=done, weights=campaign.weights, space=campaign.space)

    coordinator = coordinator_of(request)
    body = await coordinator.ordinary(lambda: coordinator.database.run(work))
    return PlainTextResponse(body, media_type="application/yaml")


@router.get("/campaigns/{name}/evolve.csv", **_file("text/csv"))
async def evolve_csv(request: Request, name: str) -> Any:
    """Every done candidate in yolov5's `evolve.csv` layout, by number."""
    coordinator, asked = await _asked(request, name)
    rows = result_rows.by_number(coordinator.database, asked.row.id, None)
    return await _sent(coordinator, result_files.evolve_csv(asked.campaign.space, rows), "text/csv")


@router.get("/campaigns/{name}/evolve.txt", **_file("text/plain"))
async def evolve_txt(request: Request, name: str, fitness: Weights = None) -> Any:
    """Every done candidate in the older `evolve.txt` layout of its lineage: no header, the fittest first."""
    coordinator, asked = await _asked(request, name, fitness)
    rows = result_rows.by_fitness(coordinator.database, asked.row.id, asked.weights)
    lines = result_files.evolve_txt(asked.campaign.space, rows, asked.campaign.lineage)
    return await _sent(coordinator, lines, "text/plain")


@router.get("/campaigns/{name}/tune_results.ndjson", **_file("application/x-ndjson"))
async def tune_results(request: Request, name: str, fitness: Weights = None) -> Any:
    """Every done candidate as a line of ultralytics' `tune_results.ndjson`."""
    coordinator, asked = await _asked(request, name, fitness)
    rows = result_rows.by_number(coordinator.database, asked.row.id, asked.weights)
    data = str(asked.campaign.base.get("data", asked.campaign.name))
    lines = result_files.tune_results(asked.campaign.space, rows, data)
    return await _sent(coordinator, lines, "application/x-ndjson")


@router.get("/campaigns/{name}/evolve.png", **_file("image/png"))
async def evolve_picture(request: Request, name: str, fitness: Weights = None) -> Any:
    """A panel per gene: value against fitness, colour = density, the best marked."""

    def work(connection: Connection) -> tuple[Campaign, int, list[ResultRow]]:
        asked = _Asked(connection, name, fitness)
        return asked.campaign, *result_rows.sample(connection, asked.row, asked.weights)

    coordinator = coordinator_of(request)
    campaign, done, rows = await coordinator.ordinary(lambda: coordinator.database.run(work))
    if not rows:
        raise NotFound("no-result", f"no candidate of '{name}' has finished yet, so there is nothing to draw")
    png = await coordinator.drawing(lambda: evolve_png(campaign.space, rows, title=campaign.name, done=done))
    return Response(png, media_type="image/png")
