"""The networks as tables: yolov3 (Darknet-53), -spp and -tiny, yolov5 n/s/m/l/x (release 6), and the module that runs a table.

A row is (sources, block, output channels, repeats); source -1 is the row above. Channels scale with ``width`` and are rounded
up to a multiple of 8, repeats scale with ``depth``. Neck: feature pyramid and path aggregation (arXiv:1803.01534).
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from detector.blocks import C3, SPPF, Bottleneck, Concat, Conv, Detect, PadPool, Upsample


class Row(NamedTuple):
    sources: tuple[int, ...]
    block: str
    channels: int = 0
    repeats: int = 1


class Architecture(NamedTuple):
    """A table with its three or two outputs, their strides in pixels, and stock anchors (width, height in pixels)."""

    rows: tuple[Row, ...]
    outputs: tuple[int, ...]
    strides: tuple[int, ...]
    anchors: tuple[tuple[tuple[int, int], ...], ...]
    depth: float = 1.0
    width: float = 1.0


_PREV = (-1,)

_V5_ROWS = (
    Row(_PREV, "stem", 64),  # 0  P1/2
    Row(_PREV, "down", 128),  # 1  P2/4
    Row(_PREV, "c3", 128, 3),  # 2
    Row(_PREV, "down", 256),  # 3  P3/8
    Row(_PREV, "c3", 256, 6),  # 4
    Row(_PREV, "down", 512),  # 5  P4/16
    Row(_PREV, "c3", 512, 9),  # 6
    Row(_PREV, "down", 1024),  # 7  P5/32
    Row(_PREV, "c3", 1024, 3),  # 8
    Row(_PREV, "sppf", 1024),  # 9
    Row(_PREV, "conv1", 512),  # 10 lateral P5
    Row(_PREV, "up"),  # 11
    Row((-1, 6), "concat"),  # 12
    Row(_PREV, "c3-plain", 512, 3),  # 13
    Row(_PREV, "conv1", 256),  # 14 lateral P4
    Row(_PREV, "up"),  # 15
    Row((-1, 4), "concat"),  # 16
    Row(_PREV, "c3-plain", 256, 3),  # 17 out P3/8
    Row(_PREV, "down", 256),  # 18
    Row((-1, 14), "concat"),  # 19
    Row(_PREV, "c3-plain", 512, 3),  # 20 out P4/16
    Row(_PREV, "down", 512),  # 21
    Row((-1, 10), "concat"),  # 22
    Row(_PREV, "c3-plain", 1024, 3),  # 23 out P5/32
)
_V5_ANCHORS = (
    ((10, 13), (16, 30), (33, 23)),
    ((30, 61), (62, 45), (59, 119)),
    ((116, 90), (156, 198), (373, 326)),
)
_V5 = Architecture(_V5_ROWS, (17, 20, 23), (8, 16, 32), _V5_ANCHORS)

_V3_ROWS = (
    Row(_PREV, "conv3", 32),  # 0
    Row(_PREV, "down", 64),  # 1  P1/2
    Row(_PREV, "residual", 64),  # 2
    Row(_PREV, "down", 128),  # 3  P2/4
    Row(_PREV, "residual", 128, 2),  # 4
    Row(_PREV, "down", 256),  # 5  P3/8
    Row(_PREV, "residual", 256, 8),  # 6
    Row(_PREV, "down", 512),  # 7  P4/16
    Row(_PREV, "residual", 512, 8),  # 8
    Row(_PREV, "down", 1024),  # 9  P5/32
    Row(_PREV, "residual", 1024, 4),  # 10
    Row(_PREV, "residual-plain", 1024),  # 11
    Row(_PREV, "conv1", 512),  # 12
    Row(_PREV, "conv3", 1024),  # 13
    Row(_PREV, "conv1", 512),  # 14
    Row(_PREV, "conv3", 1024),  # 15 out P5/32
    Row((14,), "conv1", 256),  # 16
    Row(_PREV, "up"),  # 17
    Row((-1, 8), "concat"),  # 18
    Row(_PREV, "residual-plain", 512),  # 19
    Row(_PREV, "residual-plain", 512),  # 20
    Row(_PREV, "conv1", 256),  # 21
    Row(_PREV, "conv3", 512),  # 22 out P4/16
    Row((21,), "conv1", 128),  # 23
    Row(_PREV, "up"),  # 24
    Row((-1, 6), "concat"),  # 25
    Row(_PREV, "residual-plain", 256),  # 26
    Row(_PREV, "residual-plain", 256, 2),  # 27 out P3/8
)
_V3 = Architecture(_V3_ROWS, (27, 22, 15), (8, 16, 32), _V5_ANCHORS)
_V3_SPP = _V3._replace(rows=(*_V3_ROWS[:12], Row(_PREV, "sppf", 512), *_V3_ROWS[13:]))

_V3_TINY_ROWS = (
    Row(_PREV, "conv3", 16),  # 0
    Row(_PREV, "pool"),  # 1
    Row(_PREV, "conv3", 32),  # 2
    Row(_PREV, "pool"),  # 3
    Row(_PREV, "conv3", 64),  # 4
    Row(_PREV, "pool"),  # 5
    Row(_PREV, "conv3", 128),  # 6
    Row(_PREV, "pool"),  # 7
    Row(_PREV, "conv3", 256),  # 8  P4/16
    Row(_PREV, "pool"),  # 9
    Row(_PREV, "conv3", 512),  # 10
    Row(_PREV, "pad-pool"),  # 11
    Row(_PREV, "conv3", 1024),  # 12 P5/32
    Row(_PREV, "conv1", 256),  # 13
    Row(_PREV, "conv3", 512),  # 14 out P5/32
    Row((13,), "conv1", 128),  # 15
    Row(_PREV, "up"),  # 16
    Row((-1, 8), "concat"),  # 17
    Row(_PREV, "conv3", 256),  # 18 out P4/16
)
_V3_TINY_ANCHORS = (((10, 14), (23, 27), (37, 58)), ((81, 82), (135, 169), (344, 319)))

ARCHITECTURES: dict[str, Architecture] = {
    "yolov3": _V3,
    "yolov3-spp": _V3_SPP,
    "yolov3-tiny": Architecture(_V3_TINY_ROWS, (18, 14), (16, 32), _V3_TINY_ANCHORS),
    "yolov5n": _V5._replace(depth=0.33, width=0.25),
    "yolov5s": _V5._replace(depth=0.33, width=0.50),
    "yolov5m": _V5._replace(depth=0.67, width=0.75),
    "yolov5l": _V5._replace(depth=1.00, width=1.00),
    "yolov5x": _V5._replace(depth=1.33, width=1.25),
}


def architecture(name: str) -> Architecture:
    """The table of a model.

    Raises:
        ValueError: the name is unknown; names the known ones.
    """
    if name not in ARCHITECTURES:
        raise ValueError(f"model '{name}' is unknown; known: {', '.join(ARCHITECTURES)}")
    return ARCHITECTURES[name]


def _block(row: Row, cin: list[int], cout: int, repeats: int) -> nn.Module:
    match row.block:
        case "stem":
            return Conv(cin[0], cout, 6, 2, padding=2)
        case "down":
            return Conv(cin[0], cout, 3, 2)
        case "conv1":
            return Conv(cin[0], cout, 1)
        case "conv3":
            return Conv(cin[0], cout, 3)
        case "c3":
            return C3(cin[0], cout, repeats)
        case "c3-plain":
            return C3(cin[0], cout, repeats, add=False)
        case "residual" | "residual-plain":
            add = row.block == "residual"
            return nn.Sequential(*(Bottleneck(cout if i else cin[0], cout, add) for i in range(repeats)))
        case "sppf":
            return SPPF(cin[0], cout)
        case "pool":
            return nn.MaxPool2d(2, 2)
        case "pad-pool":
            return PadPool()
        case "up":
            return Upsample()
        case "concat":
            return Concat()
    raise ValueError(f"block '{row.block}' is unknown")


class Detector(nn.Module):
    """A table of blocks with a detection head: (B, 3, H, W) RGB in [0, 1] -> per level raw (B, na, H/s, W/s, 5 + classes).

    ``anchors`` is (levels, na, 2) in grid units (pixels / stride); ``strides`` (levels,) in pixels; both are buffers. H and W
    must be multiples of the largest stride. ``lineage`` says how the outputs are read (``detector.boxes.decode``).
    """

    def __init__(self, name: str, classes: int, anchors: np.ndarray | None = None, lineage: str = "yolov5") -> None:
        """``anchors`` (levels, na, 2) in pixels replaces the stock anchors; ``name`` must be known (ValueError otherwise)."""
        super().__init__()
        table = architecture(name)
        self.name, self.classes, self.lineage = name, classes, lineage
        self.sources, self.outputs = [row.sources for row in table.rows], table.outputs
        channels: list[int] = []
        blocks: list[nn.Module] = []
        for i, row in enumerate(table.rows):
            cin = [channels[s] if s >= 0 else (channels[i + s] if i else 3) for s in row.sources]
            cout = math.ceil(row.channels * table.width / 8) * 8 if row.channels else sum(cin)
            blocks.append(_block(row, cin, cout, max(round(row.repeats * table.depth), 1)))
            channels.append(cout)
        self.blocks = nn.ModuleList(blocks)
        pixels = torch.tensor(np.asarray(table.anchors if anchors is None else anchors), dtype=torch.float32)
        strides = torch.tensor(table.strides, dtype=torch.float32)
        self.register_buffer("strides", strides)
        self.register_buffer("anchors", pixels / strides.view(-1, 1, 1))
        self.head = Detect([channels[i] for i in table.outputs], classes, pixels.shape[1])
        # A map is dropped once no later row needs it.
        self._kept = {s for row in table.rows for s in row.sources if s >= 0} | set(table.outputs)

    def forward(self, images: Tensor) -> list[Tensor]:
        kept: dict[int, Tensor] = {}
        x = images
        for i, (block, sources) in enumerate(zip(self.blocks, self.sources, strict=True)):
            x = block(*(x if s < 0 else kept[s] for s in sources))
            if i in self._kept:
                kept[i] = x
        return self.head([kept[i] for i in self.outputs])

    @torch.no_grad()
    def expect(self, imgsz: int, objects: float = 8.0) -> None:
        """Sets the head's biases to a prior of ``objects`` per image and class odds of 0.6 / classes (focal loss, 1708.02002).

        Without it the first hundred steps only learn that most cells are empty.
        """
        for head, stride in zip(self.head.heads, self.strides.tolist(), strict=True):
            bias = head.bias.view(self.head.per_level, -1)
            bias[:, 4] += math.log(objects / (imgsz / stride) ** 2)
            bias[:, 5:] += math.log(0.6 / (self.classes - 0.99999))

    def average_norms(self, momentum: float) -> None:
        """Sets the share of each batch in the running statistics of the batch norms."""
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = momentum

    def folded(self) -> Detector:
        """A copy in evaluation mode whose batch norms are folded into the convolutions: the same outputs, fewer operations."""
        model = copy.deepcopy(self).eval()
        for module in model.modules():
            if isinstance(module, Conv):
                module.fold()
        return model.requires_grad_(False)


def parameters(model: nn.Module) -> int:
    """Number of trainable values."""
    return sum(p.numel() for p in model.parameters())


def cost(name: str, classes: int = 80, imgsz: int = 640) -> dict[str, float | int | str]:
    """Name, parameters, convolution GFLOPs (2 x multiply-adds) and prediction rows of a model, without allocating it."""
    with torch.device("meta"):
        model = Detector(name, classes).eval()
        flops = 0

        def count(module: nn.Conv2d, _: Sequence[Tensor], out: Tensor) -> None:
            nonlocal flops
            flops += 2 * module.weight.numel() * out.shape[2] * out.shape[3]

        for module in model.modules():
            if isinstance(module, nn.Conv2d):
                module.register_forward_hook(count)
        maps = model(torch.empty(1, 3, imgsz, imgsz))
    rows = sum(m.shape[1] * m.shape[2] * m.shape[3] for m in maps)
    return {"name": name, "parameters": parameters(model), "gflops": round(flops / 1e9, 2), "rows": rows}
