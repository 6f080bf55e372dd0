"""``hypevolve run``: a campaign from its file to its results on one machine, and again from wherever it was interrupted."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from hypevolve import campaign_file, messages, programs
from hypevolve.campaign_file import INVALID, CampaignFile
from hypevolve.children import LOOK_S
from hypevolve.client import ONCE, Client
from hypevolve.console import CommandFailed, Output
from hypevolve.errors import Conflict, NotFound, ServerFault, Unreachable
from hypevolve.local import Household, locked, share_devices
from hypevolve.progress import Progress
from hypevolve.summary import failure_kinds, resumed, summary_document, summary_text

CPU_WORKERS = 2
POLL_S = 0.5
SILENCE_S = 20.0
INTERRUPTED, FRUITLESS = 130, 9
TEXTS = ("hyp_evolved.yaml", "evolve.csv", "evolve.txt")
PICTURE = "evolve.png"


@dataclass(frozen=True)
class Wish:
    """What ``run`` was asked for. ``again`` is the command line that goes on with it."""

    file: Path
    folder: Path | None = None
    workers: int | None = None
    devices: str = "all"
    port: int | None = None
    database_url: str | None = None
    pg_bin: str | None = None
    again: str = "hypevolve run"


class Stop:
    """Ctrl-C and SIGTERM: the first asks for an orderly end, the second kills."""

    def __init__(self) -> None:
        self.asked = False
        self.kill: Callable[[], object] = lambda: None

    def install(self) -> None:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:  # ignored under nohup, on purpose
                signal.signal(number, self._handle)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.asked:
            self.kill()
            os._exit(INTERRUPTED)
        self.asked = True


def run(output: Output, wish: Wish) -> int:
    """Evolve to the end; the exit code.

    Raises:
        HypevolveError: nothing is left running.
    """
    programs.require("evolution", "server", "worker")
    began = time.monotonic()
    file = campaign_file.read(wish.file)
    if file.campaign.trainer.kind == "detector":
        programs.require("detector")
    if absent := campaign_file.absent_data(campaign_file.scenario(file, file.folder)):
        raise CommandFailed(f"{wish.file} {absent}", INVALID)
    devices = _devices(wish)
    if lack := lacking(file.campaign.requires, devices):
        raise CommandFailed(f"{wish.file} {lack}", 2)
    folder = (wish.folder or Path("runs") / file.campaign.name).absolute()
    if other := _others(folder, file.campaign.name):
        raise CommandFailed(f"{_short(folder)} holds the results of {other}; give another --folder", Conflict.exit_code)
    stop = Stop()
    with (
        locked(folder),
        Household(folder, os.environ, lambda: stop.asked) as house,
    ):
        stop.kill = house.kill
        stop.install()
        progress = Progress()
        progress.say(f"starting the coordinator and its database in {_short(folder)}")
        url = house.start_coordinator(wish.port, wish.database_url, wish.pg_bin)
        if url is None:
            raise CommandFailed(f"stopped before anything was trained; to go on: {wish.again}", INTERRUPTED)
        os.environ["NO_PROXY"] = os.environ["no_proxy"] = "127.0.0.1,localhost"
        with Client(url, token=output.token) as client:
            campaign, news = _enter(client, file)
        for line in news:
            progress.say(line)
        progress.say(f"page: {url}/c/{campaign.name}")
        if campaign.state != "finished":
            progress.say(f"{len(devices)} {'worker' if len(devices) == 1 else 'workers'} on {', '.join(devices)}")
            house.start_workers(url, devices, [campaign.name], file.folder, output.token)
            with Client(url, token=output.token, retry=ONCE, timeout_s=10.0) as client, progress:
                campaign = _watch(client, campaign, house, stop, progress, wish)
        house.stop_workers()
        with Client(url, token=output.token) as client:
            document = _write(client, campaign, folder, time.monotonic() - began)
            reason = _fruitless(client, campaign, folder)
    if output.json:
        output.document(document)
    else:
        output.line(summary_text(document, _next(file, Path(document["folder"]))))
    if reason:
        raise CommandFailed(reason, FRUITLESS)
    return 0


def _others(folder: Path, name: str) -> str:
    """The campaign whose results lie in ``folder``, where it is not ours."""
    try:
        held = str(json.loads((folder / "summary.json").read_text())["campaign"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""
    return held if held != name else ""


def lacking(requires: Any, devices: Sequence[str]) -> str:
    """What the campaign requires (``evolution.campaign_limits.Requires``) and no worker that is started here has, so that it
    would wait for ever; '' where nothing is missing."""
    if requires.labels:
        labels = ", ".join(requires.labels)
        return (
            f"lease.requires.labels: the workers that run starts have none; leave out {labels}, or use serve and worker --label"
        )
    for slot in (slot.split("+") for worker in devices for slot in worker.split(",")):
        if len(slot) >= requires.devices and requires.device in (None, slot[0].partition(":")[0]):
            return ""
    kind = requires.device or "cpu"
    wanted = "+".join(kind if kind == "cpu" else f"{kind}:{index}" for index in range(requires.devices))
    return f"lease.requires: no slot of --devices {','.join(devices)} is enough for it; write --devices {wanted}"


def _devices(wish: Wish) -> list[str]:
    """One device list for each worker."""
    from worker.devices import parse_devices

    try:
        names = [device.name for device in parse_devices(wish.devices)]
        workers = wish.workers
        if workers is None and wish.devices == "all" and names == ["cpu"]:
            workers = CPU_WORKERS
        return share_devices(names, workers)
    except ValueError as error:
        raise CommandFailed(f"--devices, --workers: {error}", 2) from None


def _enter(client: Client, file: CampaignFile) -> tuple[messages.Campaign, list[str]]:
    """Create the campaign or find it again; the file decides about the budget. What was found, in words.

    Raises:
        Conflict: another campaign has this name, or more candidates are already bred than the file plans.
    """
    document = file.document
    name, planned = document["name"], document["budget"]["candidates"]
    try:
        before = client.campaign(name)
    except NotFound:
        campaign = client.create_campaign(document)
        return campaign, [f"created {name}: {planned} candidates, {campaign_file.counted(campaign_file.preflight_of(file))}"]
    stored = {**document["budget"], **before.document.get("budget", {}), "candidates": before.counts.planned}
    try:
        # Compared with the stored budget: a changed one is no other campaign.
        campaign = client.create_campaign({**document, "budget": stored})
    except Conflict as error:
        raise CommandFailed(f"{error}; or start afresh with another --folder", error.exit_code) from error
    news = [resumed(before)]
    changed = {key: value for key, value in document["budget"].items() if value != stored[key]}
    if changed:
        campaign = client.change_campaign(name, **changed)
    if planned != stored["candidates"]:
        news.append(f"the budget is now {planned} candidates; it was {stored['candidates']}")
    news += [f"{key} is now {value}; it was {stored[key]}" for key, value in changed.items() if key != "candidates"]
    if campaign.state == "halted" or (campaign.counts.failed and not campaign.counts.done):
        news.append(f"{client.retry(name)} failed candidates are tried again")
        campaign = client.campaign(name)
    elif campaign.state == "finished":
        news = [f"{name} is finished already; its files are written again"]
    return campaign, news


def _watch(
    client: Client, campaign: messages.Campaign, house: Household, stop: Stop, progress: Progress, wish: Wish
) -> messages.Campaign:
    """Until the campaign is finished. Raises CommandFailed where it was interrupted, or a child cannot be kept alive."""
    asked_at = answered_at = time.monotonic() - POLL_S
    while True:
        if stop.asked:
            progress.say("stopping: the workers hand back what they train (once more: kill)")
            counts = campaign.counts
            raise CommandFailed(
                f"stopped {campaign.name} at {counts.done} of {counts.planned} done; to go on: {wish.again}", INTERRUPTED
            )
        for line in house.tend():
            progress.say(line)
        now = time.monotonic()
        if now - asked_at >= POLL_S:
            asked_at = now
            try:
                campaign = client.campaign(campaign.name)
                progress.show(campaign, client.workers() if progress.live else ())
                answered_at = time.monotonic()
            except (Unreachable, ServerFault) as error:
                if now - answered_at > SILENCE_S:
                    progress.say(f"no news for {SILENCE_S:g} s; waiting: {error}")
                    answered_at = now
            if campaign.state in ("finished", "halted", "cancelled"):
                return campaign
        time.sleep(LOOK_S)


def _write(client: Client, campaign: messages.Campaign, folder: Path, seconds: float) -> dict[str, Any]:
    """The files of a campaign as the coordinator has them; the content of ``summary.json``."""
    written = []
    for name in (*TEXTS, PICTURE):
        try:
            content = client.binary(campaign.name, name) if name == PICTURE else client.text(campaign.name, name).encode()
        except NotFound:  # without a single result there is no best hyp set and nothing to draw
            continue
        _replace(folder / name, content)
        written.append(name)
    document = summary_document(campaign, seconds=seconds, files=[*written, "summary.json"], folder=_short(folder))
    _replace(folder / "summary.json", (json.dumps(document, indent=2, allow_nan=False) + "\n").encode())
    return document


def _replace(path: Path, content: bytes) -> None:
    draft = path.with_name(f".{path.name}.new")
    draft.write_bytes(content)
    draft.replace(path)


def _fruitless(client: Client, campaign: messages.Campaign, folder: Path) -> str:
    """Why a campaign ended without a single result or was halted; nothing where it is finished with one."""
    if campaign.counts.done and campaign.state == "finished":
        return ""
    failed = list(client.candidates(campaign.name, state="failed", limit=1000))
    kinds = failure_kinds(failed) or "all cancelled"
    said = [line for log in sorted((folder / "logs").glob("worker-*.log")) for line in _failures(log)]
    last = f"; the last: {max(said).partition(' ')[2]}" if said else ""
    what = f"{campaign.name} is halted, its newest candidates all failed"
    if campaign.state == "finished":
        what = f"no candidate of {campaign.name} has a result"
    remedy = "mend the cause and give the same command again, which tries them again"
    return f"{what} ({kinds}){last} (logs: {_short(folder / 'logs')}); {remedy}"


def _failures(log: Path) -> list[str]:
    """The lines, with their time first, in which a worker says that a training failed."""
    try:
        lines = log.read_text(errors="replace").splitlines()
    except OSError:
        return []
    return [line for line in lines if " failed (" in line][-1:]


def _next(file: CampaignFile, folder: Path) -> str:
    """What a person would do now with the best hyp set."""
    hyp = folder / TEXTS[0]
    if file.campaign.trainer.kind != "detector":
        return f"train at full length with {hyp}"
    base: Mapping[str, Any] = file.campaign.base
    data = _short(file.folder / str(base.get("data", "")))
    options = f"--model {base.get('model', 'yolov5n')} --imgsz {base.get('imgsz', 640)} --epochs 100"
    return f"python -m detector train --data {data} {options} --hyp {hyp}"


def _short(path: Path) -> str:
    """``path`` as a person here would write it."""
    path = path.absolute()
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)
