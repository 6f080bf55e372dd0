"""What a campaign has learned, from a bounded number of its rows: read in one transaction, computed outside of it."""

from __future__ import annotations

import hashlib
import json
import threading
from collections import OrderedDict
from collections.abc import Mapping
from typing import NamedTuple

from sqlalchemy import Connection, text

from evolution.campaign import Campaign
from evolution.insight import ROWS, Parent, insight, story
from evolution.space import Space
from evolution.strategy import Row
from hypevolve import messages
from server import campaigns, judging, tally

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


def read(connection: Connection, name: str, weights: Mapping[str, float] | None = None) -> Material:
    """The rows and the best candidate's line of parents; by other ``weights`` than the campaign's every row is looked at.

    Raises:
        NotFound: no such campaign.
        Invalid: a result lacks a metric that has a weight.
    """
    row = campaigns.find(connection, name)
    space = Campaign.from_document(row.document).space
    fitness, results = "k.fitness", ""
    if weights is not None:
        judging.refuse_unweighable(connection, row.id, weights)
        fitness = judging.judged("cast(:weights as jsonb)", judging.METRICS_OF)
        results = "left join result r on r.candidate_id = k.id and r.counts"
    values = {"id": row.id, "weights": judging.as_json(weights or {}), "n": ROWS, "most": LONGEST_STORY}
    parts = [
        connection.execute(
            text(
                f"""
                select k.number, k.hyp, {fitness} as fitness from candidate k {results}
                where k.campaign_id = :id and k.state = 'done' and k.origin <> 'confirm' order by {order} limit :n
                """
            ),
            values,
        ).all()
        for order in (f"{fitness} desc, k.number", "k.number desc")
    ]
    found = {r.number: Row(r.number, space.encode(r.hyp), r.fitness) for part in parts for r in part}
    line = connection.execute(text(_LINE.format(fitness=fitness, results=results)), values)
    parents = tuple(Parent(r.number, r.hyp, r.fitness, r.parent) for r in line)
    return Material(name, space, tuple(found.values()), parents, tally.of(connection, row.id).done)


# From the oldest known ancestor to the best, along each candidate's first parent.
_LINE = """
    with recursive line as (
      (select k.number, k.hyp, {fitness} as fitness, k.parents[1] as parent, 1 as step from candidate k {results}
       where k.campaign_id = :id and k.state = 'done' and k.number >= 0 order by {fitness} desc, k.number limit 1)
      union all
      select k.number, k.hyp, {fitness}, k.parents[1], line.step + 1
      from line join candidate k on k.number = line.parent {results}
      where k.campaign_id = :id and line.step < :most
    ) select number, hyp, fitness, parent from line order by step desc
"""


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
