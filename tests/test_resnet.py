import keras
import numpy as np
import pytest

from kit.model.resnet import resnet50

SETTINGS = {
    "channel_means": [123.68, 116.779, 103.939],
    "batch_norm": "per_replica",
    "batch_norm_momentum": 0.9,
    "batch_norm_epsilon": 1.001e-5,
    "zero_gamma": False,
    "weight_decay": 1.0e-4,
}
STAGES = [
    (64, 3),
    (128, 4),
    (256, 6),
    (512, 3),
]  # filters of the 3x3, blocks (He et al. 2015, table 1)


@pytest.fixture(scope="module", params=["1", "1.5"])
def resnet(request):
    return resnet50(classes=1000, version=request.param, **SETTINGS)


def count(weights):
    return sum(int(np.prod(weight.shape)) for weight in weights)


def test_parameters_are_those_counted_by_hand(resnet):
    kernels, norms = 7 * 7 * 3 * 64, 64
    channels = 64
    for filters, blocks in STAGES:
        kernels += channels * 4 * filters  # the projection shortcut, once per stage
        norms += 4 * filters
        for _ in range(blocks):
            kernels += channels * filters + 3 * 3 * filters * filters + filters * 4 * filters
            norms += filters + filters + 4 * filters
            channels = 4 * filters
    dense = 2048 * 1000 + 1000
    assert kernels + 2 * norms + dense == 25_557_032  # gamma and beta of each normalised channel
    assert count(resnet.trainable_weights) == 25_557_032
    assert count(resnet.non_trainable_weights) == 2 * norms == 53_120  # mean and variance


def test_version_2_parameters_are_those_counted_by_hand():
    kernels, norms = 7 * 7 * 3 * 64, 2048  # the stem is not normalised, the last sum is
    channels = 64
    for filters, blocks in STAGES:
        kernels += channels * 4 * filters
        for _ in range(blocks):
            kernels += channels * filters + 3 * 3 * filters * filters + filters * 4 * filters
            norms += channels + filters + filters  # before each convolution
            channels = 4 * filters
    model = resnet50(classes=1000, version="2", **SETTINGS)
    assert count(model.trainable_weights) == kernels + 2 * norms + 2048 * 1000 + 1000
    assert count(model.non_trainable_weights) == 2 * norms


def test_decay_falls_on_each_kernel_and_nothing_else(resnet):
    decayed = {
        weight.path
        for layer in resnet.layers
        for weight in layer.weights
        if getattr(layer, "kernel_regularizer", None) and weight is layer.kernel
    }
    assert decayed == {weight.path for weight in resnet.weights if weight.path.endswith("kernel")}
    assert len(decayed) == 1 + 3 * (3 + 4 + 6 + 3) + 4 + 1
    assert len(resnet.losses) == len(decayed)


@pytest.mark.parametrize("version, conv1, conv2", [("1", 8, 8), ("1.5", 16, 8), ("2", 16, 8)])
def test_the_stride_is_where_the_version_puts_it(version, conv1, conv2):
    model = resnet50(classes=10, version=version, width=8, stage_sizes=(1, 1), **SETTINGS)
    shapes = keras.Model(
        model.input,
        [model.get_layer(f"stage2_block1_{name}").output for name in ("conv1", "conv2")],
    )(np.zeros((1, 64, 64, 3), "uint8"))
    assert [shape.shape[1] for shape in shapes] == [conv1, conv2]


def test_version_1_gives_the_logits_of_keras_applications():
    """keras.applications.ResNet50 is another implementation of version 1, with zero biases."""
    ours = resnet50(classes=10, version="1", **SETTINGS)
    theirs = keras.applications.ResNet50(weights=None, classes=10, classifier_activation=None)
    randomise_statistics(ours)
    for layer in theirs.layers:
        if layer.weights:
            weights = ours.get_layer(our_name(layer.name)).get_weights()
            if len(weights) == 1:
                weights.append(np.zeros(weights[0].shape[-1]))  # the bias that we leave out
            layer.set_weights(weights)
    pixels = np.random.default_rng(0).integers(0, 256, (2, 224, 224, 3)).astype("uint8")
    expected = theirs(pixels - np.float32(SETTINGS["channel_means"]))
    np.testing.assert_allclose(ours(pixels), expected, rtol=0, atol=1e-4 * np.abs(expected).max())


def our_name(name):
    """Translate conv3_block1_2_bn to stage2_block1_norm2, number 0 to the shortcut."""
    if name == "predictions":
        return "logits"
    kind = "norm" if name.endswith("bn") else "conv"
    if name.startswith("conv1"):
        return f"stem_{kind}"
    stage, block, number, _ = name.split("_")
    prefix = f"stage{int(stage[-1]) - 1}_{block}"
    return f"{prefix}_shortcut_{kind}" if number == "0" else f"{prefix}_{kind}{number}"


def randomise_statistics(model):
    rng = np.random.default_rng(1)
    for weight in model.weights:
        if "norm" in weight.path:
            weight.assign(rng.uniform(0.5, 1.5, weight.shape))


def test_a_zero_gamma_starts_each_block_as_its_shortcut():
    zero = resnet50(classes=10, version="1.5", **SETTINGS | {"zero_gamma": True})
    gammas = {w.path: w for w in zero.weights if w.path.endswith("norm3/gamma")}
    assert len(gammas) == 16
    assert all(not np.any(gamma) for gamma in gammas.values())
    x = np.random.default_rng(0).integers(0, 256, (1, 64, 64, 3))
    block = keras.Model(
        zero.input,
        [zero.get_layer(f"stage1_block2_{name}").output for name in ("add", "relu3")]
        + [zero.get_layer("stage1_block1_relu3").output],
    )
    add, _, shortcut = block(x)
    np.testing.assert_array_equal(add, shortcut)


def test_logits_are_float32_and_means_exact_in_mixed_precision():
    keras.config.set_dtype_policy("mixed_bfloat16")
    model = resnet50(classes=10, version="1.5", width=8, stage_sizes=(1,), **SETTINGS)
    pixels = np.full((1, 32, 32, 3), 200, "uint8")
    means = keras.Model(model.input, model.get_layer("subtract_means").output)(pixels)
    np.testing.assert_allclose(means[0, 0, 0], 200 - np.array(SETTINGS["channel_means"]), rtol=1e-6)
    assert model(pixels).dtype == "float32"
    assert model.get_layer("stage1_block1_conv2").compute_dtype == "bfloat16"


def test_kernels_are_he_normal():
    model = resnet50(classes=10, version="1.5", **SETTINGS)
    kernel = model.get_layer("stage4_block2_conv2").kernel
    assert np.std(kernel) == pytest.approx(np.sqrt(2 / (3 * 3 * 512)), rel=0.01)
    assert np.std(model.get_layer("logits").kernel) == pytest.approx(0.01, rel=0.05)


def test_an_unknown_version_is_named():
    with pytest.raises(ValueError, match='version: "1.6" is not one of 1, 1.5, 2'):
        resnet50(classes=10, version="1.6", **SETTINGS)


def test_zero_gamma_is_refused_in_version_2():
    with pytest.raises(ValueError, match="zero_gamma"):
        resnet50(classes=10, version="2", **SETTINGS | {"zero_gamma": True})


def test_batch_norm_is_over_the_images_that_the_rule_names():
    for rule, synchronized in (("per_replica", False), ("synchronized", True)):
        model = resnet50(
            classes=10, version="1.5", width=8, stage_sizes=(1,), **SETTINGS | {"batch_norm": rule}
        )
        norms = [layer for layer in model.layers if "norm" in layer.name]
        assert {layer.synchronized for layer in norms} == {synchronized}
    with pytest.raises(ValueError, match='batch_norm: "global" is not one of per_replica, sync'):
        resnet50(classes=10, version="1.5", **SETTINGS | {"batch_norm": "global"})
