import functools
import io
import math
from dataclasses import replace

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from kit.pipeline import evaluation_crop, preprocessing
from tests.networks import sections

CROP = sections().crop
NO_BOX = tf.zeros([0, 4])


def photograph(height, width, seed=0):
    """Smooth colours with some noise, uint8."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    planes = [np.sin(y / (9 + c) + c) + np.cos(x / (11 + c)) for c in range(3)]
    image = 60 * np.stack(planes, axis=-1) + 128 + rng.normal(0, 4, (height, width, 3))
    return np.clip(image, 0, 255).astype("uint8")


def jpeg(height=120, width=160, seed=0):
    return tf.io.encode_jpeg(photograph(height, width, seed), quality=95)


def bilinear(image, height, width):
    """Resize by the definition: pixel centres at half integers, edges repeated."""

    def weights(new, old):
        centres = np.clip((np.arange(new) + 0.5) * old / new - 0.5, 0, old - 1)
        low = np.floor(centres).astype(int)
        return low, np.minimum(low + 1, old - 1), centres - low

    top, bottom, v = weights(height, image.shape[0])
    left, right, h = weights(width, image.shape[1])
    image = image.astype("float64")
    rows = image[top] * (1 - v)[:, None, None] + image[bottom] * v[:, None, None]
    return rows[:, left] * (1 - h)[:, None] + rows[:, right] * h[:, None]


def mapped(function, *tensors):
    """Run the function inside Dataset.map, where shapes are unknown and nothing is eager."""
    unknown = [
        tf.TensorSpec([None] * t.shape.rank, t.dtype) for t in map(tf.convert_to_tensor, tensors)
    ]
    dataset = tf.data.Dataset.from_generator(
        lambda: iter([tensors]), output_signature=tuple(unknown)
    )
    return next(iter(dataset.map(function)))


def everywhere(function, *tensors):
    """Give the result of an eager call, having checked that a Dataset.map gives the same."""
    eager = function(*tensors)
    np.testing.assert_array_equal(eager, mapped(function, *tensors))
    return eager.numpy()


@pytest.mark.parametrize("height, width", [(57, 31), (224, 224), (300, 200)])
def test_resize_is_bilinear(height, width):
    image = photograph(90, 130)
    ours = everywhere(lambda x: preprocessing.resize(x, height, width), image)
    assert ours.dtype == "uint8"
    exact = bilinear(image, height, width)
    assert np.abs(ours - exact).max() <= 0.5 + 1e-3


@pytest.mark.parametrize("height, width", [(57, 31), (224, 224), (40, 200)])
def test_an_antialiased_resize_is_pillows_but_for_a_level(height, width):
    """Pillow rounds between rows and columns; upwards it interpolates as without."""
    image = np.random.default_rng(0).integers(0, 256, (90, 130, 3)).astype("uint8")
    ours = everywhere(lambda x: preprocessing.resize(x, height, width, antialias=True), image)
    theirs = np.asarray(Image.fromarray(image).resize((width, height), Image.BILINEAR))
    assert np.abs(ours.astype(int) - theirs).max() <= 1
    if min(90 / height, 130 / width) > 1.5:
        assert np.abs(ours.astype(int) - bilinear(image, height, width)).mean() > 10


@pytest.mark.parametrize(
    "height, width, expected",
    [(100, 200, (64, 128)), (200, 100, (128, 64)), (333, 500, (64, 96)), (64, 64, (64, 64))],
)
def test_the_short_side_is_reached_and_the_aspect_kept(height, width, expected):
    ours = everywhere(lambda x: preprocessing.resize_short_side(x, 64), photograph(height, width))
    assert ours.shape == (*expected, 3)


def test_antialiased_sides_are_cut_to_whole_pixels_as_torchvisions():
    image = photograph(327, 503)  # 100 x 153.8 pixels
    ours = everywhere(lambda x: preprocessing.resize_short_side(x, 100, antialias=True), image)
    assert ours.shape == (100, 153, 3)


@pytest.mark.parametrize("antialias", [False, True])
@pytest.mark.parametrize("margin", [0, 1, 2, 3, 5, 7])
def test_the_centre_is_cut(margin, antialias):
    image = photograph(20 + margin, 30)
    ours = everywhere(lambda x: preprocessing.centre_crop(x, 20, antialias), image)
    top = round(margin / 2) if antialias else margin // 2  # Python's round, as in torchvision
    np.testing.assert_array_equal(ours, image[top : top + 20, 5:25])


def test_evaluation_is_short_side_then_centre():
    encoded = jpeg(240, 320)
    ours = everywhere(
        lambda x: preprocessing.evaluation_image(x, image_size=64, resize_side=73), encoded
    )
    decoded = np.asarray(Image.open(io.BytesIO(encoded.numpy())))
    whole = bilinear(decoded, 73, 97)  # 320 * 73 / 240 = 97.3
    assert np.abs(ours - whole[4:68, 16:80]).max() <= 0.5 + 1e-3


@given(
    *(st.integers(20, 400), st.integers(20, 400), st.sampled_from([1, 3]), st.integers(0, 9)),
    st.booleans(),
)
@settings(max_examples=60, deadline=None)
def test_evaluation_outside_a_graph_gives_the_very_pixels(height, width, channels, odd, smooth):
    image = photograph(height, width)[..., :channels]
    encoded = tf.io.encode_jpeg(image).numpy()
    size = {"image_size": 24, "resize_side": 25 + odd, "antialias": smooth}
    expected = preprocessing.evaluation_image(encoded, **size)
    found = preprocessing.evaluation_pixels(encoded, **size)
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(evaluation_crop.evaluation_square(encoded, **size), expected)


@given(
    *(st.integers(1, 9), st.booleans(), st.integers(0, 2), st.integers(1, 100)),
    st.booleans(),
)
@settings(max_examples=60, deadline=None)
def test_square_without_tensorflow_has_the_very_pixels_of_any_jpeg(
    size, progressive, chroma, q, smooth
):
    buffer = io.BytesIO()
    picture = Image.fromarray(photograph(31 * size, 290 - 23 * size))
    picture.save(buffer, "JPEG", progressive=progressive, subsampling=chroma, quality=q)
    sides = {"image_size": 13 * size, "resize_side": 15 * size, "antialias": smooth}
    expected = preprocessing.evaluation_image(buffer.getvalue(), **sides)
    found = evaluation_crop.evaluation_square(buffer.getvalue(), **sides)
    np.testing.assert_array_equal(found, expected)
    assert found.dtype == np.uint8


@pytest.mark.parametrize(("height", "width"), [(1, 1500), (60_000, 1)])
def test_a_strip_is_refused_in_and_outside_a_graph(height, width):
    """Once resized, it would have gigabytes."""
    encoded = tf.io.encode_jpeg(tf.zeros([height, width, 3], tf.uint8)).numpy()
    size = {"image_size": 224, "resize_side": 256}
    with pytest.raises(tf.errors.InvalidArgumentError, match="a strip of"):
        list(tf.data.Dataset.from_tensors(encoded).map(lambda e: evaluate(e, size)))
    with pytest.raises(ValueError, match=f"a strip of {width} x {height} pixels"):
        preprocessing.evaluation_pixels(encoded, **size)


def evaluate(encoded, size):
    return preprocessing.evaluation_image(encoded, **size)


def test_evaluation_window_is_what_is_cut():
    found = evaluation_crop.evaluation_window(240, 320, image_size=64, resize_side=73)
    np.testing.assert_allclose(found, [4 / 73, 16 / 97, 68 / 73, 80 / 97])
    found = evaluation_crop.evaluation_window(
        240, 322, image_size=64, resize_side=71, antialias=True
    )
    np.testing.assert_allclose(found, [4 / 71, 16 / 95, 68 / 71, 80 / 95])  # of 71 x 95.26 pixels
    whole = evaluation_crop.evaluation_window(50, 50, image_size=64, resize_side=64)
    np.testing.assert_array_equal(whole, [0, 0, 1, 1])


def test_evaluation_reads_grey_jpeg_and_png_as_rgb():
    image = photograph(80, 90)
    for encoded in (
        tf.io.encode_jpeg(image[..., :1]),
        tf.io.encode_png(image),
        tf.io.encode_png(image[..., :1]),
    ):
        ours = everywhere(
            lambda x: preprocessing.evaluation_image(x, image_size=32, resize_side=36), encoded
        )
        assert ours.shape == (32, 32, 3)


def window(seed, boxes=NO_BOX, height=375, width=500, **changes):
    crop = replace(CROP, **changes)
    return preprocessing.training_window([height, width, 3], boxes, seed, crop).numpy()


@pytest.mark.parametrize("sampling", ["distorted_box", "random_resized"])
def test_each_number_of_the_seed_decides_the_window(sampling):
    seeds = [(number, 0) for number in range(50)] + [(0, number) for number in range(1, 50)]
    windows = {tuple(window(seed, crop_sampling=sampling)) for seed in seeds}
    assert len(windows) == len(seeds)


def test_windows_keep_their_area_and_aspect():
    for i in range(200):
        top, left, height, width = window([3, i])
        assert top >= 0 and left >= 0 and top + height <= 375 and left + width <= 500
        assert 0.045 <= height * width / (375 * 500) <= 1
        assert 0.75 - 0.02 <= width / height <= 1.33 + 0.02  # sides are whole pixels


def test_windows_hold_the_stated_share_of_a_box():
    box = tf.constant([[0.6, 0.7, 0.9, 0.95]])
    for i in range(100):
        top, left, height, width = window([4, i], box, min_object_covered=0.5)
        seen = max(0, min(top + height, 0.9 * 375) - max(top, 0.6 * 375))
        seen *= max(0, min(left + width, 0.95 * 500) - max(left, 0.7 * 500))
        assert seen / (0.3 * 375 * 0.25 * 500) >= 0.5 - 0.03


def test_without_a_fitting_window_the_whole_image_is_taken():
    flat = window([0, 0], height=10, width=1000, area_range=[0.9, 1.0])
    np.testing.assert_array_equal(flat, [0, 0, 10, 1000])


def by_the_rule(uniform, height, width, *, aspect_ratio_range, area_range):
    """Give RandomResizedCrop's window of torchvision, whose draws are `uniform` [4, attempts]."""
    low, high = aspect_ratio_range
    for area, aspect, top, left in uniform.T:
        area = height * width * (area_range[0] + area * (area_range[1] - area_range[0]))
        aspect = math.exp(math.log(low) + aspect * math.log(high / low))
        h, w = round(math.sqrt(area / aspect)), round(math.sqrt(area * aspect))
        if 0 < w <= width and 0 < h <= height:
            return [int(top * (height - h + 1)), int(left * (width - w + 1)), h, w]
    h, w = height, width
    if width / height < low:
        h = round(width / low)
    elif width / height > high:
        w = round(height * high)
    return [(height - h) // 2, (width - w) // 2, h, w]


@given(st.integers(1, 700), st.integers(1, 700), st.integers(0, 2**60), st.integers(1, 10))
@example(10, 1000, 0, 10)  # none fits: the centre
@example(1000, 1, 0, 10)
@settings(max_examples=150, deadline=None)
def test_random_resized_windows_are_torchvisions(height, width, seed, attempts):
    limits = {"aspect_ratio_range": [3 / 4, 4 / 3], "area_range": [0.08, 1.0]}
    changes = {"crop_sampling": "random_resized", "max_attempts": attempts}
    found = window([0, seed], height=height, width=width, **limits, **changes)
    uniform = tf.random.stateless_uniform([4, attempts], [0, seed], dtype=tf.float64).numpy()
    np.testing.assert_array_equal(found, by_the_rule(uniform, height, width, **limits))
    assert found.dtype == np.int32 and min(found) >= 0 and min(found[2:]) >= 1
    assert found[0] + found[2] <= height and found[1] + found[3] <= width


def training(encoded, boxes, seed, **changes):
    return preprocessing.training_image(
        encoded, boxes, seed, replace(CROP, **changes), image_size=48
    )


@pytest.mark.parametrize("changes", [{}, {"crop_sampling": "random_resized"}])
def test_a_training_image_is_its_window_resized_and_perhaps_flipped(changes):
    encoded = jpeg()
    decoded = tf.io.decode_jpeg(encoded).numpy()
    flipped = 0
    for i in range(20):
        seed = tf.constant([5, i], tf.int64)
        ours = everywhere(functools.partial(training, **changes), encoded, NO_BOX, seed)
        top, left, height, width = window(seed, height=120, width=160, **changes)
        exact = bilinear(decoded[top : top + height, left : left + width], 48, 48)
        straight, mirrored = (np.abs(ours - e).mean() for e in (exact, exact[:, ::-1]))
        # a crop decoded alone lacks the neighbours that smooth the colours at its edges
        assert min(straight, mirrored) < 1.0
        flipped += mirrored < straight
    assert 3 <= flipped <= 17  # 10 expected


def test_antialias_smooths_the_very_crop():
    """As Pillow does, but for a level."""
    encoded, seed = jpeg(300, 400), [0, 3]
    rough, smooth = (training(encoded, NO_BOX, seed, antialias=on).numpy() for on in (False, True))
    place = window(seed, height=300, width=400)
    crop = tf.io.decode_and_crop_jpeg(encoded, place, channels=3, dct_method="").numpy()
    theirs = np.asarray(Image.fromarray(crop).resize((48, 48), Image.BILINEAR)).astype(int)
    sides = theirs, theirs[:, ::-1]  # perhaps flipped
    assert min(np.abs(smooth - side).max() for side in sides) <= 1
    assert min(np.abs(rough - side).max() for side in sides) > 5


def test_the_seed_decides_the_image():
    encoded = jpeg()
    one, same, other = (training(encoded, NO_BOX, [0, i]) for i in (1, 1, 2))
    np.testing.assert_array_equal(one, same)
    assert np.any(one != other)


@pytest.mark.parametrize("sampling", ["distorted_box", "random_resized"])
def test_flips_do_not_depend_on_the_window(sampling):
    """Neither on its place nor on its size or aspect, which are drawn before."""
    encoded = tf.io.encode_jpeg(
        np.tile(np.linspace(0, 255, 64, dtype="uint8")[None, :, None], (64, 1, 3))
    )
    windows, mirrored = [], []
    for i in range(200):
        image = training(encoded, NO_BOX, [6, i], crop_sampling=sampling).numpy().astype(int)
        top, left, height, width = window([6, i], height=64, width=64, crop_sampling=sampling)
        windows.append([top, left, height * width, width / height])
        mirrored.append(image[24, 0, 0] > image[24, -1, 0])
    assert 70 <= sum(mirrored) <= 130
    for drawn in np.transpose(windows):
        assert abs(np.corrcoef(drawn, mirrored)[0, 1]) < 0.25


def test_large_images_are_decoded_in_strips_to_the_same_pixels():
    encoded = tf.io.encode_jpeg(photograph(2 * evaluation_crop.STRIP + 5, 60)).numpy()
    expected = tf.io.decode_jpeg(encoded, dct_method="INTEGER_ACCURATE")
    np.testing.assert_array_equal(evaluation_crop.decode_jpeg(encoded), expected)
