"""Asking, beating, expiring, releasing: who holds a candidate, through every order of events that matters."""

import threading
import time
import uuid
from typing import Any

from server import leases, pulse


def test_candidate_0_is_the_given_hyp_set_unchanged(api: Any) -> None:
    api.create()
    lease = api.lease()
    assert lease["number"] == 0
    assert lease["hyp"] == {"x": 0.5, "y": 0.3}
    assert list(lease["hyp"]) == ["x", "y"]
    assert (lease["seed"], lease["epochs"], lease["lease_s"], lease["beat_s"]) == (7, 3, 20.0, 5.0)
    assert lease["weights"] == {"map50": 0.1, "map50_95": 0.9}
    assert api.candidate(0)["state"] == "leased"


def test_the_same_request_gets_the_same_lease(api: Any) -> None:
    api.create()
    request = uuid.uuid4()
    assert api.ask(request_id=request) == api.ask(request_id=request)
    assert api.counts()["unbred"] == 9


def test_one_ask_for_several_devices(api: Any) -> None:
    api.create(candidates=5)
    assert [lease["number"] for lease in api.ask(n=3)] == [0, 1, 2]
    assert [lease["number"] for lease in api.ask(n=3)] == [3, 4]
    assert api.ask() == []


def test_a_worker_may_be_bound_to_campaigns(api: Any) -> None:
    api.create("one")
    api.create("two")
    assert api.ask(campaigns=["two"])[0]["campaign"] == "two"
    assert api.ask(campaigns=["three"]) == []


def test_campaigns_share_workers_evenly(api: Any) -> None:
    api.create("one")
    api.create("two")
    assert sorted(api.lease()["campaign"] for _ in range(4)) == ["one", "one", "two", "two"]


def test_an_expired_lease_goes_to_the_next_worker_and_charges_nothing(api: Any) -> None:
    api.create(candidates=1)
    first = api.lease()
    assert api.ask() == []
    api.expire(first)
    second = api.lease()
    assert second["candidate"] == first["candidate"]
    assert second["token"] != first["token"]
    assert api.counts()["lost"] == 1
    assert (api.candidate(0)["attempts"], api.candidate(0)["failures"]) == (2, 0)


def test_a_heartbeat_revives_an_expired_lease_that_nobody_took(api: Any) -> None:
    api.create(candidates=1)
    lease = api.lease()
    api.expire(lease)
    assert api.beat(lease, epoch=1, progress=0.4) == {"lease_s": 20.0, "command": "continue", "current": True}
    assert api.ask() == []


def test_the_loser_of_a_lease_goes_on_until_a_result_stands(api: Any) -> None:
    api.create(candidates=1)
    slow = api.lease()
    api.expire(slow)
    fast = api.lease()
    assert api.beat(slow) == {"lease_s": 20.0, "command": "continue", "current": False}
    assert api.result(fast).status_code == 201
    assert api.beat(slow)["command"] == "cancel"


def test_no_lease_expires_within_one_lease_length_after_an_outage(api: Any) -> None:
    api.create(candidates=1)
    lease = api.lease()
    api.expire(lease)
    api.sql("update pulse set beat_at = clock_timestamp() - interval '1 min'")
    assert api.ask() == []  # the pulse is old: nobody could have been heard
    api.database.run(pulse.beat)
    assert api.ask() == []  # awake again, within the grace period
    api.sql("update pulse set grace_until = clock_timestamp()")
    assert api.lease()["candidate"] == lease["candidate"]


def test_a_steady_pulse_opens_no_grace_period(api: Any) -> None:
    api.create(candidates=1)
    api.expire(api.lease())
    api.sql("update pulse set beat_at = clock_timestamp() - interval '3 s'")
    api.database.run(pulse.beat)
    assert len(api.ask()) == 1


def test_a_released_candidate_is_offered_at_once_and_free_of_charge(api: Any) -> None:
    api.create(candidates=1)
    lease = api.lease()
    for _ in range(2):  # repeating it changes nothing
        assert api.http.delete(f"/api/v1/leases/{lease['token']}", params={"reason": "sigterm"}).status_code == 204
    again = api.lease()
    assert again["candidate"] == lease["candidate"]
    assert api.candidate(0)["failures"] == 0
    # What was acknowledged once is acknowledged again, also after another has taken the candidate; it holds it as before.
    assert api.http.delete(f"/api/v1/leases/{lease['token']}").status_code == 204
    assert api.beat(again)["current"]
    api.expire(again)
    api.lease()
    late = api.http.delete(f"/api/v1/leases/{again['token']}")
    assert (late.status_code, late.json()["type"]) == (409, "/problems/lease-lost")


def test_twenty_attempts_of_any_kind_fail_a_candidate(api: Any) -> None:
    api.create(candidates=1)
    for _ in range(leases.MAX_ATTEMPTS):
        api.http.delete(f"/api/v1/leases/{api.lease()['token']}")
    assert api.ask() == []
    assert (api.candidate(0)["state"], api.candidate(0)["failure"]) == ("failed", "attempts")
    assert api.http.get("/api/v1/campaigns/toy").json()["state"] == "finished"


def test_an_unknown_token_is_told_so(api: Any) -> None:
    answer = api.http.put("/api/v1/leases/nonsense", json={})
    assert (answer.status_code, answer.json()["type"]) == (404, "/problems/unknown-token")
    assert answer.headers["content-type"] == "application/problem+json"


def test_many_workers_at_once_get_different_candidates_and_the_exact_budget(api: Any) -> None:
    api.create(candidates=40)
    got: list[int] = []

    def work() -> None:
        while found := api.ask():
            got.append(found[0]["number"])
            api.result(found[0], map50=0.3 + found[0]["number"] / 100)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(got) == list(range(40))
    counts = api.counts()
    assert (counts["done"], counts["planned"], counts["unbred"]) == (40, 40, 0)


def test_heartbeats_are_hot_updates_of_a_narrow_table(api: Any) -> None:
    api.create(candidates=4)
    held = api.ask(n=4)
    for beat in range(40):
        for lease in held:
            api.beat(lease, epoch=beat, progress=beat / 40)
    api.sql("select pg_stat_force_next_flush()")
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:  # statistics of other connections come when these are idle
        api.database.run(pulse.beat)
        (row,) = api.sql("select n_tup_upd, n_tup_hot_upd from pg_stat_user_tables where relname = 'lease'")
        if row.n_tup_upd >= 100:
            break
        time.sleep(0.1)
    assert row.n_tup_upd >= 100
    assert row.n_tup_hot_upd >= 0.95 * row.n_tup_upd


def test_two_requests_race_for_one_returned_candidate(api: Any) -> None:
    api.create(candidates=1)
    for _ in range(5):
        api.http.delete(f"/api/v1/leases/{(api.ask() or api.ask())[0]['token']}")
        barrier, got = threading.Barrier(4), []

        def work(barrier: threading.Barrier = barrier, got: list[Any] = got) -> None:
            barrier.wait()
            got.extend(api.ask())

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(got) == 1
        api.http.delete(f"/api/v1/leases/{got[0]['token']}")


def test_a_progress_smaller_than_the_column_can_hold_is_none(api: Any) -> None:
    api.create()
    assert api.beat(api.lease(), progress=7e-48)["current"]
