"""What people change in a campaign that runs: bounds, weights of fitness, hyp sets of their own, earlier results."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, Row, text

from evolution.campaign import Campaign
from evolution.campaign_edit import checked_weights, with_space
from evolution.campaign_reader import read_hyp_set
from evolution.earlier_results import ImportedRow
from evolution.problems import Findings, shown
from evolution.space import Space, Value
from hypevolve import messages
from hypevolve.hashes import hyp_hash
from server import campaigns, earlier, events, judging
from server.errors import Conflict
from server.tables import campaign as campaign_table
from server.tables import candidate as candidate_table

REWEIGHING_S = 600  # at most, for very many rows: 10,000 take about a second, 100,000 about 15


def change_space(connection: Connection, name: str, entries: Mapping[str, Any]) -> None:
    """Breed within other bounds from the next candidate on.

    The genes as they were are kept with the event, so that candidates bred before can still be bred again.

    Raises:
        NotFound: no such campaign.
        InvalidCampaign: the change cannot be made.
        Conflict: the campaign was cancelled.
    """
    row = campaigns.open_row(connection, name)
    campaign = with_space(Campaign.from_document(row.document), entries)
    document = {**row.document, "genes": campaign.to_document()["genes"]}
    connection.execute(
        campaign_table.update().where(campaign_table.c.id == row.id).values(document=document, revision=row.revision + 1)
    )
    events.record(connection, row.id, "edited", genes=sorted(entries), bred=row.bred, before=row.document["genes"])


_REWEIGH = f"""
    update candidate old set fitness = new.fitness
    from (select k.id, {judging.judged("cast(:weights as jsonb)", judging.METRICS_OF)} as fitness {judging.DONE}) new
    where old.id = new.id and old.fitness <> new.fitness"""

# As the trigger of migration 0002 keeps it.
_JUMPS = """
    insert into jump
    select :id, number, fitness from (
      select number, fitness, max(fitness) over (order by number rows between unbounded preceding and 1 preceding) as before
      from candidate where campaign_id = :id and state = 'done' and number >= 0) c
    where before is null or fitness > before"""


def change_fitness(connection: Connection, name: str, weights: Mapping[str, Any]) -> None:
    """Judge a campaign by other weights: every row's fitness, what the strategy sees, best so far, patience.

    The weights as they were are kept with the event, so that candidates bred before can still be bred again.

    Raises:
        NotFound: no such campaign.
        Conflict: it was cancelled.
        InvalidCampaign: the weights are none.
        Invalid: results lack a metric that would have a weight.
    """
    row = campaigns.open_row(connection, name)
    before, new = row.document["fitness"], checked_weights(weights)
    if new == before:
        return
    connection.execute(text(f"set local statement_timeout = '{REWEIGHING_S}s'"))
    connection.execute(text(f"select {judging.ALONE}"), {"id": row.id})
    judging.refuse_unweighable(connection, row.id, new)
    document = {**row.document, "fitness": new}
    connection.execute(
        campaign_table.update().where(campaign_table.c.id == row.id).values(document=document, revision=row.revision + 1)
    )
    changed = connection.execute(text(_REWEIGH), {"id": row.id, "weights": json.dumps(new)}).rowcount
    connection.execute(text("delete from jump where campaign_id = :id"), {"id": row.id})
    connection.execute(text(_JUMPS), {"id": row.id})
    events.record(connection, row.id, "reweighed", bred=row.bred, before=before, after=new, candidates=changed)


def as_bred(connection: Connection, campaign_id: int, number: int) -> dict[str, Any]:
    """What of the campaign's document was different when candidate ``number`` was bred: its ``genes``, its ``fitness``."""
    rows = connection.execute(
        text(
            """
            select distinct on (kind) kind, detail -> 'before' as before from event
            where campaign_id = :id and kind in ('edited', 'reweighed') and cast(detail ->> 'bred' as int) > :number
            order by kind, id
            """
        ),
        {"id": campaign_id, "number": number},
    )
    return {{"edited": "genes", "reweighed": "fitness"}[row.kind]: row.before for row in rows}


def enqueue(connection: Connection, name: str, request: UUID, hyps: Sequence[Mapping[str, Value]]) -> list[int]:
    """Queue hyp sets as the next candidates of the budget; their numbers, the same for the same request.

    Candidate 0 stays the start hyp set.

    Raises:
        NotFound: no such campaign.
        InvalidCampaign: a hyp set is not inside the space.
        Conflict: they do not fit into the budget, or the campaign was cancelled.
    """
    row = campaigns.locked(connection, name)
    before: list[int] | None = connection.execute(
        text(
            """
            select detail -> 'numbers' from event
            where campaign_id = :id and kind = 'enqueued' and detail ->> 'request' = :request limit 1
            """
        ),
        {"id": row.id, "request": str(request)},
    ).scalar()
    if before is not None:
        return before
    campaigns.refuse_cancelled(row)
    space = Campaign.from_document(row.document).space
    findings = Findings("request")
    hyps = [_complete(findings, space, index, hyp) for index, hyp in enumerate(hyps)]
    findings.refuse()
    rows: list[tuple[str, Mapping[str, Value]]] = [("enqueued", hyp) for hyp in hyps]
    if row.bred == 0:
        rows.insert(0, ("initial", space.decode(space.start)))
    if row.bred + len(rows) > row.candidates:
        left = row.candidates - row.bred
        remedy = f"`hypevolve extend {name} --candidates {row.bred + len(rows)}` makes room"
        raise Conflict("budget", f"{left} of the budget's {row.candidates} candidates are left, not {len(rows)}; {remedy}")
    values = [
        {"campaign_id": row.id, "number": number, "origin": origin, "hyp": dict(hyp), "hyp_hash": hyp_hash(hyp)}
        for number, (origin, hyp) in enumerate(rows, row.bred)
    ]
    connection.execute(candidate_table.insert(), values)
    connection.execute(text("update campaign set bred = bred + :n where id = :id"), {"n": len(rows), "id": row.id})
    numbers = [number for number, (origin, _) in enumerate(rows, row.bred) if origin == "enqueued"]
    events.record(connection, row.id, "enqueued", numbers=numbers, request=str(request))
    return numbers


def import_rows(connection: Connection, name: str, given: Sequence[messages.EarlierResult]) -> messages.Imported:
    """Add results of earlier evolutions: parents of the next candidate on, outside the budget. Bounds are not looked at.

    Raises:
        NotFound: no such campaign.
        InvalidCampaign: a hyp set is not complete, or a metric that fitness weighs is missing.
        Conflict: the campaign was cancelled.
    """
    campaign = _without_rows(campaigns.find(connection, name))
    findings = Findings("request")
    rows = []
    for index, one in enumerate(given):
        hyp = read_hyp_set(findings, one.hyp, ("rows", index, "hyp"), campaign.space)
        if hyp is not None:
            rows.append(ImportedRow(hyp, one.metrics))
    findings.refuse()
    row = campaigns.open_row(connection, name)  # not before: asks wait for it
    try:
        new = earlier.store(connection, row.id, rows, _without_rows(row).weights)
    except ValueError as error:
        findings.add(("rows",), str(error), "leave these rows out")
        findings.refuse()
        raise
    return messages.Imported(imported=new, known=len(rows) - new)


def _without_rows(row: Row[Any]) -> Campaign:
    """The campaign less the earlier results that its document came with, which may be thousands."""
    return Campaign.from_document({**row.document, "imported": []})


def _complete(findings: Findings, space: Space, index: int, hyp: Mapping[str, Value]) -> dict[str, Value]:
    """``hyp`` with the start values of the genes that it leaves out; what is not inside the space becomes a finding."""
    for name in set(hyp) - set(space.names):
        findings.unknown(("hyps", index, name), space.names, "gene")
    complete = space.decode(space.start) | {name: hyp[name] for name in space.names if name in hyp}
    for gene in space:
        value = complete[gene.name]
        if isinstance(value, str | bool) != bool(gene.choices) or (gene.choices and value not in gene.choices):
            wanted = f"one of {', '.join(map(str, gene.choices))}" if gene.choices else "a number"
            findings.add(("hyps", index, gene.name), f"is {shown(value)}", f"write {wanted}")
        elif not Space((gene,)).contains({gene.name: gene.encode(value)}):
            kept = f"keep its {gene.start:g}" if gene.fixed else f"write {gene.lower:g} to {gene.upper:g}"
            findings.add(("hyps", index, gene.name), f"{shown(value)} is outside the space", kept)
    return complete
