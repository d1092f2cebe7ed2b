"""An average of the weights over the steps, which is what is evaluated."""

import contextlib

import keras
import tensorflow as tf


class WeightAverage:
    """The exponential moving average of a model's weights, batch norm's statistics among them.

    After a step it is `decay` of what it was and the rest of the weights; after the first step it
    is the weights, as in PyTorch's AveragedModel. Make it in the strategy's scope.

    Keras' own (`use_ema`, SwapEMAWeights) leaves the statistics out, puts the average into the
    model at the end of every `fit`, and exchanges the two by adding and subtracting, which rounds:
    a training that is resumed would not end as one that never stopped.
    """

    def __init__(self, model, decay):
        self.weights, self.decay = model.weights, decay
        self.average = [keras.Variable(w.numpy(), trainable=False) for w in self.weights]
        self.exchanged = False  # the model holds the average, and `average` the weights

    def update(self, steps):
        """Count the weights as they are after so many steps; each replica does."""
        share = tf.where(steps == 1, 1.0, 1 - self.decay)
        for weight, average in zip(self.weights, self.average, strict=True):
            average.value.assign_add((weight - average) * share)

    def restart(self):
        """Let it be the weights that the model holds."""
        for weight, average in zip(self.weights, self.average, strict=True):
            average.assign(weight.value)

    @contextlib.contextmanager
    def in_model(self, averaged):
        """Let the model hold the average, or not, for a while."""
        if averaged == self.exchanged:
            yield
            return
        self.exchange()
        try:
            yield
        finally:
            self.exchange()

    def exchange(self):
        for weight, average in zip(self.weights, self.average, strict=True):
            value = tf.identity(weight.value)
            weight.assign(average.value)
            average.assign(value)
        self.exchanged = not self.exchanged
