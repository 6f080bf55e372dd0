"""Death and rivalry at every statement: a request that dies is repeated, two requests cross in every way their statements can.

Death: the coordinator is gone before or after any statement or COMMIT, and the same request goes to another replica. Then the
rows must be those of a request that nothing happened to.

Rivalry: one replica is held before each of its statements while another carries out a whole request. Answers and rows must be
those of one of the two serial orders, and PostgreSQL must have seen no deadlock.

The suite takes a share of the schedules, drawn with a fixed seed; HYPEVOLVE_LONG_TESTS=1 takes them all.
"""

import itertools
import multiprocessing
import os
import random
import signal
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from functools import partial
from typing import Any, NamedTuple

import psycopg2
import pytest
from fastapi.testclient import TestClient
from sqlalchemy.engine import make_url

from benchmarks.chaos.failpoints import Failpoints, engines_of
from server.app import create_app
from server.database import Database

LONG = bool(os.environ.get("HYPEVOLVE_LONG_TESTS"))
PATIENCE_S = 120.0  # a busy machine
pytestmark = pytest.mark.timeout(3600 if LONG else 300)


class Request(NamedTuple):
    """One request, ready to be sent as often as needed."""

    method: str
    path: str
    body: Any = None

    def send(self, http: TestClient, tries: int = 100) -> Any:
        """Sent until it is answered with something else than 503, as a client does."""
        for _ in range(tries):
            answer = http.request(self.method, f"/api/v1{self.path}", json=self.body)
            if answer.status_code != 503:
                break
        return answer


def _http(database: Database) -> TestClient:
    """A replica without its background tasks and without tokens to look up: what runs is the request alone."""
    return TestClient(create_app(database, open_to="anyone"), raise_server_exceptions=False)


class Scene:
    """A campaign of one candidate that somebody holds, and the requests that may come now."""

    def __init__(self, api: Any) -> None:
        self._api = api
        self.name = f"s{uuid.uuid4().hex}"
        api.create(self.name, candidates=1)

    def fresh(self) -> None:
        self.lease: Any = None

    def held(self) -> None:
        (self.lease,) = self._api.ask(campaigns=[self.name])

    def expired(self) -> None:
        self.held()
        self._api.expire(self.lease)

    def returned(self) -> None:
        self.held()
        self._api.http.delete(f"/api/v1/leases/{self.lease['token']}")

    def failed_once(self) -> None:
        self.held()
        self._api.fail(self.lease)
        self.held()

    def retaken(self) -> None:
        """``lease`` has been lost, and ``second`` is its successor, expired too."""
        self.expired()
        (self.second,) = self._api.ask(campaigns=[self.name])
        self._api.expire(self.second)

    # ---- requests ------------------------------------------------------------------------------------------------------------

    def ask(self) -> Request:
        body = {"request_id": str(uuid.uuid4()), "worker": str(uuid.uuid4()), "campaigns": [self.name]}
        return Request("POST", "/leases", body)

    def beat(self) -> Request:
        return Request("PUT", f"/leases/{self.lease['token']}", {"epoch": 1})

    def epochs(self) -> Request:
        epochs = [{"epoch": 0, "metrics": {"map50": 0.1}}]
        return Request("POST", f"/leases/{self.lease['token']}/epochs", {"epochs": epochs})

    def result(self, lease: Any = None, map50: float = 0.5) -> Request:
        lease = lease or self.lease
        body = {
            "metrics": {"map50": map50, "map50_95": map50 / 2},
            "fitness": 0.1 * map50 + 0.9 * map50 / 2,
            "hyp_hash": lease["hyp_hash"],
            "data_hash": "d1",
            "seconds": 1.0,
            "epochs": 3,
        }
        return Request("PUT", f"/candidates/{lease['candidate']}/attempts/{lease['token']}/result", body)

    def second_result(self) -> Request:
        return self.result(self.second, 0.6)

    def failure(self, lease: Any = None) -> Request:
        return Request("POST", f"/leases/{(lease or self.lease)['token']}/failure", {"kind": "nan", "detail": "nan"})

    def second_failure(self) -> Request:
        return self.failure(self.second)

    def release(self, lease: Any = None) -> Request:
        return Request("DELETE", f"/leases/{(lease or self.lease)['token']}")

    def second_release(self) -> Request:
        return self.release(self.second)

    # ---- what came of it -----------------------------------------------------------------------------------------------------

    def rows(self) -> Any:
        """Everything that a request may change, without what differs from run to run."""
        rows = self._api.sql(
            """
            select k.number, k.state, k.attempts, k.failures, k.failure, round(k.fitness::numeric, 6),
              (select array_agg(coalesce(outcome, 'open') order by started_at) from attempt where candidate_id = k.id),
              (select array_agg(told order by told)
                from (select row(counts, metrics, rung)::text from result where candidate_id = k.id) results (told)),
              (select count(*) from lease where candidate_id = k.id),
              (select count(*) from lease where candidate_id = k.id and token = k.token),
              (select count(*) from lease where candidate_id = k.id and expires_at > clock_timestamp()),
              (select count(*) from epoch where candidate_id = k.id),
              (select array_agg(kind order by kind) from event where campaign_id = c.id),
              c.bred, c.data_hash
            from campaign c left join candidate k on k.campaign_id = c.id where c.name = :name order by k.number
            """,
            name=self.name,
        )
        counts = self._api.counts(self.name)
        return [tuple(map(str, row)) for row in rows], counts


def _told(answer: Any) -> Any:
    """An answer without what differs from run to run; a repeated 201 is a 200."""
    if answer.status_code == 204:
        return 204
    said = answer.json()
    if "leases" in said:
        return [(lease["number"], lease["rung"], lease["seed"]) for lease in said["leases"]]
    kept = {key: said[key] for key in ("counts", "reason", "command", "current", "state", "type") if key in said}
    return 200 if answer.status_code == 201 else answer.status_code, kept


# ---- death -------------------------------------------------------------------------------------------------------------------

DEATHS = [
    ("fresh", "ask"), ("returned", "ask"), ("expired", "ask"), ("held", "beat"), ("expired", "beat"), ("held", "epochs"),
    ("held", "result"), ("retaken", "result"), ("retaken", "second_result"), ("held", "failure"), ("failed_once", "failure"),
    ("held", "release"),
]  # fmt: skip


class Killed(Exception):
    """The coordinator is gone at this point."""


def _die(url: str, request: Request, at: int) -> None:
    """In a process of its own: a coordinator that kills itself at point ``at`` of the request, for real."""
    points = itertools.count()

    def act(_point: str, _statement: str) -> None:
        if next(points) == at:
            os.kill(os.getpid(), signal.SIGKILL)

    database = Database(url)
    with Failpoints(act, engines_of(database)):
        request.send(_http(database))


@pytest.mark.parametrize(("situation", "action"), DEATHS)
def test_a_request_that_dies_anywhere_and_is_repeated_is_as_if_nothing_had_happened(
    situation: str, action: str, api: Any, database_url: str
) -> None:
    def play(at: int | None, for_real: bool) -> tuple[Any, int]:
        """What came of it, and how many points were passed."""
        scene, points = Scene(api), itertools.count()
        getattr(scene, situation)()
        request: Request = getattr(scene, action)()

        def act(_point: str, _statement: str) -> None:
            if next(points) == at:
                raise Killed

        if for_real:
            process = forks.Process(target=_die, args=(database_url, request, at))
            process.start()
            process.join(PATIENCE_S)
            assert process.exitcode == -signal.SIGKILL
        else:
            with Failpoints(act, engines_of(doomed)):
                answer = request.send(doomed_http)
            assert (answer.status_code == 500) == (at is not None), answer.text
        answer = request.send(api.http) if at is not None else answer
        return (_told(answer), scene.rows()), next(points)

    forks = multiprocessing.get_context("forkserver")
    forks.set_forkserver_preload(["tests.integration.test_schedules"])
    doomed = Database(database_url)
    doomed_http = _http(doomed)
    try:
        untouched, points = play(None, for_real=False)
        assert points >= 4
        for at in range(points):
            assert play(at, for_real=False)[0] == untouched, f"dead at point {at} of {points}"
        for at in range(points) if LONG else [random.Random(action + situation).randrange(points)]:
            assert play(at, for_real=True)[0] == untouched, f"killed at point {at} of {points}"
    finally:
        doomed.close()


# ---- rivalry -----------------------------------------------------------------------------------------------------------------

RIVALS = {
    "expired": ("ask", "beat", "epochs", "result", "failure", "release"),
    "retaken": ("ask", "beat", "result", "second_result", "second_failure", "second_release"),
}
PAIRS = [(situation, *pair) for situation, actions in RIVALS.items() for pair in itertools.product(actions, repeat=2)]


class _Held:
    """A fail-point that waits before the n-th statement or commit."""

    def __init__(self, n: int) -> None:
        self.reached = threading.Event()
        self.go_on = threading.Event()
        self._left = n

    def __call__(self, point: str, _statement: str) -> None:
        if point.startswith("before"):
            self._left -= 1
            if self._left < 0 and not self.reached.is_set():
                self.reached.set()
                assert self.go_on.wait(PATIENCE_S)


class _Rivalry:
    """Two replicas over one database."""

    def __init__(self, api: Any, url: str) -> None:
        self._api = api
        self._slow, self._quick = Database(url), Database(url)
        self._https = _http(self._slow), _http(self._quick)

    def close(self) -> None:
        self._slow.close()
        self._quick.close()

    def serial(self, situation: str, one: str, two: str, *, swapped: bool) -> Any:
        scene, requests = self._scene(situation, one, two)
        answers = {i: requests[i].send(self._https[i]) for i in ((1, 0) if swapped else (0, 1))}
        return self._came_out(scene, requests, answers)

    def crossed(self, situation: str, one: str, two: str, at: int) -> Any:
        """``two`` in whole before statement ``at`` of ``one``; None where there is no such statement."""
        scene, requests = self._scene(situation, one, two)
        answers = self.cross(requests, at)
        return None if answers is None else self._came_out(scene, requests, dict(enumerate(answers)))

    def cross(
        self, requests: list[Request], at: int, between: Callable[[], Any] = lambda: None, tries: int = 100
    ) -> list[Any] | None:
        """The answers; the second request, then ``between``, before statement ``at`` of the first."""
        held, answers = _Held(at), {}

        def send(i: int) -> None:
            answers[i] = requests[i].send(self._https[i], tries)

        threads = [threading.Thread(target=send, args=(i,), daemon=True) for i in (0, 1)]
        with Failpoints(held, engines_of(self._slow)):
            threads[0].start()
            _until(lambda: held.reached.is_set() or not threads[0].is_alive())
            if not held.reached.is_set():
                return None
            threads[1].start()
            _until(lambda: not threads[1].is_alive() or self._waits_for_a_lock())
            between()
            held.go_on.set()
            for thread in threads:
                thread.join(PATIENCE_S)
        return [answers[i] for i in (0, 1)]

    def _came_out(self, scene: Scene, requests: list[Request], answers: dict[int, Any]) -> Any:
        """An ask that found the only candidate locked got 204 and asks again, as workers do."""
        again = [i for i in (0, 1) if requests[i].path == "/leases" and answers[i].status_code == 204]
        answers.update({i: requests[i].send(self._https[i]) for i in again})
        return [_told(answers[i]) for i in (0, 1)], scene.rows()

    def deadlocks(self) -> int:
        return int(self._api.sql("select deadlocks from pg_stat_database where datname = current_database()")[0][0])

    def _scene(self, situation: str, one: str, two: str) -> tuple[Scene, list[Request]]:
        scene = Scene(self._api)
        getattr(scene, situation)()
        return scene, [getattr(scene, one)(), getattr(scene, two)()]

    def _waits_for_a_lock(self) -> bool:
        waiting = "select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'"
        return bool(self._api.sql(waiting)[0][0])


def _until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.002)


@pytest.fixture
def rivalry(api: Any, database_url: str) -> Iterator[_Rivalry]:
    rivalry = _Rivalry(api, database_url)
    yield rivalry
    rivalry.close()


@pytest.mark.parametrize("part", range(4))
def test_two_requests_that_cross_come_out_as_if_one_had_come_first(part: int, rivalry: _Rivalry) -> None:
    chance = random.Random(part)
    for situation, one, two in PAIRS[part::4]:
        orders = [rivalry.serial(situation, one, two, swapped=swapped) for swapped in (False, True)]
        doubled = situation == "expired" and one == two  # one message sent twice at once
        for at in itertools.count() if LONG or doubled else [chance.randrange(8)]:
            found = rivalry.crossed(situation, one, two, at)
            if found is None:
                break
            assert found in orders, f"{two} in whole before statement {at} of {one}, {situation}"
    assert rivalry.deadlocks() == 0


def test_copies_of_an_ask_for_several_fill_its_slots_together(api: Any, rivalry: _Rivalry) -> None:
    """The second copy comes before each statement of the first, and a candidate comes back in between."""
    passed = 0
    while True:
        name = f"s{uuid.uuid4().hex}"
        api.create(name, candidates=6)
        (spare,) = api.ask(campaigns=[name])
        body = {"request_id": str(uuid.uuid4()), "worker": str(uuid.uuid4()), "campaigns": [name], "n": 3}
        request = Request("POST", "/leases", body)
        give_back = Request("DELETE", f"/leases/{spare['token']}")
        answers = rivalry.cross([request, request], passed, between=partial(give_back.send, api.http), tries=1)
        if answers is None:
            break
        assert [answer.status_code for answer in answers] == [200, 200], passed
        tokens = [{lease["token"] for lease in answer.json()["leases"]} for answer in answers]
        assert len(set.union(*tokens)) == 3, passed
        assert set.union(*tokens) in tokens, passed  # a copy that comes in the midst of it is told what there is by then
        passed += 1
    assert passed > 4


def test_a_statement_is_held_and_a_rival_sees_the_old_row(api: Any, rivalry: _Rivalry) -> None:
    """The instrument itself: with every statement of one request held in turn, both serial orders are seen."""
    seen = []
    for at in itertools.count():
        found = rivalry.crossed("expired", "ask", "beat", at)
        if found is None:
            break
        seen.append(found[0][1][1]["current"])
    assert set(seen) == {True, False}


def test_deadlocks_are_counted(api: Any, rivalry: _Rivalry, database_url: str) -> None:
    """The instrument itself: two transactions that lock two rows crosswise are a deadlock that the counter shows."""
    for name in ("one", "two"):
        api.create(name)
    barrier = threading.Barrier(2)
    dsn = make_url(database_url).set(drivername="postgresql").render_as_string(False)

    def lock(first: str, second: str) -> None:
        with closing(psycopg2.connect(dsn)) as connection, suppress(psycopg2.errors.DeadlockDetected):
            cursor = connection.cursor()
            cursor.execute("select 1 from campaign where name = %s for update", (first,))
            barrier.wait(PATIENCE_S)
            cursor.execute("select 1 from campaign where name = %s for update", (second,))

    threads = [threading.Thread(target=lock, args=pair) for pair in (("one", "two"), ("two", "one"))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_S)
    _until(lambda: rivalry.deadlocks() > 0)
