"""Losses and metrics against NumPy, from the formulas of their sources."""

from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf

from kit.training import losses

RNG = np.random.default_rng(0)
CLASSES = 7
LOGITS = RNG.normal(0, 3, (5, CLASSES)).astype("float32")
NUMBERS = np.array([3, 0, 6, 2, 2])
ONE_HOT = np.eye(CLASSES)[NUMBERS].astype("float32")
MIXED = 0.7 * ONE_HOT + 0.3 * ONE_HOT[::-1]


def softmax(logits):
    exponents = np.exp(logits.astype("float64"))
    return exponents / exponents.sum(axis=-1, keepdims=True)


def sigmoid(logits):
    return 1 / (1 + np.exp(-logits.astype("float64")))


def loss(labels, name, label_smoothing=0.0, target_threshold=0.0):
    settings = {"label_smoothing": label_smoothing, "target_threshold": target_threshold}
    section = SimpleNamespace(loss=name, **settings)  # the section Loss refuses both at once
    return float(losses.ClassificationLoss(section)(labels, LOGITS))


@pytest.mark.parametrize("labels", [NUMBERS, ONE_HOT, MIXED.astype("float32")])
@pytest.mark.parametrize("share", [0.0, 0.1])
def test_cross_entropy_has_a_share_of_the_label_spread_over_all_classes(labels, share):
    """Szegedy et al. 2016, section 7: q' = (1 - e) q + e / K."""
    q = np.eye(CLASSES)[labels] if labels.ndim == 1 else labels
    spread = (1 - share) * q + share / CLASSES
    expected = -(spread * np.log(softmax(LOGITS))).sum(axis=1).mean()
    assert loss(labels, "cross_entropy", share) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    "labels, share, threshold", [(NUMBERS, 0.1, 0), (NUMBERS, 0.1, 0.2), (MIXED, 0, 0.2)]
)
def test_binary_cross_entropy_asks_for_each_class_by_itself(labels, share, threshold):
    """timm/loss/binary_cross_entropy.py: 1 - e + e / K at the label and e / K elsewhere."""
    targets = MIXED if labels is MIXED else np.full((5, CLASSES), share / CLASSES)
    if labels is NUMBERS:
        targets[np.arange(5), labels] = 1 - share + share / CLASSES
    if threshold:
        targets = targets > threshold
    p = sigmoid(LOGITS)
    expected = -(targets * np.log(p) + (1 - targets) * np.log(1 - p)).mean()
    found = loss(labels.astype("float32" if labels.ndim == 2 else "int64"), "binary_cross_entropy",
                 share, threshold)  # fmt: skip
    assert found == pytest.approx(expected, rel=1e-5)


def test_a_label_at_the_threshold_itself_is_none():
    """timm/loss/binary_cross_entropy.py: target.gt(target_thresh)."""
    labels = np.zeros((5, CLASSES), "float32")
    labels[:, 1:4] = [0.2, 0.25, np.nextafter(np.float32(0.25), np.float32(1))]
    for threshold, right in ((0.2, [2, 3]), (0.25, [3])):
        targets = np.isin(np.arange(CLASSES), right)
        p = sigmoid(LOGITS)
        expected = -(targets * np.log(p) + (1 - targets) * np.log(1 - p)).mean()
        found = loss(labels, "binary_cross_entropy", target_threshold=threshold)
        assert found == pytest.approx(expected, rel=1e-5)


def test_metrics_take_numbers_and_mixed_labels():
    """Of mixed labels the largest counts; two thirds are more than a third."""
    p = softmax(LOGITS)
    rank = (p > p[np.arange(5), NUMBERS][:, None]).sum(axis=1)
    nats = -np.log(p[np.arange(5), NUMBERS]).mean()
    mixed = -(MIXED * np.log(p)).sum(axis=1).mean()
    for labels, cross_entropy in ((NUMBERS, nats), (ONE_HOT, nats), (MIXED, mixed)):
        found = {}
        for metric in losses.metrics():
            metric.update_state(tf.constant(labels), LOGITS)
            found[metric.name] = float(metric.result())
        assert found == pytest.approx(
            {"cross_entropy": cross_entropy, "top1": (rank < 1).mean(), "top5": (rank < 5).mean()},
            rel=1e-5,
        )
