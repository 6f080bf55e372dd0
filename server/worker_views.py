"""What the page of workers shows: who trains, who waits and why, who fell silent."""

from __future__ import annotations

from sqlalchemy import Connection

from hypevolve import messages
from server import fair, fleet
from server.caller import visible
from server.page_messages import WorkerLine, WorkersPage
from server.views import now

LATE_S = 40.0  # a worker without a lease asks at least every half minute; there is no goodbye
GONE_S = 90.0  # so long without a lease and without a word, it is gone


def workers(connection: Connection) -> WorkersPage:
    """Every worker heard of in the last day: those that train first, those that fell silent last, those gone apart."""
    waiting = sum(work.returned + work.unbred for work in fair.works(connection, visible()["only"]))
    lines = [_worker_line(worker, waiting) for worker in fleet.workers(connection)]
    order = {"training": 0, "leaving": 1, "idle": 2, "quarantined": 3, "silent": 4}
    here = sorted((line for line in lines if line.status != "gone"), key=lambda line: (order[line.status], line.worker.name))
    gone = sorted((line for line in lines if line.status == "gone"), key=lambda line: line.worker.seen_age_s)
    return WorkersPage(now=now(connection), waiting_work=waiting, items=here, gone=gone)


def _worker_line(worker: messages.Worker, waiting: int) -> WorkerLine:
    if worker.silent:
        return WorkerLine(
            worker=worker, status="silent", reason="its lease has expired; the next worker that asks gets the candidate"
        )
    if worker.draining and worker.seen_age_s <= GONE_S:
        return WorkerLine(worker=worker, status="leaving", reason="finishes what it trains, then ends")
    if worker.quarantine is not None and worker.seen_age_s <= GONE_S and not worker.leases:
        return WorkerLine(worker=worker, status="quarantined", reason=worker.quarantine)
    if worker.leases:
        return WorkerLine(worker=worker, status="training", reason="")
    if worker.seen_age_s > GONE_S:
        return WorkerLine(worker=worker, status="gone", reason="holds nothing and no longer asks for work")
    if worker.seen_age_s > LATE_S:
        return WorkerLine(worker=worker, status="idle", reason="holds nothing and no longer asks for work; it may have ended")
    reason = "is about to ask for the next candidate" if waiting else "no campaign has a candidate left to train"
    return WorkerLine(worker=worker, status="idle", reason=reason)
