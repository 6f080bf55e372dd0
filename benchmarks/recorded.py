"""Recorded trainings as landscapes of 7 or 8 hyperparameters: a reality check beside ``benchmarks.landscapes``.

LCBench   validation accuracy of networks on OpenML tasks, by the neural surrogate of YAHPO Gym (Pfisterer et al. 2022)
TaskSet   exp(-validation loss) of text models (Metz et al. 2020), by a Gaussian process per task, capped at the best recorded

The data lie beside the checkout, in ``../shared/bench/search/data``; LCBench needs onnxruntime. Optima are the best known.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.landscapes import space_of
from evolution.space import Space

DATA = Path(__file__).resolve().parents[2] / "shared" / "bench" / "search" / "data"
HEAD_ROOM = 1.01  # of the start's value; problems below it are left out

LCBENCH = space_of("""
batch_size 16 512 64 1 log
learning_rate 1e-4 1e-1 1e-2 1 log
momentum 0.1 0.99 0.9 0.3 log1m
weight_decay 1e-5 1e-1 1e-3 1 log
num_layers 1 5 3 1 linear
max_units 64 1024 256 1 log
max_dropout 0 1 0.2 1 linear
""")
TASKSET = space_of("""
learning_rate 1e-8 10 1e-3 1 log
beta1 0 0.9999 0.9 0.3 log1m
beta2 0 0.999999 0.999 0.3 log1m
epsilon 1e-10 1e3 1e-8 1 log
l1 1e-8 10 1e-6 1 log
l2 1e-8 10 1e-6 1 log
linear_decay 1e-7 1e-4 1e-6 1 log
exponential_decay 1e-6 1e-3 1e-5 1 log
""")
LCBENCH_EPOCHS = 52
# The first half is public: strategies were developed on it. The other is for confirmation.
PUBLIC_TASKS = ("3945", "34539", "126029", "146212", "167104", "167161", "167184", "168330", "168868", "189862")
HALVES = ("public", "heldout")


class Recorded:
    """A recorded problem; see ``simulation.Problem``."""

    noise = 0.0
    space: Space
    id: int

    def __init__(self, optimum: float) -> None:
        self.free = self.space
        self.best_value, self.start_value = optimum, self.value(self.space.start)

    def value(self, hyp: Mapping[str, float]) -> float:
        """The fitness without noise."""
        raise NotImplementedError

    def regret(self, hyp: Mapping[str, float]) -> float:
        return (self.best_value - self.value(hyp)) / (self.best_value - self.start_value)

    def train(self, hyp: Mapping[str, float], rng: np.random.Generator) -> tuple[float, float]:
        duration = float(np.exp(rng.normal(0, 0.3)))
        value = self.value(hyp)
        if value <= 0:
            return math.nan, duration * 0.3
        return value * math.exp(self.noise * rng.normal()), duration


class LcBench(Recorded):
    """An OpenML task."""

    noise, space = 0.004, LCBENCH

    def __init__(self, task: str, session: Any, encoding: Mapping[str, int], optimum: float) -> None:
        self.id, self._session = int(task), session
        self._task = np.array([[encoding[task]]], np.int32)
        super().__init__(optimum)

    def value(self, hyp: Mapping[str, float]) -> float:
        whole = {"batch_size", "num_layers", "max_units"}
        numbers = [round(hyp[name]) if name in whole else hyp[name] for name in self.space.names]
        inputs = {"x_cat": self._task, "x_cont": np.array([[LCBENCH_EPOCHS, *numbers]], np.float32)}
        return float(self._session.run(None, inputs)[0][0][1]) / 100


class TaskSet(Recorded):
    """A text model's training. ``file`` holds the process at several lengths of training, the full one first."""

    noise, space = 0.01, TASKSET

    def __init__(self, file: Path, optimum: float) -> None:
        recorded = np.load(file)
        self.id = int(recorded["fid"])
        self._points, self._weights, self._inverse_lengths = recorded["A"][0], recorded["al"][0], recorded["il"][0]
        _, self._mean, self._scale, self._cap = recorded["k"][0]
        super().__init__(optimum)

    def value(self, hyp: Mapping[str, float]) -> float:
        lr, beta1, beta2, *others = (hyp[name] for name in self.space.names)
        logs = np.log10([max(lr, 1e-9), max(1 - beta1, 1e-5), max(1 - beta2, 1e-7), *others])
        r = math.sqrt(5) * np.sqrt(((logs * self._inverse_lengths - self._points) ** 2).sum(1))
        value = self._mean + self._scale * float(((1 + r + r * r / 3) * np.exp(-r)) @ self._weights)
        below = (self._cap - value) / 0.01  # a soft cap at the best recorded value: nothing is won by extrapolation
        return float(max(0.0, self._cap - 0.01 * (below if below > 30 else math.log1p(math.exp(max(below, -30))))))


def problems(half: str) -> list[Recorded]:
    """The recorded problems of a half of ``HALVES`` that have room above the start.

    Raises:
        FileNotFoundError, ImportError: the data or onnxruntime are not here.
    """
    optima = json.loads((DATA / "optima.json").read_text())
    runtime = import_module("onnxruntime")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = 1
    session = runtime.InferenceSession(str(DATA / "lcbench" / "model.onnx"), options)
    encoding = json.loads((DATA / "lcbench" / "encoding.json").read_text())["OpenML_task_id"]
    tasks = [key.removeprefix("lcbench/") for key in optima if key.startswith("lcbench/")]
    chosen = [task for task in tasks if (task in PUBLIC_TASKS) == (half == "public")]
    files = sorted((DATA / "taskset").glob("*.npz"))[HALVES.index(half) :: 2]
    found: list[Recorded] = [LcBench(task, session, encoding, optima[f"lcbench/{task}"]) for task in chosen]
    found += [TaskSet(file, optima[f"taskset/{file.stem}"]) for file in files]
    return [problem for problem in found if problem.best_value > problem.start_value * HEAD_ROOM]
