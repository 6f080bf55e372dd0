"""Tensors out of a released ``.pt`` file, without running what is in it.

A ``.pt`` file is a zip archive of raw storages and a pickle, and a pickle is a program. Here it meets an unpickler that knows
how to rebuild tensors and ordered dictionaries; every other name in it becomes an opaque object that keeps its state and can do
nothing.
"""

from __future__ import annotations

import io
import math
import pickle
import pickletools
import zipfile
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from detector.errors import DataError

_STORAGES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}
# Beside the weights proper, a module's buffers hold counters and what follows from its configuration.
_NO_WEIGHTS = ("num_batches_tracked", "anchors", "anchor_grid", "stride", "strides")
_DEEPEST = 64


def read(path: str | Path) -> list[tuple[str, Tensor]]:
    """Names and float32 tensors of the model in a ``.pt`` file, in the order in which it was built.

    The file holds a module, a state dictionary, or a dictionary with either under ``ema``, ``model`` or ``state_dict``, the
    first of these that is there.

    Raises:
        DataError: one line: no such file, another layout, or nothing but opaque objects in it.
    """
    try:
        root = _load(Path(path))
        if isinstance(root, dict):
            held = (dict.get(root, key) for key in ("ema", "model", "state_dict"))
            root = next((value for value in held if value is not None), root)
        found = [
            (name, tensor.float())
            for name, tensor in _walk(root, "", 0, set())
            if name.rpartition(".")[2] not in _NO_WEIGHTS and tensor.is_floating_point()
        ]
    except OSError as error:
        raise DataError(f"base.weights: {path} cannot be read ({error.strerror or error}); correct the path") from None
    except Exception as error:  # whatever a hostile or broken file provokes, its content is the reason
        raise DataError(
            f"base.weights: {path} is no PyTorch file with a model in it ({type(error).__name__}); give a .pt that torch.save "
            "of version 1.6 or later wrote, or write weights: ''"
        ) from None
    if not found:
        raise DataError(f"base.weights: {path} holds no tensors; give a .pt with a model or a state dictionary in it")
    return found


def _load(path: Path) -> Any:
    with zipfile.ZipFile(path) as archive:
        entries = {entry.filename: entry for entry in archive.infolist()}
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries.values()):
            raise ValueError("compressed")  # torch.save stores; a small file cannot claim much memory
        (name,) = [name for name in entries if name.endswith("/data.pkl") and name.count("/") == 1]
        prefix = name.partition("/")[0]
        if f"{prefix}/byteorder" in entries and archive.read(f"{prefix}/byteorder") != b"little":
            raise ValueError("byte order")
        content = archive.read(name)
        _refuse_claims(content)
        return _Unpickler(content, lambda key: archive.read(f"{prefix}/data/{key}")).load()


def _refuse_claims(content: bytes) -> None:
    """A pickle must not ask for more than it holds: the memo's place 2^31, in ten bytes, is 32 GB to Python's unpickler.

    Lengths are held to the content by ``genops`` itself.
    """
    for operation, argument, _ in pickletools.genops(content):
        if operation.name in ("PUT", "BINPUT", "LONG_BINPUT", "FRAME") and argument > len(content):
            raise pickle.UnpicklingError("more than there is")


class _Opaque:
    """Stands for an object of a class that is not rebuilt. It keeps the state that it is given, and does nothing."""

    __slots__ = ("state",)

    def __new__(cls, *_: Any, **__: Any) -> _Opaque:
        made = object.__new__(cls)
        object.__setattr__(made, "state", None)
        return made

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        object.__setattr__(self, "state", state)

    def __setattr__(self, name: str, value: Any) -> None:
        pass

    def __setitem__(self, key: Any, value: Any) -> None:
        pass

    def append(self, value: Any) -> None:
        pass

    def extend(self, values: Any) -> None:
        pass

    def add(self, value: Any) -> None:
        pass


class _Unpickler(pickle.Unpickler):
    """Resolves a short list of names; every other one is an opaque class, made anew for each file."""

    def __init__(self, content: bytes, storage: Any) -> None:
        super().__init__(io.BytesIO(content), encoding="utf-8")
        self._storage = storage
        self._cache: dict[str, Tensor] = {}
        self._opaque = type("Opaque", (_Opaque,), {"__slots__": ()})
        # Fresh functions: what a pickle may do to a callable that it holds ends with this file.
        self._known: dict[tuple[str, str], Any] = {
            ("collections", "OrderedDict"): OrderedDict,
            ("torch._utils", "_rebuild_tensor_v2"): lambda *a: _tensor(*a[:4]),
            ("torch._utils", "_rebuild_parameter"): lambda data, *_: data,
        } | {("torch", name): dtype for name, dtype in _STORAGES.items()}

    def find_class(self, module: str, name: str) -> Any:
        return self._known.get((module, name), self._opaque)

    def persistent_load(self, pid: Any) -> Tensor:
        kind, dtype, key, _, count = pid
        if kind != "storage" or not isinstance(dtype, torch.dtype) or not isinstance(key, str):
            raise pickle.UnpicklingError("not a storage")
        if key not in self._cache:
            values = torch.frombuffer(bytearray(self._storage(key)), dtype=dtype)
            if len(values) != count:
                raise pickle.UnpicklingError("storage of another length")
            self._cache[key] = values
        return self._cache[key]


def _tensor(storage: Tensor, offset: int, size: tuple[int, ...], stride: tuple[int, ...]) -> Tensor:
    """A tensor over part of a storage, inside its bounds and not larger than it."""
    numbers = (offset, *size, *stride)
    if not all(isinstance(n, int) and n >= 0 for n in numbers) or len(size) != len(stride):
        raise pickle.UnpicklingError("no shape")
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    if math.prod(size) and (last >= len(storage) or math.prod(size) > len(storage)):
        raise pickle.UnpicklingError("outside its storage")
    return torch.as_strided(storage, size, stride, offset).clone()


def _walk(node: Any, name: str, depth: int, seen: set[int]) -> Iterator[tuple[str, Tensor]]:
    """Tensors in the order of a state dictionary: a module's parameters, its buffers, then its children, each once."""
    if isinstance(node, Tensor):
        yield name, node
        return
    if depth > _DEEPEST or id(node) in seen:
        return
    seen.add(id(node))
    if isinstance(node, dict):
        for key, value in dict.items(node):
            yield from _walk(value, f"{name}.{key}".lstrip("."), depth + 1, seen)
    elif isinstance(node, _Opaque) and isinstance(node.state, dict):
        for part in ("_parameters", "_buffers", "_modules"):
            children = dict.get(node.state, part)
            if isinstance(children, dict):
                yield from _walk(children, name, depth + 1, seen)
