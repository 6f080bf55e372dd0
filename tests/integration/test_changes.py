"""Bounds changed and hyp sets enqueued while a campaign runs."""

import uuid
from typing import Any

import pytest

from evolution.yolov5_2021 import Yolov5
from hypevolve import online, steering
from hypevolve.client import Client
from hypevolve.console import CommandFailed, Output
from server import changes, replaying


def _change(api: Any, **space: Any) -> Any:
    return api.http.patch("/api/v1/campaigns/toy/space", json={"space": space})


def _enqueue(api: Any, *hyps: Any, request: str | None = None) -> Any:
    body = {"request_id": request or str(uuid.uuid4()), "hyps": hyps}
    return api.http.post("/api/v1/campaigns/toy/candidates", json=body)


def _train(api: Any, n: int) -> list[dict[str, Any]]:
    hyps = []
    for _ in range(n):
        lease = api.lease()
        hyps.append(lease["hyp"])
        api.result(lease, map50=lease["hyp"]["x"] / 2)
    return hyps


def test_children_are_inside_new_bounds_and_those_before_can_still_be_bred_again(api: Any) -> None:
    api.create(candidates=40, evolve={"strategy": "hybrid", "seed": 2})
    _train(api, 20)
    assert _change(api, x={"min": 0.6, "max": 0.7}, y={"gain": 0, "start": 0.25}).status_code == 200
    after = _train(api, 12)
    assert all(0.6 <= hyp["x"] <= 0.7 and hyp["y"] == 0.25 for hyp in after)
    assert _change(api, y={"gain": 1}).status_code == 200
    assert len({hyp["y"] for hyp in _train(api, 6)}) > 1
    for number in range(38):
        again = api.database.run(lambda connection, number=number: replaying.replay(connection, "toy", number))
        assert again == api.candidate(number)["hyp"], number
    assert "bounds changed: y" in api.http.get("/c/toy").text


def test_changes_that_cannot_be(api: Any) -> None:
    api.create()
    for space, said in (
        ({"z": {"min": 0}}, "space.z: is no gene of this campaign"),
        ({"x": {"min": 2, "max": 1}}, "space.x: lower 2 > upper 1"),
        ({"x": {"min": 0.2, "max": 1, "start": 0.1}}, "space.x: start 0.1 is outside 0.2 to 1"),
        ({"x": ["a", "b"]}, "space.x: a gene keeps its kind while a campaign runs"),
        ({"x": {"gain": 0}, "y": {"gain": 0}}, "space: every gene would be fixed"),
    ):
        answer = _change(api, **space)
        assert (answer.status_code, said in answer.text) == (422, True), answer.text
    assert api.http.patch("/api/v1/campaigns/nobody/space", json={"space": {}}).status_code == 404


def test_choices_come_and_go_and_every_candidate_can_be_bred_again(api: Any) -> None:
    hyp, space = {"x": 0.5, "kind": "b"}, {"x": {"gain": 1, "min": 0.01, "max": 1}, "kind": ["a", "b", "c"]}
    api.create(candidates=80, hyp=hyp, space=space, evolve={"strategy": "hybrid", "seed": 5})
    assert len({hyp["kind"] for hyp in _train(api, 20)}) > 1
    assert _change(api, kind={"choices": ["c", "d", "a"]}).status_code == 200  # the start is gone, the others stand elsewhere
    after = {hyp["kind"] for hyp in _train(api, 45)}
    assert len(after) > 1
    assert after <= {"a", "c", "d"}
    assert _change(api, kind={"gain": 0, "start": "d"}).status_code == 200
    assert {hyp["kind"] for hyp in _train(api, 5)} == {"d"}
    for number in range(70):
        again = api.database.run(lambda connection, number=number: replaying.replay(connection, "toy", number))
        assert again == api.candidate(number)["hyp"], number
    for change, said in (
        ({"choices": ["a", "c"], "start": "z"}, "space.kind: start 'z' is none of the choices; write one of a, c"),
        ([False, True], "space.kind: a gene keeps its kind while a campaign runs"),
        ([1, 0, 1], "space.kind: a gene keeps its kind while a campaign runs"),
        ({"min": 0, "max": 1}, "space.kind.choices: a gene of choices has no min, max or integer"),
    ):
        answer = _change(api, kind=change)
        assert (answer.status_code, said in answer.text) == (422, True), answer.text


def test_enqueued_hyp_sets_are_next_and_count_once(api: Any) -> None:
    api.create(candidates=6)
    request = str(uuid.uuid4())
    assert _enqueue(api, {"x": 0.9}, {"y": 0.1}, request=request).json() == {"numbers": [1, 2]}
    assert _enqueue(api, {"x": 0.9}, {"y": 0.1}, request=request).json() == {"numbers": [1, 2]}
    hyps = _train(api, 3)
    assert hyps == [{"x": 0.5, "y": 0.3}, {"x": 0.9, "y": 0.3}, {"x": 0.5, "y": 0.1}]
    assert [api.candidate(n)["origin"] for n in range(3)] == ["initial", "enqueued", "enqueued"]
    assert api.counts()["unbred"] == 3
    api.result(api.lease(), map50=0.1)
    assert api.candidate(3)["parents"] == [1]  # the fittest so far is a parent like any other
    full = _enqueue(api, *[{"x": 0.8}] * 3)
    assert full.status_code == 409
    assert "2 of the budget's 6 candidates are left, not 3; `hypevolve extend toy --candidates 7` makes room" in full.text
    for hyp, said in (
        ({"z": 1}, "unknown gene"),
        ({"x": 7}, "hyps[0].x: 7 is outside the space; write 0.01 to 1"),
        ({"x": "AdamW"}, "hyps[0].x: is 'AdamW'; write a number"),
    ):
        answer = _enqueue(api, hyp)
        assert (answer.status_code, said in answer.text) == (422, True), answer.text


def test_a_change_while_a_child_is_computed_is_noticed(api: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A child of the space before would be stored as one of the space after, and could not be bred again."""
    api.create(candidates=10)
    _train(api, 3)
    propose, changed = Yolov5.propose, []

    def interrupted(*args: Any) -> Any:
        if not changed:
            changed.append(api.database.run(lambda c: changes.change_space(c, "toy", {"x": {"min": 0.6, "max": 0.7}})))
        return propose(*args)

    monkeypatch.setattr(Yolov5, "propose", interrupted)
    (hyp,) = _train(api, 1)
    assert 0.6 <= hyp["x"] <= 0.7
    assert changed
    assert api.database.run(lambda connection: replaying.replay(connection, "toy", 3)) == hyp


def test_an_audit_breeds_every_candidate_again(api: Any, monkeypatch: Any, capsys: Any) -> None:
    api.create(candidates=24, evolve={"strategy": "hybrid", "seed": 2})
    _train(api, 6)
    _enqueue(api, {"x": 0.9})
    _change(api, x={"min": 0.3, "max": 0.9})
    _train(api, 12)
    monkeypatch.setattr("hypevolve.online.connect", lambda _: Client("http://127.0.0.1", transport=api.http._transport))
    online.audit(Output(), "toy")
    assert "all 17 bred candidates come out the same" in capsys.readouterr().err  # 18, less the one that was enqueued
    api.sql("""update candidate set hyp = '{"x": 0.5, "y": 0.31}' where number = 17""")
    with pytest.raises(CommandFailed, match="1 of 17 bred candidates come out otherwise: #17"):
        online.audit(Output(), "toy")
    page = api.http.get("/api/v1/campaigns/toy/audit", params={"after": 16, "limit": 1}).json()
    assert (page["items"][0]["number"], page["items"][0]["same"], page["next"]) == (17, False, 17)


def test_bounds_of_a_finished_campaign_lead_to_extend(api: Any, monkeypatch: Any, capsys: Any) -> None:
    api.create(candidates=2)
    _train(api, 2)
    monkeypatch.setattr("hypevolve.steering.connect", lambda _: Client("http://127.0.0.1", transport=api.http._transport))
    steering.edit(Output(), "toy", bounds=["x=0.2:0.4"], choices=[], fix=[], free=[], fitness=None)
    assert "toy is finished; `hypevolve extend toy --candidates 4`" in capsys.readouterr().err
