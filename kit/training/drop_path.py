"""Drop path on several replicas: Keras' Dropout draws the same numbers on each of them."""

import types

import keras
import tensorflow as tf


def drop_as_one(model):
    """Let the model's Dropout layers skip, on any number of replicas, what one would.

    The layers remain Keras' own: what is saved knows nothing of this.
    """
    for layer in model.layers:
        if isinstance(layer, keras.layers.Dropout):
            layer.call = types.MethodType(dropped, layer)


def dropped(layer, inputs, training=False):
    """Compute as Dropout.call does, with this replica's share of numbers for the whole batch."""
    if not training:
        return inputs
    replica = tf.distribute.get_replica_context()
    images = tf.shape(inputs)[0]
    batch = tf.random.stateless_uniform(
        [images * replica.num_replicas_in_sync, *layer.noise_shape[1:]],
        seed=layer.seed_generator.next(),
    )
    first = images * replica.replica_id_in_sync_group
    kept = batch[first : first + images] >= layer.rate
    return tf.where(kept, inputs / (1 - layer.rate), tf.zeros_like(inputs))
