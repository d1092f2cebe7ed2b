"""The training step: Keras' own, with what it leaves out or gets wrong on several replicas.

tests/test_contract.py tests each part of Keras that this file relies on or works around.
"""

import contextlib
import time
from functools import partial

import keras
import tensorflow as tf

from kit.training.ema import WeightAverage
from kit.training.layers import draw_drop_path_once, fuse_batch_norms

WRONG_ON_REPLICAS = {  # argument of Keras' optimizers or of compile: what is wrong with it
    "clipnorm": "clips each replica's gradient before their sum",
    "global_clipnorm": "clips each replica's gradient before their sum",
    "clipvalue": "clips each replica's gradient before their sum",
    "gradient_accumulation_steps": "fails in the first step",
    "ema_overwrite_frequency": "fails in the first step; take ema_decay",
    "jit_compile": "fails or hangs (keras#19005, keras#20763)",
}


def training_model(network):
    """Return the TrainingModel of a network from `resnet50`; call both in the strategy's scope."""
    fuse_batch_norms(network)
    draw_drop_path_once(network)
    return TrainingModel(network.input, network.output, name=network.name)


class TrainingModel(keras.Model):
    """An image classifier whose replicas stay identical.

    Keras lets the moving statistics of batch norm drift apart between replicas. Here those of
    layers that are not `synchronized` are averaged over the replicas in each step. They are linear
    in the batches' statistics, and training does not read them, so averaging them once at the end
    would give the same.

    The training logs also hold `gradient_norm`: the L2 norm of the loss's gradient over the global
    batch, averaged over the epoch's steps so far, so that NaN and infinity stay in it. Training and
    evaluation logs hold `l2_loss`, the weight decay's part of the loss. `seconds_waiting` is the
    time that all calls of `fit` have waited for batches; `batch` is the last (images, labels).
    """

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.gradient_norm = keras.metrics.Mean(name="gradient_norm")
        self.l2_loss = keras.metrics.Mean(name="l2_loss")
        self.average = None
        self.seconds_waiting = 0.0
        self.evaluating = False

    def compile(self, optimizer, *, clip_grad_norm=0.0, ema_decay=0.0, **settings):
        """Compile as Keras does, and make all variables; call it in the strategy's scope.

        clip_grad_norm: clip the gradient of the global batch, L2 loss included, to this global
        norm; 0: don't. ema_decay: of the WeightAverage that is evaluated; 0: the weights are.

        Raises ValueError for a setting that Keras gets wrong on several replicas.
        """
        replicas = self.distribute_strategy.num_replicas_in_sync
        check_compile(replicas=replicas, **{**vars(optimizer), **settings})
        super().compile(optimizer, **settings)
        self._measure_gradients_of(optimizer, clip_grad_norm)
        self.average = WeightAverage(self, ema_decay) if ema_decay else None
        self._symbolic_build(data_batch=(self.inputs[0], keras.KerasTensor((None,), "int64")))

    def _maybe_symbolic_build(self, iterator=None, data_batch=None):
        # compile has built everything. Keras would take a batch from the data and drop it, and on
        # several hosts fail to average its outputs (keras#20585).
        pass

    def _measure_gradients_of(self, optimizer, clip_grad_norm):
        # Within the optimizer's own sum over the replicas: another one would send all gradients
        # again, and the norm of one replica's gradient is not that of the batch.
        all_reduce = optimizer._all_reduce_sum_gradients

        def measured(gradients_and_variables):
            gradients, variables = zip(*all_reduce(gradients_and_variables), strict=True)
            norm = tf.linalg.global_norm(gradients)
            self.gradient_norm.update_state(norm)
            if clip_grad_norm:
                gradients, _ = tf.clip_by_global_norm(gradients, clip_grad_norm, use_norm=norm)
            return list(zip(gradients, variables, strict=True))

        optimizer._all_reduce_sum_gradients = measured

    def _measure_l2_loss(self):
        self.l2_loss.update_state(tf.add_n(self.losses or [tf.zeros([])]))

    def train_step(self, data):
        self._measure_l2_loss()
        logs = super().train_step(data)
        self._average_moving_statistics()
        if self.average:
            self.average.update(self.optimizer.iterations)
        return self._for_all_hosts(logs)

    def test_step(self, data):
        def step():
            self._measure_l2_loss()
            return super(TrainingModel, self).test_step(data)

        if self.distribute_strategy.num_replicas_in_sync == 1:
            return step()
        # the last batch may leave a replica without images, on which oneDNN's convolutions fail
        logs = tf.cond(tf.size(data[1]) > 0, step, self.get_metrics_result)
        return self._for_all_hosts(logs)

    def _average_moving_statistics(self):
        variables = moving_statistics(self)
        replica = tf.distribute.get_replica_context()
        if replica.num_replicas_in_sync == 1 or not variables:
            return
        joined = tf.concat([variable.value for variable in variables], axis=0)  # one message
        averaged = replica.all_reduce(tf.distribute.ReduceOp.MEAN, joined)
        sizes = [variable.shape[0] for variable in variables]
        for variable, value in zip(variables, tf.split(averaged, sizes), strict=True):
            variable.assign(value)

    def _for_all_hosts(self, logs):
        # Keras averages logs over their first axis on several hosts: scalars fail (keras#20585)
        if not isinstance(self.distribute_strategy, tf.distribute.MultiWorkerMirroredStrategy):
            return logs
        return {name: tf.reshape(value, [1]) for name, value in logs.items()}

    def make_train_function(self, force=False):
        """Make Keras' train function, and measure within the graph how long it waits for a batch.

        Taking the batch in Python would be simpler, but on four logical CPUs the iterator then took
        up to two minutes to end. tf.timestamp is not allowed in deterministic training.
        """
        if self.train_function is not None and not force:
            return
        super().make_train_function(force)
        train, local = self.train_function, self.distribute_strategy.experimental_local_results
        now = partial(tf.numpy_function, time.perf_counter, [], tf.float64)

        @tf.function(reduce_retracing=True, autograph=False)
        def take_and_train(iterator):
            begin = now()
            with tf.control_dependencies([begin]):
                batch = iterator.get_next()
            arrived = [shard for part in tf.nest.flatten(batch) for shard in local(part)]
            with tf.control_dependencies(arrived):
                waited = now() - begin
            return train([batch]), waited, batch

        def timed(iterator):
            if self.run_eagerly or not hasattr(iterator, "get_next"):  # train_on_batch gives a list
                return train(iterator)
            logs, waited, self.batch = take_and_train(iterator)
            self.seconds_waiting += float(waited)
            return logs

        self.train_function = timed

    @property
    def metrics(self):
        """The metrics, without gradient_norm in an evaluation, which has no gradient."""
        return [
            metric
            for metric in super().metrics
            if not (self.evaluating and metric is self.gradient_norm)
        ]

    def evaluate(self, *args, **kwargs):
        self.evaluating = True
        try:
            with self.holding(average=True):
                return super().evaluate(*args, **kwargs)
        finally:
            self.evaluating = False

    def holding(self, *, average):
        """Within the block the model holds the average of its weights, or the trained ones (False).

        Before the first step, and without `ema_decay`, the two are the same.
        """
        if self.average is None or not int(keras.ops.convert_to_numpy(self.optimizer.iterations)):
            return contextlib.nullcontext()
        return self.average.in_model(average)


def moving_statistics(model):
    """List the moving means and variances of the batch norm layers that are not synchronized."""
    return [
        variable
        for layer in model.layers
        if isinstance(layer, keras.layers.BatchNormalization) and not layer.synchronized
        for variable in (layer.moving_mean, layer.moving_variance)
    ]


def check_compile(*, replicas, **settings):
    """Raise ValueError for a setting of the optimizer or of `compile` that Keras gets wrong."""
    if settings.get("steps_per_execution", 1) != 1:
        raise ValueError(
            f"steps_per_execution: {settings['steps_per_execution']} fails on several replicas "
            "(keras#19246) and may overshoot the epoch on one; leave it at 1"
        )
    for name, reason in WRONG_ON_REPLICAS.items():
        if replicas > 1 and settings.get(name) not in (None, False, "auto"):
            raise ValueError(
                f"{name}: {settings[name]} on {replicas} replicas {reason}; "
                "leave it out, or train on one"
            )


def without_training_step(model):
    """Return the network as a keras.Model that shares the weights and is loaded without kit."""
    return keras.Model(model.input, model.output, name=model.name)
