"""Requests made from the served OpenAPI, with each scope: ``python -m benchmarks.fuzz_api --cases 10000 --json OUT``.

A real coordinator with two campaigns and leases in them gets requests that fit its own description and requests that do not,
by schemathesis, with a token of each scope and with none. No answer may be a 5xx but the 503, none may have a status,
type or shape that the description does not name, and nobody without a token may get anything.
"""

from __future__ import annotations

import argparse
import itertools
import math
import tempfile
import time
import uuid
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import httpx
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import content_type_conformance, response_schema_conformance, status_code_conformance

from benchmarks import record, toy
from benchmarks.heartbeats import coordinator
from hypevolve.messages import PREFIX

CALLERS = ("none", "read", "worker", "operator", "admin")
OPEN = ("/healthz", "/readyz")
CHECKS = [content_type_conformance, response_schema_conformance, status_code_conformance]
HINTS = 0.6  # how often an address is one that exists: random names find nothing behind them


class Fuzz:
    """Counts answers by caller and status; ``wrong`` lists what should not have been answered."""

    def __init__(self, url: str) -> None:
        self.answers: Counter[str] = Counter()
        self.wrong: list[str] = []
        self._http = httpx.Client(base_url=url, timeout=60)
        self._url = url
        self._values = self._world()
        self.tokens: dict[str, str] = {}
        for caller in ("admin", "read", "worker", "operator"):
            body = {"name": f"fuzz-{caller}", "scopes": [caller]}
            headers = {"Authorization": f"Bearer {self.tokens['admin']}"} if self.tokens else {}
            self.tokens[caller] = self._http.post(f"{PREFIX}/tokens", json=body, headers=headers).json()["token"]
        while self._http.get(f"{PREFIX}/campaigns").status_code != 401:  # until the coordinator has heard of the first token
            time.sleep(0.1)

    def _world(self) -> dict[str, list[Any]]:
        """Campaigns, candidates and leases that requests can name."""
        for name in ("toy", "other"):
            self._http.post(f"{PREFIX}/campaigns", json=toy.campaign(name, 200, epochs=3)).raise_for_status()
        ask = {"request_id": str(uuid.uuid4()), "worker": str(uuid.uuid4()), "n": 20}
        leases = self._http.post(f"{PREFIX}/leases", json=ask).json()["leases"]
        for lease in leases[:3]:
            metrics = dict.fromkeys(("precision", "recall", "f1", "map50", "map50_95"), 0.5)
            result = {"metrics": metrics, "fitness": 0.5, "hyp_hash": lease["hyp_hash"], "seconds": 1.0, "epochs": 3}
            address = f"{PREFIX}/candidates/{lease['candidate']}/attempts/{lease['token']}/result"
            self._http.put(address, json=result).raise_for_status()
        return {
            "name": ["toy", "other"],
            "number": [0, 1, 2],
            "token": [lease["token"] for lease in leases],
            "candidate": [lease["candidate"] for lease in leases],
        }

    def run(self, cases: int, seed_: int) -> None:
        """At least ``cases`` requests, shared out over operations, callers and requests that fit or do not.

        Some operations have fewer different requests than their share: what is missing then is made by further rounds.
        """
        for again in itertools.count():
            made = sum(self.answers.values())
            if made >= cases:
                return
            self._round(cases - made, seed_ + again)
            if sum(self.answers.values()) == made:
                raise RuntimeError("the description yields no request")

    def _round(self, cases: int, seed_: int) -> None:
        schema = schemathesis.openapi.from_url(f"{self._url}{PREFIX}/openapi.json", wait_for_schema=10)
        schema = schema.exclude(path_regex="/events/stream$")  # which has no end
        operations = [found.ok() for found in schema.get_all_operations()]
        # Without a token nothing is to be found out but that everything is refused.
        shares = {"none": 0.25, **dict.fromkeys(CALLERS[1:], 1.0)}
        each = max(cases / (2 * len(operations) * sum(shares.values())), 1.0)
        for caller in CALLERS:
            for operation in operations:
                for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):
                    self._operation(operation, caller, mode, math.ceil(each * shares[caller]), seed_)
            print(f"{caller}: {sum(self.answers.values())} requests so far, {len(self.wrong)} wrong answers", flush=True)

    def _operation(self, operation: Any, caller: str, mode: Any, cases: int, seed_: int) -> None:
        chance = record_chance(seed_, operation.label, caller)

        @seed(seed_)
        @settings(
            max_examples=cases, deadline=None, database=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck)
        )
        @given(case=operation.as_strategy(generation_mode=mode))
        def once(case: Any) -> None:
            for name, known in self._values.items():
                if name in case.path_parameters and chance.random() < HINTS:
                    case.path_parameters[name] = chance.choice(known)
            self._send(case, caller)

        try:
            once()
        except Exception as error:
            if "Unsatisfiable" not in type(error).__name__:  # an operation without parameters has no request that does not fit
                raise

    def _send(self, case: Any, caller: str) -> None:
        headers = {"Authorization": f"Bearer {self.tokens[caller]}"} if caller in self.tokens else {"Authorization": ""}
        case.headers = {k: v for k, v in (case.headers or {}).items() if k.lower() not in ("authorization", "cookie", "prefer")}
        case.cookies = {}
        response = case.call(headers=headers, timeout=120)
        status = response.status_code
        self.answers[f"{caller} {status}"] += 1
        if status >= 500 and status != 503:
            self.wrong.append(f"{caller} {case.operation.label}: {status}: {case.as_curl_command()[:1500]}")
        if caller == "none" and status < 400 and case.operation.path not in OPEN:
            self.wrong.append(f"{case.operation.label}: {status} without a token")
        try:
            case.validate_response(response, checks=[not_a_server_error, *CHECKS] if status != 503 else CHECKS)
        except BaseException as error:
            self.wrong.append(f"{caller} {case.operation.label}: {status}: {' '.join(str(error).split())[:700]}")


def record_chance(seed_: int, *about: str) -> Any:
    import random

    return random.Random(f"{seed_} {about}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    warnings.simplefilter("ignore")
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder, coordinator(Path(folder)) as url:
        fuzz = Fuzz(url)
        fuzz.run(asked.cases, asked.seed)
    results = {
        "cases": sum(fuzz.answers.values()),
        "answers": dict(sorted(fuzz.answers.items())),
        "wrong": fuzz.wrong[:50],
        "seconds": round(time.monotonic() - began),
    }
    for caller in CALLERS:
        told = "  ".join(f"{key.split()[1]}: {n}" for key, n in sorted(fuzz.answers.items()) if key.split()[0] == caller)
        print(f"{caller:<10}{told}")
    print(f"{results['cases']} requests, {len(fuzz.wrong)} wrong answers")
    for line in fuzz.wrong[:20]:
        print(line)
    if asked.json:
        record.write(asked.json, seed=asked.seed, results=results)
    raise SystemExit(1 if fuzz.wrong else 0)


if __name__ == "__main__":
    main()
