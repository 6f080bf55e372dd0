"""Weights in a file: safetensors, which holds tensors and text and can run no code."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from detector.errors import DataError
from detector.models import Detector

_KEY = "hypevolve.detector"


def save(model: Detector, names: Sequence[str], path: str | Path) -> None:
    """Writes a model's parameters and statistics, with its architecture's name and class names in the header."""
    tensors = {key: value.contiguous() for key, value in model.state_dict().items()}
    header = {"model": model.name, "lineage": model.lineage, "names": list(names)}
    save_file(tensors, str(path), metadata={_KEY: json.dumps(header)})


def load_into(model: Detector, path: str | Path) -> int:
    """Copies every tensor of a checkpoint whose name and shape agree, and returns how many did.

    A head for another number of classes or anchors keeps its fresh weights. Anchors stay those that the scenario chose.

    Raises:
        DataError: one line: the file is missing, no checkpoint of ours, or of another model.
    """
    try:
        with safe_open(str(path), framework="pt") as file:
            header = json.loads((file.metadata() or {})[_KEY])
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - no mapping
    except (OSError, SafetensorError, KeyError, json.JSONDecodeError):
        raise DataError(f"base.weights: {path} is missing or no checkpoint of this detector; write weights: ''") from None
    if header["model"] != model.name:
        raise DataError(f"base.weights: {path} is a {header['model']}, base.model is {model.name}; make them equal")
    state = model.state_dict()
    fitting = [k for k, v in tensors.items() if k in state and v.shape == state[k].shape and k not in ("anchors", "strides")]
    with torch.no_grad():
        for key in fitting:
            state[key].copy_(tensors[key])
    return len(fitting)
