"""Pascal VOC: Annotations/*.xml, JPEGImages/, and ImageSets/Main/{train,val}.txt (VOC 2007 development kit)."""

from __future__ import annotations

from pathlib import Path

# Safe for what strangers wrote: expat fetches nothing from outside, and a text that declares entities is not given to it.
from xml.etree import ElementTree

from detector import image_files
from detector.dataset import LARGEST_LABELS, Dataset, Reading, Rows, Sample, assemble, check_count
from detector.errors import DataError
from detector.formats.labels import IMAGE_SUFFIXES


def read(path: Path, reading: Reading | None = None, names: tuple[str, ...] = ()) -> Dataset:
    """Reads a VOC folder; classes are those of the annotations in sorted order unless ``names`` gives them.

    Corners are taken as they stand, in pixels; boxes are clipped to the image, and those without area are left out and counted.

    Raises:
        DataError: one line that names the file, the object and the remedy.
    """
    reading = reading or Reading()
    splits = {}
    for split in ("train", "val"):
        listing = path / "ImageSets" / "Main" / f"{split}.txt"
        splits[split] = [line.split()[0] for line in reading.text(listing, path).splitlines() if line.strip()]
        if not splits[split]:
            raise DataError(f"{listing}: lists no image; write one file name without suffix a line")
    parsed = {}
    for stem in (stem for split in splits.values() for stem in split):
        try:
            parsed[stem] = _parse(path / "Annotations" / f"{stem}.xml", reading)
        except DataError as error:
            reading.fault(error)
    if not names:
        names = tuple(sorted({name for root in parsed.values() for name in _class_names(root)}))
    if not names:
        raise DataError(f"{path / 'Annotations'}: no annotation holds an object; at least one label is needed")
    index = {name: i for i, name in enumerate(names)}
    files = {p.stem: p for p in sorted((path / "JPEGImages").iterdir()) if p.suffix.lower() in IMAGE_SUFFIXES}
    samples = {}
    for split, stems in splits.items():
        samples[split] = []
        for stem in dict.fromkeys(stems):
            if stem not in files:
                listing = path / "ImageSets" / "Main" / f"{split}.txt"
                words = f"{listing}: image {stem} is not in JPEGImages; restore it or remove it from the list"
                reading.fault(DataError(words))
            elif stem in parsed:
                source = path / "Annotations" / f"{stem}.xml"
                try:
                    samples[split].append(_sample(files[stem], source, parsed[stem], index, reading))
                except DataError as error:
                    reading.fault(error)
    return assemble(path, names, samples["train"], samples["val"], reading)


def _parse(path: Path, reading: Reading) -> ElementTree.Element:
    text = reading.text(path, most=LARGEST_LABELS)
    if "<!ENTITY" in text:
        raise DataError(f"{path}: declares entities, which can grow to any size; write the annotation without them")
    try:
        root = ElementTree.fromstring(text)  # noqa: S314 - see the import
    except ElementTree.ParseError as error:
        raise DataError(f"{path} line {error.position[0]}: is no well-formed XML; correct the annotation") from None
    check_count(str(path), sum(1 for _ in root.iter("object")))
    return root


def _class_names(root: ElementTree.Element) -> list[str]:
    return [(item.findtext("name") or "").strip() for item in root.iter("object") if item.findtext("name")]


def _sample(image: Path, source: Path, root: ElementTree.Element, index: dict[str, int], reading: Reading) -> Sample:
    width, height = _size(image, root)
    rows = Rows(reading)
    for number, item in enumerate(root.iter("object"), 1):
        where = f"{source} object {number}"
        try:
            label_class, (x1, y1, x2, y2) = _object(item, where, index)
        except DataError as error:
            reading.fault(error)
        else:
            rows.add(label_class, x1 / width, y1 / height, x2 / width, y2 / height, where)
    return rows.sample(image)


def _object(item: ElementTree.Element, where: str, index: dict[str, int]) -> tuple[int, list[float]]:
    """Class and corners in pixels; ``where`` names the object in an error."""
    name = (item.findtext("name") or "").strip()
    if name not in index:
        raise DataError(f"{where}: class '{name}' is not among {', '.join(index)}; correct the name")
    corners = []
    for key in ("xmin", "ymin", "xmax", "ymax"):
        text = item.findtext(f"bndbox/{key}")
        try:
            corners.append(float(text or ""))
        except ValueError:
            raise DataError(f"{where} key {key}: is {text!r}, no number of pixels; correct the box") from None
    if not all(-1e6 < c < 1e6 for c in corners):
        raise DataError(f"{where}: box {corners} is not finite; correct the box")
    return index[name], corners


def _size(image: Path, root: ElementTree.Element) -> tuple[float, float]:
    """Width and height from the annotation; from the image itself where the annotation leaves them out or says 0."""
    try:
        width, height = float(root.findtext("size/width") or 0), float(root.findtext("size/height") or 0)
    except ValueError:
        width = height = 0.0
    if width > 0 and height > 0:
        return width, height
    pixels = image_files.read(image)
    return float(pixels.shape[1]), float(pixels.shape[0])
