"""The training step: forward and backward, the sum over the replicas, the update.

XLA cannot compile Keras' own step under a strategy, because of the sum over the replicas within.
Here it compiles the parts before and after that sum. No value is read from the device in a step.

tests/test_contract.py tests each part of Keras that this file relies on or works around.
"""

import contextlib
from functools import partial

import keras
import tensorflow as tf

from kit.training import layers
from kit.training.ema import WeightAverage
from kit.training.nonfinite import Nonfinite
from kit.training.validation import keep_reading
from kit.training.waiting import Waiting


def training_model(network, *, freeze="none"):
    """Return the TrainingModel of a network from `resnet50`; call both in the strategy's scope.

    `freeze` is Initial's, see kit.training.layers.
    """
    layers.freeze(network, freeze)
    layers.fuse_batch_norms(network)
    layers.draw_drop_path_once(network)
    return TrainingModel(network.input, network.output, name=network.name)


class TrainingModel(keras.Model):
    """An image classifier whose replicas stay identical.

    Keras lets the moving statistics of batch norm drift apart between replicas. Here they are
    averaged over the replicas in each step. They are linear in the batches' statistics, and
    training does not read them, so averaging them once at the end would give the same.

    A step whose loss or gradient is not finite changes nothing, nor do the steps after it:
    `nonfinite` tells which it was.

    `fit` passes no logs to `on_train_batch_end`, because that would wait for the device:
    `latest_metrics` reads them. An epoch's logs also hold `gradient_norm`, the L2 norm of the
    loss's gradient over the global batch, averaged over the steps; they and an evaluation's hold
    `l2_loss`, the weight decay's part of the loss. `seconds_waiting` is the time that all calls of
    `fit` have waited for batches; `batch` is the last (images, labels).
    """

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.gradient_norm = keras.metrics.Mean(name="gradient_norm")
        self.l2_loss = keras.metrics.Mean(name="l2_loss")
        self.average = None
        self.evaluating = False

    def compile(
        self, optimizer, *, metrics=None, clip_grad_norm=0.0, ema_decay=0.0, xla=False, **settings
    ):
        """Compile as Keras does, and make all variables; call it in the strategy's scope.

        optimizer: one of kit.training.optimizers. clip_grad_norm: clip the gradient of the global
        batch, L2 loss included, to this global norm; 0: don't. ema_decay: of the WeightAverage that
        is evaluated; 0: the weights are. xla: compile each replica's part of a step.

        Raises ValueError for an optimizer or a setting of Keras that this step leaves out.
        """
        if not hasattr(optimizer, "changes"):
            raise ValueError(
                f"optimizer: {type(optimizer).__name__} cannot train here; take one of "
                "kit.training.optimizers"
            )
        if settings.get("steps_per_execution", 1) != 1:
            raise ValueError(
                f"steps_per_execution: {settings['steps_per_execution']} fails on several replicas "
                "(keras#19246) and may overshoot the epoch on one; leave it at 1"
            )
        if xla and any(getattr(layer, "synchronized", False) for layer in self.layers):
            raise ValueError(
                "xla: true cannot compile batch_norm: synchronized, which asks the other replicas "
                "within the forward pass; take xla: auto, or batch_norm: per_replica"
            )
        # weighted, so that the padding of an evaluation counts nothing
        super().compile(optimizer, weighted_metrics=metrics, jit_compile=False, **settings)
        self.average = WeightAverage(self, ema_decay) if ema_decay else None
        self._symbolic_build(data_batch=(self.inputs[0], keras.KerasTensor((None,), "int64")))
        self.clip_grad_norm, self.xla, self.parts = clip_grad_norm, xla, {}
        self.first_nonfinite = Nonfinite(self.distribute_strategy)
        self.waiting = Waiting()

    def _maybe_symbolic_build(self, iterator=None, data_batch=None):
        # compile has built everything. Keras would take a batch from the data and drop it, and on
        # several hosts fail to average its outputs (keras#20585).
        pass

    def train_step(self, data):
        images, labels = data
        gradients, statistics, loss = self._part("gradients")(images, labels)
        gradients, statistics, loss = self._over_replicas(gradients, statistics, loss)
        self._part("update")(gradients, statistics, loss)
        return {}

    def test_step(self, data):
        count = self._part("count")
        if data[1].shape[0] is None:  # not padded: the last batch may leave a replica
            # without images, on which oneDNN's convolutions fail
            tf.cond(tf.size(data[1]) > 0, lambda: count(*data), lambda: None)
        else:
            count(*data)
        with tf.device("CPU:0"):  # Keras wants some log, and will read it
            return {"step": tf.zeros([1])}

    def _part(self, name):
        """Return the method of that name, bound to this replica's variables; XLA may compile it."""
        context = tf.distribute.get_replica_context()
        place = int(tf.get_static_value(context.replica_id_in_sync_group))
        if (name, place) not in self.parts:
            part = partial(getattr(self, f"_{name}"), self._own(place))
            if self.xla:  # else not: synchronized batch norm may not stand in a nested function
                part = tf.function(part, jit_compile=True, autograph=False)
            self.parts[name, place] = part
        return self.parts[name, place]

    def _own(self, place):
        """Give the function from a mirrored variable to this replica's copy of it."""
        results = self.distribute_strategy.experimental_local_results

        def own(variable):
            copies = results(variable.value if isinstance(variable, keras.Variable) else variable)
            return copies[place % len(copies)]

        return own

    def _gradients(self, own, images, labels):
        """Give this replica's gradients, its new moving statistics as one vector, and its loss.

        The statistics move in `_update`, like all else.
        """
        replicas = self.distribute_strategy.num_replicas_in_sync
        moving = [own(variable) for variable in moving_statistics(self)]
        before = [tf.identity(variable) for variable in moving]
        with tf.GradientTape() as tape:
            logits = self(images, training=True)
            loss = self.compute_loss(images, labels, logits, training=True)  # over the replicas
        gradients = tape.gradient(loss, self.trainable_weights)
        self._loss_tracker.update_state(loss * replicas, sample_weight=tf.shape(images)[0])
        self.l2_loss.update_state(tf.add_n(self.losses or [tf.zeros([])]))
        self.compute_metrics(images, labels, logits)
        statistics = tf.concat([tf.identity(variable) for variable in moving] or [[]], axis=0)
        with tf.control_dependencies([statistics]):
            for variable, value in zip(moving, before, strict=True):
                variable.assign(value)
        return gradients, statistics, loss

    def _over_replicas(self, gradients, statistics, loss):
        """Sum gradients and loss over the replicas, and average the moving statistics."""
        replica = tf.distribute.get_replica_context()
        if replica.num_replicas_in_sync == 1:
            return gradients, statistics, loss
        gradients = replica.all_reduce(tf.distribute.ReduceOp.SUM, gradients)
        joined = tf.concat([statistics / replica.num_replicas_in_sync, [loss]], axis=0)
        joined = replica.all_reduce(tf.distribute.ReduceOp.SUM, joined)
        return gradients, joined[:-1], joined[-1]

    def _update(self, own, gradients, statistics, loss):
        """Move this replica's weights, statistics and average, unless something is not finite."""
        norm = tf.linalg.global_norm(gradients)
        self.gradient_norm.update_state(norm)
        steps = own(self.optimizer.iterations)
        finite = self.first_nonfinite.check(own, norm, loss, steps)
        if self.clip_grad_norm:
            gradients, _ = tf.clip_by_global_norm(gradients, self.clip_grad_norm, use_norm=norm)
        changes = self.optimizer.changes(own, gradients, self.trainable_weights)
        variables = moving_statistics(self)
        sizes = [variable.shape[0] for variable in variables]
        values = tf.split(statistics, sizes) if sizes else []
        for variable, value in zip(variables, values, strict=True):
            changes.append((own(variable), value))
        for variable, value in changes:
            variable.assign(tf.where(finite, value, variable))
        steps.assign_add(tf.cast(finite, steps.dtype))
        if self.average:
            self.average.update(own, steps, finite)

    def _count(self, own, images, labels):
        """Add a batch of evaluation to the metrics; a label below 0 marks an image as padding."""
        logits = self(images, training=False)
        weights = tf.cast(labels >= 0, tf.float32)
        labels, images = tf.maximum(labels, 0), tf.reduce_sum(weights)
        losses = self.loss.call(labels, logits)
        losses *= tf.cast(weights, losses.dtype)
        loss = tf.math.divide_no_nan(tf.reduce_sum(losses), tf.cast(images, losses.dtype))
        l2_loss = tf.add_n(self.losses or [tf.zeros([])])
        self._loss_tracker.update_state(loss + tf.cast(l2_loss, loss.dtype), sample_weight=images)
        self.l2_loss.update_state(l2_loss)
        self.compute_metrics(None, labels, logits, weights)

    def make_train_function(self, force=False):
        """Make Keras' train function, which here also measures how long it waits for batches."""
        if self.train_function is not None and not force:
            return
        super().make_train_function(force)
        self.train_function = self.waiting.timed(self.train_function, self)

    @property
    def seconds_waiting(self):
        return self.waiting.seconds

    @property
    def nonfinite(self):
        """What was not finite, and in which step: {"step", "loss", "gradient_norm"}, or None."""
        return self.first_nonfinite.read()

    def wait(self):
        """Wait until the device has done all steps, and give their number."""
        return int(keras.ops.convert_to_numpy(self.optimizer.iterations))

    def latest_metrics(self):
        """Read the metrics so far, once the device has done all steps."""
        return {name: float(value) for name, value in self.get_metrics_result().items()}

    @property
    def metrics(self):
        """The metrics, without gradient_norm in an evaluation, which has no gradient."""
        return [
            metric
            for metric in super().metrics
            if not (self.evaluating and metric is self.gradient_norm)
        ]

    def _get_metrics_result_or_logs(self, logs):
        return self.get_metrics_result()  # the steps give no logs: what Keras asks once an epoch

    def evaluate(self, *args, **kwargs):
        """Evaluate as Keras does; a label below 0 marks padding, which counts nothing."""
        self.evaluating = True
        if kwargs.get("_use_cached_eval_dataset"):  # in `fit`
            keep_reading(self._eval_epoch_iterator)
        try:
            with self.holding(average=True):
                return super().evaluate(*args, **kwargs)
        finally:
            self.evaluating = False

    def holding(self, *, average):
        """Within the block the model holds the average of its weights, or the trained ones (False).

        Before the first step, and without `ema_decay`, the two are the same.
        """
        if self.average is None or not self.wait():
            return contextlib.nullcontext()
        return self.average.in_model(average)


def moving_statistics(model):
    """List the moving means and variances of the batch norm layers that are not frozen."""
    return [
        variable
        for layer in model.layers
        if isinstance(layer, keras.layers.BatchNormalization) and layer.trainable
        for variable in (layer.moving_mean, layer.moving_variance)
    ]


def without_training_step(model):
    """Return the network as a keras.Model that shares the weights and is loaded without kit."""
    return keras.Model(model.input, model.output, name=model.name)
