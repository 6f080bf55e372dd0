"""The blocks that the networks are built from: YOLOv3 (arXiv:1804.02767), CSP (1911.11929), SPP (1406.4729)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Conv(nn.Module):
    """Convolution without bias, batch norm, SiLU: (B, cin, H, W) -> (B, cout, H/stride, W/stride)."""

    def __init__(self, cin: int, cout: int, kernel: int = 1, stride: int = 1, padding: int | None = None) -> None:
        super().__init__()
        pad = kernel // 2 if padding is None else padding
        self.conv = nn.Conv2d(cin, cout, kernel, stride, pad, bias=False)
        self.norm: nn.Module = nn.BatchNorm2d(cout, eps=1e-3, momentum=0.03)

    def forward(self, x: Tensor) -> Tensor:
        return F.silu(self.norm(self.conv(x)))

    @torch.no_grad()
    def fold(self) -> None:
        """Moves the batch norm's affine map into the convolution: w' = w g / s, b' = b - m g / s with s = sqrt(var + eps)."""
        norm = self.norm
        if not isinstance(norm, nn.BatchNorm2d):
            return
        gain = norm.weight / torch.sqrt(norm.running_var + norm.eps)
        self.conv.weight.mul_(gain.view(-1, 1, 1, 1))
        self.conv.bias = nn.Parameter(norm.bias - norm.running_mean * gain)
        self.norm = nn.Identity()


class Bottleneck(nn.Module):
    """1x1 to ``expansion`` x cout, 3x3 to cout, plus the input where ``add`` and the channels agree (ResNet, 1512.03385)."""

    def __init__(self, cin: int, cout: int, add: bool = True, expansion: float = 0.5) -> None:
        super().__init__()
        hidden = int(cout * expansion)
        self.reduce = Conv(cin, hidden, 1)
        self.expand = Conv(hidden, cout, 3)
        self.add = add and cin == cout

    def forward(self, x: Tensor) -> Tensor:
        y = self.expand(self.reduce(x))
        return x + y if self.add else y


class C3(nn.Module):
    """Cross-stage partial block with three 1x1 convolutions: half the channels pass n bottlenecks, half pass by."""

    def __init__(self, cin: int, cout: int, repeats: int = 1, add: bool = True) -> None:
        super().__init__()
        hidden = cout // 2
        self.main = Conv(cin, hidden, 1)
        self.side = Conv(cin, hidden, 1)
        self.chain = nn.Sequential(*(Bottleneck(hidden, hidden, add, 1.0) for _ in range(repeats)))
        self.merge = Conv(2 * hidden, cout, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.merge(torch.cat((self.chain(self.main(x)), self.side(x)), 1))


class SPPF(nn.Module):
    """Spatial pyramid pooling by three chained 5x5 maxima, which equal parallel maxima over 5, 9 and 13."""

    def __init__(self, cin: int, cout: int, kernel: int = 5) -> None:
        super().__init__()
        hidden = cin // 2
        self.reduce = Conv(cin, hidden, 1)
        self.pool = nn.MaxPool2d(kernel, 1, kernel // 2)
        self.merge = Conv(4 * hidden, cout, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.reduce(x)
        a = self.pool(x)
        b = self.pool(a)
        return self.merge(torch.cat((x, a, b, self.pool(b)), 1))


class Upsample(nn.Module):
    """Nearest neighbour, twice the size."""

    def forward(self, x: Tensor) -> Tensor:
        return F.interpolate(x, scale_factor=2.0, mode="nearest")


class Concat(nn.Module):
    """Joins maps of equal size along the channels."""

    def forward(self, *maps: Tensor) -> Tensor:
        return torch.cat(maps, 1)


class PadPool(nn.Module):
    """2x2 maximum at stride 1; zeros on the right and below keep the size (tiny YOLOv3 before its widest convolution)."""

    def forward(self, x: Tensor) -> Tensor:
        return F.max_pool2d(F.pad(x, (0, 1, 0, 1)), 2, 1)


class Detect(nn.Module):
    """Per level one 1x1 convolution with bias to na x (5 + classes): list of (B, na, H, W, 5 + classes) raw outputs.

    The last axis holds tx, ty, tw, th, objectness and class logits; ``detector.boxes.decode`` turns them into boxes.
    """

    def __init__(self, channels: list[int], classes: int, per_level: int) -> None:
        super().__init__()
        self.per_level = per_level
        self.width = 5 + classes
        self.heads = nn.ModuleList(nn.Conv2d(c, per_level * self.width, 1) for c in channels)

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        out = []
        for head, x in zip(self.heads, maps, strict=True):
            y = head(x)
            b, _, h, w = y.shape
            out.append(y.view(b, self.per_level, self.width, h, w).permute(0, 1, 3, 4, 2))
        return out
