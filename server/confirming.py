"""Training the best hyp sets again, with fresh seeds: was it the hyp set, or luck?

A confirmation is a candidate of origin ``confirm``: the hyp set of its one parent, numbered below zero beside imported rows,
outside the budget. It is never a parent and never the best; what it measured is shown beside the candidate that it confirms.
"""

from __future__ import annotations

import statistics

from sqlalchemy import Connection, text

from hypevolve import messages
from server import candidates, events
from server.budget import LIMIT
from server.campaigns import find, open_row
from server.errors import Conflict


def confirm(connection: Connection, name: str, asked: messages.Confirm) -> messages.Confirmations:
    """See to it that each of the best hyp sets has so many trainings of its own besides the first; queues those that lack.

    Raises:
        NotFound: no such campaign, or none of its candidates is done.
        Conflict: it gives nothing out any more: cancelled, draining, or a limit is reached.
    """
    row = open_row(connection, name)
    if row.state == "draining":
        raise Conflict("draining", f"{name} is draining and gives nothing out; `hypevolve resume {name}` first")
    limit = connection.execute(text(f"select {LIMIT} from campaign c where c.id = :id"), {"id": row.id}).scalar()
    if limit is not None:
        option = "--" + limit.replace("_", "-")
        raise Conflict(
            "limit", f"{name} has reached its {limit} and gives nothing out; `hypevolve extend {name} {option} …` makes room"
        )
    best = candidates.best(connection, row.id, asked.best)
    if not best:
        raise Conflict("no-result", f"no candidate of '{name}' has finished yet, so there is nothing to confirm")
    queued = connection.execute(
        text(
            """
            insert into candidate (campaign_id, number, hyp, hyp_hash, origin, parents, state)
            select b.campaign_id, (select least(min(number), 0) from candidate where campaign_id = :id)
                                  - row_number() over (order by array_position(:numbers, b.number), n.n),
                   b.hyp, b.hyp_hash, 'confirm', array[b.number], 'queued'
            from candidate b cross join lateral (
              select generate_series(1, :repeats - (select count(*)::int from candidate k
                where k.campaign_id = :id and k.origin = 'confirm' and k.parents = array[b.number]
                  and k.state <> 'cancelled')) as n) n
            where b.campaign_id = :id and b.number = any(:numbers)
            """
        ),
        {"id": row.id, "numbers": [one.number for one in best], "repeats": asked.repeats},
    ).rowcount
    if queued:
        numbers = [one.number for one in best]
        events.record(connection, row.id, "confirming", numbers=numbers, repeats=asked.repeats, queued=queued)
    return _all(connection, row.id).model_copy(update={"queued": queued})


def confirmations(connection: Connection, name: str) -> messages.Confirmations:
    """What trainings anew measured, of each hyp set that has any.

    Raises:
        NotFound: no such campaign.
    """
    return _all(connection, find(connection, name).id)


def _all(connection: Connection, campaign_id: int) -> messages.Confirmations:
    rows = connection.execute(
        text(
            """
            select k.parents[1] as number, b.fitness,
                   coalesce(array_agg(k.fitness order by k.number desc) filter (where k.state = 'done'), '{}') as results,
                   count(*) filter (where k.state in ('queued', 'leased', 'running')) as open,
                   count(*) filter (where k.state = 'failed') as failed
            from candidate k join candidate b on b.campaign_id = k.campaign_id and b.number = k.parents[1]
            where k.campaign_id = :id and k.origin = 'confirm' group by 1, 2 order by b.fitness desc, 1
            """
        ),
        {"id": campaign_id},
    )
    items = []
    for row in rows:
        mean = statistics.fmean(row.results) if row.results else None
        spread = statistics.stdev(row.results) if len(row.results) > 1 else None
        items.append(messages.Confirmation.model_validate({**row._mapping, "mean": mean, "sd": spread}))
    return messages.Confirmations(items=items)
