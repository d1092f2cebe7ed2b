"""Training: Keras' fit, which can be interrupted and resumed at any step, and the saved model."""

import contextlib
import logging
from pathlib import Path

import keras
import tensorflow as tf

from kit import __version__, signals
from kit.data.manifest import summary as manifest_summary
from kit.files import hash_file, replacing, seal, write_json
from kit.model.metadata import RESIZE
from kit.pipeline.undecodable import naming_undecodable
from kit.training import run_state, strategy
from kit.training.backup import Backup
from kit.training.callbacks import Measurements
from kit.training.checkpoint import Checkpoints
from kit.training.step import without_training_step
from kit.training.validation import padded, read_ahead

log = logging.getLogger(__name__)


def set_seed(seed, *, deterministic):
    """Seed the weights; with `deterministic`, also make TensorFlow's operations deterministic."""
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
    """Train as Keras' fit does; write history.csv, a row per epoch, and checkpoints/ in run_dir.

    A run in `run_dir` is resumed after the step of its newest checkpoint: an unfinished one, and a
    finished one whose `epochs` are more than they were (run_state.check).

    - training: a TrainingData, with endless `batches(start_step, image_size)`, `names(step)` of a
      step's images, `fingerprint` and the global `batch_size`.
    - validation: a dataset of one pass.
    - parameters: a dict of what decides the run.
    - saving: the section Saving. With `patience` the model then is the best epoch's.
    - training_sizes: a list of [epoch, pixels], the image size from that epoch on, counted from 0.

    Returns Keras' History, whose `history` maps loss, cross_entropy, l2_loss, top1, top5, val_* of
    each, learning_rate, gradient_norm, images_per_second and input_wait to one value per epoch of
    all sessions. Raises ValueError when `run_dir` holds a run of other parameters, RuntimeError
    when the loss is not finite, OSError when nothing can be saved or another process trains in
    `run_dir` (until its `save_model`); after all is saved, Preempted for a SIGTERM and
    KeyboardInterrupt for a SIGINT.
    """
    devices = model.distribute_strategy
    parameters = parameters | {"replicas": devices.num_replicas_in_sync}
    parameters |= {"shards": training.fingerprint}
    with run_state.alone(run_dir), signals.handled_by(signals.Interruption()) as interruption:
        run = run_state.begin(run_dir, parameters)
        folder, keep = Path(run_dir) / "checkpoints", saving.keep_checkpoints
        backup = Backup(
            Checkpoints(model, folder=folder, keep=keep, run=run),
            interruption,
            saving,
            run_dir=run_dir,
            parameters=parameters,
            steps_per_epoch=steps_per_epoch,
            names=training.names,
        )
        with contextlib.closing(backup), strategy.naming_lost_hosts(devices):
            step = _resume(model, backup)
            calls = fit_calls(step, epochs, steps_per_epoch, training_sizes)
            if not calls and not backup.logs:
                log.warning("%s: this training is finished; its model is as it was", run_dir)
            with naming_undecodable(training.data_dir):
                _train(model, training, validation, step, calls, callbacks, backup)
            backup.keep_best()
    return backup.as_history()


def fit_calls(step, epochs, steps_per_epoch, training_sizes=()):
    """List the calls of Keras' fit that remain of a training after `step`.

    The first finishes an interrupted epoch; each of the others trains the epochs of one image size.
    A call is (its first step, the epoch of that step, the epoch before which it ends, image size),
    counted from 0. The size is None before the first epoch of `training_sizes`.
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
    """Restore the newest checkpoint and return the step to continue from."""
    step = backup.resume()
    model.first_nonfinite.forget()  # of a run before
    taken = model.wait()
    if taken != step:  # in a notebook whose cell that compiles was not run again
        raise ValueError(f"model: it has been trained for {taken} steps; compile it anew")
    return step


def _train(model, training, validation, step, calls, callbacks, backup):
    """Finish an interrupted validation, then make the `calls` of Keras' fit."""
    devices, steps_per_epoch = model.distribute_strategy, backup.steps_per_epoch
    share = training.batch_size // strategy.host_count(devices)
    validation = padded(validation, share)  # one shape, so that one graph is compiled
    validation, validation_steps = read_ahead(validation)
    validation = strategy.for_host(devices, validation, batch_size=training.batch_size)
    callbacks = [Measurements(batch_size=training.batch_size), *callbacks, backup]
    if backup.logs:
        epoch = step // steps_per_epoch - 1
        _finish_epoch(model, validation, validation_steps, epoch, backup.logs, callbacks)
    functions = {None: model.train_function}  # by size: one graph for all would be slower
    for first, epoch, end, size in calls:
        if backup.exhausted:
            break
        model.train_function = functions.get(size)
        batches = training.batches(first, size)
        model.fit(
            strategy.for_host(devices, batches, batch_size=training.batch_size),
            validation_data=validation,
            validation_steps=validation_steps,
            initial_epoch=epoch,
            epochs=end,
            steps_per_epoch=steps_per_epoch - first % steps_per_epoch,
            callbacks=callbacks,
            shuffle=False,  # the dataset does that
            verbose=0,
        )
        functions[size] = model.train_function


def _finish_epoch(model, validation, steps, epoch, logs, callbacks):
    """Validate and end an epoch that was interrupted in its validation; `logs` are of its steps."""
    callbacks = keras.callbacks.CallbackList(callbacks, model=model)
    callbacks.on_train_begin()
    callbacks.on_epoch_begin(epoch)
    found = model.evaluate(validation, steps=steps, callbacks=callbacks, return_dict=True)
    callbacks.on_epoch_end(epoch, logs | {f"val_{name}": value for name, value in found.items()})
    callbacks.on_train_end()


def save_model(model, *, run_dir, manifest, parameters):
    """Write model.keras, and model.json with its classes, preprocessing, data and parameters.

    `manifest` is that of the training's shards, `parameters` a dict of what decides a training.
    This finishes the training in `run_dir`.
    """
    run_dir = Path(run_dir)
    with replacing(run_dir / "model.keras") as path, model.holding(average=True):
        without_training_step(model).save(path)
        metadata = model_metadata(manifest, parameters) | {"sha256": hash_file(path)}
    write_json(run_dir / "model.json", seal(metadata))
    run_state.finish(run_dir)


def model_metadata(manifest, parameters):
    """Return what evaluation must not differ from, and what the network can be built from."""
    from kit.data.images import form_of  # imports Pillow, without which one can train

    same = ("resnet_version", "stage_sizes", *RESIZE, "channel_means", "precision")
    sizes = parameters["training_sizes"] or [[0, parameters["image_size"]]]
    return {
        "classes": manifest["classes"],
        **{name: parameters[name] for name in same},
        "image_size": parameters["evaluation_size"] or parameters["image_size"],
        "training_size": sizes[-1][1],  # in its last epochs
        "label_offset": manifest["label_offset"],
        **form_of(manifest["parameters"])._asdict(),
        "data": manifest_summary(manifest),
        "kit_version": __version__,
        "parameters": parameters,
    }
