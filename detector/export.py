"""A checkpoint as an ONNX file: batch norms folded, boxes decoded inside, checked against the network it came from."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from detector.boxes import decode
from detector.checkpoint import Opened
from detector.errors import DataError

# Below this the runtimes in use know every operation that the networks have.
OPSET = 17
TOLERANCE = 1e-4


class Decoded(nn.Module):
    """Images (B, 3, H, W) RGB in [0, 1] -> rows (B, n, 5 + classes): centre and size in pixels, objectness, class scores."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        return decode(self.model(images), self.model.anchors, self.model.strides, self.model.lineage)


def to_onnx(opened: Opened, path: str | Path, imgsz: int) -> float:
    """Writes ``path`` and runs it; batch, height and width are free (the latter two in steps of the largest stride).

    Input ``images`` (B, 3, H, W) float32, RGB in [0, 1]; output ``rows`` (B, n, 5 + classes): centre x, centre y, width, height
    in pixels, objectness, class scores, before suppression. The file's metadata name classes, imgsz, stride and lineage.
    Returns the largest difference from the network's own rows, relative to numbers above 1.

    Raises:
        DataError: one line: a package is missing, or the file does not compute what the network does.
    """
    try:
        import onnx
        import onnxruntime
    except ImportError as error:
        raise DataError(f"ONNX needs the package {error.name}; install it: pip install '.[onnx]' in the checkout") from None
    step = int(opened.model.strides.max())
    decoded = Decoded(opened.model.folded()).eval()
    example = torch.rand(1, 3, imgsz, imgsz, generator=torch.Generator().manual_seed(0))
    free = {"images": {0: "batch", 2: "height", 3: "width"}, "rows": {0: "batch", 1: "rows"}}
    with warnings.catch_warnings():
        # The exporter that traces leaves height and width free; it warns of its successor, and of shapes taken as numbers.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            decoded,
            (example,),
            str(path),
            dynamo=False,
            opset_version=OPSET,
            input_names=["images"],
            output_names=["rows"],
            dynamic_axes=free,
        )
    document = onnx.load(str(path))
    facts = {"names": json.dumps(opened.names), "imgsz": str(imgsz), "stride": str(step), "lineage": opened.model.lineage}
    onnx.helper.set_model_props(document, facts)
    onnx.checker.check_model(document)
    onnx.save(document, str(path))

    threads = onnxruntime.SessionOptions()
    threads.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(str(path), threads, providers=["CPUExecutionProvider"])
    worst = 0.0
    for images in (example, torch.rand(2, 3, step * 2, step * 3, generator=torch.Generator().manual_seed(1))):
        with torch.inference_mode():
            expected = decoded(images).numpy()
        (found,) = session.run(None, {"images": images.numpy()})
        worst = max(worst, float((np.abs(found - expected) / np.maximum(np.abs(expected), 1)).max()))
    if not worst <= TOLERANCE:
        raise DataError(f"{path} does not compute what the network does (off by {worst:.2g}); try another onnxruntime")
    return worst
