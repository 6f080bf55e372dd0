"""The results of a campaign as files and pictures of them want it: in order, and a bounded number of rows in memory at once.

Each piece is a short transaction of its own. A result never changes and never goes, so a file that took minutes holds every
result that was there when it began.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Mapping

from sqlalchemy import Connection, Row, text

from evolution.fitness import fitness
from evolution.result_files import ResultRow
from server import candidates, judging, tally
from server.database import Database

Weights = Mapping[str, float]

PIECE = 1000  # rows
DRAWN = 5000  # dots of a panel: more say nothing more, and a picture of a million is as quick as one of these

_ROWS = """
    select k.number, k.hyp, r.metrics, k.fitness from candidate k join result r on r.candidate_id = k.id and r.counts
    where k.campaign_id = :id and k.state = 'done' and k.number >= 0"""


def by_number(database: Database, campaign_id: int, weights: Weights | None) -> Iterator[ResultRow]:
    """Every done candidate of the budget in the order of numbers, judged by ``weights`` where they are given."""
    query, last = text(f"{_ROWS} and k.number > :last order by k.number limit {PIECE}"), -1
    while rows := _read(database, query, {"id": campaign_id, "last": last}):
        last = rows[-1].number
        yield from _judged(rows, weights)


def by_fitness(database: Database, campaign_id: int, weights: Weights | None) -> Iterator[ResultRow]:
    """The same, the fittest first, ties by number."""
    if weights is not None:
        yield from _by_other_fitness(database, campaign_id, weights)
        return
    query = text(
        f"""{_ROWS} and k.fitness <= :fitness and (k.fitness < :fitness or k.number > :number)
        order by k.fitness desc, k.number limit {PIECE}"""
    )
    place = {"fitness": float("inf"), "number": -1}
    while rows := _read(database, query, {"id": campaign_id, **place}):
        place = {"fitness": rows[-1].fitness, "number": rows[-1].number}
        yield from rows


def _by_other_fitness(database: Database, campaign_id: int, weights: Weights) -> Iterator[ResultRow]:
    """No index knows this order, so the numbers alone are put into it at once: four bytes each."""
    by = judging.judged("cast(:weights as jsonb)", judging.METRICS_OF)
    ranking = text(f"select k.number {judging.DONE} and k.number >= 0 order by {by} desc, k.number")
    values = {"id": campaign_id, "weights": judging.as_json(weights)}
    numbers = database.run(lambda connection: array("i", connection.execute(ranking, values).scalars()))
    query = text(f"{_ROWS} and k.number = any(:numbers)")
    for start in range(0, len(numbers), PIECE):
        piece = list(numbers[start : start + PIECE])
        found = {row.number: row for row in _read(database, query, {"id": campaign_id, "numbers": piece})}
        yield from _judged((found[number] for number in piece if number in found), weights)


def sample(connection: Connection, campaign: Row[object], weights: Weights | None) -> tuple[int, list[ResultRow]]:
    """How many candidates are done, and so many of them as a picture can show: the best, and others spread evenly."""
    done = tally.of(connection, campaign.id).done
    some, best = "", candidates.best(connection, campaign.id, 1, weights)
    values = {"id": campaign.id, "best": best[0].number if best else -1, "bred": campaign.bred}
    if done > DRAWN:
        some = f"and (k.number = :best or k.number = any(array(select generate_series(0, :bred, :bred / {DRAWN} + 1))))"
    rows = connection.execute(text(f"{_ROWS} {some} order by k.number"), values)
    return done, list(_judged((ResultRow(*row) for row in rows), weights))


def _read(database: Database, query: object, values: Mapping[str, object]) -> list[ResultRow]:
    def work(connection: Connection) -> list[ResultRow]:
        return [ResultRow(*row) for row in connection.execute(query, values)]  # type: ignore[call-overload]

    return database.run(work)


def _judged(rows: Iterable[ResultRow], weights: Weights | None) -> Iterator[ResultRow]:
    for row in rows:
        yield row if weights is None else ResultRow(row.number, row.hyp, row.metrics, fitness(row.metrics, weights))
