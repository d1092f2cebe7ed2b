"""The optimizers, and which weights are not decayed."""

import keras
import tensorflow as tf


def make_optimizer(model, optimizer, decay, learning_rate):
    """Return the optimizer of the section Optimizer for `model`.

    `decay` is the section WeightDecay. SGD itself decays nothing: the network's L2 loss does, as in
    the papers. LAMB decays all weights by `weight_decay`, except for `weight_decay_skips`.
    """
    if optimizer.optimizer == "sgd":
        return keras.optimizers.SGD(learning_rate, momentum=optimizer.momentum)
    lamb = Lamb(learning_rate, epsilon=1e-6, weight_decay=decay.weight_decay)  # timm's epsilon
    lamb.exclude_from_weight_decay(var_list=undecayed(model, decay.weight_decay_skips))
    return lamb


def decay_in_loss(optimizer, decay):
    """Return the WeightDecay for `resnet50`'s L2 loss: None for LAMB, which decays by itself."""
    return decay if optimizer.optimizer == "sgd" else None


def undecayed(model, weight_decay_skips):
    """List batch norm's scales and shifts for "norm", the other layers' biases for "bias"."""
    kinds = {"gamma": "norm", "beta": "norm", "bias": "bias"}
    return [w for w in model.trainable_weights if kinds.get(w.name) in weight_decay_skips]


class Lamb(keras.optimizers.Lamb):
    """LAMB (You et al. 2020, Large Batch Optimization for Deep Learning, algorithm 2), as in timm.

    The decay is added to Adam's direction before its norm is taken, and a weight that is not
    decayed takes Adam's step unscaled. Keras' own decays apart from the direction, and scales all.
    """

    def _apply_weight_decay(self, variables):
        pass  # update_step does

    def update_step(self, gradient, variable, learning_rate):
        index, step = (
            self._get_variable_index(variable),
            tf.cast(self.iterations + 1, variable.dtype),
        )
        mean, square = self._momentums[index], self._velocities[index]
        mean.assign_add((gradient - mean) * (1 - self.beta_1))
        square.assign_add((tf.square(gradient) - square) * (1 - self.beta_2))
        direction = mean / (1 - self.beta_1**step)
        direction /= tf.sqrt(square / (1 - self.beta_2**step)) + self.epsilon
        if self.weight_decay and self._use_weight_decay(variable):
            direction += self.weight_decay * variable
            lengths = tf.norm(variable), tf.norm(direction)
            ratio = tf.math.divide_no_nan(*lengths)
            direction *= tf.where(ratio > 0, ratio, 1.0)
        variable.assign_sub(learning_rate * direction)
