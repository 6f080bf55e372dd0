"""A bred candidate computed anew from what it was bred from, to audit a campaign."""

from __future__ import annotations

import json

from sqlalchemy import Connection, text

from evolution.space import Value
from evolution.strategy import Proposal, candidate_rng
from server import changes, judging
from server.breeding import _PARTS, _as_history, _child, _parsed, _Snapshot

# Fitness as it was: by the weights before, where they have been changed since.
_AS_JUDGED = text(
    f"""
    select k.number, k.hyp, case when w.weights = 'null' or k.state <> 'done' then k.fitness
                                 else {judging.judged("w.weights", judging.METRICS_OF)} end as fitness
    from candidate k left join result r on r.candidate_id = k.id and r.counts, (select cast(:weights as jsonb) as weights) w
    where k.campaign_id = :id and k.number = any(:numbers)
    """
)


def replay(connection: Connection, campaign: str, number: int) -> dict[str, Value]:
    """The hyp set of a bred candidate computed anew from the snapshot it was bred from, to audit a campaign."""
    row = connection.execute(
        text(
            """
            select c.id, c.document::text as document, k.bred_from from campaign c
            join candidate k on k.campaign_id = c.id where c.name = :campaign and k.number = :number
            """
        ),
        {"campaign": campaign, "number": number},
    ).one()
    before = changes.as_bred(connection, row.id, number)
    parsed, strategy = _parsed(json.dumps(json.loads(row.document) | before))
    seen = {number for part in _PARTS for number in row.bred_from[part]}
    there = connection.execute(_AS_JUDGED, {"id": row.id, "numbers": list(seen), "weights": json.dumps(before.get("fitness"))})
    rows = {r.number: r for r in there}
    parts = {part: [(n, parsed.space.encode(rows[n].hyp), rows[n].fitness) for n in row.bred_from[part]] for part in _PARTS}
    history = _as_history(number, parts)
    snapshot = _Snapshot(row.id, parsed, strategy, history, left=1, revision=0)
    rng = candidate_rng(parsed.seed, number)
    for draws in range(1, row.bred_from["draws"] + 1):
        child = _child(snapshot, history, rng, draws)
    assert isinstance(child, Proposal)
    return parsed.space.decode(child.hyp)
