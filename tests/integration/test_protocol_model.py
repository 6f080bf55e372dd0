"""The protocol against a model of it: hypothesis plays workers in any order, the real SQL has to agree after every step."""

import base64
import hashlib
import json
import os
import uuid
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, multiple, rule, run_state_machine_as_test

LONG = bool(os.environ.get("HYPEVOLVE_LONG_TESTS"))
BUDGET = 4
RETRIES = 1
MAX_ATTEMPTS = 20


@dataclass
class Candidate:
    """What must be true of one candidate."""

    state: str = "leased"
    holder: str = ""
    expired: bool = False
    attempts: int = 0
    failures: int = 0
    counted: str | None = None
    over: set[str] = field(default_factory=set)  # tokens whose attempt has ended
    checkpoint: dict[str, Any] | None = None


class Protocol(RuleBasedStateMachine):
    api: Any  # set by the test: one coordinator serves all examples, each in a campaign of its own

    leases: Bundle[dict[str, Any]] = Bundle("leases")
    requests: Bundle[tuple[uuid.UUID, list[dict[str, Any]]]] = Bundle("requests")

    def __init__(self) -> None:
        super().__init__()
        self.name = f"m{uuid.uuid4().hex}"
        self.candidates: dict[int, Candidate] = {}
        self.results: dict[str, float] = {}
        self.refused: set[str] = set()
        self.failed: dict[str, str] = {}  # what failures were answered
        self.released: set[str] = set()
        self.paused = False
        self.api.create(self.name, candidates=BUDGET, retries=RETRIES)

    def model(self, lease: dict[str, Any]) -> Candidate:
        return self.candidates[lease["number"]]

    @rule(target=leases)
    def ask(self) -> Any:
        free = [
            number
            for number, candidate in self.candidates.items()
            if candidate.state == "queued" or (candidate.state in ("leased", "running") and candidate.expired)
        ]
        got = self.api.ask(campaigns=[self.name])
        if self.paused:
            assert got == []
            return multiple()
        while free and self.candidates[min(free)].attempts >= MAX_ATTEMPTS:
            self.candidates[min(free)].state = "failed"
            free.remove(min(free))
        if not free and len(self.candidates) == BUDGET:
            assert got == []
            return multiple()
        (lease,) = got
        if free:
            assert lease["number"] == min(free)
        else:
            assert lease["number"] == len(self.candidates)
            self.candidates[lease["number"]] = Candidate()
        candidate = self.model(lease)
        if candidate.expired and candidate.state != "queued":
            candidate.over.add(candidate.holder)
        candidate.state, candidate.holder, candidate.expired = "leased", lease["token"], False
        candidate.attempts += 1
        assert lease["checkpoint"] == candidate.checkpoint
        return lease

    @rule(verb=st.sampled_from(["pause", "drain", "resume", "resume"]))
    def steer(self, verb: str) -> None:
        assert self.api.http.post(f"/api/v1/campaigns/{self.name}/{verb}").status_code == 200
        self.paused = verb != "resume"

    @rule(lease=leases)
    def cancel(self, lease: dict[str, Any]) -> None:
        candidate = self.model(lease)
        answer = self.api.http.post(f"/api/v1/campaigns/{self.name}/candidates/{lease['number']}/cancel")
        if candidate.state in ("done", "failed"):
            assert answer.status_code == 409
            return
        assert answer.json()["state"] == "cancelled"
        candidate.state = "cancelled"
        candidate.over.add(candidate.holder)

    @rule(lease=leases, epoch=st.integers(0, 2))
    def checkpoint(self, lease: dict[str, Any], epoch: int) -> None:
        candidate, token = self.model(lease), lease["token"]
        content = json.dumps({"by": token, "epoch": epoch}).encode()
        digest = hashlib.sha256(content)
        answer = self.api.http.put(
            f"/api/v1/leases/{token}/checkpoint",
            params={"epoch": epoch},
            content=content,
            headers={"Repr-Digest": f"sha-256=:{base64.b64encode(digest.digest()).decode()}:"},
        )
        if candidate.holder == token and token not in candidate.over and candidate.state in ("leased", "running"):
            candidate.checkpoint = {"sha256": digest.hexdigest(), "bytes": len(content), "epoch": epoch}
            assert answer.json() == candidate.checkpoint
        else:
            assert answer.status_code == 409

    @rule(lease=leases)
    def beat(self, lease: dict[str, Any]) -> None:
        candidate, token = self.model(lease), lease["token"]
        answer = self.api.beat(lease)
        current = candidate.holder == token and candidate.state in ("leased", "running")
        assert answer["current"] == current
        if current:
            candidate.expired = False
            assert answer["command"] == "continue"
        else:
            over = candidate.state in ("done", "failed", "cancelled") or (candidate.holder == token and token in candidate.over)
            assert answer["command"] == ("cancel" if over else "continue")

    @rule(lease=leases, epoch=st.integers(0, 2))
    def epoch(self, lease: dict[str, Any], epoch: int) -> None:
        candidate = self.model(lease)
        body = {"epochs": [{"epoch": epoch, "metrics": {"map50": 0.1}}]}
        answer = self.api.http.post(f"/api/v1/leases/{lease['token']}/epochs", json=body).json()
        current = candidate.holder == lease["token"] and candidate.state not in ("done", "failed", "cancelled")
        assert answer == {"current": current}
        if current and candidate.state == "leased":
            candidate.state = "running"

    @rule(lease=leases, map50=st.sampled_from([0.2, 0.5]))
    def result(self, lease: dict[str, Any], map50: float) -> None:
        candidate, token = self.model(lease), lease["token"]
        answer = self.api.result(lease, map50=map50)
        if token in self.results:  # the first answer for ever, and never another body
            expected = 422 if self.results[token] != map50 else 409 if token in self.refused else 200
            assert answer.status_code == expected
            return
        self.results[token] = map50
        if candidate.state == "cancelled":
            assert answer.status_code == 409
            self.refused.add(token)
        elif candidate.counted is None:
            assert answer.status_code == 201
            candidate.state, candidate.counted = "done", token
            self.failed.pop(token, None)  # it had given up too early
            self.released.discard(token)
        else:
            assert (answer.status_code, answer.json()["counts"]) == (200, False)
        candidate.over.add(token)

    @rule(lease=leases)
    def fail(self, lease: dict[str, Any]) -> None:
        candidate, token = self.model(lease), lease["token"]
        answer = self.api.fail(lease)
        if token in self.failed:  # the first answer for ever
            assert answer.json() == {"state": self.failed[token]}
            return
        if candidate.holder != token or token in candidate.over:
            assert answer.status_code == 409
            return
        if candidate.state in ("leased", "running"):
            candidate.failures += 1
            candidate.checkpoint = None  # what failed may lie in it
            final = candidate.failures > RETRIES or candidate.attempts >= MAX_ATTEMPTS
            candidate.state = "failed" if final else "queued"
        candidate.over.add(token)
        self.failed[token] = candidate.state
        assert answer.json() == {"state": candidate.state}

    @rule(lease=leases)
    def release(self, lease: dict[str, Any]) -> None:
        candidate, token = self.model(lease), lease["token"]
        answer = self.api.http.delete(f"/api/v1/leases/{token}")
        if candidate.holder != token and token not in self.released:
            assert answer.status_code == 409
            return
        assert answer.status_code == 204
        if token not in candidate.over:
            self.released.add(token)
            if candidate.state in ("leased", "running"):
                candidate.state = "queued"
        candidate.over.add(token)

    @rule(lease=leases)
    def expire(self, lease: dict[str, Any]) -> None:
        candidate = self.model(lease)
        self.api.expire(lease)
        if candidate.holder == lease["token"] and candidate.state in ("leased", "running"):
            candidate.expired = True

    @rule(lease=consumes(leases))
    def node_dies(self, lease: dict[str, Any]) -> None:
        """Nobody will ever speak with this token again; its lease runs out."""
        self.expire(lease)

    @invariant()
    def rows_agree(self) -> None:
        rows = self.api.sql(
            """
            select k.number, k.state, k.token, (r.metrics ->> 'map50')::float8 as map50
            from candidate k join campaign c on c.id = k.campaign_id
            left join result r on r.candidate_id = k.id and r.counts where c.name = :name order by k.number
            """,
            name=self.name,
        )
        assert [tuple(row) for row in rows] == [
            (number, candidate.state, candidate.holder, self.results.get(candidate.counted or ""))
            for number, candidate in sorted(self.candidates.items())
        ]

    def teardown(self) -> None:
        counts = self.api.counts(self.name)
        for state in ("done", "failed", "cancelled", "running", "leased", "queued"):
            assert counts[state] == sum(candidate.state == state for candidate in self.candidates.values())
        states = ("done", "failed", "cancelled", "running", "leased", "queued", "unbred")
        assert sum(counts[state] for state in states) == counts["planned"] == BUDGET


@pytest.fixture
def machine(api: Any) -> type[Protocol]:
    Protocol.api = api
    return Protocol


@pytest.mark.timeout(3600 if LONG else 300)
def test_any_order_of_messages_agrees_with_the_model(machine: type[Protocol]) -> None:
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=500 if LONG else 12,
            stateful_step_count=60 if LONG else 30,
            deadline=None,
            derandomize=not LONG,
            suppress_health_check=list(HealthCheck),
        ),
    )
