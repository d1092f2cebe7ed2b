"""Drop path in training, on one and two replicas and after a cut."""

import os
import signal

import keras
import numpy as np
import pytest
import tensorflow as tf

from kit.signals import Preempted
from kit.training import trainer
from kit.training.checkpoint import seeds_of
from kit.training.layers import draw_drop_path_once
from tests.images import make_shards
from tests.networks import compile_model
from tests.small_training import NETWORK, train

IMAGES = np.random.default_rng(0).normal(size=(50, 2, 2, 3)).astype("float32")


def network():
    """Give a network of one Dropout layer, that skips each image by a chance of 0.3."""
    layer = keras.layers.Dropout(0.3, (None, 1, 1, 1), seed=5)
    return keras.Sequential([keras.Input((2, 2, 3)), layer])


def test_one_device_skips_what_keras_would():
    theirs, ours = network(), network()
    draw_drop_path_once(ours)
    for _ in range(3):
        found = ours(IMAGES, training=True).numpy()
        np.testing.assert_allclose(found, theirs(IMAGES, training=True), rtol=1e-6)
    assert 0 < np.count_nonzero(found[:, 0, 0, 0] == 0) < 50
    np.testing.assert_array_equal(ours(IMAGES), IMAGES)


def test_two_replicas_skip_what_one_would(two_replicas):
    one = network()
    with two_replicas.scope():
        two = network()
    draw_drop_path_once(two)
    shares = two_replicas.experimental_distribute_dataset(
        tf.data.Dataset.from_tensors(IMAGES).unbatch().batch(50).repeat(3)
    )
    step = tf.function(lambda share: two_replicas.run(two, [share], {"training": True}))
    for share in shares:
        found = np.concatenate(two_replicas.experimental_local_results(step(share)))
        np.testing.assert_allclose(found, one(IMAGES, training=True), rtol=1e-6)


def test_a_run_that_was_cut_skips_what_it_would_have(one_replica, tmp_path):
    data_dir = make_shards(tmp_path, classes=3, images=12, train_shards=4)

    def run(name, cut=None):
        def stop(batch, logs):
            if batch + 1 == cut:
                os.kill(os.getpid(), signal.SIGTERM)

        trainer.set_seed(0, deterministic=True)
        model = compile_model(one_replica, **NETWORK | {"drop_path": 0.6})
        callbacks = [keras.callbacks.LambdaCallback(on_train_batch_end=stop)]
        train(model, data_dir, tmp_path / name, epochs=1, callbacks=callbacks)
        return [variable.numpy() for variable in [*model.weights, *seeds_of(model)]]

    whole = run("whole")
    with pytest.raises(Preempted):
        run("cut", cut=5)
    for ours, expected in zip(run("cut"), whole, strict=True):
        np.testing.assert_array_equal(ours, expected)
