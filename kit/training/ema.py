"""The exponential moving average (EMA) of the weights, which is evaluated in their place."""

import contextlib

import keras
import tensorflow as tf


class WeightAverage:
    """The exponential moving average of a model's weights, with batch norm's moving statistics.

    Each step sets it to `decay * average + (1 - decay) * weights`; the first step, to the weights,
    as in PyTorch's AveragedModel. Make it in the strategy's scope.

    Keras' own (`use_ema`, SwapEMAWeights) leaves the statistics out, puts the average into the
    model at the end of every `fit`, and swaps the two by adding and subtracting, which rounds: a
    resumed training would not end like one that was never interrupted.
    """

    def __init__(self, model, decay):
        self.weights, self.decay = model.weights, decay
        self.average = [keras.Variable(w.numpy(), trainable=False) for w in self.weights]
        self.swapped = False  # whether the model holds the average, and `average` the weights

    def update(self, own, steps, finite):
        """Add a replica's weights after so many steps, if the step was `finite`.

        `own` returns the replica's copy of a variable.
        """
        fraction = tf.where(steps == 1, 1.0, 1 - self.decay)
        for weight, average in zip(self.weights, self.average, strict=True):
            weight, average = own(weight), own(average)
            change = (weight - average) * tf.cast(fraction, weight.dtype)
            average.assign_add(tf.where(finite, change, tf.zeros_like(change)))

    def restart(self):
        """Set the average to the weights that the model holds."""
        for weight, average in zip(self.weights, self.average, strict=True):
            average.assign(weight.value)

    @contextlib.contextmanager
    def in_model(self, averaged):
        """Within the block the model holds the average (True), or the trained weights (False)."""
        if averaged == self.swapped:
            yield
            return
        self.swap()
        try:
            yield
        finally:
            self.swap()

    def swap(self):
        for weight, average in zip(self.weights, self.average, strict=True):
            value = tf.identity(weight.value)
            weight.assign(average.value)
            average.assign(value)
        self.swapped = not self.swapped
