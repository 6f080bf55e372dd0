"""What a worker in quarantine must show before it is given candidates again: that this node can train at all.

Runs in the training process, which is new: the disk takes a file, and the device computes what the processor does. What only
one campaign needs (its data, its module) is not looked at; that shows with the next candidate, and the quarantine after it is
longer.
"""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

_TOLERANCE = 1e-2  # half precision and other orders of summation are no fault


def fault(device: str, folder: Path) -> str:
    """What is wrong with this node, in one line; empty where nothing is."""
    try:
        _disk(folder)
        if importlib.util.find_spec("torch") is not None:
            for name in device.split("+"):
                _device(name)
    except Exception as error:
        return " ".join(f"{type(error).__name__}: {error}".split())[:1000]
    return ""


def _disk(folder: Path) -> None:
    file = folder / "self-test"
    with file.open("wb") as stream:
        stream.write(os.urandom(1 << 20))
        stream.flush()
        os.fsync(stream.fileno())
    file.unlink()


def _device(name: str) -> None:
    """A step of a small network, forward and back, against the same step on the processor."""
    import torch

    generator = torch.Generator().manual_seed(0)
    images = torch.rand(2, 3, 32, 32, generator=generator)
    weights = torch.rand(8, 3, 3, 3, generator=generator)

    def step(device: str) -> torch.Tensor:
        learned = weights.to(device).requires_grad_(True)
        torch.nn.functional.conv2d(images.to(device), learned).square().mean().backward()
        return learned.grad.cpu()

    expected, found = step("cpu"), step(name)
    if not torch.allclose(found, expected, rtol=_TOLERANCE, atol=_TOLERANCE):
        raise ArithmeticError(f"{name} computes something else than the processor does")
