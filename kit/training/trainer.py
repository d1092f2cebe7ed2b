"""Training: Keras' fit, cut and resumed at any step, and the model that is left."""

import contextlib
from pathlib import Path

import keras
import tensorflow as tf

from kit import __version__, signals
from kit.data.manifest import summary as manifest_summary
from kit.files import hash_file, replacing, write_json
from kit.training import run_state, strategy
from kit.training.backup import Backup
from kit.training.callbacks import Measurements
from kit.training.checkpoint import Checkpoints
from kit.training.step import without_training_step


def set_seed(seed, *, deterministic):
    """Seed the weights; with `deterministic`, also forbid operations whose sums vary in order."""
    keras.utils.set_random_seed(seed)
    if deterministic:
        tf.config.experimental.enable_op_determinism()


def fit(
    model,
    training,
    validation,
    *,
    epochs,
    steps_per_epoch,
    callbacks,
    run_dir,
    parameters,
    saving,
    training_sizes=(),
):
    """Train as Keras' fit does; leave history.csv, a row per epoch, and checkpoints/ in run_dir.

    `training` is a TrainingData: its `batches(start_step, image_size)` are endless, `names(step)`
    names a step's images, `fingerprint` and `batch_size` are of the whole. `validation` is a
    dataset of one pass. `training_sizes` lists [epoch, pixels]: the image size from that epoch on,
    counted from 0. `parameters` is a dict of what decides the run: one that was cut goes on at the
    very step of its newest checkpoint, one whose model is saved starts anew. `saving` is the
    section Saving.

    Returns Keras' History, whose `history` maps loss, cross_entropy, l2_loss, top1, top5, val_* of
    each, learning_rate, gradient_norm, images_per_second and input_wait to one value per epoch, of
    all sessions. Raises ValueError when `run_dir` holds an unfinished run of other parameters,
    RuntimeError when the loss is not finite, OSError when nothing can be saved, Preempted after a
    SIGTERM and KeyboardInterrupt after a SIGINT, with all saved.
    """
    devices = model.distribute_strategy
    parameters = parameters | {"replicas": devices.num_replicas_in_sync}
    parameters |= {"shards": training.fingerprint}
    run_state.begin(run_dir, parameters)
    with signals.handled_by(signals.Interruption()) as interruption:
        backup = Backup(
            Checkpoints(model, folder=Path(run_dir) / "checkpoints", keep=saving.keep_checkpoints),
            interruption,
            saving,
            run_dir=run_dir,
            parameters=parameters,
            steps_per_epoch=steps_per_epoch,
            names=training.names,
        )
        with contextlib.closing(backup), strategy.lost_hosts_named(devices):
            step = _resume(model, backup)
            parts = fit_calls(
                step, epochs=epochs, steps_per_epoch=steps_per_epoch, training_sizes=training_sizes
            )
            _train(model, training, validation, step, parts, callbacks, backup)
    return backup.as_history()


def fit_calls(step, *, epochs, steps_per_epoch, training_sizes):
    """List the calls of Keras' fit that are left of a training after `step`.

    The rest of an epoch, then the others by image size. A call is (its first step, that step's
    epoch, the epoch before which it ends, image size). `training_sizes` lists [epoch, pixels], the
    size from that epoch on, all counted from 0; before the first of them the size is None.
    """
    epoch, done = divmod(step, steps_per_epoch)
    ends = [first for first, _ in training_sizes] + [epochs] + [epoch + 1] * bool(done)
    calls = []
    for end in sorted(ends):
        if epoch < end <= epochs:
            sizes = [None] + [pixels for first, pixels in training_sizes if first <= epoch]
            calls.append((step, epoch, end, sizes[-1]))
            step, epoch = end * steps_per_epoch, end
    return calls


def _resume(model, backup):
    """Restore the newest checkpoint, and give the step to go on from."""
    step = backup.resume()
    taken = int(keras.ops.convert_to_numpy(model.optimizer.iterations))
    if taken != step:  # its cell was not run again for a new run
        raise ValueError(f"model: it has been trained for {taken} steps; compile it anew")
    return step


def _train(model, training, validation, step, calls, callbacks, backup):
    """Call Keras' fit for each part that is left of a run after `step`."""
    devices, steps_per_epoch = model.distribute_strategy, backup.steps_per_epoch
    validation = strategy.for_host(devices, validation, batch_size=training.batch_size)
    callbacks = [Measurements(batch_size=training.batch_size), *callbacks, backup]
    if backup.logs:
        _finish_epoch(model, validation, step // steps_per_epoch - 1, backup.logs, callbacks)
    functions = {None: model.train_function}  # one graph for all sizes would be slower
    for first, epoch, end, size in calls:
        model.train_function = functions.get(size)
        batches = training.batches(first, size)
        model.fit(
            strategy.for_host(devices, batches, batch_size=training.batch_size),
            validation_data=validation,
            initial_epoch=epoch,
            epochs=end,
            steps_per_epoch=steps_per_epoch - first % steps_per_epoch,
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

    `manifest` is that of the shards it was trained on, `parameters` a dict of all that decides a
    training. With it the training is finished: the next one into `run_dir` starts anew.
    """
    run_dir = Path(run_dir)
    with replacing(run_dir / "model.keras") as path, model.holding(average=True):
        without_training_step(model).save(path)
        metadata = model_metadata(manifest, parameters) | {"sha256": hash_file(path)}
    write_json(run_dir / "model.json", metadata)
    run_state.finish(run_dir)


def model_metadata(manifest, parameters):
    """Give what evaluation refuses to differ from, and what the network can be built anew from."""
    same = ("resnet_version", "stage_sizes", "resize_side", "channel_means", "precision")
    sizes = parameters["training_sizes"] or [[0, parameters["image_size"]]]
    return {
        "classes": manifest["classes"],
        **{name: parameters[name] for name in same},
        "image_size": parameters["evaluation_size"] or parameters["image_size"],
        "training_size": sizes[-1][1],  # in its last epochs
        "label_offset": manifest["label_offset"],
        "store_short_side": manifest["parameters"]["store_short_side"],
        "store_quality": manifest["parameters"]["store_quality"],
        "data": manifest_summary(manifest),
        "kit_version": __version__,
        "parameters": parameters,
    }
