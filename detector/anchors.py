"""Anchors for a data set: are the stock ones good enough, and if not, which fit. Never depends on a candidate's seed."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from detector.cache import Picture
from detector.models import Architecture

# The threshold that judges stock anchors is the lineage's default and not the candidate's anchor_t: all candidates of a
# campaign that ask for as many anchors train with the same ones.
MATCH_RATIO = 4.0
ENOUGH = 0.98
RESTARTS = 10
ROUNDS = 50
MOST_LABELS = 20_000


def label_sizes(pictures: Sequence[Picture]) -> np.ndarray:
    """Widths and heights (n, 2) of all labels in pixels at the training size, those of at least 2 pixels."""
    sizes = [p.labels[:, 3:5] * (p.pixels.shape[1], p.pixels.shape[0]) for p in pictures]
    wh = np.concatenate(sizes).astype(np.float64)
    wh = wh[(wh >= 2).all(1)] if (wh >= 2).all(1).any() else wh
    step = max(len(wh) // MOST_LABELS, 1)
    return wh[::step]


def recall(wh: np.ndarray, anchors: np.ndarray, ratio: float = MATCH_RATIO) -> float:
    """Best possible recall: the share of sizes (n, 2) that some anchor (k, 2) matches within a factor of ``ratio``."""
    r = wh[:, None] / anchors[None]
    return float((np.maximum(r, 1 / r).max(2).min(1) < ratio).mean())


def fit(wh: np.ndarray, count: int) -> np.ndarray:
    """``count`` anchors (count, 2) for sizes (n, 2), ordered by area: k-means on log width and log height.

    Matching judges ratios of sides, which are differences of logarithms, so that is where the clusters are sought. Starts are
    drawn as in k-means++ from a fixed seed; the best of some restarts is taken.
    """
    rng = np.random.default_rng(0)
    points = np.log(wh)
    best, least = points[:1].repeat(count, 0), np.inf
    for _ in range(RESTARTS):
        centres = _start(points, count, rng)
        for _ in range(ROUNDS):
            owner = _distances(points, centres).argmin(1)
            members = np.bincount(owner, minlength=count)
            sums = np.stack([np.bincount(owner, points[:, axis], count) for axis in (0, 1)], 1)
            moved = np.where(members[:, None] > 0, sums / np.maximum(members, 1)[:, None], centres)
            if np.array_equal(moved, centres):
                break
            centres = moved
        inertia = float(_distances(points, centres).min(1).sum())
        if inertia < least:
            best, least = centres, inertia
    anchors = np.exp(best)
    return anchors[np.argsort(anchors.prod(1), kind="stable")]


def _start(points: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    centres = points[rng.integers(len(points), size=1)]
    while len(centres) < count:
        weight = _distances(points, centres).min(1)
        # Fewer distinct sizes than anchors: the surplus anchors repeat a size.
        total = weight.sum()
        chosen = rng.choice(len(points), p=weight / total) if total > 0 else rng.integers(len(points))
        centres = np.concatenate((centres, points[chosen][None]))
    return centres


def _distances(points: np.ndarray, centres: np.ndarray) -> np.ndarray:
    return ((points[:, None] - centres[None]) ** 2).sum(2)


_FITTED: dict[tuple[str, int, int], np.ndarray] = {}


def choose(
    table: Architecture, pictures: Sequence[Picture], data_hash: str, imgsz: int, wanted: str, gene: float
) -> np.ndarray:
    """Anchors (levels, na, 2) in pixels, finest level first.

    ``wanted`` is the scenario's ``anchors``: "stock" keeps the model's own and the gene is ignored; "fitted" fits
    round(``gene``) anchors a level; "auto" keeps the stock ones if they are as many as the gene asks for and match more than
    98 % of the labels. A fit is made once per process for each (data, imgsz, count).
    """
    stock = np.array(table.anchors, np.float64)
    levels, count = len(stock), max(round(gene), 1)
    if wanted == "stock":
        return stock
    wh = label_sizes(pictures)
    if wanted == "auto" and count == stock.shape[1] and recall(wh, stock.reshape(-1, 2)) > ENOUGH:
        return stock
    key = (data_hash, imgsz, levels * count)
    if key not in _FITTED:
        _FITTED[key] = fit(wh, levels * count)
    return _FITTED[key].reshape(levels, count, 2)
