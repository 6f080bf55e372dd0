"""What the command line says: numbers, progress, gene changes, summaries. Pure functions."""

from datetime import UTC, datetime
from typing import Any

import pytest

from hypevolve import messages
from hypevolve.console import CommandFailed, cell, change, duration
from hypevolve.online import best_row, campaign_words
from hypevolve.progress import Progress, bar, live_lines, progress_line, training_words
from hypevolve.summary import failure_kinds, gene_changes, resumed, summary_document, summary_text

NOW = datetime(2026, 1, 2, tzinfo=UTC)
GENES = [
    {"name": "lr0", "start": 0.01, "min": 1e-5, "max": 0.1, "scale": "log"},
    {"name": "momentum", "start": 0.9, "min": 0.6, "max": 0.99, "scale": "log1m"},
    {"name": "degrees", "start": 0.0, "min": 0.0, "max": 45.0, "scale": "linear"},
    {"name": "fl_gamma", "start": 0.0, "min": 0.0, "max": 0.0, "scale": "linear"},
]
START = {gene["name"]: gene["start"] for gene in GENES}


def _candidate(number: int, fitness: float | None = 0.5, **changes: Any) -> messages.Candidate:
    values = {
        "number": number, "state": "done", "origin": "bred", "hyp": START, "parents": [], "fitness": fitness,
        "metrics": {"map50": 0.7}, "attempts": 1, "failures": 0, "failure": None, "seconds": 2.0, "epochs_done": 3,
        "worker": "worker-1", "created_at": NOW, "finished_at": NOW,
    }  # fmt: skip
    return messages.Candidate.model_validate(values | changes)


def _campaign(**changes: Any) -> messages.Campaign:
    counts = {
        "planned": 6, "done": 4, "failed": 0, "cancelled": 0, "running": 1, "leased": 0, "queued": 0, "unbred": 1,
        "imported": 0, "lost": 0,
    }  # fmt: skip
    values = {
        "name": "bccd", "state": "running", "strategy": "yolov5-2021", "weights": {"map50": 1.0},
        "counts": counts | changes.pop("counts", {}), "best": _candidate(3, 0.3124), "default": _candidate(0, 0.2811),
        "eta_s": 80.0, "created_at": NOW, "finished_at": None, "document": {"genes": GENES},
    }  # fmt: skip
    return messages.Campaign.model_validate(values | changes)


def _worker(name: str, **lease: Any) -> messages.Worker:
    held = {"campaign": "bccd", "number": 5, "epoch": 2, "progress": 0.4, "beat_age_s": 1.0, "expires_in_s": 30.0} | lease
    values = {
        "worker": "00000000-0000-0000-0000-000000000001", "name": name, "host": "", "devices": ["cpu"], "versions": {},
        "registered_at": NOW, "seen_age_s": 1.0, "silent": False, "leases": [held],
    }  # fmt: skip
    return messages.Worker.model_validate(values)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "0 s"), (7.4, "7 s"), (59.6, "1 min"), (125, "2 min 5 s"), (3600, "1 h"), (12000, "3 h 20 min"),
        (360000, "4 d 4 h"), (-1, "0 s"),
    ],
)  # fmt: skip
def test_durations_have_two_units_at_most(seconds: float, words: str) -> None:
    assert duration(seconds) == words


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0.123456, "0.1235"), (1e-5, "1e-05"), (12, "12"), (None, ""), ([1, 2], "1 2"), ("a\tb\nc", "a b c"), (True, "true")],
)
def test_cells_have_4_significant_digits_and_neither_tabs_nor_line_ends(value: Any, shown: str) -> None:
    assert cell(value) == shown


@pytest.mark.parametrize(
    ("now", "before", "words"),
    [
        (0.3124, 0.2811, "+0.0313 (+11.1 %)"), (0.2, 0.25, "-0.05 (-20.0 %)"), (0.2, 0.0, "+0.2"), (0.2, 5e-324, "+0.2"),
        (None, 0.1, ""), (0.1, None, ""),
    ],
)  # fmt: skip
def test_a_change_says_the_difference_and_where_it_can_the_percentage(
    now: float | None, before: float | None, words: str
) -> None:
    assert change(now, before) == words


def test_genes_are_ranked_by_the_share_of_their_range_on_their_own_scale() -> None:
    hyp = START | {"lr0": 0.001, "momentum": 0.91, "degrees": 9.0, "fl_gamma": 0.0}
    changes = gene_changes({"genes": GENES}, hyp)
    assert [gene.name for gene in changes] == ["lr0", "degrees", "momentum"]
    assert changes[0].share == pytest.approx(-0.25)  # one decade of four
    assert changes[1].share == pytest.approx(0.2)


def test_a_gene_outside_the_document_or_with_a_range_of_nothing_is_no_fault() -> None:
    assert gene_changes({"genes": GENES}, {"fl_gamma": 1.0}) == [("fl_gamma", 0.0, 1.0, 0.0)]
    assert gene_changes({}, START) == []


def test_the_progress_line_has_everything_that_counts() -> None:
    line = "bccd  4/6 done  1 in training  best 0.3124 #3, +0.0313 (+11.1 %)  failed 0  lost 0  eta 1 min 20 s"
    assert progress_line(_campaign()) == line
    assert progress_line(_campaign(best=None, default=None, eta_s=None, counts={"done": 0})) == (
        "bccd  0/6 done  1 in training  failed 0  lost 0"
    )


def test_the_live_view_has_three_lines_whatever_happens() -> None:
    first, second, third = live_lines(_campaign(), [_worker("worker-2"), _worker("worker-1", number=4, progress=0.05)])
    assert "4/6 done  66 %  eta 1 min 20 s" in first
    assert second.startswith("best 0.3124 #3, +0.0313 (+11.1 %)    1 in training")
    assert third == "worker-1 #4 5 %  worker-2 #5 40 %"
    assert len(live_lines(_campaign(best=None, counts={"planned": 0}), [])) == 3


def test_trainings_of_others_and_expired_leases_are_not_shown() -> None:
    assert training_words("bccd", [_worker("a", campaign="other"), _worker("b", expires_in_s=-1.0)]) == []


@pytest.mark.parametrize(("done", "planned", "filled"), [(0, 6, 0), (3, 6, 5), (6, 6, 10), (7, 6, 10), (0, 0, 0)])
def test_the_bar_never_overflows(done: int, planned: int, filled: int) -> None:
    assert bar(done, planned, 10) == "█" * filled + "·" * (10 - filled)


def test_without_a_terminal_only_news_is_told_and_not_too_often(capsys: pytest.CaptureFixture[str]) -> None:
    now = [0.0]
    with Progress(clock=lambda: now[0]) as progress:
        for at, done, eta in ((0.0, 1, 9.0), (1.0, 2, 8.0), (4.0, 2, 7.0), (8.0, 2, 6.0), (9.0, 3, 5.0)):
            now[0] = at
            progress.show(_campaign(counts={"done": done}, eta_s=eta))
    captured = capsys.readouterr()
    assert captured.out == ""
    assert [line.split()[1] for line in captured.err.splitlines()] == ["1/6", "2/6", "3/6"]
    assert "\x1b" not in captured.err


def test_resuming_says_how_far_it_was() -> None:
    assert resumed(_campaign()) == "resumed bccd: 4 of 6 done, 1 was in training"
    assert resumed(_campaign(counts={"running": 1, "leased": 1, "failed": 2})) == (
        "resumed bccd: 4 of 6 done, 2 failed, 2 were in training"
    )
    assert resumed(_campaign(counts={"running": 0})) == "resumed bccd: 4 of 6 done"


def test_the_summary_is_one_screen() -> None:
    hyp = START | {"lr0": 0.001, "degrees": 9.0}
    done = _campaign(state="finished", counts={"done": 6, "running": 0, "unbred": 0}, best=_candidate(3, 0.3124, hyp=hyp))
    document = summary_document(done, seconds=52.3, files=["hyp_evolved.yaml", "summary.json"], folder="runs/bccd")
    assert document["delta"] == pytest.approx(0.0313)
    assert document["percent"] == pytest.approx(11.13, abs=0.01)
    assert summary_text(document, "python train.py").splitlines() == [
        "bccd          6 of 6 done, 0 failed, 0 lost, this run took 52 s",
        "best          #3 with fitness 0.3124, +0.0313 (+11.1 %) against the default hyp set's 0.2811",
        "changed most  lr0 0.01 -> 0.001, degrees 0 -> 9",
        "files         runs/bccd: hyp_evolved.yaml, summary.json",
        "next          python train.py",
    ]


def test_the_summary_of_a_campaign_that_found_nothing_better_says_so() -> None:
    document = summary_document(_campaign(best=_candidate(0, 0.2811)), seconds=1, files=[], folder="f")
    assert "the default hyp set, which no candidate has beaten" in summary_text(document, "")
    document = summary_document(_campaign(default=None), seconds=1, files=[], folder="f")
    assert document["delta"] is None
    assert "no result to compare with" in summary_text(document, "")
    document = summary_document(_campaign(best=None, default=None), seconds=1, files=[], folder="f")
    assert summary_text(document, "python train.py").splitlines() == ["bccd  4 of 6 done, 0 failed, 0 lost, this run took 1 s"]


def test_failures_are_counted_by_kind() -> None:
    failed = [_candidate(n, None, state="failed", failure=kind) for n, kind in enumerate(["nan", "oom", "nan", None])]
    assert failure_kinds(failed) == "2 nan, 1 oom, 1 unknown"


def test_show_lists_what_the_best_changed() -> None:
    words = dict(campaign_words(_campaign(best=_candidate(3, 0.3124, hyp=START | {"lr0": 0.02})), "http://host:8080/"))
    assert words["candidates"] == "6 planned: 4 done, 1 in training, 1 not bred yet; 0 lost on the way"
    assert words["best"] == "0.3124 #3, +0.0313 (+11.1 %)"
    assert words["lr0"] == "0.01 -> 0.02"
    assert words["page"] == "http://host:8080/c/bccd"


def test_a_ranking_marks_the_default() -> None:
    assert best_row(1, _candidate(0), 0.5)["against_default"] == "default"
    assert best_row(1, _candidate(4, 0.6), 0.5)["against_default"] == "+0.1 (+20.0 %)"


def test_an_error_of_several_faults_keeps_its_lines() -> None:
    error = CommandFailed("a: one\nb: two", 5)
    assert str(error) == "a: one\nb: two"
    assert error.exit_code == 5
