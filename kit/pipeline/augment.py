"""Changes of a training image after its crop and flip: uint8 in, uint8 out, chosen by a seed.

RandAugment as timm has it in its recipes (rand-m7-mstd0.5-inc1; Cubuk et al. 2019, as changed in
timm/data/auto_augment.py), TrivialAugmentWide as torchvision does (Müller and Hutter 2021,
torchvision/transforms/autoaugment.py), and random erasing (Zhong et al. 2017, as in torchvision).
"""

import functools

import tensorflow as tf

from kit.pipeline import operations as op
from kit.pipeline import preprocessing

LAYERS = 2  # operations of rand_augment on each image: of all published recipes here
MAGNITUDES = 10.0  # timm's scale
SPREAD = 0.5  # standard deviation of a magnitude on that scale: timm's mstd0.5
SHARE_APPLIED = 0.5  # of the operations that rand_augment chooses: timm's prob
BINS = 31  # strengths of trivial_augment
ERASED_AREA = (0.02, 0.33)  # share of the image; torchvision's defaults
ERASED_ASPECT = (0.3, 3.3)  # height over width
ERASING_ATTEMPTS = 10
BLACK = (0, 0, 0)
AUGMENT, ERASE = 4, 5  # purposes of an image's seed; order.py has the others


def augmented(image, seed, augmentation, *, fill):
    """Give the image [height, width, 3] uint8 changed as the section Augmentation says.

    The same two integers as `seed` change it alike. Pixels of which nothing is known become `fill`,
    R, G and B in [0, 255], or black in trivial_augment, as torchvision's recipe has it.
    """
    fill = [round(level) for level in fill]
    if augmentation.augmentation == "rand_augment":
        image = rand_augment(image, seed, augmentation.augmentation_magnitude, fill=fill)
    elif augmentation.augmentation == "trivial_augment":
        image = trivial_augment(image, seed)
    share = augmentation.random_erasing
    return erased(image, seed, share=share, fill=fill) if share else image


def rand_augment(image, seed, magnitude, *, fill):
    """Apply LAYERS operations in a row, each with a probability of a half.

    Magnitudes are normally distributed around `magnitude`, of 10. Where timm interpolates half of
    the time bicubically, this is always bilinear.
    """
    seed = preprocessing.fold_in(seed, AUGMENT)
    spread = tf.random.stateless_normal([LAYERS], preprocessing.fold_in(seed, 1), stddev=SPREAD)
    levels = tf.clip_by_value((magnitude + spread) / MAGNITUDES, 0.0, 1.0)
    uniform = tf.random.stateless_uniform([LAYERS, 3], seed)
    pixels = tf.cast(image, tf.float32)
    for layer in range(LAYERS):
        chosen, side, applied = tf.unstack(uniform[layer])
        operations = rand_operations(levels[layer], _sign(side), fill=fill, shape=image.shape)
        pixels = _one_of(operations, chosen, pixels, applied=applied < SHARE_APPLIED)
    return tf.cast(pixels, tf.uint8)


def trivial_augment(image, seed):
    """Apply one operation, at one of 31 strengths."""
    uniform = tf.random.stateless_uniform([3], preprocessing.fold_in(seed, AUGMENT))
    chosen, side, strength = tf.unstack(uniform)
    operations = trivial_operations(tf.floor(strength * BINS) / (BINS - 1), _sign(side))
    return tf.cast(_one_of(operations, chosen, tf.cast(image, tf.float32)), tf.uint8)


def rand_operations(level, sign, *, fill, shape):
    """Give the operations of timm's set that increase with the level (0 to 1), in its order.

    Each is a function of operations.py with its arguments after the pixels.
    """
    height, width = shape[:2]
    factor = tf.maximum(1 + sign * 0.9 * level, 0.1)
    return [
        (op.auto_contrast,),
        (op.equalize,),
        (op.invert,),
        (op.rotate, sign * 30 * level, fill),
        (op.posterize, 4 - tf.floor(4 * level)),
        (op.solarize, 256 - tf.floor(256 * level)),
        (op.solarize_add, tf.floor(110 * level)),
        (op.colour, factor),
        (op.contrast, factor),
        (op.brightness, factor),
        (op.sharpness, factor),
        (op.shear_x, sign * 0.3 * level, fill),
        (op.shear_y, sign * 0.3 * level, fill),
        (op.translate_x, sign * 0.45 * level * width, fill),
        (op.translate_y, sign * 0.45 * level * height, fill),
    ]


def trivial_operations(level, sign):
    """Give torchvision's operations at the level (0 to 1), in its order, like rand_operations."""
    factor = 1 + sign * 0.99 * level
    return [
        (tf.identity,),
        (op.shear_x, sign * 0.99 * level, BLACK),
        (op.shear_y, sign * 0.99 * level, BLACK),
        (op.translate_x, sign * tf.floor(32 * level), BLACK),
        (op.translate_y, sign * tf.floor(32 * level), BLACK),
        (op.rotate, sign * 135 * level, BLACK),
        (op.brightness, factor),
        (op.colour, factor),
        (op.contrast, factor),
        (op.sharpness, factor),
        (op.posterize, 8 - tf.round(6 * level)),
        (op.solarize, 255 * (1 - level)),
        (op.auto_contrast,),
        (op.equalize,),
    ]


def erased(image, seed, *, share, fill):
    """Paint a rectangle over, on so large a share of the images.

    Of ten tries the first rectangle counts that is smaller than the image both ways; where there is
    none the image stays.
    """
    seed = preprocessing.fold_in(seed, ERASE)

    def erase():
        top, bottom, left, right = rectangle(*image.shape[:2], preprocessing.fold_in(seed, 1))
        rows, columns = (tf.range(size) for size in image.shape[:2])
        inside = ((rows >= top) & (rows < bottom))[:, tf.newaxis] & (columns >= left)
        inside &= columns < right
        return tf.where(inside[..., tf.newaxis], tf.constant(fill, tf.uint8), image)

    return tf.cond(tf.random.stateless_uniform([], seed) < share, erase, lambda: image)


def rectangle(image_height, image_width, seed):
    """Give what is erased: top, bottom, left, right, in pixels; an empty one where none fits."""
    uniform = tf.random.stateless_uniform([ERASING_ATTEMPTS, 4], seed)
    area, aspect, top, left = tf.unstack(uniform, axis=1)
    area = _between(ERASED_AREA, area) * image_height * image_width
    aspect = tf.exp(_between(tf.math.log(ERASED_ASPECT), aspect))
    height, width = tf.round(tf.sqrt(area * aspect)), tf.round(tf.sqrt(area / aspect))
    fits = (height < image_height) & (width < image_width)
    top = tf.floor(top * (image_height - height + 1))
    left = tf.floor(left * (image_width - width + 1))
    found = tf.stack([top, top + height, left, left + width])[:, tf.argmax(fits)]
    return tf.unstack(tf.cast(tf.where(tf.reduce_any(fits), found, 0), tf.int32))


def _one_of(operations, uniform, pixels, *, applied=True):
    """Apply the operation that a number in [0, 1) means, all being as likely."""
    index = tf.cast(uniform * len(operations), tf.int32)
    branches = [functools.partial(function, pixels, *how) for function, *how in operations]
    changed = tf.switch_case(
        tf.where(applied, index, -1), branches, default=lambda: tf.identity(pixels)
    )
    return tf.ensure_shape(changed, pixels.shape)


def _sign(uniform):
    return tf.where(uniform < 0.5, 1.0, -1.0)


def _between(ends, uniform):
    return ends[0] + uniform * (ends[1] - ends[0])
