"""A bad worker is kept from candidates: what puts it into quarantine, what ends it, what a restart does not change."""

import uuid
from typing import Any

import pytest

from server.quarantine import IN_A_ROW


def register(api: Any, name: str = "bad", worker: uuid.UUID | None = None, **body: Any) -> uuid.UUID:
    worker = worker or uuid.uuid4()
    answer = api.http.post("/api/v1/workers", json={"worker": str(worker), "name": name, "host": "h", **body})
    assert answer.status_code == 200, answer.text
    return worker


def ask(api: Any, worker: uuid.UUID) -> Any:
    return api.http.post("/api/v1/leases", json={"request_id": str(uuid.uuid4()), "worker": str(worker)})


def told(api: Any, worker: uuid.UUID) -> tuple[str, str] | None:
    """Seconds to wait and the reason, where the worker is in quarantine."""
    answer = ask(api, worker)
    if answer.status_code == 200:
        return None
    assert answer.headers["hypevolve-command"] == "self-test"
    return answer.headers["retry-after"], answer.headers["hypevolve-reason"]


def fail_in_a_row(api: Any, worker: uuid.UUID, n: int = IN_A_ROW) -> None:
    for _ in range(n):
        api.fail(api.lease(worker))


def test_three_different_candidates_failed_in_a_row(api: Any) -> None:
    api.create(candidates=50, retries=0)
    worker, good = register(api), register(api, "good")
    fail_in_a_row(api, worker, 2)
    api.result(api.lease(worker))  # a result in between: nothing is held against it
    api.result(api.lease(good))
    fail_in_a_row(api, worker)
    wait, reason = told(api, worker) or ("", "")
    assert (wait, reason) == ("1", "3 different candidates failed here in a row, the last: toy #6 (nan)")
    assert told(api, good) is None
    (shown,) = [w for w in api.http.get("/api/v1/workers").json()["items"] if w["name"] == "bad"]
    assert shown["quarantine"] == reason


def test_one_candidate_that_fails_again_and_again_is_not_the_workers_fault(api: Any) -> None:
    api.create(candidates=1, retries=9)
    worker = register(api)
    for _ in range(9):
        api.fail(api.lease(worker))
    assert api.candidate(0)["failures"] == 9
    assert told(api, worker) is None


def test_a_self_test_ends_it_and_the_back_off_grows_until_a_result_counts(api: Any) -> None:
    api.create(candidates=500, retries=0)
    worker = register(api)
    waits = []
    for _ in range(4):
        fail_in_a_row(api, worker)
        api.result(api.lease())  # others succeed, so that the campaign is not halted
        waits.append(int((told(api, worker) or ("0", ""))[0]))
        passed = {"self_test": {"passed": True}}
        register(api, worker=worker, **passed)
        if len(waits) > 1:
            assert told(api, worker) is not None  # passed too early
            api.sql("update worker set quarantined_until = clock_timestamp() where id = :w", w=worker)
            register(api, worker=worker, **passed)
    assert waits[0] == 1
    assert waits[1:] == pytest.approx([5, 10, 20], abs=2)
    api.result(api.lease(worker))
    fail_in_a_row(api, worker)
    assert told(api, worker) == ("1", told(api, worker)[1])  # from the beginning
    register(api, worker=worker, self_test={"passed": False, "detail": "the GPU computes nonsense"})
    wait, reason = told(api, worker) or ("", "")
    assert (int(wait), reason) == (pytest.approx(5, abs=2), "its self-test failed: the GPU computes nonsense")


def test_a_node_with_other_data_gets_one_candidate(api: Any) -> None:
    api.create(candidates=9)
    api.result(api.lease(), data_hash="a" * 64)
    worker = register(api)
    refused = api.result(api.lease(worker), data_hash="b" * 64)
    assert refused.status_code == 409
    assert "this node has other data" in (told(api, worker) or ("", ""))[1]
    again = register(api)  # a restart policy starts it anew
    assert "this node has other data" in (told(api, again) or ("", ""))[1]
    assert told(api, register(api, "another")) is None


def test_a_node_that_lacks_something_cannot_use_up_a_candidate(api: Any) -> None:
    api.create(candidates=1)
    for start in range(30):
        worker = register(api, self_test={"passed": True})
        if told(api, worker) is None:  # it holds the candidate now
            (lease,) = api.sql("select token from lease")
            url = f"/api/v1/leases/{lease.token}"
            assert api.http.delete(url, params={"reason": "not_installed"}).status_code == 204
        elif start > 1:
            api.sql("update worker set quarantined_until = clock_timestamp() where quarantine is not null")
    found = api.candidate(0)
    assert (found["state"], found["attempts"]) == ("queued", 0)
    assert api.sql("select max(quarantines) from worker")[0][0] > 9
    assert api.result(api.lease(register(api, "good"))).status_code == 201


def test_an_ask_that_was_answered_before_is_answered_again_in_quarantine(api: Any) -> None:
    api.create(candidates=9, retries=0)
    worker, request = register(api), uuid.uuid4()
    held = api.ask(worker, request)
    fail_in_a_row(api, worker)
    assert api.ask(worker, request) == held
    assert api.result(held[0]).status_code == 201  # a result counts, whoever sends it


def test_a_result_for_a_cancelled_candidate_is_not_the_workers_fault(api: Any) -> None:
    api.create(candidates=20)
    worker = register(api)
    for number in range(4):
        lease = api.lease(worker)
        api.http.post(f"/api/v1/campaigns/toy/candidates/{number}/cancel")
        assert api.result(lease).status_code == 409
    assert told(api, worker) is None


def test_devices_of_one_node_that_find_the_same_fault_are_one_quarantine(api: Any) -> None:
    api.create()
    worker = register(api)
    for lease in [api.lease(worker) for _ in range(6)]:
        api.http.delete(f"/api/v1/leases/{lease['token']}", params={"reason": "no_data"})
    wait, _ = told(api, worker) or ("", "")
    assert wait == "1"  # the first self-test may come at once
