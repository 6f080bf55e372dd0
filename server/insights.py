"""What a campaign has learned, from a bounded number of its rows: read in one transaction, computed outside of it."""

from __future__ import annotations

import hashlib
import json
import threading
from collections import OrderedDict
from typing import NamedTuple

from sqlalchemy import Connection, text

from evolution.campaign import Campaign
from evolution.insight import ROWS, Parent, insight, story
from evolution.space import Space
from evolution.strategy import Row
from hypevolve import messages
from server import campaigns, tally

LONGEST_STORY = 100
CACHED = 16

_reports: OrderedDict[str, messages.Insight] = OrderedDict()
_reporting = threading.Lock()


class Material(NamedTuple):
    """What a report is made from."""

    name: str
    space: Space
    rows: tuple[Row, ...]
    line: tuple[Parent, ...]
    done: int  # of all rows


def read(connection: Connection, name: str) -> Material:
    """The rows and the best candidate's line of parents.

    Raises:
        NotFound: no such campaign.
    """
    row = campaigns.find(connection, name)
    space = Campaign.from_document(row.document).space
    parts = [
        connection.execute(
            text(
                f"""
                select number, hyp, fitness from candidate
                where campaign_id = :id and state = 'done' and origin <> 'confirm' order by {order} limit :n
                """
            ),
            {"id": row.id, "n": ROWS},
        ).all()
        for order in ("fitness desc, number", "number desc")
    ]
    found = {r.number: Row(r.number, space.encode(r.hyp), r.fitness) for part in parts for r in part}
    return Material(name, space, tuple(found.values()), _line(connection, row.id), tally.of(connection, row.id).done)


def _line(connection: Connection, campaign_id: int) -> tuple[Parent, ...]:
    """From the oldest known ancestor to the best, along each candidate's first parent."""
    rows = connection.execute(
        text(
            """
            with recursive line as (
              (select number, hyp, fitness, parents[1] as parent, 1 as step from candidate
               where campaign_id = :id and state = 'done' and number >= 0 order by fitness desc, number limit 1)
              union all
              select k.number, k.hyp, k.fitness, k.parents[1], line.step + 1
              from candidate k join line on k.number = line.parent
              where k.campaign_id = :id and line.step < :most
            ) select number, hyp, fitness, parent from line order by step desc
            """
        ),
        {"id": campaign_id, "most": LONGEST_STORY},
    )
    return tuple(Parent(r.number, r.hyp, r.fitness, r.parent) for r in rows)


def report(material: Material) -> messages.Insight:
    """The report; the same rows are worked through once."""
    said = repr((material.name, material.space)) + json.dumps([material.rows, material.line, material.done], default=repr)
    digest = hashlib.sha256(said.encode()).hexdigest()
    with _reporting:
        found = _reports.get(digest)
        if found is None:
            made = insight(material.space, material.rows, material.done)
            found = _reports[digest] = messages.Insight.model_validate(
                made._asdict() | {"campaign": material.name, "story": story(material.space, material.line)},
                from_attributes=True,
            )
            while len(_reports) > CACHED:
                _reports.popitem(last=False)
        _reports.move_to_end(digest)
    return found
