"""Workers as people see them: who is there, what each holds, who fell silent."""

from __future__ import annotations

from sqlalchemy import Connection, text

from hypevolve import messages
from server.caller import VISIBLE, acting, visible
from server.tables import worker


def register(connection: Connection, body: messages.RegisterWorker) -> None:
    """Note a worker's name, devices and versions; repeating it changes nothing."""
    values = {
        "name": body.name,
        "host": body.host,
        "devices": body.devices,
        "versions": body.versions,
        "who": acting.get().name,
    }
    connection.execute(
        text("insert into worker (id, name) values (:id, :name) on conflict (id) do nothing"),
        {"id": body.worker, "name": body.name},
    )
    connection.execute(worker.update().where(worker.c.id == body.worker).values(**values, seen_at=text("clock_timestamp()")))


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
            """
            select id as worker, name, host, devices, versions, registered_at,
                   extract(epoch from clock_timestamp()
                     - greatest(seen_at, (select max(beat_at) from lease l where l.worker_id = w.id))) as seen_age_s
            from worker w
            where seen_at > clock_timestamp() - interval '1 day' or exists (select 1 from lease l where l.worker_id = w.id)
            order by registered_at desc limit 500
            """
        )
    )
    found = []
    for row in rows:
        leases = held.get(str(row.worker), [])
        if not leases and acting.get().only is not None:
            continue
        silent = any(lease.expires_in_s < 0 for lease in leases)
        found.append(messages.Worker.model_validate({**row._mapping, "leases": leases, "silent": silent}))
    return found
