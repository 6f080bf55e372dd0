"""Decoded images shared by the processes of a node: built once by real processes, whatever kills them in between."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from detector import cache, decoded, digits
from detector.cache import load_cached

ROOT = Path(__file__).resolve().parents[2]
COUNTS = {"train": 6, "val": 3}

# Loads the data set, says how many images it decoded itself, and a sum over the pixels. With a second argument above 0 it halts
# for good at that image, after saying so.
CHILD = """
import sys, time
from detector import image_files
from detector.cache import load_cached
real, seen, halt = image_files.read, [], int(sys.argv[2])
def read(path):
    seen.append(path)
    if len(seen) == halt:
        print("halted", flush=True)
        time.sleep(600)
    return real(path)
image_files.read = read
pictures = load_cached(sys.argv[1], 64)
print(len(seen), sum(int(p.pixels.sum()) for p in (*pictures.train, *pictures.val)), flush=True)
"""


@pytest.fixture
def data(tmp_path, monkeypatch):
    monkeypatch.setattr(cache, "_CACHE", {})
    monkeypatch.setenv("HYPEVOLVE_CACHE", str(tmp_path / "cache"))
    return str(digits.write(tmp_path / "digits", counts=COUNTS))


def child(data, halt=0):
    return subprocess.Popen(
        [sys.executable, "-c", CHILD, data, str(halt)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
    )


def files(data):
    return sorted(p.suffix for p in (Path(data).parent.parent / "cache").iterdir())


def test_two_processes_build_one_file(data):
    both = [child(data), child(data)]
    said = [one.communicate(timeout=120)[0].split() for one in both]
    assert sorted(int(count) for count, _ in said) == [0, 9]
    assert said[0][1] == said[1][1]
    assert files(data) == [".lock", ".pixels"]
    pictures = load_cached(data, 64)
    assert sum(int(p.pixels.sum()) for p in (*pictures.train, *pictures.val)) == int(said[0][1])


def test_a_builder_killed_half_way_leaves_nothing_that_is_used(data):
    first = child(data, halt=5)
    assert first.stdout.readline() == "halted\n"
    second = child(data)  # waits for the first one's lock
    with pytest.raises(subprocess.TimeoutExpired):
        second.wait(timeout=0.2)
    assert files(data) == [".lock", ".partial"]
    first.send_signal(signal.SIGKILL)
    first.wait()
    assert second.communicate(timeout=120)[0].split()[0] == "9"
    assert files(data) == [".lock", ".pixels"]


def test_mapped_pixels_are_those_of_the_files(data):
    load_cached(data, 64)
    cache._CACHE.clear()
    mapped = load_cached(data, 64)
    samples = (*mapped.dataset.train, *mapped.dataset.val)
    for sample, picture in zip(samples, (*mapped.train, *mapped.val), strict=True):
        pixels = cv2.resize(cv2.imread(str(sample.image)), (64, 64), interpolation=cv2.INTER_AREA)
        np.testing.assert_array_equal(picture.pixels, pixels)
        with pytest.raises(ValueError, match="read-only"):
            picture.pixels[0] = 0


@pytest.mark.parametrize("damage", [lambda b: b[:-1], lambda b: b[: len(b) // 2], lambda b: b"", lambda b: b"\0" * len(b)])
def test_a_file_that_is_not_whole_is_built_anew(data, damage):
    before = load_cached(data, 64).train[0].pixels.copy()
    cache._CACHE.clear()
    (path,) = (Path(data).parent.parent / "cache").glob("*.pixels")
    content = path.read_bytes()
    path.unlink()  # a process may have the old one mapped
    path.write_bytes(damage(content))
    np.testing.assert_array_equal(load_cached(data, 64).train[0].pixels, before)
    assert path.read_bytes() == content


def test_a_changed_image_is_another_file(data):
    load_cached(data, 64)
    (image, *_) = sorted((Path(data).parent / "images" / "train").iterdir())
    cv2.imwrite(str(image), np.zeros((128, 128, 3), np.uint8))
    assert load_cached(data, 64).train[0].pixels.max() == 0


def test_a_folder_that_cannot_be_used_costs_only_memory(data, tmp_path, monkeypatch, caplog):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("HYPEVOLVE_CACHE", str(tmp_path / "file" / "cache"))
    assert load_cached(data, 64).train[0].pixels.shape == (64, 64, 3)
    assert "set HYPEVOLVE_CACHE to a folder that can be written" in caplog.text
    cache._CACHE.clear()
    monkeypatch.setenv("HYPEVOLVE_CACHE", str(tmp_path / "full"))
    monkeypatch.setattr(decoded, "LEAST_FREE_BYTES", 1 << 60)
    assert load_cached(data, 64).train[0].pixels.shape == (64, 64, 3)
    assert not list((tmp_path / "full").glob("*.p*"))


def test_files_that_nobody_opened_for_a_month_are_removed(data):
    load_cached(data, 64)
    (old,) = (Path(data).parent.parent / "cache").glob("*.pixels")
    os.utime(old, (0, 0))
    load_cached(data, 32)
    assert not old.exists()
    assert files(data) == [".lock", ".lock", ".pixels"]
