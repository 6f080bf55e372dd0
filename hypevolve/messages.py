"""Every message that crosses the network, and nothing else.

Requests refuse keys they do not know; answers ignore them, so that a worker one version behind goes on working. Numbers are
finite on both sides: NaN and infinity are a training's failure, not its result. The wire carries durations, never instants that
a machine would compare with its own clock. Routes and their rules are described in docs/PROTOCOL.md.
"""

# ruff: noqa: RUF012 - pydantic copies defaults

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import Field

from hypevolve.access_messages import CreateToken as CreateToken
from hypevolve.access_messages import Event as Event
from hypevolve.access_messages import EventPage as EventPage
from hypevolve.access_messages import NewToken as NewToken
from hypevolve.access_messages import Scope as Scope
from hypevolve.access_messages import Token as Token
from hypevolve.access_messages import TokenList as TokenList
from hypevolve.fleet_messages import OLDEST_PROTOCOL as OLDEST_PROTOCOL
from hypevolve.fleet_messages import PROTOCOL as PROTOCOL
from hypevolve.fleet_messages import Drained as Drained
from hypevolve.fleet_messages import HeldLease as HeldLease
from hypevolve.fleet_messages import Registered as Registered
from hypevolve.fleet_messages import RegisterWorker as RegisterWorker
from hypevolve.fleet_messages import SelfTest as SelfTest
from hypevolve.fleet_messages import Worker as Worker
from hypevolve.fleet_messages import WorkerList as WorkerList
from hypevolve.insight_messages import Chapter as Chapter
from hypevolve.insight_messages import GeneImportance as GeneImportance
from hypevolve.insight_messages import GeneLife as GeneLife
from hypevolve.insight_messages import Insight as Insight
from hypevolve.insight_messages import Outlook as Outlook
from hypevolve.shapes import Answer as Answer
from hypevolve.shapes import HypSet as HypSet
from hypevolve.shapes import Metrics as Metrics
from hypevolve.shapes import Name as Name
from hypevolve.shapes import Request as Request
from hypevolve.shapes import Value as Value
from hypevolve.steering_messages import MOST_IMPORTED as MOST_IMPORTED
from hypevolve.steering_messages import Cancelled as Cancelled
from hypevolve.steering_messages import ChangeCampaign as ChangeCampaign
from hypevolve.steering_messages import ChangeFitness as ChangeFitness
from hypevolve.steering_messages import ChangeSpace as ChangeSpace
from hypevolve.steering_messages import Confirm as Confirm
from hypevolve.steering_messages import Confirmation as Confirmation
from hypevolve.steering_messages import Confirmations as Confirmations
from hypevolve.steering_messages import EarlierResult as EarlierResult
from hypevolve.steering_messages import Enqueue as Enqueue
from hypevolve.steering_messages import Enqueued as Enqueued
from hypevolve.steering_messages import Import as Import
from hypevolve.steering_messages import Imported as Imported
from hypevolve.steering_messages import Retried as Retried

PREFIX = "/api/v1"
COMMAND_HEADER = "Hypevolve-Command"  # of an answer without work
REASON_HEADER = "Hypevolve-Reason"
CHECKPOINT_S = 300.0  # the longest that a training goes without a checkpoint, where the campaign says nothing else

State = Literal["queued", "leased", "running", "done", "failed", "cancelled"]
Origin = Literal["initial", "bred", "imported", "enqueued", "confirm"]
FailureKind = Literal["nan", "oom", "data", "exit_code", "timeout", "crash"]
Command = Literal["continue", "drain", "cancel"]
AskCommand = Literal["drain", "self-test"]


# ---- workers and leases ------------------------------------------------------------------------------------------------------


class Ask(Request):
    """Ask for work. The same ``request_id`` always gets the same leases, so that a lost reply costs nothing.

    ``devices`` are those that train one candidate together; ``n`` is how many candidates are asked for.
    """

    request_id: UUID
    worker: UUID
    devices: Annotated[list[str], Field(max_length=64)] = ["cpu"]
    campaigns: list[Name] | None = None
    n: Annotated[int, Field(ge=1, le=64)] = 1


class Checkpoint(Answer):
    """Where a training stands, in the artifact store: ``epoch`` epochs are done."""

    sha256: str
    bytes: int
    epoch: int


class Lease(Answer):
    """A candidate to train: everything a worker must know, and the token that every later message carries."""

    candidate: int
    campaign: str
    number: int
    rung: int
    token: str
    hyp: HypSet
    hyp_hash: str
    data_hash: str | None
    base: dict[str, Any]
    trainer: dict[str, Any]
    weights: dict[str, float]
    seed: int
    epochs: int
    lease_s: float
    beat_s: float
    checkpoint_s: float = CHECKPOINT_S
    checkpoint: Checkpoint | None = None


class Leases(Answer):
    leases: list[Lease]


class Heartbeat(Request):
    """A sign of life. ``progress`` is the finished share of the training, 0 to 1; ``samples`` are device readings."""

    epoch: Annotated[int, Field(ge=0, le=1_000_000)] = 0
    progress: Annotated[float, Field(ge=0, le=1)] = 0.0
    samples: Annotated[dict[str, float], Field(max_length=32)] = {}


class HeartbeatAnswer(Answer):
    """``current`` is False once another worker holds the candidate; only ``cancel`` stops a training."""

    lease_s: float
    command: Command
    current: bool


class Epoch(Request):
    epoch: Annotated[int, Field(ge=0, le=1_000_000)]
    metrics: Metrics


class Epochs(Request):
    epochs: Annotated[list[Epoch], Field(min_length=1, max_length=100)]


class EpochsAnswer(Answer):
    current: bool


class Result(Request):
    """What a finished training measured, bound by its hashes to what was asked."""

    metrics: Metrics
    fitness: float
    hyp_hash: str
    data_hash: str | None = None
    weights_hash: Annotated[str | None, Field(max_length=128)] = None
    rung: Annotated[int, Field(ge=0)] = 0
    seconds: Annotated[float, Field(ge=0)]
    epochs: Annotated[int, Field(ge=0)]


class ResultAnswer(Answer):
    """``counts`` is False where an earlier attempt's result already stands (``reason`` already_done)."""

    counts: bool
    reason: str | None = None


class Failure(Request):
    """The training itself said no."""

    kind: FailureKind
    detail: Annotated[str, Field(max_length=8000)] = ""


class FailureAnswer(Answer):
    """The candidate's state now: queued where it will be tried again, failed where not."""

    state: State


# ---- campaigns and candidates ------------------------------------------------------------------------------------------------


class Candidate(Answer):
    """One row of the generation table, as people read it."""

    number: int
    state: State
    origin: Origin
    hyp: HypSet
    parents: list[int]
    fitness: float | None
    metrics: dict[str, float] | None
    attempts: int
    failures: int
    failure: str | None
    seconds: float | None
    epochs_done: int
    worker: str | None
    weights_hash: str | None = None  # of the trained weights, where the trainer knows it
    checkpoint_epoch: int | None = None  # epochs done in the checkpoint that the next attempt would go on from
    created_at: datetime
    finished_at: datetime | None


class Audited(Answer):
    """Whether a candidate, bred again from the rows that it was bred from, has the same hyp set; if not, the one it has."""

    number: int
    same: bool
    bred_again: HypSet | None


class AuditPage(Answer):
    """``after`` of the next request is ``next``, absent on the last."""

    items: list[Audited]
    next: int | None


class CandidatePage(Answer):
    """``next`` is the cursor of the following page, absent on the last."""

    items: list[Candidate]
    next: str | None


class EpochRow(Answer):
    epoch: int
    metrics: dict[str, float]


class EpochCurve(Answer):
    """The curve of the attempt whose result counts, or of the newest attempt while there is none."""

    number: int
    epochs: list[EpochRow]


CampaignState = Literal["running", "paused", "draining", "halted", "finished", "cancelled"]


class Counts(Answer):
    """planned = done + failed + cancelled + running + leased + queued + unbred; ``lost`` counts events, not candidates.

    ``imported`` rows and ``confirming`` ones, trainings anew that are not over yet, stand outside the budget.
    """

    planned: int
    done: int
    failed: int
    cancelled: int
    running: int
    leased: int
    queued: int
    unbred: int
    imported: int
    lost: int
    confirming: int = 0


class Budget(Answer):
    """The limits besides the number of candidates, and how far each is used; the first that is reached ends the campaign.

    ``device_hours`` are hours in which attempts held devices, times the devices; ``hours_left`` what is expected to come on top
    until the last candidate is trained or ``gpu_hours`` are used, None before a candidate has ended and after the end;
    ``since_best`` candidates ended after the best.
    """

    gpu_hours: float | None = None
    device_hours: float = 0.0
    hours_left: float | None = None
    deadline: datetime | None = None
    patience: int | None = None
    since_best: int = 0
    reached: Literal["gpu_hours", "deadline", "patience"] | None = None


class Campaign(Answer):
    """One campaign in numbers. It is ``halted`` where the last finished candidates all failed: see ``POST …/retry``."""

    name: str
    state: CampaignState
    budget: Budget = Budget()
    priority: int = 0
    share: float = 1.0
    strategy: str
    weights: dict[str, float]
    counts: Counts
    best: Candidate | None
    default: Candidate | None
    eta_s: float | None
    created_at: datetime
    finished_at: datetime | None
    document: dict[str, Any]


class CampaignList(Answer):
    """``next`` is the cursor of the following page, absent on the last."""

    items: list[Campaign]
    next: str | None = None


# ---- errors -----------------------------------------------------------------------------------------------------------------


class ErrorItem(Answer):
    """One thing wrong in a request: where it is, what it is, what to do."""

    key: str
    message: str
    remedy: str = ""
    line: int | None = None


class Problem(Answer):
    """RFC 9457 problem details; every error of the API has this shape."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    instance: str | None = None
    errors: list[ErrorItem] = []
