"""The detector on its own: a project folder, evaluation and prediction with its checkpoint, a check that lists every fault."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
import sys

import cv2
import numpy as np
import pytest

from detector import data, digits
from detector.__main__ import main
from detector.metrics import Found, Truth, confusion, precision_curves


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return digits.write(tmp_path_factory.mktemp("set") / "digits", counts={"train": 8, "val": 4})


@pytest.fixture(scope="module")
def project(dataset, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "exp"
    options = ["--epochs", "2", "--imgsz", "64", "--batch", "4", "--val-every", "2", "--project", str(folder)]
    assert main(["train", "--data", str(dataset), *options, "--lineage", "yolov3-2019"]) == 0
    return folder


def test_a_project_holds_what_others_read(project):
    with (project / "results.csv").open() as file:
        rows = [{key.strip(): value.strip() for key, value in row.items()} for row in csv.DictReader(file)]
    assert list(rows[0])[:8] == [
        "epoch",
        "train/box_loss",
        "train/obj_loss",
        "train/cls_loss",
        "metrics/precision",
        "metrics/recall",
        "metrics/mAP_0.5",
        "metrics/mAP_0.5:0.95",
    ]
    assert [row["epoch"] for row in rows] == ["0", "1"]
    assert [row["metrics/mAP_0.5"] == "" for row in rows] == [True, False]
    assert "giou: 1.2\n" in (project / "hyp.yaml").read_text()
    assert json.loads((project / "opt.json").read_text())["lineage"] == "yolov3-2019"
    for name in ("train_batch0", "val_labels", "val_predictions", "labels", "PR_curve", "confusion_matrix"):
        assert cv2.imread(str(project / f"{name}.png")).std() > 5, name


def test_an_old_project_is_not_written_over(project, dataset, capsys):
    assert main(["train", "--data", str(dataset), "--imgsz", "64", "--project", str(project)]) == 5
    assert "name another --project" in capsys.readouterr().err


def test_val_repeats_the_training_s_evaluation(project, dataset, tmp_path):
    out = tmp_path / "out.json"
    options = ["--weights", str(project / "last.safetensors"), "--data", str(dataset), "--json", str(out)]
    assert main(["val", *options, "--batch", "8", "--project", str(tmp_path / "charts")]) == 0
    document = json.loads(out.read_text())
    with (project / "results.csv").open() as file:
        last = list(csv.reader(file))[-1]
    assert document["imgsz"] == 64
    assert document["metrics"]["conf"] == 0.1
    assert document["metrics"]["map50"] == pytest.approx(float(last[6]), rel=1e-4, abs=1e-9)
    assert document["metrics"]["val_obj"] == pytest.approx(float(last[9]), rel=1e-3)
    assert (tmp_path / "charts" / "PR_curve.png").exists()


def test_val_refuses_other_classes(project, dataset, tmp_path, capsys):
    other = tmp_path / "other"
    shutil.copytree(dataset.parent, other)
    (other / "data.yaml").write_text("train: images/train\nval: images/val\nnames: [zero, one, four, nine]\n")
    assert main(["val", "--weights", str(project / "last.safetensors"), "--data", str(other)]) == 5
    assert "knows 3 classes (zero, one, four)" in capsys.readouterr().err
    names = ", ".join(f"c{i}" for i in range(80))
    (other / "data.yaml").write_text(f"train: images/train\nval: images/val\nnames: [{names}]\n")
    assert main(["val", "--weights", str(project / "last.safetensors"), "--data", str(other)]) == 5
    assert "has 80 (c0, c1, c2, c3, c4, …)" in capsys.readouterr().err


def test_predict_on_a_folder_and_on_one_image(project, dataset, tmp_path, capsys):
    source = dataset.parent / "images" / "val"
    images = sorted(path.name for path in source.iterdir())
    weights = str(project / "last.safetensors")
    assert main(["predict", str(source), "--weights", weights, "--out", str(tmp_path / "all"), "--conf", "0.001"]) == 0
    rows = json.loads((tmp_path / "all" / "predictions.json").read_text())
    assert [row["image"] for row in rows] == images
    for row in rows:
        drawn, plain = (cv2.imread(str(folder / row["image"])) for folder in (tmp_path / "all", source))
        assert drawn.shape == plain.shape == (row["height"], row["width"], 3)
        lines = (tmp_path / "all" / row["image"]).with_suffix(".txt").read_text().splitlines()
        assert len(lines) == len(row["boxes"]) > 0
        assert not np.array_equal(drawn, plain)
        c, x, y, w, h, score = map(float, lines[0].split())
        best = row["boxes"][0]
        assert (c, score) == (best["class"], pytest.approx(best["confidence"], abs=1e-4))
        side = row["width"]
        assert best["box"] == pytest.approx(
            [(x - w / 2) * side, (y - h / 2) * side, (x + w / 2) * side, (y + h / 2) * side], abs=0.01
        )
        assert [b["confidence"] for b in row["boxes"]] == sorted((b["confidence"] for b in row["boxes"]), reverse=True)
    one = source / images[0]
    assert main(["predict", str(one), "--weights", weights, "--out", str(tmp_path / "one"), "--conf", "0.001"]) == 0
    assert json.loads((tmp_path / "one" / "predictions.json").read_text()) == rows[:1]
    before = one.read_bytes()
    assert main(["predict", str(source), "--weights", weights, "--out", str(source)]) == 5
    assert "would be overwritten" in capsys.readouterr().err
    assert one.read_bytes() == before
    assert main(["predict", str(tmp_path / "nowhere"), "--weights", weights]) == 5
    assert main(["predict", str(one), "--weights", weights, "--conf", "25"]) == 2


def test_predict_names_each_image_that_it_cannot_read_and_goes_on(project, dataset, tmp_path, capsys):
    source, out = tmp_path / "images", tmp_path / "out"
    shutil.copytree(dataset.parent / "images" / "val", source)
    names = sorted(path.name for path in source.iterdir())
    (source / names[0]).write_text("no image")
    (source / names[2]).write_bytes((source / names[2]).read_bytes()[:100])
    weights = str(project / "last.safetensors")
    assert main(["predict", str(source), "--weights", weights, "--out", str(out)]) == 5
    lines = capsys.readouterr().err.splitlines()
    assert [name in line for name, line in zip((names[0], names[2]), lines, strict=False)] == [True, True]
    assert lines[2] == f"detector predict: 2 of {len(names)} images could not be read"
    assert [row["image"] for row in json.loads((out / "predictions.json").read_text())] == [names[1], *names[3:]]
    assert main(["predict", str(source / names[0]), "--weights", weights, "--out", str(tmp_path / "none")]) == 5
    assert json.loads((tmp_path / "none" / "predictions.json").read_text()) == []


def test_predict_on_an_image_that_is_larger_and_not_square(project, dataset, tmp_path):
    source = dataset.parent / "images" / "val"
    pixels = cv2.imread(str(sorted(source.iterdir())[0]))
    wide = cv2.copyMakeBorder(cv2.resize(pixels, (256, 256)), 0, 0, 0, 200, cv2.BORDER_CONSTANT, value=(114, 114, 114))
    cv2.imwrite(str(tmp_path / "wide.png"), wide)
    weights = str(project / "last.safetensors")
    options = ["--weights", weights, "--out", str(tmp_path / "out"), "--conf", "0.001", "--imgsz", "128"]
    assert main(["predict", str(tmp_path / "wide.png"), *options]) == 0
    (row,) = json.loads((tmp_path / "out" / "predictions.json").read_text())
    boxes = np.array([b["box"] for b in row["boxes"]])
    assert (row["width"], row["height"]) == (456, 256)
    assert (boxes >= 0).all()
    assert (boxes <= (456, 256, 456, 256)).all()


def test_a_bar_grows_on_a_terminal(project, dataset, tmp_path, monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    weights = ["--weights", str(project / "last.safetensors")]
    for arguments in (
        ["train", "--data", str(dataset), "--imgsz", "64", "--batch", "4", "--epochs", "1"],
        ["val", *weights, "--data", str(dataset), "--batch", "2"],
        ["predict", str(dataset.parent / "images" / "val"), *weights, "--out", str(tmp_path / "out")],
    ):
        monkeypatch.setattr("sys.stderr", Terminal())
        assert main(arguments) == 0
        shown = [int(part) for part in re.findall(r"(\d+)%", sys.stderr.getvalue())]
        assert shown == sorted(set(shown)), arguments
        assert (len(shown) > 1, shown[-1]) == (True, 100), arguments


def test_benchmark(capsys):
    for precision in ("bf16", "fp32"):
        small = ["--imgsz", "32", "--batch", "2", "--seconds", "0", "--precision", precision]
        assert main(["benchmark", *small, "--json"]) == 0
        row = json.loads(capsys.readouterr().out)
        assert row["train_images_per_s"] > 0 < row["predict_images_per_s"]
        assert row["precision"] == precision
    assert main(["benchmark", "--precision", "int8"]) == 2
    assert main(["benchmark", "--device", "nowhere"]) == 2
    assert main(["benchmark", "--batch", "0"]) == 2
    capsys.readouterr()
    assert main(["benchmark", "--imgsz", "100"]) == 2
    assert "multiple of 32" in capsys.readouterr().err


# Everything that is wrong, at once.


def test_check_lists_every_file_and_row(dataset, tmp_path, capsys):
    root = tmp_path / "set"
    shutil.copytree(dataset.parent, root)
    assert main(["train", "--check", "--data", str(root)]) == 0
    assert "8 + 4 images" in capsys.readouterr().out
    labels, images = sorted((root / "labels/train").iterdir()), sorted((root / "images/train").iterdir())
    labels[0].write_text("0 0.5 0.5 0.1 0.1\n9 0.5 0.5 0.1 0.1\n0 0.5 x 0.1 0.1\n0 0.5 1.5 0.1 0.1\n")
    labels[1].write_bytes(b"\xff\xfe")
    images[2].write_text("no image")
    whole = cv2.imencode(".png", cv2.imread(str(images[3])))[1].tobytes()
    images[3].write_bytes(whole[: len(whole) // 4])
    assert main(["train", "--check", "--data", str(root)]) == 5
    shown = capsys.readouterr()
    lines = shown.out.splitlines()
    assert f"{len(lines)} faults" in shown.err
    for words in (
        f"{labels[0].name} line 2: class 9 is outside 0 to 2",
        f"{labels[0].name} line 3: 'x' is no number",
        f"{labels[0].name} line 4: 1.5 is outside 0 to 1",
        f"{labels[1].name} cannot be read as text",
        f"{images[2].name}: is no image",
        f"{images[3].name}: cannot be decoded",
    ):
        assert sum(words in line for line in lines) == 1, words


def test_check_of_the_other_formats(dataset, tmp_path):
    root = tmp_path / "set"
    shutil.copytree(dataset.parent, root)
    some = sorted((root / "images/train").iterdir())[0]
    (root / "train.txt").write_text(f"{some}\nnowhere/a.png\nnowhere/b.png\n")
    (root / "names").write_text("zero\none\nfour\n")
    (root / "x.data").write_text("classes = 3\ntrain = train.txt\nvalid = train.txt\nnames = names\n")
    assert len(data.check(root / "x.data")) == 4  # two lines of the list, read for either split
    images = [{"id": i, "file_name": name, "width": 9, "height": 9} for i, name in enumerate((some.name, "b.png", "c.png"))]
    rows = [
        {"id": 1, "image_id": 0, "category_id": 0, "bbox": [1, 1, 3, 3]},
        {"id": 2, "image_id": 0, "category_id": 7, "bbox": [1, 1, 3, 3]},
        {"id": 3, "image_id": 0, "category_id": 0, "bbox": [1, 1]},
    ]
    document = {"images": images, "annotations": rows, "categories": [{"id": 0, "name": "zero"}]}
    (some.parent / "a.json").write_text(json.dumps(document))
    faults = data.check(some.parent / "a.json")
    assert len(faults) == 4
    for words in ("annotation 2: category_id 7", "annotation 3 key bbox", "image b.png is in none", "image c.png is in none"):
        assert sum(words in fault for fault in faults) == 1, words
    voc = tmp_path / "voc"
    for folder in ("Annotations", "JPEGImages", "ImageSets/Main"):
        (voc / folder).mkdir(parents=True)
    shutil.copy(some, voc / "JPEGImages" / f"a{some.suffix}")
    box = "<bndbox><xmin>{}</xmin><ymin>1</ymin><xmax>8</xmax><ymax>8</ymax></bndbox>"
    objects = "".join(f"<object><name>zero</name>{box.format(x)}</object>" for x in ("1", "one", "two"))
    (voc / "Annotations/a.xml").write_text(f"<annotation>{objects}</annotation>")
    (voc / "Annotations/b.xml").write_text("<annotation>")
    for split in ("train", "val"):
        (voc / f"ImageSets/Main/{split}.txt").write_text("a\n" if split == "val" else "a\nb\nc\n")
    faults = data.check(voc)
    assert sum("object 2 key xmin" in fault for fault in faults) == 2  # a is in both lists
    assert any("b.xml line 1" in fault for fault in faults)
    assert any("c.xml" in fault for fault in faults)
    assert data.check(tmp_path / "nowhere")[0].endswith("name a YOLO YAML, a Darknet .data file, a VOC folder or a COCO JSON")


def test_confusion_and_curves():
    boxes = np.array([[0, 0, 10, 10], [20, 0, 30, 10], [40, 0, 50, 10]], float)
    truth = [Truth(boxes, np.array([0, 1, 1]))]
    found = [
        Found(
            np.array([[0, 0, 10, 10], [20, 0, 30, 10], [0, 1, 10, 10], [60, 0, 70, 10], [40, 0, 50, 10]], float),
            np.array([0.9, 0.8, 0.7, 0.6, 0.2]),
            np.array([0, 0, 0, 1, 1]),
        )
    ]
    np.testing.assert_array_equal(confusion(found, truth, 2), [[1, 1, 1], [0, 0, 1], [0, 1, 0]])
    assert confusion([Found(boxes[:0], np.empty(0), np.empty(0, int))], truth, 2).tolist() == [[0] * 3, [0] * 3, [1, 2, 0]]
    curves = precision_curves(found, truth, 2)
    assert curves[0].tolist() == [1.0] * 101
    assert curves[1][[0, 50, 51]].tolist() == [0.5, 0.5, 0.0]
