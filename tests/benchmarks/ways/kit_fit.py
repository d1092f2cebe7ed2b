"""The kit's `fit` on one random batch over and over; needs nothing but TensorFlow."""

import dataclasses
import importlib.util
import json
import re
import time

import keras
import numpy as np
import tensorflow as tf

from kit import ROOT
from kit.model.resnet import resnet50
from kit.model.sections import Network, WeightDecay
from kit.training import trainer
from kit.training.callbacks import ExpectedAccuracy, Progress
from kit.training.losses import ClassificationLoss, metrics
from kit.training.optimizers import make_optimizer
from kit.training.sections import Loss, Monitoring, Optimizer, Saving
from kit.training.step import TrainingModel, training_model
from kit.training.tensorboard import TensorBoard


def section(kind, **changes):
    """Give a section with params.yaml's values, some of them changed."""
    values = recipe()
    names = [field.name for field in dataclasses.fields(kind)]
    return kind(**{name: values[name] for name in names} | changes)


def recipe() -> dict:
    """Read params.yaml, a name and its value a line, without a package for YAML."""
    text = (ROOT / "params.yaml").read_text(encoding="utf-8")
    lines = re.findall(r"^(\w+): +(.*?)(?: +#.*)?$", text, re.MULTILINE)
    return {name: plain(value) for name, value in lines}


def plain(text):
    try:
        return json.loads(text)
    except ValueError:  # words without quotation marks
        return re.findall(r"\w+", text) if text.startswith("[") else text


def random_batch(*, batch_size, side, classes):
    """Give (images uint8, labels) of one batch."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (batch_size, side, side, 3), dtype=np.uint8)
    return images, rng.integers(0, classes, batch_size)


def repeated(images, labels):
    """Give one batch for ever, without autotuning: its thread may take a minute to end."""
    options = tf.data.Options()
    options.autotune.enabled = False
    batches = tf.data.Dataset.from_tensors((images, labels)).repeat()
    return batches.prefetch(2).with_options(options)


def compiled(
    strategy, *, precision, xla=False, fused=True, classes=1000, width=64, **network_changes
):
    """Give the kit's network with the numbers of params.yaml, and its batch norm or Keras'."""
    keras.config.set_dtype_policy(precision)
    network, decay = section(Network, **network_changes), section(WeightDecay)
    optimizer, loss = section(Optimizer), section(Loss)
    with strategy.scope():
        layers = resnet50(network, classes=classes, decay=decay, width=width)
        model = training_model(layers) if fused else TrainingModel(layers.input, layers.output)
        model.compile(
            make_optimizer(model, optimizer, decay, 0.1),
            loss=ClassificationLoss(loss),
            metrics=metrics(),
            xla=xla,
        )
    return model


class SameBatch:
    """One batch over and over, in place of a TrainingData."""

    fingerprint = data_dir = ""

    def __init__(self, images, labels):
        self.batch_size, self.dataset = len(labels), repeated(images, labels)

    def batches(self, start_step, image_size):
        return self.dataset

    def names(self, step):
        return []


def fit(model, images, labels, run_dir, *, epochs, steps, callbacks=(), validate=1):
    """Call the kit's `fit` as notebook 02 does, on one batch over and over; give its history."""
    same = SameBatch(images, labels)
    watching = [
        Progress(epochs=epochs, steps_per_epoch=steps, print_fn=lambda *texts, **options: None),
        ExpectedAccuracy(section(Monitoring, expected_top1=[])),
    ]
    if importlib.util.find_spec("tensorboard"):
        watching.insert(0, TensorBoard(run_dir, parameters={}))
    return trainer.fit(
        model,
        same,
        same.dataset.take(validate),
        epochs=epochs,
        steps_per_epoch=steps,
        callbacks=[*callbacks, *watching],
        run_dir=run_dir,
        parameters={},
        saving=section(Saving, checkpoint_minutes=15.0),
    ).history


class Epochs(keras.callbacks.Callback):
    """Measure the seconds of whole epochs, and how many of them are neither step nor validation.

    Give it as the first callback. `between`: from the end of an epoch's last step to the begin of
    the validation, and from the validation's end to the begin of the next epoch's first step.
    `seconds`: from one epoch's first step to the next one's. The last epoch has no next.
    """

    def __init__(self):
        super().__init__()
        self.first_step = None  # when it was done, since the epoch
        self.marks, self.between, self.seconds, self.validation = [], [], [], []

    def on_train_batch_begin(self, batch, logs=None):
        if batch == 0:
            now = time.perf_counter()
            if self.marks:
                begin, steps, validating, validated = self.marks
                self.between.append(validating - steps + now - validated)
                self.validation.append(validated - validating)
                self.seconds.append(now - begin)
            self.marks = [now]

    def on_train_batch_end(self, batch, logs=None):
        if self.first_step is None:
            self.model.wait()
            self.first_step = time.time()
        if batch + 1 == self.params["steps"]:
            self.model.wait()
            self.marks.append(time.perf_counter())

    def on_test_begin(self, logs=None):
        self.marks.append(time.perf_counter())

    def on_test_end(self, logs=None):
        self.marks.append(time.perf_counter())
