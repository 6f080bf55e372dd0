"""Detection metrics by COCO's rule: matching in score order, step envelope, mean of 101 recalls, mean over classes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from detector.nms import box_iou

THRESHOLDS = np.linspace(0.5, 0.95, 10)
_RECALLS = np.linspace(0.0, 1.0, 101)
MOST_CONFIDENCES = 1000


class Found(NamedTuple):
    """Detections of one image: ``boxes`` (n, 4) corners in pixels, ``scores`` (n,), ``classes`` (n,) integers."""

    boxes: np.ndarray
    scores: np.ndarray
    classes: np.ndarray


class Truth(NamedTuple):
    """Labels of one image: ``boxes`` (m, 4) corners in pixels, ``classes`` (m,) integers."""

    boxes: np.ndarray
    classes: np.ndarray


def match(found: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Which detections (n, 4), best score first, are true at each IoU threshold: (10, n) booleans, for one image and class.

    In score order each detection takes the best label that is still free and overlaps enough (COCO's evaluation).
    """
    true = np.zeros((len(THRESHOLDS), len(found)), bool)
    if not len(found) or not len(truth):
        return true
    iou = box_iou(found.astype(np.float64), truth.astype(np.float64))
    free = np.ones((len(THRESHOLDS), len(truth)), bool)
    levels = np.arange(len(THRESHOLDS))
    for i in np.flatnonzero(iou.max(1) >= THRESHOLDS[0]):
        usable = np.where(free & (iou[i] >= THRESHOLDS[:, None]), iou[i], -1.0)
        # Of equal overlaps COCO takes the last.
        best = len(truth) - 1 - usable[:, ::-1].argmax(1)
        hit = usable[levels, best] >= 0
        true[hit, i] = True
        free[levels[hit], best[hit]] = False
    return true


def evaluate(found: Sequence[Found], truth: Sequence[Truth], classes: int, confidence: float | None = None) -> dict[str, float]:
    """precision, recall, f1 and their confidence ``conf``, map50 and map50_95, means over the classes that have labels.

    Precision, recall and F1 hold at IoU 0.5 and at ``confidence``; None means the one, common to all classes, where mean F1 is
    largest.
    Without labels or detections all are 0.
    """
    aps, curves = [], []
    for _, labels, score, true in _by_class(found, truth, classes):
        aps.append([average_precision(row, labels) for row in true])
        curves.append((score, np.cumsum(true[0]), labels))
    result = dict.fromkeys(("precision", "recall", "f1", "conf", "map50", "map50_95"), 0.0)
    if aps:
        table = np.array(aps)
        result |= operating_point(curves, confidence)
        result |= {"map50": float(table[:, 0].mean()), "map50_95": float(table.mean())}
    return result


def _by_class(
    found: Sequence[Found], truth: Sequence[Truth], classes: int
) -> Iterator[tuple[int, int, np.ndarray, np.ndarray]]:
    """Of each class that has labels: its number, how many labels, scores (n,) best first, and matches (10, n)."""
    for c in range(classes):
        labels = sum(int((t.classes == c).sum()) for t in truth)
        if not labels:
            continue
        scores, trues = [], []
        for f, t in zip(found, truth, strict=True):
            mine = np.flatnonzero(f.classes == c)
            mine = mine[np.argsort(-f.scores[mine], kind="stable")]
            scores.append(f.scores[mine])
            trues.append(match(f.boxes[mine], t.boxes[t.classes == c]))
        score, true = np.concatenate(scores), np.concatenate(trues, 1)
        order = np.argsort(-score, kind="stable")
        yield c, labels, score[order], true[:, order]


def average_precision(true: np.ndarray, labels: int) -> float:
    """Mean of the precision envelope at 101 recalls; ``true`` (n,) says of each detection, best first, whether it matched."""
    return float(envelope(true, labels).mean())


def envelope(true: np.ndarray, labels: int) -> np.ndarray:
    """Best precision (101,) at recalls of at least 0, 0.01, ..., 1."""
    hits = np.cumsum(true)
    recall = hits / labels
    precision = hits / np.arange(1, len(true) + 1)
    best = np.maximum.accumulate(precision[::-1])[::-1]
    at = np.searchsorted(recall, _RECALLS, side="left")
    return np.append(best, 0.0)[at]


def precision_curves(found: Sequence[Found], truth: Sequence[Truth], classes: int) -> dict[int, np.ndarray]:
    """Of each class that has labels, its precision envelope (101,) at IoU 0.5."""
    return {c: envelope(true[0], labels) for c, labels, _, true in _by_class(found, truth, classes)}


def confusion(
    found: Sequence[Found], truth: Sequence[Truth], classes: int, confidence: float = 0.25, iou: float = 0.45
) -> np.ndarray:
    """(classes + 1, classes + 1) counts: found as (row) what is (column). Last row: missed; last column: nothing is there.

    Of the detections above ``confidence``, best first, each takes the free label of any class that overlaps it most, by at
    least ``iou``.
    """
    table = np.zeros((classes + 1, classes + 1), int)
    for f, t in zip(found, truth, strict=True):
        order = np.flatnonzero(f.scores > confidence)
        order = order[np.argsort(-f.scores[order], kind="stable")]
        free = np.ones(len(t.classes), bool)
        overlaps = box_iou(f.boxes[order].astype(np.float64), t.boxes.astype(np.float64))
        for label_class, row in zip(f.classes[order], overlaps, strict=True):
            row = np.where(free, row, -1.0)
            best = int(row.argmax()) if len(row) else -1
            hit = best >= 0 and row[best] >= iou
            table[label_class, t.classes[best] if hit else classes] += 1
            if hit:
                free[best] = False
        np.add.at(table, (classes, t.classes[free]), 1)
    return table


def operating_point(curves: Sequence[tuple[np.ndarray, np.ndarray, int]], confidence: float | None = None) -> dict[str, float]:
    """Mean precision, recall and F1 over the classes at ``confidence``; None means the confidence of largest mean F1.

    A curve holds a class's scores, best first, the number of true detections up to each, and its number of labels. Candidates
    are the scores that occur, thinned to 1000 of evenly spaced ranks; the highest of equally good ones is taken.
    """
    scores = np.unique(np.concatenate([c[0] for c in curves]))[::-1]
    if not len(scores):
        return dict.fromkeys(("precision", "recall", "f1", "conf"), 0.0)
    if confidence is not None:
        scores = np.array([confidence])
    if len(scores) > MOST_CONFIDENCES:
        scores = scores[np.linspace(0, len(scores) - 1, MOST_CONFIDENCES).round().astype(int)]
    precision, recall = np.zeros((2, len(curves), len(scores)))
    for i, (score, hits, labels) in enumerate(curves):
        taken = np.searchsorted(-score, -scores, side="right")  # detections at or above each confidence
        true = np.append(0, hits)[taken]
        precision[i] = true / np.maximum(taken, 1)
        recall[i] = true / labels
    f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-12)
    best = int(f1.mean(0).argmax())
    values = {"precision": precision, "recall": recall, "f1": f1}
    return {k: float(v[:, best].mean()) for k, v in values.items()} | {"conf": float(scores[best])}
