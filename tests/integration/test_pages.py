"""The pages over a real database: numbers that add up and equal those of the twin, hostile names, prefixes, paging, health."""

import hashlib
import html
import json
import re
import uuid
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from fastapi.testclient import TestClient

from server.app import STATIC, create_app
from server.database import Database

HOSTILE = "<script>alert('x')</script>&\"{{7*7}}"
TEMPLATES = STATIC.parent / "templates"
W = uuid.UUID(int=7)  # a worker


class _Page(HTMLParser):
    """What a browser would find: addresses, scripts written into the page, elements by id, text."""

    VOID = frozenset(["meta", "link", "img", "br", "input", "hr", "source"])

    def __init__(self, source: str) -> None:
        super().__init__()
        self.addresses: list[str] = []
        self.inline: list[str] = []
        self.ids: list[str] = []
        self.counts: dict[str, int] = {}
        self.words: list[str] = []
        self._open: list[str] = []
        self._count: str | None = None
        self.feed(source)
        assert self._open == [], "an element is not closed"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = {key: value or "" for key, value in attrs}
        self.addresses += [found[key] for key in ("href", "src", "srcset", "data-openapi") if key in found]
        if tag == "script" and "src" not in found:
            self.inline.append("script")
        self.inline += [key for key in found if key.startswith("on") or key == "style"]
        self.ids += [found["id"]] if "id" in found else []
        self._count = found.get("data-count")
        if tag not in self.VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID:
            assert self._open.pop() == tag
        self._count = None

    def handle_data(self, data: str) -> None:
        self.words.append(data)
        if self._count:
            self.counts[self._count] = int(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def _get(http: TestClient, path: str, status: int = 200) -> _Page:
    answer = http.get(path)
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"].startswith("text/html")
    policy = answer.headers["content-security-policy"]
    assert "default-src 'self'" in policy
    assert "unsafe" not in policy
    page = _Page(answer.text)
    assert page.inline == [], "the policy forbids inline scripts and styles"
    assert len(page.ids) == len(set(page.ids))
    assert not [address for address in page.addresses if re.match(r"(\w+:)?//", address)], "another host"
    return page


@pytest.fixture
def busy(api: Any) -> Any:
    """A campaign with every kind of candidate: done, failed, lost and taken over, running, starting, queued, not bred."""
    api.create("toy", candidates=40, retries=0)
    api.http.post("/api/v1/workers", json={"worker": str(W), "name": "node-1/gpu0", "devices": ["cuda:0 H200"]})
    for map50 in (0.5, 0.6, 0.55, 0.7):
        lease = api.lease(W)
        epochs = [
            {"epoch": e, "metrics": {"map50": map50 * e / 3, "map50_95": map50 * e / 6, "val_box_loss": 0.1}} for e in (1, 2, 3)
        ]
        api.http.post(f"/api/v1/leases/{lease['token']}/epochs", json={"epochs": epochs})
        api.result(lease, map50)
    api.fail(api.lease(W))
    lost = api.lease(uuid.uuid4())
    api.expire(lost)
    api.result(api.lease(W), 0.4)
    running, _starting, back = api.lease(W), api.lease(W), api.lease(W)
    api.http.post(f"/api/v1/leases/{running['token']}/epochs", json={"epochs": [{"epoch": 1, "metrics": {"map50": 0.2}}]})
    api.beat(running, epoch=1, progress=0.33)
    api.http.delete(f"/api/v1/leases/{back['token']}", params={"reason": "spot notice"})
    return api


def test_without_a_campaign_the_first_page_says_how_to_start(api: Any) -> None:
    page = _get(api.http, "/")
    for command in (
        "hypevolve init",
        "hypevolve --url http://testserver create campaign.yaml",
        "hypevolve worker http://testserver",
    ):
        assert command in page.text
    assert api.http.get("/campaigns.json").json()["items"] == []


def test_the_counts_on_the_page_add_up_and_equal_those_of_twin_and_api(busy: Any) -> None:
    page = _get(busy.http, "/c/toy")
    counts = busy.counts()
    assert sum(page.counts.values()) == counts["planned"] == 40
    assert page.counts == {key: counts[key] for key in page.counts}
    assert page.counts == {"done": 5, "running": 1, "leased": 1, "queued": 1, "failed": 1, "cancelled": 0, "unbred": 31}
    twin = busy.http.get("/c/toy.json").json()
    assert twin["campaign"]["counts"] == counts
    assert counts["lost"] == 1
    assert "40 planned =" in page.text
    assert "Lost attempts 1" in page.text


def test_page_and_twin_show_the_same_best(busy: Any) -> None:
    page, twin = _get(busy.http, "/c/toy"), busy.http.get("/c/toy.json").json()
    best, default = twin["campaign"]["best"], twin["campaign"]["default"]
    assert (best["number"], default["number"]) == (3, 0)
    assert twin["change"]["delta"] == pytest.approx(best["fitness"] - default["fitness"])
    assert twin["change"]["percent"] == pytest.approx(40)
    assert twin["since_best"] == 1
    assert f"{best['fitness']:.4f}" in page.text
    assert f"+{twin['change']['delta']:.4f} (+40.0 %)" in page.text
    assert [number for number, _ in twin["history"]] == [0, 1, 2, 3, 5]
    assert twin["failed"] == [4]
    assert twin["genes"][0]["name"] in page.text
    assert "node-1/gpu0" in page.text
    assert "lost:" in page.text
    assert "spot notice" in page.text
    for name in ("hyp_evolved.yaml", "evolve.csv", "evolve.txt", "evolve.png"):
        assert f"/api/v1/campaigns/toy/{name}" in page.addresses


def test_every_address_on_every_page_answers(busy: Any) -> None:
    seen: set[str] = set()
    todo = ["/"]
    while todo:
        path = todo.pop()
        for address in _get(busy.http, path).addresses:
            target = address.partition("#")[0] if address.startswith(("/", "#")) else path.rpartition("/")[0] + "/" + address
            for one in target.split(" "):
                if not one or one in seen:
                    continue
                seen.add(one)
                answer = busy.http.get(one)
                assert answer.status_code == 200, (path, one, answer.text[:200])
                if answer.headers["content-type"].startswith("text/html") and len(seen) < 120:
                    todo.append(one)
    assert {"/workers", "/docs", "/c/toy", "/c/toy/candidates/3", "/c/toy.json", "/c/toy/candidates/3.json"} <= seen


def test_the_list_of_campaigns_shows_progress_and_best(busy: Any) -> None:
    busy.create("second")
    page, twin = _get(busy.http, "/"), busy.http.get("/campaigns.json").json()
    assert [item["name"] for item in twin["items"]] == ["second", "toy"]
    toy = twin["items"][1]
    assert toy["counts"] == busy.counts()
    assert (toy["best_number"], toy["workers"]) == (3, 1)
    assert [number for number, _ in toy["jumps"]] == [0, 1, 3]
    assert "6 / 40, 1 failed" in page.text
    assert f"{toy['best_fitness']:.4f}" in page.text


def test_a_candidate_page_shows_hyps_curve_and_attempts(busy: Any) -> None:
    page, twin = _get(busy.http, "/c/toy/candidates/5"), busy.http.get("/c/toy/candidates/5.json").json()
    assert [attempt["outcome"] for attempt in twin["attempts"]] == ["lost", "done"]
    open_one = busy.http.get("/c/toy/candidates/6.json").json()
    assert [attempt["outcome"] for attempt in open_one["attempts"]] == ["in training"]
    assert {gene["name"] for gene in twin["genes"]} == {"x", "y"}
    for gene in twin["genes"]:
        assert f"{gene['value']:.4g}" in page.text
        assert gene["parent"] is not None
        assert 0 <= gene["position"] <= 1
    changes = [abs(gene["change"]) for gene in twin["genes"]]
    assert changes == sorted(changes, reverse=True)
    done = busy.http.get("/c/toy/candidates/3.json").json()
    assert done["best"]
    assert [row["epoch"] for row in done["curve"]] == [1, 2, 3]
    assert len(done["default_curve"]) == 3
    assert "the best so far" in _get(busy.http, "/c/toy/candidates/3").text
    failed = _get(busy.http, "/c/toy/candidates/4")
    assert "nan: loss is nan" in failed.text


def test_the_hyp_set_of_a_candidate_is_a_file_with_exact_numbers(busy: Any) -> None:
    answer = busy.http.get("/c/toy/candidates/2.yaml")
    assert answer.headers["content-type"].startswith("application/yaml")
    lines = dict(line.split(": ") for line in answer.text.splitlines() if not line.startswith("#") and line)
    assert {name: float(value) for name, value in lines.items()} == busy.candidate(2)["hyp"]


def test_workers_are_told_apart(busy: Any) -> None:
    idle, gone = uuid.uuid4(), uuid.uuid4()
    for worker, name in ((idle, "idle-one"), (gone, "gone-one")):
        busy.http.post("/api/v1/workers", json={"worker": str(worker), "name": name})
    busy.sql("update worker set seen_at = seen_at - interval '20 min' where id = :id", id=gone)
    lease = busy.lease(uuid.UUID(int=9))
    busy.expire(lease)
    answer = busy.http.get("/workers.json").json()
    twin = {line["worker"]["name"]: line for line in [*answer["items"], *answer["gone"]]}
    assert twin["node-1/gpu0"]["status"] == "training"
    assert twin["idle-one"]["status"] == "idle"
    assert twin["gone-one"]["status"] == "gone"
    assert [line["worker"]["name"] for line in answer["gone"]] == ["gone-one"]
    assert twin[str(uuid.UUID(int=9))[:8]]["status"] == "silent"
    page = _get(busy.http, "/workers")
    assert "20 min ago" in page.text
    assert "1 gone: without a candidate" in page.text
    assert "gone" in page.ids
    source = busy.http.get("/workers").text
    assert source.index("idle-one") < source.index("<details") < source.index("gone-one") < source.index("</details>")
    assert "its lease has expired" in page.text
    assert all(name in page.text for name in twin)
    assert "fell silent while it trained" in _get(busy.http, "/c/toy").text


def test_a_worker_that_no_longer_asks_is_not_about_to_ask(api: Any) -> None:
    api.create("toy")
    worker = uuid.uuid4()
    api.http.post("/api/v1/workers", json={"worker": str(worker), "name": "quiet"})
    assert "is about to ask" in _get(api.http, "/workers").text
    api.sql("update worker set seen_at = seen_at - interval '60 s'")
    assert "it may have ended" in _get(api.http, "/workers").text


def test_a_campaign_whose_candidates_all_failed_says_why(api: Any) -> None:
    api.create("toy", candidates=2, retries=0, base={"epochs": 1})
    api.http.post(
        f"/api/v1/leases/{api.lease()['token']}/failure",
        json={"kind": "crash", "detail": "Traceback\n  File x\nKeyError: 'data.yaml'"},
    )
    page = _get(api.http, "/c/toy")
    assert "1 epoch each" in page.text
    assert "Nothing has succeeded yet: the only training that ended failed." in page.text
    api.fail(api.lease(), "exit_code")
    assert api.http.get("/c/toy.json").json()["newest_failure"] == {"number": 1, "kind": "exit_code", "detail": "loss is nan"}
    page = _get(api.http, "/c/toy")
    assert "Nothing succeeded: all 2 trainings that ended failed." in page.text
    assert "exit_code – loss is nan" in page.text
    assert "hypevolve --url http://testserver retry toy" in page.text
    assert "No candidate is done yet" not in page.text
    failed = api.http.get("/c/toy/candidates/0").text
    assert "no epoch yet" not in failed.lower()
    assert "No epoch was reported." in failed
    assert failed.index("KeyError: &#39;data.yaml&#39;") < failed.index('id="curve"')


def test_a_halted_campaign_says_why_and_what_to_do(api: Any) -> None:
    api.create("toy", candidates=20, retries=0)
    api.result(api.lease(), 0.5)
    for _ in range(5):
        api.fail(api.lease(), "crash")
    twin = api.http.get("/c/toy.json").json()
    assert (twin["campaign"]["state"], twin["newest_failure"]["number"]) == ("halted", 5)
    page = _get(api.http, "/c/toy")
    assert "the newest 5 candidates all failed" in page.text
    assert "crash – loss is nan" in page.text
    assert "retry toy" in page.text
    assert "live.js" in api.http.get("/c/toy").text
    assert "1 campaign, 0 running, 1 halted" in _get(api.http, "/").text
    api.http.post("/api/v1/campaigns/toy/retry")
    assert "5 failed candidates offered again" in _get(api.http, "/c/toy").text


def test_epochs_are_counted_from_one_and_parts_of_the_loss_share_a_colour(api: Any) -> None:
    api.create("toy", candidates=1)
    lease = api.lease()
    last = {"train_box": 0.1, "val_box": 0.2, "val_cls": 0.3, "map50_95": 0.00012}
    rows = [{"epoch": 0, "metrics": {"train_box": 0.3}}, {"epoch": 1, "metrics": {"train_box": 0.2}}]
    api.http.post(f"/api/v1/leases/{lease['token']}/epochs", json={"epochs": [*rows, {"epoch": 2, "metrics": last}]})
    api.result(lease, 0.001)
    assert api.http.get("/c/toy/candidates/0.json").json()["first_epoch"] == 0
    source = api.http.get("/c/toy/candidates/0").text
    assert "mAP50-95, epoch 3: 0.00012" in source
    assert "3 / 3" in source
    by_name = {name: hue for hue, name in re.findall(r'class="start name (s\d)"[^>]*>(\w+ \w+) ', source)}
    assert by_name["train box"] == by_name["val box"] != by_name["val cls"]
    assert "0.0005500" in source
    assert "0.0000" not in source


def test_a_small_sheet_is_shown_at_its_own_size(busy: Any) -> None:
    (size,) = re.findall(r'<img class="sheet" width="(\d+)" height="(\d+)"', busy.http.get("/c/toy").text)
    assert int(size[0]) < 700


def test_pages_of_candidates_follow_each_other_newest_first(api: Any) -> None:
    api.create("many", candidates=60)
    for _ in range(60):
        api.lease()
    numbers: list[int] = []
    cursor: str | None = ""
    while cursor is not None:
        page = api.http.get("/c/many.json", params={"cursor": cursor} if cursor else {}).json()["candidates"]
        numbers += [item["number"] for item in page["items"]]
        cursor = page["next"]
    assert numbers == list(range(59, -1, -1))
    first = _get(api.http, "/c/many")
    (older,) = [address for address in first.addresses if "cursor=" in address and address.startswith("/c/many?")]
    assert "« newest" in _get(api.http, older).text
    table = api.http.get(older).text.partition('id="candidates"')[2].partition("</table>")[0]
    assert [int(number) for number in re.findall(r">#(\d+)</a>", table)] == list(range(34, 9, -1))
    assert "None" in _get(api.http, "/c/many?state=failed").text
    assert "#59" in _get(api.http, "/c/many?state=leased").text


def test_hostile_names_and_details_are_only_text(busy: Any) -> None:
    busy.http.post(
        "/api/v1/workers",
        json={"worker": str(W), "name": HOSTILE, "host": HOSTILE, "devices": [HOSTILE], "versions": {HOSTILE: HOSTILE}},
    )
    lease = busy.lease(W)
    busy.http.post(f"/api/v1/leases/{lease['token']}/failure", json={"kind": "crash", "detail": HOSTILE})
    back = busy.lease(W)
    busy.http.delete(f"/api/v1/leases/{back['token']}", params={"reason": HOSTILE})
    name = HOSTILE.replace("/", "|")  # a name with a slash has no address; no route of the API can create this one either
    busy.sql("update campaign set name = :name", name=name)
    path = quote(name, safe="")
    for page_path in ("/", "/workers", f"/c/{path}", f"/c/{path}/candidates/{lease['number']}", f"/c/{path}/candidates/3"):
        answer = busy.http.get(page_path)
        assert answer.status_code == 200, page_path
        assert "alert(" in html.unescape(answer.text), page_path
        assert "<script>alert" not in answer.text, page_path
        assert "49" not in _Page(answer.text).text.split("alert('x')")[1][:12], "a name was rendered as a template"
        _Page(answer.text)
    assert busy.http.get(f"/c/{path}/sheet.png").status_code == 200
    assert busy.http.get(f"/c/{path}/candidates/3.yaml").text.count("\n#") == 1


@pytest.mark.parametrize(
    "path",
    [
        "/c/none",
        "/c/toy/candidates/77",
        "/c/toy/candidates/abc",
        "/c/toy/candidates/99999999999",
        "/c/toy?state=odd",
        "/c/%3Cscript%3Ealert(1)",
    ],
)
def test_what_does_not_exist_is_a_friendly_page(busy: Any, path: str) -> None:
    page = _get(busy.http, path, 404)
    assert "Nothing here" in page.text
    assert "<script>alert" not in busy.http.get(path).text


@pytest.mark.parametrize("path", ["/c/none.json", "/c/toy/candidates/77.json"])
def test_the_twin_of_what_does_not_exist_is_a_problem(busy: Any, path: str) -> None:
    answer = busy.http.get(path)
    assert answer.status_code == 404
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["type"] == "/problems/unknown-" + ("campaign" if "none" in path else "candidate")


def test_a_wrong_cursor_is_told(busy: Any) -> None:
    assert busy.http.get("/c/toy.json?cursor=%21%21").status_code == 422
    assert "no cursor" in _get(busy.http, "/c/toy?cursor=%21%21", 422).text


def test_only_what_may_change_is_looked_at_again(busy: Any) -> None:
    def refreshes(path: str) -> bool:
        source = busy.http.get(path).text
        assert ("live.js" in source) == ('http-equiv="refresh"' in source) == ("data-refresh-s" in source)
        return "live.js" in source

    assert refreshes("/c/toy")
    assert refreshes("/workers")
    assert not refreshes("/c/toy/candidates/3")
    assert not refreshes("/docs")


def test_the_sheet_is_kept_by_the_browser_until_there_is_another_result(busy: Any) -> None:
    page = _get(busy.http, "/c/toy")
    light, dark = sorted({address for address in page.addresses if "/sheet.png" in address}, key=len)
    for address in (light, dark):
        answer = busy.http.get(address)
        assert answer.headers["content-type"] == "image/png"
        assert "max-age" in answer.headers["cache-control"]
    assert busy.http.get(light).content != busy.http.get(dark).content
    busy.result(busy.lease(W), 0.45)
    assert busy.http.get(light).headers["cache-control"] == "no-store"
    assert light not in _get(busy.http, "/c/toy").addresses
    busy.create("empty")
    assert busy.http.get("/c/empty/sheet.png").status_code == 404


@pytest.fixture
def prefixed(busy: Any, database: Database) -> Iterator[TestClient]:
    with TestClient(create_app(database, root_path="/hypevolve", open_to="anyone")) as http:
        yield http


def test_behind_a_prefix_every_address_carries_it(prefixed: TestClient) -> None:
    for path in ("/", "/workers", "/docs", "/c/toy", "/c/toy/candidates/3", "/c/none"):
        answer = prefixed.get(path)  # a proxy that strips the prefix
        assert prefixed.get("/hypevolve" + path).text.count("href") == answer.text.count("href")  # and one that does not
        page = _Page(answer.text)
        absolute = [address for address in page.addresses if address.startswith("/")]
        assert absolute
        assert all(address.startswith("/hypevolve/") for address in absolute), absolute
    assert "hypevolve worker http://testserver/hypevolve" in _Page(prefixed.get("/workers").text).text


def test_health_and_readiness(api: Any) -> None:
    assert api.http.get("/healthz").json() == {"status": "alive"}
    assert api.http.get("/readyz").json() == {"status": "ready"}


def test_without_a_database_the_process_lives_but_is_not_ready() -> None:
    database = Database("postgresql://nobody@127.0.0.1:1/none")
    http = TestClient(create_app(database, open_to="anyone"))
    assert http.get("/healthz").status_code == 200
    answer = http.get("/readyz")
    assert answer.status_code == 503
    assert answer.headers["content-type"] == "application/problem+json"
    page = http.get("/")
    assert page.status_code == 503
    assert "cannot answer now" in page.text
    assert "live.js" in page.text
    database.close()


def test_vendored_files_are_those_of_the_record() -> None:
    record = json.loads((STATIC / "vendor/VENDORED.json").read_text())
    for name, package in record.items():
        folder = STATIC / "vendor" / name
        assert {path.name for path in folder.iterdir()} == set(package["sha256"])
        for file, digest in package["sha256"].items():
            assert hashlib.sha256((folder / file).read_bytes()).hexdigest() == digest, file
        assert {"LICENSE", "NOTICE"} <= set(package["sha256"])
    assert {path.name for path in (STATIC / "vendor").iterdir()} == {*record, "VENDORED.json"}


def test_our_own_script_stays_small() -> None:
    assert sum(path.stat().st_size for path in STATIC.glob("*.js")) < 3200


def test_only_drawings_are_put_on_a_page_unescaped() -> None:
    for path in Path(TEMPLATES).iterdir():
        for safe in re.findall(r"\{\{([^}]*)\|\s*safe", path.read_text()):
            assert safe.strip().startswith(("charts.", "curves.")), f"{path.name}: {safe}"
        assert not re.search(r"""(href|src)=["']/""", path.read_text()), f"{path.name} has an address without the prefix"


def test_what_a_campaign_has_learned(api: Any) -> None:
    api.create(candidates=45, space={"x": {"gain": 1, "min": 0.01, "max": 1}, "y": {"gain": 1, "min": 0.01, "max": 1}})
    assert "Too early" in _get(api.http, "/c/toy/insight").text
    for _ in range(45):
        lease = api.lease()
        api.result(lease, map50=0.2 + 0.6 * lease["hyp"]["x"])
    page = _get(api.http, "/c/toy/insight")
    twin = api.http.get("/c/toy/insight.json").json()["insight"]
    assert twin == api.http.get("/api/v1/campaigns/toy/insight").json()
    assert [gene["name"] for gene in twin["importance"]] == ["x", "y"]
    assert twin["importance"][0]["slope"] > 10 * abs(twin["importance"][1]["slope"])
    story = twin["story"]
    assert story[0]["number"] == 0
    assert story[-1]["number"] == api.http.get("/api/v1/campaigns/toy/best").json()[0]["number"]
    assert [step["gain"] is None for step in story] == [True] + [False] * (len(story) - 1)
    assert f"#{story[-1]['number']}" in page.text
    assert twin["outlook"]["hint"] in page.text
    assert "/c/toy/insight" in _get(api.http, "/c/toy").addresses
    assert api.http.get("/c/nobody/insight.json").status_code == 404


def test_a_report_costs_as_much_at_any_size(api: Any) -> None:
    """The rows it is made from are bounded, and so is the line of parents."""
    api.create(candidates=3000)
    api.sql(
        """
        insert into candidate (campaign_id, number, hyp, hyp_hash, origin, state, parents, fitness)
        select c.id, n, json_build_object('x', 0.5 + 0.0001 * n, 'y', 0.3), n::text, 'bred', 'done', array[n - 1], n / 3000.0
        from campaign c, generate_series(0, 2499) n
        """
    )
    found = api.http.get("/api/v1/campaigns/toy/insight").json()
    assert found["rows"] == 1000  # the fittest are the newest here
    assert (len(found["story"]), found["story"][-1]["number"]) == (100, 2499)
