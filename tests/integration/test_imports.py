"""Results of earlier evolutions, added to a campaign: parents at once, outside the budget, however many there are."""

import json
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event

from hypevolve import cli
from hypevolve.client import Client
from hypevolve.console import CommandFailed, Output
from hypevolve.steering import import_file

METRICS = {"precision": 0.5, "recall": 0.5, "map50": 0.9, "map50_95": 0.6}


def _import(api: Any, *rows: dict[str, Any]) -> Any:
    return api.http.post("/api/v1/campaigns/toy/imported", json={"rows": rows})


def _row(x: float, y: float = 0.5, **metrics: float) -> dict[str, Any]:
    return {"hyp": {"x": x, "y": y}, "metrics": METRICS | metrics}


@pytest.fixture
def output(api: Any, monkeypatch: pytest.MonkeyPatch) -> Output:
    """Commands reach the coordinator of this process."""
    monkeypatch.setattr("hypevolve.steering.connect", lambda _: Client("http://127.0.0.1", transport=api.http._transport))
    return Output(json=True)


def test_rows_imported_while_it_runs_are_parents_of_the_next_candidate(api: Any) -> None:
    api.create(candidates=5)
    api.result(api.lease(), map50=0.1)
    assert _import(api, _row(0.9), _row(0.8, map50=0.1)).json() == {"imported": 2, "known": 0}
    assert api.candidate(api.lease()["number"])["parents"] == [-1]
    first = api.candidate(-1)
    assert (first["origin"], first["state"], first["metrics"]) == ("imported", "done", METRICS)
    assert first["fitness"] == pytest.approx(0.1 * 0.9 + 0.9 * 0.6)
    counts = api.counts()
    assert (counts["imported"], counts["done"], counts["unbred"], counts["planned"]) == (2, 1, 3, 5)
    assert "2 earlier results imported as parents" in api.http.get("/c/toy").text
    assert api.http.get("/api/v1/campaigns/toy/best").json()[0]["number"] == 0  # nobody trained the others here


def test_what_is_there_already_changes_nothing(api: Any) -> None:
    api.create()
    start = api.lease()["hyp"]
    assert _import(api, _row(0.9), _row(0.9, map50=0.2), _row(start["x"], start["y"])).json() == {"imported": 1, "known": 2}
    assert _import(api, _row(0.9), _row(0.7)).json() == {"imported": 1, "known": 1}
    assert [api.candidate(number)["hyp"]["x"] for number in (-1, -2)] == [0.9, 0.7]
    assert api.candidate(-1)["metrics"]["map50"] == 0.9


def test_rows_that_cannot_be_parents_are_refused_and_none_is_taken(api: Any) -> None:
    api.create()
    for row, said in (
        ({"hyp": {"x": 0.5}, "metrics": METRICS}, "rows[1].hyp: its genes are not those of the space: ['y']"),
        ({"hyp": {"x": 0.5, "y": "a"}, "metrics": METRICS}, "rows[1].hyp.y: is 'a'; write a finite number"),
        ({"hyp": {"x": 0.5, "y": 0.5}, "metrics": {"map50": 0.1}}, "metric 'map50_95' is missing"),
    ):
        answer = _import(api, _row(0.9), row)
        assert (answer.status_code, said in answer.text) == (422, True), answer.text
    assert api.counts()["imported"] == 0
    api.http.post("/api/v1/campaigns/toy/cancel")
    assert _import(api, _row(0.9)).status_code == 409


def test_twenty_thousand_rows_in_a_bounded_number_of_statements(api: Any, output: Output, tmp_path: Path, capsys: Any) -> None:
    api.create()
    api.create("other")
    header = "metrics/precision,metrics/recall,metrics/mAP_0.5,metrics/mAP_0.5:0.95,x,y"
    lines = [f"0.5,0.5,{k % 100 / 100},{'nan' if k == 7 else k / 20_000},{k / 20_000},0.5" for k in range(20_000)]
    file = tmp_path / "evolve.csv"
    file.write_text("\n".join([header, *lines]))
    statements: list[str] = []
    event.listen(api.database._ordinary, "before_cursor_execute", lambda *told: statements.append(told[2]))
    import_file(output, "toy", file)
    assert json.loads(capsys.readouterr().out) == {"imported": 19_999, "known": 0, "unfinished": 1}
    assert len(statements) < 20 * 12
    assert not any(statement.startswith("insert into candidate") for statement in statements)
    (row,) = api.sql("select min(number) as lowest, count(*) as n, count(distinct hyp_hash) as hyps from candidate")
    assert tuple(row) == (-19_999, 19_999, 19_999)
    assert api.counts()["imported"] == 19_999


def test_our_own_export_is_taken_in_each_form(api: Any, output: Output, tmp_path: Path, capsys: Any) -> None:
    api.create("source", candidates=4)
    for _ in range(4):
        (lease,) = api.ask(campaigns=["source"])
        api.result(lease, map50=lease["hyp"]["x"])
    for index, name in enumerate(("evolve.csv", "evolve.txt", "tune_results.ndjson")):
        api.create(f"taker-{index}")
        file = tmp_path / name
        file.write_bytes(api.http.get(f"/api/v1/campaigns/source/{name}").content)
        import_file(output, f"taker-{index}", file)
        assert json.loads(capsys.readouterr().out) == {"imported": 4, "known": 0, "unfinished": 0}
        best = api.http.get("/api/v1/campaigns/source/best").json()[0]
        taken = [api.candidate(-1 - n, f"taker-{index}") for n in range(4)]
        assert max(row["fitness"] for row in taken) == pytest.approx(best["fitness"], abs=1e-3)


def test_files_that_cannot_be_imported(api: Any, output: Output, tmp_path: Path) -> None:
    api.create()
    with pytest.raises(CommandFailed, match=r"cannot be read.*; give an evolve.csv"):
        import_file(output, "toy", tmp_path / "evolve.csv")
    (tmp_path / "evolve.csv").write_text("a,b\n1,2\n")
    with pytest.raises(CommandFailed, match=r"evolve\.csv:1: no column 'metrics/precision'"):
        import_file(output, "toy", tmp_path / "evolve.csv")
    assert cli.main(["import", "--help"]) == 0
