"""The limits that end a campaign before its candidates are all trained: hours of devices, a deadline, patience.

The number of candidates is exact by the campaign's row lock (``server.breeding``). These three are looked at whenever work is
given out, by the database's clock: once one is reached nothing is leased any more, neither new nor returned; what trains is
finished, and counts. Part of queries on a campaign c.
"""

from __future__ import annotations

# Seconds in which devices were held: by attempts that have ended, and by those that train, up to their last sign of life.
DEVICE_S = """(
    coalesce((select sum(t.device_s) from tally t where t.campaign_id = c.id), 0)
    + coalesce((select sum(a.devices * greatest(extract(epoch from l.beat_at - a.started_at), 0))
                from lease l join attempt a on a.token = l.token where l.campaign_id = c.id), 0))"""

_NEWER = """
    from candidate k where k.campaign_id = c.id and k.number >= 0 and k.state in ('done', 'failed')
      and k.finished_at > (select b.finished_at from candidate b
                           where b.campaign_id = c.id and b.state = 'done' and b.number >= 0
                           order by b.fitness desc, b.number limit 1)
    order by k.finished_at desc"""

# How many candidates have ended since the best did, counted up to the patience (or 1000, to be shown).
SINCE_BEST = f"(select count(*) from (select 1 {_NEWER} limit coalesce(c.patience, 1000)) newer)"

# The limit that is reached, or null.
LIMIT = f"""(case
    when c.deadline <= clock_timestamp() then 'deadline'
    when c.gpu_hours is not null and {DEVICE_S} >= c.gpu_hours * 3600 then 'gpu_hours'
    when c.patience is not null and {SINCE_BEST} >= c.patience then 'patience' end)"""

# Whether work may be given out at all.
OPEN = f"(c.state = 'running' and {LIMIT} is null)"
