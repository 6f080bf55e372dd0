"""A data set that lives on one device, and training samples rendered there: mosaic, warp, mixup, colours, mirrors, labels.

The other renderer of ``detector.samples``: tensors of a whole batch instead of OpenCV image by image. No canvas is composed:
each output pixel is traced back through the matrix to the picture that covers it. The host sends numbers and waits for nothing.
Against ``detector.augment``: boxes within 0.001 pixels; pixels differ on average by less than 0.5 of 255 levels, where colours
turn (OpenCV 5 rounds its hues from tables), and by less than 0.001 elsewhere.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from detector.augment import FILL
from detector.batches import Batch, ValBatch, validation_batches
from detector.cache import Picture, Pictures
from detector.execution import Execution
from detector.samples import Layer, Sample, pasted_mask

# Output pixels that are traced at once; bounds the memory of a batch's intermediate tensors to some hundred megabytes.
MOST_AT_ONCE = 4_000_000

# Share of a GPU's free memory that a data set may take; the rest is for the network.
MOST_OF_FREE = 0.5

# A training whose images grow shows two sizes.
CAPACITY = 2

_held: list[Resident] = []
_held_validation: list[tuple[Sequence[Picture], tuple[int, str], list[ValBatch]]] = []


def resident(pictures: Sequence[Picture], device: str) -> Resident:
    """The pictures on a device; the last two that were asked for stay there for the next candidate."""
    found = next((home for home in _held if home.pictures is pictures and home.device == device), None)
    if found is None:
        del _held[: len(_held) - CAPACITY + 1]  # makes room first
        found = Resident(pictures, device)
    else:
        _held.remove(found)
    _held.append(found)
    return found


def resident_validation(pictures: Sequence[Picture], batch: int, device: str) -> list[ValBatch]:
    """``detector.batches.validation_batches`` on a device; those of the last call stay there."""
    if not (_held_validation and _held_validation[0][0] is pictures and _held_validation[0][1] == (batch, device)):
        _held_validation.clear()
        moved = [
            item._replace(batch=Batch(item.batch.images.to(device), item.batch.targets.to(device)))
            for item in validation_batches(pictures, batch)
        ]
        _held_validation.append((pictures, (batch, device), moved))
    return _held_validation[0][2]


def lives_on_device(pictures: Pictures, execution: Execution) -> bool:
    """Whether ``augment`` means the device: "auto" does on a GPU where training and validation pictures fit."""
    if execution.augment != "auto":
        return execution.augment == "device"
    if execution.kind != "cuda":
        return False
    if any(home.pictures is pictures.train for home in _held):
        return True
    free, _ = torch.cuda.mem_get_info(torch.device(execution.device))
    return sum(p.pixels.nbytes for p in (*pictures.train, *pictures.val)) <= MOST_OF_FREE * free


class Resident:
    """Decoded pictures and their labels as flat tensors on ``device``."""

    def __init__(self, pictures: Sequence[Picture], device: str) -> None:
        self.pictures, self.device = pictures, device
        self._size = np.array([p.pixels.shape[:2] for p in pictures], np.int64)
        ends = np.cumsum(self._size.prod(1))
        self._start = ends - self._size.prod(1)
        # RGB, with one grey pixel at the end, which is shown wherever no picture lies.
        self._grey = int(ends[-1])
        self._pixels = torch.full((self._grey + 1, 3), FILL, dtype=torch.uint8, device=device)
        for picture, start, end in zip(pictures, self._start, ends, strict=True):
            flat = np.ascontiguousarray(picture.pixels[..., ::-1]).reshape(-1, 3)
            self._pixels[start:end] = torch.from_numpy(flat).to(device)
        self._count = np.array([len(p.labels) for p in pictures], np.int64)
        self._first = np.cumsum(self._count) - self._count
        self._labels = torch.from_numpy(np.concatenate([p.labels for p in pictures]).astype(np.float32)).to(device)
        self._outlines = None
        if any(len(p.outlines) for p in pictures):
            width = max(p.outlines.shape[1] for p in pictures)
            parts = [p.outlines if len(p.outlines) else np.full((len(p.labels), width, 2), np.nan) for p in pictures]
            self._outlines = torch.from_numpy(np.concatenate(parts).astype(np.float32)).to(device)

    def batch(self, samples: Sequence[Sample]) -> Batch:
        """Samples of one shape, rendered. A target of a label that left the image has no area, and matches nothing."""
        mixed = [i for i, sample in enumerate(samples) if len(sample.layers) == 2]
        owner = [*range(len(samples)), *mixed]
        layers = [sample.layers[0] for sample in samples] + [samples[i].layers[1] for i in mixed]
        flips = np.array([(s.fliplr, s.flipud) for s in samples])
        height, width = samples[0].shape
        step = max(MOST_AT_ONCE // (height * width), 1)
        parts = [
            self._traced(layers[i : i + step], flips[owner[i : i + step]], (height, width)) for i in range(0, len(layers), step)
        ]
        images = torch.cat(parts) if len(parts) > 1 else parts[0]
        if mixed:
            images, others = images[: len(samples)], images[len(samples) :]
            where = self._send(np.array(mixed))
            ratio = self._send(np.array([samples[i].ratio for i in mixed], np.float32)).view(-1, 1, 1, 1)
            images = images.index_copy(0, where, (images[where] * ratio + others * (1 - ratio)).round())
        if samples[0].gains is not None:
            images = coloured(images, self._send(np.array([s.gains for s in samples], np.float32)))
        pixels = images.to(torch.uint8).permute(0, 3, 1, 2)
        return Batch(pixels, self._targets(layers, np.array(owner), flips, (height, width)))

    def _send(self, values: np.ndarray) -> Tensor:
        return torch.from_numpy(values).to(self.device, non_blocking=True)

    def _traced(self, layers: Sequence[Layer], flips: np.ndarray, shape: tuple[int, int]) -> Tensor:
        """(L, height, width, 3) float32 in 0 to 255: bilinear, whole numbers."""
        height, width = shape
        # Per layer and quarter: where the picture's pixels start, its corner and its size.
        members = np.array([layer.members * (4 // len(layer.members)) for layer in layers])
        corners = np.array([layer.corners * (4 // len(layer.corners)) for layer in layers])
        quarters = np.concatenate((self._start[members][..., None], corners, self._size[members]), -1)
        start, left, top, h, w = self._send(quarters.reshape(-1, 5)).unbind(1)
        inverse = self._send(np.linalg.inv(np.array([layer.matrix for layer in layers])).astype(np.float32))
        bounds = np.array([(*layer.split, layer.canvas[1], layer.canvas[0]) for layer in layers])
        split_x, split_y, canvas_w, canvas_h = self._send(bounds)[:, :, None, None].unbind(1)
        pasted = None
        if any(layer.pasted for layer in layers):
            # Only mosaics hold pasted objects; their canvas is twice the image.
            masks = [
                pasted_mask(layer, self.pictures) if layer.pasted else np.zeros((2 * height, 2 * width), np.uint8)
                for layer in layers
            ]
            pasted = self._send(np.stack(masks))

        mirror_x, mirror_y = self._send(flips).view(-1, 2, 1).unbind(1)
        x, y = (torch.arange(n, device=self.device, dtype=torch.float32)[None] for n in (width, height))
        x, y = torch.where(mirror_x, width - 1 - x, x)[:, None, :], torch.where(mirror_y, height - 1 - y, y)[:, :, None]
        rows = [
            inverse[:, i, 0, None, None] * x + inverse[:, i, 1, None, None] * y + inverse[:, i, 2, None, None] for i in range(3)
        ]
        x, y = rows[0] / rows[2], rows[1] / rows[2]
        x0, y0 = x.floor(), y.floor()
        dx, dy = (x - x0)[..., None], (y - y0)[..., None]
        layer = torch.arange(len(layers), device=self.device).view(-1, 1, 1)
        # A wild perspective reaches beyond any whole number; what lies off the canvas is grey wherever it lies.
        x0, y0 = (v.clamp(-2, 2**20).long() for v in (x0, y0))

        def shown(column: Tensor, row: Tensor) -> Tensor:
            on = (column >= 0) & (column < canvas_w) & (row >= 0) & (row < canvas_h)
            if pasted is not None:
                place = (row.clamp(0, pasted.shape[1] - 1), column.clamp(0, pasted.shape[2] - 1))
                column = torch.where(pasted[layer, *place] > 0, canvas_w - 1 - column, column)
            quarter = layer * 4 + (column >= split_x) + 2 * (row >= split_y)
            column, row = column - left[quarter], row - top[quarter]
            on &= (column >= 0) & (column < w[quarter]) & (row >= 0) & (row < h[quarter])
            address = torch.where(on, start[quarter] + row * w[quarter] + column, self._grey)
            return self._pixels[address].float()

        upper = shown(x0, y0).lerp(shown(x0 + 1, y0), dx)
        lower = shown(x0, y0 + 1).lerp(shown(x0 + 1, y0 + 1), dx)
        return upper.lerp(lower, dy).round()

    def _targets(self, layers: Sequence[Layer], owner: np.ndarray, flips: np.ndarray, shape: tuple[int, int]) -> Tensor:
        """(n, 6) as in ``Batch``: one row for every label of every member, and of every pasted object."""
        height, width = shape
        # On the host, numbers alone: which label of which layer each row is.
        of = np.repeat(np.arange(len(layers)), [len(layer.members) for layer in layers])
        members = np.array([m for layer in layers for m in layer.members])
        corners = np.array([c for layer in layers for c in layer.corners])
        count = self._count[members]
        row = np.arange(count.sum())
        label = row + np.repeat(self._first[members] - np.cumsum(count) + count, count)
        corner, size = np.repeat(corners, count, 0), np.repeat(self._size[members][:, ::-1], count, 0)
        of = np.repeat(of, count)
        start = np.searchsorted(of, np.arange(len(layers)))
        copies = np.array([start[i] + k for i, layer in enumerate(layers) for k in layer.pasted], np.int64)
        taken = np.concatenate((row, copies))
        still = np.array([layer.canvas == shape and np.allclose(layer.matrix, np.eye(3)) for layer in layers])
        of = of[taken]
        of_row, image, label, mirrored, still = (
            self._send(v) for v in (of, owner[of], label[taken], np.arange(len(taken)) >= len(row), still[of])
        )
        fliplr, flipud = self._send(flips)[image].unbind(1)
        canvas = np.array([layer.canvas[::-1] for layer in layers])[of]
        corner, size, canvas = (self._send(v.astype(np.float32)) for v in (corner[taken], size[taken], canvas))
        matrix = self._send(np.array([layer.matrix for layer in layers]))[of_row]
        zoom = self._send(np.array([layer.zoom for layer in layers]))[of_row]

        # On the device, the geometry: that of ``detector.objects``.
        values = self._labels[label]
        centre, half = values[:, 1:3], values[:, 3:5] / 2
        low, high = (centre - half) * size + corner, (centre + half) * size + corner
        low, high = low.clamp(min=0).minimum(canvas), high.clamp(min=0).minimum(canvas)
        x1, x2 = (torch.where(mirrored, canvas[:, 0] - b, a) for a, b in ((low[:, 0], high[:, 0]), (high[:, 0], low[:, 0])))
        y1, y2 = low[:, 1], high[:, 1]
        seen = (x2 > x1) & (y2 > y1)
        area = (x2 - x1) * (y2 - y1) * zoom**2
        limit = self._send(np.array((width, height), np.float64))
        moved = _project(torch.stack((x1, y1, x2, y2, x1, y2, x2, y1), 1).view(-1, 4, 2), matrix)
        low, high = moved.amin(1), moved.amax(1)
        share: Tensor | float = 0.10
        if self._outlines is not None:
            points = self._outlines[label] * size[:, None] + corner[:, None]
            points = torch.stack(
                (torch.where(mirrored[:, None], canvas[:, :1] - points[..., 0], points[..., 0]), points[..., 1]), 2
            )
            outlined = ~points[:, 0, 0].isnan()
            points = _project(points, matrix)
            there = ((points >= 0) & (points <= limit)).all(2, keepdim=True)  # NaN compares false
            some = there.any(1)
            low = torch.where(some, torch.where(there, points, torch.inf).amin(1), low)
            high = torch.where(some, torch.where(there, points, -torch.inf).amax(1), high)
            seen &= ~outlined | some[:, 0] | still
            share = torch.where(outlined, 0.01, 0.10)
        low, high = low.clamp(min=0).minimum(limit), high.clamp(min=0).minimum(limit)
        w, h = (high - low).unbind(1)
        aspect = torch.maximum(w, h) / torch.minimum(w, h).clamp(min=1e-9)
        kept = (w > 2) & (h > 2) & (aspect < 100) & (w * h > share * area.clamp(min=1e-9))
        whole = torch.stack((x1, y1, x2, y2), 1)
        x1, y1, x2, y2 = torch.where(still[:, None], whole, torch.cat((low, high), 1).float()).unbind(1)
        x1, x2 = torch.where(fliplr, width - x2, x1), torch.where(fliplr, width - x1, x2)
        y1, y2 = torch.where(flipud, height - y2, y1), torch.where(flipud, height - y1, y2)
        parts = (
            image.float(),
            values[:, 0],
            (x1 + x2) / 2 / width,
            (y1 + y2) / 2 / height,
            (x2 - x1) / width,
            (y2 - y1) / height,
        )
        return torch.where((seen & (kept | still))[:, None], torch.stack(parts, 1), 0.0)


def _project(points: Tensor, matrix: Tensor) -> Tensor:
    """(n, k, 2) points through (n, 3, 3) projective matrices."""
    moved = points.to(matrix.dtype) @ matrix[:, :, :2].transpose(1, 2) + matrix[:, None, :, 2]
    return moved[..., :2] / moved[..., 2:]


def coloured(images: Tensor, gains: Tensor) -> Tensor:
    """RGB (B, H, W, 3) in 0 to 255, hue, saturation and value multiplied by ``gains`` (B, 3) in OpenCV's whole steps."""
    value, least = images.amax(-1), images.amin(-1)
    r, g, b = images.unbind(-1)
    spread = value - least
    safe = spread.clamp(min=1)
    hue = torch.where(value == r, (g - b) / safe, torch.where(value == g, (b - r) / safe + 2, (r - g) / safe + 4))
    # OpenCV rounds halves up on the way there, and truncates on the way back.
    hue = (hue * 30 + 0.5).floor() % 180
    saturation = (spread * 255 / value.clamp(min=1) + 0.5).floor()
    by_hue, by_saturation, by_value = gains.view(-1, 3, 1, 1).unbind(1)
    # 256-entry tables of whole numbers, as the host uses them.
    hue = (hue * by_hue % 180).floor() / 30
    saturation = (saturation * by_saturation).clamp(0, 255).floor() / 255
    value = (value * by_value).clamp(0, 255).floor()
    channels = []
    for turn in (5, 3, 1):
        k = (hue + turn) % 6
        channels.append(value - value * saturation * torch.minimum(k, 4 - k).clamp(0, 1))
    return torch.stack(channels, -1).floor()
