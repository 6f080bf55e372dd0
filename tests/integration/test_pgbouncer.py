"""A real pgbouncer in transaction mode before PostgreSQL: two sessions for everybody, changed at every COMMIT."""

import os
import shutil
import socket
import subprocess
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import psycopg2
import pytest
from fastapi.testclient import TestClient
from sqlalchemy.engine import make_url

from server.app import create_app
from server.database import Database, migrate
from server.errors import Unavailable
from tests.integration.conftest import Api

SESSIONS = 2
PROGRAM = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
pytestmark = pytest.mark.skipif(PROGRAM is None, reason="no pgbouncer here (Debian: apt-get install pgbouncer)")


@pytest.fixture
def pooled(empty_database_url: str, tmp_path: Path) -> Iterator[tuple[str, str]]:
    """The URL of an empty database by way of pgbouncer, and its own."""
    direct = make_url(empty_database_url)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    # pgbouncer logs in for everybody, so that it need know no password of ours.
    target = {
        "host": direct.query.get("host") or direct.host,
        "port": direct.query.get("port") or direct.port or 5432,
        "user": direct.username,
        "password": direct.password,
    }
    database = " ".join(f"{key}={value}" for key, value in target.items() if value)
    settings = f"""
[databases]
{direct.database} = {database}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = any
pool_mode = transaction
default_pool_size = {SESSIONS}
max_client_conn = 100
server_lifetime = 3600
"""
    file = tmp_path / "pgbouncer.ini"
    file.write_text(settings)
    # It refuses to be root; in a namespace of its own it is not, and reads what we may read.
    become = ["unshare", "--user", "--map-user=1000", "--map-group=1000"] if os.geteuid() == 0 else []
    log = (tmp_path / "pgbouncer.log").open("wb")
    with log, subprocess.Popen([*become, str(PROGRAM), str(file)], stdout=log, stderr=log) as process:
        try:
            url = f"postgresql://anybody:x@127.0.0.1:{port}/{direct.database}?sslmode=disable&gssencmode=disable"
            _until_ready(url, process, tmp_path / "pgbouncer.log")
            yield url, empty_database_url
        finally:
            process.terminate()


def _until_ready(url: str, process: "subprocess.Popen[bytes]", log: Path) -> None:
    deadline = time.monotonic() + 30
    while True:
        try:
            psycopg2.connect(url).close()
            return
        except psycopg2.OperationalError:
            if process.poll() is not None or time.monotonic() > deadline:
                pytest.fail(log.read_text()[-2000:])
            time.sleep(0.05)


def test_a_campaign_goes_through_pgbouncer_in_transaction_mode(pooled: tuple[str, str]) -> None:
    """Two coordinators, eight workers, two sessions: statements of one transaction stay together, nothing else does."""
    url, direct = pooled
    migrate(url)
    with ExitStack() as opened:
        apis = []
        for _ in range(2):
            database = opened.enter_context(closing(Database(url)))
            http = opened.enter_context(TestClient(create_app(database, open_to="anyone")))
            apis.append(Api(http, database))
        apis[0].create(candidates=40)
        errors: list[BaseException] = []

        def work(api: Api) -> None:
            try:
                worker = uuid.uuid4()
                while leases := api.ask(worker):
                    (lease,) = leases
                    assert api.beat(lease)["current"]
                    epochs = {"epochs": [{"epoch": 0, "metrics": {"map50": 0.1}}]}
                    assert api.http.post(f"/api/v1/leases/{lease['token']}/epochs", json=epochs).status_code == 200
                    if lease["number"] % 5 == 3:
                        api.fail(lease)
                    else:
                        assert api.result(lease, map50=lease["hyp"]["x"] / 2).status_code == 201
            except BaseException as error:
                errors.append(error)

        threads = [threading.Thread(target=work, args=(apis[k % 2],)) for k in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert errors == []
        counts = apis[1].counts()
        assert (counts["done"], counts["failed"], counts["unbred"]) == (32, 8, 0)
        assert [apis[0].http.get(page).status_code for page in ("/", "/c/toy", "/workers")] == [200] * 3
        # Their own time limits stay with each transaction: nobody finds those of another in a session.
        assert apis[0].sql("show statement_timeout")[0][0] == "5s"
        with closing(psycopg2.connect(url)) as other, other.cursor() as cursor:
            cursor.execute("show statement_timeout")
            assert cursor.fetchone() == ("0",)
        with closing(Database(direct)) as database:
            ours: Any = Api(apis[0].http, database).sql(
                "select count(*) from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()"
            )
        assert 1 <= ours[0][0] <= SESSIONS


def test_a_pgbouncer_without_a_database_is_a_503(pooled: tuple[str, str]) -> None:
    url, _ = pooled
    nowhere = make_url(url).set(database="nowhere").render_as_string(False)
    with closing(Database(nowhere)) as database, pytest.raises(Unavailable, match="cannot answer now"):
        database.run(lambda connection: connection.exec_driver_sql("select 1"))
