"""Campaigns: create one, change its budget or its place among others, and the numbers that sum one up."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, text

from evolution.campaign import Campaign
from hypevolve import messages
from server import candidates, earlier, events, tally
from server.budget import DEVICE_S, LIMIT, SINCE_BEST
from server.caller import VISIBLE, unknown_campaign, visible
from server.errors import Conflict
from server.tables import campaign as campaign_table

# After so many failures in a row nothing new is bred: a typo in a trainer must not spend the budget. Part of queries on a
# campaign c.
HALT_AFTER = 5
HALTED = f"""(
    select count(*) = {HALT_AFTER} and bool_and(state = 'failed') from (
      select state from candidate where campaign_id = c.id and finished_at is not null
      order by finished_at desc limit {HALT_AFTER}) newest)"""


def create(connection: Connection, campaign: Campaign) -> bool:
    """Store a campaign; False where the same one is already there.

    Raises:
        Conflict: another campaign has this name; says in what it differs.
    """
    document = campaign.to_document()
    connection.execute(text("select pg_advisory_xact_lock(hashtext('campaign'), hashtext(:name))"), {"name": campaign.name})
    there = connection.execute(text("select document from campaign where name = :name"), {"name": campaign.name}).first()
    if there is not None:
        # Read again, so that keys of later versions have their defaults; by way of JSON, so that 15 and 15.0 compare equal.
        stored = Campaign.from_document(there.document).to_document()
        differing = _differences(json.loads(json.dumps(stored)), json.loads(json.dumps(document)))
        if differing:
            remedy = "choose another name, or leave this as it was"
            if differing == ["budget.candidates"]:
                remedy = f"`hypevolve extend {campaign.name} --candidates {campaign.candidates}` changes it"
            elif all(key.startswith("fitness.") for key in differing):
                weights = ",".join(f"{metric}={weight:g}" for metric, weight in campaign.weights.items())
                remedy = f"`hypevolve edit {campaign.name} --fitness {weights}` changes it; nothing is trained again"
            elif all(key.startswith("budget.") or key in ("lease.priority", "lease.share") for key in differing):
                remedy = f"`hypevolve extend {campaign.name}` changes it (hypevolve extend --help)"
            raise Conflict(
                "campaign-exists",
                f"campaign '{campaign.name}' exists with another {', '.join(differing)}; {remedy}",
            )
        return False
    row = connection.execute(
        campaign_table.insert()
        .values(
            name=campaign.name,
            document=document,
            seed=campaign.seed,
            same_seed=campaign.same_seed,
            candidates=campaign.candidates,
            gpu_hours=campaign.gpu_hours,
            deadline=None if campaign.deadline is None else datetime.fromisoformat(campaign.deadline),
            patience=campaign.patience,
            priority=campaign.priority,
            share=campaign.share,
            requires=campaign.requires.to_document(),
            retries_failed=campaign.retries_failed,
            lease_s=campaign.expire_s,
            beat_s=campaign.heartbeat_s,
        )
        .returning(campaign_table.c.id)
    ).one()
    events.record(connection, row.id, "created", candidates=campaign.candidates)
    if campaign.imported:
        earlier.store(connection, row.id, campaign.imported, campaign.weights)
    return True


def _differences(stored: Mapping[str, Any], given: Mapping[str, Any], prefix: str = "") -> list[str]:
    found: list[str] = []
    for key in sorted(stored.keys() | given.keys()):
        ours, theirs = stored.get(key), given.get(key)
        if isinstance(ours, dict) and isinstance(theirs, dict):
            found += _differences(ours, theirs, f"{prefix}{key}.")
        elif ours != theirs:
            found.append(f"{prefix}{key}")
    return found


def change(connection: Connection, name: str, asked: messages.ChangeCampaign) -> None:
    """Set what was asked anew: the budget, the place among other campaigns. What was not named stays.

    Raises:
        NotFound: no such campaign.
        Conflict: more candidates than that are already bred, or it was cancelled.
    """
    row = open_row(connection, name)
    values = asked.model_dump(exclude_unset=True)
    if values.get("candidates", row.bred) < row.bred:
        raise Conflict("budget", f"{row.bred} candidates are already bred, so the budget cannot fall to {values['candidates']}")
    values = {key: value for key, value in values.items() if value != getattr(row, key)}
    if not values:
        return
    told = {key: value.isoformat() if isinstance(value, datetime) else value for key, value in values.items()}
    document = row.document
    for key, value in told.items():
        document["lease" if key in ("priority", "share") else "budget"][key] = value
    connection.execute(campaign_table.update().where(campaign_table.c.id == row.id).values(**values, document=document))
    before = {key: getattr(row, key) for key in values}
    before = {key: value.isoformat() if isinstance(value, datetime) else value for key, value in before.items()}
    events.record(connection, row.id, "budget", None, **told, before=before)


def retry(connection: Connection, name: str) -> int:
    """Offer every failed candidate again, as if it had never been tried; how many there are.

    Raises:
        NotFound: no such campaign.
        Conflict: it was cancelled.
    """
    row = open_row(connection, name)
    retried = connection.execute(
        text(
            """
            update candidate set state = 'queued', attempts = 0, failures = 0, failure = null, finished_at = null
            where campaign_id = :id and state = 'failed'
            """
        ),
        {"id": row.id},
    ).rowcount
    if retried:
        events.record(connection, row.id, "retried all", candidates=retried)
    return int(retried)


def find(connection: Connection, name: str) -> Row[Any]:
    """The campaign's row.

    Raises:
        NotFound: no such campaign; names those there are.
    """
    row = connection.execute(text("select * from campaign where name = :name"), {"name": name}).first()
    if row is None:
        raise unknown_campaign(name, _some_names(connection))
    return row


def page(connection: Connection, cursor: str | None, limit: int) -> tuple[list[Row[Any]], str | None]:
    """The campaigns that the caller may see, the newest first, and the cursor of the following page.

    Raises:
        Invalid: the cursor is not one of ours.
    """
    before = None if cursor is None else candidates.read_cursor(cursor)
    rows = connection.execute(
        text(
            f"""
            select * from campaign c where {VISIBLE} and (cast(:before as bigint) is null or id < :before)
            order by id desc limit :limit
            """
        ),
        {**visible(), "before": before, "limit": limit + 1},
    ).all()
    found = list(rows[:limit])
    return found, candidates.write_cursor(found[-1].id) if len(rows) > limit else None


def locked(connection: Connection, name: str) -> Row[Any]:
    """The campaign's row, locked until the transaction ends.

    Raises:
        NotFound: no such campaign.
    """
    find(connection, name)
    return connection.execute(text("select * from campaign where name = :name for no key update"), {"name": name}).one()


def open_row(connection: Connection, name: str) -> Row[Any]:
    """``locked``, of a campaign in which something can still be changed.

    Raises:
        NotFound: no such campaign.
        Conflict: it was cancelled.
    """
    row = locked(connection, name)
    refuse_cancelled(row)
    return row


def refuse_cancelled(row: Row[Any]) -> None:
    if row.state == "cancelled":
        raise Conflict("cancelled", f"campaign '{row.name}' was cancelled, which is final; create another one")


def _some_names(connection: Connection) -> list[str]:
    newest = f"select name from campaign c where {VISIBLE} order by created_at desc limit 5"
    return [row.name for row in connection.execute(text(newest), visible())]


def summary(connection: Connection, row: Row[Any]) -> messages.Campaign:
    """One campaign in numbers that add up, with its best and its default candidate."""
    numbers = tally.of(connection, row.id)
    confirming, confirming_now = _confirming(connection, row.id)
    counts = _counts(row, numbers).model_copy(update={"confirming": confirming})
    best = candidates.best(connection, row.id, 1)
    budget = _budget(connection, row)
    state = _state(connection, row, counts, confirming_now, budget)
    if state not in ("finished", "cancelled"):
        budget = budget.model_copy(update={"hours_left": _hours_left(counts, budget, numbers.device_s / 3600)})
    rate = connection.execute(
        text(
            """
            select count(*) as n, extract(epoch from max(finished_at) - min(finished_at)) as seconds, max(finished_at) as last
            from (select finished_at from candidate where campaign_id = :id and finished_at is not null
                  order by finished_at desc limit 20) recent
            """
        ),
        {"id": row.id},
    ).one()
    left = counts.planned - counts.done - counts.failed - counts.cancelled
    return messages.Campaign(
        name=row.name,
        state=state,
        budget=budget,
        priority=row.priority,
        share=row.share,
        strategy=row.document["evolve"]["strategy"],
        weights=row.document["fitness"],
        counts=counts,
        best=best[0] if best else None,
        default=candidates.one(connection, row.id, 0),
        eta_s=left * float(rate.seconds) / (rate.n - 1) if left and state == "running" and rate.n >= 3 else None,
        created_at=row.created_at,
        finished_at=rate.last if state in ("finished", "cancelled") else None,
        document=row.document,
    )


def _confirming(connection: Connection, campaign_id: int) -> tuple[int, int]:
    """How many confirmations are not over yet, and how many of these are in training."""
    row = connection.execute(
        text(
            """
            select count(*) as open, count(*) filter (where state <> 'queued') as training from candidate
            where campaign_id = :id and origin = 'confirm' and state in ('queued', 'leased', 'running')
            """
        ),
        {"id": campaign_id},
    ).one()
    return row.open, row.training


def _state(
    connection: Connection, row: Row[Any], counts: messages.Counts, confirming_now: int, budget: messages.Budget
) -> messages.CampaignState:
    """What people decided, and what the numbers say: nothing is left to train, or nothing may be."""
    training = counts.running + counts.leased + confirming_now
    if row.state == "cancelled":
        return "cancelled"
    if counts.done + counts.failed + counts.cancelled == counts.planned and not counts.confirming:
        return "finished"
    if not training and (budget.reached or row.state == "draining"):
        return "finished"
    if row.state == "paused":
        return "paused"
    if row.state == "draining" or budget.reached:
        return "draining"
    halted = not training and not counts.queued and not counts.confirming
    if halted and connection.execute(text(f"select {HALTED} from campaign c where c.id = :id"), {"id": row.id}).scalar_one():
        return "halted"
    return "running"


def _hours_left(counts: messages.Counts, budget: messages.Budget, ended_hours: float) -> float | None:
    """What the open candidates will cost at the price of those that have ended, with all that was lost on the way."""
    ended = counts.done + counts.failed
    if not ended or not ended_hours:
        return None
    still_open = counts.planned - ended - counts.cancelled
    left = max(still_open * ended_hours / ended - (budget.device_hours - ended_hours), 0.0)
    return left if budget.gpu_hours is None else min(left, max(budget.gpu_hours - budget.device_hours, 0.0))


def _budget(connection: Connection, row: Row[Any]) -> messages.Budget:
    used = connection.execute(
        text(
            f"select {DEVICE_S} / 3600 as device_hours, {SINCE_BEST} as since_best, {LIMIT} as reached"
            " from campaign c where id = :id"
        ),
        {"id": row.id},
    ).one()
    return messages.Budget(gpu_hours=row.gpu_hours, deadline=row.deadline, patience=row.patience, **used._mapping)


def _counts(row: Row[Any], numbers: tally.Tally) -> messages.Counts:
    counted = {name: number for name, number in numbers._asdict().items() if name not in ("seconds", "device_s")}
    return messages.Counts(planned=row.candidates, unbred=row.candidates - row.bred, **counted)
