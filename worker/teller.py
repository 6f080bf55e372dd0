"""How a lease ended, told: a result, a failure or a release goes into the spool, one line into the log."""

from __future__ import annotations

import logging
from typing import Any, Literal

from hypevolve import messages
from worker.errors import CannotWork
from worker.sender import Sender
from worker.spool import Parcel, Spool


class Teller:
    """``title`` and ``log`` are those of the slot that held the lease."""

    def __init__(self, spool: Spool, sender: Sender, title: str, log: logging.Logger) -> None:
        self._spool = spool
        self._sender = sender
        self._title = title
        self._log = log

    def conclude(self, lease: messages.Lease, end: dict[str, Any], epochs: list[dict[str, Any]]) -> None:
        """``end`` is the last message of the training, ``epochs`` those that nobody has been told yet.

        Raises:
            CannotWork: this node lacks what the training needs; the lease has been handed back.
        """
        if end["say"] == "done":
            self._succeed(lease, end, epochs)
        elif end["say"] == "failed":
            self.fail(lease, end["kind"], end["detail"], epochs)
        elif end["say"] == "cancelled":
            self._spool.drop(lease.token)
            self._log.info("%s: %s #%d cancelled by the coordinator", self._title, lease.campaign, lease.number)
        elif end["say"] == "not_installed":
            self.release(lease, end["reason"])
            raise CannotWork(f"{self._title}: {lease.campaign} #{lease.number} handed back: {end['detail']}")
        else:
            reason = "sigterm" if end["say"] == "stopped" else "interrupted"
            self.release(lease, reason)
            self._log.info("%s: %s #%d handed back (%s)", self._title, lease.campaign, lease.number, reason)

    def release(self, lease: messages.Lease, reason: str) -> None:
        self._tell(lease, "release", {"reason": reason})

    def fail(
        self, lease: messages.Lease, kind: messages.FailureKind, detail: str, epochs: list[dict[str, Any]] | None = None
    ) -> None:
        failure = messages.Failure(kind=kind, detail=detail[-8000:])
        self._tell(lease, "failure", failure.model_dump(mode="json"), epochs)
        lines = detail.strip().splitlines() or ["no detail"]
        line = lines[-1] if kind == "crash" else lines[0]
        self._log.warning("%s: %s #%d failed (%s): %s", self._title, lease.campaign, lease.number, kind, line)

    def _succeed(self, lease: messages.Lease, end: dict[str, Any], epochs: list[dict[str, Any]]) -> None:
        result = messages.Result(
            metrics=end["metrics"],
            fitness=end["fitness"],
            hyp_hash=end["hyp_hash"],
            data_hash=end["data_hash"],
            weights_hash=end["weights_hash"],
            rung=lease.rung,
            seconds=end["seconds"],
            epochs=end["epochs"],
        )
        self._tell(lease, "result", result.model_dump(mode="json"), epochs)
        shown = "".join(f" {name} {end['metrics'][name]:.3g}" for name in ("map50",) if name in end["metrics"])
        outcome = f"done{shown} fitness {result.fitness:.4g} in {result.seconds:.3g} s"
        self._log.info("%s: %s #%d %s", self._title, lease.campaign, lease.number, outcome)

    def _tell(
        self,
        lease: messages.Lease,
        kind: Literal["result", "failure", "release"],
        body: dict[str, Any],
        epochs: list[dict[str, Any]] | None = None,
    ) -> None:
        self._spool.put(Parcel.about(kind, self._spool.url, lease, body, epochs or []))
        self._sender.wake()
