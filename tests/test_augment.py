"""What is done to an image, how strongly and how often: the tables of timm and torchvision."""

import collections
from functools import partial

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageEnhance, ImageOps

from kit.pipeline import augment
from tests.images import picture
from tests.networks import sections

FILL = (124, 117, 104)
PHOTO = np.asarray(picture(60, 80))
SMALL = np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8)
MEANS = (123.68, 116.779, 103.939)


def affine(matrix, fill):
    settings = {"resample": Image.Resampling.BILINEAR, "fillcolor": fill}
    return lambda photo: photo.transform(photo.size, Image.Transform.AFFINE, matrix, **settings)


def turned(degrees, fill):
    return lambda photo: photo.rotate(degrees, Image.Resampling.BILINEAR, fillcolor=fill)


def enhanced(name, factor):
    return lambda photo: getattr(ImageEnhance, name)(photo).enhance(factor)


def assert_like_pillow(operations, functions):
    """Equal but for a level here and there, as strengths are rounded to float32, and for seams."""
    assert len(operations) == len(functions)
    for (operation, *how), function in zip(operations, functions, strict=True):
        found = operation(tf.cast(PHOTO, tf.float32), *how).numpy()
        differences = np.abs(found - np.asarray(function(Image.fromarray(PHOTO))))
        geometric = operation.__name__.startswith(("rotate", "shear", "translate"))
        assert (differences > 1).mean() <= 0.035 * geometric, operation.__name__
        assert (differences > 0).mean() < 0.1, operation.__name__


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("magnitude", [0.0, 3.3, 7.0, 9.9])
def test_the_operations_of_rand_augment_are_timms(magnitude, sign):
    """_RAND_INCREASING_TRANSFORMS and LEVEL_TO_ARG of timm/data/auto_augment.py, 1.0.31."""
    level = magnitude / 10
    factor = max(0.1, 1 + sign * 0.9 * level)
    shear, shift = sign * 0.3 * level, sign * 0.45 * level
    add = [min(255, i + int(level * 110)) if i < 128 else i for i in range(256)]
    functions = [
        ImageOps.autocontrast,
        ImageOps.equalize,
        ImageOps.invert,
        turned(sign * 30 * level, FILL),
        lambda photo: ImageOps.posterize(photo, 4 - int(level * 4)),
        lambda photo: ImageOps.solarize(photo, 256 - int(level * 256)),
        lambda photo: photo.point(3 * add),
        *(enhanced(name, factor) for name in ("Color", "Contrast", "Brightness", "Sharpness")),
        affine((1, shear, 0, 0, 1, 0), FILL),
        affine((1, 0, 0, shear, 1, 0), FILL),
        affine((1, 0, shift * 80, 0, 1, 0), FILL),
        affine((1, 0, 0, 0, 1, shift * 60), FILL),
    ]
    level, sign = tf.constant(level, tf.float32), tf.constant(sign, tf.float32)
    assert_like_pillow(
        augment.rand_operations(level, sign, fill=FILL, shape=PHOTO.shape), functions
    )


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("number", [0, 7, 20, 30])
def test_the_operations_of_trivial_augment_are_torchvisions(number, sign):
    """TrivialAugmentWide._augmentation_space(31) of torchvision/transforms/autoaugment.py, 0.28."""
    wide = np.linspace(0, 0.99, 31)[number] * sign
    shift = int(np.linspace(0, 32, 31)[number]) * sign
    functions = [
        lambda photo: photo,
        affine((1, wide, 0, 0, 1, 0), 0),
        affine((1, 0, 0, wide, 1, 0), 0),
        affine((1, 0, shift, 0, 1, 0), 0),
        affine((1, 0, 0, 0, 1, shift), 0),
        turned(np.linspace(0, 135, 31)[number] * sign, 0),
        *(enhanced(name, 1 + wide) for name in ("Brightness", "Color", "Contrast", "Sharpness")),
        lambda photo: ImageOps.posterize(photo, 8 - int(np.round(np.arange(31) / 5)[number])),
        lambda photo: ImageOps.solarize(photo, np.linspace(255, 0, 31)[number]),
        ImageOps.autocontrast,
        ImageOps.equalize,
    ]
    level, sign = tf.constant(number / 30, tf.float32), tf.constant(sign, tf.float32)
    assert_like_pillow(augment.trivial_operations(level, sign), functions)


def augmented(image, seed, **changes):
    return augment.augmented(image, seed, sections(**changes).augmentation, fill=MEANS)


def many(image, count, change):
    """Give the image as so many seeds change it, by a function of an image and a seed."""
    changed = tf.data.Dataset.range(count).map(
        lambda seed: change(tf.constant(image), [3, seed]), tf.data.AUTOTUNE
    )
    return changed.batch(count).get_single_element().numpy()


def counted(images):
    return collections.Counter(image.tobytes() for image in images)


def assert_as_likely(found, chances):
    """Chi-square of the images found, those that are expected less than 5 times taken as one."""
    count = sum(found.values())
    assert not set(found) - set(chances)
    often = [name for name, chance in chances.items() if chance * count >= 5]
    pairs = [(found[name], chances[name] * count) for name in often]
    pairs.append((count - sum(seen for seen, _ in pairs), count - sum(due for _, due in pairs)))
    pairs = [(seen, due) for seen, due in pairs if due > 1e-6]
    square = sum((seen - due) ** 2 / due for seen, due in pairs)
    degrees = len(pairs) - 1
    assert square < degrees + 4 * np.sqrt(2 * degrees)  # four standard deviations


def outcomes(images, operations_of, levels, skipped):
    """Give the images that one more operation may make of the images, and how likely each is."""
    chances = collections.Counter()
    for pixels, chance in images.items():
        chances[pixels] += skipped * chance
        before = tf.reshape(tf.cast(tf.io.decode_raw(pixels, tf.uint8), tf.float32), SMALL.shape)
        for level in levels:
            for sign in (-1.0, 1.0):
                operations = operations_of(tf.constant(level), tf.constant(sign))
                for operation, *how in operations:
                    made = operation(before, *how).numpy().astype("uint8").tobytes()
                    part = len(levels) * 2 * len(operations)
                    chances[made] += (1 - skipped) * chance / part
    return chances


def test_trivial_augment_takes_each_operation_and_strength_as_often():
    levels = [np.float32(number) / np.float32(30) for number in range(31)]
    expected = outcomes({SMALL.tobytes(): 1.0}, augment.trivial_operations, levels, skipped=0.0)
    found = counted(many(SMALL, 4000, augment.trivial_augment))
    assert_as_likely(found, expected)


@pytest.mark.parametrize("layers", [1, 2])
def test_rand_augment_takes_each_operation_as_often_and_half_of_the_time(layers, monkeypatch):
    """A magnitude that is cut off at 10 leaves nothing but the operation and its sign to chance."""
    expected = {SMALL.tobytes(): 1.0}
    for _ in range(layers):
        expected = outcomes(
            expected,
            lambda level, sign: augment.rand_operations(level, sign, fill=FILL, shape=SMALL.shape),
            [1.0],
            skipped=0.5,
        )
    monkeypatch.setattr(augment, "LAYERS", layers)
    found = counted(many(SMALL, 4000, partial(augment.rand_augment, magnitude=1e3, fill=FILL)))
    assert_as_likely(found, expected)


def test_magnitudes_of_rand_augment_spread_by_a_half(monkeypatch):
    """Of black only solarize_add makes a grey, 11 to the magnitude, cut to whole levels."""
    monkeypatch.setattr(augment, "LAYERS", 1)
    black = np.zeros([3, 3, 3], np.uint8)
    change = partial(augment.rand_augment, magnitude=5.0, fill=FILL)
    centres = many(black, 12000, change)[:, 1, 1, 0]
    greys = centres[(centres > 0) & (centres < 255)] + 0.5
    assert len(greys) == pytest.approx(400, abs=4 * np.sqrt(400))
    assert greys.mean() == pytest.approx(55, abs=4 * 5.5 / np.sqrt(400))
    assert greys.std() == pytest.approx(5.5, rel=0.15)


@pytest.mark.parametrize("name", ["rand_augment", "trivial_augment"])
def test_the_same_seed_changes_an_image_alike(name):
    def change(seed):
        settings = {"augmentation": name, "random_erasing": 0.5}
        return augmented(tf.constant(PHOTO), seed, **settings).numpy()

    assert change([1, 2]).dtype == "uint8"
    found = {change([first, second]).tobytes() for first in (1, 2) for second in range(8)}
    assert found == {change([first, second]).tobytes() for first in (1, 2) for second in range(8)}
    assert len(found) > 8


def test_nothing_switched_on_changes_nothing():
    np.testing.assert_array_equal(augmented(PHOTO, [0, 1]), PHOTO)


def erasures(count, share):
    """Give the rectangles (height, width, top, left) of black images that were painted over."""
    change = partial(augmented, random_erasing=share)
    images = many(np.zeros([40, 50, 3], np.uint8), count, change)
    found = []
    for painted in images[images.any(axis=(1, 2, 3))]:
        rows, columns = (np.flatnonzero(painted.any(axis=axis)) for axis in ((1, 2), (0, 2)))
        height, width = len(rows), len(columns)
        inside = painted[rows[0] :, columns[0] :][:height, :width]
        np.testing.assert_array_equal(inside, np.broadcast_to(FILL, [height, width, 3]))
        assert np.count_nonzero(painted) == 3 * height * width
        found.append([height, width, rows[0], columns[0]])
    return np.array(found)


def test_erasing_paints_a_rectangle_of_torchvisions_sizes_anywhere():
    """Zhong et al.: area uniform in 2 to 33 %, log of the aspect ratio uniform up to 3.3.

    The tries that a NumPy simulation of RandomErasing.get_params rejects are rejected here too.
    """
    found = erasures(3000, 0.5)
    assert len(found) == pytest.approx(1500, abs=4 * np.sqrt(750))
    expected = simulated(20000)
    for column in range(4):
        ours, theirs = found[:, column], expected[:, column]
        tolerance = 4 * theirs.std() / np.sqrt(len(ours))
        assert ours.mean() == pytest.approx(theirs.mean(), abs=tolerance)
        assert ours.std() == pytest.approx(theirs.std(), rel=0.08)
        assert ours.min() == pytest.approx(theirs.min(), abs=2)
        assert ours.max() == pytest.approx(theirs.max(), abs=2)


def test_what_is_erased_does_not_depend_on_how_seldom_it_is():
    """Whether, and what, are drawn apart: else a small share would leave small rectangles."""
    found, expected = erasures(4000, 0.1), simulated(20000)
    assert len(found) == pytest.approx(400, abs=4 * np.sqrt(360))
    ours, theirs = found.mean(axis=0), expected.mean(axis=0)
    assert (np.abs(ours - theirs) < 4 * expected.std(axis=0) / np.sqrt(len(found))).all()


def simulated(count):
    """Draw rectangles as torchvision's RandomErasing.get_params does, for 40 x 50 pixels."""
    rng = np.random.default_rng(1)
    found = []
    while len(found) < count:
        area = 40 * 50 * rng.uniform(0.02, 0.33)
        aspect = np.exp(rng.uniform(np.log(0.3), np.log(3.3)))
        height, width = round(np.sqrt(area * aspect)), round(np.sqrt(area / aspect))
        if height < 40 and width < 50:
            top, left = rng.integers(0, 40 - height + 1), rng.integers(0, 50 - width + 1)
            found.append([height, width, top, left])
    return np.array(found)
