"""Fused batch norm, and dropout for the global batch, in place of what Keras' layers compute.

Keras 3 computes batch norm from means, squares and products, each a pass over the activations, and
in float32 even under bfloat16; TensorFlow's fused operation gives the same numbers. Keras' Dropout
would drop the same on each replica; here the numbers are drawn for the global batch. Saved models
are not affected.
"""

import re
import types

import keras
import tensorflow as tf


def freeze(model, part):
    """Freeze the layers of `part`, one of Initial's: "none", "body", or "stage2" and all before it.

    Frozen layers keep their weights and their batch norm's statistics, by which they normalise in
    training, too. "body" is all but the last layer.
    """
    for layer in model.layers:
        stage = re.match(r"stem|stage\d+", layer.name)
        within = stage and (stage[0] == "stem" or stage[0] <= part)
        if part == "body" and layer.name != "logits" or part.startswith("stage") and within:
            layer.trainable = False


def fuse_batch_norms(model):
    """Let each batch norm layer that is not `synchronized` compute in one fused operation."""
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization) and not layer.synchronized:
            layer.call = types.MethodType(fused_call, layer)


def fused_call(layer, inputs, training=None, mask=None):
    """Compute as BatchNormalization.call does, over the last axis of [batch, height, width, ...].

    The operation's variance divides by n - 1; the moving variance by n, as Keras' does.
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


def draw_drop_path_once(model):
    """Let the model's Dropout layers drop the same on any number of replicas."""
    for layer in model.layers:
        if isinstance(layer, keras.layers.Dropout):
            layer.call = types.MethodType(drop_path_call, layer)


def drop_path_call(layer, inputs, training=False):
    """Compute as Dropout.call does, with this replica's part of numbers for the global batch."""
    if not training:
        return inputs
    replica = tf.distribute.get_replica_context()
    images = tf.shape(inputs)[0]
    batch = tf.random.stateless_uniform(
        [images * replica.num_replicas_in_sync, *layer.noise_shape[1:]],
        seed=layer.seed_generator.next(),
        alg="philox",  # with XLA as without
    )
    first = images * replica.replica_id_in_sync_group
    kept = batch[first : first + images] >= layer.rate
    return tf.where(kept, inputs / (1 - layer.rate), tf.zeros_like(inputs))
