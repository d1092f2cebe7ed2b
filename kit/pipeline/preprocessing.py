"""Encoded photographs -> uint8 squares for the network. Tensors in, tensors out.

The recipe's operations, in its order: a crop distorted around the object, a flip, a resize for
training; short side, then centre crop, for evaluation. The channel means are subtracted inside the
model (kit/model/resnet.py), so that what crosses to the device is a quarter of the bytes.
"""

import tensorflow as tf


def training_image(
    encoded,
    boxes,
    seed,
    *,
    image_size,
    min_object_covered,
    aspect_ratio_range,
    area_range,
    max_attempts,
    scaled_decode,
):
    """Decode a distorted crop, perhaps flipped: uint8 [image_size, image_size, 3].

    `encoded` is a JPEG, `boxes` float32 [n, 4] in [0, 1] in the order ymin, xmin, ymax, xmax (with
    n = 0 the whole image is the object), `seed` two integers. The same seed gives the same crop and
    flip. Only the crop is decoded, as in TensorFlow's official recipe; see `decode_window` for
    `scaled_decode`.
    """
    window = distorted_window(
        tf.io.extract_jpeg_shape(encoded),
        boxes,
        seed,
        min_object_covered=min_object_covered,
        aspect_ratio_range=aspect_ratio_range,
        area_range=area_range,
        max_attempts=max_attempts,
    )
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


def distorted_window(
    shape, boxes, seed, *, min_object_covered, aspect_ratio_range, area_range, max_attempts
):
    """Choose a random window (top, left, height, width), int32 pixels, for an image of `shape`.

    Its area is `area_range` of the image, its width over height within `aspect_ratio_range`, and it
    holds `min_object_covered` of a box. When `max_attempts` draws fail it is the whole image
    (Szegedy et al. 2014, section 6; TensorFlow's sample_distorted_bounding_box).
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


def resize_short_side(image, side):
    """Resize so that the short side is `side`, keeping the aspect ratio to the nearest pixel."""
    height, width = tf.unstack(tf.shape(image)[:2])
    scale = side / tf.minimum(height, width)
    new_height = tf.cast(tf.round(tf.cast(height, tf.float64) * scale), tf.int32)
    new_width = tf.cast(tf.round(tf.cast(width, tf.float64) * scale), tf.int32)
    return resize(image, new_height, new_width)


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
