"""Every SQLSTATE that PostgreSQL knows: tried again, answered with 503, or a plain 500; none loses or doubles a result."""

from contextlib import closing
from typing import Any

import psycopg2.errorcodes
import pytest
from fastapi.testclient import TestClient
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from server.app import create_app
from server.database import Database
from server.errors import Unavailable
from tests.integration.conftest import Api

# From PostgreSQL's manual, Appendix A, read without the coordinator's table. "again": the transaction was rolled back for the
# sake of others; or refused by a server that has become read-only, where a new connection may find its successor; or its plan
# is not in this session, or another's is, and the next try does without ("26000", "42P05"). "later": the server cannot serve
# now, and nothing that this request does will change that. All else is a mistake of the program or of the schema, which no
# repetition mends.
AGAIN = {"40", "55P03", "23505", "25006", "26000", "42P05"}
LATER = {"08", "25P03", "25P04", "53", "57", "58", "F0"}
MISTAKES = {
    "01", "02", "03", "09", "0A", "0B", "0F", "0L", "0P", "0Z", "10", "20", "21", "22", "23", "24", "25", "26", "27", "28",
    "2B", "2D", "2F", "34", "38", "39", "3B", "3D", "3F", "42", "44", "54", "55", "72", "HV", "P0", "XX",
}  # fmt: skip

CODES = sorted({code for code in vars(psycopg2.errorcodes).values() if isinstance(code, str) and len(code) == 5} - {"00000"})


def expected(code: str) -> str:
    for means, those in (("again", AGAIN), ("later", LATER)):
        if code in those or code[:2] in those:
            return means
    assert code[:2] in MISTAKES, f"{code} is of a class that this test does not know"
    return "mistake"


def test_each_code_is_tried_again_put_off_or_a_mistake(database: Database) -> None:
    assert len(CODES) > 200
    for code in CODES:
        tries = []

        def work(connection: Any, code: str = code, tries: list[int] = tries) -> None:
            tries.append(1)
            connection.execute(text(f"do $$ begin raise exception 'planted' using errcode = '{code}'; end $$"))

        with pytest.raises((Unavailable, DBAPIError)) as raised:
            database.run(work)
        met = "mistake" if raised.type is not Unavailable else "again" if len(tries) > 1 else "later"
        assert met == expected(code), code
        if met != "mistake":
            assert raised.value.headers["Retry-After"]  # type: ignore[union-attr]
    assert database.run(lambda connection: connection.execute(text("select 1")).scalar_one()) == 1


PLANT = """
create table planted (code text);
create function planted_fault() returns trigger language plpgsql as $$
declare c text := (select code from planted);
begin
  if c is not null then raise exception 'planted' using errcode = c; end if;
  return new;
end $$;
create trigger at_once before insert on result for each row execute function planted_fault();
create constraint trigger at_commit after insert on result deferrable initially deferred
    for each row execute function planted_fault();
"""


@pytest.mark.parametrize("trigger", ["at_once", "at_commit"])
def test_a_result_is_there_once_after_any_of_them(trigger: str, database_url: str) -> None:
    """One code of each kind, while a result is stored or while it is committed; the worker sends it again, as workers do."""
    kinds = {(code[:2], expected(code)): code for code in CODES}
    with closing(Database(database_url)) as database:
        http = TestClient(create_app(database, open_to="anyone"), raise_server_exceptions=False)
        api = Api(http, database)
        api.sql(PLANT)
        other = {"at_once": "at_commit", "at_commit": "at_once"}[trigger]
        api.sql(f"alter table result disable trigger {other}")
        api.create(candidates=len(kinds))
        for (_, means), code in sorted(kinds.items()):
            lease = api.lease()
            api.sql("insert into planted values (:code)", code=code)
            answer = api.result(lease)
            assert answer.status_code == (500 if means == "mistake" else 503), (code, answer.text)
            assert answer.headers["content-type"] == "application/problem+json"
            assert (answer.headers.get("retry-after") is not None) == (means != "mistake")
            api.sql("delete from planted")
            assert api.sql("select count(*) from result where token = :token", token=lease["token"])[0][0] == 0
            assert api.result(lease).status_code == 201, code
            assert api.result(lease).json()["counts"], code
        # Nothing was lost or doubled: every candidate is done by the one result that it has.
        assert api.counts()["done"] == len(kinds)
        assert api.sql("select count(*), count(distinct candidate_id) from result")[0] == (len(kinds), len(kinds))
