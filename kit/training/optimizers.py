"""The optimizers, and which weights are not decayed."""

import keras
import tensorflow as tf


def make_optimizer(model, optimizer, decay, learning_rate):
    """Return the optimizer of the section Optimizer for `model`.

    All layers but the last learn at `body_rate_factor` times the learning rate.
    `decay` is the section WeightDecay. SGD itself decays nothing: the network's L2 loss does, as in
    the papers. LAMB decays all weights by `weight_decay`, except for `weight_decay_skips`.
    """
    factors = [
        1.0 if weight.path.startswith("logits/") else optimizer.body_rate_factor
        for weight in model.trainable_weights
    ]
    if optimizer.optimizer == "sgd":
        return Sgd(learning_rate, momentum=optimizer.momentum, factors=factors)
    lamb = Lamb(learning_rate, weight_decay=decay.weight_decay, factors=factors)
    lamb.exclude_from_weight_decay(var_list=undecayed(model, decay.weight_decay_skips))
    return lamb


def decay_in_loss(optimizer, decay):
    """Return the WeightDecay for `resnet50`'s L2 loss: None for LAMB, which decays by itself."""
    return decay if optimizer.optimizer == "sgd" else None


def undecayed(model, weight_decay_skips):
    """List batch norm's scales and shifts for "norm", the other layers' biases for "bias"."""
    kinds = {"gamma": "norm", "beta": "norm", "bias": "bias"}
    return [w for w in model.trainable_weights if kinds.get(w.name) in weight_decay_skips]


class Sgd(keras.optimizers.SGD):
    """Keras' SGD, whose step is given as new values, for a function that XLA compiles.

    `factors` multiply the learning rate, one for each trainable weight; none: all are 1.
    """

    def __init__(self, learning_rate, *, momentum, factors=()):
        super().__init__(learning_rate, momentum=momentum)
        self.factors = tuple(factors)

    def changes(self, own, gradients, variables):
        """List (variable, new value) of a replica for its gradients, the sums over all replicas.

        `own` gives the replica's copy of a variable. As in Keras, the velocity includes the rate.
        """
        rates, changes = rates_of(self, own, variables), []
        for number, (gradient, variable) in enumerate(zip(gradients, variables, strict=True)):
            velocity = -gradient * tf.cast(rates[number], gradient.dtype)
            if self.momentum:
                before = own(self.momentums[number])
                velocity = before * self.momentum + velocity
                changes.append((before, velocity))
            changes.append((own(variable), own(variable) + velocity))
        return changes


class Lamb(keras.optimizers.Lamb):
    """LAMB (You et al. 2020, Large Batch Optimization for Deep Learning, algorithm 2), as in timm.

    The decay is added to Adam's direction before its norm is taken, and a weight that is not
    decayed takes Adam's step unscaled. Keras' own decays apart from the direction, and scales all.
    `factors` as Sgd's.
    """

    def __init__(self, learning_rate, *, weight_decay, factors=()):
        super().__init__(learning_rate, epsilon=1e-6, weight_decay=weight_decay)  # timm's epsilon
        self.factors = tuple(factors)

    def changes(self, own, gradients, variables):
        """List (variable, new value) as Sgd.changes does."""
        rates, step = rates_of(self, own, variables), own(self.iterations) + 1
        changes = []
        for number, (gradient, variable) in enumerate(zip(gradients, variables, strict=True)):
            weight = own(variable)
            mean, square = own(self._momentums[number]), own(self._velocities[number])
            new_mean = mean + (gradient - mean) * (1 - self.beta_1)
            new_square = square + (tf.square(gradient) - square) * (1 - self.beta_2)
            power = tf.cast(step, gradient.dtype)
            direction = new_mean / (1 - self.beta_1**power)
            direction /= tf.sqrt(new_square / (1 - self.beta_2**power)) + self.epsilon
            if self.weight_decay and self._use_weight_decay(variable):
                direction += self.weight_decay * weight
                ratio = tf.math.divide_no_nan(tf.norm(weight), tf.norm(direction))
                direction *= tf.where(ratio > 0, ratio, 1.0)
            changes += [(mean, new_mean), (square, new_square)]
            changes.append((weight, weight - tf.cast(rates[number], gradient.dtype) * direction))
        return changes


def rates_of(optimizer, own, variables):
    """List the learning rate of each variable on a replica."""
    rate = own(optimizer._learning_rate)
    return [rate * factor for factor in optimizer.factors or [1.0] * len(variables)]
