"""Numbers in, SVG text out: the best-so-far curve, learning curves, sparklines and the small bars of the pages.

No script and no fixed colour: every mark has a class that ``static/style.css`` paints from variables, so one drawing serves
light and dark. Each drawing says in words what it shows (``aria-label``), and ``<title>`` elements are its tooltips. It knows
nothing of campaigns.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from html import escape
from typing import NamedTuple

from evolution.analysis import best_so_far
from server.page_words import count, fitness

WIDTH, HEIGHT = 760, 340
LEFT, RIGHT, TOP, BOTTOM = 58, 20, 26, 42
MAX_DOTS_WITH_TOOLTIP = 600  # beyond this the dots share one path, thinned to the pixels they would cover
LABEL_PX = 92  # the least room that one label at a jump takes
LETTER_PX = 6.4  # about the width of a letter
NAME_PX, NAME_GAP = 150, 18.0  # the room for the names of lines and between them; a narrow screen writes them larger

Point = tuple[int, float]


class Series(NamedTuple):
    """One line of a learning curve. ``muted`` lines are there for comparison only.

    Without a ``hue`` each line gets the next colour with a dash of its own; lines that belong together share a hue and are told
    apart by ``dashed``.
    """

    name: str
    points: Sequence[Point]
    muted: bool = False
    hue: int | None = None
    dashed: bool = False


class _Box(NamedTuple):
    """A rectangle in pixels."""

    x0: float
    y0: float
    x1: float
    y1: float

    def meets(self, other: _Box) -> bool:
        return self.x0 <= other.x1 and other.x0 <= self.x1 and self.y0 <= other.y1 and other.y0 <= self.y1


class _Plane(NamedTuple):
    """From numbers to pixels."""

    x0: float
    x1: float
    y0: float
    y1: float
    right: float = RIGHT

    def x(self, value: float) -> float:
        return LEFT + (value - self.x0) / (self.x1 - self.x0) * (WIDTH - LEFT - self.right)

    def y(self, value: float) -> float:
        clamped = min(max(value, self.y0), self.y1)
        return HEIGHT - BOTTOM - (clamped - self.y0) / (self.y1 - self.y0) * (HEIGHT - TOP - BOTTOM)


def history(
    points: Sequence[Point],
    *,
    default: float | None = None,
    failed: Sequence[int] = (),
    until: int = 0,
    link: Callable[[int], str] | None = None,
) -> str:
    """Fitness over candidate numbers: a dot each, the best so far as steps, the default's fitness dashed, failures as ticks.

    The axis ends at the last candidate, or at ``until`` where more are to come.

    One diverged training must not flatten the others: what lies far below the rest is drawn on the lower edge.
    """
    if not points:
        return _svg("history", "no candidate is done yet", [_text(WIDTH / 2, HEIGHT / 2, "no candidate is done yet", "mid")])
    points = sorted(points)
    jumps = best_so_far(dict(points))
    plane = _history_plane(points, max([until, points[-1][0], *failed]), default)
    last = max([points[-1][0], *failed])
    marks = _axes(plane, "candidate number", whole=True)
    if default is not None:
        marks.append(f'<line class="default" x1="{LEFT}" x2="{WIDTH - RIGHT}" {_level(plane.y(default))}/>')
    marks += [
        f'<path class="tick-failed" d="M{plane.x(n):.1f} {HEIGHT - BOTTOM}v-8"><title>#{n} failed</title></path>'
        for n in failed
    ]
    marks += _dots(plane, points, {number for number, _ in jumps}, link)
    marks.append(f'<path class="best" d="{_steps(plane, jumps, last)}"/>')
    labels, taken = _jumps(plane, jumps, link)
    marks += labels
    if default is not None:
        words = f"default {fitness(default)}"
        x, y = _free_place(plane, plane.y(default), len(words) * LETTER_PX, points, jumps, last, taken)
        marks.append(_text(x, y, words, "end default-text"))
    best = jumps[-1]
    label = f"fitness of {count(len(points), 'candidate')}, the best is #{best[0]} with {fitness(best[1])}"
    return _svg("history", label + ("" if default is None else f", the default has {fitness(default)}"), marks)


def learning_curve(
    series: Sequence[Series], *, label: str, until: int = 0, zero: bool = False, empty: str = "no epoch yet"
) -> str:
    """Metrics over epochs, from 1 at least to ``until``. Lines differ by dash as well as colour, each is named at its end."""
    series = [line for line in series if line.points]
    if not series:
        return _svg("learning", f"{label}: {empty}", [_text(WIDTH / 2, HEIGHT / 2, empty, "mid")])
    values = [value for line in series for _, value in line.points]
    epochs = [epoch for line in series for epoch, _ in line.points]
    low, high = _padded(min([*values, 0.0] if zero else values), max(values))
    first, last = _whole(min([*epochs, 1]), max([*epochs, until]))
    plane = _Plane(first, last, 0.0 if zero and min(values) >= 0 else low, high, right=NAME_PX)
    marks = _axes(plane, "epoch", whole=True)
    ends = _ends(plane, series)
    colour = 0
    for line, end in zip(series, ends, strict=True):
        kind = "muted" if line.muted else f"s{(colour if line.hue is None else line.hue) % 4}"
        dash = "" if line.hue is None else " dashed" if line.dashed else " solid"
        colour += not line.muted
        single = len(line.points) == 1  # a line of one point would not be seen
        path = " ".join(f"{plane.x(x):.1f},{plane.y(y):.1f}" for x, y in line.points)
        marks.append(f'<polyline class="line {kind}{dash}" points="{path}"><title>{escape(line.name)}</title></polyline>')
        if single or not line.muted:
            marks += [
                f'<circle class="knot {kind}{dash}{" single" if single else ""}" cx="{plane.x(x):.1f}" '
                f'cy="{plane.y(y):.1f}" r="{4.5 if single else 2.5}">'
                f"<title>{escape(line.name)}, epoch {x}: {y:.4g}</title></circle>"
                for x, y in line.points
            ]
        marks.append(
            _text(plane.x(line.points[-1][0]) + 8, end + 4, f"{line.name} {_brief(line.points[-1][1])}", f"start name {kind}")
        )
    named = ", ".join(f"{line.name} ends at {line.points[-1][1]:.4g}" for line in series)
    return _svg("learning", f"{label}: {named}", marks)


def sparkline(points: Sequence[Point], last: int | None = None) -> str:
    """The best so far as a small step curve; ``points`` may be all candidates or only the jumps, ``last`` the newest number."""
    jumps = best_so_far(dict(points))
    if not jumps:
        return ""
    width, height = 120.0, 28.0
    last = max(last or 0, jumps[-1][0], jumps[0][0] + 1)
    low, high = _padded(jumps[0][1], jumps[-1][1])

    def x(number: int) -> float:
        return 2 + (number - jumps[0][0]) / (last - jumps[0][0]) * (width - 6)

    def y(value: float) -> float:
        return height - 3 - (value - low) / (high - low) * (height - 6)

    path = f"M{x(jumps[0][0]):.1f} {y(jumps[0][1]):.1f}"
    path += "".join(f"H{x(number):.1f}V{y(value):.1f}" for number, value in jumps[1:]) + f"H{x(last):.1f}"
    marks = [f'<path class="best" d="{path}"/>', f'<circle class="end" cx="{x(last):.1f}" cy="{y(jumps[-1][1]):.1f}" r="2.5"/>']
    return _small("spark", f"best so far rose from {fitness(jumps[0][1])} to {fitness(jumps[-1][1])}", width, height, marks)


def shares(parts: Iterable[tuple[str, str, int]]) -> str:
    """A bar cut into shares, each (class, word, count). A part that is there is never thinner than a pixel or two."""
    parts = list(parts)
    total = max(sum(n for _, _, n in parts), 1)
    marks, at = [], 0.0
    for kind, word, n in parts:
        if n:
            wide = max(n / total * 1000, 3.0)
            box = f'x="{at:.1f}" y="0" width="{wide:.1f}" height="10"'
            marks.append(f'<rect class="part {escape(kind)}" {box}><title>{n} {escape(word)}</title></rect>')
            at += wide
    label = ", ".join(f"{n} {word}" for _, word, n in parts if n) or "nothing yet"
    return (
        f'<svg class="shares" role="img" aria-label="{escape(label)}" viewBox="0 0 {max(at, 1000):.1f} 10" '
        f'preserveAspectRatio="none">{"".join(marks)}</svg>'
    )


def change_bar(share: float, largest: float = 1.0) -> str:
    """A bar to the right (grew) or to the left (shrank); ``share`` of the range is drawn against the ``largest`` one."""
    length = min(abs(share) / max(abs(largest), 1e-12), 1.0)
    wide = max(length * 58, 1.5) if share else 0.0
    kind, at, word = ("up", 60.0, "up") if share >= 0 else ("down", 60.0 - wide, "down")
    label = f"{word} by {abs(share):.1%} of the range" if share else "unchanged"
    bar = f'<rect class="{kind}" x="{at:.1f}" y="3" width="{wide:.1f}" height="8" rx="1"/>'
    return _small("change", label, 120, 14, ['<path class="axis" d="M60 0v14"/>', bar])


def share_bar(share: float, low: float, high: float, largest: float) -> str:
    """A bar from 0 with its interval as a whisker, against the ``largest`` end of one."""
    at, start, end = (min(value / max(largest, 1e-12), 1.0) * 116 + 2 for value in (share, low, high))
    marks = [
        f'<rect class="up" x="2" y="4" width="{max(at - 2, 1.0):.1f}" height="6" rx="1"/>',
        f'<path class="axis" d="M{start:.1f} 7H{end:.1f}M{start:.1f} 4v6M{end:.1f} 4v6"/>',
    ]
    return _small("change", f"{share:.1%}, {low:.1%} to {high:.1%}", 120, 14, marks)


def position(share: float, default: float) -> str:
    """Where a value (disc) and its default (stroke) lie between the bounds; both 0 to 1."""
    share, default = min(max(share, 0.0), 1.0), min(max(default, 0.0), 1.0)
    label = f"at {share:.0%} of the way between the bounds, the default at {default:.0%}"
    marks = ['<path class="axis" d="M5 7h86"/>', f'<path class="mark" d="M{5 + default * 86:.1f} 2v10"/>']
    return _small("position", label, 96, 14, [*marks, f'<circle class="dot" cx="{5 + share * 86:.1f}" cy="7" r="4"/>'])


def _history_plane(points: Sequence[Point], last: int, default: float | None) -> _Plane:
    values = sorted(value for _, value in points)
    middle, low = values[len(values) // 2], values[0]
    if len(values) >= 12:  # six times as far below the median as the 10th percentile is: not one of the crowd
        low = max(low, middle - 6 * max(middle - values[len(values) // 10], (values[-1] - middle) / 3))
    low, high = _padded(low if default is None else min(low, default), values[-1])
    return _Plane(*_whole(min(points[0][0], 0), last), low, high)


def _whole(first: int, last: int) -> tuple[float, float]:
    """The ends of an axis of whole numbers; a single number stands in the middle."""
    return (first, last) if last > first else (first - 0.5, first + 0.5)


def _dots(plane: _Plane, points: Sequence[Point], jumped: set[int], link: Callable[[int], str] | None) -> list[str]:
    if len(points) > MAX_DOTS_WITH_TOOLTIP:
        pixels = dict.fromkeys((round(plane.x(n)), round(plane.y(v))) for n, v in points)
        return ['<path class="dots" d="' + "".join(f"M{x} {y}h0" for x, y in pixels) + '"/>']
    return [_dot(plane, number, value, "dot", 2.6, link) for number, value in points if number not in jumped]


def _dot(plane: _Plane, number: int, value: float, kind: str, radius: float, link: Callable[[int], str] | None) -> str:
    off = " (below the scale)" if value < plane.y0 else ""
    circle = (
        f'<circle class="{kind}" cx="{plane.x(number):.1f}" cy="{plane.y(value):.1f}" r="{radius}">'
        f"<title>#{number}: {fitness(value)}{off}</title></circle>"
    )
    # The numbers are links in the table as well, so the keyboard need not stop at hundreds of dots.
    return circle if link is None else f'<a href="{escape(link(number))}" tabindex="-1">{circle}</a>'


def _jumps(plane: _Plane, jumps: Sequence[Point], link: Callable[[int], str] | None) -> tuple[list[str], list[_Box]]:
    """Each jump as a ringed dot, labelled where there is room; the newest always is. And where the labels are."""
    marks, taken, free = [], [], math.inf
    for number, value in reversed(jumps):
        x, y = plane.x(number), plane.y(value)
        marks.append(_dot(plane, number, value, "jump", 4, link))
        newest = free == math.inf
        words = f"#{number}  {fitness(value)}"
        half = max(LABEL_PX, len(words) * LETTER_PX) / 2
        if newest or x + half < free:
            leftmost, rightmost = LEFT - 4, WIDTH - RIGHT + 4  # at an edge larger letters grow inwards
            centre = min(max(x, leftmost + half), rightmost - half)
            at, anchor = (leftmost, "start") if centre > x else (rightmost, "end") if centre < x else (x, "mid")
            marks.append(_text(at, y - 9, words, f"{anchor} jump-text" + (" newest" if newest else "")))
            taken.append(_Box(centre - half, y - 20, centre + half, y - 6))
            free = centre - half
    return marks, taken


def _free_place(
    plane: _Plane,
    level: float,
    wide: float,
    points: Sequence[Point],
    jumps: Sequence[Point],
    last: int,
    taken: Sequence[_Box],
) -> tuple[float, float]:
    """Where the default's name ends and stands: along its line, below or above, where it covers least, the right end first."""
    dots = [(plane.x(number), plane.y(value)) for number, value in points]
    corners = [(plane.x(number), plane.y(value)) for number, value in [*jumps, (last, jumps[-1][1])]]
    lines = []
    for (x0, y0), (x1, y1) in itertools.pairwise(corners):
        lines += [_Box(x0, y0, x1, y0), _Box(x1, min(y0, y1), x1, max(y0, y1))]

    def covered(place: tuple[float, float]) -> int:
        x, y = place
        box = _Box(x - wide - 3, y - 11, x + 3, y + 4)
        hit = sum(box.x0 - 3 < dx < box.x1 + 3 and box.y0 - 3 < dy < box.y1 + 3 for dx, dy in dots)
        outside = y - 11 < 0 or y + 4 > HEIGHT - BOTTOM - 8
        return hit + sum(box.meets(line) for line in lines) + 5 * sum(box.meets(label) for label in taken) + 50 * outside

    steps = 16
    rightmost, leftmost = WIDTH - RIGHT, LEFT + wide + 6
    ends = [rightmost - (rightmost - leftmost) * step / steps for step in range(steps + 1)]
    return min(((x, level + below) for x in ends for below in (14.0, -6.0)), key=covered)


def _steps(plane: _Plane, jumps: Sequence[Point], last: int) -> str:
    path = f"M{plane.x(jumps[0][0]):.1f} {plane.y(jumps[0][1]):.1f}"
    path += "".join(f"H{plane.x(number):.1f}V{plane.y(value):.1f}" for number, value in jumps[1:])
    return path + f"H{plane.x(last):.1f}"


def _axes(plane: _Plane, x_label: str, *, whole: bool) -> list[str]:
    marks = []
    for value in _ticks(plane.y0, plane.y1, 5):
        y = plane.y(value)
        marks.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - plane.right:g}" {_level(y)}/>')
        marks.append(_text(LEFT - 8, y + 4, f"{value:.4g}", "end"))
    for value in _ticks(plane.x0, plane.x1, 8, least=1.0 if whole else 0.0):
        marks.append(_text(plane.x(value), HEIGHT - BOTTOM + 17, f"{value:g}", "mid"))
    base = HEIGHT - BOTTOM
    marks.append(f'<line class="axis" x1="{LEFT}" x2="{WIDTH - plane.right:g}" {_level(base)}/>')
    marks.append(_text(WIDTH - plane.right, HEIGHT - 5, x_label, "end label"))
    return marks


def _ticks(low: float, high: float, wanted: int, least: float = 0.0) -> list[float]:
    """Round numbers between ``low`` and ``high``, about ``wanted`` of them."""
    rough = max((high - low) / wanted, least, 1e-12)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * m for m in (1, 2, 5, 10) if power * m >= rough * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [round(k * step, 12) for k in range(first, math.floor(high / step + 1e-9) + 1)]


def _padded(low: float, high: float) -> tuple[float, float]:
    """Some air above and below; equal values get a range of their own."""
    span = high - low
    if span <= max(abs(low), abs(high)) * 1e-9:
        span = max(abs(high) * 0.1, 1e-6)
    return low - span * 0.06, high + span * 0.08


def _ends(plane: _Plane, series: Sequence[Series]) -> list[float]:
    """The height of each line's name; only names that stand above one another have to be moved apart."""
    heights = [plane.y(line.points[-1][1]) for line in series]
    for epoch in {line.points[-1][0] for line in series}:
        column = [index for index, line in enumerate(series) if line.points[-1][0] == epoch]
        for index, height in zip(column, _apart([heights[index] for index in column]), strict=True):
            heights[index] = height
    return heights


def _apart(levels: Sequence[float], gap: float = NAME_GAP) -> list[float]:
    """Label heights moved apart, so that none covers another, in the order given."""
    order = sorted(range(len(levels)), key=lambda i: levels[i])
    placed = list(levels)
    for before, here in itertools.pairwise(order):
        placed[here] = max(placed[here], placed[before] + gap)
    over = max(placed, default=0.0) - (HEIGHT - BOTTOM)
    return [level - max(over, 0.0) for level in placed]


def _brief(value: float) -> str:
    return f"{value:.3f}" if value == 0 or abs(value) >= 0.1 else f"{value:.3g}"


def _level(y: float) -> str:
    return f'y1="{y:.1f}" y2="{y:.1f}"'


def _text(x: float, y: float, words: str, kind: str) -> str:
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}">{escape(words)}</text>'


def _svg(kind: str, label: str, marks: Sequence[str]) -> str:
    # It scales to the width it is given; on a narrow screen the style sheet makes the letters larger in turn.
    return (
        f'<svg class="chart {kind}" role="img" aria-label="{escape(label)}" viewBox="0 0 {WIDTH} {HEIGHT}">'
        + "".join(marks)
        + "</svg>"
    )


def _small(kind: str, label: str, width: float, height: float, marks: Sequence[str]) -> str:
    size = f'viewBox="0 0 {width:g} {height:g}" width="{width:g}" height="{height:g}"'
    return f'<svg class="{kind}" role="img" aria-label="{label}" {size}><title>{label}</title>{"".join(marks)}</svg>'
