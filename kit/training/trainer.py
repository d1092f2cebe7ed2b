"""The compiled network, what is recorded while it trains, and the model that is left."""

import contextlib
import json
from functools import partial
from pathlib import Path

import keras
import tensorflow as tf

from kit import __version__, signals
from kit.files import replacing
from kit.model.resnet import resnet50
from kit.training import strategy, unfinished
from kit.training.batch_norm import fuse_batch_norms
from kit.training.checkpoint import Checkpoints
from kit.training.checks import check_precision, check_saving
from kit.training.keeper import Keeper
from kit.training.measurements import Measurements
from kit.training.step import TrainingModel, plain


def fix_chance(*, seed, deterministic):
    """Seed the weights; with `deterministic`, also forbid operations whose sums vary in order."""
    keras.utils.set_random_seed(seed)
    if deterministic:
        tf.config.experimental.enable_op_determinism()


def compile_model(
    strategy,
    *,
    classes,
    version,
    channel_means,
    batch_norm,
    batch_norm_momentum,
    batch_norm_epsilon,
    zero_gamma,
    weight_decay,
    learning_rate,
    momentum,
    precision,
    **smaller,
):
    """Build ResNet-50 under the strategy, with SGD and the metrics of the recipe.

    The loss is softmax cross-entropy plus the weight decay; `cross_entropy`, `top1` and `top5` are
    measured beside it. `smaller` (width, stage_sizes) makes a small network for tests.

    Raises ValueError for a precision that Keras has not, or cannot do right on several replicas.
    """
    check_precision(precision=precision, replicas=strategy.num_replicas_in_sync)
    keras.config.set_dtype_policy(precision)
    with strategy.scope():
        network = resnet50(
            classes=classes,
            version=version,
            channel_means=channel_means,
            batch_norm=batch_norm,
            batch_norm_momentum=batch_norm_momentum,
            batch_norm_epsilon=batch_norm_epsilon,
            zero_gamma=zero_gamma,
            weight_decay=weight_decay,
            **smaller,
        )
        fuse_batch_norms(network)
        model = TrainingModel(network.input, network.output, name=network.name)
        model.compile(
            optimizer=keras.optimizers.SGD(learning_rate, momentum=momentum),
            loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            metrics=[
                keras.metrics.SparseCategoricalCrossentropy(from_logits=True, name="cross_entropy"),
                keras.metrics.SparseCategoricalAccuracy(name="top1"),
                keras.metrics.SparseTopKCategoricalAccuracy(min(5, classes), name="top5"),
            ],
        )
    return model


def fit(
    model,
    training,
    validation,
    *,
    run_dir,
    epochs,
    steps_per_epoch,
    schedule,
    parameters,
    checkpoint_minutes,
    keep_checkpoints,
    on_save_error,
    batch_names=None,
    watchers=(),
):
    """Train, and leave in `run_dir` history.csv, a row per epoch, and checkpoints/.

    `training(start_step=)` gives endless batches from a step on, `validation` is one pass,
    `schedule` a callback, `watchers` more of them (kit.training.watching). `parameters` is a dict
    of what decides the run: one that was cut goes on at the very step of its newest checkpoint,
    one whose model is saved starts anew. The other arguments are those of Keeper.

    Returns Keras' History, whose `history` maps loss, cross_entropy, l2_loss, top1, top5, val_* of
    each, learning_rate, gradient_norm, images_per_second and input_wait to one value per epoch, of
    all sessions. Raises ValueError when `run_dir` holds an unfinished run of other parameters,
    RuntimeError when the loss is not finite, OSError when nothing can be saved, Preempted after a
    SIGTERM and KeyboardInterrupt after a SIGINT, with all saved.
    """
    replicas = model.distribute_strategy.num_replicas_in_sync
    parameters = parameters | {"replicas": replicas}
    check_saving(keep_checkpoints=keep_checkpoints, on_save_error=on_save_error)
    unfinished.begin(run_dir, parameters)
    with signals.taken_by(signals.Interruption()) as interruption:
        keeper = Keeper(
            Checkpoints(model, folder=Path(run_dir) / "checkpoints", keep=keep_checkpoints),
            interruption,
            run_dir=run_dir,
            parameters=parameters,
            steps_per_epoch=steps_per_epoch,
            checkpoint_minutes=checkpoint_minutes,
            on_save_error=on_save_error,
            batch_names=batch_names,
        )
        with contextlib.closing(keeper), strategy.lost_hosts_named(model.distribute_strategy):
            _train(model, training, validation, epochs, keeper, [schedule], watchers)
    return keeper.as_history()


def _train(model, training, validation, epochs, keeper, before, after):
    """Call Keras' fit for what is left of a run: the rest of an epoch, then the other epochs."""
    devices = model.distribute_strategy
    step = keeper.resume()
    taken = int(keras.ops.convert_to_numpy(model.optimizer.iterations))
    if taken != step:  # its cell was not run again for a new run
        raise ValueError(f"model: it has been trained for {taken} steps; compile it anew")
    batches = training(start_step=step)
    batch_size = batches.element_spec[1].shape[0] * strategy.host_count(devices)
    distribute = partial(strategy.for_host, devices, batch_size=batch_size)
    measurements = Measurements(batch_size=batch_size)
    validation = distribute(validation)
    callbacks = [*before, measurements, *after, keeper]

    def train(batches, first, last, steps):
        model.fit(
            distribute(batches),
            validation_data=validation,
            initial_epoch=first,
            epochs=last,
            steps_per_epoch=steps,
            callbacks=callbacks,
            shuffle=False,  # the dataset is already
            verbose=0,
        )

    epoch, done = divmod(step, keeper.steps_per_epoch)
    if keeper.logs:
        _finish_epoch(model, validation, epoch - 1, keeper.logs, callbacks)
    if done:
        train(batches, epoch, epoch + 1, keeper.steps_per_epoch - done)
        epoch += 1
        batches = training(start_step=epoch * keeper.steps_per_epoch)
    if epoch < epochs:
        train(batches, epoch, epochs, keeper.steps_per_epoch)


def _finish_epoch(model, validation, epoch, logs, callbacks):
    """Validate, and end an epoch that was cut in its validation; `logs` are those of its steps."""
    callbacks = keras.callbacks.CallbackList(callbacks, model=model)
    callbacks.on_train_begin()
    callbacks.on_epoch_begin(epoch)
    found = model.evaluate(validation, callbacks=callbacks, return_dict=True)
    callbacks.on_epoch_end(epoch, logs | {f"val_{name}": value for name, value in found.items()})
    callbacks.on_train_end()


def save_model(model, *, run_dir, classes, version, image_size, resize_side, store_short_side):
    """Write model.keras and, beside it, model.json: what a user of the model must know.

    `classes` is the list of (wnid, name) that the logits stand for; `store_short_side` is that of
    the shards it was trained on. The means are in the model. With it the training is finished: the
    next one into `run_dir` starts anew.
    """
    run_dir = Path(run_dir)
    metadata = {
        "classes": [{"wnid": wnid, "name": name} for wnid, name in classes],
        "version": version,
        "image_size": image_size,
        "resize_side": resize_side,
        "store_short_side": store_short_side,
        "kit_version": __version__,
    }
    with replacing(run_dir / "model.keras") as path:
        plain(model).save(path)
    with replacing(run_dir / "model.json") as path:
        path.write_text(json.dumps(metadata, indent=1, ensure_ascii=False), encoding="utf-8")
    unfinished.finish(run_dir)
