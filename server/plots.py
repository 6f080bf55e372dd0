"""``evolve.png``: a panel per gene with its value against fitness, as yolov5 draws it, on one sheet that can be read.

What it keeps: value on x, fitness on y, colour by density, a cross at the best, ``name = value`` as title. What it adds: one
scale of fitness for all panels, the default as a dashed line, and two different words for a gene that does not move: ``fixed``
(not evolved) and ``stuck`` (evolved, yet every candidate has the same value). Drawn with figures of its own, never pyplot, so
that threads do not meet.
"""

from __future__ import annotations

import hashlib
import io
import math
import threading
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from evolution.analysis import density
from evolution.result_files import ResultRow
from evolution.space import Gene, Space
from server import page_words

Floats = npt.NDArray[np.float64]

COLUMNS = 6
PANEL_W, PANEL_H = 2.15, 1.85  # inches, with its title and ticks
LEFT, RIGHT, TOP, BOTTOM = 0.62, 0.18, 0.84, 0.06  # inches outside the panels
LEAST_W = 5.8  # a narrow sheet still has room for its title
DPI = 110
BINS = 24  # of the density, each way
STUCK_FROM = 10  # rows: a gene that has not moved in fewer may only have been unlucky
LOG_FROM = 20.0  # largest / smallest value of a ``log`` gene from which the axis becomes logarithmic
CACHED = 24  # sheets


class _Ink(NamedTuple):
    paper: str
    text: str
    faint: str
    best: str
    darkest: float  # where the density scale begins: the dark end of viridis cannot be seen on dark paper


LIGHT = _Ink("#ffffff", "#24292f", "#6e7781", "#d1242f", 0.0)
DARK = _Ink("#171a21", "#d5dae1", "#8b949e", "#ff7b72", -0.45)

_drawn: OrderedDict[str, bytes] = OrderedDict()
_drawing = threading.Lock()  # one sheet at a time: who waits for the same sheet finds it drawn


def evolve_png(space: Space, rows: Sequence[ResultRow], *, title: str, dark: bool = False, done: int | None = None) -> bytes:
    """The sheet as PNG. Sheets of the same rows are drawn once. ``done`` says of how many candidates ``rows`` are a sample.

    Raises:
        ValueError: there is no row, or no gene.
    """
    if not rows or not len(space):
        raise ValueError("a picture needs at least one finished candidate and one gene")
    values = np.array([list(space.encode(row.hyp).values()) for row in rows], dtype=np.float64)
    fitness = np.array([row.fitness for row in rows], dtype=np.float64)
    numbers = [row.number for row in rows]
    digest = hashlib.sha256(
        repr((space.genes, title, dark, done, numbers)).encode() + values.tobytes() + fitness.tobytes()
    ).hexdigest()
    with _drawing:
        png = _drawn.get(digest)
        if png is None:
            best = int(np.lexsort((np.array(numbers), -fitness))[0])
            words = (title, _legend(len(rows), done, numbers[best], float(fitness[best])))
            png = _drawn[digest] = _sheet(space, values, fitness, best, words, DARK if dark else LIGHT)
            while len(_drawn) > CACHED:
                _drawn.popitem(last=False)
        _drawn.move_to_end(digest)
    return png


def shape(genes: int) -> tuple[int, int]:
    """Rows and columns of the sheet: no more than ``COLUMNS`` wide, and no wider than it must be."""
    rows = math.ceil(genes / COLUMNS)
    return rows, math.ceil(genes / rows)


def size(genes: int) -> tuple[int, int]:
    """Width and height of the sheet in pixels."""
    width, height = _inches(genes)
    return int(round(width * DPI, 6)), int(round(height * DPI, 6))


def _inches(genes: int) -> tuple[float, float]:
    rows, columns = shape(genes)
    return max(LEFT + columns * PANEL_W + RIGHT, LEAST_W), TOP + rows * PANEL_H + BOTTOM


def stuck(values: Floats) -> bool:
    """True where enough candidates tried and the gene is the same in all of them."""
    return len(values) >= STUCK_FROM and bool(np.all(values == values[0]))


def _sheet(space: Space, values: Floats, fitness: Floats, best: int, words: tuple[str, str], ink: _Ink) -> bytes:
    _, columns = shape(len(space))
    width, height = _inches(len(space))
    figure = Figure(figsize=(width, height), dpi=DPI, facecolor=ink.paper)
    FigureCanvasAgg(figure)
    low, high = _fitness_range(fitness)
    step_x = (width - LEFT - RIGHT) / columns
    for index, gene in enumerate(space):
        row, column = divmod(index, columns)
        box = (
            (LEFT + column * step_x) / width,
            1 - (TOP - 0.2 + row * PANEL_H + PANEL_H - 0.32) / height,
            (step_x - 0.2) / width,
            (PANEL_H - 0.58) / height,
        )
        axes = figure.add_axes(box, facecolor=ink.paper)
        _panel(axes, gene, values[:, index], fitness, best, (low, high), ink)
        _fitness_ticks(axes, low, high, first=column == 0)
    title, legend = words
    _words(figure, LEFT / width, 1 - 0.22 / height, title[:90], size=12, color=ink.text, weight="bold")
    _words(figure, LEFT / width, 1 - 0.43 / height, legend, size=8, color=ink.faint)
    target = io.BytesIO()
    figure.savefig(target, format="png", facecolor=ink.paper)
    return target.getvalue()


def _legend(drawn: int, done: int | None, best: int, fitness: float) -> str:
    told = f"{page_words.count(done or drawn, 'candidate')} done"
    if done is not None and done > drawn:
        told += f", {drawn} of them drawn"
    return f"{told} · best #{best} fitness {page_words.fitness(fitness)} (+) · default dashed · colour: density"


def _words(figure: Figure, x: float, y: float, words: str, **look: Any) -> None:
    # parse_math off: a name with $ in it is a name
    figure.text(x, y, words, ha="left", va="center", parse_math=False, **look)


def _panel(axes: Axes, gene: Gene, values: Floats, fitness: Floats, best: int, y_range: tuple[float, float], ink: _Ink) -> None:
    logarithmic = _logarithmic(gene, values)
    x = np.log10(values) if logarithmic else values
    start = _shown(gene.start, logarithmic)
    word = "fixed" if gene.fixed else "stuck" if stuck(values) else ""
    y = np.clip(fitness, *y_range)
    low, high = float(x.min()), float(x.max())
    axes.set_ylim(*y_range)
    if low == high:
        axes.set_xlim(low - 1, low + 1)
        axes.set_xticks([low], [_said(gene, float(values[0]))])
        if word:
            axes.axvline(low, color=ink.faint, lw=5 if word == "fixed" else 2, alpha=0.35, zorder=1)
            axes.text(
                0.97, 0.94, word, transform=axes.transAxes, ha="right", va="top", size=7.5, style="italic", color=ink.faint
            )
    elif gene.choices:
        axes.set_xlim(-0.5, len(gene.choices) - 0.5)
        axes.set_xticks(range(len(gene.choices)), [page_words.number(choice)[:9] for choice in gene.choices])
    else:
        pad = (high - low) * 0.07
        axes.set_xlim(low - pad, high + pad)
        _value_ticks(axes, (low, high), (float(values.min()), float(values.max())))
    if (
        start is not None
        and low != high
        and not gene.choices
        and low - 0.5 * (high - low) <= start <= high + 0.5 * (high - low)
    ):
        axes.set_xlim(min(axes.get_xlim()[0], start), max(axes.get_xlim()[1], start))
        axes.axvline(start, color=ink.faint, lw=1, ls=(0, (3, 2)), zorder=1)
    if word:  # nothing to learn here, so nothing that draws the eye
        axes.scatter(x, y, color=ink.faint, s=9, lw=0, alpha=0.3, zorder=2)
    else:
        count = np.log(density(x, y, BINS))  # type: ignore[arg-type]
        top = max(float(count.max()), 1.0)
        order = np.argsort(count, kind="stable")  # the densest on top
        look: dict[str, Any] = {"cmap": "viridis", "vmin": ink.darkest * top, "vmax": top, "alpha": 0.85}
        axes.scatter(x[order], y[order], c=count[order], s=11, lw=0, zorder=2, **look)
    axes.plot([x[best]], [y[best]], marker="+", ms=13, mew=1.8, color=ink.best, ls="none", zorder=3)
    unit = "  (log)" if logarithmic else ""
    name = gene.name if len(gene.name) <= 20 else gene.name[:19] + "…"
    axes.set_title(f"{name} = {_said(gene, float(values[best]))}{unit}", size=8.5, color=ink.text, pad=4, parse_math=False)
    axes.tick_params(labelsize=7, colors=ink.faint, length=2.5, pad=2)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(ink.faint)
        spine.set_linewidth(0.6)


def _said(gene: Gene, value: float) -> str:
    return page_words.number(gene.decode(value)) if gene.choices else _number(value)


def _logarithmic(gene: Gene, values: Floats) -> bool:
    return gene.scale == "log" and bool(values.min() > 0) and float(values.max() / values.min()) >= LOG_FROM


def _shown(value: float, logarithmic: bool) -> float | None:
    if not logarithmic:
        return value
    return math.log10(value) if value > 0 else None


def _value_ticks(axes: Axes, at: tuple[float, float], values: tuple[float, float]) -> None:
    """Smallest and largest value only, written inwards, so that no label meets its neighbour."""
    axes.set_xticks(at, [_number(value) for value in values])
    smallest, largest = axes.get_xticklabels()
    smallest.set_horizontalalignment("left")
    largest.set_horizontalalignment("right")


def _fitness_ticks(axes: Axes, low: float, high: float, *, first: bool) -> None:
    step = 10.0 ** math.floor(math.log10((high - low) / 2))
    step = next(step * m for m in (1, 2, 5, 10) if (high - low) / (step * m) <= 4.5)
    ticks = [k * step for k in range(math.ceil(low / step), math.floor(high / step) + 1)]
    axes.set_yticks(ticks, [f"{tick:.4g}" for tick in ticks] if first else [""] * len(ticks))
    axes.grid(axis="y", lw=0.4, color="#808080", alpha=0.3)
    axes.set_axisbelow(True)


def _fitness_range(fitness: Floats) -> tuple[float, float]:
    """One diverged training must not flatten every panel: what lies far below the 1st percentile is drawn on the lower edge."""
    low, high = float(np.quantile(fitness, 0.01)) if len(fitness) >= 20 else float(fitness.min()), float(fitness.max())
    span = high - low
    if span <= max(abs(low), abs(high)) * 1e-9:
        span = max(abs(high) * 0.1, 1e-6)
    return low - 0.06 * span, high + 0.1 * span


def _number(value: float) -> str:
    return f"{value:.3g}"
