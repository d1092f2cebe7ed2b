"""The tf.distribute strategy of the devices that train, on this host and on others."""

import contextlib
import functools
import re
import signal

import tensorflow as tf

from kit.training import cluster


def make_strategy(*, replicas):
    """Return the strategy for `replicas` devices; 0 takes every GPU, or one CPU.

    GPUs, one or several, and logical CPUs for tests and teaching train under MirroredStrategy.

    With several hosts (kit.training.cluster) `replicas` counts those of each host, and the strategy
    is MultiWorkerMirroredStrategy. This waits until all hosts have started.

    Raises ValueError when there are fewer devices.
    """
    hosts = cluster.find()
    if hosts.count > 1:
        return multi_worker(hosts, replicas)
    gpus = tf.config.list_physical_devices("GPU")
    if not gpus:
        return mirrored(tuple(logical_cpus(replicas or 1)))
    if replicas > len(gpus):
        raise ValueError(
            f"replicas: {replicas} asked for, {len(gpus)} GPUs found; take that many, or 0 for all"
        )
    return mirrored(tuple(f"GPU:{i}" for i in range(replicas or len(gpus))))


def xla(devices, network, *, deterministic):
    """Return whether XLA compiles each replica's part of a step, and why: (bool, a few words).

    `devices` and `network` are the sections Devices and Network.
    """
    if devices.xla != "auto":
        return devices.xla == "true", "as the parameter says"
    if not tf.config.list_physical_devices("GPU"):
        return False, "slower on a CPU"
    if network.synchronized:
        return False, "synchronized batch norm asks the other replicas within the forward pass"
    if deterministic:
        return False, "it has no deterministic gradient of max pooling"
    return True, "faster on GPUs"


@functools.cache
def mirrored(devices):
    """Return the MirroredStrategy of these devices, always the same one.

    A second one on the same devices would number its collective operations from the start again,
    and TensorFlow's runtime would confuse them with the first one's ("Shape mismatch in the
    collective instance").
    """
    tf.get_logger().setLevel("WARNING")  # TensorFlow would list the devices
    return tf.distribute.MirroredStrategy(devices)


def logical_cpus(count):
    """Split the CPU into at least `count` logical devices, and list the names of `count` of them.

    TensorFlow fixes their number when it first computes: ValueError if that was with fewer.
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


@functools.cache
def multi_worker(hosts, replicas):
    """Return the MultiWorkerMirroredStrategy of these hosts, once all of them have started.

    Raises ValueError for another number of replicas than this host has GPUs, or one CPU.
    """
    gpus = len(tf.config.list_physical_devices("GPU"))
    if replicas not in (0, gpus or 1):
        raise ValueError(
            f"replicas: {replicas} on each of {hosts.count} hosts, and this one trains on "
            f"{gpus or 1}; take 0"
        )
    hosts.wait(minutes=10)
    tf.get_logger().setLevel("WARNING")  # TensorFlow would list the devices
    resolver = tf.distribute.cluster_resolver.SimpleClusterResolver(
        tf.train.ClusterSpec({"worker": list(hosts.addresses)}),
        task_type="worker",
        task_id=hosts.number,
        num_accelerators={"GPU": gpus},
    )
    handler = signal.getsignal(signal.SIGTERM)
    strategy = tf.distribute.MultiWorkerMirroredStrategy(resolver)
    with contextlib.suppress(ValueError):  # from another thread than the main one
        signal.signal(signal.SIGTERM, handler)  # TensorFlow has set its own, which ends nothing
    return strategy


def several_hosts(strategy):
    return isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy)


@contextlib.contextmanager
def naming_lost_hosts(strategy):
    """Turn TensorFlow's error about a lost host into cluster.HostLost, of one line.

    TensorFlow notices at once when a process ends, and after some ten seconds when a host hangs or
    the network is cut.
    """
    try:
        yield
    except tf.errors.OpError as error:
        if not several_hosts(strategy) or "Collective" not in str(error):
            raise
        addresses = strategy.cluster_resolver.cluster_spec().as_dict()["worker"]
        own = strategy.cluster_resolver.task_id
        numbers = {int(number) for number in re.findall(r"task:(\d+)", str(error))} - {own}
        names = ", ".join(addresses[number] for number in sorted(numbers or {0}))
        raise cluster.HostLost(
            f"lost {names}: see what it said last; this host stops too. The same, started "
            "again on all of them, goes on from the last checkpoint"
        ) from error


def host_count(strategy):
    if not several_hosts(strategy):
        return 1
    return strategy.num_replicas_in_sync // len(strategy.extended.worker_devices)


def for_host(strategy, dataset, *, batch_size):
    """Return the dataset for `fit`: this host's batches go to its own replicas alone.

    Keras would divide them among all hosts. `dataset` holds this host's part of each global batch,
    and `batch_size` is the global one. On one host the dataset is returned as it is.
    """
    if not several_hosts(strategy):
        return dataset
    if strategy.num_replicas_in_sync > host_count(strategy):
        dataset = dataset.rebatch(batch_size // strategy.num_replicas_in_sync)
    return strategy.distribute_datasets_from_function(lambda context: dataset)


def sum_over_hosts(strategy, vector):
    """Add up the hosts' vectors, which have the same length; every host has to call it."""
    return _summed(strategy, vector) if several_hosts(strategy) else vector


def on_any_host(strategy, flags):
    """Return for each flag whether any host has it; every host has to call it."""
    if not several_hosts(strategy):
        return flags  # without asking the device
    sums = sum_over_hosts(strategy, tf.constant([float(flag) for flag in flags]))
    return [bool(count) for count in sums.numpy()]


def broadcast(strategy, vector):
    """Return the first host's vector; every host has to call it, with one of the same length."""
    first = strategy.extended.should_checkpoint
    return sum_over_hosts(strategy, vector if first else tf.zeros_like(vector))


@tf.function(reduce_retracing=True)
def _summed(strategy, vector):
    def exchange():
        replica = tf.distribute.get_replica_context()
        first = replica.replica_id_in_sync_group % len(strategy.extended.worker_devices) == 0
        added = tf.where(first, vector, tf.zeros_like(vector))  # once for each host
        return replica.all_reduce(tf.distribute.ReduceOp.SUM, added)

    return strategy.experimental_local_results(strategy.run(exchange))[0]
