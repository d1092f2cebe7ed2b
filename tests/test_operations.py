"""Each operation beside Pillow's own, on photographs and on what is hard for it."""

import math

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageEnhance, ImageOps

from kit.pipeline import operations
from tests.images import picture

RNG = np.random.default_rng(0)
IMAGES = {
    "smooth": np.asarray(picture(64, 97)),
    "noise": RNG.integers(0, 256, (33, 47, 3), np.uint8),
    "dull": RNG.integers(100, 140, (40, 50, 3), np.uint8),
    "flat": np.full([20, 20, 3], 77, np.uint8),
    "few levels": RNG.choice(np.uint8([3, 90, 91, 250]), (29, 43, 3)),
}
FILL = (124, 117, 104)
each = pytest.mark.parametrize("image", IMAGES.values(), ids=IMAGES.keys())


def ours(operation, image, *how):
    return operation(tf.cast(image, tf.float32), *how).numpy()


def theirs(function, image, *how):
    return np.asarray(function(Image.fromarray(image), *how))


@each
@pytest.mark.parametrize(
    "operation, function",
    [
        (operations.invert, ImageOps.invert),
        (operations.auto_contrast, ImageOps.autocontrast),
        (operations.equalize, ImageOps.equalize),
    ],
)
def test_operations_without_a_strength_are_pillows(operation, function, image):
    np.testing.assert_array_equal(ours(operation, image), theirs(function, image))


@each
def test_solarize_and_posterize_are_pillows(image):
    for threshold in (0, 1, 77, 76.5, 128, 255, 256):
        expected = theirs(ImageOps.solarize, image, threshold)
        np.testing.assert_array_equal(ours(operations.solarize, image, threshold), expected)
    for bits in range(1, 9):
        expected = theirs(ImageOps.posterize, image, bits)
        np.testing.assert_array_equal(ours(operations.posterize, image, bits), expected)


@each
@pytest.mark.parametrize("amount", [0, 1, 77, 110])
def test_solarize_add_is_timms_table(amount, image):
    table = [min(255, level + amount) if level < 128 else level for level in range(256)]
    expected = np.asarray(Image.fromarray(image).point(3 * table))
    np.testing.assert_array_equal(ours(operations.solarize_add, image, amount), expected)


@each
@pytest.mark.parametrize("name", ["Brightness", "Color", "Contrast", "Sharpness"])
def test_enhancements_are_pillows(name, image):
    operation = operations.colour if name == "Color" else getattr(operations, name.lower())
    for factor in (0.01, 0.1, 0.37, 0.99, 1.0, 1.3, 1.63, 1.99):
        expected = np.asarray(getattr(ImageEnhance, name)(Image.fromarray(image)).enhance(factor))
        np.testing.assert_array_equal(ours(operation, image, factor), expected)


@each
@pytest.mark.parametrize("degrees", [-135, -30, -7.3, 0, 1, 15, 90, 123.4])
def test_rotate_is_pillows_but_for_the_edge(degrees, image):
    found = ours(operations.rotate, image, degrees, FILL)
    photo = Image.fromarray(image)
    expected = np.asarray(photo.rotate(degrees, Image.Resampling.BILINEAR, fillcolor=FILL))
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    y, x = np.subtract(photo.size[::-1], 1) / 2
    matrix = cos, -sin, x - cos * x + sin * y, sin, cos, y - sin * x - cos * y
    assert_same_off_the_edge(found, expected, source_of(image, matrix))


@each
@pytest.mark.parametrize("strength", [-0.99, -0.3, 0.11, 0.99])
def test_shears_are_pillows_but_for_the_edge(strength, image):
    assert_affine(operations.shear_x, image, strength, (1, strength, 0, 0, 1, 0))
    assert_affine(operations.shear_y, image, strength, (1, 0, 0, strength, 1, 0))


@each
@pytest.mark.parametrize("strength", [-13, -4.4, 0, 0.3, 7, 11.9])
def test_translations_are_pillows_but_for_the_edge(strength, image):
    assert_affine(operations.translate_x, image, strength, (1, 0, strength, 0, 1, 0))
    assert_affine(operations.translate_y, image, strength, (1, 0, 0, 0, 1, strength))


def assert_affine(operation, image, strength, matrix):
    """As timm calls Pillow: out(x, y) is in(a x + b y + c, d x + e y + f), centres at halves."""
    photo = Image.fromarray(image)
    settings = {"resample": Image.Resampling.BILINEAR, "fillcolor": FILL}
    expected = photo.transform(photo.size, Image.Transform.AFFINE, matrix, **settings)
    a, b, c, d, e, f = matrix
    centred = a, b, c + (a + b - 1) / 2, d, e, f + (d + e - 1) / 2
    found = ours(operation, image, strength, FILL)
    assert_same_off_the_edge(found, np.asarray(expected), source_of(image, centred))


def source_of(image, matrix):
    """Give the place (y, x) in the image that each pixel comes from, its centres at integers."""
    a, b, c, d, e, f = matrix
    y, x = np.mgrid[: image.shape[0], : image.shape[1]]
    return d * x + e * y + f, a * x + b * y + c


def assert_same_off_the_edge(found, expected, source):
    """Equal to one level, where float32 is cut otherwise than float64, and mostly to the bit."""
    seam = np.zeros(found.shape[:2], bool)
    for place, size in zip(source, found.shape, strict=False):
        for edge in (-0.5, size - 0.5):
            seam |= np.abs(place - edge) < 0.5 - 1e-4
    differences = np.abs(found - expected)[~seam]
    assert differences.max(initial=0) <= 1
    assert (differences > 0).mean() < 0.1
    assert seam.mean() < 0.15


def test_the_edge_is_blended_with_the_fill():
    image = np.full([4, 4, 3], 200, np.uint8)
    found = ours(operations.translate_x, image, 0.25, (0, 100, 255))
    np.testing.assert_array_equal(found[:, :3], 200)
    np.testing.assert_array_equal(found[:, 3], [[150, 175, 213]] * 4)  # 3/4 of 200, 1/4 of fill
