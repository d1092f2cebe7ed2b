"""The first step whose loss or gradient is not finite, noticed without asking the device."""

import tensorflow as tf


class Nonfinite:
    """The first step whose loss or gradient is not finite, kept on the devices."""

    def __init__(self, strategy):
        self.local = strategy.experimental_local_results
        with strategy.scope():  # each replica has its own, and they are equal
            kept = {
                "trainable": False,
                "synchronization": tf.VariableSynchronization.ON_READ,
                "aggregation": tf.VariableAggregation.ONLY_FIRST_REPLICA,
            }
            self.step = tf.Variable(-1, dtype=tf.int64, **kept)
            self.values = tf.Variable([0.0, 0.0], **kept)  # loss, gradient norm

    def check(self, own, norm, loss, steps):
        """Give whether all is finite now and was before; if only now it is not, keep the step."""
        step, values = own(self.step), own(self.values)
        finite = tf.math.is_finite(norm) & tf.math.is_finite(loss)
        first = ~finite & (step < 0)
        found = tf.stack([tf.cast(loss, tf.float32), tf.cast(norm, tf.float32)])
        values.assign(tf.where(first, found, values))
        step.assign(tf.where(first, tf.cast(steps, tf.int64), step))
        return step < 0

    def forget(self):
        for step in self.local(self.step):
            step.assign(-1)

    def read(self):
        step = int(self.local(self.step)[0].numpy())
        if step < 0:
            return None
        loss, norm = self.local(self.values)[0].numpy().tolist()
        return {"step": step, "loss": loss, "gradient_norm": norm}
