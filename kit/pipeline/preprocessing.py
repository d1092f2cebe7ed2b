"""Encoded images -> uint8 squares for the network. Tensors in, tensors out.

The 2018 recipe's operations, in its order: a crop distorted around the object, a flip, a resize for
training; short side, then centre crop, for evaluation. The channel means are subtracted inside the
model (kit/model/resnet.py), so that what crosses to the device is a quarter of the bytes.
"""

import numpy as np
import tensorflow as tf

from kit.data.images import MAX_ASPECT
from kit.pipeline.evaluation_crop import centre, decode_jpeg, resized_sides, short_side_size

ACCURATE = "INTEGER_ACCURATE"  # of libjpeg's transforms


def training_image(encoded, boxes, seed, crop, *, image_size):
    """Decode a random crop, perhaps flipped: uint8 [image_size, image_size, 3].

    `encoded` is a JPEG, `boxes` float32 [n, 4] in [0, 1] in the order ymin, xmin, ymax, xmax (with
    n = 0 the whole image is the object), `seed` two integers, `crop` the section Crop. The same
    seed gives the same crop and flip. Only the crop is decoded, as in TensorFlow's official recipe.
    """
    window = training_window(tf.io.extract_jpeg_shape(encoded), boxes, seed, crop)
    image = tf.io.decode_and_crop_jpeg(encoded, window, channels=3)
    image = resize(image, image_size, image_size, crop.antialias)
    return tf.image.stateless_random_flip_left_right(image, fold_in(seed, 1))


def evaluation_image(encoded, *, image_size, resize_side, antialias=False):
    """Decode, bring the short side to `resize_side`, cut the centre.

    `encoded` is a JPEG, PNG, BMP or GIF (its first frame). Gives uint8 [image_size, image_size, 3].
    A strip beyond MAX_ASPECT, whose long side would take gigabytes once resized, is an error.
    """
    image = decode(encoded)
    sides = tf.shape(image)[:2]
    strip = tf.reduce_max(sides) > MAX_ASPECT * tf.reduce_min(sides)
    with tf.control_dependencies([tf.debugging.Assert(~strip, ["a strip of", sides, "pixels"])]):
        image = tf.identity(image)
    return resized_and_centre(image, image_size, resize_side, antialias)[1]


def resized_and_centre(image, image_size, resize_side, antialias=False):
    """Bring the short side of a decoded image to `resize_side`: that image, and its centre."""
    image = resize_short_side(image, resize_side, antialias)
    return image, centre_crop(image, image_size, antialias)


def decode(encoded):
    """Decode a JPEG, PNG, BMP or GIF (its first frame): uint8 [height, width, 3].

    JPEGs by the accurate transform, as Pillow and PyTorch decode them; it costs no time.
    """
    image = tf.cond(
        tf.io.is_jpeg(encoded),
        lambda: tf.io.decode_jpeg(encoded, channels=3, dct_method=ACCURATE),
        lambda: tf.io.decode_image(encoded, channels=3, expand_animations=False),
    )
    return tf.ensure_shape(image, [None, None, 3])


def evaluation_pixels(encoded, *, image_size, resize_side, antialias=False):
    """Give what `evaluation_image` gives of one JPEG, as an array, without a graph.

    In few operations, which run in the caller's own thread: TensorFlow's threads, in which a graph
    runs, are asleep after a forward pass elsewhere, and to wake them takes half a millisecond.
    Pillow decodes, for it prints nothing about a damaged JPEG. Raises ValueError for one, and as
    `resized_sides` does.
    """
    image = decode_jpeg(encoded)
    sides = resized_sides(*image.shape[:2], resize_side, antialias)
    with tf.device("CPU:0"):
        resized = _bilinear(image[np.newaxis], sides, antialias)
    top, left = centre(sides, image_size, antialias)
    square = resized.numpy()[0, top : top + image_size, left : left + image_size]
    return np.rint(square).astype(np.uint8)


def training_window(shape, boxes, seed, crop):
    """Choose a random window (top, left, height, width), int32 pixels, for an image of `shape`."""
    if crop.crop_sampling == "random_resized":
        return random_resized_window(shape, seed, crop)
    return distorted_window(shape, boxes, seed, crop)


def distorted_window(shape, boxes, seed, crop):
    """Choose a random window (top, left, height, width) around a box, int32 pixels.

    Its area is `area_range` of the image, its width over height within `aspect_ratio_range`, and it
    holds `min_object_covered` of a box. Its aspect is uniform, and then its height. When
    `max_attempts` draws fail it is the whole image (Szegedy et al. 2014, section 6; TensorFlow's
    sample_distorted_bounding_box).
    """
    begin, size, _ = tf.image.stateless_sample_distorted_bounding_box(
        shape,
        bounding_boxes=boxes[tf.newaxis],
        seed=seed,
        min_object_covered=crop.min_object_covered,
        aspect_ratio_range=crop.aspect_ratio_range,
        area_range=crop.area_range,
        max_attempts=crop.max_attempts,
        use_image_if_no_bounding_boxes=True,
    )
    return tf.concat([begin[:2], size[:2]], axis=0)


def random_resized_window(shape, seed, crop):
    """Choose a random window (top, left, height, width) anywhere, int32 pixels.

    Its share of the image is uniform in `area_range`, its width over height log-uniform in
    `aspect_ratio_range`, its position uniform; the sides are rounded. When none of `max_attempts`
    draws fits, it is the largest central window of such an aspect (torchvision's
    RandomResizedCrop.get_params).
    """
    rows, columns = tf.unstack(tf.cast(shape[:2], tf.float64))
    uniform = tf.random.stateless_uniform([4, crop.max_attempts], seed, dtype=tf.float64)
    area, aspect, top, left = tf.unstack(uniform)
    (smallest, largest), (narrow, wide) = crop.area_range, np.log(crop.aspect_ratio_range)
    area = rows * columns * (smallest + area * (largest - smallest))
    aspect = tf.exp(narrow + aspect * (wide - narrow))
    height, width = tf.round(tf.sqrt(area / aspect)), tf.round(tf.sqrt(area * aspect))
    fits = (tf.minimum(height, width) > 0) & (height <= rows) & (width <= columns)
    top, left = tf.floor(top * (rows - height + 1)), tf.floor(left * (columns - width + 1))
    drawn = tf.stack([top, left, height, width])[:, tf.argmax(fits)]
    central = _largest_central(rows, columns, crop.aspect_ratio_range)
    return tf.cast(tf.where(tf.reduce_any(fits), drawn, central), tf.int32)


def _largest_central(rows, columns, aspect_ratio_range):
    narrow, wide = aspect_ratio_range
    height = tf.minimum(rows, tf.round(columns / narrow))
    width = tf.minimum(columns, tf.round(rows * wide))
    return tf.stack([(rows - height) // 2, (columns - width) // 2, height, width])


def window_boxes(windows, shape):
    """Give windows (top, left, height, width) as boxes [n, 4] in [0, 1]: ymin, xmin, ymax, xmax."""
    top, left, height, width = np.transpose(windows)
    rows, columns = shape[:2]
    ends = [top / rows, left / columns, (top + height) / rows, (left + width) / columns]
    return np.stack(ends, axis=-1)


def resize_short_side(image, resize_side, antialias=False):
    """Resize to a short side of `resize_side`, keeping the aspect ratio to a pixel."""
    height, width = tf.unstack(tf.cast(tf.shape(image)[:2], tf.float64))
    size = tf.cast(short_side_size(height, width, resize_side, antialias, tf.math), tf.int32)
    return resize(image, *tf.unstack(size), antialias)


def centre_crop(image, size, antialias=False):
    """Cut the central [size, size], from where `centre` says."""
    top, left = tf.unstack(centre(tf.shape(image)[:2], size, antialias))
    return tf.image.crop_to_bounding_box(image, top, left, size, size)


def resize(image, height, width, antialias=False):
    """Resize bilinearly, pixel centres at half integers; stays uint8.

    With `antialias` a pixel is the average over all that it stands for, weighed by a triangle: what
    Pillow gives, but for one level of 255, and tf.image.resize. Without, it lies between four, and
    what is farther off is skipped. Values are rounded to the nearest integer.
    """
    resized = _bilinear(image[tf.newaxis], [height, width], antialias)
    return tf.cast(tf.round(resized[0]), tf.uint8)


def _bilinear(images, size, antialias):
    """Resize, in float32. The raw operations read uint8, which tf.image.resize first copies."""
    if not antialias:
        return tf.raw_ops.ResizeBilinear(images=images, size=size, half_pixel_centers=True)
    return tf.raw_ops.ScaleAndTranslate(
        images=images,
        size=size,
        scale=tf.cast(size, tf.float32) / tf.cast(tf.shape(images)[1:3], tf.float32),
        translation=[0.0, 0.0],
        kernel_type="triangle",
        antialias=True,
    )


def fold_in(seed, number):
    """Derive another seed from a seed: two integers -> two integers."""
    return tf.random.experimental.stateless_fold_in(seed, number)
