"""A bred candidate computed anew from what it was bred from, to audit a campaign."""

from __future__ import annotations

import json

from sqlalchemy import Connection, text

from evolution.space import Value
from evolution.strategy import OptionError, Proposal, candidate_rng
from hypevolve import messages
from server import campaigns, changes, judging, snapshots
from server.breeding import draw
from server.errors import Invalid

# Fitness as it was: by the weights before, where they have been changed since.
_AS_JUDGED = text(
    f"""
    select k.number, k.hyp, case when w.weights = 'null' or k.state <> 'done' then k.fitness
                                 else {judging.judged("w.weights", judging.METRICS_OF)} end as fitness
    from candidate k left join result r on r.candidate_id = k.id and r.counts, (select cast(:weights as jsonb) as weights) w
    where k.campaign_id = :id and k.number = any(:numbers)
    """
)


def audit(connection: Connection, name: str, after: int, limit: int) -> messages.AuditPage:
    """Breed the next candidates after a number again and compare; those that people queued were not bred.

    Raises:
        NotFound: no such campaign.
        Invalid: its strategy cannot be loaded here.
    """
    row = campaigns.find(connection, name)
    bred = connection.execute(
        text(
            """
            select number, hyp from candidate
            where campaign_id = :id and number > :after and bred_from is not null order by number limit :limit
            """
        ),
        {"id": row.id, "after": after, "limit": limit},
    ).all()
    items = []
    for candidate in bred:
        try:
            again = replay(connection, name, candidate.number)
        except OptionError as error:
            raise Invalid("strategy", f"evolve.{error}") from error
        same = again == candidate.hyp
        items.append(messages.Audited(number=candidate.number, same=same, bred_again=None if same else again))
    return messages.AuditPage(items=items, next=items[-1].number if len(items) == limit else None)


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
    plan = snapshots.parse(json.dumps(json.loads(row.document) | before))
    seen = {number for part in snapshots.PARTS for number in row.bred_from[part]}
    there = connection.execute(_AS_JUDGED, {"id": row.id, "numbers": list(seen), "weights": json.dumps(before.get("fitness"))})
    rows, space = {r.number: r for r in there}, plan.campaign.space
    parts = {part: [(n, space.encode(rows[n].hyp), rows[n].fitness) for n in row.bred_from[part]] for part in snapshots.PARTS}
    history, rng = snapshots.as_history(number, parts), candidate_rng(plan.campaign.seed, number)
    for draws in range(1, row.bred_from["draws"] + 1):
        child = draw(plan, history, rng, draws)
    assert isinstance(child, Proposal)
    return space.decode(child.hyp)
