"""One training: from a hyp set, a base scenario and a seed to metrics and weights."""

from __future__ import annotations

import contextlib
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from detector import anchors, checkpoint, optim
from detector.batches import Show, batches_per_epoch, scaled, training_batches
from detector.cache import Picture, Pictures, load_cached
from detector.data import load
from detector.ema import Average
from detector.errors import TrainingDiverged
from detector.evaluate import evaluate
from detector.execution import Execution
from detector.lineages import Loss
from detector.lineages import loss_of as lineage_loss
from detector.models import Detector, architecture
from detector.resident import lives_on_device, resident
from detector.resume import Checkpoints, Place, identity
from detector.scenario import Scenario
from evolution.hyperparameters import Hyperparameters

MOST_GRADIENT = 10.0
# Iterations between looks at the losses of a GPU: a look waits until it has caught up.
LOOK_EVERY = 50

CPU = Execution()

Report = Callable[[int, dict[str, float]], None]
Progress = Callable[[float], None]
Keep = Callable[[Path, int], None]


@dataclass(frozen=True)
class Training:
    """What a training leaves: its last evaluation, wall ``seconds``, the hash of the data, and the averaged ``model``.

    ``metrics`` holds precision, recall, f1, conf, map50, map50_95, val_box, val_obj and val_cls; it is empty in the processes
    of a team that do not lead. ``unmatched`` names the tensors that the scenario's weights did not fill.
    """

    metrics: dict[str, float]
    seconds: float
    data_hash: str
    model: Detector
    unmatched: tuple[str, ...] = ()


def train(
    hyp: Hyperparameters,
    scenario: Scenario,
    *,
    seed: int,
    execution: Execution = CPU,
    report: Report = lambda epoch, metrics: None,
    progress: Progress = lambda fraction: None,
    checkpoints: str | Path | None = None,
    checkpoint_every_s: float | None = None,
    checkpoint_least_s: float = 0.0,
    on_checkpoint: Keep = lambda path, epochs: None,
) -> Training:
    """Trains from scratch, or from the scenario's weights, and evaluates the averaged weights.

    ``report(epoch, metrics)`` is called after each epoch (from 0) with train_box, train_obj, train_cls, lr and, where it was
    evaluated, the final metrics' names; ``progress(fraction)`` after each batch. Either may raise to stop the training. On
    a CPU the same hyp set, scenario, data, seed, ``execution`` and number of threads give the same weights bit by bit.

    ``checkpoints`` is a folder for checkpoints: one after each epoch (not within ``checkpoint_least_s`` of the last), one after
    ``checkpoint_every_s`` without any, one where ``progress`` stops the training; ``on_checkpoint(path, epochs done)`` hears of
    each. A training that finds one there goes on from it, to the same bits on a CPU; an epoch's report may then come twice.

    Raises:
        DataError: the data set or the weights cannot be used; OtherTraining: a checkpoint there is of another training.
        TrainingDiverged: the loss became NaN or infinite.
        ValueError: the hyp set is of another lineage than the scenario, or the batch is no multiple of the team's size.
    """
    if hyp.lineage != scenario.lineage:
        raise ValueError(f"the hyp set is of lineage {hyp.lineage}, base.lineage is {scenario.lineage}; make them equal")
    team = execution.team
    if scenario.batch % team.size:
        raise ValueError(f"base.batch is {scenario.batch}, which {team.size} processes cannot share; make it a multiple")
    started = time.perf_counter()
    cv2.setNumThreads(torch.get_num_threads())  # a second thread on a core that is taken costs more than it gives
    pictures = load_cached(scenario.data, scenario.imgsz)
    model, unmatched = initial_model(hyp, scenario, pictures, seed)
    device, on_device = execution.device, lives_on_device(pictures, execution)
    model = model.to(device, memory_format=torch.channels_last)
    per_epoch = batches_per_epoch(len(pictures.train), scenario.batch)
    if scenario.optimizer == "auto":
        model.average_norms(optim.norm_momentum(scenario.epochs * per_epoch))
    average = Average(model)
    nominal = scenario.nominal_batch or scenario.batch
    accumulate = max(round(nominal / scenario.batch), 1)
    optimizer, factor = optim.build(model, scenario.optimizer, hyp, scenario.batch * accumulate / nominal)
    schedule = optim.Schedule(hyp, scenario.epochs * per_epoch, per_epoch, accumulate, factor)
    sizes = {scenario.size_at(epoch) for epoch in range(scenario.epochs)}
    stages = {size: _stage(hyp, scenario, size, model, device, on_device) for size in sizes}
    judge = stages[scenario.imgsz].loss
    scaler = torch.amp.GradScaler(execution.kind, enabled=execution.scaled)
    look_every = 1 if execution.kind == "cpu" else LOOK_EVERY

    kept, place = None, Place()
    if checkpoints is not None:
        which = identity(hyp, scenario, seed, pictures.dataset.data_hash)
        kept = Checkpoints(checkpoints, which, checkpoint_every_s, checkpoint_least_s)
        place = kept.restore(model, average, optimizer)
    if place.scaler:
        scaler.load_state_dict(place.scaler)
    sums = place.sums.to(device)
    network = _network(model, execution)
    started -= place.seconds

    def keep(epoch_ends: bool = False, now: bool = False) -> None:
        # Gradients that wait for their step are not written: the checkpoint waits with them.
        if kept is not None and team.leads and (now or kept.due(epoch_ends)) and not pending:
            place.steps, place.seconds, place.sums = average.steps, time.perf_counter() - started, sums
            place.scaler = scaler.state_dict()
            on_checkpoint(kept.save(place, model, average, optimizer), place.epoch)

    pending = 0
    for epoch in range(place.epoch, scenario.epochs):
        model.train()
        size = scenario.size_at(epoch)
        stage = stages[size]
        share = (team.rank, team.size)
        for batch in training_batches(
            stage.pictures, hyp, size, scenario.batch, scenario.rect, seed, epoch, place.batch, stage.show, share
        ):
            rates = schedule.at(place.iteration)
            optim.apply(optimizer, rates)
            steps = pending + 1 >= rates.accumulate or place.iteration + 1 == schedule.total
            images = batch.images.to(device, non_blocking=True).float() / 255
            if scenario.multi_scale:
                images = scaled(images, seed, epoch, place.batch)
            with contextlib.nullcontext() if steps or team.size == 1 else network.no_sync():
                with execution.autocast():
                    maps = network(images)
                loss, parts = stage.loss(maps, batch.targets.to(device, non_blocking=True))
                # A loss grows with its share of the batch and processes average their gradients: times their number is the sum.
                scaler.scale(loss * team.size).backward()
            place.iteration, place.batch, pending = place.iteration + 1, place.batch + 1, pending + 1
            sums += team.mean(parts)
            if place.iteration % look_every == 0 or place.batch == per_epoch:
                _diverged(sums, epoch, place.iteration)
            if steps:
                scaler.unscale_(optimizer)
                torch.nn.utils.clip_grad_norm_(model.parameters(), MOST_GRADIENT, foreach=True)
                scaler.step(optimizer)
                scaler.update()
                optimizer.zero_grad(set_to_none=True)
                average.update()
                pending = 0
            keep()
            try:
                if team.leads:
                    progress(place.iteration / schedule.total)
            except BaseException:
                keep(now=True)
                raise
        metrics = dict(zip(("train_box", "train_obj", "train_cls"), (sums / per_epoch).tolist(), strict=True))
        metrics["lr"] = schedule.at(place.iteration - 1).lr
        last = epoch == scenario.epochs - 1
        if team.leads and (last or (scenario.val_every and (epoch + 1) % scenario.val_every == 0)):
            place.final = evaluate(average.model, judge, pictures.val, 2 * scenario.batch, device, on_device)
            if not all(np.isfinite(v) for v in place.final.values()):
                raise TrainingDiverged(f"the validation loss is not finite after epoch {epoch}")
            metrics |= place.final
        if team.leads:
            report(epoch, metrics)
        place.epoch, place.batch = epoch + 1, 0
        sums.zero_()
        keep(epoch_ends=True)
    return Training(place.final, time.perf_counter() - started, pictures.dataset.data_hash, average.model, unmatched)


def initial_model(hyp: Hyperparameters, scenario: Scenario, pictures: Pictures, seed: int) -> tuple[Detector, tuple[str, ...]]:
    """The model before its first step: anchors chosen, weights drawn from ``seed`` without touching the caller's random state.

    Where the scenario names ``weights``, every tensor that fits comes from that file; the names of those that did not follow.
    """
    chosen = anchors.choose(
        architecture(scenario.model), pictures.train, pictures.dataset.data_hash, scenario.imgsz, scenario.anchors, hyp.anchors
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Detector(scenario.model, len(pictures.dataset.names), chosen, scenario.lineage)
    model.expect(640)
    unmatched = checkpoint.load_into(model, scenario.weights).unmatched if scenario.weights else ()
    return model, unmatched


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


class _Stage(NamedTuple):
    """What epochs of one image size train on, and with."""

    pictures: Sequence[Picture]
    loss: Loss
    show: Show | None


def _stage(hyp: Hyperparameters, scenario: Scenario, size: int, model: Detector, device: str, on_device: bool) -> _Stage:
    shown = load_cached(scenario.data, size).train
    show = resident(shown, device).batch if on_device else None
    return _Stage(shown, lineage_loss(model, hyp, size, fixed=on_device), show)


def _network(model: Detector, execution: Execution) -> Any:
    """What images go through: the model itself, compiled or shared with a team where ``execution`` says so."""
    network: Any = model
    if execution.sync_norms:
        network = nn.SyncBatchNorm.convert_sync_batchnorm(network)
    if execution.compile:
        # On a GPU recorded once and replayed without the host: shapes are fixed, but with ``rect``.
        network = torch.compile(network, dynamic=False, mode="reduce-overhead" if execution.kind == "cuda" else None)
    if execution.team.size > 1:
        # Batch-norm statistics stay each process's own; those of rank 0 are averaged, evaluated and kept.
        with warnings.catch_warnings(action="ignore", category=FutureWarning):  # of a new name that older versions lack
            network = DistributedDataParallel(network, broadcast_buffers=False, gradient_as_bucket_view=True)
    return network


def _diverged(sums: torch.Tensor, epoch: int, iteration: int) -> None:
    """Raises TrainingDiverged where the losses (3,) added up so far are no numbers."""
    if not torch.isfinite(sums).all():
        raise TrainingDiverged(f"the loss became {sums.sum().item()} in epoch {epoch}, by iteration {iteration}")
