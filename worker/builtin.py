"""The built-in detector as a trainer: on one device, or on all of a slot's devices together."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from worker.checkpoints import LEAST_S
from worker.context import Context, Trained
from worker.crew import gathered
from worker.devices import cuda_fault
from worker.errors import NotInstalled, TrainingFailed

if TYPE_CHECKING:
    from detector.scenario import Scenario
    from detector.team import Team
    from detector.trainer import Training
    from evolution.hyperparameters import Hyperparameters


def train(context: Context) -> Trained:
    """Train once. Further devices help as far as the batch can be shared evenly among them.

    Raises:
        TrainingFailed, NotInstalled, Interrupted, Cancelled.
    """
    _prepare(context)
    from detector.cache import load_cached
    from detector.checkpoint import weights_hash

    hyp, scenario = _read(context)
    for key, path in (("data", scenario.data), ("weights", scenario.weights)):
        if path and not Path(path).exists():  # what is wrong inside it would be wrong on every node
            remedy = f"start the worker with the --data-root that holds {context.base[key]}, or put it there"
            raise NotInstalled(f"base.{key}: {path} does not exist; {remedy} (--data-root is {context.data_root})", "no_data")
    if context.checkpoint.exists():  # its name sorts before any that this training will write
        _folder(context).mkdir()
        context.checkpoint.rename(_folder(context) / f"step-{0:08d}-{0:05d}.safetensors")
    with _judged():
        data_hash = load_cached(scenario.data, scenario.imgsz).dataset.data_hash
        if context.data_hash not in (None, data_hash):  # known before hours of training rather than after
            hashes = f"hash {data_hash[:12]}, the campaign's {context.data_hash[:12]}"
            raise NotInstalled(
                f"base.data: this node has other data ({hashes}); make {scenario.data} the same on every node", "other_data"
            )
        with gathered(context, team_size(context.devices, scenario)) as team:
            training = _run(context, hyp, scenario, team)
    if training.unmatched:
        print(f"{scenario.weights}: did not fill {', '.join(training.unmatched)}", file=sys.stderr)
    return Trained(training.metrics, training.seconds, training.data_hash, weights_hash(training.model))


def join(context: Context, rank: int, size: int, place: Path) -> None:
    """Train as process ``rank`` of a team of ``size`` whose leader waits at ``place``.

    Raises:
        TrainingFailed, NotInstalled.
    """
    _prepare(context)
    from detector.team import met

    hyp, scenario = _read(context)
    with _judged(), met(context.device, rank, size, place) as team:
        _run(context, hyp, scenario, team)


def _prepare(context: Context) -> None:
    """Loads torch. Raises NotInstalled where it, or a device, is not there."""
    try:
        import torch

        import detector.trainer  # noqa: F401
    except ImportError as error:
        package = {"cv2": "opencv-python"}.get(str(error.name), error.name or str(error))
        raise NotInstalled(
            f"the built-in detector cannot be loaded here ({error}); install {package}, or the extra hypevolve[worker]"
        ) from error
    if context.device == "cpu":
        torch.set_num_threads(1)
    if fault := cuda_fault(context.devices, torch.__version__, torch.cuda.device_count()):
        raise NotInstalled(f"{fault}; write --devices cpu, or install a torch for this GPU")


def _read(context: Context) -> tuple[Hyperparameters, Scenario]:
    from detector.scenario import Scenario
    from evolution.hyperparameters import Hyperparameters, split_hyp

    try:
        genes, instead = split_hyp(context.hyp)  # a gene such as optimizer takes the place of the base scenario's
        scenario = Scenario.from_mapping({**context.base, "epochs": context.epochs, **instead}, data_root=context.data_root)
        return Hyperparameters.from_mapping(genes, scenario.lineage), scenario
    except ValueError as error:
        raise TrainingFailed("data", str(error)) from error


def team_size(devices: Sequence[str], scenario: Scenario) -> int:
    """How many of a slot's devices train together: the most that share the batch evenly."""
    if not devices[0].startswith(("cpu", "cuda")):  # torch.distributed knows no other
        return 1
    size = max(n for n in range(1, len(devices) + 1) if scenario.batch % n == 0)
    if size < len(devices):
        print(f"base.batch {scenario.batch} is shared evenly by {size} of {len(devices)} devices", file=sys.stderr)
    return size


def _folder(context: Context) -> Path:
    return context.dir / "checkpoints"


def _run(context: Context, hyp: Hyperparameters, scenario: Scenario, team: Team) -> Training:
    """The training itself, in each process of the team; the leader alone reports and writes."""
    from detector.errors import OtherTraining
    from detector.execution import Execution
    from detector.trainer import train as train_detector

    def report(epoch: int, metrics: Mapping[str, float]) -> None:
        context.report(epoch, **metrics)

    def run(folder: Path) -> Training:
        return train_detector(
            hyp,
            scenario,
            seed=context.seed,
            execution=Execution(context.device, team=team),
            report=report,
            progress=context.progress,
            checkpoints=folder,
            checkpoint_every_s=context.checkpoint_s,
            checkpoint_least_s=min(LEAST_S, context.checkpoint_s),
            on_checkpoint=context.keep,
        )

    try:
        return run(_folder(context))
    except OtherTraining as error:
        print(f"the checkpoint is of no use here, the training starts from the beginning: {error}", file=sys.stderr)
        return run(context.dir / "checkpoints-anew")


@contextmanager
def _judged() -> Iterator[None]:
    """What the detector finds, in the worker's words."""
    from detector.errors import DataError, TrainingDiverged

    try:
        yield
    except DataError as error:
        raise TrainingFailed("data", str(error)) from error
    except TrainingDiverged as error:
        raise TrainingFailed("nan", str(error)) from error
