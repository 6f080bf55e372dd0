"""Access tokens: who is let in, with what, for how long, and what is written down about it."""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from fastapi import APIRouter
from fastapi.testclient import TestClient
from sqlalchemy import create_engine, text
from sqlalchemy.exc import DBAPIError

from server import access
from server.app import create_app
from server.database import Database
from tests.integration.conftest import Api

FORM = re.compile(r"hyp_[0-9a-f]{12}_[A-Za-z0-9_-]{43}")


class Clock:
    """Seconds that pass when told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def coordinator(database: Database) -> Iterator[TestClient]:
    """As `hypevolve serve` on a laptop: nobody but this machine, while there is no token."""
    with TestClient(create_app(database), base_url="http://127.0.0.1:8080", client=("127.0.0.1", 50000)) as http:
        http.app.state.door._clock = Clock()  # type: ignore[attr-defined]
        yield http


def later(http: TestClient, seconds: float = access.FRESH_S + 0.1) -> None:
    http.app.state.door._clock.now += seconds  # type: ignore[attr-defined]


def make(http: TestClient, name: str, *scopes: str, by: str | None = None, **more: Any) -> str:
    answer = http.post("/api/v1/tokens", json={"name": name, "scopes": scopes, **more}, headers=bearer(by) if by else {})
    assert answer.status_code == 201, answer.text
    later(http)
    return str(answer.json()["token"])


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def status(http: TestClient, token: str | None, path: str = "/api/v1/campaigns", method: str = "GET", **more: Any) -> int:
    return http.request(method, path, headers=bearer(token) if token else {}, **more).status_code


def test_without_tokens_the_own_machine_is_let_in_and_nobody_else(coordinator: TestClient, database: Database) -> None:
    assert status(coordinator, None) == 200
    app = coordinator.app
    other_machine = TestClient(app, base_url="http://127.0.0.1:8080", client=("203.0.113.7", 50000))
    other_name = TestClient(
        app, base_url="http://evil.example:8080", client=("127.0.0.1", 50000)
    )  # DNS that lies about 127.0.0.1
    for stranger in (other_machine, other_name):
        answer = stranger.get("/api/v1/campaigns")
        assert answer.status_code == 401
        assert "hypevolve token create" in answer.json()["detail"]


def test_the_first_token_closes_the_door_for_everybody_else(coordinator: TestClient) -> None:
    admin = make(coordinator, "me", "admin")
    assert FORM.fullmatch(admin)
    assert status(coordinator, None) == 401
    assert status(coordinator, admin) == 200
    refused = coordinator.get("/api/v1/campaigns")
    assert refused.headers["content-type"] == "application/problem+json"
    assert refused.headers["www-authenticate"] == "Bearer"
    assert "/login" in refused.json()["detail"]


def test_revoking_the_last_token_opens_nothing(coordinator: TestClient) -> None:
    admin = make(coordinator, "me", "admin")
    assert status(coordinator, admin, "/api/v1/tokens/me", "DELETE") == 200
    later(coordinator)
    assert status(coordinator, admin) == 401
    assert status(coordinator, None) == 401


def test_a_revoked_token_opens_nothing_after_five_seconds_on_any_coordinator(
    coordinator: TestClient, database: Database
) -> None:
    admin = make(coordinator, "me", "admin")
    guest = make(coordinator, "guest", "read", by=admin)
    with TestClient(create_app(database), base_url="http://127.0.0.1", client=("127.0.0.1", 1)) as replica:
        replica.app.state.door._clock = Clock()  # type: ignore[attr-defined]
        assert status(coordinator, guest) == status(replica, guest) == 200
        assert status(coordinator, admin, "/api/v1/tokens/guest", "DELETE") == 200
        for http in (coordinator, replica):
            later(http, 5)
            assert status(http, guest) == 401
            assert status(http, admin) == 200


def test_a_token_ends_by_itself(coordinator: TestClient, database: Database) -> None:
    admin = make(coordinator, "me", "admin")
    guest = make(coordinator, "guest", "read", by=admin, expires_s=3600)
    assert status(coordinator, guest) == 200
    database.run(lambda c: c.execute(text("update token set expires_at = clock_timestamp() where name = 'guest'")))
    later(coordinator)
    assert status(coordinator, guest) == 401


def test_what_is_stored_is_not_the_token(coordinator: TestClient, database: Database) -> None:
    admin = make(coordinator, "me", "admin")
    secret = admin.split("_", 2)[2]
    rows = database.run(lambda c: [str(row) for row in c.execute(text("select * from token"))])
    rows += database.run(lambda c: [str(row) for row in c.execute(text("select * from event"))])
    assert rows
    assert all(secret not in row for row in rows)
    listed = coordinator.get("/api/v1/tokens", headers=bearer(admin)).text
    assert secret not in listed
    assert '"last_used_at":null' not in listed


def test_a_name_is_given_once_so_that_events_name_one_token(coordinator: TestClient) -> None:
    admin = make(coordinator, "me", "admin")
    again = coordinator.post("/api/v1/tokens", json={"name": "me", "scopes": ["read"]}, headers=bearer(admin))
    assert again.status_code == 409
    assert "choose another name" in again.json()["detail"]


def test_wrong_tokens_soon_have_to_wait_and_right_ones_do_not(coordinator: TestClient) -> None:
    admin = make(coordinator, "me", "admin")
    assert status(coordinator, admin) == 200
    seen = {status(coordinator, f"hyp_{'0' * 12}_{k:043d}") for k in range(30)}
    assert seen == {401, 429}
    assert status(coordinator, admin) == 200
    for _ in range(3):  # also once it has to be looked up again: they may share an address, behind a proxy
        later(coordinator)
        assert 429 in {status(coordinator, f"hyp_{'0' * 12}_{k:043d}") for k in range(30)}
        assert status(coordinator, admin) == 200


def test_a_browser_that_guesses_has_to_wait_too(coordinator: TestClient) -> None:
    make(coordinator, "me", "admin")
    seen = []
    for k in range(30):
        coordinator.cookies.set(access.COOKIE, f"hyp_{'0' * 12}_{k:043d}")
        seen.append(status(coordinator, None))
    assert set(seen) == {401, 429}


def test_a_bound_worker_is_heard_after_a_restore(coordinator: TestClient, database: Database) -> None:
    admin = make(coordinator, "me", "admin")
    coordinator.headers.update(bearer(admin))
    api = Api(coordinator, database)
    for name in ("mine", "other"):
        api.create(name)
    own, foreign = api.ask(campaigns=["mine"])[0], api.ask(campaigns=["other"])[0]
    api.sql("insert into restoration default values")
    worker = make(coordinator, "node", "worker", by=admin, campaigns=["mine"])
    coordinator.headers.update(bearer(worker))
    lost = "f" * 32  # given out after the backup
    assert api.beat({"token": lost})["command"] == "continue"
    assert api.result({**own, "token": lost}).status_code == 201
    assert api.result({**foreign, "token": "e" * 32}).status_code == 404
    assert status(coordinator, worker, f"/api/v1/leases/{foreign['token']}", "PUT", json={}) == 404


def test_a_bound_token_sees_and_touches_its_campaigns_alone(coordinator: TestClient, database: Database) -> None:
    admin = make(coordinator, "me", "admin")
    coordinator.headers.update(bearer(admin))
    api = Api(coordinator, database)
    for name in ("mine", "other"):
        api.create(name)
    lease = api.ask(campaigns=["other"])[0]
    reader, worker, operator = (
        make(coordinator, scope, scope, by=admin, campaigns=["mine"]) for scope in ("read", "worker", "operator")
    )
    assert [c["name"] for c in coordinator.get("/api/v1/campaigns", headers=bearer(reader)).json()["items"]] == ["mine"]
    assert [c["name"] for c in coordinator.get("/campaigns.json", headers=bearer(reader)).json()["items"]] == ["mine"]
    assert coordinator.get("/api/v1/workers", headers=bearer(reader)).json()["items"] == []
    foreign = coordinator.get("/api/v1/campaigns/other", headers=bearer(reader))
    absent = coordinator.get("/api/v1/campaigns/othes", headers=bearer(reader))
    assert foreign.status_code == absent.status_code == 404
    assert foreign.json()["detail"].replace("other", "othes") == absent.json()["detail"]
    assert status(coordinator, worker, f"/api/v1/leases/{lease['token']}", "PUT", json={}) == 404
    assert status(coordinator, operator, "/api/v1/campaigns/other", "PATCH", json={"candidates": 20}) == 404
    coordinator.headers.update(bearer(worker))
    assert [lease["campaign"] for lease in api.ask()] == ["mine"]
    named = {"request_id": "0" * 32, "worker": "0" * 32, "campaigns": ["other"]}
    assert status(coordinator, worker, "/api/v1/leases", "POST", json=named) == 403


def test_what_a_revoked_worker_held_is_offered_again_at_once(coordinator: TestClient, database: Database) -> None:
    admin = make(coordinator, "me", "admin")
    node = make(coordinator, "node", "worker", by=admin)
    coordinator.headers.update(bearer(admin))
    api = Api(coordinator, database)
    api.create(candidates=1)
    coordinator.headers.update(bearer(node))
    held = api.lease()
    coordinator.headers.update(bearer(admin))
    assert api.ask() == []
    assert status(coordinator, admin, "/api/v1/tokens/node", "DELETE") == 200
    coordinator.headers.update(bearer(node))  # heard once more, as by a coordinator that does not know yet
    assert api.beat(held)["command"] == "cancel"
    coordinator.headers.update(bearer(admin))
    assert [lease["number"] for lease in api.ask()] == [held["number"]]


def test_a_revoked_token_is_leased_nothing_from_that_moment_on(coordinator: TestClient) -> None:
    """The door lets it in for a few seconds more, on the word of its last look."""
    admin = make(coordinator, "me", "admin")
    node = make(coordinator, "node", "worker", by=admin)
    ask = {"request_id": uuid.uuid4().hex, "worker": uuid.uuid4().hex}
    assert status(coordinator, node, "/api/v1/leases", "POST", json=ask) == 204
    assert status(coordinator, admin, "/api/v1/tokens/node", "DELETE") == 200
    coordinator.headers.update(bearer(node))
    refused = coordinator.post("/api/v1/leases", json=ask)
    assert (refused.status_code, "was revoked" in refused.json()["detail"]) == (401, True)


@pytest.mark.parametrize("name", ["loopback", "anyone", "coordinator"])
def test_no_token_has_the_name_of_a_caller_without_one(name: str, coordinator: TestClient) -> None:
    admin = make(coordinator, "me", "admin")
    answer = coordinator.post("/api/v1/tokens", json={"name": name, "scopes": ["read"]}, headers=bearer(admin))
    assert (answer.status_code, "choose another name" in answer.json()["detail"]) == (422, True)


def test_a_quarantine_names_no_campaign_to_whoever_may_not_see_it(coordinator: TestClient, database: Database) -> None:
    admin = make(coordinator, "me", "admin")
    mine = make(coordinator, "mine", "worker", by=admin, campaigns=["mine"])
    both = make(coordinator, "both", "worker", by=admin, campaigns=["mine", "secret"])
    coordinator.headers.update(bearer(admin))
    api = Api(coordinator, database)
    for name in ("mine", "secret"):
        api.create(name, retries=0)
    worker = uuid.uuid4()
    for _ in range(3):
        (lease,) = api.ask(worker, campaigns=["secret"])
        api.fail(lease)
    reasons = {}
    for token in (mine, both, admin):
        ask = {"request_id": uuid.uuid4().hex, "worker": worker.hex}
        answer = coordinator.post("/api/v1/leases", json=ask, headers=bearer(token))
        reasons[token] = answer.headers["hypevolve-reason"]
    assert reasons[mine] == "candidates of a campaign that this token may not see failed here"
    assert reasons[both] == reasons[admin] == "3 different candidates failed here in a row, the last: secret #2 (nan)"


def test_every_change_names_who_made_it(coordinator: TestClient, database: Database) -> None:
    admin = make(coordinator, "me", "admin")
    node = make(coordinator, "node", "worker", by=admin)
    coordinator.headers.update(bearer(admin))
    api = Api(coordinator, database)
    api.create()
    coordinator.headers.update(bearer(node))
    assert api.result(api.lease()).status_code == 201
    coordinator.headers.update(bearer(admin))
    first = coordinator.get("/api/v1/campaigns/toy/events", params={"limit": 2}).json()
    rest = coordinator.get("/api/v1/campaigns/toy/events", params={"after": first["next"]}).json()
    told = [(event["kind"], event["who"]) for event in first["items"] + rest["items"]]
    assert told[0] == ("created", "me")
    assert {("bred", "node"), ("leased", "node"), ("done", "node")} <= set(told)
    page = coordinator.get("/c/toy", headers={"Accept": "text/html"}).text
    shown = " ".join(re.sub(r"<[^>]+>", " ", page[page.index('id="events"') :]).split())
    assert re.search(r"#0 done, fitness [\d.]+ by node .*campaign created with a budget of 10 candidates by me\b", shown)
    assert [event["who"] for event in coordinator.get("/c/toy.json").json()["events"]] == ["node", "me"]
    service = coordinator.get("/api/v1/events").json()["items"]
    assert [(e["kind"], e["who"], e["detail"]["token"]) for e in service] == [
        ("token created", "loopback", "me"),
        ("token created", "me", "node"),
    ]
    end = coordinator.get("/api/v1/campaigns/toy/events", params={"after": rest["next"]}).json()
    assert end == {"items": [], "next": rest["next"]}


def test_asks_that_are_bred_for_together_are_written_down_apart(coordinator: TestClient, database: Database) -> None:
    admin = make(coordinator, "me", "admin")
    nodes = [make(coordinator, f"node-{k}", "worker", by=admin) for k in range(4)]
    coordinator.headers.update(bearer(admin))
    api = Api(coordinator, database)
    api.create(candidates=40)

    def ask(k: int) -> int:
        body = {"request_id": uuid.uuid4().hex, "worker": uuid.uuid4().hex}
        return status(coordinator, nodes[k % 4], "/api/v1/leases", "POST", json=body)

    with ThreadPoolExecutor(12) as pool:
        assert set(pool.map(ask, range(36))) == {200}
    told = api.sql(
        "select count(*), count(*) filter (where e.who <> w.who) from event e"
        " join worker w on w.id::text = e.detail->>'worker' where e.kind = 'leased'"
    )
    assert [tuple(row) for row in told] == [(36, 0)]


@pytest.mark.parametrize("change", ["update event set who = 'nobody'", "delete from event", "truncate event"])
def test_events_are_append_only_in_the_database_itself(api: Api, change: str) -> None:
    api.create()
    with pytest.raises(DBAPIError, match="append-only"):
        api.sql(change)


def test_who_writes_past_the_coordinator_is_named_too(api: Api) -> None:
    api.sql("insert into event (kind) values ('by hand')")
    ((who,),) = api.sql("select who from event")
    ((role,),) = api.sql("select session_user::text")
    assert who == role


def test_events_are_read_in_an_order_that_never_changes_behind_a_reader(api: Api, database: Database) -> None:
    """An event with a smaller id that is committed later comes later for the reader too."""
    api.create()
    campaign = api.sql("select id from campaign")[0][0]
    engine = create_engine(database.url)
    older, newer = engine.connect(), engine.connect()
    insert = text("insert into event (campaign_id, kind) values (:id, :kind)")
    older.execute(text("select pg_current_xact_id()"))  # an older transaction, which draws its event's id later
    newer.execute(insert, {"id": campaign, "kind": "newer"})
    older.execute(insert, {"id": campaign, "kind": "older"})
    older.commit()
    before = api.http.get("/api/v1/campaigns/toy/events").json()
    newer.commit()
    after = api.http.get("/api/v1/campaigns/toy/events", params={"after": before["next"]}).json()
    for connection in (older, newer):
        connection.close()
    engine.dispose()
    assert [e["kind"] for e in before["items"]] == ["created", "older"]
    assert [e["kind"] for e in after["items"]] == ["newer"]


# ---- in a browser ------------------------------------------------------------------------------------------------------------


def test_a_person_is_led_to_the_login_and_back(coordinator: TestClient) -> None:
    admin = make(coordinator, "me", "admin")
    html = {"Accept": "text/html"}
    led = coordinator.get("/workers?x=1", headers=html, follow_redirects=False)
    assert (led.status_code, led.headers["location"]) == (303, "/login?next=%2Fworkers%3Fx%3D1")
    page = coordinator.get(led.headers["location"], headers=html)
    assert '<input type="hidden" name="next" value="/workers?x=1">' in page.text
    origin = {"Origin": "http://127.0.0.1:8080", **html}
    wrong = coordinator.post("/login", data={"token": "hyp_no", "next": "/workers"}, headers=origin)
    assert (wrong.status_code, "unknown, revoked or expired" in wrong.text) == (401, True)
    assert "hyp_no" not in wrong.text
    entered = coordinator.post("/login", data={"token": admin, "next": "/workers"}, headers=origin, follow_redirects=False)
    assert (entered.status_code, entered.headers["location"]) == (303, "/workers")
    cookie = entered.headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=strict" in cookie
    assert "secure" not in cookie
    shown = coordinator.get("/workers", headers=html)
    assert shown.status_code == 200
    assert "Log out" in shown.text
    assert admin not in shown.text
    assert coordinator.post("/logout", headers=origin, follow_redirects=False).status_code == 303
    assert coordinator.get("/workers", headers=html, follow_redirects=False).status_code == 303


def test_behind_https_the_cookie_is_secure(coordinator: TestClient) -> None:
    admin = make(coordinator, "me", "admin")
    https = TestClient(coordinator.app, base_url="https://127.0.0.1", client=("127.0.0.1", 50000))
    entered = https.post("/login", data={"token": admin}, headers={"Origin": "https://127.0.0.1"}, follow_redirects=False)
    assert "secure" in entered.headers["set-cookie"].lower()


def test_a_page_of_another_site_changes_nothing(coordinator: TestClient) -> None:
    change = {"method": "POST", "url": "/api/v1/campaigns/toy/retry"}
    foreign = {"Origin": "http://evil.example"}
    assert coordinator.request(**change, headers=foreign).status_code == 403  # while everybody here is let in
    admin = make(coordinator, "me", "admin")
    coordinator.cookies.set(access.COOKIE, admin)
    assert coordinator.request(**change, headers=foreign).status_code == 403
    assert coordinator.request(**change).status_code == 403  # a browser names the origin of every POST
    assert coordinator.request(**change, headers={"Origin": "http://127.0.0.1:8080"}).status_code == 404


@pytest.mark.parametrize("address", ["//evil.example", "https://evil.example", "/\\evil.example", "javascript:alert(1)", ""])
def test_a_login_leads_nowhere_else(coordinator: TestClient, address: str) -> None:
    admin = make(coordinator, "me", "admin")
    own = {"Origin": "http://127.0.0.1:8080"}
    entered = coordinator.post("/login", data={"token": admin, "next": address}, headers=own, follow_redirects=False)
    assert entered.headers["location"] == "/"


def test_a_worker_s_token_is_no_login(coordinator: TestClient) -> None:
    admin = make(coordinator, "me", "admin")
    node = make(coordinator, "node", "worker", by=admin)
    own = {"Origin": "http://127.0.0.1:8080"}
    answer = coordinator.post("/login", data={"token": node}, headers=own)
    assert answer.status_code == 403
    assert "for workers" in answer.text
    assert "set-cookie" not in answer.headers


def test_a_cookie_of_another_coordinator_does_no_harm_where_none_is_needed(coordinator: TestClient) -> None:
    coordinator.cookies.set(access.COOKIE, f"hyp_{'1' * 12}_{'x' * 43}")
    assert coordinator.get("/workers", headers={"Accept": "text/html"}).status_code == 200


def test_an_application_with_a_route_without_a_scope_does_not_start(database: Database) -> None:
    app = create_app(database)

    router = APIRouter()

    @router.get("/forgotten")
    def forgotten() -> None:
        pass

    app.include_router(router, prefix="/api/v1")
    with pytest.raises(RuntimeError, match=r"GET /api/v1/forgotten; add dependencies=\[needs"):
        access.require_scopes(app, frozenset())
