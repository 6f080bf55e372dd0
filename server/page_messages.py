"""What each page shows, in numbers: the template and the page's ``.json`` twin are given the same message."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from hypevolve import messages
from hypevolve.messages import Answer
from server.event_words import EventLine
from server.gene_views import GeneLine


class Change(Answer):
    """A fitness against the default's."""

    delta: float | None
    percent: float | None


class CampaignLine(Answer):
    name: str
    state: messages.CampaignState
    strategy: str
    counts: messages.Counts
    best_number: int | None
    best_fitness: float | None
    change: Change
    jumps: list[tuple[int, float]]
    workers: int
    eta_s: float | None
    created_at: datetime


class CampaignsPage(Answer):
    now: datetime
    items: list[CampaignLine]
    next: str | None  # the cursor of the following page


class InsightPage(Answer):
    """``formula`` are the weights of fitness; ``judged_by`` as they were asked for, null where they are the campaign's."""

    state: str
    formula: dict[str, float]
    judged_by: str | None
    insight: messages.Insight


class FailureLine(Answer):
    """Why a candidate failed: the kind, and what its last attempt said."""

    number: int
    kind: str
    detail: str


class InTraining(Answer):
    """A candidate that a worker holds now."""

    number: int
    worker: str
    epoch: int
    epochs: int
    progress: float
    beat_age_s: float
    silent: bool


class CampaignPage(Answer):
    now: datetime
    campaign: messages.Campaign
    formula: dict[str, float]
    change: Change
    since_best: int | None
    workers: int
    trained_s: float
    per_hour: float | None
    genes: list[GeneLine]
    history: list[tuple[int, float]]
    failed: list[int]
    newest_failure: FailureLine | None
    confirmations: list[messages.Confirmation]
    in_training: list[InTraining]
    worth_knowing: list[str]
    events: list[EventLine]
    candidates: messages.CandidatePage


class AttemptLine(Answer):
    attempt: int
    worker: str
    outcome: str
    detail: str
    started_at: datetime
    seconds: float


class CandidatePage(Answer):
    now: datetime
    campaign: str
    candidate: messages.Candidate
    epochs: int
    first_epoch: Literal[0, 1]  # how the trainer counts
    failure: FailureLine | None
    best: bool
    change: Change
    genes: list[GeneLine]
    curve: list[messages.EpochRow]
    default_curve: list[messages.EpochRow]
    best_curve: list[messages.EpochRow]
    best_number: int | None
    attempts: list[AttemptLine]
    children: list[int]


class WorkerLine(Answer):
    worker: messages.Worker
    status: Literal["training", "idle", "silent", "gone", "quarantined", "leaving"]
    reason: str


class WorkersPage(Answer):
    """Workers that are there, or hold a lease, and those that are gone: they hold nothing and have not been heard of."""

    now: datetime
    waiting_work: int
    items: list[WorkerLine]
    gone: list[WorkerLine]
