"""Messages about workers: who they are, what they can, how they stand, what they hold."""

# ruff: noqa: RUF012 - pydantic copies defaults

from __future__ import annotations

from datetime import datetime
from typing import Annotated
from uuid import UUID

from pydantic import ConfigDict, Field

from hypevolve.shapes import Answer, Request

PROTOCOL = 1
OLDEST_PROTOCOL = 1  # that a coordinator still serves

Label = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$")]


class SelfTest(Request):
    """How a worker judges itself, when it has been asked to."""

    passed: bool
    detail: Annotated[str, Field(max_length=2000)] = ""


class RegisterWorker(Request):
    """A worker introduces itself; ``worker`` is new at every process start. Repeated with the outcome of a self-test.

    Unknown keys are ignored here alone: a worker of a later version must be able to hear that the coordinator is older.
    """

    model_config = ConfigDict(extra="ignore")

    worker: UUID
    name: Annotated[str, Field(min_length=1, max_length=128)]
    host: Annotated[str, Field(max_length=255)] = ""
    devices: Annotated[list[str], Field(max_length=64)] = ["cpu"]
    protocol: int = PROTOCOL
    versions: Annotated[dict[str, str], Field(max_length=32)] = {}
    labels: Annotated[list[Label], Field(max_length=32)] = []
    memory_gb: Annotated[dict[str, Annotated[float, Field(ge=0)]], Field(max_length=64)] = {}
    self_test: SelfTest | None = None


class Registered(Answer):
    """What the coordinator tells a new worker about itself. ``protocol`` is the one to speak: the older of the two."""

    protocol: int
    version: str
    limits: dict[str, float] = {}


class Drained(Answer):
    """How many worker processes were asked to finish what they train and end."""

    processes: int


class HeldLease(Answer):
    campaign: str
    number: int
    epoch: int
    progress: float
    beat_age_s: float
    expires_in_s: float


class Worker(Answer):
    """A worker and what it holds. ``silent`` is True once one of its leases has expired."""

    worker: UUID
    name: str
    host: str
    devices: list[str]
    versions: dict[str, str]
    labels: list[str] = []
    draining: bool = False
    quarantine: str | None = None  # why it gets nothing until it passes its self-test
    registered_at: datetime
    seen_age_s: float
    silent: bool
    leases: list[HeldLease]


class WorkerList(Answer):
    items: list[Worker]
