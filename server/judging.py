"""Fitness in SQL: judging results by the weights of their campaign, or by others. Metrics are facts, stored for ever.

The fitness of a stored row always comes from ``judged``: adding up weights times metrics in the order of ``METRICS`` it gives
the very number that ``evolution.fitness`` gives (a test holds the two equal, bit for bit).

A change of weights (``server.changes``) is one transaction. It locks the campaign's row, which whatever breeds or imports
takes, and, alone, the lock that results share while they are stored: a result is judged either before the change, then anew by
it, or after it. Readers see the old ranking until COMMIT. A result that arrives meanwhile is told to come again.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, Row, text

from evolution.campaign_edit import checked_weights
from evolution.fitness import METRICS, fitness, formula
from server.errors import Invalid

HUGE = "1e300"  # a metric beyond it cannot be weighed without leaving the range of numbers

SHARED = "pg_try_advisory_xact_lock_shared(hashtext('fitness'), {campaign_id}::int)"
"""True where no change of weights is going on; none begins then before the transaction ends."""

ALONE = "pg_advisory_xact_lock(hashtext('fitness'), cast(:id as int))"
"""Waits for the results that are being stored; none is until the transaction ends."""

METRICS_OF = "coalesce(r.metrics, k.imported_metrics)"
"""What candidate k measured, with its counted result r, if any."""


def judged(weights: str, metrics: str) -> str:
    """The fitness as an SQL expression of a JSON of weights and a JSONB of metrics; null where a weighted metric is absent."""
    terms = [
        f"case coalesce(({weights} ->> '{name}')::float8, 0) when 0 then 0"
        f" else ({weights} ->> '{name}')::float8 * ({metrics} ->> '{name}')::float8 end"
        for name in METRICS
    ]
    return "(0::float8 + " + " + ".join(terms) + ")"


DONE = """
    from candidate k left join result r on r.candidate_id = k.id and r.counts
    where k.campaign_id = :id and k.state = 'done'"""


def as_json(weights: Mapping[str, float]) -> str:
    return json.dumps(dict(weights))


def refuse_unweighable(connection: Connection, campaign_id: int, weights: Mapping[str, float]) -> None:
    """Raises Invalid where a done candidate lacks a metric that has a weight; names the first such metric and how many."""
    for name in METRICS:
        if not weights.get(name):
            continue
        usable = f"coalesce(abs(({METRICS_OF} ->> '{name}')::numeric) < {HUGE}, false)"
        row = connection.execute(
            text(f"select count(*) as n, min(k.number) as number {DONE} and not {usable}"), {"id": campaign_id}
        ).one()
        if row.n:
            raise Invalid(
                "metrics",
                f"fitness: {row.n} done candidates, such as #{row.number}, have no usable {name}, so {formula(weights)}"
                f" cannot judge them; give {name} the weight 0",
            )


def read_weights(written: str | None) -> dict[str, float] | None:
    """The weights of a query parameter such as ``map50=0.1,map50_95=0.9``; None for None.

    Raises:
        Invalid: says how weights are written.
        InvalidCampaign: they are none.
    """
    if written is None:
        return None
    weights = {}
    for part in written.split(","):
        metric, equals, weight = part.strip().partition("=")
        try:
            weights[metric.strip()] = float(weight)
        except ValueError:
            equals = ""
        if not equals:
            raise Invalid(
                "weights", f"fitness: '{part[:60]}' is no weight; write METRIC=WEIGHT, such as map50=0.1,map50_95=0.9"
            )
    return checked_weights(weights)


def posted_agrees(connection: Connection, row: Row[Any], metrics: Mapping[str, float], posted: float, tolerance: float) -> bool:
    """Whether a posted fitness is that of weights which were the campaign's at some moment of the attempt ``row``."""
    earlier = connection.execute(
        text(
            """
            select e.detail -> 'before' from event e join attempt a on a.token = :token
            where e.campaign_id = :campaign and e.kind = 'reweighed' and e.at >= a.started_at
            """
        ),
        {"campaign": row.campaign_id, "token": row.token},
    )
    return any(_close(metrics, weights, posted, tolerance) for weights in earlier.scalars())


def _close(metrics: Mapping[str, float], weights: Mapping[str, float], posted: float, tolerance: float) -> bool:
    try:
        return abs(fitness(metrics, weights) - posted) <= tolerance
    except ValueError:
        return False
