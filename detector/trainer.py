"""One training: from a hyp set, a base scenario and a seed to metrics and weights."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import torch

from detector import anchors, checkpoint, optim
from detector.batches import Batch, batches_per_epoch, training_batches
from detector.cache import Pictures, load_cached
from detector.data import load
from detector.ema import Average
from detector.errors import TrainingDiverged
from detector.evaluate import evaluate
from detector.lineages import loss_of as lineage_loss
from detector.models import Detector, architecture
from detector.scenario import Scenario
from evolution.hyperparameters import Hyperparameters

MOST_GRADIENT = 10.0

Report = Callable[[int, dict[str, float]], None]
Progress = Callable[[float], None]


@dataclass(frozen=True)
class Training:
    """What a training leaves: its last evaluation, wall ``seconds``, the hash of the data, and the averaged ``model``.

    ``metrics`` holds precision, recall, f1, conf, map50, map50_95, val_box, val_obj and val_cls.
    """

    metrics: dict[str, float]
    seconds: float
    data_hash: str
    model: Detector


def train(
    hyp: Hyperparameters,
    scenario: Scenario,
    *,
    seed: int,
    device: str = "cpu",
    report: Report = lambda epoch, metrics: None,
    progress: Progress = lambda fraction: None,
) -> Training:
    """Trains from scratch, or from the scenario's weights, and evaluates the averaged weights.

    ``report(epoch, metrics)`` is called after each epoch (from 0) with train_box, train_obj, train_cls, lr and, where it was
    evaluated, the final metrics' names; ``progress(fraction)`` after each batch. Either may raise to stop the training. On
    a CPU the same hyp set, scenario, data, seed and number of threads give the same weights bit by bit.

    Raises:
        DataError: the data set or the checkpoint cannot be used.
        TrainingDiverged: the loss became NaN or infinite.
        ValueError: the hyp set is of another lineage than the scenario.
    """
    if hyp.lineage != scenario.lineage:
        raise ValueError(f"the hyp set is of lineage {hyp.lineage}, base.lineage is {scenario.lineage}; make them equal")
    started = time.perf_counter()
    cv2.setNumThreads(torch.get_num_threads())  # a second thread on a core that is taken costs more than it gives
    pictures = load_cached(scenario.data, scenario.imgsz)
    model = initial_model(hyp, scenario, pictures, seed).to(device, memory_format=torch.channels_last)
    average = Average(model)
    per_epoch = batches_per_epoch(len(pictures.train), scenario.batch)
    nominal = scenario.nominal_batch or scenario.batch
    accumulate = max(round(nominal / scenario.batch), 1)
    optimizer, factor = optim.build(model, scenario.optimizer, hyp, scenario.batch * accumulate / nominal)
    schedule = optim.Schedule(hyp, scenario.epochs * per_epoch, per_epoch, accumulate, factor)
    loss_of = lineage_loss(model, hyp, scenario.imgsz)

    final: dict[str, float] = {}
    iteration, pending = 0, 0
    for epoch in range(scenario.epochs):
        model.train()
        sums = torch.zeros(3)
        for batch in training_batches(pictures.train, hyp, scenario.imgsz, scenario.batch, scenario.rect, seed, epoch):
            rates = schedule.at(iteration)
            optim.apply(optimizer, rates)
            images, targets = _to(batch, device)
            loss, parts = loss_of(model(images), targets)
            parts = parts.cpu()
            if not torch.isfinite(parts).all():
                raise TrainingDiverged(f"the loss became {parts.sum().item()} in epoch {epoch}, iteration {iteration}")
            loss.backward()
            iteration, pending = iteration + 1, pending + 1
            if pending >= rates.accumulate or iteration == schedule.total:
                torch.nn.utils.clip_grad_norm_(model.parameters(), MOST_GRADIENT, foreach=True)
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
                average.update()
                pending = 0
            sums += parts
            progress(iteration / schedule.total)
        metrics = dict(zip(("train_box", "train_obj", "train_cls"), (sums / per_epoch).tolist(), strict=True))
        metrics["lr"] = rates.lr
        last = epoch == scenario.epochs - 1
        if last or (scenario.val_every and (epoch + 1) % scenario.val_every == 0):
            final = evaluate(average.model, loss_of, pictures.val, 2 * scenario.batch, device)
            if not all(np.isfinite(v) for v in final.values()):
                raise TrainingDiverged(f"the validation loss is not finite after epoch {epoch}")
            metrics |= final
        report(epoch, metrics)
    return Training(final, time.perf_counter() - started, pictures.dataset.data_hash, average.model)


def initial_model(hyp: Hyperparameters, scenario: Scenario, pictures: Pictures, seed: int) -> Detector:
    """The model before its first step: anchors chosen, weights drawn from ``seed`` without touching the caller's random state.

    Where the scenario names ``weights``, every tensor that fits comes from that checkpoint.
    """
    chosen = anchors.choose(
        architecture(scenario.model), pictures.train, pictures.dataset.data_hash, scenario.imgsz, scenario.anchors, hyp.anchors
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Detector(scenario.model, len(pictures.dataset.names), chosen, scenario.lineage)
    model.expect(640)
    if scenario.weights:
        checkpoint.load_into(model, scenario.weights)
    return model


def describe(scenario: Scenario) -> dict[str, Any]:
    """What a training of this scenario would work on, without decoding an image: for checks before a campaign starts.

    Keys: classes (names), images and val_images (counts), labels (training boxes), has_polygons, iterations, data_hash,
    remarks.

    Raises:
        DataError: the data set cannot be used.
    """
    dataset = load(scenario.data)
    return {
        "classes": list(dataset.names),
        "images": len(dataset.train),
        "val_images": len(dataset.val),
        "labels": sum(len(s.labels) for s in dataset.train),
        "has_polygons": dataset.has_polygons,
        "iterations": scenario.epochs * batches_per_epoch(len(dataset.train), scenario.batch),
        "data_hash": dataset.data_hash,
        "remarks": list(dataset.remarks),
    }


def _to(batch: Batch, device: str) -> tuple[torch.Tensor, torch.Tensor]:
    return batch.images.to(device, non_blocking=True).float() / 255, batch.targets.to(device, non_blocking=True)
