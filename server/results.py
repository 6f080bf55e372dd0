"""What a worker says of a training: epochs, a result, or a failure. Each counts once, however often it is sent.

The first complete result for a candidate and rung counts, whichever attempt sends it, also after its lease expired: hours of
training are not thrown away because a node was slow to say so. Failures are stricter, only the current holder may report one.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from sqlalchemy import Connection, Row, text
from sqlalchemy.dialects.postgresql import insert

from evolution.fitness import fitness
from hypevolve import messages
from server import checkpoints, events, judging, lost_future, quarantine, tally
from server.database import later
from server.errors import Conflict, Invalid, NotFound, Unavailable
from server.leases import MAX_ATTEMPTS, OVER, end_attempt, end_lease, held
from server.tables import epoch

FITNESS_TOLERANCE = 1e-6

_LATE = "already_done"


class Verdict(NamedTuple):
    """What became of a posted result: ``stored`` now or before; ``refusal`` says why not, though it is kept for audit."""

    stored: bool
    answer: messages.ResultAnswer
    refusal: str | None = None


def store_epochs(connection: Connection, token: str, epochs: messages.Epochs) -> messages.EpochsAnswer:
    """Append epoch metrics, keyed (candidate, token, epoch); every known token is stored, an old one is told so.

    Raises:
        NotFound: the token was never issued.
    """
    row = held(connection, token, lock=True)
    current = row.current_token == token and row.state not in OVER
    if current and row.state == "leased":
        connection.execute(text("update candidate set state = 'running' where id = :id"), {"id": row.id})
        events.record(connection, row.campaign_id, "running", row.number)
    connection.execute(
        insert(epoch).on_conflict_do_nothing(),
        [{"candidate_id": row.id, "token": token, "epoch": e.epoch, "metrics": e.metrics} for e in epochs.epochs],
    )
    return messages.EpochsAnswer(current=current)


def store_result(connection: Connection, candidate: int, token: str, body: messages.Result) -> Verdict:
    """Store a result once. The same token and body get the first answer for ever; a refused one is kept for audit.

    Raises:
        NotFound: the token was never issued for this candidate.
        Invalid: the token has sent another body before, or metrics that the campaign's fitness needs are missing.
    """
    try:
        return _store(connection, candidate, token, body)
    except NotFound:
        if not lost_future.speaks(connection, token):
            raise
    if lost_future.adopt(connection, candidate, token, body):
        return _store(connection, candidate, token, body)
    return Verdict(True, messages.ResultAnswer(counts=False, reason="refused"), lost_future.REFUSAL)


def _store(connection: Connection, candidate: int, token: str, body: messages.Result) -> Verdict:
    first = body.data_hash is not None and held(connection, token).data_hash is None
    if first:  # the campaign learns its data from this result; lock order is campaign, then candidate
        campaign = held(connection, token).campaign_id
        connection.execute(text("select 1 from campaign where id = :id for no key update"), {"id": campaign})
    row = held(connection, token, lock=True)
    if row.id != candidate:
        raise NotFound("unknown-token", "that token was issued for another candidate")
    # Without what is absent: a field that a later version adds changes no digest.
    if not row.undisturbed:
        raise Unavailable("reweighing", f"{row.campaign} is being judged by other weights; repeat the request")
    digest = hashlib.sha256(json.dumps(body.model_dump(mode="json", exclude_none=True), sort_keys=True).encode()).hexdigest()
    before = connection.execute(text("select * from result where token = :token"), {"token": token}).first()
    if before is not None:
        return _repeated(before, digest)

    refusal = _refusal(connection, row, body)
    counts = refusal is None and row.state != "done"
    later(
        connection,
        """
        insert into result (token, candidate_id, rung, counts, verdict, metrics, fitness, seconds, epochs, body_sha256,
                            weights_hash) values
        (%(token)s, %(candidate)s, %(rung)s, %(counts)s, %(verdict)s, %(metrics)s, %(fitness)s, %(seconds)s, %(epochs)s,
         %(sha256)s, %(weights_hash)s)
        """,
        token=token,
        candidate=candidate,
        rung=body.rung,
        counts=counts,
        verdict=refusal if refusal or counts else _LATE,
        metrics=json.dumps(body.metrics),
        fitness=body.fitness,
        seconds=body.seconds,
        epochs=body.epochs,
        sha256=digest,
        weights_hash=body.weights_hash,
    )
    if refusal is not None:
        end_attempt(connection, token, "refused", refusal)
        if row.current_token == token and row.state not in OVER:
            end_lease(connection, row.id)
            later(connection, "update candidate set state = 'queued' where id = %(id)s", id=row.id)
        if body.data_hash is not None and row.data_hash is not None and body.data_hash != row.data_hash:
            quarantine.close(connection, row.worker_id, f"{row.campaign} #{row.number}: {refusal}", row.campaign_id)
        elif row.state != "cancelled":
            quarantine.failed(connection, row.worker_id, row.id, f"{row.campaign} #{row.number}: {refusal}", row.campaign_id)
        events.record(connection, row.campaign_id, "refused", row.number, reason=refusal)
        return Verdict(True, messages.ResultAnswer(counts=False, reason="refused"), refusal)
    if not counts:
        end_attempt(connection, token, "late")
        return Verdict(True, messages.ResultAnswer(counts=False, reason=_LATE))

    later(connection, _DONE, id=candidate, metrics=json.dumps(body.metrics))
    end_lease(connection, candidate)
    quarantine.succeeded(connection, row.worker_id)
    later(
        connection,
        "update attempt set outcome = 'done', ended_at = clock_timestamp() where token = %(token)s",
        token=token,
    )
    if first:
        later(
            connection,
            "update campaign set data_hash = %(hash)s where id = %(id)s and data_hash is null",
            hash=body.data_hash,
            id=row.campaign_id,
        )
    events.record(connection, row.campaign_id, "done", row.number, fitness=body.fitness)
    tally.add(connection, row.campaign_id, seconds=body.seconds)
    return Verdict(True, messages.ResultAnswer(counts=True))


# By the weights of this moment, which the shared lock keeps: those that ``held`` saw may be older by an instant.
_DONE = f"""
    update candidate k set state = 'done', failure = null, finished_at = clock_timestamp(),
           fitness = {judging.judged("(c.document -> 'fitness')", "cast(%(metrics)s as jsonb)")}
    from campaign c where k.id = %(id)s and c.id = k.campaign_id
"""


def _repeated(before: Row[Any], digest: str) -> Verdict:
    if before.body_sha256 != digest:
        raise Invalid("other-body", "this token has already sent another result; a result never changes")
    if before.counts:
        return Verdict(False, messages.ResultAnswer(counts=True))
    if before.verdict == _LATE:
        return Verdict(False, messages.ResultAnswer(counts=False, reason=_LATE))
    return Verdict(False, messages.ResultAnswer(counts=False, reason="refused"), before.verdict)


def _refusal(connection: Connection, row: Row[Any], body: messages.Result) -> str | None:
    """Why a result cannot belong to what was asked, or None."""
    if row.state == "cancelled":
        return f"candidate {row.number} was cancelled"
    if body.hyp_hash != row.hyp_hash:
        return (
            f"hyp_hash {body.hyp_hash[:12]} is not that of the leased hyp set {row.hyp_hash[:12]}: another hyp set was trained"
        )
    if body.rung != row.rung:
        return f"rung {body.rung} was not asked for; the lease said {row.rung}"
    if body.data_hash is not None and row.data_hash is not None and body.data_hash != row.data_hash:
        return f"data_hash {body.data_hash[:12]} differs from the campaign's {row.data_hash[:12]}: this node has other data"
    ours = _judge(body.metrics, row.weights)
    if abs(ours - body.fitness) > FITNESS_TOLERANCE and not judging.posted_agrees(
        connection, row, body.metrics, body.fitness, FITNESS_TOLERANCE
    ):
        return f"fitness {body.fitness:.7g} disagrees with {ours:.7g}, computed from the posted metrics"
    return None


def _judge(metrics: Mapping[str, float], weights: Mapping[str, float]) -> float:
    try:
        return fitness(metrics, weights)
    except ValueError as error:
        raise Invalid("metrics", f"{error}; a training without them must be reported as a failure") from error


def store_failure(connection: Connection, token: str, failure: messages.Failure) -> messages.FailureAnswer:
    """Charge a failure: the candidate is offered again until the campaign's retries are used up.

    Repeating it changes nothing and gets the first answer, also after another worker has taken the candidate.

    Raises:
        NotFound: the token was never issued.
        Conflict: another worker holds the candidate, and this one had not reported a failure.
    """
    row = held(connection, token, lock=True)
    if row.outcome == "failed":
        return messages.FailureAnswer(state=row.answer or row.state)
    if row.current_token != token or row.outcome is not None:
        raise Conflict("lease-lost", f"candidate {row.number} of {row.campaign} is no longer this worker's")
    over = row.state in OVER  # an earlier attempt's result came in meanwhile
    final = row.failures + 1 > row.retries_failed or row.attempts >= MAX_ATTEMPTS
    answer: messages.State = row.state if over else "failed" if final else "queued"
    end_attempt(connection, token, "failed", f"{failure.kind}: {failure.detail}", answer)
    if over:
        return messages.FailureAnswer(state=answer)
    end_lease(connection, row.id)
    checkpoints.discard(connection, row.id)
    connection.execute(
        text(
            """
            update candidate set failures = failures + 1, failure = :kind, state = :state,
                                 finished_at = case when :final then clock_timestamp() end
            where id = :id
            """
        ),
        {"id": row.id, "kind": failure.kind, "state": answer, "final": final},
    )
    why = f"{row.campaign} #{row.number} ({failure.kind})"
    quarantine.failed(connection, row.worker_id, row.id, why, row.campaign_id)
    happened = "failed" if final else "retried"
    events.record(connection, row.campaign_id, happened, row.number, failure=failure.kind, detail=failure.detail[-500:])
    return messages.FailureAnswer(state=answer)
