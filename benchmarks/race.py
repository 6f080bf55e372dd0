"""A race of strategies on a real detector: ``python -m benchmarks.race --json docs/results/race.json``, or ``make bench-race``.

Every strategy evolves the same small detector from the same hyp set under the same budget, once for each seed; candidate k
of seed s trains with the same training seed whoever bred it. On the built-in data the scenario is a fine-tuning: a YOLOv5n that
has learned the demo's pictures goes on for two epochs on 160 others, so a training of seconds is one of a working detector.
Each winner, and the hyp set they all started from, is then trained again with fresh seeds: what those trainings say is what
counts, since the fittest of many rows is also the luckiest.

All of it is campaigns of the product, in one folder with one coordinator and its database: run it again after any interruption
and it goes on. Strategies take turns seed by seed, so that a race cut short has whole seeds to show.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks import record
from hypevolve import messages
from hypevolve.client import Client
from hypevolve.errors import NotFound
from hypevolve.local import Household, locked

STRATEGIES = ("yolov5-2021", "ultralytics-2026", "random", "hybrid")
START = "start"  # the hyp set that all of them start from, in the tables
CONFIRM_SEED = 900_000  # far from the seeds of any evolution
POLL_S = 2.0
RESAMPLES = 10_000
BASES: Mapping[str, Mapping[str, Any]] = {
    "digits": {"model": "yolov5n", "weights": "start.safetensors", "epochs": 2, "imgsz": 96, "batch": 8, "anchors": "fitted"},
    "bccd": {"model": "yolov5n", "epochs": 3, "imgsz": 320, "batch": 8},
}


DIGITS = {"train": 160, "val": 80}  # pictures, of other digits and grounds than the ones below
BEFORE = {"epochs": 20, "lr0": 0.02, "warmup_epochs": 1.0, "momentum": 0.9}  # what the start has learned on the demo's pictures


class Race(NamedTuple):
    """Who runs, how long, and on what."""

    strategies: tuple[str, ...]
    seeds: int
    candidates: int
    confirmations: int
    base: Mapping[str, Any]


def digits_and_start(folder: Path) -> str:
    """Write the data and the weights that every candidate starts from, unless they are there; the data's path in a campaign."""
    from detector import checkpoint, digits, trainer
    from detector.scenario import Scenario
    from evolution.hyperparameters import Hyperparameters

    data = digits.write(folder / "digits", seed=1, counts=DIGITS)
    start = folder / "start.safetensors"
    if not start.exists():
        before = digits.write(folder / "digits-before")
        base = {**digits.DEMO_BASE, "data": str(before), "imgsz": 96, "epochs": BEFORE["epochs"]}
        hyp = Hyperparameters.from_mapping({name: value for name, value in BEFORE.items() if name != "epochs"})
        learned = trainer.train(hyp, Scenario.from_mapping(base, data_root=folder), seed=0)
        print(f"the start has learned the demo's pictures: map50 {learned.metrics['map50']:.3f}", flush=True)
        draft = start.with_name("draft.safetensors")
        checkpoint.save(learned.model, list(digits.CLASSES.values()), draft, 96)
        draft.replace(start)
    return str(data.relative_to(folder))


def evolution_name(strategy: str, seed: int) -> str:
    return f"race-{strategy}-{seed}"


def evolution(race: Race, strategy: str, seed: int) -> dict[str, Any]:
    """The campaign in which a strategy evolves. Seeds are so far apart that no two share a training seed."""
    return {
        "name": evolution_name(strategy, seed),
        "base": dict(race.base),
        "evolve": {"strategy": strategy, "seed": 10_000 * seed},
        "budget": {"candidates": race.candidates},
    }


def confirmation_name(strategy: str, seed: int, repeat: int) -> str:
    return f"confirm-{strategy}-{seed}-{repeat}"


def confirmation(race: Race, strategy: str, seed: int, repeat: int, hyp: Mapping[str, float] | None) -> dict[str, Any]:
    """A campaign of one candidate, ``hyp`` (None: the start), with a training seed that no evolution has used.

    Winners of the same seed and repeat share their training seed, and with it the order of the data.
    """
    document = {
        "name": confirmation_name(strategy, seed, repeat),
        "base": dict(race.base),
        "evolve": {"strategy": "random", "seed": CONFIRM_SEED + 1000 * seed + repeat},
        "budget": {"candidates": 1},
    }
    return document if hyp is None else document | {"hyp": dict(hyp)}


def stages(race: Race, client: Client) -> Iterator[tuple[str, list[str]]]:
    """The race in the order it is run: a strategy, and the campaigns (created already) that are now to be trained."""
    for seed in range(race.seeds):
        for repeat in range(race.confirmations):
            client.create_campaign(confirmation(race, START, seed, repeat, None))
        yield START, [confirmation_name(START, seed, repeat) for repeat in range(race.confirmations)]
    # The strategy named last runs last.
    for strategies in (race.strategies[:-1], race.strategies[-1:]):
        for seed in range(race.seeds):
            for strategy in strategies:
                name = client.create_campaign(evolution(race, strategy, seed)).name
                yield strategy, [name]
                best = client.best(name)[0]
                names = []
                for repeat in range(race.confirmations):
                    names.append(client.create_campaign(confirmation(race, strategy, seed, repeat, best.hyp)).name)
                yield strategy, names


def run(race: Race, folder: Path, port: int | None) -> None:
    """Train whatever is not trained yet."""
    asked: list[int] = []
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, _: asked.append(number))
    cpu = Ledger(folder / "cpu.json")
    with locked(folder), Household(folder, os.environ, lambda: bool(asked)) as house:
        url = house.start_coordinator(port, None, None)
        if url is None:
            raise SystemExit("stopped; run it again to go on")
        house.start_workers(url, ["cpu"], (), folder)
        with Client(url) as client:
            for strategy, names in stages(race, client):
                for name in names:
                    _train(client, house, cpu, strategy, name, asked)
                (folder / "race.json").write_text(json.dumps(results(race, client, cpu.seconds), indent=1) + "\n")


def _train(client: Client, house: Household, cpu: Ledger, strategy: str, name: str, asked: Sequence[int]) -> None:
    """Until a campaign is finished."""
    while (campaign := client.campaign(name)).state != "finished":
        if asked:
            raise SystemExit(f"stopped at {campaign.counts.done} of {name}; run it again to go on")
        if campaign.state == "halted":
            raise SystemExit(f"every newest candidate of {name} failed; see {house.folder / 'logs'}")
        for line in house.tend():
            print(line, flush=True)
        time.sleep(POLL_S)
        cpu.charge(f"{strategy}:{name}", os.getpid())
    best = campaign.best
    print(f"{name}: {campaign.counts.done} done, best {best.fitness if best else float('nan'):.4f}", flush=True)


class Ledger:
    """Processor seconds by campaign, of this process and all it has started; kept in a file, added to from run to run."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self.seconds: dict[str, float] = json.loads(file.read_text()) if file.exists() else {}
        self._seen: dict[int, float] = {}

    def charge(self, name: str, root: int) -> None:
        now = _processor_seconds(root)
        spent = sum(max(seconds - self._seen.get(pid, 0.0), 0.0) for pid, seconds in now.items())
        self._seen = now
        self.seconds[name] = self.seconds.get(name, 0.0) + spent
        draft = self._file.with_suffix(".new")
        draft.write_text(json.dumps(self.seconds))
        draft.replace(self._file)


def _processor_seconds(root: int) -> dict[int, float]:
    """Of each process below ``root``, itself included, from Linux' /proc."""
    parents, seconds = {}, {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:  # it has ended meanwhile
            continue
        pid = int(stat.parent.name)
        parents[pid] = int(fields[1])
        seconds[pid] = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def below(pid: int) -> bool:
        while pid not in (root, 0, 1):
            pid = parents.get(pid, 0)
        return pid == root

    return {pid: spent for pid, spent in seconds.items() if below(pid)}


def results(race: Race, client: Client, cpu: Mapping[str, float]) -> dict[str, Any]:
    """What the campaigns in the database say; only whole evolutions count."""
    start = [_confirmed(client, START, seed, race.confirmations) for seed in range(race.seeds)]
    table = {}
    for strategy in race.strategies:
        runs = []
        for seed in range(race.seeds):
            name = evolution_name(strategy, seed)
            try:
                campaign = client.campaign(name)
            except NotFound:
                continue
            if campaign.state != "finished" or campaign.best is None:
                continue
            rows = [row for row in client.candidates(name, limit=500) if row.fitness is not None]
            runs.append(
                {
                    "seed": seed,
                    "done": campaign.counts.done,
                    "failed": campaign.counts.failed,
                    "fitness": [row.fitness for row in rows],
                    "best_number": campaign.best.number,
                    "best_fitness": campaign.best.fitness,
                    "best_hyp": campaign.best.hyp,
                    "cpu_hours": cpu.get(f"{strategy}:{name}", 0.0) / 3600,
                    "confirmed": _confirmed(client, strategy, seed, race.confirmations),
                }
            )
        table[strategy] = {"runs": runs}
    return {"race": race._asdict(), "start": start, "strategies": table}


def _confirmed(client: Client, strategy: str, seed: int, confirmations: int) -> list[float]:
    found: list[messages.Candidate | None] = []
    for repeat in range(confirmations):
        try:
            found.append(client.campaign(confirmation_name(strategy, seed, repeat)).best)
        except NotFound:
            continue
    return [best.fitness for best in found if best is not None and best.fitness is not None]


def interval(samples: Sequence[Sequence[float]], rng: np.random.Generator) -> list[float]:
    """95 % of the mean of the runs' means: runs are drawn anew, and within each its confirmations."""
    runs = [np.asarray(run) for run in samples]
    means = np.empty(RESAMPLES)
    for index in range(RESAMPLES):
        drawn = [runs[i] for i in rng.integers(len(runs), size=len(runs))]
        means[index] = np.mean([rng.choice(run, len(run)).mean() for run in drawn])
    return [round(float(q), 4) for q in np.quantile(means, [0.025, 0.975])]


def summed_up(found: dict[str, Any]) -> dict[str, Any]:
    """``found`` with the means and intervals that the table shows."""
    rng = np.random.default_rng(0)
    start = found["start"]
    found["start_mean"], found["start_interval"] = float(np.mean(start)), interval(start, rng)
    for entry in found["strategies"].values():
        runs = [run for run in entry["runs"] if run["confirmed"]]
        if not runs:
            continue
        confirmed = [run["confirmed"] for run in runs]
        # Confirmations of one seed share their training seeds with those of the start hyp set.
        lead = [list(np.subtract(run["confirmed"], start[run["seed"]][: len(run["confirmed"])])) for run in runs]
        entry |= {
            "trainings": sum(run["done"] + run["failed"] for run in runs),
            "cpu_hours": float(sum(run["cpu_hours"] for run in runs)),
            "observed": float(np.mean([run["best_fitness"] for run in runs])),
            "confirmed": float(np.mean([np.mean(c) for c in confirmed])),
            "confirmed_interval": interval(confirmed, rng),
            "lead_over_start": float(np.mean([np.mean(x) for x in lead])),
            "lead_interval": interval(lead, rng),
        }
    return found


def table(found: Mapping[str, Any]) -> str:
    """The result as a Markdown table."""
    lines = [
        "| strategy | runs | trainings | CPU hours | best as observed | confirmed with fresh seeds | lead over the start |"
    ]
    lines.append("|---|---|---|---|---|---|---|")
    low, high = found["start_interval"]
    lines.append(f"| the start hyp set | – | – | – | – | {found['start_mean']:.3f} [{low:.3f}, {high:.3f}] | – |")
    for name, entry in sorted(found["strategies"].items(), key=lambda item: -item[1].get("confirmed", -1)):
        if "confirmed" not in entry:
            continue
        (low, high), (less, more) = entry["confirmed_interval"], entry["lead_interval"]
        lines.append(
            f"| {name} | {len(entry['runs'])} | {entry['trainings']} | {entry['cpu_hours']:.2f} | {entry['observed']:.3f} "
            f"| {entry['confirmed']:.3f} [{low:.3f}, {high:.3f}] | {entry['lead_over_start']:+.3f} [{less:+.3f}, {more:+.3f}] |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description="Race strategies on a real detector.")
    parser.add_argument("--folder", type=Path, default=Path("runs/race"), help="of the campaigns; there already: go on")
    parser.add_argument("--data", choices=sorted(BASES), default="digits")
    parser.add_argument("--bccd", type=Path, default=record.ROOT.parent / "shared" / "datasets" / "bccd-voc")
    parser.add_argument("--strategies", default=",".join(STRATEGIES))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--candidates", type=int, default=60)
    parser.add_argument("--confirmations", type=int, default=3)
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--imgsz", type=int)
    parser.add_argument("--port", type=int)
    parser.add_argument("--report", action="store_true", help="print what is trained already, and train nothing")
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    folder = asked.folder.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    if asked.data == "digits":
        data = digits_and_start(folder)
    elif asked.bccd.exists():
        data = str(asked.bccd.absolute())
    else:
        raise SystemExit(f"there is no {asked.bccd}; give BCCD's folder with --bccd")
    given = {key: getattr(asked, key) for key in ("epochs", "imgsz") if getattr(asked, key) is not None}
    base = {"data": data, **BASES[asked.data], **given}
    race = Race(tuple(asked.strategies.split(",")), asked.seeds, asked.candidates, asked.confirmations, base)
    if not asked.report:
        run(race, folder, asked.port)
    found = summed_up(json.loads((folder / "race.json").read_text()))
    print(table(found))
    if asked.json:
        record.write(asked.json, seed=0, results=found)


if __name__ == "__main__":
    main()
