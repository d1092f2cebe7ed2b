"""Losses and metrics against NumPy, from the formulas of their sources."""

from types import SimpleNamespace

import keras
import numpy as np
import pytest
import tensorflow as tf

from kit.evaluation import scores
from kit.training import losses
from kit.training.optimizers import make_optimizer
from kit.training.step import training_model
from tests.networks import sections

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


def loss(labels, name, label_smoothing=0.0, target_threshold=0.0, counts=None):
    section = SimpleNamespace(  # the section Loss refuses smoothing with a threshold
        loss=name,
        label_smoothing=label_smoothing,
        target_threshold=target_threshold,
        class_weights="balanced" if counts else "none",
    )
    return float(losses.ClassificationLoss(section, counts)(labels, LOGITS))


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


KERNEL = RNG.normal(0, 1, (4, CLASSES)).astype("float32")
COUNTS = [1, 2, 4, 8, 16, 32, 37]


def test_balanced_weights_are_scikit_learns():
    """Each class counts alike; one without images has no weight, and the others share the rest."""
    compute = pytest.importorskip("sklearn.utils.class_weight").compute_class_weight
    labels = np.repeat(np.arange(7), COUNTS)
    expected = compute("balanced", classes=np.arange(7), y=labels)
    np.testing.assert_allclose(losses.balanced_weights(COUNTS), expected)
    np.testing.assert_allclose(losses.balanced_weights(COUNTS) * COUNTS, np.full(7, 100 / 7))
    np.testing.assert_allclose(losses.balanced_weights([30, 0, 10]), [2 / 3, 0, 2])


@pytest.mark.parametrize("name", ["cross_entropy", "binary_cross_entropy"])
@pytest.mark.parametrize("share, threshold", [(0.0, 0.0), (0.1, 0.0), (0.0, 0.2)])
@pytest.mark.parametrize("labels", [NUMBERS, MIXED.astype("float32")])
def test_the_loss_of_an_image_is_multiplied_by_the_weight_of_its_label(
    name, share, threshold, labels
):
    """That of a mixed label is the average of its classes'; the sum is divided by the images."""
    threshold *= name == "binary_cross_entropy"
    shares = np.eye(CLASSES)[labels] if labels.ndim == 1 else labels
    weights = shares @ (100 / 7 / np.array(COUNTS))
    targets = (1 - share) * shares + share / CLASSES
    if threshold:
        targets = targets > threshold
    if name == "cross_entropy":
        each = -(targets * np.log(softmax(LOGITS))).sum(axis=1)
    else:
        p = sigmoid(LOGITS)
        each = -(targets * np.log(p) + (1 - targets) * np.log(1 - p)).mean(axis=1)
    found = loss(labels, name, share, threshold, COUNTS)
    assert found == pytest.approx((weights * each).sum() / 5, rel=1e-5)


def test_weighted_losses_and_gradients_of_two_replicas_are_those_of_one(one_replica, two_replicas):
    """The replicas have other classes, and so other sums of weights."""
    images = np.random.default_rng(0).normal(0, 1, (8, 4)).astype("float32")
    labels = np.array([6, 6, 5, 6, 0, 1, 2, 0])
    batches = tf.data.Dataset.from_tensor_slices((images, labels)).batch(8)
    p = sections(class_weights="balanced")
    exponents = np.exp(images @ KERNEL)
    errors = exponents / exponents.sum(axis=1, keepdims=True)
    weights = 100 / 7 / np.array(COUNTS)[labels]
    loss = -(weights * np.log(errors[np.arange(8), labels])).sum() / 8
    errors[np.arange(8), labels] -= 1
    gradient = images.T @ (errors * weights[:, None]) / 8
    for strategy in (one_replica, two_replicas):
        with strategy.scope():
            inputs = keras.Input((4,))
            same = keras.layers.BatchNormalization(trainable=False, synchronized=True, epsilon=1e-9)
            dense = keras.layers.Dense(7, use_bias=False)
            model = training_model(keras.Model(inputs, dense(same(inputs))))
            dense.set_weights([KERNEL])
            optimizer = make_optimizer(model, p.optimizer, p.weight_decay, 0.1)
            model.compile(optimizer, loss=losses.ClassificationLoss(p.loss, COUNTS))
        found = model.evaluate(batches, verbose=0, return_dict=True)
        assert found["loss"] == pytest.approx(loss, rel=1e-5)
        history = model.fit(batches, verbose=0, shuffle=False).history
        assert history["loss"] == pytest.approx([loss], rel=1e-5)
        assert history["gradient_norm"] == pytest.approx([np.linalg.norm(gradient)], rel=1e-5)


def test_a_tie_is_no_hit_in_training_as_in_evaluation():
    """So constant logits are never right, whatever the class."""
    logits = np.zeros([9, 9], "float32")
    logits[1:, :4] = np.arange(8)[:, None] - 3  # ties of four above, within and below the rest
    for labels in (np.arange(9), np.eye(9, dtype="float32")):
        ranks = losses.label_ranks(tf.constant(labels), logits)
        np.testing.assert_array_equal(ranks, scores.label_ranks(np.arange(9), logits))
        for metric in losses.metrics()[1:]:
            metric.update_state(tf.constant(labels), np.zeros([9, 9], "float32"))
            assert metric.result() == 0


def test_the_first_is_a_hit_and_so_are_the_first_five():
    labels, logits = np.arange(7), np.tile(np.arange(7, 0, -1, "float32"), (7, 1))
    hits = [measure(tf.constant(labels), logits) for measure in (losses.top1, losses.top5)]
    np.testing.assert_array_equal(hits, [labels == 0, labels <= 4])


def test_a_logit_that_is_no_number_is_no_hit():
    logits = np.array([[np.nan, 1, 2], [3, np.nan, 1]], "float32")
    labels = np.array([0, 0])
    np.testing.assert_array_equal(losses.label_ranks(tf.constant(labels), logits), [2, 1])
    np.testing.assert_array_equal(scores.label_ranks(labels, logits), [2, 1])


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
