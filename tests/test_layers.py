import keras
import numpy as np
import pytest
import tensorflow as tf

from kit.training.layers import fuse_batch_norms


def pair(precision="float32", **options):
    """Give the same network twice, Keras' own and fused, with batch norm not at its start."""
    models = []
    for _ in range(2):
        images = keras.Input((6, 5, 3))
        norm = keras.layers.BatchNormalization(
            momentum=0.9, epsilon=1e-3, dtype=precision, name="norm", **options
        )
        models.append(keras.Model(images, norm(images)))
    rng = np.random.default_rng(1)
    weights = [rng.uniform(0.5, 2, 3), *rng.normal(size=(2, 3)), rng.uniform(0.5, 2, 3)]
    for model in models:
        model.set_weights(weights)
    fuse_batch_norms(models[1])
    return models


def pixels(seed=0):
    return np.random.default_rng(seed).normal(3, 2, (4, 6, 5, 3)).astype("float32")


def passed(model, images, training):
    """Give outputs, gradients by input and weights, and the variables afterwards."""
    images = tf.constant(images)
    with tf.GradientTape() as tape:
        tape.watch(images)
        outputs = model(images, training=training)
        loss = tf.reduce_sum(tf.cast(outputs, tf.float32) * pixels(7))
    gradients = tape.gradient(loss, [images, *(w.value for w in model.trainable_weights)])
    return [outputs, *(g for g in gradients if g is not None), *model.get_weights()]


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("trainable", [True, False])
@pytest.mark.parametrize(("precision", "tolerance"), [("float32", 2e-5), ("mixed_bfloat16", 2e-2)])
def test_fused_batch_norm_computes_what_keras_does(training, trainable, precision, tolerance):
    plain, fused = pair(precision)
    for model in (plain, fused):
        model.get_layer("norm").trainable = trainable
    for expected, got in zip(
        passed(plain, pixels(), training), passed(fused, pixels(), training), strict=True
    ):
        expected, got = (np.asarray(tf.cast(value, tf.float32)) for value in (expected, got))
        assert np.max(np.abs(got - expected)) <= tolerance * np.max(np.abs(expected))


def test_moving_statistics_are_those_of_numpy():
    _, fused = pair()
    _, _, mean, variance = fused.get_weights()
    fused(pixels(), training=True)
    expected = [
        0.9 * mean + 0.1 * pixels().mean((0, 1, 2)),
        0.9 * variance + 0.1 * pixels().var((0, 1, 2)),
    ]
    np.testing.assert_allclose(fused.get_weights()[2:], expected, rtol=1e-5)


def test_a_saved_model_is_plain_keras(tmp_path):
    _, fused = pair()
    fused.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert type(loaded.get_layer("norm")) is keras.layers.BatchNormalization
    assert "call" not in vars(loaded.get_layer("norm"))
    np.testing.assert_allclose(loaded(pixels()), fused(pixels()), atol=1e-5)


def test_synchronized_batch_norm_stays_keras_own():
    _, synchronized = pair(synchronized=True)
    assert "call" not in vars(synchronized.get_layer("norm"))
