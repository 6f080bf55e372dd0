"""Who trains what: asking for work, heartbeats, release, and what becomes of a lease whose worker fell silent.

Nobody reaps. An expired lease stays its holder's until another worker asks and takes it, so a worker that was only slow revives
it by its next heartbeat. Two races matter and are settled by row locks, in the one order campaign, candidate, lease:

- two workers ask for the same candidate: FOR NO KEY UPDATE SKIP LOCKED lets one win, the other looks at the next;
- a heartbeat comes between seeing an expired lease and taking it: the lease row is read again under its lock.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, Row, text

from hypevolve import messages
from server import events, judging, lost_future, quarantine, tally
from server.caller import acting
from server.errors import Conflict, NotFound
from server.pulse import LEASES_MAY_EXPIRE
from server.transaction import later

OVER = ("done", "failed", "cancelled")
LOOKED_AT = 64  # returned and expired candidates that one look finds; as many asks at once may lock one each
UNKNOWN_LEASE_S = 60.0  # of a lease that a restored database does not know
CONFIRMING_SEEDS = 1 << 30  # beyond those of every budget
MAX_ATTEMPTS = 20  # of any kind; then the candidate has failed, so that no candidate can occupy workers for ever

_GRANTED = text(
    """
    select a.request_id, a.request_slot, k.id as candidate, c.name as campaign, k.number, k.rung, a.token, k.hyp, k.hyp_hash,
           c.data_hash, c.document, c.seed, c.same_seed, c.lease_s, c.beat_s, f.sha256, f.bytes, f.epoch
    from attempt a join candidate k on k.id = a.candidate_id join campaign c on c.id = k.campaign_id
    left join artifact f on f.candidate_id = k.id and f.state = 'current'
    where a.request_id = any(:requests) order by a.request_slot
    """
)

# What came back or expired before what waits for its first attempt. Each kind is found through what is small: the index of
# queued candidates, and the leases. A walk over all candidates would read every finished one.
_TAKE = text(
    f"""
    select k.id, k.campaign_id, k.number, k.token, k.attempts, k.state from candidate k
    where k.id = any(array(
      (select q.id from candidate q where q.state = 'queued' and q.campaign_id = :campaign
         order by q.token is null, q.id limit {LOOKED_AT})
      union all
      (select l.candidate_id from lease l where l.campaign_id = :campaign
         and l.expires_at < clock_timestamp() and {LEASES_MAY_EXPIRE} order by l.candidate_id limit {LOOKED_AT})))
      and k.state in ('queued', 'leased', 'running')
    order by k.token is null, k.id limit 1 for no key update of k skip locked
    """
)


def granted(connection: Connection, request_id: UUID) -> list[messages.Lease]:
    """The leases that this request was given; asking again with the same id gets them again."""
    return [lease for _, lease in granted_to(connection, [request_id]).get(request_id, [])]


def granted_to(connection: Connection, requests: Sequence[UUID]) -> dict[UUID, list[tuple[int, messages.Lease]]]:
    """The leases that each of these requests was given, with their slots."""
    found: dict[UUID, list[tuple[int, messages.Lease]]] = {}
    for row in connection.execute(_GRANTED, {"requests": list(requests)}):
        found.setdefault(row.request_id, []).append((row.request_slot, _granted_lease(row)))
    return found


def slots(connection: Connection, request_id: UUID) -> int:
    """How many leases a request has been granted so far: its slots are filled in order."""
    return int(connection.execute(text("select count(*) from attempt where request_id = :id"), {"id": request_id}).scalar_one())


def _granted_lease(row: Row[Any]) -> messages.Lease:
    checkpoint = None if row.sha256 is None else messages.Checkpoint(sha256=row.sha256, bytes=row.bytes, epoch=row.epoch)
    return lease(
        row,
        row.document,
        checkpoint,
        candidate=row.candidate,
        campaign=row.campaign,
        number=row.number,
        rung=row.rung,
        token=row.token,
        hyp=row.hyp,
        hyp_hash=row.hyp_hash,
    )


def see_worker(connection: Connection, worker: UUID, devices: Sequence[str]) -> None:
    """Note that a worker was heard; one that never registered gets a row under the head of its id."""
    later(
        connection,
        """
        insert into worker (id, name, devices, who) values (%(id)s, %(name)s, %(devices)s, %(who)s)
        on conflict (id) do update set seen_at = clock_timestamp(), who = excluded.who
        where worker.seen_at < clock_timestamp() - interval '5 s' or worker.who <> excluded.who
        """,
        id=str(worker),
        name=str(worker)[:8],
        devices=json.dumps(list(devices)),
        who=acting.get().name,
    )


def take(connection: Connection, ask: messages.Ask, campaign: int, slot: int) -> bool:
    """Grant a returned or expired candidate of a campaign to a slot of a request; False where there is none."""
    for _ in range(LOOKED_AT):
        row = connection.execute(_TAKE, {"campaign": campaign}).first()
        if row is None:
            break
        if row.state != "queued" and not _lose(connection, row):
            continue  # its worker beat just now, or another ask took it
        if row.attempts >= MAX_ATTEMPTS:
            give_up(connection, row.id, row.campaign_id, row.number)
            continue
        grant(connection, row.id, row.campaign_id, row.number, ask, slot)
        return True
    return False


def grant(connection: Connection, candidate: int, campaign: int, number: int, ask: messages.Ask, slot: int) -> None:
    """Lease a candidate to a worker. The caller holds the candidate's row lock."""
    token = new_token()
    later(
        connection,
        "update candidate set state = 'leased', token = %(token)s, attempts = attempts + 1 where id = %(candidate)s",
        token=token,
        candidate=candidate,
    )
    begin_attempt(connection, candidate, campaign, number, ask, slot, token)


def new_token() -> str:
    return secrets.token_hex(16)


def begin_attempt(
    connection: Connection, candidate: int, campaign: int, number: int, ask: messages.Ask, slot: int, token: str
) -> None:
    """A new attempt with its own token, and the lease that goes with it; the candidate's row names the token already."""
    values = {"token": token, "candidate": candidate, "worker": str(ask.worker)}
    later(
        connection,
        """
        insert into attempt (token, candidate_id, worker_id, request_id, request_slot, devices, resumed_token, resumed_epoch)
        select %(token)s, %(candidate)s, %(worker)s, %(request)s, %(slot)s, %(devices)s, f.token, f.epoch
        from (values (1)) as always left join artifact f on f.candidate_id = %(candidate)s and f.state = 'current'
        """,
        request=str(ask.request_id),
        slot=slot,
        devices=max(len(ask.devices), 1),
        **values,
    )
    later(
        connection,
        """
        insert into lease (candidate_id, campaign_id, worker_id, token, lease_s, expires_at, beat_at)
        select %(candidate)s, id, %(worker)s, %(token)s, lease_s, clock_timestamp() + make_interval(secs => lease_s),
        clock_timestamp() from campaign where id = %(campaign)s
        """,
        campaign=campaign,
        **values,
    )
    events.record(connection, campaign, "leased", number, worker=str(ask.worker))


def _lose(connection: Connection, row: Row[Any]) -> bool:
    """End the attempt of a silent worker; False where its heartbeat came first."""
    gone = connection.execute(
        text(
            """
            delete from lease where candidate_id = :candidate and expires_at < clock_timestamp()
            returning worker_id, beat_at
            """
        ),
        {"candidate": row.id},
    ).first()
    if gone is None:
        return False
    later(  # it held its devices until its last sign of life, however long nobody asked after that
        connection,
        "update attempt set outcome = 'lost', ended_at = %(beat_at)s where token = %(token)s and outcome is null",
        token=row.token,
        beat_at=gone.beat_at,
    )
    events.record(connection, row.campaign_id, "lost", row.number, worker=str(gone.worker_id))
    tally.add(connection, row.campaign_id, lost=1)
    return True


def end_attempt(
    connection: Connection, token: str, outcome: str, detail: str | None = None, answer: messages.State | None = None
) -> None:
    """``answer``: the state of the candidate that a failure is answered with, also when it is repeated."""
    later(
        connection,
        """
        update attempt set outcome = %(outcome)s, ended_at = clock_timestamp(), detail = to_jsonb(%(detail)s::text),
                           answer = %(answer)s
        where token = %(token)s and outcome is null
        """,
        token=token,
        outcome=outcome,
        detail=detail,
        answer=answer,
    )


def end_lease(connection: Connection, candidate: int) -> None:
    later(connection, "delete from lease where candidate_id = %(candidate)s", candidate=candidate)


def give_up(connection: Connection, candidate: int, campaign: int, number: int) -> None:
    """After ``MAX_ATTEMPTS`` attempts of any kind the candidate has failed."""
    connection.execute(
        text(
            "update candidate set state = 'failed', failure = 'attempts', finished_at = clock_timestamp() where id = :candidate"
        ),
        {"candidate": candidate},
    )
    events.record(connection, campaign, "failed", number, failure="attempts")


def heartbeat(connection: Connection, token: str, beat: messages.Heartbeat) -> messages.HeartbeatAnswer:
    """Renew a lease, also an expired one that nobody has taken.

    A worker whose candidate was given to another goes on: the first complete result counts, whoever sends it. It is told to
    cancel once that result stands.

    Raises:
        NotFound: the token was never issued.
    """
    renewed = connection.execute(
        text(
            """
            update lease set beat_at = clock_timestamp(), expires_at = clock_timestamp() + make_interval(secs => lease_s),
                             epoch = :epoch, progress = :progress
            where token = :token returning lease_s, (select draining from worker w where w.id = lease.worker_id) as draining
            """
        ),
        {"token": token, "epoch": beat.epoch, "progress": round(beat.progress, 6)},
    ).first()
    if renewed is not None:
        command: messages.Command = "drain" if renewed.draining else "continue"
        return messages.HeartbeatAnswer(lease_s=renewed.lease_s, command=command, current=True)
    try:
        row = held(connection, token)
    except NotFound:
        if not lost_future.speaks(connection, token):
            raise
        return messages.HeartbeatAnswer(lease_s=UNKNOWN_LEASE_S, command="continue", current=False)  # its result may count
    over = row.state in OVER or (row.current_token == token and row.outcome is not None)
    return messages.HeartbeatAnswer(lease_s=row.lease_s, command="cancel" if over else "continue", current=False)


def release(connection: Connection, token: str, reason: str) -> None:
    """Hand a candidate back, free of charge, to be offered again at once.

    Repeating it changes nothing and succeeds again, also after another worker has taken the candidate.

    Raises:
        NotFound: the token was never issued.
        Conflict: another worker holds the candidate, and this one had not handed it back.
    """
    row = held(connection, token, lock=True)
    if row.outcome == "released":
        return
    if row.current_token != token:
        raise Conflict("lease-lost", f"candidate {row.number} of {row.campaign} has been given to another worker")
    if row.outcome is not None:
        return
    end_attempt(connection, token, "released", reason)
    if row.state in OVER:  # an earlier attempt's result came in meanwhile
        return
    node_fault = reason in quarantine.NODE_FAULTS
    if node_fault:
        why = f"{row.campaign} #{row.number} handed back ({reason})"
        quarantine.close(connection, row.worker_id, why, row.campaign_id)
    end_lease(connection, row.id)
    later(
        connection,
        "update candidate set state = 'queued', attempts = attempts - %(not_counted)s where id = %(id)s",
        id=row.id,
        not_counted=int(node_fault),
    )
    events.record(connection, row.campaign_id, "released", row.number, reason=reason)


def held(connection: Connection, token: str, *, lock: bool = False) -> Row[Any]:
    """The attempt of ``token`` with its candidate and campaign; ``lock`` takes the rows of candidate and attempt.

    Both, because after waiting for a lock PostgreSQL reads the newest version of the locked rows alone: with the candidate's
    lock only, the second of two equal failures that crossed saw an attempt that had not ended, and charged it again.
    ``undisturbed`` then says that nobody is changing the weights of fitness, nor will before the transaction ends.

    Raises:
        NotFound: the token was never issued.
    """
    undisturbed = judging.SHARED.format(campaign_id="k.campaign_id") if lock else "null"
    row = connection.execute(
        text(
            f"""
            select k.id, k.campaign_id, k.number, k.rung, k.state, k.attempts, k.failures, k.hyp_hash, k.token as current_token,
                   a.outcome, a.answer, a.worker_id, c.name as campaign, c.retries_failed, c.data_hash,
                   c.document -> 'fitness' as weights, c.lease_s, a.token, {undisturbed} as undisturbed
            from attempt a join candidate k on k.id = a.candidate_id join campaign c on c.id = k.campaign_id
            where a.token = :token
            """
            + (" for no key update of k, a" if lock else "")
        ),
        {"token": token},
    ).first()
    if row is None:
        raise NotFound("unknown-token", "this coordinator never issued that lease token; ask for a new lease")
    return row


def training_seed(campaign_seed: int, same_seed: bool, number: int) -> int:
    """Of the candidate of this number: its own or that of all; a confirmation's is one that no candidate of the budget has."""
    if number < 0:
        return campaign_seed + CONFIRMING_SEEDS - number
    return campaign_seed if same_seed else campaign_seed + number


def lease(
    campaign_row: Row[Any],
    document: Mapping[str, Any],
    checkpoint: messages.Checkpoint | None = None,
    *,
    number: int,
    **candidate: Any,
) -> messages.Lease:
    """A lease: what is the campaign's, what is the candidate's, where its training stands."""
    return messages.Lease(
        number=number,
        data_hash=campaign_row.data_hash,
        base=document["base"],
        trainer=document["trainer"],
        weights=document["fitness"],
        seed=training_seed(campaign_row.seed, campaign_row.same_seed, number),
        epochs=document["base"]["epochs"],
        lease_s=campaign_row.lease_s,
        beat_s=campaign_row.beat_s,
        checkpoint_s=document["lease"].get("checkpoint", messages.CHECKPOINT_S),
        checkpoint=checkpoint,
        **candidate,
    )
