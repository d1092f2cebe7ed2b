"""How long a training waits for its batches, added up without asking the device."""

import time
from functools import partial

import tensorflow as tf


class Waiting:
    """The seconds that all calls of `fit` have waited for batches."""

    def __init__(self):
        with tf.device("CPU:0"):
            self.waited = tf.Variable(0.0, dtype=tf.float64, trainable=False)

    @property
    def seconds(self):
        return float(self.waited.numpy())

    def timed(self, train, model):
        """Return Keras' train function `train` of the model, with the wait measured in its graph.

        It keeps the last batch as the model's `batch`. Taking it in Python would be simpler, but on
        four logical CPUs the iterator then took up to two minutes to end. tf.timestamp is not
        allowed in deterministic training.
        """
        local = model.distribute_strategy.experimental_local_results
        now = partial(tf.numpy_function, time.perf_counter, [], tf.float64)

        @tf.function(reduce_retracing=True, autograph=False)
        def take_and_train(iterator):
            begin = now()
            with tf.control_dependencies([begin]):
                batch = iterator.get_next()
            arrived = [shard for part in tf.nest.flatten(batch) for shard in local(part)]
            with tf.control_dependencies(arrived):
                self.waited.assign_add(now() - begin)
            return train([batch]), batch

        def timed(iterator):
            if model.run_eagerly or not hasattr(
                iterator, "get_next"
            ):  # train_on_batch gives a list
                return train(iterator)
            logs, model.batch = take_and_train(iterator)
            return logs

        return timed
