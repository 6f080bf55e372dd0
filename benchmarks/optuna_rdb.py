"""Optuna's RDB storage as a coordinator is measured: ask and tell by processes that share one study on PostgreSQL.

Runs in an environment of its own (optuna, psycopg2-binary, cmaes) and imports nothing of ours:

    .venv-peers/bin/python benchmarks/optuna_rdb.py seed URL ROWS
    .venv-peers/bin/python benchmarks/optuna_rdb.py run URL SAMPLER CLIENTS SECONDS

Everything is in Optuna's favour: the study is loaded once and the clients, forked from that process, inherit its cache; a real
worker would pay for the loading first. ``run`` prints {cycles, seconds, latencies, cpu_s} of all clients together.
"""

import json
import multiprocessing
import os
import resource
import sys
import time
import warnings
from typing import Any

import optuna
import sqlalchemy
from optuna.distributions import FloatDistribution, distribution_to_json

# The genes of yolov5's evolution: lower bound, upper bound, sampled by its logarithm.
GENES = {
    "lr0": (1e-5, 1e-1, True), "lrf": (0.01, 1.0, True), "momentum": (0.6, 0.98, False), "weight_decay": (0.0, 0.001, False),
    "warmup_epochs": (0.0, 5.0, False), "warmup_momentum": (0.0, 0.95, False), "warmup_bias_lr": (0.0, 0.2, False),
    "box": (0.02, 0.2, False), "cls": (0.2, 4.0, False), "cls_pw": (0.5, 2.0, False), "obj": (0.2, 4.0, False),
    "obj_pw": (0.5, 2.0, False), "iou_t": (0.1, 0.7, False), "anchor_t": (2.0, 8.0, False), "anchors": (2.0, 10.0, False),
    "fl_gamma": (0.0, 2.0, False), "hsv_h": (0.0, 0.1, False), "hsv_s": (0.0, 0.9, False), "hsv_v": (0.0, 0.9, False),
    "degrees": (0.0, 45.0, False), "translate": (0.0, 0.9, False), "scale": (0.0, 0.9, False), "shear": (0.0, 10.0, False),
    "perspective": (0.0, 0.001, False), "flipud": (0.0, 1.0, False), "fliplr": (0.0, 1.0, False), "mosaic": (0.0, 1.0, False),
    "mixup": (0.0, 1.0, False), "copy_paste": (0.0, 1.0, False),
}  # fmt: skip
DISTRIBUTIONS = {name: FloatDistribution(low, high, log=log) for name, (low, high, log) in GENES.items()}
STUDY = "s"
POPULATION = 50  # NSGAIISampler's default

# Finished trials as a real run of NSGA-II leaves them, written by SQL: through Optuna 10 000 of them take an hour.
SEED = """
insert into trials (number, study_id, state, datetime_start, datetime_complete)
select g, 1, 'COMPLETE', now(), now() from generate_series(0, :rows - 1) g;
insert into trial_params (trial_id, param_name, param_value, distribution_json)
select t.trial_id, gene.name, gene.low + (gene.high - gene.low) * random(), gene.distribution
from trials t cross join json_to_recordset(:genes) as gene (name text, low float8, high float8, distribution text);
insert into trial_values (trial_id, objective, value, value_type) select trial_id, 0, random(), 'FINITE' from trials;
insert into trial_system_attributes (trial_id, key, value_json)
select trial_id, 'NSGAIISampler:generation', (number / :population)::text from trials;
insert into study_system_attributes (study_id, key, value_json)
select 1, 'NSGAIISampler:parent:' || g,
       (select json_agg(x)::text from generate_series((g - 1) * :population + 1, g * :population) x)
from generate_series(1, :rows / :population) g;
"""


def seed(url: str, rows: int) -> None:
    """A study with ``rows`` finished trials."""
    storage = optuna.storages.RDBStorage(url)
    optuna.create_study(storage=storage, study_name=STUDY, direction="maximize")
    genes = [
        {"name": name, "low": low, "high": high, "distribution": distribution_to_json(DISTRIBUTIONS[name])}
        for name, (low, high, _) in GENES.items()
    ]
    if rows:
        with storage.engine.begin() as connection:
            values = {"rows": rows, "genes": json.dumps(genes), "population": POPULATION}
            connection.execute(sqlalchemy.text(SEED), values)
    storage.engine.dispose()


def sampler(name: str, number: int) -> Any:
    kinds = {
        "random": optuna.samplers.RandomSampler,
        "tpe": optuna.samplers.TPESampler,
        "nsga2": optuna.samplers.NSGAIISampler,
        "cma-es": optuna.samplers.CmaEsSampler,
    }
    return kinds[name](seed=number)


def fitness(hyp: dict[str, float]) -> float:
    return 1 - sum(((hyp[name] - low) / (high - low) - 0.4) ** 2 for name, (low, high, _) in GENES.items()) / len(GENES)


def client(number: int, study: Any, name: str, seconds: float, begin: Any, answers: Any) -> None:
    study.sampler = sampler(name, number + 1)
    begin.wait()
    latencies = []
    began, used = time.perf_counter(), resource.getrusage(resource.RUSAGE_SELF)
    while time.perf_counter() - began < seconds:
        asked = time.perf_counter()
        trial = study.ask(DISTRIBUTIONS)
        study.tell(trial, fitness(trial.params))
        latencies.append(time.perf_counter() - asked)
    now = resource.getrusage(resource.RUSAGE_SELF)
    cpu_s = now.ru_utime + now.ru_stime - used.ru_utime - used.ru_stime
    answers.put({"latencies": latencies, "seconds": time.perf_counter() - began, "cpu_s": cpu_s})


def run(url: str, name: str, clients: int, seconds: float) -> dict[str, Any]:
    """Ask and tell in a loop from ``clients`` processes; what all of them did together."""
    study = optuna.load_study(study_name=STUDY, storage=url, sampler=sampler(name, 0))
    study.tell(study.ask(DISTRIBUTIONS), 0.5)
    study.get_trials(deepcopy=False)
    study._storage._backend.remove_session()
    study._storage._backend.engine.dispose()
    context = multiprocessing.get_context("fork")
    begin, answers = context.Barrier(clients), context.Queue()
    processes = [context.Process(target=client, args=(n, study, name, seconds, begin, answers)) for n in range(clients)]
    for process in processes:
        process.start()
    done = [answers.get(timeout=900) for _ in processes]
    for process in processes:
        process.join()
    return {
        "cycles": sum(len(one["latencies"]) for one in done),
        "cycles_per_s": sum(len(one["latencies"]) / one["seconds"] for one in done),
        "latencies": [latency for one in done for latency in one["latencies"]],
        "cpu_s": sum(one["cpu_s"] for one in done),
    }


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    warnings.filterwarnings("ignore")
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    if sys.argv[1] == "seed":
        seed(sys.argv[2], int(sys.argv[3]))
    else:
        print(json.dumps(run(sys.argv[2], sys.argv[3], int(sys.argv[4]), float(sys.argv[5]))))
