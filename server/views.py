"""What each page shows, read from the database and put together as ``server.page_messages``.

Judgements that only people need are made here (difference to the default, what is worth knowing); nothing of it is stored.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from typing import Any, Literal

from sqlalchemy import Connection, Row, text

from evolution.campaign import Campaign
from hypevolve import messages
from server import campaigns, candidates, confirming, event_words, fleet, gene_views, tally
from server.gene_views import GeneLine
from server.page_messages import (
    AttemptLine,
    CampaignLine,
    CampaignPage,
    CampaignsPage,
    CandidatePage,
    Change,
    FailureLine,
    InTraining,
)

PAGE = 25
JUMPS = 200  # of a line of the list
DRAWN, NEWEST_DRAWN = 1000, 250  # dots of a history; a page of a million candidates is as quick as one of a thousand
CHILDREN_WITHIN = 1000  # numbers after a candidate among which its children are looked for


def campaign_list(connection: Connection, cursor: str | None = None) -> CampaignsPage:
    """A page of campaigns, a line each, the newest first.

    Raises:
        Invalid: the cursor is not one of ours.
    """
    rows, more = campaigns.page(connection, cursor, PAGE)
    jumps = _jumps(connection, [row.id for row in rows])
    busy = _busy(fleet.workers(connection))
    items = []
    for row in rows:
        summary = campaigns.summary(connection, row)
        items.append(
            CampaignLine(
                name=summary.name,
                state=summary.state,
                strategy=summary.strategy,
                counts=summary.counts,
                best_number=summary.best.number if summary.best else None,
                best_fitness=summary.best.fitness if summary.best else None,
                change=_change(summary.best, summary.default),
                jumps=jumps.get(row.id, []),
                workers=busy[summary.name],
                eta_s=summary.eta_s,
                created_at=summary.created_at,
            )
        )
    return CampaignsPage(now=now(connection), items=items, next=more)


def campaign(connection: Connection, name: str, *, state: messages.State | None, cursor: str | None) -> CampaignPage:
    """One campaign in full, with one page of its candidates.

    Raises:
        NotFound: no such campaign.
        Invalid: the cursor is not one of ours.
    """
    row = campaigns.find(connection, name)
    document = Campaign.from_document(row.document)
    summary = campaigns.summary(connection, row)
    workers = fleet.workers(connection)
    page = candidates.page(connection, row.id, state=state, cursor=cursor, limit=PAGE, newest_first=True)
    best, counts = summary.best, summary.counts
    genes = [] if best is None else gene_views.compare(document.space, best.hyp, None)
    in_training = _in_training(workers, name, document.epochs)
    history = _history(connection, row, counts.done)
    since_best = None if best is None else _done_since(connection, row, best.number)
    left = counts.planned - counts.done - counts.failed - counts.cancelled
    return CampaignPage(
        now=now(connection),
        campaign=summary,
        formula=dict(document.weights),
        change=_change(best, summary.default),
        since_best=since_best,
        workers=_busy(workers)[name],
        trained_s=tally.of(connection, row.id).seconds,
        per_hour=left / summary.eta_s * 3600 if summary.eta_s else None,
        genes=genes,
        history=history,
        confirmations=confirming.confirmations(connection, name).items,
        failed=_failed(connection, row.id),
        newest_failure=_failure(connection, row.id),
        in_training=in_training,
        worth_knowing=_worth_knowing(summary, in_training, genes, since_best, _stuck(connection, row, document)),
        events=event_words.latest(connection, row.id),
        candidates=page,
    )


def candidate(connection: Connection, name: str, number: int) -> CandidatePage:
    """One candidate in full.

    Raises:
        NotFound: no such campaign or candidate.
    """
    row = campaigns.find(connection, name)
    found = candidates.find(connection, row, number)
    document = Campaign.from_document(row.document)
    default = candidates.one(connection, row.id, 0)
    parent = candidates.one(connection, row.id, found.parents[0]) if found.parents else None
    best = next(iter(candidates.best(connection, row.id, 1)), None)
    compared = best is not None and best.number not in (0, number)
    curve = candidates.curve(connection, row, number).epochs
    default_curve = candidates.curve(connection, row, 0).epochs if default and number != 0 else []
    best_curve = candidates.curve(connection, row, best.number).epochs if best and compared else []
    children = connection.execute(
        text(
            f"""
            select number from candidate
            where campaign_id = :id and number > :number and number <= greatest(:number, 0) + {CHILDREN_WITHIN}
              and :number = any(parents) order by number limit 50
            """
        ),
        {"id": row.id, "number": number},
    )
    return CandidatePage(
        now=now(connection),
        campaign=row.name,
        candidate=found,
        epochs=document.epochs,
        first_epoch=_first_epoch(curve, default_curve, best_curve),
        failure=_failure(connection, row.id, number) if found.state == "failed" else None,
        best=best is not None and best.number == number,
        change=_change(found, default),
        genes=gene_views.compare(document.space, found.hyp, parent.hyp if parent else None),
        curve=curve,
        default_curve=default_curve,
        best_curve=best_curve,
        best_number=best.number if best and compared else None,
        attempts=_attempts(connection, row.id, number),
        children=[r.number for r in children],
    )


def now(connection: Connection) -> datetime:
    now: datetime = connection.execute(text("select clock_timestamp()")).scalar_one()
    return now


def _change(found: messages.Candidate | None, default: messages.Candidate | None) -> Change:
    if found is None or default is None or found.fitness is None or default.fitness is None or found.number == 0:
        return Change(delta=None, percent=None)
    delta = found.fitness - default.fitness
    return Change(delta=delta, percent=100 * delta / abs(default.fitness) if default.fitness else None)


def _jumps(connection: Connection, campaign_ids: Sequence[int]) -> dict[int, list[tuple[int, float]]]:
    """Where each campaign's best so far rose, the newest of very many."""
    rows = connection.execute(
        text(
            f"""
            select c.id, j.number, j.fitness from unnest(cast(:ids as bigint[])) as c (id)
            cross join lateral (select number, fitness from jump where campaign_id = c.id order by number desc limit {JUMPS}) j
            order by c.id, j.number
            """
        ),
        {"ids": list(campaign_ids)},
    )
    found: dict[int, list[tuple[int, float]]] = {}
    for row in rows:
        jumps = found.setdefault(row.id, [])
        if not jumps or row.fitness > jumps[-1][1]:
            jumps.append((row.number, row.fitness))
    return found


def _history(connection: Connection, campaign: Row[Any], done: int) -> list[tuple[int, float]]:
    """The done candidates, as many as a picture can show: of a long history evenly spread ones, the newest and every jump."""
    some = ""
    if done > DRAWN:
        some = f"""
            and (number = any(array(select generate_series(0, :bred, greatest(:bred / {DRAWN}, 1))))
                 or number > :bred - {NEWEST_DRAWN} or number = any(array(
                   select number from jump where campaign_id = :id order by number desc limit {DRAWN})))
        """
    rows = connection.execute(
        text(
            f"""
            select number, fitness from candidate
            where campaign_id = :id and state = 'done' and number >= 0 {some} order by number
            """
        ),
        {"id": campaign.id, "bred": campaign.bred},
    )
    return [(row.number, row.fitness) for row in rows]


def _done_since(connection: Connection, campaign: Row[Any], number: int) -> int:
    """How many candidates bred after one are done: all of them but the few that are not."""
    others = connection.execute(
        text(
            """
            select (select count(*) from candidate
                    where campaign_id = :id and state in ('queued', 'leased', 'running') and number > :number)
                 + (select count(*) from candidate
                    where campaign_id = :id and state in ('failed', 'cancelled') and number > :number)
            """
        ),
        {"id": campaign.id, "number": number},
    ).scalar_one()
    return int(campaign.bred - 1 - number - others)


def _failed(connection: Connection, campaign_id: int) -> list[int]:
    """The numbers of failed candidates, the newest of very many."""
    rows = connection.execute(
        text(
            f"""
            select number from candidate where campaign_id = :id and state = 'failed' order by number desc limit {NEWEST_DRAWN}
            """
        ),
        {"id": campaign_id},
    )
    return sorted(row.number for row in rows)


def _failure(connection: Connection, campaign_id: int, number: int | None = None) -> FailureLine | None:
    """Why one candidate failed, or the one that failed last."""
    row = connection.execute(
        text(
            """
            select k.number, coalesce(k.failure, 'failed') as kind, coalesce(a.detail #>> '{}', '') as detail
            from candidate k left join attempt a on a.token = k.token
            where k.campaign_id = :id and k.state = 'failed' and (cast(:number as int) is null or k.number = :number)
            order by k.finished_at desc nulls last, k.number desc limit 1
            """
        ),
        {"id": campaign_id, "number": number},
    ).first()
    if row is None:
        return None
    detail = row.detail.removeprefix(f"{row.kind}:").strip()
    if not detail and row.kind == "attempts":
        detail = "every attempt was lost or handed back"
    return FailureLine(number=row.number, kind=row.kind, detail=detail)


def _first_epoch(*curves: Sequence[messages.EpochRow]) -> Literal[0, 1]:
    """Whether this campaign's trainer calls its first epoch 0 or 1; attempts that went on from a checkpoint do not tell."""
    return 0 if any(row.epoch == 0 for rows in curves for row in rows) else 1


def _stuck(connection: Connection, row: Row[Any], document: Campaign) -> list[str]:
    """Genes that should move and did not in the newest candidates, once there are enough to tell."""
    newest = candidates.page(connection, row.id, state="done", cursor=None, limit=PAGE, newest_first=True).items
    return gene_views.stuck(document.space, [found.hyp for found in newest])


def _busy(workers: Sequence[messages.Worker]) -> Counter[str]:
    """How many workers are at work on each campaign."""
    return Counter(
        name for worker in workers for name in {lease.campaign for lease in worker.leases if lease.expires_in_s >= 0}
    )


def _in_training(workers: Sequence[messages.Worker], campaign_name: str, epochs: int) -> list[InTraining]:
    return sorted(
        (
            InTraining(
                number=lease.number,
                worker=worker.name,
                epoch=lease.epoch,
                epochs=epochs,
                progress=lease.progress,
                beat_age_s=lease.beat_age_s,
                silent=lease.expires_in_s < 0,
            )
            for worker in workers
            for lease in worker.leases
            if lease.campaign == campaign_name
        ),
        key=lambda line: line.number,
    )


def _worth_knowing(
    summary: messages.Campaign,
    in_training: Sequence[InTraining],
    genes: Sequence[GeneLine],
    since_best: int | None,
    stuck: Sequence[str],
) -> list[str]:
    counts, told = summary.counts, []
    for line in in_training:
        if line.silent:
            told.append(
                f"{line.worker} fell silent while it trained #{line.number}; the next worker that asks gets the candidate."
            )
    if summary.state == "running" and not any(not line.silent for line in in_training):
        told.append("No worker is at work on this campaign now.")
    ended = counts.done + counts.failed
    if counts.failed and ended >= 5 and counts.failed / ended > 0.2:
        told.append(f"{counts.failed} of {ended} trainings failed; the candidates below say why.")
    if stuck:
        told.append(f"Stuck, the same value in all of the newest candidates although free to move: {', '.join(stuck)}.")
    bound = [
        f"{gene.name} at its {gene.at_bound} bound {gene.value:.4g}"
        for gene in genes
        if gene.at_bound and gene.value != gene.start
    ]
    if bound:
        told.append(f"The best has {', '.join(bound)}; wider bounds might be worth a try.")
    if since_best is not None and since_best >= 100 and summary.state == "running":
        told.append(f"{since_best} candidates since the best was found.")
    return told


def _attempts(connection: Connection, campaign_id: int, number: int) -> list[AttemptLine]:
    rows = connection.execute(
        text(
            """
            select w.name as worker,
                   coalesce(a.outcome, case when l.token is null then 'superseded' when l.expires_at < clock_timestamp()
                                            then 'silent' else 'in training' end) as outcome,
                   coalesce(a.detail #>> '{}', '') as detail, a.started_at,
                   extract(epoch from coalesce(a.ended_at, clock_timestamp()) - a.started_at) as seconds
            from candidate k join attempt a on a.candidate_id = k.id join worker w on w.id = a.worker_id
            left join lease l on l.token = a.token
            where k.campaign_id = :id and k.number = :number order by a.started_at
            """
        ),
        {"id": campaign_id, "number": number},
    )
    return [AttemptLine.model_validate({**row._mapping, "attempt": index}) for index, row in enumerate(rows, 1)]
