"""Migrations taken back and applied again under workers that train; the judge of the fault campaign looks."""

import threading
import time
import uuid
from contextlib import closing
from pathlib import Path
from typing import Any

import alembic.command
import pytest
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool

from benchmarks import toy
from benchmarks.chaos import history, journal, verdict
from benchmarks.chaos.node import metrics_of
from benchmarks.heartbeats import coordinator
from evolution.fitness import fitness
from hypevolve import messages
from hypevolve.client import Client, RetryPolicy
from server.database import TURN_S, Database, alembic_config, migrate, parse_url

WORKERS = 4
CANDIDATES = 80
FIRST = "0001"  # what lies below it is the empty database


def _take_back(url: str, revision: str) -> None:
    """As an operator would: in short turns, so that nobody waits for long behind a lock that is not had."""
    config = alembic_config()
    engine = create_engine(parse_url(url), poolclass=NullPool)
    deadline = time.monotonic() + 120
    while True:
        try:
            with engine.begin() as connection:
                connection.execute(text(f"set local lock_timeout = '{TURN_S}s'"))
                config.attributes["connection"] = connection
                alembic.command.downgrade(config, revision)
                return
        except DBAPIError as error:
            if error.orig is None or error.orig.pgcode not in ("55P03", "40P01") or time.monotonic() > deadline:  # type: ignore[attr-defined]
                raise


class _Worker(threading.Thread):
    """Asks, beats, tells of an epoch and posts a result until there is nothing left; every answer is journaled."""

    def __init__(self, url: str, folder: Path, number: int, told: threading.Semaphore) -> None:
        super().__init__(name=f"worker-{number}", daemon=True)
        transport = journal.Recording(journal.Journal(folder / f"worker-{number}.jsonl"))
        self._client = Client(url, transport=transport, retry=RetryPolicy(patience_s=200, cap_s=0.5))
        self._told = told
        self.error: BaseException | None = None

    def run(self) -> None:
        try:
            worker = uuid.uuid4()
            while leases := self._client.ask(messages.Ask(request_id=uuid.uuid4(), worker=worker)):
                self._train(leases[0])
        except BaseException as error:
            self.error = error
            self._told.release()
        finally:
            self._client.close()

    def _train(self, lease: messages.Lease) -> None:
        metrics = metrics_of(lease.hyp)  # type: ignore[arg-type]
        self._client.heartbeat(lease.token, messages.Heartbeat(epoch=1, progress=0.5), deadline_s=100)
        self._client.post_epochs(lease.token, messages.Epochs(epochs=[messages.Epoch(epoch=0, metrics=metrics)]))
        result = messages.Result(
            metrics=metrics, fitness=fitness(metrics, lease.weights), hyp_hash=lease.hyp_hash, seconds=0.1, epochs=1
        )
        self._client.put_result(lease.candidate, lease.token, result)
        self._told.release()


@pytest.mark.timeout(300)
def test_migrations_go_back_and_forth_under_workers_that_train(database_url: str, tmp_path: Path) -> None:
    """A coordinator over a schema older than itself answers 503 where it lacks something, and goes on once it is there."""
    url = make_url(database_url).set(drivername="postgresql").render_as_string(False)
    journals = tmp_path / "journals"
    journals.mkdir()
    told = threading.Semaphore(0)
    revisions = [revision.revision for revision in ScriptDirectory.from_config(alembic_config()).walk_revisions()]
    with coordinator(tmp_path, "--db", url) as address:
        with closing(Client(address)) as people:
            people.create_campaign(toy.campaign("toy", CANDIDATES))
        workers = [_Worker(address, journals, number, told) for number in range(WORKERS)]
        for worker in workers:
            worker.start()
        for target in revisions[1:]:  # the newest first, down to one that still holds rows
            assert told.acquire(timeout=100)  # somebody works
            assert [worker.error for worker in workers] == [None] * WORKERS
            _take_back(url, target)
            migrate(url)
        for worker in workers:
            worker.join(200)
    assert [worker.error for worker in workers] == [None] * WORKERS
    assert revisions[-1] == FIRST
    found = verdict.judge(
        journal.read(journals),
        history.read(url, "toy"),
        planned=CANDIDATES,
        retries=1,
        poisoned=lambda _number: False,
        lease_s=60.0,
    )
    assert found.clean, found
    assert found.acknowledged == CANDIDATES
    with closing(Database(url)) as database:  # the numbers that triggers keep were counted anew, and kept since
        tally: Any = database.run(lambda c: c.execute(text("select sum(done), sum(queued), sum(leased) from tally")).one())
    assert tuple(tally) == (CANDIDATES, 0, 0)
