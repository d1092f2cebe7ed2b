"""TensorFlow's fused batch norm in the place of Keras' own, for speed alone.

Keras 3 computes batch norm from means, squares and products, each a pass over the activations, and
in float32 also under bfloat16. TensorFlow's one operation gives the same numbers.
"""

import types

import keras
import tensorflow as tf


def fuse_batch_norms(model):
    """Let each batch norm of the model that sees one replica alone compute in one operation.

    The layers remain Keras' own: what is saved knows nothing of this.
    """
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization) and not layer.synchronized:
            layer.call = types.MethodType(fused_call, layer)


def fused_call(layer, inputs, training=None, mask=None):
    """Compute as BatchNormalization.call does, over the last axis of [batch, height, width, ...].

    The moving variance is that of Keras, which divides by n; the operation's divides by n - 1.
    """
    x = tf.convert_to_tensor(inputs)
    batch = bool(training) and layer.trainable
    moving = tf.convert_to_tensor(layer.moving_mean), tf.convert_to_tensor(layer.moving_variance)
    empty = tf.constant([], tf.float32)
    outputs, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
        x=x,
        scale=tf.convert_to_tensor(layer.gamma),
        offset=tf.convert_to_tensor(layer.beta),
        mean=empty if batch else moving[0],
        variance=empty if batch else moving[1],
        epsilon=layer.epsilon,
        is_training=batch,
    )
    if batch:
        n = tf.cast(tf.reduce_prod(tf.shape(x)[:-1]), tf.float32)
        for variable, old, new in (
            (layer.moving_mean, moving[0], mean),
            (layer.moving_variance, moving[1], variance * (n - 1) / n),
        ):
            variable.assign(old * layer.momentum + new * (1 - layer.momentum))
    return outputs
