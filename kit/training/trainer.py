"""The compiled network, what is recorded while it trains, and the model that is left."""

import contextlib
import json
from functools import partial
from pathlib import Path

import keras
import tensorflow as tf

from kit import __version__, signals
from kit.data.manifest import summary as manifest_summary
from kit.files import hash_file, replacing
from kit.model.resnet import resnet50
from kit.training import losses, run_state, strategy
from kit.training.backup import Keeper
from kit.training.checkpoint import Checkpoints
from kit.training.checks import check_loss, check_optimizer, check_precision, check_saving
from kit.training.drop_path import drop_as_one
from kit.training.layers import fuse_batch_norms
from kit.training.measurements import Measurements
from kit.training.optimizers import make_optimizer
from kit.training.step import TrainingModel, plain
from kit.training.stretches import stretches


def fix_chance(*, seed, deterministic):
    """Seed the weights; with `deterministic`, also forbid operations whose sums vary in order."""
    keras.utils.set_random_seed(seed)
    if deterministic:
        tf.config.experimental.enable_op_determinism()


def compile_model(
    strategy,
    *,
    classes,
    precision,
    optimizer,
    learning_rate,
    momentum,
    weight_decay,
    weight_decay_skips,
    clip_norm,
    loss,
    label_smoothing,
    target_threshold,
    ema_decay,
    **network,
):
    """Build ResNet-50 under the strategy, ready to train; `network` goes to `resnet50` as it is.

    The loss is that of kit.training.losses, of labels int64 [batch] or float32 [batch, classes].
    Under "sgd" the weight decay is a part of it, under "lamb" the optimizer's own. `cross_entropy`,
    `l2_loss`, `top1` and `top5` are measured beside it. For `clip_norm` and `ema_decay` see
    TrainingModel.

    Raises ValueError for what does not go together, or Keras cannot do right on several replicas.
    """
    check_precision(precision=precision, replicas=strategy.num_replicas_in_sync)
    check_loss(loss=loss, label_smoothing=label_smoothing, target_threshold=target_threshold)
    check_optimizer(optimizer=optimizer, clip_norm=clip_norm, ema_decay=ema_decay)
    keras.config.set_dtype_policy(precision)
    decay = {"weight_decay": weight_decay, "weight_decay_skips": weight_decay_skips}
    in_the_loss = decay if optimizer == "sgd" else decay | {"weight_decay": 0.0}
    with strategy.scope():
        layers = resnet50(classes=classes, **in_the_loss, **network)
        fuse_batch_norms(layers)
        drop_as_one(layers)
        model = TrainingModel(layers.input, layers.output, name=layers.name)
        rates = {"learning_rate": learning_rate, "momentum": momentum}
        model.compile(
            make_optimizer(model, optimizer=optimizer, **rates, **decay),
            clip_norm=clip_norm,
            ema_decay=ema_decay,
            loss=losses.Loss(
                loss=loss, label_smoothing=label_smoothing, target_threshold=target_threshold
            ),
            metrics=losses.metrics(),
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
    training_sizes,
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
    `schedule` a callback, `watchers` more of them (kit.training.callbacks). `training_sizes` lists
    [epoch, pixels]: from that epoch on, counted from 0, it is `training(start_step=, image_size=)`.
    `parameters` is a dict of what decides the run: one that was cut goes on at the very step of its
    newest checkpoint, one whose model is saved starts anew. The other arguments are those of
    Keeper.

    Returns Keras' History, whose `history` maps loss, cross_entropy, l2_loss, top1, top5, val_* of
    each, learning_rate, gradient_norm, images_per_second and input_wait to one value per epoch, of
    all sessions. Raises ValueError when `run_dir` holds an unfinished run of other parameters,
    RuntimeError when the loss is not finite, OSError when nothing can be saved, Preempted after a
    SIGTERM and KeyboardInterrupt after a SIGINT, with all saved.
    """
    replicas = model.distribute_strategy.num_replicas_in_sync
    parameters = parameters | {"replicas": replicas}
    check_saving(keep_checkpoints=keep_checkpoints, on_save_error=on_save_error)
    run_state.begin(run_dir, parameters)
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
            left = partial(stretches, epochs=epochs, training_sizes=training_sizes)
            _train(model, training, validation, left, keeper, [schedule], watchers)
    return keeper.as_history()


def _train(model, training, validation, left, keeper, before, after):
    """Call Keras' fit for each part of a run that is `left(step)`."""
    devices = model.distribute_strategy
    step = keeper.resume()
    taken = int(keras.ops.convert_to_numpy(model.optimizer.iterations))
    if taken != step:  # its cell was not run again for a new run
        raise ValueError(f"model: it has been trained for {taken} steps; compile it anew")
    batch_size = training(start_step=step).element_spec[1].shape[0] * strategy.host_count(devices)
    distribute = partial(strategy.for_host, devices, batch_size=batch_size)
    validation = distribute(validation)
    callbacks = [*before, Measurements(batch_size=batch_size), *after, keeper]
    if keeper.logs:
        _finish_epoch(model, validation, step // keeper.steps_per_epoch - 1, keeper.logs, callbacks)
    functions = {None: model.train_function}  # one graph for all sizes would be slower
    for first, epoch, end, size in left(step, steps_per_epoch=keeper.steps_per_epoch):
        model.train_function = functions.get(size)
        sized = {"image_size": size} if size else {}
        model.fit(
            distribute(training(start_step=first, **sized)),
            validation_data=validation,
            initial_epoch=epoch,
            epochs=end,
            steps_per_epoch=keeper.steps_per_epoch - first % keeper.steps_per_epoch,
            callbacks=callbacks,
            shuffle=False,  # the dataset is already
            verbose=0,
        )
        functions[size] = model.train_function


def _finish_epoch(model, validation, epoch, logs, callbacks):
    """Validate, and end an epoch that was cut in its validation; `logs` are those of its steps."""
    callbacks = keras.callbacks.CallbackList(callbacks, model=model)
    callbacks.on_train_begin()
    callbacks.on_epoch_begin(epoch)
    found = model.evaluate(validation, callbacks=callbacks, return_dict=True)
    callbacks.on_epoch_end(epoch, logs | {f"val_{name}": value for name, value in found.items()})
    callbacks.on_train_end()


def save_model(model, *, run_dir, manifest, parameters):
    """Write model.keras and, beside it, model.json: what a user of the model must know.

    `manifest` is that of the shards it was trained on, `parameters` a dict of all that notebook 02
    declares. With it the training is finished: the next one into `run_dir` starts anew.
    """
    run_dir = Path(run_dir)
    with replacing(run_dir / "model.keras") as path, model.holding(average=True):
        plain(model).save(path)
        metadata = model_metadata(manifest, parameters) | {"sha256": hash_file(path)}
    with replacing(run_dir / "model.json") as path:
        path.write_text(json.dumps(metadata, indent=1, ensure_ascii=False), encoding="utf-8")
    run_state.finish(run_dir)


def model_metadata(manifest, parameters):
    """Give what evaluation refuses to differ from, and what the network can be built anew from."""
    same = ("version", "stage_sizes", "resize_side", "channel_means", "precision")
    sizes = parameters["training_sizes"] or [[0, parameters["image_size"]]]
    return {
        "classes": manifest["classes"],
        **{name: parameters[name] for name in same},
        "image_size": parameters["test_size"] or parameters["image_size"],
        "training_size": sizes[-1][1],  # in its last epochs
        "label_offset": manifest["label_offset"],
        "store_short_side": manifest["parameters"]["store_short_side"],
        "store_quality": manifest["parameters"]["store_quality"],
        "data": manifest_summary(manifest),
        "kit_version": __version__,
        "parameters": parameters,
    }
