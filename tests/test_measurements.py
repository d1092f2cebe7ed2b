"""Speed and the wait for input, of a training whose limit is known."""

import time

import keras
import pytest
import tensorflow as tf
from kit.training.measurements import Measurements, input_bound

from kit.training import trainer
from tests.test_trainer import SETTINGS, batches

STEPS = 4
SLOW = 0.25  # seconds, many times what the rest of a step takes


class Slow(keras.callbacks.Callback):
    def on_train_batch_end(self, batch, logs=None):
        time.sleep(SLOW)


@pytest.fixture(scope="module")
def model():
    return trainer.compile_model(tf.distribute.get_strategy(), **SETTINGS)


def measure(model, *, input_seconds=0.0, step_seconds=0.0, steps=STEPS):
    images, labels = batches(steps)

    def slowly():
        for batch in zip(images, labels, strict=True):
            time.sleep(input_seconds)
            yield batch

    signature = tf.TensorSpec([8, 32, 32, 3], "uint8"), tf.TensorSpec([8], "int64")
    data = tf.data.Dataset.from_generator(slowly, output_signature=signature).repeat()
    slow = [Slow()] if step_seconds else []
    measurements = Measurements(batch_size=8)
    history = model.fit(
        data,
        steps_per_epoch=steps,
        epochs=2,
        callbacks=[*slow, measurements],
        shuffle=False,
        verbose=0,
    )
    return {name: values[-1] for name, values in history.history.items()}


def test_a_slow_input_is_the_limit(model):
    logs = measure(model, input_seconds=SLOW)
    assert 0.5 < logs["input_wait"] <= 1
    assert logs["images_per_second"] == pytest.approx(8 / SLOW, rel=0.4)
    assert input_bound(logs["input_wait"]).startswith("input-bound: yes")


def test_a_slow_step_is_the_limit(model):
    logs = measure(model, step_seconds=SLOW)
    assert 0 <= logs["input_wait"] < 0.1
    assert logs["images_per_second"] == pytest.approx(8 / SLOW, rel=0.4)
    assert input_bound(logs["input_wait"]).startswith("input-bound: no")


def test_an_epoch_of_one_step_is_measured_too(model):
    logs = measure(model, step_seconds=SLOW, steps=1)
    assert 0 < logs["images_per_second"] < 8 / SLOW
    assert 0 < logs["input_wait"] < 1


@pytest.mark.parametrize(
    ("share", "words"),
    [(0, "no (0%"), (0.1, "no (10%"), (0.11, "yes (11%"), (0.874, "yes (87%")],
)
def test_input_bound_is_more_than_a_tenth_of_the_step(share, words):
    assert input_bound(share) == f"input-bound: {words} waiting)"
