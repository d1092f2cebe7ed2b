import functools

import keras
import numpy as np
import pytest
import tensorflow as tf

from kit.model.folding import deployable, foldable, in_float32
from tests.networks import network

SMALL = {"classes": 7, "width": 4, "stage_sizes": (1, 2), "batch_norm_momentum": 0.5}


@functools.cache
def trained(precision="float32", **changes):
    """A network whose batch norms have statistics, scales and shifts that differ from the first."""
    keras.config.set_dtype_policy(precision)
    model = network(**SMALL | changes)
    keras.config.set_dtype_policy("float32")
    for _ in range(5):  # the moving statistics near those of the activations
        model(pixels().astype("float32"), training=True)
    rng = np.random.default_rng(1)
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.gamma.assign(rng.uniform(0.5, 1.5, layer.gamma.shape))
            layer.beta.assign(rng.normal(0, 0.3, layer.beta.shape))
    head = model.get_layer("logits").kernel
    head.assign(rng.normal(0, 0.3, head.shape))  # else all classes are nearly as likely
    return model


def pixels(size=32):
    return np.random.default_rng(0).integers(0, 256, (4, size, size, 3), np.uint8)


def log_probabilities(model):
    return keras.ops.log_softmax(model(pixels().astype("float32"), training=False)).numpy()


def norms(model):
    kind = keras.layers.BatchNormalization
    return [layer.name for layer in model.layers if isinstance(layer, kind)]


@pytest.mark.parametrize("version", ["1", "1.5", "2"])
@pytest.mark.parametrize("batch_norm", ["per_replica", "synchronized"])
def test_folded_network_gives_the_same_probabilities(version, batch_norm):
    model = trained(resnet_version=version, batch_norm=batch_norm)
    found = deployable(model, image_size=32)(pixels()).numpy()
    assert np.ptp(log_probabilities(model), axis=1).min() > 0.3  # there is something to compare
    np.testing.assert_allclose(np.log(found), log_probabilities(model), atol=1e-4)
    np.testing.assert_allclose(found.sum(axis=1), 1, atol=1e-6)


def test_every_batch_norm_after_a_convolution_is_folded():
    assert norms(deployable(trained(), image_size=32)) == []
    left = norms(deployable(trained(resnet_version="2"), image_size=32))
    assert left == [  # those that come before a convolution and after a sum
        "stage1_block1_norm1",
        "stage2_block1_norm1",
        "stage2_block2_norm1",
        "head_norm",
    ]


def test_one_convolution_is_folded_as_on_paper():
    images = keras.Input((None, None, 3))
    x = keras.layers.Rescaling(1.0)(images)
    x = keras.layers.Conv2D(1, 1, use_bias=False, kernel_initializer="ones", name="conv")(x)
    x = keras.layers.BatchNormalization(epsilon=0.0, name="norm")(x)
    model = keras.Model(images, keras.layers.GlobalAveragePooling2D()(x))
    gamma_beta_mean_variance = [np.full(1, value) for value in (3.0, 5.0, 7.0, 4.0)]
    model.get_layer("norm").set_weights(gamma_beta_mean_variance)
    folded = deployable(model, image_size=2)
    kernel, bias = folded.get_layer("conv").get_weights()
    np.testing.assert_allclose(kernel.ravel(), [3 / 2] * 3)
    np.testing.assert_allclose(bias, [5 - 7 * 3 / 2])


def test_convolution_read_twice_is_not_folded():
    images = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(3, 1)(keras.layers.Rescaling(1 / 255)(images))
    x = keras.layers.Add()([x, keras.layers.BatchNormalization(name="norm")(x)])
    model = keras.Model(images, keras.layers.GlobalAveragePooling2D()(x))
    model.get_layer("norm").set_weights([np.full(3, value) for value in (2.0, 1.0, 3.0, 4.0)])
    folded = deployable(model, image_size=8)
    assert norms(folded) == ["norm"]
    expected = tf.nn.softmax(model(pixels(8).astype("float32"))).numpy()
    np.testing.assert_allclose(folded(pixels(8)).numpy(), expected, rtol=1e-4)


def test_convolution_with_an_activation_is_not_folded():
    images = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(3, 1, activation="relu")(keras.layers.Rescaling(1 / 255)(images))
    x = keras.layers.BatchNormalization(name="norm")(x)
    model = keras.Model(images, keras.layers.GlobalAveragePooling2D()(x))
    model.get_layer("norm").set_weights([np.full(3, value) for value in (2.0, 1.0, 3.0, 4.0)])
    model.layers[2].set_weights([np.float32([[np.eye(3) * [1, -1, 1]]]), np.zeros(3)])
    folded = deployable(model, image_size=8)
    assert norms(folded) == ["norm"]
    expected = tf.nn.softmax(model(pixels(8).astype("float32"))).numpy()
    np.testing.assert_allclose(folded(pixels(8)).numpy(), expected, rtol=1e-4)


def test_convolution_that_the_model_gives_out_is_not_folded():
    images = keras.Input((8, 8, 3))
    between = keras.layers.Conv2D(3, 1)(images)
    normed = keras.layers.BatchNormalization(name="norm")(between)
    assert foldable(keras.Model(images, normed)) == {"norm": between._keras_history.operation.name}
    assert foldable(keras.Model(images, [between, normed])) == {}


def test_bfloat16_model_becomes_the_float32_one_of_the_same_weights():
    model = trained("mixed_bfloat16")
    rebuilt = in_float32(model)
    assert {layer.compute_dtype for layer in rebuilt.layers} == {"float32"}
    for ours, theirs in zip(rebuilt.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    found = deployable(model, image_size=32)(pixels()).numpy()
    np.testing.assert_allclose(np.log(found), log_probabilities(rebuilt), atol=1e-4)
    assert np.abs(log_probabilities(rebuilt) - log_probabilities(model)).max() > 1e-3


def test_what_only_training_needs_is_left_out():
    model = trained(blur_pool=True, drop_path=0.3)
    deployed = deployable(model, image_size=32)
    assert any(isinstance(layer, keras.layers.Dropout) for layer in model.layers)
    assert not any(isinstance(layer, keras.layers.Dropout) for layer in deployed.layers)
    assert model.losses and not deployed.losses
    found = np.log(deployed(pixels()).numpy())
    np.testing.assert_allclose(found, log_probabilities(model), atol=1e-4)


def test_model_itself_is_left_as_it_was():
    model = trained()
    before = model.get_weights(), norms(model)
    deployable(model, image_size=32)
    for ours, theirs in zip(model.get_weights(), before[0], strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert norms(model) == before[1]
