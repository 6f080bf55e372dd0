"""Weights of others: released .pt files rebuilt without running them, and Darknet's .weights, in files written here."""

from __future__ import annotations

import io
import os
import pickle
import struct
import sys
import types
import zipfile

import numpy as np
import pytest
import torch
from torch import nn

from detector import checkpoint
from detector.blocks import C3, SPPF, Conv
from detector.errors import DataError
from detector.models import Detector

RENAMED = {"main": "cv1", "side": "cv2", "merge": "cv3", "chain": "m", "reduce": "cv1", "expand": "cv2", "norm": "bn"}


def model(name="yolov5n", classes=3, seed=0):
    torch.manual_seed(seed)
    made = Detector(name, classes)
    with torch.no_grad():
        for value in made.state_dict().values():
            if value.is_floating_point() and value.ndim == 1:
                value.copy_(torch.rand_like(value) + 0.5)
    return made


@pytest.fixture
def released():
    """Writes a model as the released files hold it: modules of foreign classes, other names and order, half precision."""
    foreign = types.ModuleType("models.common")

    class Block(nn.Module):
        pass

    Block.__module__, Block.__qualname__ = "models.common", "Block"
    foreign.Block = Block

    def rebuilt(module):
        children = dict(module.named_children())
        if not children:
            return module
        if isinstance(module, nn.Sequential):
            return nn.Sequential(*(rebuilt(child) for child in module))
        if isinstance(module, C3):
            children["chain"] = children.pop("chain")
        block = Block()
        block.somewhere = os.path.join  # a function of some module: a name in the pickle
        for name, child in children.items():
            name = "cv2" if isinstance(module, SPPF) and name == "merge" else RENAMED.get(name, name)
            block.add_module(name, rebuilt(child))
        return block

    def write(source, path, **more):
        root, detect = Block(), Block()
        detect.register_buffer("anchors", source.anchors)
        detect.m = source.head.heads
        root.model = nn.Sequential(*(rebuilt(block) for block in source.blocks), detect)
        sys.modules.update({"models": types.ModuleType("models"), "models.common": foreign})
        try:
            torch.save({"epoch": -1, "ema": None, "model": root.half(), "optimizer": None, "date": "2022", **more}, path)
        finally:
            del sys.modules["models"], sys.modules["models.common"]
            source.float()
        return path

    return write


def weights(of):
    return {k: v for k, v in of.state_dict().items() if v.is_floating_point() and k not in ("anchors", "strides")}


@pytest.mark.parametrize("name", ["yolov5n", "yolov3-tiny"])
def test_a_released_file_fills_every_tensor(name, released, tmp_path):
    source, target = model(name, seed=0), model(name, seed=1)
    path = released(source, tmp_path / "a.pt")
    fitted = checkpoint.load_into(target, path)
    expected = weights(source)
    assert fitted == (len(expected), ())
    for key, value in weights(target).items():
        torch.testing.assert_close(value, expected[key].half().float(), rtol=0, atol=0)
    source.float().eval()
    image = torch.rand(1, 3, 64, 64)
    for a, b in zip(target.eval()(image), source(image), strict=True):
        torch.testing.assert_close(a, b, rtol=0.02, atol=0.02)


def test_a_head_for_other_classes_is_listed_and_stays(released, tmp_path):
    path = released(model(classes=80), tmp_path / "a.pt")
    target = model(classes=3, seed=1)
    before = {key: value.clone() for key, value in target.state_dict().items()}
    fitted = checkpoint.load_into(target, path)
    heads = [f"head.heads.{i}.{kind}" for i in range(3) for kind in ("weight", "bias")]
    assert fitted.unmatched == tuple(heads)
    assert all(torch.equal(target.state_dict()[key], before[key]) for key in (*heads, "anchors"))
    assert not torch.equal(target.state_dict()["blocks.0.conv.weight"], before["blocks.0.conv.weight"])


def test_a_state_dictionary_and_an_average_are_read(tmp_path):
    source, target = model(), model(seed=1)
    torch.save(checkpoint_order(source), tmp_path / "a.pt")
    assert checkpoint.load_into(target, tmp_path / "a.pt").unmatched == ()
    torch.save({"model": None, "ema": checkpoint_order(model(seed=2))}, tmp_path / "b.pt")
    checkpoint.load_into(target, tmp_path / "b.pt")
    assert torch.equal(target.state_dict()["blocks.0.conv.weight"], model(seed=2).state_dict()["blocks.0.conv.weight"])


def checkpoint_order(source):
    return dict(checkpoint._weights(source))


def test_another_model_is_refused(released, tmp_path):
    path = released(model("yolov3-tiny"), tmp_path / "a.pt")
    with pytest.raises(DataError, match=r"fits \d+ of the \d+ tensors of yolov5n; make base.model"):
        checkpoint.load_into(model(), path)


class Evil:
    """Unpickling this calls a function of its choice."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize(
    "evil",
    [
        lambda path: Evil(open, str(path), "w"),
        lambda path: Evil(os.system, f"touch {path}"),
        lambda path: Evil(eval, f"open({str(path)!r}, 'w')"),
        lambda path: Evil(os.mkdir, str(path)),
    ],
)
def test_a_pickle_runs_no_code(evil, released, tmp_path):
    mark = tmp_path / "mark"
    path = released(model(), tmp_path / "a.pt", extra=evil(mark))
    assert checkpoint.load_into(model(seed=1), path).unmatched == ()
    assert not mark.exists()
    torch.save(evil(mark), tmp_path / "b.pt")
    with pytest.raises(DataError, match=r"holds no tensors|no PyTorch file"):
        checkpoint.load_into(model(), tmp_path / "b.pt")
    assert not mark.exists()
    torch.load(tmp_path / "b.pt", weights_only=False)  # what would have happened
    assert mark.exists()


def archive(path, content, storages=None, compress=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", compress) as file:
        file.writestr("a/data.pkl", content)
        for key, value in (storages or {}).items():
            file.writestr(f"a/data/{key}", value)


def tensor_pickle(count, offset, size, stride):
    """The pickle of one tensor over storage "0", as torch.save writes it."""
    out = io.BytesIO()

    class Pickler(pickle.Pickler):
        def persistent_id(self, obj):
            return ("storage", torch.FloatStorage, "0", "cpu", count) if obj is marker else None

    marker = [1]
    rebuild = torch._utils._rebuild_tensor_v2
    Pickler(out, 2).dump({"w": Evil(rebuild, marker, offset, size, stride, False, {})})
    return out.getvalue()


@pytest.mark.parametrize(
    ("count", "offset", "size", "stride"),
    [(8, 0, (9,), (1,)), (8, 8, (1,), (1,)), (8, -1, (1,), (1,)), (8, 0, (10**6,), (0,)), (9, 0, (1,), (1,))],
)
def test_a_tensor_stays_inside_its_storage(count, offset, size, stride, tmp_path):
    archive(tmp_path / "a.pt", tensor_pickle(count, offset, size, stride), {"0": bytes(32)})
    with pytest.raises(DataError, match="no PyTorch file"):
        checkpoint.load_into(model(), tmp_path / "a.pt")


def test_what_is_no_such_file_is_refused(tmp_path):
    path = tmp_path / "a.pt"
    with pytest.raises(DataError, match="cannot be read"):
        checkpoint.load_into(model(), path)
    for content in (b"", b"rubbish", pickle.dumps({"a": 1})):
        path.write_bytes(content)
        with pytest.raises(DataError, match="no PyTorch file"):
            checkpoint.load_into(model(), path)
    archive(path, pickle.dumps({"a": 1}), compress=zipfile.ZIP_DEFLATED)
    with pytest.raises(DataError, match="no PyTorch file"):
        checkpoint.load_into(model(), path)
    knot: dict = {}
    knot["a"] = knot
    archive(path, pickle.dumps(knot))
    with pytest.raises(DataError, match="holds no tensors"):
        checkpoint.load_into(model(), path)


def darknet(source, path, version=(0, 2, 0), heads=True, backbone=None):
    """A .weights file: numbers of each convolution in Darknet's order, heads where their level ends."""
    numbers = []
    for i, block in enumerate(source.blocks):
        for conv in (m for m in block.modules() if isinstance(m, Conv)):
            weight = conv.conv.weight
            if isinstance(block, SPPF) and conv is block.merge:
                weight = torch.cat(weight.chunk(4, 1)[::-1], 1)
            norm = conv.norm
            numbers += [norm.bias, norm.weight, norm.running_mean, norm.running_var, weight]
        if i == backbone:
            break
        if heads and i in source.outputs:
            head = source.head.heads[source.outputs.index(i)]
            numbers += [head.bias, head.weight]
    seen = struct.pack("<q" if version >= (0, 2, 0) else "<i", 32013312)
    body = torch.cat([n.detach().reshape(-1) for n in numbers]).numpy().astype("<f4").tobytes()
    path.write_bytes(struct.pack("<iii", *version) + seen + body)
    return path


@pytest.mark.parametrize("version", [(0, 2, 0), (0, 1, 0)])
def test_darknet_weights(version, tmp_path):
    source, target = model("yolov3-tiny"), model("yolov3-tiny", seed=1)
    fitted = checkpoint.load_into(target, darknet(source, tmp_path / "a.weights", version))
    assert fitted.unmatched == ()
    assert all(torch.equal(value, weights(source)[key]) for key, value in weights(target).items())


def test_darknet_weights_of_other_classes_and_of_a_backbone(tmp_path):
    source, target = model("yolov3-tiny", 80), model("yolov3-tiny", 3, seed=1)
    fitted = checkpoint.load_into(target, darknet(source, tmp_path / "a.weights"))
    assert fitted.unmatched == tuple(f"head.heads.{i}.{kind}" for i in range(2) for kind in ("weight", "bias"))
    assert torch.equal(target.blocks[18].conv.weight, source.blocks[18].conv.weight)
    target = model("yolov3-tiny", 3, seed=1)
    fitted = checkpoint.load_into(target, darknet(source, tmp_path / "b.weights", backbone=8))
    assert fitted.count == 5 * 5
    assert torch.equal(target.blocks[8].conv.weight, source.blocks[8].conv.weight)


def test_darknet_pools_widest_first(tmp_path):
    source, target = model("yolov3-spp", seed=0), model("yolov3-spp", seed=1)
    checkpoint.load_into(target, darknet(source, tmp_path / "a.weights"))
    assert torch.equal(target.blocks[12].merge.conv.weight, source.blocks[12].merge.conv.weight)
    assert torch.equal(target.head.heads[0].weight, source.head.heads[0].weight)


def test_wrong_darknet_files_are_refused(tmp_path):
    path = darknet(model("yolov3-tiny"), tmp_path / "a.weights")
    with pytest.raises(DataError, match="give yolov3, yolov3-spp or yolov3-tiny"):
        checkpoint.load_into(model("yolov5n"), path)
    path.write_bytes(path.read_bytes()[:-400])
    with pytest.raises(DataError, match=r"make base\.model its model"):
        checkpoint.load_into(model("yolov3-tiny"), path)
    path.write_bytes(b"abc")
    with pytest.raises(DataError, match="no Darknet weights"):
        checkpoint.load_into(model("yolov3-tiny"), path)
    with pytest.raises(DataError, match="cannot be read"):
        checkpoint.load_into(model("yolov3-tiny"), tmp_path / "none.weights")


def test_our_own_checkpoint_opens_as_a_model(tmp_path):
    torch.manual_seed(0)
    source = Detector("yolov5n", 2, np.full((3, 4, 2), 7.0), "yolov3-2020")
    checkpoint.save(source, ["a", "b"], tmp_path / "a.safetensors")
    opened, names, imgsz = checkpoint.open_model(tmp_path / "a.safetensors")
    assert (names, imgsz, opened.lineage, opened.training) == (("a", "b"), 640, "yolov3-2020", False)
    assert all(torch.equal(value, source.state_dict()[key]) for key, value in opened.state_dict().items())
    (tmp_path / "released.pt").write_bytes(b"PK")
    for other in ("none.safetensors", "released.pt"):
        with pytest.raises(DataError, match=f"{other} is missing or no checkpoint of this detector; name the last.safetensors"):
            checkpoint.open_model(tmp_path / other)
