"""Reading the generation table: one candidate, the best, pages, learning curves, rows for result files."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, Row, text

from evolution.fitness import fitness
from hypevolve import messages
from server import judging
from server.errors import Invalid, NotFound

_CANDIDATE = """
    select k.number, k.state, k.origin, k.hyp, k.parents, k.fitness,
           coalesce(r.metrics, k.imported_metrics) as metrics, k.attempts, k.failures, k.failure, r.seconds,
           coalesce(r.epochs, l.epoch, 0) as epochs_done, w.name as worker, r.weights_hash,
           f.epoch as checkpoint_epoch, k.created_at, k.finished_at
    from candidate k
    left join result r on r.candidate_id = k.id and r.counts
    left join lease l on l.candidate_id = k.id
    left join artifact f on f.candidate_id = k.id and f.state = 'current'
    left join attempt a on a.token = coalesce(r.token, k.token)
    left join worker w on w.id = a.worker_id
    where k.campaign_id = :campaign
"""


def one(connection: Connection, campaign_id: int, number: int) -> messages.Candidate | None:
    row = connection.execute(text(_CANDIDATE + " and k.number = :number"), {"campaign": campaign_id, "number": number}).first()
    return None if row is None else _candidate(row)


def find(connection: Connection, campaign: Row[Any], number: int) -> messages.Candidate:
    """One candidate by its number.

    Raises:
        NotFound: says up to which number candidates exist.
    """
    found = one(connection, campaign.id, number)
    if found is None:
        raise NotFound(
            "unknown-candidate", f"campaign '{campaign.name}' has no candidate {number}; {campaign.bred} are bred so far"
        )
    return found


def best(
    connection: Connection, campaign_id: int, n: int, weights: Mapping[str, float] | None = None
) -> list[messages.Candidate]:
    """The ``n`` fittest that this campaign trained, ties by number; by ``weights`` other than its own every row is looked at.

    Raises:
        Invalid: a result lacks a metric that has a weight.
    """
    by = "k.fitness"
    if weights is not None:
        judging.refuse_unweighable(connection, campaign_id, weights)
        by = judging.judged("cast(:weights as jsonb)", judging.METRICS_OF)
    rows = connection.execute(
        text(_CANDIDATE + f" and k.state = 'done' and k.number >= 0 order by {by} desc, k.number limit :n"),
        {"campaign": campaign_id, "n": n, "weights": json.dumps(weights)},
    )
    found = [_candidate(row) for row in rows]
    if weights is None:
        return found
    return [one.model_copy(update={"fitness": fitness(one.metrics or {}, weights)}) for one in found]


def page(
    connection: Connection, campaign_id: int, *, state: str | None, cursor: str | None, limit: int, newest_first: bool = False
) -> messages.CandidatePage:
    """A page by number. The cursor names the last row seen, so that pages stay right while rows are added.

    Raises:
        Invalid: the cursor is not one of ours.
    """
    order, beyond = ("desc", "<") if newest_first else ("asc", ">")
    rows = connection.execute(
        text(
            _CANDIDATE
            + f"""
            and (cast(:state as text) is null or k.state = :state)
            and (cast(:after as int) is null or k.number {beyond} :after)
            order by k.number {order} limit :limit
            """
        ),
        {"campaign": campaign_id, "state": state, "after": None if cursor is None else read_cursor(cursor), "limit": limit + 1},
    ).all()
    items = [_candidate(row) for row in rows[:limit]]
    return messages.CandidatePage(items=items, next=write_cursor(items[-1].number) if len(rows) > limit else None)


def write_cursor(number: int) -> str:
    return base64.urlsafe_b64encode(f"n{number}".encode()).decode().rstrip("=")


def read_cursor(cursor: str) -> int:
    """Raises Invalid: the cursor is not one of ours."""
    try:
        decoded = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode()
        if not decoded.startswith("n"):
            raise ValueError(decoded)
        number = int(decoded[1:])
        if abs(number) >= 2**31:
            raise ValueError(decoded)
        return number
    except (ValueError, binascii.Error, UnicodeDecodeError) as error:
        raise Invalid("cursor", f"'{cursor}' is no cursor of this list; start again without one") from error


def curve(connection: Connection, campaign: Row[Any], number: int) -> messages.EpochCurve:
    """The epochs of the attempt whose result counts, or of the newest attempt while there is none.

    Where that attempt went on from another's checkpoint, the epochs up to there are the other's.

    Raises:
        NotFound: no such candidate.
    """
    find(connection, campaign, number)
    rows = connection.execute(
        text(
            """
            with recursive chain (candidate_id, token, until, depth) as (
              select k.id, coalesce(r.token, k.token), 2147483647, 0 from candidate k
              left join result r on r.candidate_id = k.id and r.counts
              where k.campaign_id = :campaign and k.number = :number
              union all
              select a.candidate_id, a.resumed_token, least(c.until, a.resumed_epoch), c.depth + 1
              from chain c join attempt a on a.token = c.token where a.resumed_token is not null)
            select distinct on (e.epoch) e.epoch, e.metrics from chain c
            join epoch e on e.candidate_id = c.candidate_id and e.token = c.token and e.epoch <= c.until
            order by e.epoch, c.depth
            """
        ),
        {"campaign": campaign.id, "number": number},
    )
    return messages.EpochCurve(number=number, epochs=[messages.EpochRow(epoch=r.epoch, metrics=r.metrics) for r in rows])


def _candidate(row: Row[Any]) -> messages.Candidate:
    return messages.Candidate.model_validate(dict(row._mapping))
