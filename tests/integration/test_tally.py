"""The numbers of a campaign: kept by the database whoever changes a state, equal to its rows at every moment."""

import threading
from typing import Any

import alembic.command
import pytest
from sqlalchemy import create_engine, text

from server import tally
from server.database import Database, alembic_config, parse_url

COUNTED = """
    select k.state, count(*) from candidate k join campaign c on c.id = k.campaign_id
    where c.name = 'toy' and k.origin not in ('imported', 'confirm') group by k.state
"""


def _some_of_everything(api: Any) -> None:
    """A campaign with a candidate in every state, one lost, three imported and one confirm row."""
    imported = [{"hyp": {"x": 0.1 * n, "y": 0.2}, "metrics": {"map50": 0.2 * n, "map50_95": 0.1 * n}} for n in (1, 2, 3)]
    api.create(candidates=20, retries=0, imported=imported)
    for map50 in (0.3, 0.5, 0.4, 0.6):
        api.result(api.lease(), map50=map50)
    api.fail(api.lease())
    silent = api.lease()
    api.expire(silent)
    api.lease()
    running = api.lease()
    api.http.post(f"/api/v1/leases/{running['token']}/epochs", json={"epochs": [{"epoch": 0, "metrics": {"map50": 0.1}}]})
    cancelled, released = api.lease(), api.lease()
    api.sql("update candidate set state = 'cancelled' where id = :id", id=cancelled["candidate"])  # as an operator might
    api.http.delete(f"/api/v1/leases/{released['token']}")
    api.sql(
        "insert into candidate (campaign_id, number, hyp, hyp_hash, origin) select id, 100, '{}', 'c', 'confirm' from campaign"
    )


def _numbers(api: Any) -> tally.Tally:
    return api.database.run(lambda c: tally.of(c, c.execute(text("select id from campaign")).scalar_one()))


def _agrees(api: Any) -> None:
    numbers = _numbers(api)._asdict()
    rows = dict(api.sql(COUNTED))
    assert {state: numbers[state] for state in ("queued", "leased", "running", "done", "failed", "cancelled")} == {
        "queued": 0, "leased": 0, "running": 0, "done": 0, "failed": 0, "cancelled": 0, **rows
    }  # fmt: skip


def test_numbers_are_those_of_the_rows_whoever_changes_them(api: Any) -> None:
    _some_of_everything(api)
    _agrees(api)
    numbers = _numbers(api)
    assert numbers.device_s > 0
    by_state = {"queued": 1, "leased": 1, "running": 1, "done": 4, "failed": 1, "cancelled": 1}
    assert numbers._replace(device_s=0.0) == tally.Tally(**by_state, imported=3, lost=1, seconds=4.0)
    api.sql("delete from candidate where number = 100 or number < 0")
    api.sql("update candidate set state = 'queued' where state = 'failed'")
    _agrees(api)
    assert _numbers(api).imported == 0


def test_folding_changes_no_number_while_others_write(api: Any, database_url: str) -> None:
    api.create(candidates=200)
    stop = threading.Event()
    replica = Database(database_url)

    def fold() -> None:
        while not stop.is_set():
            replica.run(tally.fold)

    folders = [threading.Thread(target=fold) for _ in range(2)]
    for folder in folders:
        folder.start()
    for _ in range(60):
        api.result(api.lease())
        counts = api.counts()
        assert counts["planned"] == sum(
            counts[s] for s in ("done", "failed", "cancelled", "running", "leased", "queued", "unbred")
        )
    stop.set()
    for folder in folders:
        folder.join()
    replica.run(tally.fold)
    replica.close()
    _agrees(api)
    assert _numbers(api).seconds == pytest.approx(60)
    assert api.sql("select count(*) from tally")[0][0] < 2 * tally.FOLD_FROM


def test_the_best_so_far_rises_where_a_walk_over_all_rows_says(api: Any) -> None:
    api.create(candidates=40)
    leases = [api.lease() for _ in range(40)]
    for lease in sorted(leases, key=lambda lease: (lease["number"] * 17) % 40):  # in another order than they were bred
        api.result(lease, map50=((lease["number"] * 29) % 37) / 50)
    walked, best = [], -1.0
    for number, fitness in api.sql("select number, fitness from candidate order by number"):
        if fitness > best:
            walked.append([number, fitness])
            best = fitness
    assert [[number, fitness] for number, fitness in api.sql("select number, fitness from jump order by number")] == walked
    (line,) = api.http.get("/campaigns.json").json()["items"]
    assert line["jumps"] == walked


def test_numbers_survive_the_migration_forth_and_back(api: Any, database_url: str) -> None:
    """A database of the first release, with rows in every state, gets the same numbers as one that kept them all along."""
    _some_of_everything(api)
    before = _numbers(api)
    jumps = api.sql("select * from jump order by number")
    engine = create_engine(parse_url(database_url))
    with engine.begin() as connection:
        config = alembic_config()
        config.attributes["connection"] = connection
        alembic.command.downgrade(config, "0001")
        alembic.command.upgrade(config, "head")
    engine.dispose()
    assert _numbers(api)._asdict() == pytest.approx(before._asdict())
    assert api.sql("select * from jump order by number") == jumps
    _agrees(api)
