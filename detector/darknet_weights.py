"""Darknet's ``.weights``: a header and then every number of the network, convolution after convolution, without any name."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from detector.blocks import SPPF, Conv
from detector.errors import DataError
from detector.models import Detector


def load_into(model: Detector, path: str | Path) -> list[str]:
    """Copies the numbers of a ``.weights`` file into a yolov3 model, and returns the names of the tensors that it filled.

    Header: three int32 (version), then the number of images seen: int64 from version 0.2 on, int32 before. Of each
    convolution: shift, scale, mean and variance of its batch norm (or its bias), then its weights. Heads stand where their
    level ends. A file that ends early, as a backbone does, fills what it holds; heads for another number of classes are passed
    over.

    Raises:
        DataError: one line: another model's file, or none at all.
    """
    if not model.name.startswith("yolov3"):
        raise DataError(
            f"base.weights: {path} is Darknet's, base.model is {model.name}; give yolov3, yolov3-spp or yolov3-tiny"
        )
    values = _numbers(path)
    order = list(_order(model))
    names = {id(tensor): name for name, tensor in model.state_dict(keep_vars=True).items()}
    passed = _head_size(order, len(values), path)
    filled, at = [], 0
    with torch.no_grad():
        for tensors, head in order:
            if at == len(values):
                break
            size = sum(t.numel() for t in tensors)
            if head and passed and passed != size // head:
                at += passed * head
                continue
            if at + size > len(values):
                raise _other(path, model)
            for tensor in tensors:
                tensor.copy_(torch.from_numpy(values[at : at + tensor.numel()].copy()).view(tensor.shape))
                at += tensor.numel()
                filled.append(names[id(tensor)])
        if at != len(values):
            raise _other(path, model)
        for block in model.modules():
            if isinstance(block, SPPF) and f"{_name_of(model, block)}.merge.conv.weight" in filled:
                # Darknet joins the pooled maps widest first, we narrowest first.
                weight = block.merge.conv.weight
                weight.copy_(torch.cat(weight.chunk(4, 1)[::-1], 1))
    return filled


def _numbers(path: str | Path) -> np.ndarray:
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise DataError(f"base.weights: {path} cannot be read ({error.strerror}); correct the path") from None
    major, minor = np.frombuffer(content[:8].ljust(8, b"\0"), "<i4").tolist()
    start = 20 if major * 10 + minor >= 2 else 16
    if len(content) <= start or (len(content) - start) % 4 or not 0 <= major < 1000 or not 0 <= minor < 1000:
        raise DataError(f"base.weights: {path} is no Darknet weights file; write weights: '' to train from scratch")
    return np.frombuffer(content, "<f4", offset=start)


def _order(model: Detector) -> Iterator[tuple[list[Tensor], int]]:
    """The tensors of each convolution in Darknet's order, and for a head its inputs + 1, else 0."""
    for i, block in enumerate(model.blocks):
        for conv in block.modules():
            if isinstance(conv, Conv):
                norm = conv.norm
                yield [norm.bias, norm.weight, norm.running_mean, norm.running_var, conv.conv.weight], 0
        if i in model.outputs:
            head: nn.Conv2d = model.head.heads[model.outputs.index(i)]
            yield [head.bias, head.weight], head.in_channels + 1


def _head_size(order: list[tuple[list[Tensor], int]], count: int, path: str | Path) -> int:
    """Outputs of each head in a file of ``count`` numbers, which follow from its length; 0 where it ends before the heads."""
    body = sum(sum(t.numel() for t in tensors) for tensors, head in order if not head)
    inputs = sum(head for _, head in order)
    if count <= body:
        return 0
    if (count - body) % inputs:
        raise DataError(f"base.weights: {path} does not have the length of this model's weights; make base.model its model")
    return (count - body) // inputs


def _name_of(model: Detector, block: nn.Module) -> str:
    return next(name for name, module in model.named_modules() if module is block)


def _other(path: str | Path, model: Detector) -> DataError:
    return DataError(f"base.weights: {path} does not end with a convolution of {model.name}; make base.model its model")
