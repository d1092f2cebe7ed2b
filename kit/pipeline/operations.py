"""Pillow's operations on images, which timm and torchvision augment with, as tensors.

Each takes and gives pixels [height, width, 3], float32 that holds whole numbers from 0 to 255. It
gives what Pillow gives, bit for bit. The geometric ones agree to one level, except within half a
pixel of the image's edge, where Pillow picks image or fill and this blends them. What lies outside
becomes `fill`, [3]. The strength of an operation is a scalar tensor or a number. A scalar times a
plane is quick in TensorFlow on a CPU, a vector of three times a plane is not, nor are uint8 or
tf.where: hence some detours.
"""

import math

import tensorflow as tf

GREY = [19595.0, 38470.0, 7471.0]  # R, G, B of 65536: ITU-R 601, as Pillow's convert("L") has it
EPSILON = 1e-3  # a whole number that float32 has missed by less is meant


def invert(pixels):
    return 255 - pixels


def solarize(pixels, threshold):
    """Invert what is not below the threshold."""
    return pixels + tf.cast(pixels >= threshold, tf.float32) * (255 - 2 * pixels)


def solarize_add(pixels, amount):
    """Add the amount to what is below 128 (no operation of Pillow's; timm has it as a table)."""
    return tf.minimum(pixels + tf.cast(pixels < 128, tf.float32) * amount, 255)


def posterize(pixels, bits):
    """Keep so many of the eight bits."""
    step = tf.pow(2.0, 8 - bits)
    return tf.floor(pixels / step) * step


def brightness(pixels, factor):
    return _blend(0.0, pixels, factor)


def contrast(pixels, factor):
    """Blend with a plane of the mean grey."""
    mean = tf.reduce_mean(tf.cast(_grey(pixels), tf.float64))
    return _blend(tf.cast(tf.floor(mean + 0.5), tf.float32), pixels, factor)


def colour(pixels, factor):
    """Blend with the photograph in grey."""
    return _blend(_grey(pixels), pixels, factor)


def sharpness(pixels, factor):
    """Blend with the photograph smoothed, but for its outermost pixels (ImageFilter.SMOOTH)."""
    rows = pixels[:-2] + pixels[1:-1] + pixels[2:]
    centre = pixels[1:-1, 1:-1]
    smooth = tf.round((rows[:, :-2] + rows[:, 1:-1] + rows[:, 2:] + 4 * centre) / 13)
    return _blend(pixels + tf.pad(smooth - centre, [[1, 1], [1, 1], [0, 0]]), pixels, factor)


def auto_contrast(pixels):
    """Stretch each channel to 0 to 255."""
    low, high = (tf.cast(end(pixels, [0, 1]), tf.float64) for end in (tf.reduce_min, tf.reduce_max))
    scale = tf.where(high > low, 255 / (high - low), 1)
    offset = tf.where(high > low, -low * scale, 0)
    rows, width = _rows(pixels)
    found = tf.cast(rows, tf.float64) * tf.tile(scale, [width]) + tf.tile(offset, [width])
    levels = tf.clip_by_value(tf.cast(tf.floor(found), tf.float32), 0.0, 255.0)
    return tf.reshape(levels, tf.shape(pixels))


def equalize(pixels):
    """Make the levels of each channel about equally frequent."""
    rows, width = _rows(pixels)
    levels = tf.cast(rows, tf.int32) + tf.tile([0, 256, 512], [width])
    counts = tf.math.bincount(levels, minlength=768, maxlength=768)
    counts = tf.reshape(counts, [3, 256])
    below = tf.cumsum(counts, axis=1, exclusive=True)
    highest = tf.reduce_max(tf.where(counts > 0, tf.range(256), 0), axis=1, keepdims=True)
    step = tf.gather(below, highest, batch_dims=1) // 255  # of the images below the highest level
    table = tf.minimum((step // 2 + below) // tf.maximum(step, 1), 255)
    table = tf.where(step > 0, table, tf.range(256))
    found = tf.gather(tf.reshape(tf.cast(table, tf.float32), [-1]), levels)
    return tf.reshape(found, tf.shape(pixels))


def rotate(pixels, degrees, fill):
    """Rotate around the centre, counterclockwise."""
    height, width = tf.unstack(tf.cast(tf.shape(pixels)[:2], tf.float32))
    angle = degrees * (math.pi / 180)
    cos, sin = tf.cos(angle), tf.sin(angle)
    x, y = width / 2, height / 2
    return _affine(
        pixels, [cos, -sin, x - cos * x + sin * y, sin, cos, y - sin * x - cos * y], fill
    )


def shear_x(pixels, share, fill):
    """Take each row from `share` of its distance from the top further right."""
    return _affine(pixels, [1, share, 0, 0, 1, 0], fill)


def shear_y(pixels, share, fill):
    """Take each column from `share` of its distance from the left further down."""
    return _affine(pixels, [1, 0, 0, share, 1, 0], fill)


def translate_x(pixels, distance, fill):
    """Take what is so many pixels further right."""
    return _affine(pixels, [1, 0, distance, 0, 1, 0], fill)


def translate_y(pixels, distance, fill):
    """Take what is so many pixels further down."""
    return _affine(pixels, [1, 0, 0, 0, 1, distance], fill)


def _affine(pixels, matrix, fill):
    """Take at (x, y) what is at (a x + b y + c, d x + e y + f), pixel centres at half integers."""
    a, b, c, d, e, f = (tf.cast(number, tf.float32) for number in matrix)
    # TensorFlow's centres are at whole numbers
    matrix = [a, b, (a + b - 1) / 2 + c, d, e, (d + e - 1) / 2 + f, 0.0, 0.0]
    backdrop = tf.broadcast_to(tf.constant(fill, tf.float32), tf.shape(pixels))
    found = tf.raw_ops.ImageProjectiveTransformV3(
        images=(pixels - backdrop)[tf.newaxis],
        transforms=tf.stack(matrix)[tf.newaxis],
        output_shape=tf.shape(pixels)[:2],
        fill_value=0.0,  # one number for all channels
        interpolation="BILINEAR",
        fill_mode="CONSTANT",
    )
    return tf.floor(found[0] + backdrop + EPSILON)


def _blend(from_, to, factor):
    """Go from one to the other, or past it, and cut off what is no level (ImageEnhance)."""
    return tf.floor(tf.clip_by_value(from_ + factor * (to - from_), 0.0, 255.0))


def _grey(pixels):
    """Give the grey of each pixel, three times."""
    weights = tf.constant([[weight] * 3 for weight in GREY])  # a sum below 2**24: exact
    grey = tf.linalg.matmul(tf.reshape(pixels, [-1, 3]), weights)
    return tf.reshape(tf.floor((grey + 2**15) / 2**16), tf.shape(pixels))


def _rows(pixels):
    """Give the pixels as [height, 3 * width], and the width."""
    height, width = tf.unstack(tf.shape(pixels)[:2])
    return tf.reshape(pixels, [height, 3 * width]), width
