"""A campaign through docker-compose.yml: two workers, one killed in mid-training, and every candidate counted once.

Called by check-containers.sh as ``check-campaign.py ENGINE COMPOSE PASSED FAILED``; the numbers are those of checks before it.
Standard library only: it runs on machines that have nothing of ours installed.
"""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

CANDIDATES = 8
CAMPAIGN = {
    "name": "container-check",
    "base": {"data": "digits/data.yaml", "model": "yolov5n", "epochs": 6, "imgsz": 128, "batch": 8, "anchors": "fitted"},
    "budget": {"candidates": CANDIDATES},
    "lease": {"heartbeat": "1s", "expire": "10s"},
}
UP_S = 180
FINISH_S = 900


class Stack:
    """The compose project and its containers."""

    def __init__(self, engine: str, compose: str, url: str) -> None:
        self._engine = engine
        self._compose = shlex.split(compose)
        self._project = self._compose[self._compose.index("-p") + 1]
        self._url = url
        self._token = ""

    def compose(self, *arguments: str) -> None:
        subprocess.run([*self._compose, *arguments], check=True, stdout=sys.stderr)

    def engine(self, *arguments: str) -> str:
        return subprocess.run([self._engine, *arguments], check=True, stdout=subprocess.PIPE, text=True).stdout.strip()

    def containers(self, service: str) -> list[str]:
        labels = (f"com.docker.compose.project={self._project}", f"com.docker.compose.service={service}")
        filters = [word for label in labels for word in ("--filter", f"label={label}")]
        return self.engine("ps", "-aq", *filters).split()

    def start(self) -> None:
        """Up with two workers. A dependant may lose its first race where the engine ignores ``service_healthy``."""
        self.compose("up", "-d", "--no-build", "--scale", "worker=2")
        until(lambda: self.get("/readyz"), "the coordinator does not become ready", UP_S)
        if not self._token:
            (server,) = self.containers("server")
            command = ("python", "-m", "server", "token", "create", "check", "--scope", "admin")
            self._token = self.engine("exec", server, *command)

    def stop(self) -> dict[str, str]:
        """Container -> exit code. Not by compose: podman-compose forgets ``--scale`` and leaves the second worker running."""
        ours = [container for service in ("worker", "server", "postgres") for container in self.containers(service)]
        for container in ours:
            self.engine("stop", "-t", "30", container)
        return {container: self.engine("inspect", "-f", "{{.State.ExitCode}}", container) for container in ours}

    def down(self, *options: str) -> None:
        for container in self.containers("worker"):
            self.engine("rm", "-f", container)
        self.compose("down", *options)

    def get(self, path: str) -> Any:
        """The answer, or None while there is none."""
        with contextlib.suppress(OSError):
            return self.request(path)
        return None

    def request(self, path: str, body: Any = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        headers = {"Content-Type": "application/json", "Authorization": f"Bearer {self._token}"}
        request = urllib.request.Request(self._url + path, data, headers)  # noqa: S310
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310
                return json.load(answer)
        except urllib.error.HTTPError as error:
            raise OSError(f"{path}: {error.code} {error.read().decode(errors='replace')}") from error

    def workers(self) -> list[dict[str, Any]]:
        found = self.get("/api/v1/workers")
        return found["items"] if found else []

    def in_training(self) -> dict[str, Any] | None:
        """A worker that has finished an epoch of a candidate and is in the middle of another."""
        busy = (w for w in self.workers() if any(lease["epoch"] >= 1 and lease["progress"] < 0.8 for lease in w["leases"]))
        return next(busy, None)

    def write_digits(self, folder: Path) -> None:
        """The built-in data set, made by the worker's image and copied out, so that its files are ours to remove."""
        image = self.engine("inspect", "-f", "{{.Image}}", self.containers("worker")[0])
        maker = self.engine("create", "--entrypoint", "python", image, "-m", "detector", "digits", "/tmp/digits")  # noqa: S108
        try:
            self.engine("start", "-a", maker)
            self.engine("cp", f"{maker}:/tmp/digits", str(folder / "digits"))
        finally:
            self.engine("rm", "-f", "-v", maker)

    def counted_results(self) -> str:
        """``results that count|candidates that have one``, from the database itself."""
        query = "select count(*), count(distinct candidate_id) from result where counts"
        (database,) = self.containers("postgres")
        return self.engine("exec", database, "psql", "-U", "hypevolve", "-d", "hypevolve", "-tAc", query)


class Tally:
    def __init__(self, passed: int, failed: int) -> None:
        self.passed = passed
        self.failed = failed

    def check(self, holds: bool, what: str) -> None:
        self.passed += holds
        self.failed += not holds
        print("ok     " if holds else "FAIL   ", what, flush=True)


def until(found: Callable[[], Any], trouble: str, seconds: float) -> Any:
    """What ``found`` returns once it is something. Raises TimeoutError."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if answer := found():
            return answer
        time.sleep(0.3)
    raise TimeoutError(f"{trouble} within {seconds:g} s")


def rehearse(stack: Stack, data: Path, tally: Tally, facts: dict[str, Any]) -> None:
    stack.down("-v")  # what an interrupted run may have left
    stack.compose("build")
    stack.start()
    stack.write_digits(data)
    until(lambda: len(stack.workers()) == 2, "two workers do not register", UP_S)
    tally.check(True, "compose up: the coordinator is ready and two workers have registered")

    began = time.monotonic()
    stack.request("/api/v1/campaigns", CAMPAIGN)
    name = CAMPAIGN["name"]
    victim = until(stack.in_training, "no worker is in mid-training", UP_S)
    number = victim["leases"][0]["number"]
    stack.engine("kill", "-s", "KILL", victim["host"])  # a container's hostname is the beginning of its id
    tally.check(True, f"kill -9 of worker {victim['host']} in the training of candidate {number}")

    def ended() -> Any:
        campaign = stack.get(f"/api/v1/campaigns/{name}")
        return campaign if campaign and campaign["state"] == "finished" else None

    campaign = until(ended, "the campaign does not finish", FINISH_S)
    counts = campaign["counts"]
    facts |= {"campaign_seconds": round(time.monotonic() - began, 1), "counts": counts, "best": campaign["best"]["fitness"]}
    tally.check(counts["done"] + counts["failed"] == counts["planned"] == CANDIDATES, f"budget is exact: {counts}")
    rows = stack.request(f"/api/v1/campaigns/{name}/candidates?limit=500")["items"]
    tally.check(sorted(row["number"] for row in rows) == list(range(CANDIDATES)), "every candidate is there once")
    results = stack.counted_results()
    tally.check(results == f"{counts['done']}|{counts['done']}", f"no candidate counts twice: {results}")
    killed = next(row for row in rows if row["number"] == number)
    again = killed["state"] == "done" and killed["attempts"] >= 2 and killed["failures"] == 0
    tally.check(again, f"candidate {number} was trained again: {killed['state']} after {killed['attempts']} attempts")

    # What is down must come up with everything it knew, and with the password that nobody typed.
    codes = stack.stop()
    exits = f"stop by SIGTERM: exit codes {[*codes.values()]}"
    tally.check(set(codes.values()) <= {"0"} or _only_the_victim(codes, victim["host"]), exits)
    stack.down()
    stack.start()
    tally.check(ended() is not None and ended()["counts"] == counts, "after down and up the campaign is as it was")


def _only_the_victim(codes: dict[str, str], victim: str) -> bool:
    """Docker does not restart what was killed by hand, so that its code stays 137."""
    return all(code == "0" or (container.startswith(victim) and code == "137") for container, code in codes.items())


def main(engine: str, compose: str, passed: str, failed: str) -> int:
    tally = Tally(int(passed), int(failed))
    data = Path(tempfile.mkdtemp(prefix="hypevolve-check-"))
    data.chmod(0o755)  # the worker in the container is another user
    os.environ["HYPEVOLVE_DATA"] = str(data)
    stack = Stack(engine, compose, f"http://127.0.0.1:{os.environ['HYPEVOLVE_PORT']}")
    facts: dict[str, Any] = {"check": "containers", "engine": engine}
    began = time.monotonic()
    try:
        rehearse(stack, data, tally, facts)
    except (OSError, subprocess.CalledProcessError, LookupError, ValueError) as error:
        tally.check(False, f"{type(error).__name__}: {error}")
        with contextlib.suppress(subprocess.CalledProcessError):
            stack.compose("logs", "--tail", "30")
    finally:
        with contextlib.suppress(subprocess.CalledProcessError):
            stack.down("-v")
        shutil.rmtree(data, ignore_errors=True)
    facts |= {"seconds": round(time.monotonic() - began, 1), "passed": tally.passed, "failed": tally.failed}
    print(json.dumps(facts))
    print(f"{tally.passed} passed, {tally.failed} failed")
    return 1 if tally.failed else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
