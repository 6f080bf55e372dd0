"""A checkpoint as an ONNX file: what onnxruntime computes from it is what the network computes."""

from __future__ import annotations

import json

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from detector import checkpoint
from detector.__main__ import main
from detector.boxes import decode
from detector.models import Detector


@pytest.mark.parametrize(
    ("name", "lineage"),
    [("yolov5n", "yolov5"), ("yolov3-tiny", "yolov5"), ("yolov3", "yolov3-2019"), ("yolov5n", "yolov3-2020")],
)
def test_onnxruntime_computes_what_torch_computes(name, lineage, tmp_path, capsys):
    torch.manual_seed(0)
    model = Detector(name, 3, lineage=lineage)
    for norm in model.modules():
        if isinstance(norm, torch.nn.BatchNorm2d):  # folding has to matter
            norm.running_mean.uniform_(-0.1, 0.1)
            norm.running_var.uniform_(0.8, 1.2)
    weights, out = tmp_path / "last.safetensors", tmp_path / "last.onnx"
    checkpoint.save(model, ["cat", "dog", "owl"], weights, 64)
    assert main(["export", str(weights), "--format", "onnx"]) == 0
    assert "last.onnx" in capsys.readouterr().out
    threads = onnxruntime.SessionOptions()
    threads.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(out), threads, providers=["CPUExecutionProvider"])
    images = torch.rand(2, 3, 96, 64)
    (rows,) = session.run(None, {"images": images.numpy()})
    with torch.inference_mode():
        plain = model.eval()
        expected = decode(plain(images), plain.anchors, plain.strides, lineage).numpy()
    assert rows.shape == expected.shape
    np.testing.assert_allclose(rows, expected, rtol=1e-4, atol=1e-4)
    facts = {entry.key: entry.value for entry in onnx.load(str(out)).metadata_props}
    assert json.loads(facts["names"]) == ["cat", "dog", "owl"]
    assert (facts["imgsz"], facts["stride"], facts["lineage"]) == ("64", "32", lineage)


def test_what_cannot_be_exported_is_one_line(tmp_path, capsys):
    (tmp_path / "x.safetensors").write_bytes(b"rubbish")
    assert main(["export", str(tmp_path / "x.safetensors")]) == 5
    assert "no checkpoint of this detector" in capsys.readouterr().err
    checkpoint.save(Detector("yolov3-tiny", 1), ["cat"], tmp_path / "y.safetensors", 64)
    assert main(["export", str(tmp_path / "y.safetensors"), "--imgsz", "100"]) == 2
    assert "--imgsz is 100, but must be a multiple of 32" in capsys.readouterr().err
