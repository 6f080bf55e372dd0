"""Which devices a worker trains on, and what their training processes must find in their environment."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

# Drivers of NVIDIA, of AMD, and of Linux under Windows. Where none is there torch need not be asked, which costs seconds.
_DRIVERS = ("/dev/nvidiactl", "/dev/kfd", "/dev/dxg")
_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "VECLIB_MAXIMUM_THREADS", "NUMEXPR_NUM_THREADS")
_DETECTOR_NEEDS = {"torch": "torch", "cv2": "opencv-python", "numpy": "numpy"}


class Device(NamedTuple):
    """``name`` is what a trainer is told (cuda:0), ``label`` is unique within a worker (cuda0)."""

    label: str
    name: str


def parse_devices(text: str) -> list[Device]:
    """``cpu``, ``cpu,cpu``, ``cpu*8``, ``cuda:0,cuda:1``, or ``all``: every GPU, else the CPU.

    Raises:
        ValueError: one line that says what can be written.
    """
    if text == "all":
        names = [f"cuda:{index}" for index in range(_gpus())] or ["cpu"]
    else:
        names = []
        for part in text.split(","):
            match = re.fullmatch(r"\s*(cpu|mps|cuda(?::\d+)?)(?:\*(\d{1,3}))?\s*", part)
            if not match:
                raise ValueError(f"'{part}' is no device; write cpu, cpu*8, cuda:0, cuda:0,cuda:1 or all")
            names += [match[1]] * int(match[2] or 1)
    if not names:
        raise ValueError("no device; write cpu, cuda:0 or all")
    return _labelled(names)


def environment_for(device: Device, environment: Mapping[str, str]) -> dict[str, str]:
    """What a training process inherits. On a CPU every process has one thread: cores are shared by starting more processes."""
    threads = dict.fromkeys(_THREADS, "1") if device.name == "cpu" else {}
    return {**environment, "PYTHONUNBUFFERED": "1", **threads}


def missing_for_detector() -> list[str]:
    """The packages that the built-in detector needs and that are not installed here. Imports none of them."""
    return [package for module, package in _DETECTOR_NEEDS.items() if importlib.util.find_spec(module) is None]


def _labelled(names: Sequence[str]) -> list[Device]:
    seen: Counter[str] = Counter()
    devices = []
    for name in names:
        plain = name.replace(":", "")
        number = seen[name]
        seen[name] += 1
        if name == "cpu":
            devices.append(Device(f"cpu{number}", name))
        else:
            devices.append(Device(plain if number == 0 else f"{plain}-{number + 1}", name))
    return devices


def _gpus() -> int:
    """Asked in a process of its own: the supervisor never loads torch nor holds a GPU."""
    if not any(Path(driver).exists() for driver in _DRIVERS) or "torch" in missing_for_detector():
        return 0
    question = "import torch; print(torch.cuda.device_count())"
    answer = subprocess.run([sys.executable, "-c", question], capture_output=True, text=True, check=False)
    return int(answer.stdout) if answer.returncode == 0 and answer.stdout.strip().isdigit() else 0
