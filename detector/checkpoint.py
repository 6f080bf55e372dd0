"""Weights in a file: ours are safetensors, which holds tensors and text and can run no code; others' are read."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from difflib import SequenceMatcher
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from detector import darknet_weights, released
from detector.blocks import C3
from detector.errors import DataError
from detector.models import Detector

_KEY = "hypevolve.detector"
# What a scenario chooses is never taken from a file.
_CHOSEN = ("anchors", "strides")
_COUNTER = "num_batches_tracked"
LEAST_SHARE = 0.5


class _NotOurs(Exception):
    """A file is missing, or no checkpoint of this detector; who asked for it knows the remedy."""


class Fitted(NamedTuple):
    """How many tensors of the model came from a file, and the names of those that did not."""

    count: int
    unmatched: tuple[str, ...]


class Opened(NamedTuple):
    """A model in evaluation mode, its class names, and the long side in pixels that it was trained at."""

    model: Detector
    names: tuple[str, ...]
    imgsz: int


def save(model: Detector, names: Sequence[str], path: str | Path, imgsz: int = 640) -> None:
    """Writes a model's parameters and statistics; its architecture, lineage, class names and ``imgsz`` stand in the header."""
    tensors = {key: value.contiguous() for key, value in model.state_dict().items()}
    header = {"model": model.name, "lineage": model.lineage, "names": list(names), "imgsz": imgsz}
    save_file(tensors, str(path), metadata={_KEY: json.dumps(header)})


def weights_hash(model: nn.Module) -> str:
    """SHA-256 of a model's parameters and statistics: equal for two trainings exactly where they ended at the same bits."""
    digest = hashlib.sha256()
    for key, value in sorted(model.state_dict().items()):
        digest.update(f"{key} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.detach().cpu().contiguous().numpy())
    return digest.hexdigest()


def open_model(path: str | Path) -> Opened:
    """The model in one of our checkpoints.

    Raises:
        DataError: one line: the file is missing or no checkpoint of ours.
    """
    try:
        header, tensors = _ours(path)
    except _NotOurs:
        raise DataError(
            f"{path} is missing or no checkpoint of this detector; name the last.safetensors that train --project wrote, "
            "or the file of --save"
        ) from None
    try:
        anchors = tensors["anchors"] * tensors["strides"].view(-1, 1, 1)
        names = tuple(str(name) for name in header["names"])
        model = Detector(header["model"], len(names), anchors.numpy(), header.get("lineage", "yolov5"))
        model.load_state_dict(tensors)
        return Opened(model.eval().requires_grad_(False), names, int(header.get("imgsz", 640)))
    except (KeyError, ValueError, RuntimeError, TypeError, OverflowError) as error:
        raise DataError(f"{path} does not hold what its header says ({type(error).__name__}); train it again") from None


def load_into(model: Detector, path: str | Path) -> Fitted:
    """Copies every tensor that fits from our checkpoint (by name), a released ``.pt`` (by order) or Darknet's ``.weights``.

    A head for another number of classes or anchors keeps its fresh weights. Anchors stay those that the scenario chose.

    Raises:
        DataError: one line: the file is missing, cannot be read, or is of another model.
    """
    if str(path).endswith(".weights"):
        filled = set(darknet_weights.load_into(model, path))
    elif str(path).endswith(".pt"):
        filled = _by_order(model, released.read(path))
        if len(filled) < LEAST_SHARE * len(_weights(model)):
            raise DataError(
                f"base.weights: {path} fits {len(filled)} of the {len(_weights(model))} tensors of {model.name}; "
                "make base.model the model that the file holds"
            )
    else:
        filled = _by_name(model, path)
    unmatched = tuple(name for name, _ in _weights(model) if name not in filled)
    return Fitted(len(_weights(model)) - len(unmatched), unmatched)


def _by_name(model: Detector, path: str | Path) -> set[str]:
    try:
        header, tensors = _ours(path)
    except _NotOurs:
        raise DataError(f"base.weights: {path} is missing or no checkpoint of this detector; write weights: ''") from None
    if header["model"] != model.name:
        raise DataError(f"base.weights: {path} is a {header['model']}, base.model is {model.name}; make them equal")
    state = model.state_dict()
    fitting = [k for k, v in tensors.items() if k in state and v.shape == state[k].shape and k not in _CHOSEN]
    with torch.no_grad():
        for key in fitting:
            state[key].copy_(tensors[key])
    return set(fitting)


def _ours(path: str | Path) -> tuple[dict, dict[str, Tensor]]:
    try:
        with safe_open(str(path), framework="pt") as file:
            header = json.loads((file.metadata() or {})[_KEY])
            if not isinstance(header, dict) or not isinstance(header.get("model"), str):
                raise _NotOurs
            return header, {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - no mapping
    except (OSError, SafetensorError, KeyError, ValueError, RecursionError):
        raise _NotOurs from None


def _by_order(model: Detector, theirs: list[tuple[str, Tensor]]) -> set[str]:
    """Tensors in the order of building correspond, wherever their shapes agree; lists of other lengths are aligned."""
    ours = _weights(model)
    a, b = [tuple(t.shape) for _, t in ours], [tuple(t.shape) for _, t in theirs]
    if len(a) == len(b):
        pairs = [(i, i) for i in range(len(a)) if a[i] == b[i]]
    else:
        blocks = SequenceMatcher(None, a, b, autojunk=False).get_matching_blocks()
        pairs = [(start + k, other + k) for start, other, size in blocks for k in range(size)]
    with torch.no_grad():
        for i, j in pairs:
            ours[i][1].copy_(theirs[j][1])
    return {ours[i][0] for i, _ in pairs}


def _weights(model: Detector) -> list[tuple[str, Tensor]]:
    """Parameters and statistics in the order in which released files hold them, and their names here."""
    return [(name, tensor) for name, tensor in _ordered(model, "") if name not in _CHOSEN and not name.endswith(_COUNTER)]


def _ordered(module: nn.Module, name: str) -> Iterator[tuple[str, Tensor]]:
    for own in (module.named_parameters(name, recurse=False), module.named_buffers(name, recurse=False)):
        yield from own
    children = dict(module.named_children())
    if isinstance(module, C3):
        # Released files hold the chain of bottlenecks after the three 1x1 convolutions.
        children["chain"] = children.pop("chain")
    for key, child in children.items():
        yield from _ordered(child, f"{name}.{key}".lstrip("."))
