"""Holds a strategy to what a coordinator relies on: ``hypevolve check-strategy NAME`` for your own, a test for all of ours."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from evolution.hyperparameters import lineage_space
from evolution.space import Gene, Space
from evolution.strategy import Candidate, History, Proposal, Row, Strategy, Wait, candidate_rng

SLOW_S = 1.0  # processor time of a proposal from 300 rows; every ask waits for it
KINDS = Space(
    (
        Gene("lr0", 0.01, 1, 1e-5, 0.1, "log"),
        Gene("momentum", 0.937, 0.3, 0.6, 0.98, "log1m"),
        Gene("degrees", 0.0, 1, 0.0, 45.0),
        Gene("anchors", 3.0, 2, 2.0, 10.0, integer=True),
        Gene("optimizer", 2.0, 1, 0.0, 2.0, choices=("SGD", "Adam", "AdamW")),
        Gene("rect", 0.0, 1, 0.0, 1.0, choices=(False, True)),
        Gene("fixed", 0.3, 0, 0.0, 1.0),
    )
)


def check(strategy: Strategy) -> Iterator[tuple[str, str]]:
    """Each promise with what is wrong, nothing where it is kept."""
    for title, space in (("the genes of yolov5", lineage_space()), ("numbers, whole numbers and choices", KINDS)):
        for case, (rows, failed, pending) in _cases(space).items():
            number = 1000 if rows else 1
            history = History.select(number, strategy.needs, rows, failed, pending)
            yield f"{title}, {case}", _fault(strategy, space, history)
    space = lineage_space()
    rows, failed, pending = _rows(space, 300), _others(space, 5, 5000), _others(space, 64, 6000)
    history = History.select(7000, strategy.needs, rows, failed, pending)
    strategy.propose(space, history, candidate_rng(0, 7000))
    began = time.process_time()
    strategy.propose(space, history, candidate_rng(1, 7000))
    took = time.process_time() - began
    slow = "" if took < SLOW_S else f"{took:.1f} s of processor time; every ask waits for that"
    yield "300 rows and 64 in training, in under a second", slow


def _fault(strategy: Strategy, space: Space, history: History) -> str:
    try:
        first, second = (strategy.propose(space, history, candidate_rng(7, history.number)) for _ in range(2))
        parts = {part: getattr(history, part)[::-1] for part in ("fittest", "newest", "failed", "pending")}
        turned = strategy.propose(space, History(history.number, **parts), candidate_rng(7, history.number))
        incumbent = strategy.incumbent(space, history)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    if isinstance(first, Wait):
        if not history.pending:
            return f"waits ({first.reason}) though nothing is in training that could end the wait"
        return "" if first == second else "two answers to the same question"
    if not isinstance(first, Proposal):
        return f"answers {type(first).__name__}, neither Proposal nor Wait"
    if first != second:
        return "two answers to the same question: a proposal may depend on its arguments alone, chance included (rng)"
    if first != turned:
        return "another answer where the rows are in another order: sort them by number first"
    if not space.contains(first.hyp):
        return f"a hyp set outside the space: {_outside(space, first.hyp)}"
    if not set(first.parents) <= {row.number for row in history.rows}:
        return f"parents {first.parents} that it was not shown"
    if incumbent is not None and set(incumbent) != set(space.names):
        return "an incumbent with other genes than the space"
    return ""


def _outside(space: Space, hyp: Mapping[str, Any]) -> str:
    wrong = [name for name in space.names if name not in hyp or not Space((space[name],)).contains({name: hyp[name]})]
    return ", ".join(f"{name} = {hyp.get(name)}" for name in wrong) or f"genes {sorted(set(hyp) - set(space.names))}"


def _cases(space: Space) -> dict[str, tuple[list[Row], list[Candidate], list[Candidate]]]:
    rows = _rows(space, 40)
    ties = [Row(row.number, row.hyp, 0.5) for row in rows]
    same = [Row(row.number, space.start, row.fitness) for row in rows]
    wide = [Row(row.number, {name: value * 2 + 1 for name, value in row.hyp.items()}, row.fitness) for row in rows]
    whole = {gene.name for gene in space if gene.choices}
    wide = [Row(row.number, {n: rows[0].hyp[n] if n in whole else v for n, v in row.hyp.items()}, row.fitness) for row in wide]
    return {
        "no row yet": ([], [], []),
        "one row": (rows[:1], [], []),
        "40 rows": (rows, [], []),
        "rows that all tie": (ties, [], []),
        "rows that are all alike": (same, [], []),
        "rows with a fitness of 0 and below": ([Row(r.number, r.hyp, -r.fitness * (r.number % 2)) for r in rows], [], []),
        "rows from outside the bounds": (wide, [], []),
        "every training failed": ([], _others(space, 20, 0), []),
        "failed ones and 64 in training": (rows, _others(space, 6, 100), _others(space, 64, 200)),
    }


def _hyp(space: Space, rng: np.random.Generator) -> dict[str, float]:
    hyp = {}
    for gene in space:
        value = float(rng.uniform(gene.lower, gene.upper))
        hyp[gene.name] = gene.clip(float(round(value)) if gene.integer or gene.choices else value)
    return hyp


def _rows(space: Space, n: int) -> list[Row]:
    rng = np.random.default_rng(n)
    return [Row(number, _hyp(space, rng), float(rng.random())) for number in range(n)]


def _others(space: Space, n: int, first: int) -> list[Candidate]:
    rng = np.random.default_rng(first + 1)
    return [Candidate(first + k, _hyp(space, rng)) for k in range(n)]
