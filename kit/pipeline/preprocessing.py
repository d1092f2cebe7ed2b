"""Encoded photographs -> uint8 squares for the network. Tensors in, tensors out.

The recipe's operations, in its order: a crop distorted around the object, a flip, a resize for
training; short side, then centre crop, for evaluation. The channel means are subtracted inside the
model (kit/model/resnet.py), so that what crosses to the device is a quarter of the bytes.
"""

import numpy as np
import tensorflow as tf

from kit.data.records import MAX_PIXELS

CROP_SAMPLINGS = ("distorted_box", "random_resized")


def check_crop(*, crop_sampling, min_object_covered, aspect_ratio_range, area_range, max_attempts):
    """Raise ValueError for what no crop can be drawn with."""
    if crop_sampling not in CROP_SAMPLINGS:
        known = ", ".join(CROP_SAMPLINGS)
        raise ValueError(f'crop_sampling: "{crop_sampling}" is not one of {known}')
    if not 0 <= min_object_covered <= 1:
        raise ValueError(f"min_object_covered: {min_object_covered} is no share; take 0.0 to 1.0")
    ranges = {"aspect_ratio_range": aspect_ratio_range, "area_range": area_range}
    for name, ends in ranges.items():
        if len(ends) != 2 or not 0 < ends[0] <= ends[1]:
            raise ValueError(f"{name}: {ends} is no [lowest, highest] above 0, such as [0.75, 1.0]")
    if area_range[1] > 1:
        raise ValueError(f"area_range: {area_range} is more than the image; end it with 1.0")
    if max_attempts < 1:
        raise ValueError(f"max_attempts: {max_attempts} draws no crop; take 10 or more")


def training_image(encoded, boxes, seed, *, image_size, scaled_decode, **crop):
    """Decode a distorted crop, perhaps flipped: uint8 [image_size, image_size, 3].

    `encoded` is a JPEG, `boxes` float32 [n, 4] in [0, 1] in the order ymin, xmin, ymax, xmax (with
    n = 0 the whole image is the object), `seed` two integers. The same seed gives the same crop and
    flip. Only the crop is decoded, as in TensorFlow's official recipe; `crop` are the settings of
    `training_window`, and see `decode_window` for `scaled_decode`.
    """
    window = training_window(tf.io.extract_jpeg_shape(encoded), boxes, seed, **crop)
    image = decode_window(encoded, window, image_size=image_size, scaled_decode=scaled_decode)
    image = resize(image, image_size, image_size)
    return tf.image.stateless_random_flip_left_right(image, fold_in(seed, 1))


def evaluation_image(encoded, *, image_size, resize_side):
    """Decode, bring the short side to `resize_side`, cut the centre.

    `encoded` is a JPEG, PNG, BMP or GIF (its first frame). Gives uint8 [image_size, image_size, 3].
    """
    image = tf.io.decode_image(encoded, channels=3, expand_animations=False)
    image = resize_short_side(image, resize_side)
    return centre_crop(image, image_size)


def evaluation_pixels(encoded, *, image_size, resize_side):
    """Give what `evaluation_image` gives of one JPEG, as an array, without a graph.

    In few operations, which run in the caller's own thread: TensorFlow's threads, in which a graph
    runs, are asleep after a forward pass elsewhere, and to wake them takes half a millisecond.
    Raises ValueError for a strip so thin that the resized image would have over MAX_PIXELS.
    """
    image = tf.raw_ops.DecodeJpeg(contents=encoded, channels=3)
    height, width = image.shape[:2]
    sides = np.array([height, width])
    sides = np.rint(sides * (resize_side / sides.min())).astype(int)
    if sides.prod() > MAX_PIXELS:  # a few KB could otherwise ask for tens of GB
        raise ValueError(
            f"{width} x {height} pixels, {sides[1]} x {sides[0]} once resized: "
            f"more than {MAX_PIXELS:,}"
        )
    resized = tf.raw_ops.ResizeBilinear(
        images=tf.expand_dims(image, 0), size=sides, half_pixel_centers=True
    )
    top, left = (sides - image_size) // 2
    square = resized.numpy()[0, top : top + image_size, left : left + image_size]
    return np.rint(square).astype(np.uint8)


def training_window(shape, boxes, seed, *, crop_sampling, min_object_covered, **limits):
    """Choose a random window (top, left, height, width), int32 pixels, for an image of `shape`.

    `limits` are those of both ways to choose it: "distorted_box" is `distorted_window`, and
    "random_resized" is `random_resized_window`, which knows neither boxes nor how much of one to
    hold.
    """
    if crop_sampling == "random_resized":
        return random_resized_window(shape, seed, **limits)
    return distorted_window(shape, boxes, seed, min_object_covered=min_object_covered, **limits)


def distorted_window(
    shape, boxes, seed, *, min_object_covered, aspect_ratio_range, area_range, max_attempts
):
    """Choose a random window (top, left, height, width), int32 pixels, for an image of `shape`.

    Its area is `area_range` of the image, its width over height within `aspect_ratio_range`, and it
    holds `min_object_covered` of a box. Its aspect is uniform, and then its height. When
    `max_attempts` draws fail it is the whole image (Szegedy et al. 2014, section 6; TensorFlow's
    sample_distorted_bounding_box).
    """
    begin, size, _ = tf.image.stateless_sample_distorted_bounding_box(
        shape,
        bounding_boxes=boxes[tf.newaxis],
        seed=seed,
        min_object_covered=min_object_covered,
        aspect_ratio_range=aspect_ratio_range,
        area_range=area_range,
        max_attempts=max_attempts,
        use_image_if_no_bounding_boxes=True,
    )
    return tf.concat([begin[:2], size[:2]], axis=0)


def random_resized_window(shape, seed, *, aspect_ratio_range, area_range, max_attempts):
    """Choose a random window (top, left, height, width), int32 pixels, for an image of `shape`.

    Its share of the image is uniform in `area_range`, its width over height log-uniform in
    `aspect_ratio_range`, its place uniform; the sides are rounded. When none of `max_attempts`
    draws fits, it is the largest central window of such an aspect (torchvision's
    RandomResizedCrop.get_params).
    """
    rows, columns = tf.unstack(tf.cast(shape[:2], tf.float64))
    chances = tf.random.stateless_uniform([4, max_attempts], seed, dtype=tf.float64)
    area, aspect, top, left = tf.unstack(chances)
    (smallest, largest), (narrow, wide) = area_range, np.log(aspect_ratio_range)
    area = rows * columns * (smallest + area * (largest - smallest))
    aspect = tf.exp(narrow + aspect * (wide - narrow))
    height, width = tf.round(tf.sqrt(area / aspect)), tf.round(tf.sqrt(area * aspect))
    fits = (tf.minimum(height, width) > 0) & (height <= rows) & (width <= columns)
    top, left = tf.floor(top * (rows - height + 1)), tf.floor(left * (columns - width + 1))
    drawn = tf.stack([top, left, height, width])[:, tf.argmax(fits)]
    low, high = aspect_ratio_range
    height = tf.minimum(rows, tf.round(columns / low))
    width = tf.minimum(columns, tf.round(rows * high))
    central = tf.stack([(rows - height) // 2, (columns - width) // 2, height, width])
    return tf.cast(tf.where(tf.reduce_any(fits), drawn, central), tf.int32)


def decode_window(encoded, window, *, image_size, scaled_decode):
    """Decode a window (top, left, height, width) of a JPEG: uint8 [height, width, 3].

    With `scaled_decode` a window of 2, 4 or 8 times `image_size` and more comes at that fraction of
    its size, from the low frequencies alone: less work, and smoother than a bilinear resize.
    """

    def decode(ratio):
        # the decoder counts the window in pixels of the smaller image
        return lambda: tf.io.decode_and_crop_jpeg(encoded, window // ratio, channels=3, ratio=ratio)

    if not scaled_decode:
        return decode(1)()
    times = tf.reduce_min(window[2:]) // image_size
    branch = tf.reduce_sum(tf.cast(times >= [2, 4, 8], tf.int32))
    return tf.switch_case(branch, [decode(ratio) for ratio in (1, 2, 4, 8)])


def evaluation_window(height, width, *, image_size, resize_side):
    """Give what `evaluation_image` cuts: float64 [ymin, xmin, ymax, xmax], shares of the image."""
    sides = short_side_size(height, width, resize_side)
    begin = (sides - image_size) // 2
    return tf.concat([begin / sides, (begin + image_size) / sides], axis=0)


def short_side_size(height, width, side):
    """Give int32 (height, width) of an image whose short side becomes `side`, to the nearest."""
    sides = tf.stack([height, width])
    scale = side / tf.reduce_min(sides)
    return tf.cast(tf.round(tf.cast(sides, tf.float64) * scale), tf.int32)


def resize_short_side(image, side):
    """Resize so that the short side is `side`, keeping the aspect ratio to the nearest pixel."""
    height, width = tf.unstack(tf.shape(image)[:2])
    return resize(image, *tf.unstack(short_side_size(height, width, side)))


def centre_crop(image, size):
    """Cut the central [size, size]; of an odd margin the larger half is below and at the right."""
    height, width = tf.unstack(tf.shape(image)[:2])
    image = tf.image.crop_to_bounding_box(
        image, (height - size) // 2, (width - size) // 2, size, size
    )
    image.set_shape([size, size, 3])
    return image


def resize(image, height, width):
    """Resize bilinearly, pixel centres at half integers, without antialiasing; stays uint8.

    The raw operation reads uint8, where tf.image.resize first copies the image to float32. Values
    are rounded to the nearest integer, at most 0.5 from the exact ones.
    """
    resized = tf.raw_ops.ResizeBilinear(
        images=image[tf.newaxis], size=[height, width], half_pixel_centers=True
    )
    return tf.cast(tf.round(resized[0]), tf.uint8)


def fold_in(seed, number):
    """Derive another seed from a seed: two integers -> two integers."""
    return tf.random.experimental.stateless_fold_in(seed, number)
