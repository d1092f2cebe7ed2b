"""Which devices train."""

import functools

import tensorflow as tf


def make_strategy(*, replicas):
    """Give the tf.distribute strategy for `replicas` devices; 0 takes every GPU, or one CPU.

    Several GPUs, or logical CPUs for tests and teaching, work under MirroredStrategy. One GPU needs
    no strategy, and only without one does Keras compile with XLA (`jit_compile="auto"`).

    Raises ValueError when there are fewer devices.
    """
    gpus = tf.config.list_physical_devices("GPU")
    if not gpus:
        return mirrored(tuple(logical_cpus(replicas or 1)))
    if replicas > len(gpus):
        raise ValueError(
            f"replicas: {replicas} asked for, {len(gpus)} GPUs found; take that many, or 0 for all"
        )
    if (replicas or len(gpus)) == 1:
        return tf.distribute.get_strategy()
    return mirrored(tuple(f"GPU:{i}" for i in range(replicas or len(gpus))))


@functools.cache
def mirrored(devices):
    """Give the MirroredStrategy of these devices, one for the life of the process.

    A second one on the same devices would number its collective operations from the start again,
    and TensorFlow's runtime takes them for the first one's ("Shape mismatch in the collective
    instance").
    """
    return tf.distribute.MirroredStrategy(devices)


def logical_cpus(count):
    """Split the CPU into at least `count` logical devices, and give the names of `count` of them.

    TensorFlow fixes their number when it first computes; ValueError when that was before this call.
    """
    cpu = tf.config.list_physical_devices("CPU")[0]
    configured = tf.config.get_logical_device_configuration(cpu) or []
    if len(configured) < count:
        try:
            tf.config.set_logical_device_configuration(
                cpu, [tf.config.LogicalDeviceConfiguration()] * count
            )
        except RuntimeError:
            if len(tf.config.list_logical_devices("CPU")) < count:
                raise ValueError(
                    f"replicas: {count} logical CPUs asked for after TensorFlow has started with "
                    "fewer; restart the kernel and make the strategy first"
                ) from None
    return [f"CPU:{i}" for i in range(count)]
