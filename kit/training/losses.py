"""Losses and metrics for labels int64 [batch], and for mixed ones float32 [batch, classes]."""

import keras
import tensorflow as tf


class ClassificationLoss(keras.losses.Loss):
    """The loss of logits [batch, classes] that the section Loss describes.

    `label_smoothing` is the share of each label that is spread evenly over all classes (Szegedy et
    al. 2016, Rethinking the Inception Architecture, section 7). "binary_cross_entropy" is the
    sigmoid cross-entropy of each class, averaged over the classes; a `target_threshold` above 0
    makes labels above it 1 and others 0, as timm's BinaryCrossEntropy does (Wightman et al. 2021,
    ResNet Strikes Back).
    """

    def __init__(self, loss):
        super().__init__(name=loss.loss)
        self.binary = loss.loss == "binary_cross_entropy"
        self.label_smoothing, self.target_threshold = loss.label_smoothing, loss.target_threshold

    def call(self, labels, logits):
        if not self.binary and not self.label_smoothing:
            return cross_entropy(labels, logits)
        labels = smooth_labels(labels, logits.shape[-1], self.label_smoothing)
        if not self.binary:
            return cross_entropy(labels, logits)
        if self.target_threshold:
            labels = tf.cast(labels > self.target_threshold, logits.dtype)
        return tf.reduce_mean(tf.nn.sigmoid_cross_entropy_with_logits(labels, logits), axis=-1)


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
    return keras.metrics.sparse_categorical_accuracy(class_numbers(labels), logits)


def top5(labels, logits):
    k = min(5, logits.shape[-1])
    return keras.metrics.sparse_top_k_categorical_accuracy(class_numbers(labels), logits, k=k)


def class_numbers(labels):
    return labels if labels.shape.rank == 1 else tf.argmax(labels, axis=-1)
