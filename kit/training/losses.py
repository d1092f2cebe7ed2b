"""Losses and metrics for labels int64 [batch], and for mixed ones float32 [batch, classes]."""

import keras
import numpy as np
import tensorflow as tf


class ClassificationLoss(keras.losses.Loss):
    """The loss of logits [batch, classes] that the section Loss describes.

    `label_smoothing` is the share of each label that is spread evenly over all classes (Szegedy et
    al. 2016, Rethinking the Inception Architecture, section 7). "binary_cross_entropy" is the
    sigmoid cross-entropy of each class, averaged over the classes; a `target_threshold` above 0
    makes labels above it 1 and others 0, as timm's BinaryCrossEntropy does (Wightman et al. 2021,
    ResNet Strikes Back).

    With `class_weights`, the loss of an image is multiplied by the weight of its class, from
    `balanced_weights` of the training's `counts` [classes]; that of a mixed label is the average of
    its classes' weights by their shares. Smoothing and threshold change the label, not the weight.
    The average over a batch is of its images, not of their weights: so it does not depend on how
    the images are divided among batches and replicas.
    """

    def __init__(self, loss, counts=None):
        super().__init__(name=loss.loss)
        self.binary = loss.loss == "binary_cross_entropy"
        self.label_smoothing, self.target_threshold = loss.label_smoothing, loss.target_threshold
        self.weights = None if loss.class_weights == "none" else balanced_weights(counts)

    def call(self, labels, logits):
        losses = self._of_images(labels, logits)
        if self.weights is None:
            return losses
        weights = tf.constant(self.weights, losses.dtype)
        if labels.shape.rank == 1:
            return losses * tf.gather(weights, tf.cast(labels, tf.int32))  # Keras makes them float
        return losses * tf.linalg.matvec(tf.cast(labels, losses.dtype), weights)

    def _of_images(self, labels, logits):
        if not self.binary and not self.label_smoothing:
            return cross_entropy(labels, logits)
        labels = smooth_labels(labels, logits.shape[-1], self.label_smoothing)
        if not self.binary:
            return cross_entropy(labels, logits)
        if self.target_threshold:
            labels = tf.cast(labels > self.target_threshold, logits.dtype)
        return tf.reduce_mean(tf.nn.sigmoid_cross_entropy_with_logits(labels, logits), axis=-1)


def balanced_weights(counts):
    """Weigh the classes so that each counts alike: float64 [classes] of its images' `counts`.

    images / (classes * images of the class), scikit-learn's "balanced" (after King & Zeng 2001),
    over the classes that have images; the others get 0. The average over all images is 1.
    """
    scale = sum(counts) / np.count_nonzero(counts)
    counts = np.asarray(counts, "float64")
    return np.divide(scale, counts, out=np.zeros_like(counts), where=counts > 0)


def smooth_labels(labels, classes, label_smoothing):
    """Return labels float32 [batch, classes], `label_smoothing` of each spread over all classes."""
    if labels.shape.rank == 1:
        labels = tf.one_hot(tf.cast(labels, tf.int32), classes)
    return labels * (1 - label_smoothing) + label_smoothing / classes


def metrics():
    """List the metrics beside the loss. A mixed label counts as its largest class."""
    return [
        keras.metrics.MeanMetricWrapper(measure, name=measure.__name__)
        for measure in (cross_entropy, top1, top5)
    ]


def cross_entropy(labels, logits):
    """Return the softmax cross-entropy of each image, nats."""
    if labels.shape.rank == 1:
        return keras.losses.sparse_categorical_crossentropy(labels, logits, from_logits=True)
    return keras.losses.categorical_crossentropy(labels, logits, from_logits=True)


def top1(labels, logits):
    return label_ranks(labels, logits) < 1


def top5(labels, logits):
    return label_ranks(labels, logits) < 5


def label_ranks(labels, logits):
    """Count the other classes that the label does not beat, as kit.evaluation.scores does."""
    own = tf.gather(logits, class_numbers(labels), batch_dims=1)
    beaten = logits < own[:, tf.newaxis]
    return tf.reduce_sum(tf.cast(~beaten, tf.int32), axis=1) - 1


def class_numbers(labels):
    return labels if labels.shape.rank == 1 else tf.argmax(labels, axis=-1)
