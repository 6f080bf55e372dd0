"""Every gene of the detector, named once: meaning, scale, and per lineage its default, gain and bounds.

The coordinator learns the search space from here without torch; the detector gets a typed, frozen hyp set. Numbers are those
of the programs each lineage comes from (table in docs/EVOLUTION.md). A lineage is a way to assign targets and compute the loss;
the lineages ``yolov3-2019`` and ``yolov3-2020`` will add their own column beside ``yolov5``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, NamedTuple, Self

from evolution.space import Gene, Scale, Space


class Range(NamedTuple):
    """What a lineage says of a gene: its default value and, while evolving, its gain and bounds."""

    default: float
    gain: float
    lower: float
    upper: float


def _gene(meaning: str, yolov5: Range, scale: Scale = "linear") -> Any:
    return field(default=yolov5.default, metadata={"meaning": meaning, "scale": scale, "yolov5": yolov5})


@dataclass(frozen=True, kw_only=True)
class Hyperparameters:
    """One hyp set. Field order is the column order of yolov5's ``evolve.csv``."""

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
    anchor_t: float = _gene("largest ratio of a side to an anchor's side that still matches", Range(4.0, 1, 2.0, 8.0), "log")
    anchors: float = _gene("anchors per output level, rounded", Range(3.0, 2, 2.0, 10.0))
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
    fliplr: float = _gene("probability of a left-right flip", Range(0.5, 0, 0.0, 1.0))
    mosaic: float = _gene("probability of a mosaic of four images", Range(1.0, 1, 0.0, 1.0))
    mixup: float = _gene("probability of blending a second mosaic", Range(0.0, 1, 0.0, 1.0))
    copy_paste: float = _gene("fraction of outlined objects mirrored into the image; needs polygons", Range(0.0, 1, 0.0, 1.0))

    @classmethod
    def from_mapping(cls, hyp: Mapping[str, float]) -> Self:
        """A hyp set from a mapping that may omit genes (they take their default).

        Raises:
            ValueError: names the first key that is no gene.
        """
        known = {f.name for f in fields(cls)}
        for name in hyp:
            if name not in known:
                raise ValueError(f"'{name}' is no gene of this detector; genes are {', '.join(sorted(known))}")
        return cls(**{name: float(value) for name, value in hyp.items()})

    def to_dict(self) -> dict[str, float]:
        return asdict(self)


LINEAGES = ("yolov5",)


def lineage_space(lineage: str = "yolov5") -> Space:
    """The space of a lineage: its genes in file order, starting at the lineage's defaults.

    Raises:
        ValueError: names an unknown lineage and the known ones.
    """
    if lineage not in LINEAGES:
        raise ValueError(f"lineage '{lineage}' is unknown; known: {', '.join(LINEAGES)}")
    genes = []
    for f in fields(Hyperparameters):
        limits: Range = f.metadata[lineage]
        genes.append(
            Gene(
                name=f.name,
                start=limits.default,
                gain=limits.gain,
                lower=limits.lower,
                upper=limits.upper,
                scale=f.metadata["scale"],
                meaning=f.metadata["meaning"],
            )
        )
    return Space(tuple(genes))
