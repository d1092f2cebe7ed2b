"""The compiled network, what is recorded while it trains, and the model that is left."""

import json
import math
import shutil
import time
from pathlib import Path

import keras
import tensorflow as tf

from kit import __version__
from kit.files import replacing
from kit.model.resnet import resnet50
from kit.training.checks import check_precision


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
        model = resnet50(
            classes=classes,
            version=version,
            channel_means=channel_means,
            batch_norm_momentum=batch_norm_momentum,
            batch_norm_epsilon=batch_norm_epsilon,
            zero_gamma=zero_gamma,
            weight_decay=weight_decay,
            **smaller,
        )
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


def fit(model, training, validation, *, run_dir, epochs, steps_per_epoch, schedule, verbose=2):
    """Train, and leave in `run_dir` history.csv (a row per epoch) and logs/ for TensorBoard.

    `training` is endless, `validation` one pass, `schedule` a callback. Returns Keras' History,
    whose `history` maps loss, cross_entropy, l2_loss, top1, top5, val_* of each, learning_rate and
    images_per_second to one value per epoch. Raises RuntimeError when the loss is not finite.
    """
    run_dir = Path(run_dir)
    run_dir.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(run_dir / "logs", ignore_errors=True)  # or TensorBoard would mix two trainings
    return model.fit(
        training,
        validation_data=validation,
        epochs=epochs,
        steps_per_epoch=steps_per_epoch,
        callbacks=[
            schedule,
            Measurements(batch_size=training.element_spec[1].shape[0]),
            keras.callbacks.CSVLogger(run_dir / "history.csv"),
            keras.callbacks.TensorBoard(run_dir / "logs", write_graph=False),
        ],
        shuffle=False,  # the dataset is already
        verbose=verbose,
    )


class Measurements(keras.callbacks.Callback):
    """Add l2_loss and images_per_second to each epoch's logs; stop on a loss that is not finite.

    `loss` is the mean of cross-entropy + L2 over the epoch's steps, so the L2 loss is the
    difference of the two means. The first step of an epoch, which may compile, does not count as
    speed.
    """

    def __init__(self, *, batch_size):
        super().__init__()
        self.batch_size = batch_size

    def on_epoch_begin(self, epoch, logs=None):
        self.steps = 0
        self.end = None

    def on_train_batch_end(self, batch, logs=None):
        if batch == 0:
            float(logs["loss"])  # waits for the device, which runs ahead of Python
            self.start = time.perf_counter()
        self.steps = batch

    def on_test_begin(self, logs=None):
        self.end = time.perf_counter()  # Keras has waited for the last step

    def on_epoch_end(self, epoch, logs=None):
        if not math.isfinite(logs["loss"]):
            raise RuntimeError(
                f"the loss became {logs['loss']} in epoch {epoch + 1}; no model is saved: "
                "lower learning_rate"
            )
        for prefix in ("", "val_"):
            if f"{prefix}loss" in logs:
                logs[f"{prefix}l2_loss"] = logs[f"{prefix}loss"] - logs[f"{prefix}cross_entropy"]
        if self.steps:
            seconds = (self.end or time.perf_counter()) - self.start
            logs["images_per_second"] = self.batch_size * self.steps / seconds


def save_model(model, *, run_dir, classes, version, image_size, resize_side, store_short_side):
    """Write model.keras and, beside it, model.json: what a user of the model must know.

    `classes` is the list of (wnid, name) that the logits stand for; `store_short_side` is that of
    the shards it was trained on. The means are in the model.
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
        model.save(path)
    with replacing(run_dir / "model.json") as path:
        path.write_text(json.dumps(metadata, indent=1, ensure_ascii=False), encoding="utf-8")
