"""Augmentation by its geometry: what is drawn in an image is where the labels say after any transformation."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch

from detector.augment import FILL, canvas, coloured, letterbox, render
from detector.batches import scaled, training_batches, validation_batches
from detector.cache import OUTLINE_POINTS, Picture
from detector.objects import Objects
from detector.samples import Layer, Sample, draw, random_matrix
from evolution.hyperparameters import Hyperparameters

STILL = replace(
    Hyperparameters(), hsv_h=0, hsv_s=0, hsv_v=0, translate=0, scale=0, degrees=0, shear=0, fliplr=0, flipud=0, mosaic=0
)
SIDE = 96


def picture(rng, height=SIDE, width=SIDE, objects=1, outlined=False):
    """White rectangles on grey, far from each other."""
    pixels = np.full((height, width, 3), FILL, np.uint8)
    rows, outlines = [], []
    for k in range(objects):
        w, h = rng.integers(12, 24, 2)
        x, y = rng.integers(0, width - w), rng.integers(k * height // objects, (k + 1) * height // objects - h + 1)
        pixels[y : y + h, x : x + w] = 255
        rows.append((k, (x + w / 2) / width, (y + h / 2) / height, w / width, h / height))
        corners = np.array([(x, y), (x + w, y), (x + w, y + h), (x, y + h)], np.float32) / (width, height)
        outlines.append(np.repeat(corners, OUTLINE_POINTS // 4, 0))
    shape = (0, OUTLINE_POINTS, 2)
    return Picture(
        pixels, (height, width), np.array(rows, np.float32), np.array(outlines, np.float32) if outlined else np.empty(shape)
    )


def sample(index, pictures, hyp, rng):
    """Pixels and objects of one training sample of SIDE x SIDE."""
    return render(draw(index, pictures, hyp, (SIDE, SIDE), rng), pictures)


def bounds(image, level=200):
    rows, columns = np.nonzero(image.max(2) >= level)
    return np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1], float)


@pytest.mark.parametrize(
    "genes",
    [
        {"degrees": 45.0},
        {"shear": 10.0},
        {"scale": 0.5},
        {"translate": 0.2},
        {"perspective": 0.001},
        {"degrees": 30.0, "shear": 8.0, "scale": 0.4, "translate": 0.1, "perspective": 0.0005},
        {"flipud": 1.0},
        {"fliplr": 1.0},
        {"flipud": 0.5, "fliplr": 0.5, "degrees": 20.0},
    ],
)
def test_a_warped_box_encloses_the_warped_pixels(genes):
    rng = np.random.default_rng(0)
    seen = 0
    for _ in range(40):
        image, objects = sample(0, [picture(rng)], replace(STILL, **genes), rng)
        if not len(objects.boxes):
            continue
        seen += 1
        (x1, y1, x2, y2), box = bounds(image, 250), objects.boxes[0]
        assert x1 >= box[0] - 1.5
        assert y1 >= box[1] - 1.5
        assert x2 <= box[2] + 1.5
        assert y2 <= box[3] + 1.5
    assert seen > 25


def test_without_rotation_the_box_fits_tightly():
    rng = np.random.default_rng(1)
    for _ in range(20):
        image, objects = sample(0, [picture(rng)], replace(STILL, scale=0.3), rng)
        np.testing.assert_allclose(objects.boxes[0], bounds(image), atol=1.6)


def test_genes_at_zero_change_nothing():
    rng = np.random.default_rng(2)
    source = picture(rng, objects=2)
    image, objects = sample(0, [source], STILL, rng)
    np.testing.assert_array_equal(image, source.pixels)
    np.testing.assert_allclose(objects.boxes, Objects.of(source.labels, source.outlines, SIDE, SIDE).boxes)


def test_flips_mirror_exactly():
    rng = np.random.default_rng(3)
    source = picture(rng)
    for gene, flip in (("fliplr", np.fliplr), ("flipud", np.flipud)):
        image, objects = sample(0, [source], replace(STILL, **{gene: 1.0}), rng)
        np.testing.assert_array_equal(image, flip(source.pixels))
        np.testing.assert_allclose(objects.boxes[0], bounds(image), atol=1e-3)


def test_mosaic_shows_four_pictures_where_the_labels_say():
    rng = np.random.default_rng(4)
    pictures = [picture(rng, height, width) for height, width in ((96, 72), (60, 96), (96, 96), (48, 96))]
    counts = []
    for index in range(60):
        image, objects = sample(index % 4, pictures, replace(STILL, mosaic=1.0), rng)
        assert image.shape == (SIDE, SIDE, 3)
        counts.append(len(objects.boxes))
        painted = np.zeros((SIDE, SIDE), bool)
        for x1, y1, x2, y2 in objects.boxes.round().astype(int):
            painted[y1:y2, x1:x2] = True
            assert (image[y1:y2, x1:x2] == 255).mean() > 0.9
        assert ((image.max(2) == 255) & ~painted).sum() < 4 * 2 * 24  # slivers that the candidate filter drops
    assert max(counts) > 1


def test_candidate_filter_drops_slivers():
    objects = Objects(
        np.zeros(3), np.array([[10.0, 10, 30, 30], [-19, 10, 1, 30], [-12, 40, 8, 60]], np.float32), np.empty((0, 9, 2))
    )
    kept = objects.warped(np.eye(3), 100, 100, 1.0)
    np.testing.assert_allclose(kept.boxes, [[10, 10, 30, 30], [0, 40, 8, 60]])


def test_outline_gives_a_tighter_box_than_corners():
    square = np.array([[20.0, 20, 60, 60]], np.float32)
    angle = np.linspace(0, 2 * np.pi, OUTLINE_POINTS)
    circle = np.stack((40 + 20 * np.cos(angle), 40 + 20 * np.sin(angle)), 1)[None].astype(np.float32)
    rng = np.random.default_rng(0)
    matrix, zoom = random_matrix((80, 80), replace(STILL, degrees=45.0), (80, 80), rng)
    plain = Objects(np.zeros(1), square, circle[:0]).warped(matrix, 80, 80, zoom).boxes[0]
    tight = Objects(np.zeros(1), square, circle).warped(matrix, 80, 80, zoom).boxes[0]
    np.testing.assert_allclose(tight, [20, 20, 60, 60], atol=0.2)
    assert plain[2] - plain[0] > 41


def test_copy_paste_mirrors_outlined_objects():
    rng = np.random.default_rng(6)
    added = []
    for fraction in (0.0, *[1.0] * 40):
        pictures = [picture(rng, outlined=True) for _ in range(4)]
        (layer,) = draw(0, pictures, replace(STILL, mosaic=1.0, copy_paste=fraction), (SIDE, SIDE), rng).layers
        (plain, objects), (image, more) = canvas(layer._replace(pasted=()), pictures), canvas(layer, pictures)
        added.append(len(more.boxes) - len(objects.boxes))
        assert added[-1] == len(layer.pasted)
        for x1, y1, x2, y2 in more.boxes[len(objects.boxes) :].round().astype(int):
            # Where an object was pasted the canvas is its own mirror image, and the object hides little of any other.
            np.testing.assert_array_equal(image[y1:y2, x1:x2], np.fliplr(plain)[y1:y2, x1:x2])
            for box in objects.boxes:
                common = np.clip(np.minimum(box[2:], (x2, y2)) - np.maximum(box[:2], (x1, y1)), 0, None).prod()
                assert common < 0.31 * (box[2:] - box[:2]).prod() + 2
    assert added[0] == 0
    assert len(set(added[1:])) > 2  # an object near the middle would cover itself


def test_mixup_blends_and_keeps_all_labels():
    rng = np.random.default_rng(7)
    pictures = [picture(rng), picture(rng, objects=2)]
    layers = tuple(Layer((k,), ((0, 0),), (0, 0), (SIDE, SIDE), np.eye(3), 1.0) for k in (0, 1))
    image, objects = render(Sample((SIDE, SIDE), layers, 0.6, None, False, False), pictures)
    assert len(objects.boxes) == 3
    expected = 0.6 * pictures[0].pixels + 0.4 * pictures[1].pixels
    np.testing.assert_allclose(image, expected, atol=0.51)


def test_colour_gains_move_one_channel_each():
    image = np.full((8, 8, 3), (40, 120, 200), np.uint8)
    for place, gain in enumerate((1.4, 0.7, 0.8)):
        gains = np.ones(3)
        gains[place] = gain
        before, after = (cv2.cvtColor(i, cv2.COLOR_BGR2HSV)[0, 0].astype(int) for i in (image, coloured(image, gains)))
        assert after[place] == pytest.approx(before[place] * gain, abs=2)
        assert np.abs(np.delete(after - before, place)).max() <= 2


def test_letterbox_centres_and_keeps_aspect():
    source = picture(np.random.default_rng(9), 48, 96)
    image, objects, corner = letterbox(source, (96, 96))
    assert corner == (0, 24)
    assert (image[:24] == FILL).all()
    np.testing.assert_array_equal(image[24:72], source.pixels)
    np.testing.assert_allclose(objects.boxes[0], bounds(image), atol=1e-3)


def test_a_sample_that_nothing_moves_is_its_picture():
    source = picture(np.random.default_rng(10))
    image, _ = sample(0, [source], STILL, np.random.default_rng(0))
    assert image is source.pixels


def test_the_statistics_of_draws_are_those_of_the_genes():
    rng = np.random.default_rng(14)
    pictures = [picture(rng) for _ in range(5)]
    genes = {"mosaic": 0.7, "mixup": 0.3, "flipud": 0.2, "fliplr": 0.6, "hsv_h": 0.1, "hsv_s": 0.5, "hsv_v": 0.3}
    samples = [draw(2, pictures, replace(STILL, **genes), (SIDE, SIDE), rng) for _ in range(3000)]

    def share(values, expected):
        values = list(values)
        assert np.mean(values) == pytest.approx(expected, abs=4 * np.sqrt(expected * (1 - expected) / len(values)))

    mosaics = [s for s in samples if len(s.layers[0].members) == 4]
    share((len(s.layers[0].members) == 4 for s in samples), 0.7)
    share((len(s.layers) == 2 for s in mosaics), 0.3)
    assert all(len(s.layers) == 1 for s in samples if len(s.layers[0].members) == 1)
    share((s.flipud for s in samples), 0.2)
    share((s.fliplr for s in samples), 0.6)
    gains = np.array([s.gains for s in samples]) - 1
    limits = np.array((0.1, 0.5, 0.3))
    assert (np.abs(gains) <= limits).all()
    np.testing.assert_allclose(gains.std(0), limits / np.sqrt(3), rtol=0.05)
    np.testing.assert_allclose(gains.mean(0) / limits, 0, atol=4 / np.sqrt(3 * 3000))
    # The sample's own picture is in each first mosaic, in any of the four places; the others are uniform.
    places = np.array([[m == 2 for m in s.layers[0].members] for s in mosaics])
    assert places.any(1).all()
    np.testing.assert_allclose(places.mean(0), (1 + 3 / 5) / 4, atol=0.04)
    splits = np.array([s.layers[0].split for s in mosaics])
    assert splits.min() >= SIDE // 2
    assert splits.max() < 3 * SIDE // 2
    np.testing.assert_allclose(splits.mean(0), SIDE, atol=3)
    ratios = np.array([s.ratio for s in samples if len(s.layers) == 2])
    assert ratios.mean() == pytest.approx(0.5, abs=0.01)
    assert ratios.std() == pytest.approx(0.5 / np.sqrt(65), rel=0.15)  # Beta(32, 32)


def test_the_statistics_of_warps_are_those_of_the_genes():
    rng = np.random.default_rng(15)
    hyp = replace(STILL, degrees=30.0, scale=0.4, translate=0.2, shear=8.0, perspective=0.0005)
    middle, zooms, thirds = [], [], []
    for _ in range(3000):
        matrix, zoom = random_matrix((200, 200), replace(hyp, shear=0.0), (100, 100), rng)
        point = matrix @ (100, 100, 1)  # the centre, which only translation moves
        middle.append(point[:2] / point[2] / 100 - 0.5)
        zooms.append(zoom)
        thirds.append(matrix[2, :2])
    middle, zooms, thirds = np.array(middle), np.array(zooms), np.array(thirds)
    assert np.abs(middle).max() <= 0.2 + 1e-9
    np.testing.assert_allclose(middle.std(0), 0.2 / np.sqrt(3), rtol=0.05)
    assert zooms.min() >= 0.6
    assert zooms.max() <= 1.4
    assert zooms.std() == pytest.approx(0.4 / np.sqrt(3), rel=0.05)
    np.testing.assert_allclose(thirds.std(0), 0.0005 / np.sqrt(3), rtol=0.05)
    angles, shears = [], []
    for _ in range(3000):
        matrix, zoom = random_matrix((100, 100), replace(STILL, degrees=30.0), (100, 100), rng)
        angles.append(np.rad2deg(np.arctan2(matrix[0, 1], matrix[0, 0])))
        np.testing.assert_allclose(np.linalg.det(matrix[:2, :2]), zoom**2)
        matrix, _ = random_matrix((100, 100), replace(STILL, shear=8.0), (100, 100), rng)
        shears.append(np.rad2deg(np.arctan((matrix[0, 1], matrix[1, 0]))))
    for values, limit in ((np.array(angles), 30), (np.array(shears), 8)):
        assert np.abs(values).max() <= limit + 1e-9
        np.testing.assert_allclose(values.std(0), limit / np.sqrt(3), rtol=0.05)


def test_a_sample_depends_on_seed_epoch_and_place_alone():
    rng = np.random.default_rng(11)
    pictures = [picture(rng) for _ in range(10)]
    hyp = Hyperparameters()

    def epoch(seed, number):
        return list(training_batches(pictures, hyp, SIDE, 4, False, seed, number))

    again = epoch(0, 3)
    for a, b in zip(epoch(0, 3), again, strict=True):
        assert (a.images == b.images).all()
        assert (a.targets == b.targets).all()
    assert not (epoch(0, 4)[0].images == again[0].images).all()
    assert not (epoch(1, 3)[0].images == again[0].images).all()


def test_every_batch_is_full_and_the_epoch_shows_every_picture():
    rng = np.random.default_rng(12)
    pictures = [picture(rng) for _ in range(10)]
    batches = list(training_batches(pictures, STILL, SIDE, 4, False, 0, 0))
    assert [len(b.images) for b in batches] == [4, 4, 4]
    assert batches[0].images.is_contiguous(memory_format=torch.channels_last)
    flat = {b.numpy().tobytes() for batch in batches for b in batch.images}
    assert len(flat) == 10


def test_a_batch_of_another_scale_shows_the_same_objects():
    corners = torch.zeros(1, 3, 96, 128)
    corners[..., 24:48, 32:64] = 1.0
    sides = []
    for number in range(200):
        image = scaled(corners, 3, 1, number)
        height, width = image.shape[2:]
        assert height % 32 == width % 32 == 0
        rows, columns = (image[0, 0] > 0.5).nonzero(as_tuple=True)
        x1, x2 = columns.min() / width, (columns.max() + 1) / width
        y1, y2 = rows.min() / height, (rows.max() + 1) / height
        np.testing.assert_allclose((x1, y1, x2, y2), (0.25, 0.25, 0.5, 0.5), atol=0.02)
        sides.append(width)
    assert set(sides) == {64, 96, 128, 160, 192}
    assert np.mean(sides) == pytest.approx(128, abs=8)
    assert torch.equal(scaled(corners, 3, 1, 7), scaled(corners, 3, 1, 7))


def test_rectangular_batches_waste_little():
    rng = np.random.default_rng(13)
    wide, high = [picture(rng, 40, 96) for _ in range(4)], [picture(rng, 96, 60) for _ in range(4)]
    shapes = {b.images.shape[2:] for b in training_batches([*wide, *high], STILL, SIDE, 4, True, 0, 0)}
    assert shapes == {(64, 96), (96, 64)}
    for item in validation_batches([*wide, *high], 4):
        assert item.batch.images.shape[2:] in shapes
        for k, (x, y, w, h) in enumerate(item.places):
            crop = item.batch.images[k, :, y : y + h, x : x + w].permute(1, 2, 0).flip(2)
            np.testing.assert_array_equal(crop, [*wide, *high][item.indices[k]].pixels)
