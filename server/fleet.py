"""Workers as people see them: who is there, what each holds, who fell silent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from sqlalchemy import Connection, text

from hypevolve import messages
from server import quarantine
from server.caller import VISIBLE, Caller, acting, visible
from server.errors import Forbidden, NotFound, Unauthorised
from server.fair import Offer
from server.tables import worker
from server.transaction import Statement, fetch


class Standing(NamedTuple):
    """What an ask of a worker meets: its offer, or a command instead of work, why, and how long that stands at least.

    ``repeated``: this request was answered before. ``seen``: nobody need note that the worker was heard.
    ``revoked``: its token was, a moment ago.
    """

    offer: Offer
    repeated: bool = False
    seen: bool = False
    revoked: bool = False
    command: messages.AskCommand | None = None
    reason: str = ""
    wait_s: float = 0.0


def register(connection: Connection, body: messages.RegisterWorker) -> None:
    """Note a worker's name, devices, versions and self-test; repeating it changes nothing."""
    values = {
        "name": body.name,
        "host": body.host,
        "devices": body.devices,
        "versions": body.versions,
        "who": acting.get().name,
        "labels": body.labels,
        "memory_gb": body.memory_gb,
    }
    new = connection.execute(
        text("insert into worker (id, name) values (:id, :name) on conflict (id) do nothing returning id"),
        {"id": body.worker, "name": body.name},
    ).first()
    connection.execute(worker.update().where(worker.c.id == body.worker).values(**values, seen_at=text("clock_timestamp()")))
    if new is not None:
        quarantine.inherit(connection, body.worker, body.name, body.host)
    if body.self_test is not None:
        quarantine.tested(connection, body.worker, body.self_test)


# What asks need to know of their workers, their tokens and themselves; its values are ``values_of`` them.
STANDINGS = Statement(
    "standings",
    f"""
    select (select true from attempt a where a.request_id = r.request limit 1) is not null as repeated,  -- looked up
           (select true from token t where t.name = r.who and t.revoked_at is not null) is not null as revoked,
           coalesce(w.seen_at > clock_timestamp() - interval '5 s' and w.who = r.who, false) as seen,
           coalesce(w.labels, '[]') as labels, coalesce(w.memory_gb, '{{}}') as memory_gb,
           coalesce(w.draining, false) as draining, {quarantine.WHY.replace(":only", "%(only)s")} as quarantine,
           greatest(extract(epoch from w.quarantined_until - clock_timestamp()), 0)::float8 as wait_s
    from unnest(%(requests)s, %(workers)s, %(whos)s) with ordinality as r (request, worker, who, n)
    left join worker w on w.id = r.worker order by r.n
    """,
    requests="uuid[]",
    workers="uuid[]",
    whos="text[]",
    only="text[]",
)


def values_of(asks: Sequence[messages.Ask], callers: Sequence[Caller]) -> dict[str, Any]:
    """The values of ``STANDINGS``; several callers have to see the same campaigns."""
    return {
        "requests": [str(ask.request_id) for ask in asks],
        "workers": [str(ask.worker) for ask in asks],
        "whos": [caller.name for caller in callers],
        **visible(),
    }


def standing(connection: Connection, ask: messages.Ask) -> Standing:
    """How the worker of an ask stands.

    Raises:
        Unauthorised: its token was revoked a moment ago. The door may not have heard of it yet, and nothing is leased to it.
    """
    met = as_standing(dict(fetch(connection, STANDINGS, **values_of([ask], [acting.get()])).mappings().one()), ask)
    if met.revoked:
        raise Unauthorised("wrong-token", "this access token was revoked; ask the operator for another")
    return met


def as_standing(row: Mapping[str, Any], ask: messages.Ask) -> Standing:
    """A row of ``STANDINGS``."""
    memory = [row["memory_gb"].get(device) for device in ask.devices]
    offer = Offer(frozenset(row["labels"]), tuple(ask.devices), None if not memory or None in memory else min(memory))
    met = Standing(offer, row["repeated"], row["seen"], row["revoked"])
    if row["draining"]:
        return met._replace(command="drain", reason="somebody asked this worker to drain")
    if row["quarantine"] is not None:
        return met._replace(command="self-test", reason=row["quarantine"], wait_s=row["wait_s"])
    return met


def drain(connection: Connection, name: str) -> int:
    """Ask the workers of that name to finish what they train and end; how many processes.

    Raises:
        NotFound: nobody of that name was heard of in the last day.
        Forbidden: the caller is bound to campaigns, and workers belong to all.
    """
    if acting.get().only is not None:
        raise Forbidden("bound", "a token bound to campaigns cannot drain a worker, which may train for others too")
    drained = connection.execute(
        text("update worker set draining = true where name = :name and seen_at > clock_timestamp() - interval '1 day'"),
        {"name": name},
    ).rowcount
    if not drained:
        raise NotFound("unknown-worker", f"no worker called '{name}' was heard of in the last day; see `hypevolve workers`")
    return int(drained)


def workers(connection: Connection) -> list[messages.Worker]:
    """Workers heard of in the last day or holding a lease, the newest first.

    Whoever is bound to campaigns sees those that hold a candidate of theirs.
    """
    held: dict[str, list[messages.HeldLease]] = {}
    for row in connection.execute(
        text(
            f"""
            select l.worker_id, c.name as campaign, k.number, l.epoch, l.progress,
                   extract(epoch from clock_timestamp() - l.beat_at) as beat_age_s,
                   extract(epoch from l.expires_at - clock_timestamp()) as expires_in_s
            from lease l join candidate k on k.id = l.candidate_id join campaign c on c.id = k.campaign_id
            where {VISIBLE} order by k.id
            """
        ),
        visible(),
    ):
        held.setdefault(str(row.worker_id), []).append(
            messages.HeldLease.model_validate({key: value for key, value in row._mapping.items() if key != "worker_id"})
        )
    rows = connection.execute(
        text(
            f"""
            select id as worker, name, host, devices, versions, registered_at, labels, draining,
                   {quarantine.WHY} as quarantine,
                   extract(epoch from clock_timestamp()
                     - greatest(seen_at, (select max(beat_at) from lease l where l.worker_id = w.id))) as seen_age_s
            from worker w
            where seen_at > clock_timestamp() - interval '1 day' or exists (select 1 from lease l where l.worker_id = w.id)
            order by registered_at desc limit 500
            """
        ),
        visible(),
    )
    found = []
    for row in rows:
        leases = held.get(str(row.worker), [])
        if not leases and acting.get().only is not None:
            continue
        silent = any(lease.expires_in_s < 0 for lease in leases)
        found.append(messages.Worker.model_validate({**row._mapping, "leases": leases, "silent": silent}))
    return found
