"""Everything that parses what people, files and machines send us, each with good input to start from and its own way to refuse.

``benchmarks.fuzz_parsers`` and the test suite feed them broken input: whatever comes, a parser returns or refuses. Any other
exception is a defect.
"""

from __future__ import annotations

import contextlib
import functools
import io
import json
import pickle
import random
import struct
import tempfile
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

LONGEST = 8192  # bytes of an input


class Parser(NamedTuple):
    """``parse`` returns or raises one of ``refusals``; ``seeds`` are inputs that it takes."""

    parse: Callable[[bytes], object]
    refusals: tuple[type[Exception], ...]
    seeds: Sequence[bytes]

    def feed(self, data: bytes) -> None:
        """Raises whatever the parser raises that is no refusal."""
        with contextlib.suppress(*self.refusals):
            self.parse(data)


def mutated(seeds: Sequence[bytes], chance: random.Random) -> bytes:
    """A seed with some bytes changed, left out, said twice or replaced by a piece of another."""
    data = bytearray(chance.choice(seeds))
    for _ in range(chance.randint(1, 4)):
        at, n = chance.randrange(len(data) + 1), chance.choice((1, 1, 2, 4, 8, 64))
        match chance.randrange(5):
            case 0:
                data[at : at + n] = b""
            case 1:
                data[at:at] = data[at : at + n] * chance.choice((1, 2, 50))
            case 2:
                data[at : at + n] = chance.randbytes(n)
            case 3:
                other = chance.choice(seeds)
                begin = chance.randrange(len(other) + 1)
                data[at : at + n] = other[begin : begin + chance.choice((1, 8, 64))]
            case _:
                data[at : at + 1] = chance.choice(
                    (b"\0", b"\xff", b"-", b"0", b"9" * 400, b"[" * 3000, b"{", b'"', b"null", b"\n")
                )
    return bytes(data[:LONGEST])


# ---- text ------------------------------------------------------------------------------------------------------------------


def _text(parse: Callable[[str], object]) -> Callable[[bytes], object]:
    return lambda data: parse(data.decode("utf-8", "replace"))


CAMPAIGN = b"""name: bccd
base: {data: bccd.yaml, model: yolov5n, weights: '', epochs: 10, imgsz: 320, batch: 8, optimizer: auto}
trainer: detector
hyp: {lr0: 0.01, momentum: 0.9}
space_format: yolov5
space: {lr0: [1, 1e-5, 1e-1], degrees: {gain: 1, min: 0, max: 45}}
fixed: [fl_gamma]
fitness: {map50: 0.1, map50_95: 0.9}
evolve: {strategy: hybrid, seed: 0}
budget: {candidates: 300, gpu_hours: null, deadline: 2026-12-01T00:00:00Z, patience: 30}
retries: {failed: 1}
lease: {heartbeat: 15s, expire: 60s}
"""


def _yaml() -> Parser:
    from evolution import yaml
    from evolution.problems import InvalidInput

    return Parser(_text(lambda text: yaml.load(text, "fuzz")), (InvalidInput,), (CAMPAIGN, b"- [1, 2.5e-3, .inf]\n- 'a'\n"))


def _campaign() -> Parser:
    from evolution import yaml
    from evolution.campaign import Campaign
    from evolution.problems import InvalidInput

    def parse(text: str) -> object:
        document = yaml.load(text, "fuzz")
        return Campaign.from_document(document) if isinstance(document, dict) else None

    toy = b"name: t\nbase: {epochs: 3}\ntrainer: {python: 'm:f'}\nhyp: {x: 0.5}\nspace: {x: {gain: 1, min: 0.1, max: 1}}\n"
    return Parser(_text(parse), (InvalidInput,), (CAMPAIGN, toy))


def _earlier_results(name: str) -> Parser:
    from evolution.earlier_results import read_result_file
    from evolution.problems import InvalidInput
    from evolution.result_files import ResultRow, evolve_csv, evolve_txt, tune_results
    from evolution.space import Gene, Space

    space = Space((Gene("lr0", 0.01, 1, 1e-5, 0.1, "log"), Gene("optimizer", 0, 1, 0, 1, choices=("SGD", "AdamW"))))
    metrics = dict.fromkeys(("precision", "recall", "map50", "map50_95", "val_box", "val_obj", "val_cls"), 0.5)
    rows = [ResultRow(k, {"lr0": 0.01 * k, "optimizer": "SGD"}, metrics, 0.5) for k in (1, 2)]
    written = {
        "evolve.csv": lambda: evolve_csv(space, rows),
        "evolve.txt": lambda: evolve_txt(space, rows),
        "tune_results.ndjson": lambda: tune_results(space, rows, "d"),
    }[name]()
    return Parser(_text(lambda text: read_result_file(name, text, space)), (InvalidInput,), ("".join(written).encode(),))


# ---- what crosses the network ----------------------------------------------------------------------------------------------


def _body() -> Parser:
    from hypevolve import messages
    from hypevolve.shapes import Request
    from server import limits
    from server.errors import Invalid

    models = sorted(Request.__subclasses__(), key=lambda model: model.__name__)

    def parse(body: bytes) -> None:
        limits.check_depth(body)
        document = json.loads(body)
        for model in models:
            with contextlib.suppress(ValueError):  # pydantic's refusal is one
                model.model_validate(document)

    worker = "00000000-0000-0000-0000-000000000001"
    seeds = [
        {"request_id": worker, "worker": worker, "devices": ["cuda:0"], "campaigns": ["toy"], "n": 2},
        {"epoch": 1, "progress": 0.5, "samples": 10},
        {"epochs": [{"epoch": 0, "metrics": {"map50": 0.5}}]},
        {
            "metrics": {"map50": 0.5},
            "fitness": 0.5,
            "hyp_hash": "a" * 64,
            "data_hash": "b",
            "rung": 0,
            "seconds": 1.0,
            "epochs": 3,
        },
        {"kind": "nan", "detail": "loss is nan"},
        {"worker": worker, "name": "w", "host": "h", "devices": [], "protocol": messages.PROTOCOL, "versions": {"a": "1"}},
        {"name": "me", "scopes": ["read"], "campaigns": ["toy"], "expires_s": 60},
        {"candidates": 10, "deadline": "2026-12-01T00:00:00Z", "priority": 1, "share": 2},
        {"request_id": worker, "hyps": [{"x": 0.5, "optimizer": "SGD"}]},
    ]
    return Parser(parse, (Invalid, ValueError), [json.dumps(seed).encode() for seed in seeds])


def _checkpoint_upload() -> Parser:
    from server.checkpoint_format import Inspection
    from server.errors import Invalid

    def parse(content: bytes) -> None:
        inspection = Inspection()
        for at in range(0, len(content), 7):
            inspection.feed(content[at : at + 7])
        inspection.finish()

    return Parser(parse, (Invalid,), (_safetensors(), b'{"epoch": 3}'))


def _metrics_file(name: str) -> Parser:
    """What a program wrote that a worker runs."""
    from worker import command
    from worker.errors import TrainingFailed

    path = _folder() / name
    columns = b"epoch, metrics/mAP50(B), val/box_loss\n1, 0.5, 0.1\n2, 0.6, nan\n"
    seeds = (columns,) if name.endswith(".csv") else (b'{"map50": 0.5, "map50_95": 0.25}',)
    return Parser(_at(path, command._metrics), (TrainingFailed,), seeds)


# ---- data sets and weights -------------------------------------------------------------------------------------------------

PNG = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + struct.pack(">2I5B", 8, 8, 8, 2, 0, 0, 0) + b"\0\0\0\0"


@functools.cache
def _folder() -> Path:
    """A small data set in every format, whose files the parsers overwrite; gone with the process."""
    holder = tempfile.TemporaryDirectory(prefix="fuzz-")
    _folder.holder = holder  # type: ignore[attr-defined]
    root = Path(holder.name)
    for name in ("images", "labels", "Annotations", "JPEGImages", "ImageSets/Main"):
        (root / name).mkdir(parents=True)
    for name in ("images/a.png", "JPEGImages/a.png"):
        (root / name).write_bytes(PNG)
    for split in ("train", "val"):
        (root / "ImageSets/Main" / f"{split}.txt").write_text("a\n")
    (root / "list.txt").write_text("images/a.png\n")
    (root / "names.txt").write_text("cat\ndog\n")
    return root


def _at(path: Path, read: Callable[[Path], object]) -> Callable[[bytes], object]:
    """``read`` of a file with the input in it."""

    def parse(data: bytes) -> object:
        path.write_bytes(data)
        return read(path)

    return parse


def _dataset(format_: str) -> Parser:
    from detector.dataset import Reading
    from detector.errors import DataError
    from detector.formats import coco, darknet, labels, voc, yolo

    root = _folder()
    box = b"<object><name>cat</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>5</xmax><ymax>5</ymax></bndbox></object>"
    size = b"<size><width>8</width><height>8</height></size>"
    annotation = {"id": 1, "image_id": 1, "category_id": 7, "bbox": [1, 1, 4, 4], "iscrowd": 0}
    outlined = {**annotation, "id": 2, "bbox": [0, 0, 5, 5], "segmentation": [[1, 1, 4, 1, 4, 4]]}
    document = {
        "images": [{"id": 1, "file_name": "a.png", "width": 8, "height": 8}],
        "annotations": [annotation, outlined],
        "categories": [{"id": 7, "name": "cat"}],
    }
    image = root / "images/a.png"
    found: dict[str, tuple[Callable[[bytes], object], bytes]] = {
        "labels": (
            _at(root / "labels/a.txt", lambda _: labels.read_labels(image, 2, Reading())),
            b"0 0.5 0.5 0.2 0.2\n1 0.1 0.1 0.2 0.1 0.2 0.2 0.1 0.2\n",
        ),
        "coco": (_at(root / "coco.json", coco.read), json.dumps(document).encode()),
        "voc": (_at(root / "Annotations/a.xml", lambda _: voc.read(root)), b"<annotation>" + size + box + b"</annotation>"),
        "data.yaml": (_at(root / "data.yaml", yolo.read), b"path: .\ntrain: images\nval: list.txt\nnames: {0: cat, 1: dog}\n"),
        "darknet.data": (
            _at(root / "darknet.data", darknet.read),
            b"classes = 2\ntrain = list.txt\nvalid = list.txt\nnames = names.txt\n",
        ),
    }
    parse, seed = found[format_]
    if format_ in ("data.yaml", "darknet.data"):
        (root / "labels/a.txt").write_text("0 0.5 0.5 0.2 0.2\n")
    return Parser(parse, (DataError,), (seed,))


def _image() -> Parser:
    from detector import image_files
    from detector.errors import DataError

    jpeg = b"\xff\xd8\xff\xe0\0\x10JFIF\0\1\1\0\0\1\0\1\0\0\xff\xc0\0\x11\x08\0\x08\0\x08\3\1\x22\0\2\x11\1\3\x11\1\xff\xd9"
    tiff = b"II*\0\x08\0\0\0\2\0" + struct.pack("<2HI2H", 256, 3, 1, 8, 0) + struct.pack("<2HI2H", 257, 3, 1, 8, 0)
    bmp = b"BM" + struct.pack("<IHHII2i", 70, 0, 0, 54, 40, 8, -8)
    webp = [b"RIFF\x1a\0\0\0WEBP" + kind + b"\x0d\0\0\0\x2f\7\xc0\1\0" + bytes(12) for kind in (b"VP8L", b"VP8 ", b"VP8X")]
    return Parser(_at(_folder() / "image", image_files.check), (DataError,), (PNG, jpeg, tiff, bmp, *webp))


def _safetensors() -> bytes:
    import numpy as np
    from safetensors.numpy import save

    header = {"hypevolve.detector": json.dumps({"model": "yolov5n", "names": ["cat"], "lineage": "yolov5", "imgsz": 64})}
    return save({"anchors": np.ones((3, 3, 2), np.float32), "strides": np.ones(3, np.float32)}, metadata=header)


def _own_weights() -> Parser:
    from detector import checkpoint
    from detector.errors import DataError

    return Parser(_at(_folder() / "a.safetensors", checkpoint.open_model), (DataError,), (_safetensors(),))


def _archive(content: bytes, storage: bytes = bytes(16)) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("a/data.pkl", content)
        archive.writestr("a/data/0", storage)
    return file.getvalue()


def _pickles() -> list[bytes]:
    """Of a state dictionary as ``torch.save`` writes it, and of what an attacker might."""
    import torch

    file = io.BytesIO()
    torch.save({"model": {"a.weight": torch.ones(2, 2)}}, file)
    with zipfile.ZipFile(file) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith("data.pkl")]
        written = archive.read(name)
    return [written, pickle.dumps({"model": print, "a": [1, (2, "x")]}), b"cos\nsystem\n(S'true'\ntR."]


def _released(inside: bool) -> Parser:
    """The whole archive, or only the pickle in it: a changed archive seldom gets as far as that."""
    from detector import released
    from detector.errors import DataError

    read = _at(_folder() / "a.pt", released.read)
    if inside:
        return Parser(lambda data: read(_archive(data)), (DataError,), _pickles())
    return Parser(read, (DataError,), [_archive(content) for content in _pickles()])


def _darknet_weights() -> Parser:
    from detector import darknet_weights
    from detector.errors import DataError
    from detector.models import Detector

    model = Detector("yolov3-tiny", 2)
    path = _folder() / "a.weights"
    seed = struct.pack("<3iq", 0, 2, 5, 1000) + bytes(4 * (16 * 4 + 16 * 27))  # its first convolution
    return Parser(_at(path, lambda path: darknet_weights.load_into(model, path)), (DataError,), (seed,))


PARSERS: dict[str, Callable[[], Parser]] = {
    "yaml": _yaml,
    "campaign": _campaign,
    **{name: functools.partial(_earlier_results, name) for name in ("evolve.csv", "evolve.txt", "tune_results.ndjson")},
    "body": _body,
    "checkpoint upload": _checkpoint_upload,
    **{name: functools.partial(_metrics_file, name) for name in ("results.csv", "results.json")},
    **{name: functools.partial(_dataset, name) for name in ("labels", "coco", "voc", "data.yaml", "darknet.data")},
    "image": _image,
    "safetensors": _own_weights,
    "pt": functools.partial(_released, False),
    "pickle": functools.partial(_released, True),
    "darknet weights": _darknet_weights,
}
