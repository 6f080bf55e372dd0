"""In which number format the convolutions of a training step compute."""

from __future__ import annotations

import contextlib
import functools
from pathlib import Path

import torch

PRECISIONS = ("auto", "fp32", "bf16", "fp16")
_TYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def resolved(precision: str, kind: str) -> str:
    """fp32, bf16 or fp16 on a device of this ``kind`` (cpu, cuda).

    "auto" is bf16 where the device has units for it; else fp16 on a GPU, fp32 elsewhere. bf16 has float32's range, so losses
    need no scaling. On a CPU with such units a step takes two thirds of the time; without them torch would emulate, slowly.
    """
    if precision != "auto":
        return precision
    if kind == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    return "bf16" if kind == "cpu" and cpu_has_bfloat16() else "fp32"


def autocast(kind: str, precision: str = "auto") -> contextlib.AbstractContextManager:
    """Where the forward pass (and so the backward) computes in ``precision``.

    Weights, optimizer, batch-norm statistics, loss and evaluation stay float32.
    """
    dtype = _TYPES.get(resolved(precision, kind))
    return torch.autocast(kind, dtype) if dtype else contextlib.nullcontext()


@functools.cache
def cpu_has_bfloat16() -> bool:
    """True where the processor multiplies bfloat16 (AVX512-BF16, AMX, or ARM's bf16), as Linux reports it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return False
    flags = next((line.split(":", 1)[1].split() for line in lines if line.startswith(("flags", "Features"))), [])
    return not {"avx512_bf16", "amx_bf16", "bf16"}.isdisjoint(flags)
