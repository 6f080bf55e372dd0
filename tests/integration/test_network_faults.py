"""A bad network between workers and coordinators, and between a coordinator and its database: own proxies, real TCP.

Where root may make network namespaces, a real worker is cut off in one, without anybody hearing of it.
"""

import contextlib
import itertools
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from sqlalchemy.engine import make_url

from benchmarks.chaos.proxy import Fault, HttpProxy, TcpProxy
from hypevolve import messages
from hypevolve.client import Client, RetryPolicy
from server.app import create_app
from server.database import Database

HARMED = 2  # how often each route is harmed before it is let through
PATIENT = RetryPolicy(patience_s=60, first_s=0.02, cap_s=0.1)


@contextlib.contextmanager
def serving(url: str) -> Iterator[int]:
    """A coordinator on a port of its own, in a thread."""
    database = Database(url)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(64)
        server = uvicorn.Server(
            uvicorn.Config(create_app(database, open_to="anyone"), log_level="error", timeout_graceful_shutdown=1)
        )
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            server.should_exit = True
            thread.join(20)
            database.close()


def always(fault: Fault) -> Callable[[Mapping[str, Any]], Fault | None]:
    """Harm the first requests of each route."""
    seen: Counter[str] = Counter()

    def choose(line: Mapping[str, Any]) -> Fault | None:
        seen[line["do"]] += 1
        return fault if seen[line["do"]] <= HARMED else None

    return choose


def life(client: Client) -> list[Any]:
    """Every message of the protocol once, and a second candidate that is released and fails twice."""
    worker = uuid.uuid4()

    def lease() -> messages.Lease:
        while True:  # a candidate that a doubled message just locks is passed over
            for found in client.ask(messages.Ask(request_id=uuid.uuid4(), worker=worker)):
                return found

    told: list[Any] = [client.register(messages.RegisterWorker(worker=worker, name="n")).protocol]
    first = lease()
    told += [first.number, client.heartbeat(first.token, messages.Heartbeat(epoch=1), deadline_s=30).command]
    epochs = messages.Epochs(epochs=[messages.Epoch(epoch=0, metrics={"map50": 0.1})])
    told.append(client.post_epochs(first.token, epochs).current)
    result = messages.Result(
        metrics={"map50": 0.5, "map50_95": 0.25}, fitness=0.275, hyp_hash=first.hyp_hash, seconds=1, epochs=3
    )
    told.append(client.put_result(first.candidate, first.token, result).counts)
    second = lease()
    told.append(second.number)
    client.release(second.token, "sigterm")
    for _ in range(2):
        told.append(client.post_failure(lease().token, messages.Failure(kind="nan")).state)
    return told


@pytest.mark.parametrize("fault", ["cut", "drop", "hold", "twice", "mute"])
def test_a_life_through_a_bad_network_is_the_same_life(fault: Fault, api: Any, database_url: str) -> None:
    api.create(candidates=2)
    with serving(database_url) as one, serving(database_url) as two:
        upstreams = [("127.0.0.1", one), ("127.0.0.1", two)]
        with (
            HttpProxy(upstreams, always(fault), hold_s=0.3) as proxy,
            Client(f"http://127.0.0.1:{proxy.port}", retry=PATIENT, timeout_s=0.5 if fault == "mute" else 10.0) as client,
        ):
            told = life(client)
        assert proxy.faults[fault] >= 7  # seven kinds of message
    assert told == [1, 0, "continue", True, True, 1, "queued", "failed"]
    rows = api.sql("select number, state, attempts, failures from candidate order by number")
    assert [tuple(row) for row in rows] == [(0, "done", 1, 0), (1, "failed", 3, 2)]
    assert [tuple(row) for row in api.sql("select count(*), (select count(*) from epoch) from result")] == [(1, 1)]
    kinds = Counter(row.kind for row in api.sql("select kind from event"))
    assert kinds == {"created": 1, "bred": 2, "leased": 4, "running": 1, "done": 1, "released": 1, "retried": 1, "failed": 1}


def test_old_messages_that_arrive_late_change_nothing(api: Any) -> None:
    """Heartbeats, epochs, a release and a failure of an attempt that was lost long ago, after its successor has begun."""
    api.create(candidates=1)
    old = api.lease()
    api.expire(old)
    new = api.lease()
    before = api.sql("select state, token, attempts, failures from candidate")
    lease = api.sql("select token, expires_at from lease")
    assert api.beat(old, epoch=9)["current"] is False
    assert api.http.delete(f"/api/v1/leases/{old['token']}").status_code == 409
    assert api.fail(old).status_code == 409
    epochs = {"epochs": [{"epoch": 0, "metrics": {"map50": 0.1}}]}
    assert api.http.post(f"/api/v1/leases/{old['token']}/epochs", json=epochs).json() == {"current": False}
    assert api.sql("select state, token, attempts, failures from candidate") == before
    assert api.sql("select token, expires_at from lease") == lease
    assert api.beat(new)["current"] is True


@pytest.fixture
def behind_tcp(database_url: str) -> Iterator[tuple[TcpProxy, str]]:
    """A proxy in front of PostgreSQL, and the database's URL through it."""
    url = make_url(database_url)
    host, port = url.query.get("host", url.host), int(url.query.get("port", url.port or 5432))  # type: ignore[arg-type]
    upstream = Path(str(host), f".s.PGSQL.{port}") if str(host).startswith("/") else (str(host), port)
    with TcpProxy(upstream) as proxy:
        through = url.set(query={**url.query, "host": "127.0.0.1", "port": str(proxy.port)})
        yield proxy, through.render_as_string(hide_password=False)


def test_cut_connections_to_the_database_are_replaced(api: Any, behind_tcp: tuple[TcpProxy, str]) -> None:
    proxy, url = behind_tcp
    api.create(candidates=40)
    with serving(url) as port, Client(f"http://127.0.0.1:{port}", retry=PATIENT) as client:
        proxy.latency_s = 0.001
        stop, pauses = threading.Event(), itertools.cycle((0.1, 0.4, 1.6))

        def cut() -> None:
            while not stop.wait(next(pauses)):
                proxy.cut()

        threading.Thread(target=cut, daemon=True).start()
        try:
            for _ in range(10):
                (lease,) = client.ask(messages.Ask(request_id=uuid.uuid4(), worker=uuid.uuid4()))
                result = messages.Result(
                    metrics={"map50": 0.5, "map50_95": 0.25}, fitness=0.275, hyp_hash=lease.hyp_hash, seconds=1, epochs=3
                )
                assert client.put_result(lease.candidate, lease.token, result).counts
        finally:
            stop.set()
    assert [tuple(row) for row in api.sql("select count(*) from result where counts")] == [(10,)]
    assert api.counts()["done"] == 10
    assert api.counts()["leased"] == 0  # an ask that was cut off and repeated left no second lease behind


def test_a_database_that_answers_slowly_is_answered_for(api: Any, behind_tcp: tuple[TcpProxy, str]) -> None:
    """A link that hangs for a moment delays; it neither loses nor doubles, and the coordinator needs no restart."""
    proxy, url = behind_tcp
    api.create(candidates=3)
    with serving(url) as port, Client(f"http://127.0.0.1:{port}", retry=PATIENT, timeout_s=1.0) as client:
        proxy.frozen = True
        threading.Timer(2.5, lambda: setattr(proxy, "frozen", False)).start()
        began = time.monotonic()
        (lease,) = client.ask(messages.Ask(request_id=uuid.uuid4(), worker=uuid.uuid4()))
        assert time.monotonic() - began > 2
    assert lease.number == 0
    assert api.counts()["leased"] == 1


TRAINER = """
import pathlib, time

def train(ctx):
    pathlib.Path("training").touch()
    while not pathlib.Path("go").exists():
        ctx.progress(0.5)
        time.sleep(0.05)
    return {"map50": 0.5, "map50_95": 0.25}
"""
OURS, THEIRS = "10.213.7.1", "10.213.7.2"


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


@pytest.fixture
def namespace() -> Iterator[Callable[[bool], None]]:
    """A second host at ``THEIRS``. Called with True it is cut off (packets vanish, none is refused), with False it is back."""
    if os.geteuid() != 0 or shutil.which("ip") is None:
        pytest.skip("network namespaces need root and iproute2")
    name = f"hv{os.getpid()}"
    made = subprocess.run(["ip", "netns", "add", name], capture_output=True, text=True)
    if made.returncode:
        pytest.skip(f"no network namespaces here: {made.stderr.strip()}")
    near, far, inside = f"{name}a", f"{name}b", ("netns", "exec", name, "ip")
    try:
        _ip("link", "add", near, "type", "veth", "peer", "name", far)
        _ip("link", "set", far, "netns", name)
        _ip("addr", "add", f"{OURS}/30", "dev", near)
        _ip("link", "set", near, "up")
        for words in (("addr", "add", f"{THEIRS}/30", "dev", far), ("link", "set", far, "up"), ("link", "set", "lo", "up")):
            _ip(*inside, *words)

        def cut_off(really: bool) -> None:
            for prefix, to, device in (((), THEIRS, near), (inside, OURS, far)):
                command = prefix or ("",)
                words = ("neigh", "replace" if really else "del", to, "dev", device)
                lost = ("lladdr", "02:00:00:00:00:99", "nud", "permanent") if really else ()
                _ip(*[word for word in command if word], *words, *lost)

        cut_off.name = name  # type: ignore[attr-defined]
        yield cut_off
    finally:
        subprocess.run(["ip", "link", "del", near], capture_output=True)
        subprocess.run(["ip", "netns", "del", name], capture_output=True)


def test_a_partitioned_worker_is_replaced_and_its_late_result_is_heard(
    namespace: Callable[[bool], None], api: Any, database_url: str, tmp_path: Path
) -> None:
    (tmp_path / "toy.py").write_text(TRAINER)
    api.create(candidates=1, lease={"heartbeat": "1s", "expire": "3s"})
    with serving(database_url) as port, TcpProxy(("127.0.0.1", port), host=OURS) as door:
        worker = [
            sys.executable,
            "-m",
            "worker",
            f"http://{OURS}:{door.port}",
            "--folder",
            str(tmp_path / "w"),
            "--name",
            "far",
        ]
        worker += ["--devices", "cpu", "--data-root", str(tmp_path)]
        command = ["ip", "netns", "exec", namespace.name, *worker]  # type: ignore[attr-defined]
        environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])}
        with (tmp_path / "log").open("w") as log:
            process = subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=log, stderr=log)
        try:
            _until(lambda: (tmp_path / "training").exists(), tmp_path)
            namespace(True)
            with Client(f"http://127.0.0.1:{port}", retry=PATIENT) as client:
                (lease,) = client.ask(messages.Ask(request_id=uuid.uuid4(), worker=uuid.uuid4()), wait_s=30)
                assert (lease.number, api.counts()["lost"]) == (0, 1)
                (tmp_path / "go").touch()
                _until(lambda: "done map50" in (tmp_path / "log").read_text(), tmp_path)
                assert api.counts()["done"] == 0  # nobody has heard of it
                namespace(False)
                _until(lambda: api.counts()["done"] == 1, tmp_path)
                assert client.heartbeat(lease.token, messages.Heartbeat(), deadline_s=30).command == "cancel"
                result = messages.Result(
                    metrics={"map50": 0.5, "map50_95": 0.25}, fitness=0.275, hyp_hash=lease.hyp_hash, seconds=1, epochs=3
                )
                assert client.put_result(lease.candidate, lease.token, result).counts is False
        finally:
            process.terminate()
            assert process.wait(60) == 0


def _until(condition: Callable[[], bool], folder: Path) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end, (folder / "log").read_text()
        time.sleep(0.05)
