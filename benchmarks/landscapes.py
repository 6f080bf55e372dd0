"""Random functions that behave like the fitness of a detector over its hyperparameters, with a known optimum.

A landscape is made from its id alone: every number is drawn from ``default_rng(id)``, in the order of ``Landscape.__init__``.
Any range of ids that nobody has looked at is a fresh test set. The value, to be maximised, of a hyp set with point t is

    F* exp(-D(t))      and 0 where the training diverges,     D(t*) = 0

D is a sum of saturating, lopsided bowls along the axes of a sparsely rotated frame over 8 to 12 relevant genes, a faint bowl
over the others, and a ripple. t is a warp of each gene that is near its scale (log, log1m, linear) but never equal to it. What
a worker sees has log-normal noise that grows away from the optimum, failures, and runs that went wrong but finished.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from evolution.space import Gene, Scale, Space

Vector = NDArray[np.float64]


def space_of(text: str) -> Space:
    """Genes, one a line: name, bounds, start, gain, scale."""
    genes = []
    for line in text.strip().splitlines():
        name, lower, upper, start, gain, kind = line.split()
        scale: Scale = "log" if kind == "log" else "log1m" if kind == "log1m" else "linear"
        genes.append(Gene(name, float(start), float(gain), float(lower), float(upper), scale))
    return Space(tuple(genes))


# The 29 genes of a one-stage detector of today, and the 18 of 2019; where the latter had no bounds: an eighth to eightfold.
MODERN = space_of("""
lr0 1e-5 0.1 0.01 1 log
lrf 0.01 1 0.1 1 log
momentum 0.6 0.98 0.937 0.3 log1m
weight_decay 0 0.001 0.0005 1 log
warmup_epochs 0 5 3 1 linear
warmup_momentum 0 0.95 0.8 1 linear
warmup_bias_lr 0 0.2 0.1 1 linear
box 0.02 0.2 0.05 1 log
cls 0.2 4 0.5 1 log
cls_pw 0.5 2 1 1 log
obj 0.2 4 1 1 log
obj_pw 0.5 2 1 1 log
iou_t 0.1 0.7 0.2 0 log
anchor_t 2 8 4 1 log
anchors 2 10 3 2 log
fl_gamma 0 2 0 0 linear
hsv_h 0 0.1 0.015 1 linear
hsv_s 0 0.9 0.7 1 linear
hsv_v 0 0.9 0.4 1 linear
degrees 0 45 0 1 linear
translate 0 0.9 0.1 1 linear
scale 0 0.9 0.5 1 linear
shear 0 10 0 1 linear
perspective 0 0.001 0 0 linear
flipud 0 1 0 1 linear
fliplr 0 1 0.5 0 linear
mosaic 0 1 1 1 linear
mixup 0 1 0 1 linear
copy_paste 0 1 0 1 linear
""")
OF_2019 = space_of("""
giou 0.44 28.3 3.54 1 log
cls 4.7 299 37.4 1 log
cls_pw 0.125 8 1 1 log
obj 6.2 396 49.5 1 log
obj_pw 0.125 8 1 1 log
iou_t 0 0.7 0.225 1 linear
lr0 1e-5 0.1 0.00579 1 log
lrf 1e-5 0.1 5e-4 0 log
momentum 0.6 0.98 0.937 0.1 log1m
weight_decay 0 0.001 0.000484 1 log
fl_gamma 0 3 0.5 0 linear
hsv_h 0 0.1 0.0138 1 linear
hsv_s 0 0.9 0.678 1 linear
hsv_v 0 0.9 0.36 1 linear
degrees 0 45 1.98 1 linear
translate 0 0.9 0.05 1 linear
scale 0 0.9 0.05 1 linear
shear 0 10 0.641 1 linear
""")

RELEVANCE = {"lr0": 1e9, "mosaic": 2, "mixup": 2, "translate": 2, "lrf": 2, "degrees": 2} | dict.fromkeys(
    ("momentum", "weight_decay", "box", "cls", "obj", "giou", "scale"), 3
)
INTERACTING = (
    *(("lr0", "momentum"), ("lr0", "weight_decay"), ("box", "obj"), ("box", "cls"), ("cls", "obj"), ("giou", "obj")),
    *(("giou", "cls"), ("mosaic", "scale"), ("mosaic", "mixup"), ("translate", "scale")),
)


class Warp:
    """Hyp sets to points of the unit cube by a Box-Cox curve per gene: the truth, which no strategy is told."""

    def __init__(self, space: Space, powers: Vector) -> None:
        self.lower, self.upper = np.array([g.lower for g in space]), np.array([g.upper for g in space])
        self.mirrored = np.array([g.scale == "log1m" for g in space])
        low = np.where(self.mirrored, 1 - self.upper, self.lower)
        high = np.where(self.mirrored, 1 - self.lower, self.upper)
        curved = np.array([g.scale != "linear" for g in space])
        self.shift = np.where(low <= 0, high / 50.0, 0.0) * curved
        self.powers = np.where(np.abs(powers) < 1e-3, 1e-3, powers)
        self.origin = self._curve(low + self.shift)
        self.length = self._curve(high + self.shift) - self.origin

    def _curve(self, y: Vector) -> Vector:
        return np.asarray((np.exp(self.powers * np.log(np.maximum(y, 1e-12))) - 1.0) / self.powers)

    def __call__(self, values: Vector) -> Vector:
        inside = np.minimum(np.maximum(values, self.lower), self.upper)
        y = np.where(self.mirrored, 1.0 - inside, inside) + self.shift
        return np.asarray((self._curve(y) - self.origin) / self.length)


class Landscape:
    """The function of an id. ``space`` holds the gains of the multiplying rules; in ``free`` every gene can move."""

    def __init__(self, number: int) -> None:
        rng = np.random.default_rng(number)
        self.id = number
        self.space = MODERN if number % 10 < 7 else OF_2019
        self.free = Space(tuple(replace(gene, gain=gene.gain or 1.0) for gene in self.space))
        names, d = list(self.space.names), len(self.space)
        powers = [rng.uniform(0.5, 1.0) if gene.scale == "linear" else rng.uniform(-0.1, 0.4) for gene in self.space]
        self.warp = Warp(self.space, np.array(powers))
        start = self.warp(np.array([gene.start for gene in self.space]))

        # Relevant genes, curvatures over two decades, rotations in pairs that interact.
        k = int(rng.integers(8, 13 if d > 20 else 11))
        relevance = np.array([RELEVANCE.get(name, 1.0) for name in names])
        relevant = self.relevant = rng.choice(d, k, replace=False, p=relevance / relevance.sum())
        curvature = 10.0 ** (-2.0 * np.arange(k) / (k - 1) + rng.normal(0, 0.15, k))
        curvature = curvature[np.argsort(rng.normal(0, 1, k) + np.where(relevance[relevant] > 100, -2, 0))]
        place = {names[gene]: i for i, gene in enumerate(relevant)}
        pairs = [(place[a], place[b]) for a, b in INTERACTING if a in place and b in place]
        pairs += [tuple(rng.choice(k, 2, replace=False)) for _ in range(3)]
        frame = np.eye(k)
        for i, j in pairs:
            angle = rng.uniform(-np.pi / 3, np.pi / 3)
            turn = np.eye(k)
            turn[i, i] = turn[j, j] = np.cos(angle)
            turn[i, j], turn[j, i] = -np.sin(angle), np.sin(angle)
            frame = turn @ frame
        self.frame = frame

        # The optimum: steep directions start well tuned, flat ones do not.
        flatness = (curvature / curvature.max()) ** -0.25
        optimum = start + rng.normal(0, 0.25, d)
        optimum[relevant] = start[relevant] + frame.T @ (rng.normal(0, 0.13, k) * flatness)
        self.optimum = np.clip(optimum, 0.0, 1.0)
        self.root_curvature = np.sqrt(curvature)
        self.lopsided = rng.uniform(-0.3, 0.5, k)
        self.saturation = rng.uniform(0.5, 2.0)
        others = np.setdiff1d(np.arange(d), relevant)
        self.faint = np.zeros(d)
        self.faint[others] = self.root_curvature.max() * 10.0 ** rng.uniform(-1.6, -1.0, len(others))

        waves = rng.normal(0, 1, (8, k))
        waves /= np.linalg.norm(waves, axis=1, keepdims=True)
        self.waves = waves * (2 * np.pi / rng.uniform(0.15, 0.4, 8))[:, None]
        ripple = rng.uniform(0.3, 0.6) if rng.random() < 0.25 else rng.uniform(0.05, 0.2)
        rng.normal(0, 0.10, k), rng.normal(0, 0.4, k), rng.uniform(0.1, 0.4)  # of shortened trainings, which are not run here

        # Scaled so that D(start) = gap.
        gap = float(np.exp(rng.uniform(np.log(0.06), np.log(0.40))))
        self.best_value = rng.uniform(0.35, 0.75)
        self.steepness, self.ripple = 1.0, ripple * gap
        self.steepness = gap / max(self._bowl(start), 1e-12)
        for _ in range(30):
            depth = self._depth(start)
            self.steepness *= gap / depth
            self.ripple *= gap / depth

        # Divergence: a large learning rate and what adds to it.
        push = {"lr0": 1.0, "momentum": -0.6, "weight_decay": 0.2, "warmup_epochs": -0.3}
        push[str(rng.choice([name for name in ("box", "giou", "cls", "obj") if name in names]))] = 0.4
        self.push = np.array([push.get(name, 0.0) for name in names])
        self.limit = max(self.push @ start, self.push @ self.optimum) + rng.uniform(0.10, 0.25)
        self.noise = float(np.exp(rng.uniform(np.log(0.004), np.log(0.03))))
        self.start_value = self._value(start)

    def _bowl(self, t: Vector) -> float:
        z = self.frame @ (t - self.optimum)[self.relevant]
        z = z * (1 + self.lopsided * np.sign(z)) * self.root_curvature
        faint = (t - self.optimum) * self.faint
        bowls = self.saturation * np.log1p(self.steepness * z * z / self.saturation).sum()
        return float(bowls + self.steepness * (faint @ faint))

    def _depth(self, t: Vector) -> float:
        wave = (1 - np.cos(self.waves @ (t - self.optimum)[self.relevant])).mean() / 2
        return self._bowl(t) + self.ripple * float(wave)

    def _divergence(self, t: Vector) -> float:
        """The probability that the training diverges."""
        return 1.0 / (1.0 + math.exp(min(50.0, max(-50.0, -float(self.push @ t - self.limit) / 0.015))))

    def _value(self, t: Vector) -> float:
        return 0.0 if self._divergence(t) > 0.5 else float(self.best_value * np.exp(-self._depth(t)))

    def _point(self, hyp: Mapping[str, float]) -> Vector:
        return self.warp(np.array([hyp[name] for name in self.space.names]))

    def value(self, hyp: Mapping[str, float]) -> float:
        """The fitness without noise."""
        return self._value(self._point(hyp))

    def regret(self, hyp: Mapping[str, float]) -> float:
        """0 at the optimum, 1 where it is no better than the start."""
        return (self.best_value - self.value(hyp)) / (self.best_value - self.start_value)

    def train(self, hyp: Mapping[str, float], rng: np.random.Generator) -> tuple[float, float]:
        """What a worker sees: fitness (nan: the training failed) and duration, in units of a usual training."""
        t = self._point(hyp)
        duration = float(np.exp(rng.normal(0, 0.3)))
        if rng.random() < self._divergence(t) or rng.random() < 0.005:
            return math.nan, duration * rng.uniform(0.05, 1.0)
        depth = self._depth(t)
        spread = self.noise * (1 + 2 * min(depth, 2.0))
        fitness = self.best_value * np.exp(-depth + spread * rng.normal())
        if rng.random() < 0.015:
            fitness *= rng.uniform(0.05, 0.8)
        return float(np.clip(fitness, 0.0, 1.0)), duration
