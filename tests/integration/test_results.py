"""Results, failures and epochs: each counts once, however often and by whomever it is sent."""

from typing import Any

import pytest


def test_a_result_is_stored_once_and_repeating_it_gets_the_first_answer(api: Any) -> None:
    api.create()
    lease = api.lease()
    assert api.result(lease).status_code == 201
    again = api.result(lease)
    assert (again.status_code, again.json()) == (200, {"counts": True, "reason": None})
    candidate = api.candidate(0)
    assert (candidate["state"], candidate["fitness"]) == ("done", pytest.approx(0.275))
    assert candidate["metrics"]["map50_95"] == 0.25


def test_the_same_token_with_another_body_is_refused(api: Any) -> None:
    api.create()
    lease = api.lease()
    api.result(lease, map50=0.5)
    other = api.result(lease, map50=0.6)
    assert (other.status_code, other.json()["type"]) == (422, "/problems/other-body")
    assert api.candidate(0)["metrics"]["map50"] == 0.5


def test_the_first_complete_result_counts_also_from_an_expired_lease(api: Any) -> None:
    api.create(candidates=1)
    slow = api.lease()
    api.expire(slow)
    fast = api.lease()
    assert api.result(slow, map50=0.4).status_code == 201
    late = api.result(fast, map50=0.6)
    assert (late.status_code, late.json()) == (200, {"counts": False, "reason": "already_done"})
    assert api.result(fast, map50=0.6).json() == late.json()
    assert api.candidate(0)["metrics"]["map50"] == 0.4
    assert api.sql("select count(*) from result")[0][0] == 2  # the late one is kept for audit


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"hyp_hash": "0" * 64}, "another hyp set was trained"),
        ({"rung": 1}, "rung 1 was not asked for"),
        ({"fitness": 0.9}, "disagrees with 0.275"),
    ],
)
def test_a_result_that_disagrees_is_refused_kept_and_the_candidate_offered_again(
    api: Any, changes: dict[str, Any], said: str
) -> None:
    api.create(candidates=1)
    lease = api.lease()
    answer = api.result(lease, **changes)
    assert answer.status_code == 409
    assert said in answer.json()["detail"]
    assert api.result(lease, **changes).status_code == 409  # the same answer for ever
    assert api.sql("select counts from result") == [(False,)]
    assert api.lease()["candidate"] == lease["candidate"]


def test_results_from_other_data_are_refused(api: Any) -> None:
    api.create()
    assert api.result(api.lease(), data_hash="a" * 64).status_code == 201
    second = api.lease()
    assert second["data_hash"] == "a" * 64
    answer = api.result(second, data_hash="b" * 64)
    assert (answer.status_code, "this node has other data" in answer.json()["detail"]) == (409, True)


def test_a_refused_result_does_not_teach_the_campaign_its_data(api: Any) -> None:
    api.create()
    api.result(api.lease(), data_hash="a" * 64, fitness=0.9)
    assert api.sql("select data_hash from campaign") == [(None,)]


@pytest.mark.parametrize("text", ["NaN", "Infinity", "-Infinity"])
def test_a_number_that_is_none_is_no_result(api: Any, text: str) -> None:
    api.create()
    lease = api.lease()
    url = f"/api/v1/candidates/{lease['candidate']}/attempts/{lease['token']}/result"
    body = f'{{"metrics": {{"map50": {text}}}, "fitness": 0.1, "hyp_hash": "x", "seconds": 1, "epochs": 1}}'
    answer = api.http.put(url, content=body, headers={"content-type": "application/json"})
    assert answer.status_code == 422


def test_metrics_that_the_fitness_needs_must_be_there(api: Any) -> None:
    api.create()
    answer = api.result(api.lease(), metrics={"map50": 0.5})
    assert (answer.status_code, "map50_95" in answer.json()["detail"]) == (422, True)


def test_a_token_counts_for_its_own_candidate_only(api: Any) -> None:
    api.create()
    first, second = api.lease(), api.lease()
    assert api.result({**first, "candidate": second["candidate"]}).status_code == 404


def test_a_failure_is_retried_and_then_final(api: Any) -> None:
    api.create(candidates=1, retries=1)
    first = api.lease()
    assert api.fail(first).json() == {"state": "queued"}
    assert api.fail(first).json() == {"state": "queued"}  # repeating it charges nothing
    second = api.lease()
    assert second["candidate"] == first["candidate"]
    assert api.fail(second, "oom").json() == {"state": "failed"}
    candidate = api.candidate(0)
    assert (candidate["state"], candidate["failure"], candidate["failures"], candidate["fitness"]) == ("failed", "oom", 2, None)
    assert api.ask() == []


def test_a_repeated_failure_gets_its_first_answer_whoever_has_the_candidate_by_now(api: Any) -> None:
    api.create(candidates=1, retries=1)
    first = api.lease()
    assert api.fail(first).json() == {"state": "queued"}
    second = api.lease()
    assert api.fail(first).json() == {"state": "queued"}
    assert api.beat(second)["current"]
    assert api.fail(second).json() == {"state": "failed"}
    assert api.http.post("/api/v1/campaigns/toy/retry").status_code == 200
    third = api.lease()
    assert [api.fail(lease).json()["state"] for lease in (first, second)] == ["queued", "failed"]
    assert api.candidate(0)["failures"] == 0
    assert api.result(third).status_code == 201


def test_only_the_current_holder_may_report_a_failure(api: Any) -> None:
    api.create(candidates=1)
    slow = api.lease()
    api.expire(slow)
    api.lease()
    assert api.fail(slow).status_code == 409


def test_a_late_good_result_outweighs_a_failure(api: Any) -> None:
    api.create(candidates=1, retries=0)
    slow = api.lease()
    api.expire(slow)
    assert api.fail(api.lease()).json() == {"state": "failed"}
    assert api.result(slow).status_code == 201
    assert api.candidate(0)["state"] == "done"


def test_failed_candidates_are_never_parents(api: Any) -> None:
    api.create(candidates=6, retries=0)
    leases = [api.lease() for _ in range(4)]
    for lease in leases[:3]:
        api.fail(lease)
    api.result(leases[3])
    assert api.candidate(api.lease()["number"])["parents"] == [3]


def test_epochs_are_keyed_by_attempt_and_the_curve_is_that_of_the_counted_one(api: Any) -> None:
    api.create(candidates=1)

    def post(lease: dict[str, Any], epoch: int, map50: float) -> dict[str, Any]:
        body = {"epochs": [{"epoch": epoch, "metrics": {"map50": map50}}]}
        answer = api.http.post(f"/api/v1/leases/{lease['token']}/epochs", json=body)
        assert answer.status_code == 200, answer.text
        return answer.json()

    slow = api.lease()
    assert post(slow, 0, 0.1) == {"current": True}
    assert post(slow, 0, 0.1) == {"current": True}
    assert api.candidate(0)["state"] == "running"
    api.expire(slow)
    fast = api.lease()
    assert api.candidate(0)["state"] == "leased"
    assert post(slow, 1, 0.2) == {"current": False}
    post(fast, 0, 0.15)
    curve = api.http.get("/api/v1/campaigns/toy/candidates/0/epochs").json()["epochs"]
    assert curve == [{"epoch": 0, "metrics": {"map50": 0.15}}]
    api.result(slow)
    curve = api.http.get("/api/v1/campaigns/toy/candidates/0/epochs").json()["epochs"]
    assert [row["metrics"]["map50"] for row in curve] == [0.1, 0.2]


def test_a_campaign_whose_newest_candidates_all_failed_is_halted_and_can_be_retried(api: Any) -> None:
    api.create(candidates=20, retries=0)
    for _ in range(5):
        api.fail(api.lease(), "crash")
    assert api.ask() == []  # a typo in a trainer does not spend the budget
    campaign = api.http.get("/api/v1/campaigns/toy").json()
    assert (campaign["state"], campaign["counts"]["unbred"], campaign["eta_s"]) == ("halted", 15, None)
    assert api.http.post("/api/v1/campaigns/toy/retry").json() == {"retried": 5}
    first = api.lease()
    assert first["number"] == 0
    assert (api.candidate(0)["failures"], api.counts()["failed"]) == (0, 0)
    api.result(first)
    assert api.http.get("/api/v1/campaigns/toy").json()["state"] == "running"


def test_a_failure_among_results_halts_nothing(api: Any) -> None:
    api.create(candidates=20, retries=0)
    for step in range(9):
        lease = api.lease()
        api.result(lease) if step % 5 == 4 else api.fail(lease)
    assert len(api.ask()) == 1
