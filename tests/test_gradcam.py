import keras
import numpy as np
import pytest
import tensorflow as tf

from kit.evaluation.gradcam import gradcam
from tests.networks import network


def small(version):
    keras.utils.set_random_seed(0)
    settings = {"stage_sizes": [1, 1, 1, 1], "batch_norm_momentum": 0.9}
    model = network(classes=5, width=4, resnet_version=version, **settings)
    head = model.get_layer("logits")
    head.kernel.assign(np.random.default_rng(0).normal(0.5, 1, head.kernel.shape))
    return model


def by_gradients(model, pixels, class_number):
    """Selvaraju et al. 2017, equations 1 and 2, with the gradients that a tape finds."""
    pool = model.get_layer("head_pool")
    both = keras.Model(model.input, [pool.input, model.output])
    with tf.GradientTape() as tape:
        maps, logits = both(pixels[np.newaxis], training=False)
        own = logits[0, class_number]
    alpha = tf.reduce_mean(tape.gradient(own, maps), axis=(1, 2))[0]
    heat = tf.nn.relu(tf.reduce_sum(alpha * maps[0], axis=-1, keepdims=True))
    heat = tf.image.resize(heat, pixels.shape[:2])[..., 0].numpy()
    return heat / heat.max()


@pytest.mark.parametrize("version", ["1.5", "2"])
def test_it_is_grad_cam_as_its_paper_computes_it(version):
    model = small(version)
    pixels = np.random.default_rng(1).integers(0, 256, (64, 96, 3), dtype="uint8")
    for class_number in range(2):
        heat = gradcam(model, pixels, class_number)
        assert heat.shape == (64, 96) and heat.min() >= 0 and heat.max() == 1
        expected = by_gradients(model, pixels, class_number)
        np.testing.assert_allclose(heat, expected, rtol=1e-4, atol=1e-6)


def test_an_image_without_evidence_is_all_cold():
    model = small("1.5")
    head = model.get_layer("logits")
    head.kernel.assign(-np.ones(head.kernel.shape))  # the maps come from a ReLU
    pixels = np.random.default_rng(1).integers(0, 256, (32, 32, 3), dtype="uint8")
    np.testing.assert_array_equal(gradcam(model, pixels, 0), np.zeros([32, 32]))


def test_a_network_in_bfloat16_gives_nearly_the_same():
    model = small("1.5")
    keras.config.set_dtype_policy("mixed_bfloat16")
    rough = small("1.5")
    rough.set_weights(model.get_weights())
    pixels = np.random.default_rng(1).integers(0, 256, (64, 64, 3), dtype="uint8")
    np.testing.assert_allclose(gradcam(rough, pixels, 0), gradcam(model, pixels, 0), atol=0.05)
