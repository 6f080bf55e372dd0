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


_NAME = r"(?:cpu|mps|cuda(?::\d+)?)"


class Device(NamedTuple):
    """``name`` is what a trainer is told (cuda:0, or cuda:0+cuda:1), ``label`` is unique within a worker (cuda0)."""

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
            match = re.fullmatch(rf"\s*({_NAME}(?:\+{_NAME})*)(?:\*(\d{{1,3}}))?\s*", part)
            if not match:
                raise ValueError(f"'{part}' is no device; write cpu, cpu*8, cuda:0, cuda:0,cuda:1, cuda:0+cuda:1 or all")
            _team(match[1].split("+"))
            names += [match[1]] * int(match[2] or 1)
    if not names:
        raise ValueError("no device; write cpu, cuda:0 or all")
    return _labelled(names)


def _team(names: Sequence[str]) -> None:
    """Raises ValueError where these devices cannot train one candidate together."""
    if len({name.partition(":")[0] for name in names}) > 1:
        raise ValueError(f"'{'+'.join(names)}' mixes kinds of devices; write cpu+cpu or cuda:0+cuda:1")
    if names[0] != "cpu" and len(set(names)) < len(names):
        raise ValueError(f"'{'+'.join(names)}' names a device twice; write each once, such as cuda:0+cuda:1")


def environment_for(device: Device, environment: Mapping[str, str]) -> dict[str, str]:
    """What a training process inherits. On a CPU every process has one thread: cores are shared by starting more processes.

    Processes that train together are all on this machine, so they need no network but the loopback.
    """
    names = device.name.split("+")
    threads = dict.fromkeys(_THREADS, "1") if set(names) == {"cpu"} else {}
    loopback = {"GLOO_SOCKET_IFNAME": "lo"} if len(names) > 1 and sys.platform == "linux" else {}
    return {**loopback, **environment, "PYTHONUNBUFFERED": "1", **threads}


def missing_for_detector() -> list[str]:
    """The packages that the built-in detector needs and that are not installed here. Imports none of them."""
    return [package for module, package in _DETECTOR_NEEDS.items() if importlib.util.find_spec(module) is None]


def absent(devices: Sequence[Device]) -> str | None:
    """What --devices names and is not there, in one line. None as well where it cannot be told.

    A torch without CUDA next to a driver says nothing of the torch that a command has in its own environment, and no torch
    nothing at all.
    """
    names = [name for device in devices for name in device.name.split("+") if name.startswith("cuda")]
    if not names or "torch" in missing_for_detector() or (asked := _ask_torch()) is None:
        return None
    if not asked.with_cuda and _has_driver():
        return None
    return cuda_fault(names, asked.version, asked.gpus)


def cuda_fault(names: Sequence[str], torch_version: str, count: int) -> str | None:
    """Which of these devices a torch that sees ``count`` GPUs does not have."""
    for name in names:
        if name.startswith("cuda") and int(name.partition(":")[2] or 0) >= count:
            sees = f"only cuda:0 to cuda:{count - 1}" if count > 1 else "only cuda:0" if count else "no CUDA device"
            return f"--devices: {name} is not there; torch {torch_version} sees {sees}"
    return None


def memory_gb(names: Sequence[str]) -> dict[str, float]:
    """The memory of each GPU among ``names``, in GB; nothing where torch sees none."""
    wanted = {name: int(name.partition(":")[2] or 0) for name in names if name.startswith("cuda")}
    if not wanted or not _has_driver() or "torch" in missing_for_detector():
        return {}
    question = (
        "import torch; c = torch.cuda; print(*[c.get_device_properties(i).total_memory for i in range(c.device_count())])"
    )
    answer = subprocess.run([sys.executable, "-c", question], capture_output=True, text=True, check=False)
    sizes = [int(word) for word in answer.stdout.split() if word.isdigit()]
    return {name: sizes[index] / 1e9 for name, index in wanted.items() if index < len(sizes)}


def _has_driver() -> bool:
    return any(Path(driver).exists() for driver in _DRIVERS)


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
    if not _has_driver() or "torch" in missing_for_detector():
        return 0
    asked = _ask_torch()
    return asked.gpus if asked else 0


class _Torch(NamedTuple):
    """``gpus`` is how many GPUs it sees; ``with_cuda`` (or ROCm), whether it could see any."""

    version: str
    gpus: int
    with_cuda: bool


def _ask_torch() -> _Torch | None:
    """None where it cannot be loaded."""
    question = "import torch; v = torch.version; print(v.__version__, torch.cuda.device_count(), int(bool(v.cuda or v.hip)))"
    answer = subprocess.run([sys.executable, "-c", question], capture_output=True, text=True, check=False)
    words = answer.stdout.split()
    if answer.returncode or len(words) != 3 or not words[1].isdigit():
        return None
    return _Torch(words[0], int(words[1]), words[2] == "1")
