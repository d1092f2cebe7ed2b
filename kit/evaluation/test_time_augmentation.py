"""Other views of the validation images than the single centre crop, and other sizes."""

import tensorflow as tf

from kit.machine import cores
from kit.pipeline import dataset, preprocessing


def _flip(image, size, antialias):
    """Give the centre and its mirror image."""
    centre = preprocessing.centre_crop(image, size, antialias)
    return tf.stack([centre, tf.image.flip_left_right(centre)])


def _ten_crop(image, size, antialias):
    """Give the corners, the centre and their mirror images (Krizhevsky et al. 2012)."""
    top, bottom = image[:size], image[-size:]
    corners = [top[:, :size], top[:, -size:], bottom[:, :size], bottom[:, -size:]]
    five = tf.stack([preprocessing.centre_crop(image, size, antialias), *corners])
    return tf.concat([five, tf.image.flip_left_right(five)], axis=0)


VIEWS = {"centre": (preprocessing.centre_crop, 1), "flip": (_flip, 2), "ten_crop": (_ten_crop, 10)}


def batches(examples, view, batch_size, *, image_size, resize_side, antialias=False):
    """Give batches (pixels uint8, labels) of unbatched, encoded examples, in their order.

    Pixels are [batch, image_size, image_size, 3] for `view` "centre"; the other views have a second
    axis of 2 or 10 crops, all of which `batch_size` counts. Each image is first resized by
    `resize_short_side`.
    """
    cut, views = VIEWS[view]

    def crop(example):
        image = preprocessing.decode(example["encoded"])
        image = preprocessing.resize_short_side(image, resize_side, antialias)
        return cut(image, image_size, antialias), example["label"]

    return (
        examples.map(crop, num_parallel_calls=cores(), deterministic=True)
        .batch(max(1, batch_size // views))
        .prefetch(2)
        .with_options(dataset.options())
    )


def side_for(size, *, image_size, resize_side):
    """Return the short side for a crop of `size`, in the proportion of the single crop's."""
    return round(size * resize_side / image_size)
