"""Data sets: five formats read to the same labels, and one clear line for everything that can be wrong with one."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import struct
import tempfile
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detector import cache, data, image_files
from detector.cache import load_cached
from detector.data import data_hash, load
from detector.errors import DataError

SIZE = (40, 64)  # height, width: fractions of powers of two and small fives stay exact enough in every format
NAMES = ("ant", "bee")
# image: objects as class, x1, y1, x2, y2 in pixels
TRAIN = {"a": [(0, 8, 5, 24, 25), (1, 32, 10, 64, 40)], "b": [], "c": [(1, 0, 0, 16, 20)]}
VAL = {"d": [(0, 16, 10, 48, 30)]}
SPLITS = {"train": TRAIN, "val": VAL}


def write_image(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.random.default_rng(seed).integers(0, 255, (*SIZE, 3), np.uint8))


def write_labels(path: Path, objects) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    h, w = SIZE
    rows = [f"{c} {(x1 + x2) / 2 / w} {(y1 + y2) / 2 / h} {(x2 - x1) / w} {(y2 - y1) / h}\n" for c, x1, y1, x2, y2 in objects]
    path.write_text("".join(rows))


def yolo(root: Path) -> Path:
    for split, images in SPLITS.items():
        for k, (stem, objects) in enumerate(images.items()):
            write_image(root / "images" / split / f"{stem}.png", k)
            if objects:
                write_labels(root / "labels" / split / f"{stem}.txt", objects)
    (root / "data.yaml").write_text("path: .\ntrain: images/train\nval: images/val\nnc: 2\nnames: [ant, bee]\n")
    return root / "data.yaml"


def yolo_lists(root: Path) -> Path:
    yolo(root)
    for split, images in SPLITS.items():
        (root / f"{split}.txt").write_text("".join(f"./images/{split}/{stem}.png\n" for stem in images))
    (root / "data.yaml").write_text("train: [train.txt]\nval: val.txt\nnames:\n  0: ant\n  1: bee\n")
    return root


def darknet(root: Path) -> Path:
    yolo_lists(root)
    (root / "set.names").write_text("ant\nbee\n")
    (root / "set.data").write_text("classes = 2\ntrain = train.txt\nvalid=val.txt\n# a remark\nnames = set.names\nbackup = b\n")
    return root / "set.data"


def voc(root: Path) -> Path:
    for split, images in SPLITS.items():
        (root / "ImageSets" / "Main").mkdir(parents=True, exist_ok=True)
        (root / "ImageSets" / "Main" / f"{split}.txt").write_text("".join(f"{stem}\n" for stem in images))
        for k, (stem, objects) in enumerate(images.items()):
            write_image(root / "JPEGImages" / f"{stem}.png", k)
            boxes = "".join(
                f"<object><name>{NAMES[c]}</name><bndbox><xmin>{x1}</xmin><ymin>{y1}</ymin><xmax>{x2}</xmax>"
                f"<ymax>{y2}</ymax></bndbox></object>"
                for c, x1, y1, x2, y2 in objects
            )
            size = f"<size><width>{SIZE[1]}</width><height>{SIZE[0]}</height></size>" if k else ""
            (root / "Annotations").mkdir(exist_ok=True)
            (root / "Annotations" / f"{stem}.xml").write_text(f"<annotation>{size}{boxes}</annotation>")
    return root


def coco_document(images) -> dict:
    annotations = [
        {"image_id": i, "category_id": 7 + 2 * c, "bbox": [x1, y1, x2 - x1, y2 - y1], "iscrowd": 0}
        for i, objects in enumerate(images.values())
        for c, x1, y1, x2, y2 in objects
    ]
    return {
        "images": [{"id": i, "file_name": f"{s}.png", "width": SIZE[1], "height": SIZE[0]} for i, s in enumerate(images)],
        "annotations": [{"id": i, **a} for i, a in enumerate(annotations)],
        "categories": [{"id": 9, "name": "bee"}, {"id": 7, "name": "ant"}],
    }


def coco(root: Path) -> Path:
    (root / "annotations").mkdir(parents=True)
    for split, images in SPLITS.items():
        for k, stem in enumerate(images):
            write_image(root / "images" / f"{split}2017" / f"{stem}.png", k)
        (root / "annotations" / f"instances_{split}2017.json").write_text(json.dumps(coco_document(images)))
    return root


@pytest.mark.parametrize("write", [yolo, yolo_lists, darknet, voc, coco])
def test_every_format_gives_the_same_labels(write, tmp_path):
    dataset = load(write(tmp_path / "set"))
    assert dataset.names == NAMES
    height, width = SIZE
    for samples, images in ((dataset.train, TRAIN), (dataset.val, VAL)):
        assert [s.image.stem for s in samples] == list(images)
        for sample, objects in zip(samples, images.values(), strict=True):
            expected = [
                (c, (x1 + x2) / 2 / width, (y1 + y2) / 2 / height, (x2 - x1) / width, (y2 - y1) / height)
                for c, x1, y1, x2, y2 in objects
            ]
            np.testing.assert_allclose(sample.labels, np.array(expected).reshape(-1, 5), atol=1e-7)
    assert not dataset.remarks
    assert not dataset.has_polygons


def test_one_coco_file_serves_both_splits(tmp_path):
    root = coco(tmp_path)
    dataset = load(root / "annotations" / "instances_train2017.json")
    assert [s.image for s in dataset.train] == [s.image for s in dataset.val]


@pytest.mark.parametrize("write", [yolo, darknet, voc, coco])
def test_hash_ignores_the_place_and_sees_the_content(write, tmp_path):
    first = write(tmp_path / "here")
    second = write(tmp_path / "some" / "where" / "else")
    assert data_hash(first) == data_hash(second)
    image = load(second).train[0].image
    image.write_bytes(image.read_bytes() + b"\0")
    assert data_hash(first) != data_hash(second)


def test_hash_sees_labels_and_names(tmp_path):
    first = yolo(tmp_path)
    before = data_hash(first)
    write_labels(tmp_path / "labels" / "val" / "d.txt", [(0, 16, 10, 48, 31)])
    changed = data_hash(first)
    first.write_text(first.read_text().replace("bee", "wasp"))
    assert len({before, changed, data_hash(first)}) == 3


def test_outlines_are_read(tmp_path):
    path = yolo(tmp_path)
    (tmp_path / "labels" / "train" / "a.txt").write_text("0 0.25 0.25 0.75 0.25 0.5 0.75\n1 0.5 0.5 0.5 0.5\n")
    dataset = load(path)
    sample = dataset.train[0]
    assert dataset.has_polygons
    np.testing.assert_allclose(sample.labels[0], [0, 0.5, 0.5, 0.5, 0.5])
    np.testing.assert_allclose(sample.polygons[0], [[0.25, 0.25], [0.75, 0.25], [0.5, 0.75]])
    assert sample.polygons[1] is None
    picture = load_cached(str(path), 64).train[0]
    assert not np.isnan(picture.outlines[0]).any()
    assert np.isnan(picture.outlines[1]).all()
    np.testing.assert_allclose(picture.outlines[0].max(0), [0.75, 0.75], atol=0.01)


def test_largest_coco_outline_is_kept_and_crowds_go(tmp_path):
    path = coco(tmp_path) / "annotations" / "instances_train2017.json"
    document = json.loads(path.read_text())
    document["annotations"][0]["segmentation"] = [[0, 0, 2, 0, 2, 2], [8, 5, 24, 5, 24, 25, 8, 25]]
    document["annotations"][1]["iscrowd"] = 1
    path.write_text(json.dumps(document))
    dataset = load(path)
    assert len(dataset.train[0].labels) == 1
    np.testing.assert_allclose(dataset.train[0].polygons[0][0], [8 / 64, 5 / 40])
    assert dataset.remarks == (f"crowd regions left out: 1, the first: {path} annotation 1",)


def test_boxes_without_area_and_repeats_are_left_out_with_a_remark(tmp_path):
    root = voc(tmp_path)
    file = root / "Annotations" / "a.xml"
    text = file.read_text()
    first = text[text.index("<object>") : text.index("</object>") + len("</object>")]
    flat = first.replace("<xmax>24<", "<xmax>8<")
    file.write_text(text.replace("</annotation>", f"{first}{flat}</annotation>"))
    dataset = load(root)
    assert len(dataset.train[0].labels) == 2
    assert dataset.remarks == (
        f"repeated boxes left out: 1, the first: {file} object 3",
        f"boxes without area left out: 1, the first: {file} object 4",
    )


def test_boxes_far_beyond_the_image_are_named(tmp_path):
    cut, gone = "boxes cut off that reach more than 10% beyond the image", "boxes outside the image left out"
    file = voc(tmp_path / "voc") / "Annotations" / "a.xml"
    box = "<object><name>cat</name><bndbox><xmin>{}</xmin><ymin>5</ymin><xmax>{}</xmax><ymax>9</ymax></bndbox></object>"
    boxes = "".join(box.format(*x) for x in ((1, 66), (2, 640), (3, 641), (640, 650)))
    file.write_text(file.read_text().replace("</annotation>", f"{boxes}</annotation>"))
    dataset = load(tmp_path / "voc")
    assert dataset.remarks == (f"{cut}: 2, the first: {file} object 4", f"{gone}: 1, the first: {file} object 6")
    assert (dataset.train[0].labels[:, 1] + dataset.train[0].labels[:, 3] / 2).max() == 1
    file = coco(tmp_path / "coco") / "annotations" / "instances_train2017.json"
    document = json.loads(file.read_text())
    document["annotations"][0]["bbox"] = [-30, 0, 40, 10]
    file.write_text(json.dumps(document))
    assert load(tmp_path / "coco").remarks == (f"{cut}: 1, the first: {file} annotation {document['annotations'][0]['id']}",)
    path = yolo(tmp_path / "yolo")
    labels = tmp_path / "yolo" / "labels" / "train" / "a.txt"
    labels.write_text("0 0.05 0.5 0.2 0.2\n0 0.05 0.5 0.9 0.2\n")
    assert load(path).remarks == (f"{cut}: 1, the first: {labels} line 2",)


def replaced(name, text):
    return lambda root: (root / name).write_text(text)


def removed(name):
    def act(root):
        path = root / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()

    return act


LABELS = "labels/train/a.txt"
COCO = "annotations/instances_train2017.json"


def edited(change):
    def act(root):
        document = json.loads((root / COCO).read_text())
        change(document)
        (root / COCO).write_text(json.dumps(document))

    return act


@pytest.mark.parametrize(
    ("write", "spoil", "words"),
    [
        (yolo, removed("data.yaml"), "data.yaml does not exist"),
        (yolo, removed("images/val"), "data.yaml key val: .*images/val does not exist"),
        (yolo, removed("labels"), "none of the 3 training images has a label"),
        (yolo, replaced("images/train/a.png", "no image"), "a.png: is no image"),
        (yolo, replaced(LABELS, "0 .5 .5 .5\n"), "a.txt line 1: has 4 numbers; write class xc yc w h"),
        (yolo, replaced(LABELS, "0 .5 .5 .5 .5\n\n0 .5 nan .5 .5\n"), "a.txt line 3: holds NaN"),
        (yolo, replaced(LABELS, "0 .5 .5 .5 1.5\n"), "a.txt line 1: 1.5 is outside 0 to 1"),
        (yolo, replaced(LABELS, "0 .5 -.5 .5 .5\n"), "a.txt line 1: -.5 is outside 0 to 1"),
        (yolo, replaced(LABELS, "2 .5 .5 .5 .5\n"), "a.txt line 1: class 2 is outside 0 to 1; .*names"),
        (yolo, replaced(LABELS, "0.5 .5 .5 .5 .5\n"), "a.txt line 1: class 0.5 is outside"),
        (yolo, replaced(LABELS, "ant .5 .5 .5 .5\n"), "a.txt line 1: 'ant' is no number"),
        (yolo, replaced("data.yaml", "train: images/train\nval: images/val\n"), "key names: is missing"),
        (yolo, replaced("data.yaml", "train: images/train\nnames: [a, b]\n"), "key val: is missing"),
        (yolo, replaced("data.yaml", "train: images/train\nval: images/val\nnc: 3\nnames: [a, b]\n"), "key nc: is 3, but"),
        (
            yolo,
            replaced("data.yaml", "train: images/train\nval: images/val\nnames: {0: a, 2: b}\n"),
            "key names: numbers must run",
        ),
        (yolo, replaced("data.yaml", "path: nowhere\ntrain: a\nval: b\nnc: 1\n"), "key path: folder .*nowhere does not exist"),
        (yolo, replaced("data.yaml", "train: [a\n"), r"data.yaml.*"),
        (yolo, replaced("data.yaml", "- train\n"), "is no mapping"),
        (yolo_lists, replaced("train.txt", "./images/train/a.png\n./images/train/x.png\n"), "train.txt line 2: image"),
        (yolo_lists, replaced("val.txt", "\n"), "the validation list holds no images"),
        (darknet, replaced("set.names", "ant\n"), "key classes: is 2, but set.names lists 1 names"),
        (darknet, replaced("set.data", "train = train.txt\nnames = set.names\n"), "key valid: is missing"),
        (darknet, replaced("set.data", "train = train.txt\nrubbish\n"), "set.data line 2: 'rubbish' has no '='"),
        (darknet, removed("set.names"), "set.data: .*set.names does not exist"),
        (voc, removed("ImageSets/Main/val.txt"), "val.txt does not exist"),
        (voc, removed("JPEGImages/a.png"), "train.txt: image a is not in JPEGImages"),
        (voc, replaced("Annotations/a.xml", "<annotation><object>"), "a.xml line 1: is no well-formed XML"),
        (
            voc,
            replaced(
                "Annotations/a.xml", "<annotation><object><name>ant</name><bndbox><xmin>x</xmin></bndbox></object></annotation>"
            ),
            "a.xml object 1 key xmin: is 'x'",
        ),
        (coco, replaced(COCO, "{"), "train2017.json line 1: is no valid JSON"),
        (coco, replaced(COCO, "{}"), "train2017.json key images: is missing"),
        (coco, removed("images/train2017/a.png"), "image a.png is in none of"),
        (coco, edited(lambda d: d["annotations"][1].update(category_id=8)), "annotation 1: category_id 8 is not among"),
        (coco, edited(lambda d: d["annotations"][1].update(image_id=8)), "annotation 1: image_id 8 is not among"),
        (coco, edited(lambda d: d["annotations"][1].update(bbox=[1, 2, 3])), r"annotation 1 key bbox: is \[1, 2, 3\]"),
        (coco, edited(lambda d: d["images"][0].pop("width")), "lacks a key.*width"),
        (coco, edited(lambda d: d["categories"].pop()), "category_id 7 is not among"),
    ],
)
def test_bad_data_is_one_line_with_place_and_remedy(write, spoil, words, tmp_path):
    path = write(tmp_path)
    spoil(tmp_path)
    with pytest.raises(DataError, match=words) as caught:
        load(path)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) > 20


def test_a_path_that_is_no_data_set(tmp_path):
    with pytest.raises(DataError, match="is no data set"):
        load(tmp_path)
    (tmp_path / "notes.txt").write_text("hello\n")
    with pytest.raises(DataError, match="no known format"):
        load(tmp_path / "notes.txt")


def test_a_truncated_image_is_found_while_decoding(tmp_path):
    path = yolo(tmp_path)
    image = tmp_path / "images" / "train" / "a.png"
    image.write_bytes(image.read_bytes()[:20])
    with pytest.raises(DataError, match=r"a\.png: cannot be decoded"):
        load_cached(str(path), 64)


def test_a_jpeg_that_ends_too_early_is_refused_and_not_filled_with_grey(tmp_path):
    path = yolo(tmp_path)
    image = tmp_path / "images" / "train" / "a.png"  # the suffix does not matter
    noise = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)
    for options in ([], [cv2.IMWRITE_JPEG_PROGRESSIVE, 1]):
        whole = cv2.imencode(".jpg", noise, options)[1].tobytes()
        image.write_bytes(whole)
        assert np.array_equal(image_files.read(image), cv2.imread(str(image)))
        assert data.check(path) == []
        image.write_bytes(whole[: len(whole) // 2])
        assert cv2.imread(str(image)) is not None  # why images are decoded from memory
        for read in (lambda: image_files.read(image), lambda: load_cached(str(path), 64)):
            with pytest.raises(DataError, match=r"a\.png: cannot be decoded \(truncated"):
                read()
        assert ["a.png: cannot be decoded" in fault for fault in data.check(path)] == [True]
    image.write_bytes(b"")
    with pytest.raises(DataError, match="is no image"):
        image_files.read(image)


def test_an_image_is_turned_as_its_exif_says(tmp_path):
    whole = cv2.imencode(".jpg", np.zeros((48, 64, 3), np.uint8))[1].tobytes()
    turned = b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"  # orientation 6: a quarter
    image = tmp_path / "a.jpg"
    image.write_bytes(whole[:2] + b"\xff\xe1" + (len(turned) + 2).to_bytes(2, "big") + turned + whole[2:])
    assert image_files.read(image).shape == (64, 48, 3)


@pytest.mark.parametrize("write", [yolo_lists, darknet, voc, coco])
def test_a_change_of_any_source_is_seen(write, tmp_path, monkeypatch):
    monkeypatch.setattr(cache, "_CACHE", {})
    path = str(write(tmp_path))
    first = load_cached(path, 64)
    assert len(first.dataset.sources) >= 2
    for source in first.dataset.sources:
        if source.is_file():
            source.write_text(source.read_text() + " ")
            again = load_cached(path, 64)
            assert again is not first
            first = again


def test_pictures_are_resized_and_kept_until_a_file_changes(tmp_path, monkeypatch):
    monkeypatch.setattr(cache, "_CACHE", {})
    path = yolo(tmp_path)
    first = load_cached(str(path), 96)
    assert first.train[0].pixels.shape == (60, 96, 3)  # enlarged for training
    assert first.val[0].pixels.shape == (40, 64, 3)  # never enlarged for validation
    assert first.val[0].native == SIZE
    assert load_cached(str(path), 96) is first
    assert load_cached(str(path), 32).val[0].pixels.shape == (20, 32, 3)
    write_labels(tmp_path / "labels" / "train" / "b.txt", [(0, 0, 0, 8, 8)])
    assert len(load_cached(str(path), 96).train[1].labels) == 1
    for size in (64, 128, 160):
        load_cached(str(path), size)
    assert len(cache._CACHE) == cache.CAPACITY


def written(path: Path, width: int, height: int) -> bytes:
    cv2.imwrite(str(path), np.zeros((height, width, 3), np.uint8), [cv2.IMWRITE_WEBP_QUALITY, 80])
    return path.read_bytes()


# An image of 48 x 30 pixels that says of itself that it has 30000 x 20000: what to replace, and with what.
SAYS = {
    "png": [(struct.pack(">2I", 48, 30), struct.pack(">2I", 30000, 20000))],
    "jpg": [(struct.pack(">2H", 30, 48), struct.pack(">2H", 20000, 30000))],
    "bmp": [(struct.pack("<2I", 48, 30), struct.pack("<2i", 30000, -20000))],
    "tif": [
        (struct.pack("<2HIHH", 256, 3, 1, 48, 0), struct.pack("<2HII", 256, 4, 1, 30000)),
        (struct.pack("<2HIHH", 257, 3, 1, 30, 0), struct.pack("<2HII", 257, 4, 1, 20000)),
    ],
    "webp": [(struct.pack("<2H", 48, 30), struct.pack("<2H", 16383, 16383))],
}


@pytest.mark.parametrize("kind", SAYS)
def test_an_image_that_says_it_is_huge_is_refused_before_it_is_decoded(kind, tmp_path, monkeypatch):
    path = tmp_path / f"a.{kind}"
    content = written(path, 48, 30)
    assert image_files.read(path).shape == (30, 48, 3)
    for before, after in SAYS[kind]:
        assert content.count(before) == 1
        content = content.replace(before, after)
    path.write_bytes(content)
    monkeypatch.setattr(cv2, "imdecode", lambda *_: pytest.fail("it was decoded"))
    with pytest.raises(DataError, match=rf"a\.{kind}: is (30000 x 20000|16383 x 16383), .* 50000000 .*; reduce it"):
        image_files.read(path)


@pytest.mark.parametrize("kind", ["VP8L", "VP8X"])
def test_the_other_kinds_of_webp_say_their_size(kind, tmp_path):
    path = tmp_path / "a.webp"
    size = struct.pack("<BI", 0x2F, 16382 | 16382 << 14) if kind == "VP8L" else b"\0\0\0\0" + b"\xfe\x3f\0" * 2
    path.write_bytes(b"RIFF\0\0\0\0WEBP" + kind.encode() + b"\0\0\0\0" + size + bytes(16))
    with pytest.raises(DataError, match="is 16383 x 16383"):
        image_files.check(path)
    if kind == "VP8L":
        cv2.imwrite(str(path), np.zeros((30, 48, 3), np.uint8), [cv2.IMWRITE_WEBP_QUALITY, 101])
        assert path.read_bytes()[12:16] == b"VP8L"
        assert image_files.read(path).shape == (30, 48, 3)


def test_a_jpeg_says_its_size_behind_whatever_stands_before_it(tmp_path):
    path = tmp_path / "a.jpg"
    content = written(path, 48, 30).replace(struct.pack(">2H", 30, 48), struct.pack(">2H", 20000, 30000))
    preview = b"\xff\xe1" + struct.pack(">H", 2 + 9) + b"\xff\xc0\0\x11\x08\0\1\0\1"
    path.write_bytes(content[:2] + preview + b"garbage\xff\xff\0" + content[2:])
    with pytest.raises(DataError, match="is 30000 x 20000"):
        image_files.check(path)


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from(
        [b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", b"BM", b"II*\0\x08\0\0\0", b"MM\0*", b"RIFF0000WEBPVP8L"]
    ),
    st.binary(max_size=80),
)
def test_any_image_is_of_some_size_or_refused(start, rest):
    with tempfile.NamedTemporaryFile() as file:
        file.write(start + rest)
        file.flush()
        with contextlib.suppress(DataError):
            image_files.check(Path(file.name))


LAUGHS = "".join(f'<!ENTITY l{i} "{f"&l{i - 1};" * 10}">' for i in range(1, 10))
MANY = "<object><name>ant</name></object>" * 10_001
HUGE_PNG = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + struct.pack(">2I", 30000, 20000)


def crowded(document) -> None:
    annotation = document["annotations"][0]
    document["annotations"] += [{**annotation, "bbox": [0, 0, 1 + i / 1000, 1]} for i in range(10_000)]


@pytest.mark.parametrize(
    ("write", "spoil", "words"),
    [
        (yolo, replaced(LABELS, "0 .5 .5 .5 .5\n" * 10_001), r"a\.txt: has 10001 labels, .* 10000 at most; cut it into tiles"),
        (
            yolo,
            replaced(LABELS, "#" * 4_000_001),
            r"a\.txt is 4000001 bytes long, and may be 4000000 at most; correct it or split",
        ),
        (voc, replaced("Annotations/a.xml", f"<annotation>{MANY}</annotation>"), r"a\.xml: has 10001 labels, "),
        (voc, replaced("Annotations/a.xml", "<!--" + "#" * 4_000_000), r"a\.xml is 4000004 bytes long, and may be 4000000"),
        (
            voc,
            replaced("Annotations/a.xml", f'<!DOCTYPE a [<!ENTITY l0 "ha">{LAUGHS}]><a>&l9;</a>'),
            r"a\.xml: declares entities, .*; write the annotation without them",
        ),
        (coco, edited(crowded), r"instances_train2017\.json image 0: has 1000\d labels"),
        (yolo, lambda root: (root / "images/train/a.png").write_bytes(HUGE_PNG), r"a\.png: is 30000 x 20000, .*; reduce it"),
    ],
    ids=["rows", "bytes", "objects", "xml bytes", "entities", "annotations", "pixels"],
)
def test_data_beyond_the_limits_is_one_line_and_check_goes_on(write, spoil, words, tmp_path):
    path = write(tmp_path)
    spoil(tmp_path)
    with pytest.raises(DataError, match=words):
        load(path)
    image = tmp_path / ("JPEGImages/b.png" if write is voc else f"images/train{'2017' * (write is coco)}/b.png")
    image.write_bytes(b"no image")
    faults = data.check(path)
    assert len(faults) == 2
    assert sum(bool(re.search(words, fault)) for fault in faults) == 1


def test_a_source_that_never_ends_is_not_waited_for(tmp_path):
    path = voc(tmp_path)
    (tmp_path / "Annotations" / "a.xml").unlink()
    (tmp_path / "Annotations" / "a.xml").symlink_to("/dev/zero")
    with pytest.raises(DataError, match=r"a\.xml is no regular file"):
        load(path)
