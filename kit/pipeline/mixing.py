"""Mixup and cutmix: batches of images and labels, each mixed with another of its batch.

Zhang et al. 2017 (arxiv.org/abs/1710.09412) and Yun et al. 2019 (arxiv.org/abs/1905.04899), one
ratio to a batch, as timm (timm/data/mixup.py) and torchvision have them. With both, each batch gets
one or the other, as often. As in torchvision the partner is the image before, where timm takes the
batch backwards.
"""

import tensorflow as tf

from kit.pipeline import preprocessing

MIX = 6  # purpose of a step's seed; order.py and augment.py have the others


def mixer(mixing, *, classes, seed, start_step):
    """Give the transformation that mixes a dataset of batches, the first of which is start_step's.

    How a batch is mixed depends on `seed` and its step alone. The rest is said at `mixed`.
    """

    def mix(step, batch):
        return mixed(*batch, [seed, step], mixing, classes=classes)

    if not mixing.mixup and not mixing.cutmix:
        return lambda batches: batches
    return lambda batches: batches.enumerate(start_step).map(mix, 2)


def mixed(images, labels, seed, mixing, *, classes):
    """Mix each image with one before it in the batch, the first with the last.

    `mixing` is the section Mixing: `mixup` and `cutmix` are the alphas of the Beta(alpha, alpha)
    distribution of the ratio; 0: not this one. The other image stands `repeated_augmentation`
    before, or it would be another crop of the same. images: uint8 [batch, height, width, 3], and so
    are those given; labels: int64 [batch] become float32 [batch, classes], the shares of the
    classes in each image.
    """
    mixup, cutmix, partner = mixing.mixup, mixing.cutmix, mixing.repeated_augmentation
    seed = preprocessing.fold_in(seed, MIX)
    uniform = tf.random.stateless_uniform([3], seed, dtype=tf.float64)
    cut = uniform[0] < (0.5 if mixup and cutmix else 1.0 if cutmix else 0.0)
    share = _beta(tf.where(cut, cutmix, mixup), preprocessing.fold_in(seed, 1))
    others = tf.roll(images, partner, axis=0)
    height, width = images.shape[1:3]
    window = patch(height, width, share, uniform[1:])
    mixed_images, share = tf.cond(
        cut,
        lambda: (pasted(images, others, window), _outside(height, width, window)),
        lambda: (blended(images, others, share), share),
    )
    share = tf.cast(share, tf.float32)
    labels = tf.one_hot(labels, classes)
    mixed_labels = share * labels + (1 - share) * tf.roll(labels, partner, axis=0)
    return tf.ensure_shape(mixed_images, images.shape), mixed_labels


def blended(images, others, share):
    """Give `share` of each image and the rest of its other one, to the nearest level."""
    share = tf.cast(share, tf.float32)

    def blend(number):  # one by one they stay in the processor's cache
        image, other = (tf.cast(some[number], tf.float32) for some in (images, others))
        return tf.cast(tf.round(share * image + (1 - share) * other), tf.uint8)

    return tf.map_fn(blend, tf.range(tf.shape(images)[0]), fn_output_signature=tf.uint8)


def pasted(images, others, window):
    """Give the images with the window (top, bottom, left, right) of the other ones in its place."""
    top, bottom, left, right = window
    middle = [
        images[:, top:bottom, :left],
        others[:, top:bottom, left:right],
        images[:, top:bottom, right:],
    ]
    return tf.concat([images[:, :top], tf.concat(middle, axis=2), images[:, bottom:]], axis=1)


def patch(height, width, share, centre):
    """Give the window (top, bottom, left, right), in pixels, that leaves `share` of the image.

    `centre` is two numbers in [0, 1), shares of the sides; what sticks out is cut off, which leaves
    more of the image (rand_bbox of both papers' code, odd sizes as in timm).
    """
    window = []
    for size, middle in zip((height, width), tf.unstack(centre), strict=True):
        length = tf.cast(size * tf.sqrt(1 - share), tf.int32)
        middle = tf.cast(size * middle, tf.int32)
        ends = [middle - length // 2, middle + (length + 1) // 2]
        window += [tf.clip_by_value(end, 0, size) for end in ends]
    return window


def _outside(height, width, window):
    """Give the share of the image that is not in the window."""
    top, bottom, left, right = window
    return 1 - tf.cast((bottom - top) * (right - left), tf.float64) / (height * width)


def _beta(alpha, seed):
    """Draw from Beta(alpha, alpha); of a small alpha, float32 would often hold 0 / 0."""
    alpha = tf.cast(alpha, tf.float64)
    one, other = tf.unstack(tf.random.stateless_gamma([2], seed, alpha, dtype=tf.float64))
    return tf.math.divide_no_nan(one, one + other)
