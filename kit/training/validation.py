"""The validation's batches as a training reads them: all of one shape, and read ahead."""

import tensorflow as tf


def padded(batches, size):
    """Fill batches up to `size` with black images of label -1, which a TrainingModel leaves out."""

    def fill(images, labels):
        missing = size - tf.shape(labels)[0]
        images = tf.pad(images, [[0, missing], [0, 0], [0, 0], [0, 0]])
        labels = tf.pad(labels, [[0, missing]], constant_values=-1)
        return tf.ensure_shape(images, [size, *images.shape[1:]]), tf.ensure_shape(labels, [size])

    return batches.map(fill).prefetch(1)


def read_ahead(batches):
    """Return (batches without end, steps of one pass), for `fit`'s validation_data and _steps.

    With `keep_reading` one iterator serves all epochs, and fills its buffers with the next pass
    while the network trains. Of a dataset of unknown length (batches, None): each pass begins anew.
    """
    steps = int(batches.cardinality())
    return (batches.repeat(), steps) if steps > 0 else (batches, None)


def keep_reading(epoch_iterator):
    """Let Keras' EpochIterator over endless batches go on where its last pass ended.

    Its own reset drops what is read ahead, and waits until the readers have ended: for seconds.
    """

    def reset():
        epoch_iterator._steps_seen, epoch_iterator._epoch_iterator = 0, None

    if epoch_iterator.steps_per_epoch and epoch_iterator._num_batches is None:
        epoch_iterator.reset = reset
