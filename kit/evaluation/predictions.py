"""Scores the validation images with a trained model: each once, in the shards' order."""

import math
from functools import lru_cache, partial

import numpy as np
import tensorflow as tf

from kit.pipeline.preprocessing import evaluation_image
from kit.pipeline.undecodable import naming_undecodable


def predict(model, dataset, *, images, data_dir=""):
    """Score each image of `dataset` once: labels int64 [images], logits float32 [images, classes].

    `dataset` gives batches (pixels, labels), the last one of any size. Where pixels are
    [batch, views, height, width, 3], the probabilities of an image's views are averaged, and the
    logits are their logarithms (Krizhevsky et al. 2012, section 4.1). `images` is the manifest's
    count: ValueError when another number came out, so that no image is lost in silence, and for one
    of `data_dir` that cannot be decoded.
    """
    if not images:
        raise ValueError("the validation split has no image to score; prepare data_dir again")
    forward = _compiled(model)
    labels, logits = [], []
    with naming_undecodable(data_dir):
        for pixels, batch_labels in dataset:
            labels.append(batch_labels.numpy())
            *_, height, width, channels = pixels.shape
            found = forward(tf.reshape(pixels, [-1, height, width, channels]))
            if pixels.shape.rank == 5:
                views = tf.reshape(tf.nn.log_softmax(found), [*pixels.shape[:2], -1])
                found = tf.reduce_logsumexp(views, axis=1) - math.log(pixels.shape[1])
            logits.append(found.numpy())
    scored = sum(map(len, labels))
    if scored != images:
        raise ValueError(
            f"{scored} images were scored where the manifest counts {images}: the shards are not "
            "the manifest's; verify data_dir, or prepare it again"
        )
    return np.concatenate(labels), np.concatenate(logits)


@lru_cache(maxsize=1)
def _compiled(model):
    """Trace the network once, for batches of any size and images of any size."""
    pixels = tf.TensorSpec([None, None, None, 3], tf.uint8)
    return tf.function(partial(model, training=False), input_signature=[pixels], autograph=False)


def file_names(examples):
    """Read the name of each image's file, in the examples' order; none is decoded."""
    names = examples.map(lambda example: example["filename"]).batch(1024)
    return [name.decode() for batch in names for name in batch.numpy()]


def images_at(examples, positions, **sizes):
    """Give what the network sees of the images at these positions: uint8 [image_size, .., 3] each.

    `examples` are those of kit.pipeline.dataset.encoded_examples, `sizes` what evaluation_image
    takes.
    """
    return [
        evaluation_image(example["encoded"], **sizes).numpy()
        for example in examples_at(examples, positions)
    ]


def examples_at(dataset, positions):
    """Read the elements at these positions of an unbatched dataset, in the order asked for."""
    wanted = tf.constant(sorted(set(positions)), tf.int64)
    found = (
        dataset.enumerate()
        .filter(lambda position, _: tf.reduce_any(position == wanted))
        .take(len(wanted))  # stop reading after the last
    )
    by_position = {int(position): example for position, example in found}
    return [by_position[position] for position in positions]
