"""Other views of the validation images than the single centre crop, and other sizes."""

import tensorflow as tf

from kit.machine import cores
from kit.pipeline import dataset, preprocessing


def _centre(image, centre):
    return centre


def _flip(image, centre):
    """Give the centre and its mirror image."""
    return tf.stack([centre, tf.image.flip_left_right(centre)])


def _ten_crop(image, centre):
    """Give the corners, the centre and their mirror images (Krizhevsky et al. 2012)."""
    size = len(centre)
    top, bottom = image[:size], image[-size:]
    corners = [top[:, :size], top[:, -size:], bottom[:, :size], bottom[:, -size:]]
    five = tf.stack([centre, *corners])
    return tf.concat([five, tf.image.flip_left_right(five)], axis=0)


VIEWS = {
    "centre": (_centre, 1),
    "flip": (_flip, 2),
    "ten_crop": (_ten_crop, 10),
}


def batches(examples, view, batch_size, **sizes):
    """Give batches (pixels uint8, labels) of unbatched, encoded examples, in their order.

    Pixels are [batch, image_size, image_size, 3] for `view` "centre"; the other views have a second
    axis of 2 or 10 crops, all of which `batch_size` counts. `sizes` are those of
    `preprocessing.evaluation_image`.
    """
    cut, views = VIEWS[view]

    def crop(example):
        image = preprocessing.decode(example["encoded"])
        return cut(*preprocessing.resized_and_centre(image, **sizes)), example["label"]

    return (
        examples.map(crop, num_parallel_calls=cores(), deterministic=True)
        .batch(max(1, batch_size // views))
        .prefetch(2)
        .with_options(dataset.options())
    )


def side_for(size, *, image_size, resize_side):
    """Return the short side for a crop of `size`, in the proportion of the single crop's."""
    return round(size * resize_side / image_size)
