"""The trainers that run inside the training process: the built-in detector, and a Python function of the user's."""

from __future__ import annotations

import contextlib
import difflib
import importlib
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from worker import command
from worker.blame import one_line
from worker.checkpoints import LEAST_S
from worker.context import Context
from worker.devices import cuda_fault
from worker.errors import NotInstalled, TrainingFailed


class Trained(NamedTuple):
    """``seconds``, ``data_hash`` and ``weights_hash`` are None where the trainer does not know them."""

    metrics: Any
    seconds: float | None = None
    data_hash: str | None = None
    weights_hash: str | None = None


def train(trainer: Mapping[str, Any], context: Context) -> Trained:
    """Train once.

    Raises:
        TrainingFailed, Interrupted, NotInstalled, Cancelled, and whatever a user's function raises.
    """
    kind = trainer.get("kind")
    if kind == "detector":
        return _detector(context)
    if kind == "python":
        return Trained(_function(str(trainer.get("python", "")), context)(context))
    if kind == "command":
        return Trained(command.train(trainer, context))
    raise NotInstalled(
        f"this worker knows no trainer '{kind}', only detector, python, command; is it older than the coordinator?"
    )


def _detector(context: Context) -> Trained:
    from evolution.hyperparameters import Hyperparameters, split_hyp

    try:
        import torch

        from detector.cache import load_cached
        from detector.checkpoint import weights_hash
        from detector.errors import DataError, OtherTraining, TrainingDiverged
        from detector.execution import Execution
        from detector.scenario import Scenario
        from detector.trainer import Training
        from detector.trainer import train as train_detector

        if context.device == "cpu":
            torch.set_num_threads(1)
    except ImportError as error:
        package = {"cv2": "opencv-python"}.get(str(error.name), error.name or str(error))
        raise NotInstalled(
            f"the built-in detector cannot be loaded here ({error}); install {package}, or the extra hypevolve[worker]"
        ) from error
    if fault := cuda_fault([context.device], torch.__version__, torch.cuda.device_count()):
        raise NotInstalled(f"{fault}; write --devices cpu, or install a torch for this GPU")
    try:
        genes, instead = split_hyp(context.hyp)  # a gene such as optimizer takes the place of the base scenario's
        scenario = Scenario.from_mapping({**context.base, "epochs": context.epochs, **instead}, data_root=context.data_root)
        hyp = Hyperparameters.from_mapping(genes, scenario.lineage)
    except ValueError as error:
        raise TrainingFailed("data", str(error)) from error
    for key, path in (("data", scenario.data), ("weights", scenario.weights)):
        if path and not Path(path).exists():  # what is wrong inside it would be wrong on every node
            remedy = f"start the worker with the --data-root that holds {context.base[key]}, or put it there"
            raise NotInstalled(f"base.{key}: {path} does not exist; {remedy} (--data-root is {context.data_root})", "no_data")

    def report(epoch: int, metrics: Mapping[str, float]) -> None:
        context.report(epoch, **metrics)

    folder = context.dir / "checkpoints"
    if context.checkpoint.exists():  # its name sorts before any that this training will write
        folder.mkdir()
        context.checkpoint.rename(folder / f"step-{0:08d}-{0:05d}.safetensors")

    def run(folder: Path) -> Training:
        return train_detector(
            hyp,
            scenario,
            seed=context.seed,
            execution=Execution(context.device),
            report=report,
            progress=context.progress,
            checkpoints=folder,
            checkpoint_every_s=context.checkpoint_s,
            checkpoint_least_s=min(LEAST_S, context.checkpoint_s),
            on_checkpoint=context.keep,
        )

    try:
        data_hash = load_cached(scenario.data, scenario.imgsz).dataset.data_hash
        if context.data_hash not in (None, data_hash):  # known before hours of training rather than after
            hashes = f"hash {data_hash[:12]}, the campaign's {context.data_hash[:12]}"
            raise NotInstalled(
                f"base.data: this node has other data ({hashes}); make {scenario.data} the same on every node", "other_data"
            )
        try:
            training = run(folder)
        except OtherTraining as error:
            print(f"the checkpoint is of no use here, the training starts from the beginning: {error}", file=sys.stderr)
            training = run(context.dir / "checkpoints-anew")
    except DataError as error:
        raise TrainingFailed("data", str(error)) from error
    except TrainingDiverged as error:
        raise TrainingFailed("nan", str(error)) from error
    return Trained(training.metrics, training.seconds, training.data_hash, weights_hash(training.model))


def _function(path: str, context: Context) -> Callable[[Context], Any]:
    """The user's function; its module is looked for in the data root, then where Python looks."""
    module, _, name = path.partition(":")
    if not module or not name:
        raise TrainingFailed("data", f"trainer python is '{path}'; write module:function, such as mytrain:train")
    root = str(context.data_root)
    if root not in sys.path:
        sys.path.insert(1, root)  # behind this program's own folder, before installed packages
    importlib.invalidate_caches()  # the file may be newer than this process
    try:
        found: Any = importlib.import_module(module)
    except ModuleNotFoundError as error:
        remedy = f"put {module.partition('.')[0]}.py into {root}" if error.name == module.partition(".")[0] else "install it"
        raise NotInstalled(f"trainer python {path}: {error}; {remedy} or start the worker with another --data-root") from error
    except MemoryError:
        raise
    except (Exception, SystemExit) as error:  # no hyp set has been looked at yet: not the candidate's fault
        raise NotInstalled(f"trainer python {path}: {one_line(error, context.data_root)}; correct the module") from error
    file = getattr(found, "__file__", None) or module
    for part in name.split("."):
        if not hasattr(found, part):
            _forget(module)
            near = difflib.get_close_matches(part, [n for n in dir(found) if callable(getattr(found, n, None))], n=1)
            remedy = f"did you mean {near[0]}?" if near else f"define {part}(ctx) there, or correct the campaign's trainer"
            raise NotInstalled(f"trainer python {path}: {file} has no {part}; {remedy}")
        found = getattr(found, part)
    if not callable(found):
        _forget(module)
        raise NotInstalled(f"trainer python {path}: {file}: {name} is {found!r:.100}, which cannot be called; name a function")
    function: Callable[[Context], Any] = found
    return function


def _forget(module: str) -> None:
    """So that a corrected file is read anew."""
    with contextlib.suppress(KeyError):
        del sys.modules[module]
