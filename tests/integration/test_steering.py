"""What people decide in flight (pause, drain, cancel, extend ..), budgets at their boundaries, who is served first."""

import re
import threading
import uuid
from typing import Any

import pytest

from server import fair

URL = "/api/v1/campaigns/toy"


def post(api: Any, path: str, status: int = 200) -> Any:
    answer = api.http.post(f"{URL}/{path}")
    assert answer.status_code == status, answer.text
    return answer.json()


def shown(api: Any) -> dict[str, Any]:
    return api.http.get(URL).json()


def register(api: Any, name: str = "node", **body: Any) -> uuid.UUID:
    worker = uuid.uuid4()
    answer = api.http.post("/api/v1/workers", json={"worker": str(worker), "name": name, "host": name, **body})
    assert answer.status_code == 200, answer.text
    return worker


# ---- pause, drain, cancel ----------------------------------------------------------------------------------------------------


def test_a_paused_campaign_gives_nothing_out_and_loses_nothing(api: Any) -> None:
    api.create(candidates=3)
    training, returned = api.ask(n=2)
    assert [post(api, "pause")["state"] for _ in range(2)] == ["paused", "paused"]
    api.http.delete(f"/api/v1/leases/{returned['token']}")
    assert api.ask(n=3) == []  # neither a returned candidate nor a new one
    assert api.beat(training)["command"] == "continue"
    assert api.result(training).status_code == 201
    assert post(api, "resume")["state"] == "running"
    assert [lease["number"] for lease in api.ask(n=3)] == [1, 2]


def test_a_drained_campaign_is_finished_once_nothing_trains(api: Any) -> None:
    api.create(candidates=5)
    training, returned = api.ask(n=2)
    assert post(api, "drain")["state"] == "draining"
    api.http.delete(f"/api/v1/leases/{returned['token']}")
    assert api.ask() == []
    api.result(training)
    assert (shown(api)["state"], api.counts()["unbred"], api.counts()["queued"]) == ("finished", 3, 1)
    assert post(api, "resume")["state"] == "running"
    assert api.lease()["number"] == 1


def test_a_cancelled_campaign_cancels_what_is_open_for_good(api: Any) -> None:
    api.create(candidates=4)
    done, training, returned = api.ask(n=3)
    api.result(done)
    api.http.delete(f"/api/v1/leases/{returned['token']}")
    assert [post(api, "cancel")["cancelled"] for _ in range(2)] == [2, 0]
    assert shown(api)["state"] == "cancelled"
    counts = api.counts()
    assert (counts["done"], counts["cancelled"], counts["unbred"], counts["planned"]) == (1, 2, 1, 4)
    assert api.beat(training) == {"lease_s": 20.0, "command": "cancel", "current": False}
    late = api.result(training)
    assert (late.status_code, late.json()["type"]) == (409, "/problems/result-refused")
    assert api.sql("select count(*) from result where token = :t", t=training["token"])[0][0] == 1  # kept for audit
    assert api.fail(training).status_code == 409
    assert api.http.delete(f"/api/v1/leases/{training['token']}").status_code == 204
    assert api.ask() == []
    for verb in ("pause", "resume", "drain"):
        assert post(api, verb, 409)["type"] == "/problems/cancelled"


def test_one_candidate_is_cancelled_and_offered_again(api: Any) -> None:
    api.create(candidates=2)
    lease, other = api.ask(n=2)
    for _ in range(2):
        assert post(api, "candidates/0/cancel")["state"] == "cancelled"
    assert api.beat(lease)["command"] == "cancel"
    assert api.ask() == []  # its place in the budget stays used
    for _ in range(2):
        assert post(api, "candidates/0/retry")["state"] == "queued"
    assert api.lease()["number"] == 0
    api.result(other)
    assert post(api, "candidates/1/cancel", 409)["type"] == "/problems/ended"
    assert post(api, "candidates/1/retry", 409)["type"] == "/problems/ended"
    assert post(api, "candidates/7/cancel", 404)["type"] == "/problems/unknown-candidate"


def test_cancelling_while_many_workers_ask_leaves_no_lease(api: Any) -> None:
    api.create(candidates=200)
    barrier = threading.Barrier(7)

    def work() -> None:
        barrier.wait()
        while found := api.ask():
            api.http.delete(f"/api/v1/leases/{found[0]['token']}")

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    barrier.wait()
    post(api, "cancel")
    for thread in threads:
        thread.join()
    counts = api.counts()
    assert counts["cancelled"] + counts["unbred"] == 200
    assert api.sql("select count(*) from lease")[0][0] == 0


# ---- budgets -----------------------------------------------------------------------------------------------------------------


def test_nothing_is_leased_from_the_deadline_on(api: Any) -> None:
    api.create(candidates=9, budget={"candidates": 9, "deadline": "2100-01-01T00:00:00+00:00"})
    training, returned = api.ask(n=2)
    api.http.delete(f"/api/v1/leases/{returned['token']}")
    api.sql("update campaign set deadline = clock_timestamp()")
    assert api.ask() == []
    assert (shown(api)["state"], shown(api)["budget"]["reached"]) == ("draining", "deadline")
    assert api.result(training).status_code == 201
    assert shown(api)["state"] == "finished"
    answer = api.http.patch(URL, json={"deadline": "2100-01-01T00:00:00Z"})
    assert (answer.json()["state"], answer.json()["budget"]["reached"]) == ("running", None)
    assert api.lease()["number"] == 1


def test_hours_count_what_trains_and_what_was_lost_up_to_its_last_beat(api: Any) -> None:
    api.create(budget={"candidates": 9, "gpu_hours": 2.0})
    ended, training, silent = api.ask(devices=["cuda:0", "cuda:1"]) + api.ask() + api.ask()
    hours = "update attempt set started_at = clock_timestamp() - make_interval(secs => 3600 * :h) where token = :t"
    api.sql(hours, h=1, t=ended["token"])
    api.sql("update lease set beat_at = clock_timestamp() - interval '299 min' where token = :t", t=silent["token"])
    api.sql(hours, h=5, t=silent["token"])  # heard for one minute, silent for five hours
    api.fail(ended)  # one hour on two devices: the budget, less the minute of another
    assert api.ask() == []
    budget = shown(api)["budget"]
    assert (budget["reached"], round(budget["device_hours"], 2)) == ("gpu_hours", 2.02)
    api.http.patch(URL, json={"gpu_hours": 2.5})
    api.sql(hours, h=0.4, t=training["token"])
    api.beat(training)
    assert len(api.ask()) == 1
    api.expire(silent)
    assert len(api.ask()) == 1
    assert round(shown(api)["budget"]["device_hours"], 2) == 2.42


def test_patience_ends_a_campaign_after_so_many_without_a_new_best(api: Any) -> None:
    api.create(candidates=20, retries=0, budget={"candidates": 20, "patience": 3})
    for map50 in (0.2, 0.1, 0.15, 0.5, 0.3):
        api.result(api.lease(), map50=map50)
    api.fail(api.lease())  # an end without a best, too
    third, fourth = api.ask(n=2)
    assert shown(api)["budget"] == shown(api)["budget"] | {"since_best": 2, "reached": None}
    api.result(third, map50=0.4)
    assert (api.ask(), shown(api)["budget"]["reached"]) == ([], "patience")
    api.result(fourth, map50=0.6)  # what trained on has found a better one
    assert (shown(api)["budget"]["reached"], len(api.ask())) == (None, 1)
    api.http.patch(URL, json={"patience": None})
    assert shown(api)["budget"]["patience"] is None


def test_the_budget_is_exact_under_parallel_asks_for_many(api: Any) -> None:
    api.create(candidates=50)
    got: list[int] = []

    def work() -> None:
        while found := api.ask(n=7):
            got.extend(lease["number"] for lease in found)

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(got) == list(range(50))


@pytest.mark.parametrize("body", [{"gpu_hours": 0}, {"deadline": "2100-01-01T00:00:00"}, {"patience": 0}, {"candidates": None}])
def test_a_budget_that_makes_no_sense_is_refused(api: Any, body: Any) -> None:
    api.create()
    assert api.http.patch(URL, json=body).status_code == 422


def test_a_change_is_in_the_document_and_in_the_events(api: Any) -> None:
    document = api.create()["document"]
    for _ in range(2):
        api.http.patch(URL, json={"candidates": 12, "patience": 7, "priority": 2})
    changed = shown(api)
    assert changed["document"]["budget"] == document["budget"] | {"candidates": 12, "patience": 7}
    assert changed["priority"] == changed["document"]["lease"]["priority"] == 2
    page = api.http.get("/c/toy.json").json()
    told = [event["words"] for event in page["events"] if event["kind"] == "budget"]
    assert told == ["budget changed: candidates 10 to 12, patience none to 7, priority 0 to 2"]
    assert api.http.post("/api/v1/campaigns", json=changed["document"]).status_code == 200


# ---- several campaigns -------------------------------------------------------------------------------------------------------


def lease(**keys: Any) -> dict[str, Any]:
    return {"heartbeat": "5s", "expire": "20s", **keys}


def test_campaigns_have_workers_by_their_shares(api: Any) -> None:
    for name, share in (("one", 1), ("three", 3)):
        api.create(name, candidates=100, lease=lease(share=share))
    names = [api.lease()["campaign"] for _ in range(40)]
    assert (names.count("one"), names.count("three")) == (10, 30)
    more = [got["campaign"] for got in api.ask(n=40)]  # one ask for many is served as fairly
    assert (more.count("one"), more.count("three")) == (10, 30)


def test_a_higher_priority_is_served_first_and_leaves_the_rest_to_others(api: Any) -> None:
    api.create("low", candidates=5)
    low = api.lease()
    api.http.delete(f"/api/v1/leases/{low['token']}")  # a candidate that came back waits, too
    api.create("high", candidates=3, lease=lease(priority=1))
    assert [api.lease()["campaign"] for _ in range(5)] == ["high", "high", "high", "low", "low"]


def test_only_workers_that_have_what_a_campaign_requires_are_served(api: Any) -> None:
    wanted = {"labels": ["a100", "fast"], "device": "cuda", "devices": 2, "gpu_memory": 40}
    api.create(candidates=9, lease=lease(requires=wanted))
    two = ["cuda:0", "cuda:1"]
    good = {"labels": ["fast", "a100", "site-1"], "memory_gb": {"cuda:0": 80, "cuda:1": 40}}
    assert api.ask(register(api, **good), devices=two)
    for body, devices in (
        ({**good, "labels": ["a100"]}, two),
        (good, ["cuda:0"]),
        (good, ["cpu", "cpu"]),
        ({**good, "memory_gb": {"cuda:0": 80, "cuda:1": 39}}, two),
        ({**good, "memory_gb": {"cuda:0": 80}}, two),
    ):
        assert api.ask(register(api, **body), devices=devices) == [], (body, devices)
    assert api.ask(devices=two) == []  # one that never registered has no labels


def test_the_built_in_detector_shares_its_batch_evenly_among_devices(api: Any) -> None:
    body = {"name": "x", "base": {"epochs": 1, "batch": 10}, "lease": {"requires": {"devices": 4}}}
    answer = api.http.post("/api/v1/campaigns", json=body)
    assert (answer.status_code, answer.json()["errors"][0]["key"]) == (422, "lease.requires.devices")
    assert "base.batch 10 cannot be shared evenly" in answer.text
    body["lease"]["requires"]["devices"] = 5
    assert api.http.post("/api/v1/campaigns", json=body).status_code == 201


# ---- workers -----------------------------------------------------------------------------------------------------------------


def ask(api: Any, worker: uuid.UUID) -> Any:
    return api.http.post("/api/v1/leases", json={"request_id": str(uuid.uuid4()), "worker": str(worker)})


def test_a_drained_worker_hears_it_with_its_next_beat_and_its_next_ask(api: Any) -> None:
    api.create()
    worker, other = register(api, "node-1"), register(api, "node-2")
    held = api.lease(worker)
    assert api.http.post("/api/v1/workers/node-1/drain").json() == {"processes": 1}
    assert api.beat(held) == {"lease_s": 20.0, "command": "drain", "current": True}
    answer = ask(api, worker)
    assert (answer.status_code, answer.headers["hypevolve-command"]) == (204, "drain")
    assert api.result(held).status_code == 201
    assert ask(api, other).status_code == 200
    assert ask(api, register(api, "node-1")).status_code == 200  # started again, it works again
    assert api.http.post("/api/v1/workers/nobody/drain").status_code == 404


def test_protocols_that_differ_are_settled_at_registration(api: Any) -> None:
    def answer(**body: Any) -> Any:
        return api.http.post("/api/v1/workers", json={"worker": str(uuid.uuid4()), "name": "n", **body})

    older = answer(protocol=0)
    assert (older.status_code, older.json()["type"]) == (426, "/problems/protocol")
    assert "install hypevolve" in older.json()["detail"]
    newer = answer(protocol=7, something_new=True)
    assert (newer.status_code, newer.json()["protocol"]) == (200, 1)
    assert newer.json()["limits"]["wait_s"] == 30


def test_nothing_is_added_to_a_cancelled_campaign(api: Any) -> None:
    api.create(retries=0)
    api.fail(api.lease())
    hyps = {"request_id": str(uuid.uuid4()), "hyps": [{"x": 0.2}]}
    queued = api.http.post("/api/v1/campaigns/toy/candidates", json=hyps).json()
    post(api, "cancel")
    counts = api.counts()
    post(api, "retry", 409)
    post(api, "candidates/0/retry", 409)
    assert api.http.patch("/api/v1/campaigns/toy", json={"candidates": 40}).status_code == 409
    assert api.http.patch("/api/v1/campaigns/toy/space", json={"space": {"x": [1, 0.1, 0.9]}}).status_code == 409
    more = api.http.post("/api/v1/campaigns/toy/candidates", json={**hyps, "request_id": str(uuid.uuid4())})
    assert more.status_code == 409, more.text
    assert "final" in more.json()["detail"]
    assert api.http.post("/api/v1/campaigns/toy/candidates", json=hyps).json() == queued  # what was done before stays done
    assert api.counts() == counts


def test_an_ask_adds_up_no_campaign_that_has_ended(api: Any) -> None:
    api.create(candidates=1)
    api.sql(
        """insert into campaign (name, document, seed, same_seed, candidates, bred, retries_failed, lease_s, beat_s)
           select 'ended-' || n, document, seed, same_seed, 1, 1, 1, 20, 5 from campaign, generate_series(1, 500) n"""
    )
    api.sql("analyze campaign")
    plan = "\n".join(
        row[0] for row in api.sql("explain analyze " + fair.WORKS.text.replace("%(names)s", "cast(null as text[])"))
    )
    assert re.search(r"on tally\b.*loops=1\)", plan), plan
    assert [lease["campaign"] for lease in api.ask()] == ["toy"]


def test_what_is_left_is_expected_to_cost_what_was_paid_so_far(api):
    def budget():
        return api.http.get("/api/v1/campaigns/toy").json()["budget"]

    api.create(candidates=10)
    assert budget()["hours_left"] is None
    for _ in range(2):
        api.result(api.lease())
    api.sql("insert into tally (campaign_id, device_s) select id, 7200 from campaign")  # an hour each, losses included
    assert budget()["hours_left"] == pytest.approx(8, rel=0.01)
    assert " left</dd>" in api.http.get("/c/toy").text
    api.http.patch("/api/v1/campaigns/toy", json={"gpu_hours": 5})
    assert budget()["hours_left"] == pytest.approx(3, rel=0.01)
    api.http.post("/api/v1/campaigns/toy/cancel")
    assert budget()["hours_left"] is None
