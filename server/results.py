"""What a worker says of a training: epochs, a result, or a failure. Each counts once, however often it is sent.

Results that meet are stored together where nothing is special about them (``store_together``): two statements for all of them.
Every other result goes alone (``store_result``).

The first complete result for a candidate and rung counts, whichever attempt sends it, also after its lease expired: hours of
training are not thrown away because a node was slow to say so. Failures are stricter, only the current holder may report one.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from sqlalchemy import Connection, Row, text
from sqlalchemy.dialects.postgresql import insert

from evolution.fitness import fitness
from hypevolve import messages
from server import checkpoints, events, judging, lost_future, quarantine, tally
from server.caller import Caller
from server.errors import Conflict, Invalid, NotFound, Unavailable
from server.leases import MAX_ATTEMPTS, OVER, end_attempt, end_lease, held
from server.tables import epoch
from server.transaction import Statement, fetch, later

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


class Posted(NamedTuple):
    candidate: int
    token: str
    body: messages.Result
    caller: Caller


def store_together(connection: Connection, posted: Sequence[Posted]) -> list[Verdict | None]:
    """Store results that are the first of their candidates, come from who holds them, and agree with what was asked.

    None for every other, which has to go alone; so has one whose candidate others are at work on: nothing is waited for here.
    """
    first = {one.token: one for one in reversed(posted)}
    rows = []
    for row in fetch(connection, _HELD, tokens=list(first)):
        one = first[row.token]
        learns = one.body.data_hash is not None and row.data_hash is None  # the campaign, from this result
        if row.undisturbed and not learns and row.id == one.candidate and _agrees(row, one.body):
            rows.append(_as_row(row, one))
    if rows:
        later(connection, _STORE, rows=json.dumps(rows))
    stored = {row["token"] for row in rows}
    return [
        Verdict(True, messages.ResultAnswer(counts=True)) if one is first[one.token] and one.token in stored else None
        for one in posted
    ]


def _agrees(row: Row[Any], body: messages.Result) -> bool:
    try:
        return _mismatch(row, body) is None and abs(_judge(body.metrics, row.weights) - body.fitness) <= FITNESS_TOLERANCE
    except Invalid:
        return False


def _as_row(row: Row[Any], one: Posted) -> dict[str, Any]:
    return one.body.model_dump(include={"metrics", "fitness", "seconds", "epochs", "rung", "weights_hash"}) | {
        "token": one.token,
        "candidate": row.id,
        "campaign": row.campaign_id,
        "number": row.number,
        "worker": str(row.worker_id),
        "sha256": _digest(one.body),
        "who": one.caller.name,
    }


# An attempt that has not ended has no result yet: every result ends its attempt, whose row is locked here.
_HELD = Statement(
    "held",
    f"""
    select a.token, a.worker_id, k.id, k.campaign_id, k.number, k.rung, k.state, k.hyp_hash, c.data_hash,
           c.document -> 'fitness' as weights, {judging.SHARED.format(campaign_id="k.campaign_id")} as undisturbed
    from attempt a join candidate k on k.id = a.candidate_id join campaign c on c.id = k.campaign_id
    where a.token = any(%(tokens)s) and a.outcome is null and k.token = a.token and k.state in ('leased', 'running')
    for no key update of k, a skip locked
    """,
    tokens="text[]",
)

# Judged by the weights of this moment, which the shared lock keeps: those that were read before may be older by an instant.
_STORE = Statement(
    "store_results",
    f"""
    with r as (
      select * from json_to_recordset(%(rows)s) as r (
        token text, candidate bigint, campaign bigint, number int, worker uuid, rung int, metrics jsonb, fitness float8,
        seconds float8, epochs int, sha256 text, weights_hash text, who text)
    ), w as materialized (
      select id, (document -> 'fitness')::jsonb as weights from campaign where id in (select campaign from r)
    ), stored as (
      insert into result (token, candidate_id, rung, counts, metrics, fitness, seconds, epochs, body_sha256, weights_hash)
      select token, candidate, rung, true, metrics, fitness, seconds, epochs, sha256, weights_hash from r
    ), done as (
      update candidate k set state = 'done', failure = null, finished_at = clock_timestamp(),
                             fitness = {judging.judged("w.weights", "r.metrics")}
      from r join w on w.id = r.campaign where k.id = r.candidate
    ), freed as (
      delete from lease l using r where l.candidate_id = r.candidate
    ), ended as (
      update attempt a set outcome = 'done', ended_at = clock_timestamp() from r where a.token = r.token
    ), cleared as (
      update worker v set failed_in_a_row = '{{}}', quarantines = 0 from r
      where v.id = r.worker and (v.failed_in_a_row <> '{{}}' or v.quarantines > 0)
    ), told as (
      insert into event (campaign_id, number, kind, detail, who)
      select campaign, number, 'done', jsonb_build_object('fitness', fitness), who from r
    )
    insert into tally (campaign_id, seconds) select campaign, sum(seconds) from r group by campaign
    """,
    rows="json",
)


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
    if not row.undisturbed:
        raise Unavailable("reweighing", f"{row.campaign} is being judged by other weights; repeat the request")
    digest = _digest(body)
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


def _digest(body: messages.Result) -> str:
    """Of a result without what is absent: a field that a later version adds changes no digest."""
    return hashlib.sha256(json.dumps(body.model_dump(mode="json", exclude_none=True), sort_keys=True).encode()).hexdigest()


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
    if mismatch := _mismatch(row, body):
        return mismatch
    ours = _judge(body.metrics, row.weights)
    if abs(ours - body.fitness) > FITNESS_TOLERANCE and not judging.posted_agrees(
        connection, row, body.metrics, body.fitness, FITNESS_TOLERANCE
    ):
        return f"fitness {body.fitness:.7g} disagrees with {ours:.7g}, computed from the posted metrics"
    return None


def _mismatch(row: Row[Any], body: messages.Result) -> str | None:
    """In what a result differs from what was asked, or None."""
    if body.hyp_hash != row.hyp_hash:
        return (
            f"hyp_hash {body.hyp_hash[:12]} is not that of the leased hyp set {row.hyp_hash[:12]}: another hyp set was trained"
        )
    if body.rung != row.rung:
        return f"rung {body.rung} was not asked for; the lease said {row.rung}"
    if body.data_hash is not None and row.data_hash is not None and body.data_hash != row.data_hash:
        return f"data_hash {body.data_hash[:12]} differs from the campaign's {row.data_hash[:12]}: this node has other data"
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
