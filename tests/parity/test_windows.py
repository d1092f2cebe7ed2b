"""The training crops of random_resized, and what random erasing erases, beside torchvision's."""

import math
from dataclasses import replace

import numpy as np
import pytest
import tensorflow as tf

from kit.pipeline import augment, preprocessing
from tests import pytorch
from tests.networks import sections

pytestmark = pytest.mark.slow
DRAWS = 20_000
CROP = sections(
    min_object_covered=0.0,
    aspect_ratio_range=[3 / 4, 4 / 3],
    area_range=[0.08, 1.0],
    max_attempts=10,
).crop
# Kolmogorov and Smirnov's: two such samples of one distribution are farther apart once in a million
APART = math.sqrt(-math.log(1e-6 / 2) / 2) * math.sqrt(2 / DRAWS)


def crops(height, width, crop_sampling):
    """Give DRAWS windows (top, left, height, width)."""

    def draw(number):
        what = [height, width, 3], tf.zeros([0, 4]), [7, number]
        return preprocessing.training_window(*what, replace(CROP, crop_sampling=crop_sampling))

    return drawn(draw)


def drawn(draw):
    return tf.data.Dataset.range(DRAWS).map(draw).batch(DRAWS).get_single_element().numpy()


def torchvisions_crops(height, width):
    torchvision, torch = pytorch.torchvision(), pytorch.torch()
    torch.manual_seed(0)
    get_params = torchvision.transforms.RandomResizedCrop.get_params
    limits = CROP.area_range, CROP.aspect_ratio_range
    image = torch.empty(3, height, width)
    return np.array([get_params(image, *limits) for _ in range(DRAWS)])


def measured(windows):
    """Give the area of each window, its width over height, and its place."""
    top, left, height, width = windows.astype("float64").T
    return {"area": height * width, "ratio": width / height, "top": top, "left": left}


def assert_alike(found, expected):
    for name, values in measured(found).items():
        assert distance(values, measured(expected)[name]) < APART, name


def distance(one, other):
    """Give the largest difference of two samples' distribution functions."""
    values = np.concatenate([one, other])
    shares = [np.searchsorted(np.sort(some), values, "right") / len(some) for some in (one, other)]
    return np.abs(shares[0] - shares[1]).max()


@pytest.mark.parametrize("height, width", [(375, 500), (500, 333), (90, 700), (12, 9)])
def test_random_resized_windows_are_distributed_as_torchvisions(height, width):
    found, expected = crops(height, width, "random_resized"), torchvisions_crops(height, width)
    assert_alike(found, expected)


def test_windows_of_tensorflows_rule_are_smaller():
    expected, rule = (
        measured(windows)["area"] / (375 * 500)
        for windows in (torchvisions_crops(375, 500), crops(375, 500, "distorted_box"))
    )
    assert distance(rule, expected) > 3 * APART
    assert expected.mean() - rule.mean() > 0.05  # 0.43 and 0.37


@pytest.mark.parametrize("height, width", [(224, 224), (176, 100), (12, 90)])
def test_what_is_erased_is_distributed_as_torchvisions(height, width):
    def draw(number):
        top, bottom, left, right = augment.rectangle(height, width, [7, number])
        return tf.stack([top, left, bottom - top, right - left])

    torchvision, torch = pytorch.torchvision(), pytorch.torch()
    torch.manual_seed(0)
    image, value = torch.empty(3, height, width), [0.0]
    erasing = torchvision.transforms.RandomErasing()  # its own limits, as in its recipe
    pairs = [erasing.get_params(image, erasing.scale, erasing.ratio, value) for _ in range(DRAWS)]
    expected = np.array([pair[:4] for pair in pairs])
    found = drawn(draw)
    none = np.array([height, width])  # where nothing fits it gives the image itself
    kept = [(found[:, 2:] > 0).all(axis=1), (expected[:, 2:] < none).all(axis=1)]
    assert abs(kept[0].mean() - kept[1].mean()) < APART
    assert_alike(found[kept[0]], expected[kept[1]])
