"""A campaign with any number of finished candidates, written by SQL as real workers would have left it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import closing
from typing import Any

import numpy as np
from sqlalchemy import create_engine, text

from evolution.campaign import Campaign
from evolution.cube import Cube
from evolution.hyperparameters import lineage_space
from hypevolve.hashes import hyp_hash
from server import campaigns
from server.database import Database, parse_url

CAMPAIGN = "bench"
SPACE = lineage_space()
DISTINCT = 2000  # hyp sets; more candidates repeat them under other hashes
BATCH = 250_000  # candidates in one transaction


def judge(hyp: Mapping[str, float]) -> dict[str, Any]:
    """Metrics and fitness of a hyp set: smooth, so that a model of it finds something."""
    off = sum(
        ((hyp[gene.name] - gene.lower) / (gene.upper - gene.lower) - 0.4) ** 2 for gene in SPACE if gene.upper > gene.lower
    )
    map50 = max(0.9 - off / len(SPACE), 0.01)
    return {"metrics": {"map50": map50, "map50_95": map50 / 2}, "fitness": 0.1 * map50 + 0.9 * map50 / 2}


def seed(url: str, strategy: str, rows: int) -> None:
    """A campaign called ``bench`` with ``rows`` done candidates and a million to go, in a migrated database."""
    document = {
        "name": CAMPAIGN,
        "base": {"epochs": 1},
        "trainer": {"python": "toy:train"},
        "evolve": {"strategy": strategy, "seed": 0},
        "budget": {"candidates": 1_000_000},
        "lease": {"heartbeat": "15s", "expire": "60s"},
    }
    with closing(Database(url)) as database:
        database.run(lambda connection: campaigns.create(connection, Campaign.from_document(document)))
    engine = create_engine(parse_url(url))
    with engine.begin() as connection:
        connection.execute(text("update campaign set candidates = :rows + 1000000"), {"rows": rows})
        connection.execute(text("insert into worker (id, name) values (gen_random_uuid(), 'seed')"))
        connection.execute(text("create table sample (n int primary key, hyp json, hash text, metrics jsonb, fitness float8)"))
        connection.execute(text("insert into sample values (:n, :hyp, :hash, :metrics, :fitness)"), _sample())
    for begin in range(0, rows, BATCH):
        with engine.begin() as connection:
            connection.execute(text(_ROWS), {"begin": begin, "end": min(begin + BATCH, rows) - 1, "distinct": DISTINCT})
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("drop table sample"))
        connection.execute(text("vacuum analyze"))
    engine.dispose()


def _sample() -> list[dict[str, Any]]:
    rng, cube = np.random.default_rng(0), Cube(SPACE)
    sets = [cube.hyp(np.clip(cube.start + 0.1 * rng.standard_normal(len(cube)), 0, 1)) for _ in range(DISTINCT)]
    judged = [judge(hyp) for hyp in sets]
    return [
        {
            "n": n,
            "hyp": json.dumps(hyp),
            "hash": hyp_hash(hyp),
            "metrics": json.dumps(one["metrics"]),
            "fitness": one["fitness"],
        }
        for n, (hyp, one) in enumerate(zip(sets, judged, strict=True))
    ]


# Numbers, states and tokens are told to the triggers as a worker's requests would.
_ROWS = """
with bred as (
  insert into candidate (campaign_id, number, hyp, hyp_hash, origin, parents, state, token, attempts, fitness, finished_at)
  select c.id, g, s.hyp, case when g < :distinct then s.hash else encode(sha256(g::text::bytea), 'hex') end,
         case when g = 0 then 'initial' else 'bred' end, array[g / 2], 'done', md5(g::text), 1, s.fitness, clock_timestamp()
  from generate_series(:begin, :end) g join sample s on s.n = g % :distinct cross join campaign c
  order by g returning id, number, token, fitness
), tried as (
  insert into attempt (token, candidate_id, worker_id, request_id, request_slot, ended_at, outcome)
  select b.token, b.id, w.id, gen_random_uuid(), 0, clock_timestamp(), 'done' from bred b cross join worker w
)
insert into result (token, candidate_id, rung, counts, metrics, fitness, seconds, epochs, body_sha256)
select b.token, b.id, 0, true, s.metrics, b.fitness, 1.0, 1, md5(b.token) || md5(b.token)
from bred b join sample s on s.n = b.number % :distinct;
update campaign set bred = :end + 1;
insert into event (campaign_id, number, kind, detail)
select c.id, g, 'done', '{"fitness": 0.5}' from generate_series(:begin, :end) g cross join campaign c;
insert into tally (campaign_id, seconds) select id, :end - :begin + 1 from campaign;
"""
