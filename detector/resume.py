"""The state of a training on disk, so that one that was killed goes on where it stood, bit by bit.

A checkpoint is one safetensors file, whose header holds the rest as JSON. It appears whole or not at all: written beside,
synced, renamed. The last two are kept. Not known here: when one is due (``detector.trainer``) and where they go from here.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from detector.ema import Average
from detector.errors import OtherTraining
from detector.models import Detector
from detector.scenario import Scenario
from evolution.hyperparameters import Hyperparameters

KEPT = 2
_KEY = "hypevolve.training"
_PATTERN = "step-*.safetensors"


@dataclass
class Place:
    """Where a training stands: ``batch`` batches of ``epoch`` are done, ``iteration`` in all, ``steps`` of the optimizer.

    ``sums`` (3,) are the loss parts added up over the epoch so far, ``final`` the last evaluation, ``seconds`` the time spent,
    ``scaler`` the state of fp16's gradient scaler.
    """

    epoch: int = 0
    batch: int = 0
    iteration: int = 0
    steps: int = 0
    seconds: float = 0.0
    final: dict[str, float] = field(default_factory=dict)
    scaler: dict[str, float] = field(default_factory=dict)
    sums: torch.Tensor = field(default_factory=lambda: torch.zeros(3))


def identity(hyp: Hyperparameters, scenario: Scenario, seed: int, data_hash: str) -> str:
    """What two trainings must share to be the same one; paths are left out, since another node has others."""
    base = {key: value for key, value in asdict(scenario).items() if key not in ("data", "weights")}
    return hashlib.sha256(json.dumps([hyp.lineage, hyp.to_dict(), base, seed, data_hash]).encode()).hexdigest()


class Checkpoints:
    """The checkpoints of one training in ``folder``, which is created.

    One after each epoch that ends ``least_s`` or more after the last checkpoint, and one after ``every_s`` without any (None:
    however long an epoch is).
    """

    def __init__(self, folder: str | Path, which: str, every_s: float | None = None, least_s: float = 0.0) -> None:
        self.folder, self.identity, self.every_s, self.least_s = Path(folder), which, every_s, least_s
        self.folder.mkdir(parents=True, exist_ok=True)
        for left in self.folder.glob(".*.partial"):
            left.unlink()
        self._saved_at = time.monotonic()
        self._waits = False

    def due(self, epoch_ends: bool) -> bool:
        """True where a checkpoint should be written at the next chance; stays true until one is."""
        since = time.monotonic() - self._saved_at
        self._waits = self._waits or (epoch_ends and since >= self.least_s)
        return self._waits or (self.every_s is not None and since >= self.every_s)

    def save(self, place: Place, model: Detector, average: Average, optimizer: torch.optim.Optimizer) -> Path:
        """Writes a checkpoint, removes all but the last two, and says where the new one is.

        No gradient may be pending: gradients are not part of it.
        """
        tensors = {f"model.{key}": value for key, value in model.state_dict().items()}
        tensors |= {f"average.{key}": value for key, value in average.model.state_dict().items()}
        for i, parameter in enumerate(_parameters(optimizer)):
            state = optimizer.state.get(parameter, {})
            tensors |= {f"optimizer.{i}.{key}": value for key, value in state.items() if isinstance(value, torch.Tensor)}
        tensors["sums"] = place.sums
        header = {key: getattr(place, key) for key in ("epoch", "batch", "iteration", "steps", "seconds", "final", "scaler")}
        content = save(
            {key: value.detach().cpu().contiguous() for key, value in tensors.items()},
            metadata={_KEY: json.dumps({**header, "identity": self.identity})},
        )
        path = self.folder / f"step-{place.iteration:08d}-{place.epoch:05d}.safetensors"
        _write(path, content)
        for old in self._files()[KEPT:]:
            old.unlink(missing_ok=True)
        self._saved_at, self._waits = time.monotonic(), False
        return path

    def restore(self, model: Detector, average: Average, optimizer: torch.optim.Optimizer) -> Place:
        """Brings model, average and optimizer to the newest checkpoint that can be read, and says where that is.

        Without a checkpoint everything stays as it is.

        Raises:
            OtherTraining: a checkpoint here belongs to another training.
        """
        for path in self._files():
            with contextlib.suppress(OSError, SafetensorError, KeyError, json.JSONDecodeError):
                with safe_open(str(path), framework="pt") as file:
                    header = json.loads((file.metadata() or {})[_KEY])
                    tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - no mapping
                return self._restored(path, header, tensors, model, average, optimizer)
        return Place()

    def _restored(
        self,
        path: Path,
        header: dict,
        tensors: dict[str, torch.Tensor],
        model: Detector,
        average: Average,
        optimizer: torch.optim.Optimizer,
    ) -> Place:
        if header.pop("identity") != self.identity:
            raise OtherTraining(
                f"{path} belongs to a training with another hyp set, scenario, seed or data; give an empty folder, or remove it"
            )
        with torch.no_grad():
            for prefix, module in (("model", model), ("average", average.model)):
                for key, value in module.state_dict().items():
                    value.copy_(tensors[f"{prefix}.{key}"])
        average.steps = header["steps"]
        parameters = _parameters(optimizer)
        for key, value in tensors.items():
            kind, _, rest = key.partition(".")
            if kind == "optimizer":
                i, _, name = rest.partition(".")
                parameter = parameters[int(i)]
                # In the parameter's own memory layout: fused updates walk through both side by side.
                like = torch.empty_like(parameter) if value.shape == parameter.shape else value.to(parameter.device)
                optimizer.state[parameter][name] = like.copy_(value).detach()
        return Place(**header, sums=tensors["sums"])

    def _files(self) -> list[Path]:
        """Newest first."""
        return sorted(self.folder.glob(_PATTERN), reverse=True)


def _parameters(optimizer: torch.optim.Optimizer) -> list[torch.Tensor]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def _write(path: Path, content: bytes) -> None:
    partial = path.with_name(f".{path.name}.partial")
    with partial.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)  # the new name itself
    finally:
        os.close(folder)
