"""The fault campaign itself: the short form has to come out clean, and a coordinator that loses results has to be found out."""

import json
from pathlib import Path
from typing import Any

import psycopg2
import pytest
from sqlalchemy.engine import make_url

from benchmarks.chaos.__main__ import main
from benchmarks.chaos.campaign import Campaign
from benchmarks.chaos.plan import Plan

QUIET = dict.fromkeys(("worker_kills", "coordinator_kills", "database_crashes", "zombies", "storms"), 0)
CALM = Plan(40, 6, 1, 1, **QUIET, lossy=0.0, lease_s=2.0, limit_s=90)
DOUBLE = """
    drop index result_counts;
    create temp table one as select * from result where counts limit 1;
    insert into attempt (token, candidate_id, worker_id, request_id, request_slot, outcome, started_at, ended_at)
      select 'twin', candidate_id, worker_id, gen_random_uuid(), 0, 'late', started_at, ended_at
      from attempt where token = (select token from one);
    update one set token = 'twin';
    insert into result select * from one;
"""


@pytest.mark.timeout(420)
def test_the_short_fault_campaign_loses_and_doubles_nothing(tmp_path: Path, capsys: Any) -> None:
    out = tmp_path / "chaos.json"
    code = main(["--short", "--seed", "1", "--json", str(out), "--folder", str(tmp_path / "run")])
    figures = json.loads(out.read_text())["results"]
    shown = capsys.readouterr().out
    assert code == 0, figures["wrong"] or {key: figures[key] for key in ("finished", "faults", "seconds")}
    assert "**0 / 0 / 0**" in shown
    assert (figures["faults"]["worker killed"], figures["faults"]["database crashed"]) == (20, 10)
    assert figures["faults"]["coordinator killed"] == 3
    # The other 11 are poison. That every one of the 989 is stored is the verdict's part; who is killed, or sent home by a
    # storm, between the commit and the answer never hears of it.
    assert figures["acknowledged"] >= 989 - 20 - (22 + 2) // 4
    assert figures["leases_lost"] > 0


def test_a_coordinator_that_acknowledges_before_it_commits_is_found_out(tmp_path: Path) -> None:
    liar = ("-m", "benchmarks.chaos.failpoints", "lie:0.3")
    with Campaign(tmp_path, CALM, 2, coordinator=liar) as campaign:
        figures = campaign.run()
    assert figures["lost"] > 0, figures
    assert not figures["clean"]


def test_a_doubled_result_is_found_out_and_a_campaign_goes_on_in_its_folder(tmp_path: Path) -> None:
    """The first run is broken off half-way, the second finishes it, and a row doubled behind everybody's back is seen."""

    def interrupt(line: str) -> None:
        if not line.startswith("0 of"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), Campaign(tmp_path, CALM, 3, say=interrupt) as campaign:
        campaign.run()

    def double(url: str) -> None:
        connection = psycopg2.connect(make_url(url).set(drivername="postgresql").render_as_string(False))
        with connection, connection.cursor() as cursor:
            cursor.execute(DOUBLE)
        connection.close()

    with Campaign(tmp_path, CALM, 3, planted=double) as campaign:
        second = campaign.run()
    assert second["finished"]
    assert second["acknowledged"] >= 30  # some answers were on their way when everybody was killed
    assert second["doubled"] > 0
