"""Charts of a data set and of an evaluation, as PNG files. Needs matplotlib, which nothing else here does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from detector.cache import Picture

MOST_NAMED = 20


def available() -> bool:
    """True where matplotlib is installed."""
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        return False
    return True


def _figure(width: float, height: float):
    from matplotlib.figure import Figure  # no pyplot: no global state, no window

    return Figure(figsize=(width, height), dpi=120, layout="constrained")


def precision_recall(curves: Mapping[int, np.ndarray], names: Sequence[str], path: Path) -> None:
    """Precision envelopes (101,) of each class over recall, at IoU 0.5, and their mean."""
    figure = _figure(7, 5)
    axes = figure.subplots()
    recall = np.linspace(0, 1, 101)
    for c, curve in curves.items():
        label = f"{names[c]} {curve.mean():.3f}" if len(curves) <= MOST_NAMED else None
        axes.plot(recall, curve, linewidth=1, label=label)
    if curves:
        mean = np.mean(list(curves.values()), 0)
        axes.plot(recall, mean, color="black", linewidth=2.5, label=f"all classes {mean.mean():.3f} map50")
        axes.legend(loc="lower left", fontsize=8)
    axes.set(xlabel="recall", ylabel="precision", xlim=(0, 1), ylim=(0, 1.02), title="Precision and recall at IoU 0.5")
    figure.savefig(path)


def confusion_matrix(table: np.ndarray, names: Sequence[str], path: Path) -> None:
    """Shares of each column of a (classes + 1, classes + 1) table: what became of the objects of a class."""
    share = table / np.maximum(table.sum(0, keepdims=True), 1)
    side = min(max(4 + 0.35 * len(names), 5), 14)
    figure = _figure(side, side * 0.85)
    axes = figure.subplots()
    shown = axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    figure.colorbar(shown, ax=axes)
    if len(names) <= 2 * MOST_NAMED:
        axes.set_xticks(range(len(names) + 1), [*names, "nothing"], rotation=90)
        axes.set_yticks(range(len(names) + 1), [*names, "missed"])
    if len(names) <= MOST_NAMED:
        for i, j in np.argwhere(table > 0):
            axes.text(j, i, f"{share[i, j]:.2f}", ha="center", va="center", color="white" if share[i, j] > 0.5 else "black")
    axes.set(xlabel="is", ylabel="found as", title="Confusion at confidence 0.25, IoU 0.45")
    figure.savefig(path)


def label_distribution(pictures: Sequence[Picture], names: Sequence[str], path: Path) -> None:
    """How many labels each class has, where their centres lie, and how large they are."""
    labels = np.concatenate([p.labels for p in pictures])
    figure = _figure(13, 4)
    counts, places, sizes = figure.subplots(1, 3)
    counts.bar(range(len(names)), np.bincount(labels[:, 0].astype(int), minlength=len(names)))
    if len(names) <= 2 * MOST_NAMED:
        counts.set_xticks(range(len(names)), names, rotation=90)
    counts.set(title="labels", ylabel="count")
    places.hist2d(labels[:, 1], 1 - labels[:, 2], bins=50, range=((0, 1), (0, 1)), cmap="Blues")
    places.set(title="centres", xlabel="x", ylabel="y, up")
    sizes.hist2d(labels[:, 3], labels[:, 4], bins=50, range=((0, 1), (0, 1)), cmap="Blues")
    sizes.set(title="sizes", xlabel="width", ylabel="height")
    figure.savefig(path)
