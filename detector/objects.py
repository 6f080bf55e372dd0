"""The labelled objects of one image in pixels, and what moving, clipping and mirroring does to them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Objects:
    """``classes`` (n,), ``boxes`` (n, 4) corners x1 y1 x2 y2, ``outlines`` (n, k, 2) or (0, k, 2) where no object has one.

    All float32, in pixels. An object without outline beside objects with one holds NaN points.
    """

    classes: np.ndarray
    boxes: np.ndarray
    outlines: np.ndarray

    @classmethod
    def of(cls, labels: np.ndarray, outlines: np.ndarray, width: int, height: int, x: int = 0, y: int = 0) -> Objects:
        """From fractional labels (n, 5) of a ``width`` x ``height`` image placed with its corner at (x, y)."""
        centre, half = labels[:, 1:3], labels[:, 3:5] / 2
        size = np.array((width, height), np.float32)
        boxes = np.concatenate(((centre - half) * size, (centre + half) * size), 1)
        boxes += np.array((x, y, x, y), np.float32)
        return cls(labels[:, 0], boxes, outlines * size + np.array((x, y), np.float32))

    @classmethod
    def joined(cls, parts: list[Objects]) -> Objects:
        """All objects of several images that now share one canvas."""
        outlined = any(len(p.outlines) for p in parts)
        return cls(
            np.concatenate([p.classes for p in parts]),
            np.concatenate([p.boxes for p in parts]),
            np.concatenate([p.full_outlines() for p in parts]) if outlined else parts[0].outlines[:0],
        )

    def full_outlines(self) -> np.ndarray:
        """(n, k, 2), NaN where an object has no outline."""
        if len(self.outlines):
            return self.outlines
        return np.full((len(self.classes), *self.outlines.shape[1:]), np.nan, np.float32)

    def take(self, keep: np.ndarray) -> Objects:
        """The objects where ``keep`` (n,) is true, or at these indices."""
        return Objects(self.classes[keep], self.boxes[keep], self.outlines[keep] if len(self.outlines) else self.outlines)

    def inside(self, width: int, height: int) -> np.ndarray:
        """Which objects (n,) have some area in the image."""
        boxes = self._clip(width, height)
        return (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])

    def clipped(self, width: int, height: int) -> Objects:
        """Boxes clipped to the image; those left without area go."""
        return Objects(self.classes, self._clip(width, height), self.outlines).take(self.inside(width, height))

    def _clip(self, width: int, height: int) -> np.ndarray:
        return np.clip(self.boxes, 0, np.array((width, height, width, height), np.float32))

    def flipped(self, width: int | None = None, height: int | None = None) -> Objects:
        """Mirrored left-right within ``width``, up-down within ``height``."""
        boxes, outlines = self.boxes.copy(), self.outlines.copy()
        for axis, size in ((0, width), (1, height)):
            if size is not None:
                boxes[:, axis], boxes[:, axis + 2] = size - self.boxes[:, axis + 2], size - self.boxes[:, axis]
                outlines[..., axis] = size - outlines[..., axis]
        return Objects(self.classes, boxes, outlines)

    def warped(self, matrix: np.ndarray, width: int, height: int, zoom: float) -> Objects:
        """Moved by a 3 x 3 ``matrix`` onto a ``width`` x ``height`` image; ``zoom`` is the factor on lengths it contains.

        A box becomes the bounding box of its four moved corners, or of its moved outline, clipped to the image. An object
        stays if it is wider and higher than 2 pixels, its aspect is below 100, and at least 10 % of its area (1 % with
        outline) is left.
        """
        n = len(self.classes)
        if not n:
            return self
        x1, y1, x2, y2 = self.boxes.T
        corners = _project(np.stack((x1, y1, x2, y2, x1, y2, x2, y1), 1).reshape(n, 4, 2), matrix)
        boxes = np.concatenate((corners.min(1), corners.max(1)), 1)
        share = np.full(n, 0.10)
        outlines = self.outlines
        if len(outlines):
            outlines = _project(outlines, matrix)
            limit = np.array((width, height), np.float32)
            seen = np.all((outlines >= 0) & (outlines <= limit), 2, keepdims=True)  # NaN compares false
            has = seen.any((1, 2))
            low = np.where(seen, outlines, np.inf).min(1)
            high = np.where(seen, outlines, -np.inf).max(1)
            outlined = ~np.isnan(outlines[:, 0, 0])
            boxes[has] = np.concatenate((low, high), 1)[has]
            boxes[outlined & ~has] = 0  # the whole outline left the image
            share[outlined] = 0.01
        clip = np.clip(boxes, 0, np.array((width, height, width, height), np.float32))
        w, h = clip[:, 2] - clip[:, 0], clip[:, 3] - clip[:, 1]
        area = (x2 - x1) * (y2 - y1) * zoom**2
        aspect = np.maximum(w, h) / np.maximum(np.minimum(w, h), 1e-9)
        keep = (w > 2) & (h > 2) & (aspect < 100) & (w * h > share * np.maximum(area, 1e-9))
        return Objects(self.classes, clip.astype(np.float32), outlines.astype(np.float32)).take(keep)


def _project(points: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """(..., 2) points through a 3 x 3 projective matrix."""
    moved = points @ matrix[:, :2].T + matrix[:, 2]
    return moved[..., :2] / moved[..., 2:]
