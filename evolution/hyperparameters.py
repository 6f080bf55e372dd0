"""Every gene of the detector, named once: meaning, scale, and per lineage its default, gain and bounds.

The coordinator learns the search space from here without torch; the detector gets a typed, frozen hyp set. Numbers are those
of the programs each lineage comes from (tables in docs/EVOLUTION.md). A lineage is a way to assign targets, compute the loss
and read the network's outputs, with the genes that turn it: ``yolov5``, ``yolov3-2019`` and ``yolov3-2020``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import Field, dataclass, field, fields
from typing import Any, NamedTuple, Self

from evolution.space import Gene, Scale, Space, Value


class Range(NamedTuple):
    """What a lineage says of a gene: its default value and, while evolving, its gain and bounds."""

    default: float
    gain: float
    lower: float
    upper: float


# Keys of the base scenario that may also be genes, with the values they may have; the gene's value takes the key's place.
SCENARIO_GENES: Mapping[str, tuple[str, ...] | tuple[bool, ...]] = {
    "optimizer": ("auto", "SGD", "Adam", "AdamW"),
    "rect": (False, True),
}


def split_hyp(hyp: Mapping[str, Value]) -> tuple[dict[str, Value], dict[str, Value]]:
    """The genes of a lineage, and those that take the place of a key of the base scenario."""
    scenario = {name: value for name, value in hyp.items() if name in SCENARIO_GENES}
    return {name: value for name, value in hyp.items() if name not in scenario}, scenario


def _gene(meaning: str, yolov5: Range | None, scale: Scale = "linear", without: float = 0.0, integer: bool = False) -> Any:
    """``yolov5`` is None where that lineage lacks the gene; ``without`` is the value that holds in a lineage that lacks it."""
    default = without if yolov5 is None else yolov5.default
    return field(
        default=default,
        metadata={"meaning": meaning, "scale": scale, "yolov5": yolov5, "without": without, "integer": integer},
    )


@dataclass(frozen=True, kw_only=True)
class Hyperparameters:
    """One hyp set of one lineage. Field order is the column order of yolov5's ``evolve.csv``.

    Built by ``from_mapping``. Genes that the lineage lacks hold the value under which the code they turn does what the lineage
    did: no warm-up, mirrored half of the time, a mosaic always (``yolov3-2020``) or never (``yolov3-2019``).
    """

    lineage: str = field(default="yolov5", metadata={})
    lr0: float = _gene("initial learning rate", Range(0.01, 1, 1e-5, 0.1), "log")
    lrf: float = _gene("final learning rate as a fraction of lr0", Range(0.01, 1, 0.01, 1.0), "log")
    momentum: float = _gene("SGD momentum, or beta1 of AdamW", Range(0.937, 0.3, 0.6, 0.98), "log1m")
    weight_decay: float = _gene("decay of convolution weights", Range(0.0005, 1, 0.0, 0.001))
    warmup_epochs: float = _gene("epochs of warm-up; fractions count", Range(3.0, 1, 0.0, 5.0))
    warmup_momentum: float = _gene("momentum at the first warm-up step", Range(0.8, 1, 0.0, 0.95))
    warmup_bias_lr: float = _gene("learning rate of biases at the first warm-up step", Range(0.1, 1, 0.0, 0.2))
    box: float = _gene("gain of the box loss", Range(0.05, 1, 0.02, 0.2), "log")
    cls: float = _gene("gain of the class loss", Range(0.5, 1, 0.2, 4.0), "log")
    cls_pw: float = _gene("weight of positives in the class loss", Range(1.0, 1, 0.5, 2.0), "log")
    obj: float = _gene("gain of the objectness loss", Range(1.0, 1, 0.2, 4.0), "log")
    obj_pw: float = _gene("weight of positives in the objectness loss", Range(1.0, 1, 0.5, 2.0), "log")
    iou_t: float = _gene("unused by this lineage; kept so that hyp files stay complete", Range(0.2, 0, 0.1, 0.7))
    anchor_t: float = _gene(
        "largest ratio of a side to an anchor's side that still matches", Range(4.0, 1, 2.0, 8.0), "log", without=4.0
    )
    anchors: float = _gene("anchors per output level", Range(3.0, 2, 2.0, 10.0), without=3.0, integer=True)
    fl_gamma: float = _gene("focal loss gamma; 0 is plain cross entropy", Range(0.0, 0, 0.0, 2.0))
    hsv_h: float = _gene("hue jitter, fraction", Range(0.015, 1, 0.0, 0.1))
    hsv_s: float = _gene("saturation jitter, fraction", Range(0.7, 1, 0.0, 0.9))
    hsv_v: float = _gene("brightness jitter, fraction", Range(0.4, 1, 0.0, 0.9))
    degrees: float = _gene("rotation, +/- degrees", Range(0.0, 1, 0.0, 45.0))
    translate: float = _gene("translation, +/- fraction of the image", Range(0.1, 1, 0.0, 0.9))
    scale: float = _gene("zoom, 1 +/- fraction", Range(0.5, 1, 0.0, 0.9))
    shear: float = _gene("shear, +/- degrees", Range(0.0, 1, 0.0, 10.0))
    perspective: float = _gene("perspective, +/- fraction", Range(0.0, 0, 0.0, 0.001))
    flipud: float = _gene("probability of an up-down flip", Range(0.0, 1, 0.0, 1.0))
    fliplr: float = _gene("probability of a left-right flip", Range(0.5, 0, 0.0, 1.0), without=0.5)
    mosaic: float = _gene("probability of a mosaic of four images", Range(1.0, 1, 0.0, 1.0))
    mixup: float = _gene("probability of blending a second mosaic", Range(0.0, 1, 0.0, 1.0))
    copy_paste: float = _gene("fraction of outlined objects mirrored into the image; needs polygons", Range(0.0, 1, 0.0, 1.0))

    giou: float = _gene("gain of the GIoU loss of boxes", None, "log")
    xy: float = _gene("gain of the squared error of centres", None, "log")
    wh: float = _gene("gain of the squared error of log sizes", None, "log")

    @classmethod
    def from_mapping(cls, hyp: Mapping[str, Value], lineage: str = "yolov5") -> Self:
        """A hyp set of a lineage from a mapping that may omit genes (they take the lineage's default).

        Raises:
            ValueError: names the first key that is no gene of the lineage, or the unknown lineage.
        """
        known = _column(lineage)
        for name in hyp:
            if name not in known:
                raise ValueError(f"'{name}' is no gene of lineage {lineage}; genes are {', '.join(sorted(known))}")
        values = {f.name: f.metadata["without"] for f in _gene_fields()} | _HELD.get(lineage, {})
        values |= {name: limits.default for name, limits in known.items()}
        values |= {name: float(value) for name, value in hyp.items()}
        return cls(lineage=lineage, **values)

    def to_dict(self) -> dict[str, float]:
        """The genes of the lineage, in its file order."""
        return {name: getattr(self, name) for name in _column(self.lineage)}


# The lineages before yolov5, in the column order of their evolve.txt. Where those programs had no bound, the one here leaves
# room for a tenfold change either way, or is yolov5's. The gains of 2019 are its own sigma per gene divided by 0.2.
_COLUMNS: dict[str, dict[str, Range]] = {
    "yolov3-2019": {
        "giou": Range(1.2, 0.75, 0.1, 12.0),
        "xy": Range(4.062, 0.75, 0.4, 40.0),
        "wh": Range(0.1845, 0.75, 0.02, 2.0),
        "cls": Range(15.7, 0.75, 1.5, 150.0),
        "cls_pw": Range(3.67, 0.75, 0.3, 30.0),
        "obj": Range(20.0, 0.75, 2.0, 200.0),
        "obj_pw": Range(1.36, 0.75, 0.1, 10.0),
        "iou_t": Range(0.194, 0.75, 0.0, 0.7),
        "lr0": Range(0.00128, 0.75, 1e-4, 1e-2),
        "lrf": Range(-4.0, 0, -6.0, 0.0),
        "momentum": Range(0.95, 0.25, 0.6, 0.97),
        "weight_decay": Range(0.000201, 1, 0.0, 0.001),
        "hsv_s": Range(0.8, 1, 0.0, 0.9),
        "hsv_v": Range(0.388, 1, 0.0, 0.9),
        "degrees": Range(1.2, 1, 0.0, 45.0),
        "translate": Range(0.119, 1, 0.0, 0.9),
        "scale": Range(0.0589, 1, 0.0, 0.9),
        "shear": Range(0.401, 1, 0.0, 10.0),
    },
    "yolov3-2020": {
        "giou": Range(3.54, 1, 0.3, 35.0),
        "cls": Range(37.4, 1, 3.0, 370.0),
        "cls_pw": Range(1.0, 1, 0.1, 10.0),
        "obj": Range(49.5, 1, 5.0, 500.0),
        "obj_pw": Range(1.0, 1, 0.1, 10.0),
        "iou_t": Range(0.225, 1, 0.0, 0.7),
        "lr0": Range(0.00579, 1, 1e-5, 1e-2),
        "lrf": Range(-4.0, 0, -6.0, 0.0),
        "momentum": Range(0.937, 0.1, 0.6, 0.98),
        "weight_decay": Range(0.000484, 1, 0.0, 0.001),
        "fl_gamma": Range(0.5, 0, 0.0, 3.0),
        "hsv_h": Range(0.0138, 1, 0.0, 0.1),
        "hsv_s": Range(0.678, 1, 0.0, 0.9),
        "hsv_v": Range(0.36, 1, 0.0, 0.9),
        "degrees": Range(1.98, 1, 0.0, 45.0),
        "translate": Range(0.05, 1, 0.0, 0.9),
        "scale": Range(0.05, 1, 0.0, 0.9),
        "shear": Range(0.641, 1, 0.0, 10.0),
    },
}
_HELD = {"yolov3-2020": {"mosaic": 1.0}}
# What a gene means where it is not yolov5's: the exponent of the final rate, and the threshold that yolov5 gave up.
_BEFORE_YOLOV5: dict[str, tuple[str, Scale]] = {
    "lrf": ("final learning rate as a power of ten of lr0", "linear"),
    "iou_t": ("least overlap of a label's and an anchor's size that still matches", "linear"),
}
LINEAGES = ("yolov5", *_COLUMNS)


def _gene_fields() -> tuple[Field[Any], ...]:
    return tuple(f for f in fields(Hyperparameters) if f.metadata)


def _column(lineage: str) -> dict[str, Range]:
    if lineage not in LINEAGES:
        raise ValueError(f"lineage '{lineage}' is unknown; known: {', '.join(LINEAGES)}")
    return _COLUMNS.get(lineage) or {f.name: f.metadata["yolov5"] for f in _gene_fields() if f.metadata["yolov5"]}


def lineage_space(lineage: str = "yolov5") -> Space:
    """The space of a lineage: its genes in file order, starting at the lineage's defaults.

    Raises:
        ValueError: names an unknown lineage and the known ones.
    """
    meanings = {f.name: (f.metadata["meaning"], f.metadata["scale"]) for f in _gene_fields()}
    integers = {f.name for f in _gene_fields() if f.metadata["integer"]}
    if lineage != "yolov5":
        meanings |= _BEFORE_YOLOV5
    return Space(
        tuple(
            Gene(
                name=name,
                start=limits.default,
                gain=limits.gain,
                lower=limits.lower,
                upper=limits.upper,
                scale=meanings[name][1],
                meaning=meanings[name][0],
                integer=name in integers,
            )
            for name, limits in _column(lineage).items()
        )
    )
