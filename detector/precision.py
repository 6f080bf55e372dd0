"""In which number format the convolutions of a training step compute."""

from __future__ import annotations

import contextlib
import functools
from pathlib import Path

import torch


def autocast(device: str) -> contextlib.AbstractContextManager:
    """bfloat16 for the forward pass (and so the backward) where the device has units for it, float32 elsewhere.

    bfloat16 has float32's range, so losses need no scaling; weights, optimizer, batch-norm statistics, loss and evaluation
    stay float32. On a CPU with such units a step takes two thirds of the time. Without them torch would emulate, slowly.
    """
    kind = torch.device(device).type
    if kind == "cpu" and not cpu_has_bfloat16():
        return contextlib.nullcontext()
    if kind == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False):
        return contextlib.nullcontext()
    return torch.autocast(kind, torch.bfloat16)


@functools.cache
def cpu_has_bfloat16() -> bool:
    """True where the processor multiplies bfloat16 (AVX512-BF16, AMX, or ARM's bf16), as Linux reports it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return False
    flags = next((line.split(":", 1)[1].split() for line in lines if line.startswith(("flags", "Features"))), [])
    return not {"avx512_bf16", "amx_bf16", "bf16"}.isdisjoint(flags)
