"""Which campaign an ask is served from: the fair order among campaigns that have work this worker can do.

A higher ``priority`` is served first, always. Within a tier the campaign with the fewest trainings for its ``share`` is next,
so that campaigns with shares 1 and 3 have workers as 1 to 3 while both have work, and all workers once one has none.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable
from typing import Any, NamedTuple

from sqlalchemy import Connection

from server.budget import OPEN
from server.campaigns import HALTED
from server.pulse import LEASES_MAY_EXPIRE
from server.transaction import Statement, fetch

WAITING_S = 5.0  # a strategy that waits is asked again after so long, whatever happened

WORKS = Statement(
    "works",
    f"""
    select c.id, c.name, c.requires, w.queued, w.expired, w.unbred, t.revision, c.priority, t.busy / c.share as rank, c.share,
           c.bred, c.revision as edition
    from campaign c
    cross join lateral (  -- first, one look at each: most campaigns of an old service have ended
      select where c.state = 'running' and (c.bred < c.candidates or exists (
        select 1 from candidate k where k.campaign_id = c.id and k.state in ('queued','leased','running')))) unended
    cross join lateral (
      select coalesce(sum(leased) + sum(running), 0) as busy,
             concat_ws(' ', sum(queued), sum(leased), sum(running), sum(done), sum(failed), sum(cancelled)) as revision
      from tally where campaign_id = c.id) t
    cross join lateral (
      select (select count(*) from candidate k where k.campaign_id = c.id and k.state = 'queued') as queued,
             (select count(*) from lease l where l.campaign_id = c.id and l.expires_at < clock_timestamp()
              and {LEASES_MAY_EXPIRE}) as expired,
             case when c.bred >= c.candidates or {HALTED} then 0 else c.candidates - c.bred end as unbred) w
    where w.queued + w.expired + w.unbred > 0 and {OPEN}
      and (%(names)s is null or c.name = any(%(names)s))
    order by c.priority desc, rank, c.id
    """,
    names="text[]",
)


class Offer(NamedTuple):
    """What an ask brings: the labels of its worker, and the devices that train one candidate."""

    labels: frozenset[str]
    devices: tuple[str, ...]
    memory_gb: float | None  # of the smallest device; None where it is not known


class Work(NamedTuple):
    """What a campaign has to give out. ``revision`` changes with every candidate's state.

    ``rank`` is its trainings by its ``share``; ``edition`` is the campaign's revision.
    """

    id: int
    name: str
    requires: dict[str, Any]
    queued: int
    expired: int
    unbred: int
    revision: str
    priority: int = 0
    rank: float = 0.0
    share: float = 1.0
    bred: int = 0
    edition: int = 0

    @property
    def order(self) -> tuple[int, float, int]:
        """In the fair order."""
        return -self.priority, self.rank, self.id

    def given(self) -> Work:
        """What is left once it has given out one more."""
        if self.queued:
            left = self._replace(queued=self.queued - 1)
        elif self.expired:
            return self._replace(expired=self.expired - 1)  # it counts as being trained already
        else:
            left = self._replace(unbred=self.unbred - 1)
        return left._replace(rank=self.rank + 1 / self.share)

    @property
    def returned(self) -> int:
        """Candidates that came back."""
        return self.queued + self.expired

    def suits(self, offer: Offer, names: Collection[str] | None) -> bool:
        """Whether a worker is bound to this campaign, or to none, and has what the campaign requires."""
        wanted = self.requires
        kinds = {device.partition(":")[0] for device in offer.devices}
        memory = wanted.get("gpu_memory")
        return (
            (names is None or self.name in names)
            and set(wanted.get("labels") or ()) <= offer.labels
            and len(offer.devices) >= wanted.get("devices", 1)
            and wanted.get("device") in (None, *kinds)
            and (memory is None or (offer.memory_gb is not None and offer.memory_gb >= memory))
        )


class Waiting:
    """Campaigns whose strategy waits for results, as this process has heard: not asked again before something has changed."""

    def __init__(self) -> None:
        self._told: dict[int, tuple[str, float]] = {}

    def note(self, work: Work) -> None:
        self._told[work.id] = (work.revision, time.monotonic())

    def without(self, works: Iterable[Work]) -> list[Work]:
        """``works`` less what cannot be bred now; a campaign that has nothing else is left out."""
        now = time.monotonic()
        found = []
        for work in works:
            revision, at = self._told.get(work.id, ("", 0.0))
            waits = revision == work.revision and now - at < WAITING_S
            left = work._replace(unbred=0) if waits else work
            if left.returned + left.unbred:
                found.append(left)
        return found


def works(connection: Connection, names: Collection[str] | None = None) -> list[Work]:
    """The campaigns that have something to give out, in the order in which asks are served from them."""
    rows = fetch(connection, WORKS, names=None if names is None else list(names))
    return [Work._make(row) for row in rows]
