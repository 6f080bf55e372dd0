"""Commands that decide about campaigns in flight: extend, pause, resume, drain, cancel, retry; and about workers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from hypevolve import messages
from hypevolve.console import CommandFailed, Output, duration
from hypevolve.online import budget_words, connect

WORKER_COLUMNS = ("name", "host", "status", "devices", "labels", "trains", "heard")


def extend(output: Output, name: str, given: dict[str, Any]) -> None:
    """Change the budget of a campaign, or its place among others; ``none`` takes a limit away."""
    changes = {key: None if value == "none" else value for key, value in given.items() if value is not None}
    if not changes:
        raise CommandFailed("say what changes: --candidates, --gpu-hours, --deadline, --patience, --priority or --share", 2)
    for key, kind in (("gpu_hours", float), ("patience", int)):
        value = changes.get(key)
        if value is not None:
            try:
                changes[key] = kind(value)
            except ValueError:
                raise CommandFailed(f"--{key.replace('_', '-')} '{value}' is no number; write one, or none", 2) from None
    with connect(output) as client:
        campaign = client.change_campaign(name, **changes)
    _tell(output, campaign, f"{budget_words(campaign)}; {campaign.counts.done} are done")


def steer(output: Output, name: str, verb: Literal["pause", "resume", "drain"]) -> None:
    with connect(output) as client:
        campaign = client.steer(name, verb)
    training = campaign.counts.running + campaign.counts.leased
    _tell(
        output,
        campaign,
        f"is {campaign.state}; {training} in training" + (" will be finished" if training and verb != "resume" else ""),
    )


def cancel(output: Output, name: str, numbers: Sequence[int]) -> None:
    """End a campaign for good, or only some of its candidates."""
    with connect(output) as client:
        if numbers:
            cancelled = sum(client.steer_candidate(name, number, "cancel").state == "cancelled" for number in numbers)
        else:
            cancelled = client.cancel(name)
    if output.json:
        output.document({"cancelled": cancelled})
    else:
        output.say(f"{name}: {cancelled} candidates cancelled" + ("" if numbers else "; the campaign is over"))


def retry(output: Output, name: str, numbers: Sequence[int]) -> None:
    """Offer the failed candidates of a campaign again, or those of these numbers, cancelled ones too."""
    with connect(output) as client:
        if numbers:
            for number in numbers:
                client.steer_candidate(name, number, "retry")
            retried = len(numbers)
        else:
            retried = client.retry(name)
    what = "candidates" if numbers else "failed candidates"
    if output.json:
        output.document({"retried": retried})
    else:
        output.say(f"{name}: {retried} {what} are offered again" if retried else f"{name} has no failed candidate")


def workers(output: Output) -> None:
    """Every worker heard of in the last day, in a line."""
    with connect(output) as client:
        found = client.workers()
    if output.json:
        output.document({"items": [worker.model_dump(mode="json") for worker in found]})
        return
    output.table([_row(worker) for worker in found], WORKER_COLUMNS)


def drain(output: Output, name: str, worker: bool) -> None:
    """Let a campaign come to its end, or a worker."""
    if not worker:
        steer(output, name, "drain")
        return
    with connect(output) as client:
        processes = client.drain_worker(name)
    if output.json:
        output.document({"processes": processes})
    else:
        output.say(
            f"{name}: {processes} worker process{'es' if processes != 1 else ''} will finish what is in training and end"
        )


def _row(worker: messages.Worker) -> dict[str, object]:
    status = "training" if worker.leases else "idle"
    if worker.draining:
        status = "draining"
    if worker.quarantine is not None:
        status = f"quarantined: {worker.quarantine}"
    if worker.silent:
        status = "silent"
    return {
        "name": worker.name,
        "host": worker.host,
        "status": status,
        "devices": worker.devices,
        "labels": worker.labels,
        "trains": [f"{lease.campaign}#{lease.number}" for lease in worker.leases],
        "heard": f"{duration(worker.seen_age_s)} ago",
    }


def _tell(output: Output, campaign: messages.Campaign, words: str) -> None:
    if output.json:
        output.document(campaign.model_dump(mode="json"))
    else:
        output.say(f"{campaign.name} {words}")
