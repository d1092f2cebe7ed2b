import keras
import numpy as np
import pytest

from kit.model.resnet import drop_rates
from tests.networks import network

MEANS = [123.68, 116.779, 103.939]
STAGES = [
    (64, 3),
    (128, 4),
    (256, 6),
    (512, 3),
]  # filters of the 3x3, blocks (He et al. 2015, table 1)


@pytest.fixture(scope="module", params=["1", "1.5"])
def resnet(request):
    return network(classes=1000, resnet_version=request.param)


def small(**changes):
    """Give a network of one block of eight filters, or what `changes` make of it."""
    return network(**{"width": 8, "stage_sizes": (1,), "batch_norm_momentum": 0.9} | changes)


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
    model = network(classes=1000, resnet_version="2")
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
    model = small(stage_sizes=(1, 1), resnet_version=version)
    shapes = keras.Model(
        model.input,
        [model.get_layer(f"stage2_block1_{name}").output for name in ("conv1", "conv2")],
    )(np.zeros((1, 64, 64, 3), "uint8"))
    assert [shape.shape[1] for shape in shapes] == [conv1, conv2]


def test_version_1_gives_the_logits_of_keras_applications():
    """keras.applications.ResNet50 is another implementation of version 1, with zero biases."""
    ours = network(resnet_version="1", batch_norm_epsilon=1.001e-5)
    theirs = keras.applications.ResNet50(weights=None, classes=10, classifier_activation=None)
    randomise_statistics(ours)
    for layer in theirs.layers:
        if layer.weights:
            weights = ours.get_layer(our_name(layer.name)).get_weights()
            if len(weights) == 1:
                weights.append(np.zeros(weights[0].shape[-1]))  # the bias that we leave out
            layer.set_weights(weights)
    pixels = np.random.default_rng(0).integers(0, 256, (2, 224, 224, 3)).astype("uint8")
    expected = theirs(pixels - np.float32(MEANS))
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
    zero = network(zero_gamma=True)
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
    model = small()
    pixels = np.full((1, 32, 32, 3), 200, "uint8")
    means = keras.Model(model.input, model.get_layer("subtract_means").output)(pixels)
    np.testing.assert_allclose(means[0, 0, 0], 200 - np.array(MEANS), rtol=1e-6)
    assert model(pixels).dtype == "float32"
    assert model.get_layer("stage1_block1_conv2").compute_dtype == "bfloat16"


def test_kernels_are_he_normal():
    model = network()
    kernel = model.get_layer("stage4_block2_conv2").kernel
    assert np.std(kernel) == pytest.approx(np.sqrt(2 / (3 * 3 * 512)), rel=0.01)
    assert np.std(model.get_layer("logits").kernel) == pytest.approx(0.01, rel=0.05)


def test_batch_norm_is_over_the_images_that_the_rule_names():
    for rule, synchronized in (("per_replica", False), ("synchronized", True)):
        model = small(batch_norm=rule)
        norms = [layer for layer in model.layers if "norm" in layer.name]
        assert {layer.synchronized for layer in norms} == {synchronized}


@pytest.mark.parametrize("skips, decayed", [(["norm"], {"bias"}), ([], {"gamma", "beta", "bias"})])
def test_decay_falls_on_what_is_not_skipped_too(skips, decayed):
    model = small(weight_decay=0.5, weight_decay_skips=skips)
    weights = [w for w in model.trainable_weights if w.path.split("/")[-1] in decayed | {"kernel"}]
    for weight in weights:
        weight.assign(np.random.default_rng(0).normal(size=weight.shape))
    expected = 0.5 * sum(np.sum(weight.numpy() ** 2) / 2 for weight in weights)
    assert float(sum(model.losses)) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("version, conv", [("1", "conv1"), ("1.5", "conv2"), ("2", "conv2")])
def test_blur_pool_comes_before_each_convolution_that_skips_pixels_but_the_stem(version, conv):
    """Against a sum over the nine neighbours, zero beyond the edge, in NumPy."""
    model = small(resnet_version=version, stage_sizes=(1, 2), blur_pool=True)
    blurs = [layer for layer in model.layers if layer.name.endswith("_blur2")]
    assert [b.name for b in blurs] == [f"stage2_block1_{c}_blur2" for c in (conv, "shortcut_conv")]
    assert count(model.weights) == count(small(resnet_version=version, stage_sizes=(1, 2)).weights)
    pads = [model.get_layer(blur.name.replace("blur2", "blur_pad")) for blur in blurs]
    pixels = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3)).astype("uint8")
    tensors = [layer.input for layer in pads] + [blur.output for blur in blurs]
    branch, shortcut, *found = (x.numpy() for x in keras.Model(model.input, tensors)(pixels))
    for before, after in zip((branch, shortcut), found, strict=True):
        padded = np.pad(before, [(0, 0), (1, 1), (1, 1), (0, 0)])
        height, width = before.shape[1:3]
        expected = sum(
            (2 - abs(y))
            * (2 - abs(x))
            / 16
            * padded[:, 1 + y : 1 + y + height, 1 + x : 1 + x + width]
            for y in (-1, 0, 1)
            for x in (-1, 0, 1)
        )
        np.testing.assert_allclose(after, expected, rtol=1e-4, atol=1e-5)


def test_drop_rates_rise_evenly_from_0_at_the_first_block_to_the_given_one_at_the_last():
    rates = drop_rates([3, 4, 6, 3], 0.3)
    assert [len(stage) for stage in rates] == [3, 4, 6, 3]
    np.testing.assert_allclose(np.concatenate(rates), np.linspace(0, 0.3, 16))
    assert drop_rates([1], 0.3) == [[0.0]]
    assert drop_rates([2], 0.3) == [[0.0, 0.3]]


def test_drop_path_skips_whole_branches_of_some_images_in_training_alone():
    model = small(stage_sizes=(1, 2), drop_path=0.4)
    assert [layer.rate for layer in model.layers if "drop" in layer.name] == [0.2, 0.4]
    names = ("stage2_block2_norm3", "stage2_block1_relu3", "stage2_block2_add")
    parts = keras.Model(model.input, [model.get_layer(name).output for name in names])
    pixels = np.random.default_rng(0).integers(0, 256, (200, 32, 32, 3)).astype("uint8")
    branch, shortcut, both = (x.numpy() for x in parts(pixels, training=True))
    skipped = np.array([np.array_equal(b, s) for b, s in zip(both, shortcut, strict=True)])
    assert skipped.mean() == pytest.approx(0.4, abs=4 * np.sqrt(0.4 * 0.6 / 200))
    np.testing.assert_allclose(both[~skipped], (shortcut + branch / 0.6)[~skipped], atol=1e-5)
    branch, shortcut, both = (x.numpy() for x in parts(pixels))
    np.testing.assert_array_equal(both, shortcut + branch)


def test_a_saved_network_of_all_options_is_loaded_by_keras_alone(tmp_path):
    model = small(stage_sizes=(1, 2), blur_pool=True, drop_path=0.4, weight_decay_skips=[])
    model.save(tmp_path / "model.keras")
    pixels = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3)).astype("uint8")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded(pixels), model(pixels))
