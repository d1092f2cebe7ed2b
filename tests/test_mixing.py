"""Mixup and cutmix beside NumPy, from the formulas of the papers and of timm/data/mixup.py."""

import numpy as np
import pytest
import tensorflow as tf

from kit.pipeline import augment, dataset, mixing, order
from tests.networks import sections

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (6, 20, 30, 3), np.uint8)
LABELS = np.int64([0, 1, 2, 3, 4, 4])
EYE = np.eye(5, dtype="float32")


def mixed(seed, images=IMAGES, labels=LABELS, classes=5, partner=1, **alphas):
    how = sections(repeated_augmentation=partner, batch_size=6 * partner, **alphas).mixing
    found = mixing.mixed(tf.constant(images), labels, [0, seed], how, classes=classes)
    return [tensor.numpy() for tensor in found]


@pytest.mark.parametrize("partner", [1, 2, 3])
def test_mixup_blends_images_and_labels_by_the_same_share(partner):
    others = np.roll(IMAGES, partner, axis=0).astype("float64")
    for seed in range(5):
        images, labels = mixed(seed, mixup=0.8, partner=partner)
        share = labels[0, LABELS[0]]
        expected = share * IMAGES + (1 - share) * others
        assert images.dtype == "uint8"
        assert np.abs(images - expected).max() <= 0.5 + 1e-4
        blended = share * EYE[LABELS] + (1 - share) * EYE[np.roll(LABELS, partner)]
        np.testing.assert_allclose(labels, blended, atol=1e-7)


@pytest.mark.parametrize("partner", [1, 2])
def test_cutmix_pastes_a_window_and_its_share_of_the_label(partner):
    """Each image is its number all over, so that pixels can be counted."""
    images = np.broadcast_to(np.arange(6, dtype="uint8")[:, None, None, None], IMAGES.shape)
    labels = np.arange(6)
    for seed in range(20):
        found, shares = mixed(seed, images, labels, classes=6, partner=partner, cutmix=1.0)
        for number in range(6):
            other = (number - partner) % 6
            assert set(np.unique(found[number])) <= {number, other}
            pasted = found[number] == other
            rows, columns = (np.flatnonzero(pasted.any(axis=axis)) for axis in ((1, 2), (0, 2)))
            assert pasted.sum() == 3 * len(rows) * len(columns)  # a rectangle, all channels
            assert shares[number, other] == pytest.approx(pasted.mean(), abs=1e-6)
            assert shares[number].sum() == pytest.approx(1)


def test_the_window_is_timms():
    """rand_bbox of timm/data/mixup.py, for a given centre."""
    for share, down, right in RNG.uniform(size=(200, 3)):
        height, width = 37, 50
        cut_height, cut_width = (int(size * np.sqrt(1 - share)) for size in (height, width))
        y, x = int(down * height), int(right * width)
        expected = [
            np.clip(y - cut_height // 2, 0, height),
            np.clip(y + (cut_height + 1) // 2, 0, height),
            np.clip(x - cut_width // 2, 0, width),
            np.clip(x + (cut_width + 1) // 2, 0, width),
        ]
        found = mixing.patch(height, width, tf.constant(share, tf.float64), [down, right])
        assert [int(end) for end in found] == expected


def shares(**alphas):
    """Give the share that stays of an image for many seeds; of cutmix, before what sticks out."""
    how, images = sections(**alphas).mixing, tf.zeros([2, 1, 1, 3], tf.uint8)
    numbers = tf.data.Dataset.range(4000).map(
        lambda seed: mixing.mixed(images, [0, 1], [7, seed], how, classes=2)[1][0, 0]
    )
    return numbers.batch(4000).with_options(dataset.options()).get_single_element().numpy()


@pytest.mark.parametrize("alpha", [0.1, 0.2, 1.0, 5.0])
def test_the_share_is_beta_distributed(alpha):
    """Mean 1/2, variance 1/4 / (2 alpha + 1); of alpha 1 the shares are uniform."""
    found = shares(mixup=alpha)
    deviation = np.sqrt(0.25 / (2 * alpha + 1))
    assert found.mean() == pytest.approx(0.5, abs=4 * deviation / np.sqrt(4000))
    assert found.std() == pytest.approx(deviation, rel=0.05)
    if alpha == 1.0:
        bins = np.histogram(found, 10, (0, 1))[0]
        assert ((bins - 400) ** 2 / 400).sum() < 27.9  # chi-square of 9 degrees, p = 0.001


def test_a_small_alpha_gives_no_nan():
    assert np.isfinite(shares(mixup=1e-3)).all()


def test_with_both_half_of_the_batches_get_cutmix():
    """One image of one pixel is cut whole or not at all, so its label stays a whole number."""
    found = shares(mixup=5.0, cutmix=1.0)
    assert np.isin(found, [0, 1]).mean() == pytest.approx(0.5, abs=4 * 0.5 / np.sqrt(4000))


def batches(*, seed=3, start_step=0, **alphas):
    source = tf.data.Dataset.from_tensors((IMAGES, LABELS)).repeat()
    how = sections(**alphas).mixing
    return source.apply(mixing.mixer(how, classes=5, seed=seed, start_step=start_step))


def test_each_step_is_mixed_otherwise_and_the_same_again_from_a_later_start():
    both = {"mixup": 0.2, "cutmix": 1.0}
    whole, again, later, other = (
        [labels.numpy().tobytes() for _, labels in batches(**both, **changes).take(6)]
        for changes in ({}, {}, {"start_step": 2}, {"seed": 4})
    )
    assert len(set(whole)) == 6
    assert whole == again
    assert whole[2:] == later[:4]
    assert not set(whole) & set(other)


def test_without_both_the_batches_stay_as_they_are():
    ((images, labels),) = batches().take(1)
    np.testing.assert_array_equal(images, IMAGES)
    assert labels.dtype == tf.int64


def test_each_purpose_of_a_seed_has_a_number_of_its_own():
    """A flip has 1; two of one number would draw the same."""
    purposes = [1, order.SHARDS, order.RECORDS, augment.AUGMENT, augment.ERASE, mixing.MIX]
    assert len(set(purposes)) == len(purposes)
