"""What a lineage decides beyond its genes: the loss, and the confidence at which precision, recall and F1 are reported."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from detector.loss import DetectionLoss
from detector.loss_yolov3 import Loss2019, Loss2020
from detector.models import Detector
from evolution.hyperparameters import Hyperparameters

Loss = Callable[[list[Tensor], Tensor], tuple[Tensor, Tensor]]

# None: the confidence at which mean F1 is largest.
OPERATING_POINT: dict[str, float | None] = {"yolov5": None, "yolov3-2019": 0.1, "yolov3-2020": 0.001}


def loss_of(model: Detector, hyp: Hyperparameters, imgsz: int, fixed: bool = False) -> Loss:
    """The loss of the hyp set's lineage for a model and a training size ``imgsz`` in pixels.

    It takes raw maps and targets, and returns the total, to be differentiated, and its detached parts (3,): box, obj, cls.
    ``fixed``: computed in tensors of fixed shape, so that the host never waits for the device (``detector.assign``).
    """
    if hyp.lineage == "yolov3-2019":
        return Loss2019(model, hyp, fixed)
    if hyp.lineage == "yolov3-2020":
        return Loss2020(model, hyp, fixed)
    return DetectionLoss(model, hyp, imgsz, fixed)
