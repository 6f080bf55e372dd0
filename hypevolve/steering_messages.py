"""The messages by which people change and steer a campaign; ``hypevolve.messages`` has them too."""

from __future__ import annotations

from typing import Annotated, Any
from uuid import UUID

from pydantic import AwareDatetime, Field

from hypevolve.shapes import Answer, HypSet, Metrics, Request

MOST_IMPORTED = 1000  # rows in one request; a file of many is sent in as many requests


class ChangeCampaign(Request):
    """Set the budget of a campaign anew, or its place among others; what is left out stays, null takes a limit away.

    The number of candidates cannot fall below those already bred.
    """

    candidates: Annotated[int, Field(ge=1, le=10_000_000)] = 1
    gpu_hours: Annotated[float | None, Field(gt=0, le=1e9)] = None
    deadline: AwareDatetime | None = None
    patience: Annotated[int | None, Field(ge=1, le=1_000_000)] = None
    priority: Annotated[int, Field(ge=-1000, le=1000)] = 0
    share: Annotated[float, Field(gt=0, le=1e6)] = 1.0


class Cancelled(Answer):
    """How many candidates were cancelled."""

    cancelled: int


class Enqueue(Request):
    """Hyp sets to train next, within the budget; genes left out keep the campaign's start value."""

    request_id: UUID  # the same one enqueues once, however often a lost reply makes it be sent
    hyps: Annotated[list[HypSet], Field(min_length=1, max_length=1000)]


class Enqueued(Answer):
    numbers: list[int]


class EarlierResult(Request):
    """A complete hyp set, and what a training of it measured elsewhere."""

    hyp: HypSet
    metrics: Metrics


class Import(Request):
    """Results of earlier evolutions, as parents outside the budget."""

    rows: Annotated[list[EarlierResult], Field(min_length=1, max_length=MOST_IMPORTED)]


class Imported(Answer):
    """How many rows are new; ``known`` ones have a hyp set that the campaign had already and changed nothing."""

    imported: int
    known: int


class Confirm(Request):
    """Each of the ``best`` hyp sets shall be trained ``repeats`` times more, with fresh seeds, outside the budget."""

    best: Annotated[int, Field(ge=1, le=50)] = 5
    repeats: Annotated[int, Field(ge=1, le=20)] = 3


class Confirmation(Answer):
    """A candidate's own fitness, and what its hyp set reached with fresh seeds: ``results`` with mean and standard deviation.

    ``open`` trainings are still to come, ``failed`` ones ended without a result.
    """

    number: int
    fitness: float | None
    results: list[float]
    mean: float | None
    sd: float | None
    open: int
    failed: int


class Confirmations(Answer):
    """``queued`` are those that this request added."""

    items: list[Confirmation]
    queued: int = 0


class ChangeSpace(Request):
    """Genes with new bounds, gain or (for what is fixed) start, as in a campaign file: ``{lr0: {min: 1e-4, max: 1e-2}}``."""

    space: dict[str, Any]


class ChangeFitness(Request):
    """Weights of fitness by metric, ``{map50: 0.1, map50_95: 0.9}``; a metric left out has none."""

    weights: dict[str, Any]


class Retried(Answer):
    """How many failed candidates are offered again."""

    retried: int
