"""Augmentation and drop path beside timm's own functions and torchvision's.

Two files of timm are read one by one: the package would import torchvision too.
"""

import importlib.util
from collections import Counter
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from kit.data.manifest import read_manifest
from kit.pipeline import augment, mixing
from tests import images, networks, pytorch
from tests.test_augment import assert_like_pillow

pytestmark = pytest.mark.slow


def timms(name):
    package = importlib.util.find_spec("timm")
    if package is None:
        pytest.skip("timm is not installed")
    path = Path(package.origin).parent / "data" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_the_strengths_of_rand_augment_are_timms(sign, monkeypatch):
    theirs = timms("auto_augment")
    monkeypatch.setattr(theirs, "_randomly_negate", lambda strength: sign * strength)
    scales = {"TranslateXRel": 50, "TranslateYRel": 40}  # ours are in pixels
    for magnitude in np.linspace(0, 10, 101):
        ours = augment.rand_operations(
            tf.constant(magnitude / 10, tf.float32), sign, fill=(0, 0, 0), shape=(40, 50, 3)
        )
        for name, (_, *how) in zip(theirs._RAND_INCREASING_TRANSFORMS, ours, strict=True):
            strength_of = theirs.LEVEL_TO_ARG[name]
            expected = strength_of(magnitude, {}) if strength_of else ()
            found = [float(how[0])] if how else []
            np.testing.assert_allclose(found, np.multiply(expected, scales.get(name, 1)), atol=1e-5)


def test_cutmix_takes_timms_window_and_share():
    pytest.importorskip("torch")
    theirs = timms("mixup")
    for seed in range(100):
        share = np.random.default_rng(seed).uniform()
        np.random.seed(seed)
        window, left = theirs.cutmix_bbox_and_lam((8, 3, 37, 50), share)
        np.random.seed(seed)  # the same two draws again, as places within their pixels
        centre = [(np.random.randint(0, size) + 0.5) / size for size in (37, 50)]
        found = mixing.patch(37, 50, tf.constant(share, tf.float64), tf.constant(centre))
        assert tuple(int(end) for end in found) == window
        assert float(mixing._outside(37, 50, found)) == pytest.approx(left)


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("number", [0, 1, 10, 16, 23, 29, 30])
def test_trivial_augment_does_what_torchvisions_does(number, sign):
    pytorch.torchvision()
    from torchvision.transforms import InterpolationMode, autoaugment

    def function(name, strengths, signed):
        strength = float(strengths[number]) if strengths.ndim else 0.0
        strength *= sign if signed else 1
        if name.startswith("Translate"):  # it moves the photograph, ours the eye
            strength = -strength
        how = {"interpolation": InterpolationMode.BILINEAR, "fill": None}
        return partial(autoaugment._apply_op, op_name=name, magnitude=strength, **how)

    space = autoaugment.TrivialAugmentWide()._augmentation_space(31)
    functions = [function(name, *how) for name, how in space.items()]
    level = tf.constant(number / 30, tf.float32)
    ours = augment.trivial_operations(level, tf.constant(sign, tf.float32))
    assert_like_pillow(ours, functions)


def test_a_batch_holds_each_image_as_often_as_timms(tmp_path):
    """And a run's epochs too; which images an epoch holds, timm draws anew for each."""
    pytorch.timm()
    from timm.data.distributed_sampler import RepeatAugSampler

    data_dir = images.make_shards(tmp_path, classes=3, images=24)
    count = read_manifest(data_dir)["splits"]["train"]["images"]
    times, batch, replicas, epochs = 3, 24, 2, 6
    steps, share = count // batch, batch // replicas

    def theirs(step):
        found = []
        for rank in range(replicas):
            sampler = RepeatAugSampler(range(count), replicas, rank, num_repeats=times)
            sampler.set_epoch(step // steps)
            first = step % steps * share
            found += [*sampler][first : first + share]
        return found

    settings = {"batch_size": batch, "shuffle_shards": 1, "repeated_augmentation": times}
    ours = networks.training_data(data_dir, **settings).names
    epochs_of_ours, epochs_of_theirs = ([Counter() for _ in range(epochs)] for _ in range(2))
    for step in range(epochs * steps):
        found, expected = Counter(ours(step)), Counter(theirs(step))
        assert {*found.values()} == {*expected.values()} == {times}
        assert len(found) == len(expected) == batch // times
        epochs_of_ours[step // steps] += found
        epochs_of_theirs[step // steps] += expected
    for one, other in zip(epochs_of_ours, epochs_of_theirs, strict=True):
        assert Counter(one.values()) == Counter(other.values()) == {times: count // times}
    assert {*sum(epochs_of_ours, Counter()).values()} == {epochs}
    seen = sum(epochs_of_theirs, Counter())
    assert sum(seen.values()) == epochs * count and len({*seen.values()}) > 1


def test_drop_path_skips_blocks_as_often_as_timms():
    theirs = pytorch.timm().create_model("resnet50", drop_path_rate=0.05)
    stages = (theirs.layer1, theirs.layer2, theirs.layer3, theirs.layer4)
    paths = [block.drop_path for stage in stages for block in stage]
    expected = [path.drop_prob if path is not None else 0.0 for path in paths]
    ours = networks.network(drop_path=0.05, width=4)
    rates = {layer.name: layer.rate for layer in ours.layers if hasattr(layer, "rate")}
    blocks = [layer.name for layer in ours.layers if layer.name.endswith("_add")]
    found = [rates.get(name.replace("_add", "_drop"), 0.0) for name in blocks]
    assert len(rates) == 15
    np.testing.assert_allclose(found, expected, rtol=1e-12)
