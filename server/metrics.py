"""``GET /metrics``: the numbers of campaigns and workers for Prometheus, read when they are asked for; nothing is counted here.

Every coordinator of a database tells the same of campaigns and workers. ``hypevolve_waiting_asks``, ``hypevolve_event_streams``
and ``process_…`` are of the one that answers.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from fastapi import APIRouter, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.registry import Collector
from sqlalchemy import Connection, Row, text

from hypevolve import __version__
from server import worker_views
from server.access import needs
from server.caller import VISIBLE, visible
from server.coordinator import coordinator_of

router = APIRouter(tags=["system"])

MOST = 200  # campaigns: those that have not ended first, then the newest
STATES = ("queued", "leased", "running", "done", "failed", "cancelled", "unbred", "imported")
STATUSES = ("training", "leaving", "idle", "quarantined", "silent", "gone")

_CAMPAIGNS = text(
    f"""
    select c.name, c.state, c.candidates, c.candidates - c.bred as unbred, t.*, b.fitness, s.silence
    from campaign c
    cross join lateral (
      select sum(queued) as queued, sum(leased) as leased, sum(running) as running, sum(done) as done, sum(failed) as failed,
             sum(cancelled) as cancelled, sum(imported) as imported, sum(lost) as lost, sum(seconds) as seconds,
             sum(device_s) as device_s
      from tally where campaign_id = c.id) t
    cross join lateral (
      select c.state in ('running', 'paused', 'draining') and (c.bred < c.candidates or exists (
        select from candidate k where k.campaign_id = c.id and k.state in ('queued', 'leased', 'running'))) as is) unended
    left join lateral (
      select fitness from candidate k where k.campaign_id = c.id and k.state = 'done' and k.number >= 0
      order by fitness desc, number limit 1) b on true
    cross join lateral (
      select extract(epoch from clock_timestamp() - min(beat_at))::float8 as silence
      from lease l where l.campaign_id = c.id) s
    where {VISIBLE} order by unended.is desc, c.created_at desc limit :most
    """
)


class _Numbers(Collector):
    """Metric families made from rows."""

    def __init__(self, campaigns: list[Row[object]], workers: Counter[str], asks: int, streams: int) -> None:
        self._campaigns = campaigns
        self._workers = workers
        self._asks = asks
        self._streams = streams

    def collect(self) -> Iterator[Metric]:
        yield InfoMetricFamily("hypevolve", "The coordinator that answers", value={"version": __version__})
        yield self._gauge("budget_candidates", "How many candidates the budget has", "candidates")
        states = GaugeMetricFamily(
            "hypevolve_candidates", "Candidates by state; unbred ones are only planned", labels=("campaign", "state")
        )
        for row in self._campaigns:
            for state in STATES:
                states.add_metric((row.name, state), getattr(row, state) or 0)
        yield states
        yield self._gauge("best_fitness", "The best fitness so far", "fitness")
        yield self._gauge("longest_silence_seconds", "Since the oldest last heartbeat of a lease", "silence")
        yield self._counter("lost_attempts", "Attempts whose worker fell silent", "lost")
        yield self._counter("training_seconds", "Of trainings whose result counts", "seconds")
        yield self._counter("device_seconds", "In which attempts that have ended held devices, times the devices", "device_s")
        workers = GaugeMetricFamily("hypevolve_workers", "Workers of the last day by what they do", labels=("status",))
        for status in STATUSES:
            workers.add_metric((status,), self._workers[status])
        yield workers
        yield GaugeMetricFamily("hypevolve_waiting_asks", "Asks for work that wait here", value=self._asks)
        yield GaugeMetricFamily("hypevolve_event_streams", "Event streams that are open here", value=self._streams)
        yield from ProcessCollector(registry=None).collect()

    def _gauge(self, name: str, words: str, column: str) -> Metric:
        family = GaugeMetricFamily(f"hypevolve_{name}", words, labels=("campaign",))
        for row in self._campaigns:
            if (value := getattr(row, column)) is not None:
                family.add_metric((row.name,), value)
        return family

    def _counter(self, name: str, words: str, column: str) -> Metric:
        family = CounterMetricFamily(f"hypevolve_{name}", words, labels=("campaign",))
        for row in self._campaigns:
            family.add_metric((row.name,), getattr(row, column) or 0)
        return family


@router.get(
    "/metrics",
    dependencies=[needs("read")],
    response_class=Response,
    responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
)
async def metrics(request: Request) -> Response:
    """Campaigns, workers and this process, in Prometheus' text format."""
    coordinator = coordinator_of(request)

    def read(connection: Connection) -> tuple[list[Row[object]], Counter[str]]:
        seen = worker_views.workers(connection)
        rows = connection.execute(_CAMPAIGNS, {**visible(), "most": MOST}).all()
        return list(rows), Counter(line.status for line in [*seen.items, *seen.gone])

    campaigns, workers = await coordinator.ordinary(lambda: coordinator.database.run(read))
    registry = CollectorRegistry()
    registry.register(_Numbers(campaigns, workers, len(coordinator.watch), request.app.state.event_watch.open))
    return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)
