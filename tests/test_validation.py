"""Reading of the validation's batches during a training."""

import time

import keras
import numpy as np
import pytest
import tensorflow as tf
from replicated_run import batches, compiled

from kit.training.validation import padded, read_ahead

IMAGES, LABELS = batches()
SPEC = (tf.TensorSpec([None, 32, 32, 3], tf.uint8), tf.TensorSpec([None], tf.int64))


def noting(read, *, count=3):
    """Give a dataset of so many batches, which notes in `read` when each is read."""

    def generate():
        for number in range(count):
            read.append(number)
            yield IMAGES[number], LABELS[number]

    return tf.data.Dataset.from_generator(generate, output_signature=SPEC)


def waiting_for(condition, seconds=20):
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.01)
    return condition()


def test_the_next_validation_is_read_before_its_epoch_ends(one_replica):
    read, ahead, values = [], [], []
    known = noting(read).apply(tf.data.experimental.assert_cardinality(3))
    validation, steps = read_ahead(padded(known, 8))
    model = compiled(one_replica)
    watch = keras.callbacks.LambdaCallback(
        on_epoch_begin=lambda epoch, logs: (
            epoch and ahead.append(waiting_for(lambda: len(read) > 3 * epoch))
        ),
        on_epoch_end=lambda epoch, logs: values.append(
            (logs["val_loss"], model.evaluate(noting([]), verbose=0, return_dict=True)["loss"])
        ),
    )
    model.fit(
        tf.data.Dataset.from_tensors((IMAGES[0], LABELS[0])).repeat(),
        validation_data=validation,
        validation_steps=steps,
        epochs=3,
        steps_per_epoch=1,
        callbacks=[watch],
        verbose=0,
    )
    assert ahead == [True, True]
    assert read.count(0) <= 6  # three passes, and what is buffered; dropped each time, it were nine
    for found, expected in values:  # each image once, in every pass
        assert found == pytest.approx(expected, rel=1e-6)


def test_a_dataset_of_unknown_length_begins_anew_for_each_validation():
    validation, steps = read_ahead(noting([]))
    assert steps is None
    assert len(list(validation)) == 3


def test_padding_is_black_and_has_no_label():
    [(images, labels)] = padded(noting([], count=1), 10)
    np.testing.assert_array_equal(images[:8], IMAGES[0])
    assert not images[8:].numpy().any()
    assert labels.numpy().tolist() == [*LABELS[0], -1, -1]
