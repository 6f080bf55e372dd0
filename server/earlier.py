"""Results of earlier evolutions as rows of a campaign: parents at once, outside the budget.

They are numbered -1, -2, ... so that candidate k of the budget keeps its number, and with it its random stream and seed. A hyp
set that the campaign has already is left out, so that an import that was cut off is simply done again.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from sqlalchemy import Connection, text

from evolution.earlier_results import ImportedRow
from evolution.fitness import fitness
from hypevolve.hashes import hyp_hash
from server import events
from server.transaction import copy

_COLUMNS = ("campaign_id", "number", "hyp", "hyp_hash", "origin", "state", "fitness", "imported_metrics")


def store(connection: Connection, campaign_id: int, rows: Sequence[ImportedRow], weights: Mapping[str, float]) -> int:
    """Append the rows whose hyp set the campaign does not have yet; how many. The caller holds the campaign's row lock.

    Raises:
        ValueError: a metric that fitness weighs is missing; names it.
    """
    new = {hyp_hash(row.hyp): row for row in reversed(rows)}  # of twins the first counts
    lowest = connection.execute(
        text("select least(min(number), 0) from candidate where campaign_id = :id"), {"id": campaign_id}
    ).scalar_one()
    there = connection.execute(
        text("select hyp_hash from candidate where campaign_id = :id and hyp_hash = any(:hashes)"),
        {"id": campaign_id, "hashes": list(new)},
    )
    known, number = set(there.scalars()), lowest
    values = []
    for digest, row in reversed(new.items()):
        if digest not in known:
            number -= 1
            judged = fitness(row.metrics, weights)
            hyp, metrics = json.dumps(dict(row.hyp)), json.dumps(dict(row.metrics))
            values.append((campaign_id, number, hyp, digest, "imported", "done", repr(judged), metrics))
    if values:
        copy(connection, "candidate", _COLUMNS, values)
        events.record(connection, campaign_id, "imported", rows=len(values))
    return len(values)
