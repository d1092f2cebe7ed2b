"""Training: steps of the kit's `fit` against plain Keras and PyTorch, and what an epoch loses.

The kit trains inside its own `fit`, all callbacks on; at the beginning of each of its epochs the
others take their turn. Every network is a ResNet-50 of 1,000 classes on the same 224 px images. Of
overhead_share, an epoch's seconds beside those of bare Keras, less is better.
"""

import importlib.util
import tempfile
import time

import keras
import numpy as np
import tensorflow as tf

from kit import params
from kit.model.resnet import resnet50
from kit.training import trainer
from kit.training.callbacks import ExpectedAccuracy, Progress
from kit.training.losses import ClassificationLoss, metrics
from kit.training.optimizers import make_optimizer
from kit.training.step import training_model
from kit.training.strategy import make_strategy
from kit.training.tensorboard import TensorBoard

ROUNDS, STEPS = 4, 4
EPOCH = {"steps": 30, "batch_size": 32, "side": 64}  # a short one: what it loses weighs more
BATCH, SIDE, CLASSES = 16, 224, 1000
MARKS = {"vs_keras_applications": 0.97, "vs_torch_fp32": 1.0, "vs_torch_bf16": 1.0}


def measure() -> dict:
    """Give images/s of ours and theirs, and the seconds that an epoch loses beside its steps."""
    float32 = take_turns("float32", {"keras": keras_step, "torch": torch_step})
    bfloat16 = take_turns("mixed_bfloat16", {"torch": torch_step})
    found = {
        "vs_keras_applications": (float32, "keras"),
        "vs_torch_fp32": (float32, "torch"),
        "vs_torch_bf16": (bfloat16, "torch"),
    }
    return {
        name: {"ours": rates["kit"], "theirs": rates[theirs]}
        | {"mark": MARKS[name], "unit": "images/s"}
        for name, (rates, theirs) in found.items()
        if rates[theirs]
    } | {"overhead_share": overhead()}


def batch(batch_size=BATCH, side=SIDE):
    """Give random (images uint8, labels) of one batch."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (batch_size, side, side, 3), dtype=np.uint8)
    return images, rng.integers(0, CLASSES, batch_size)


def repeated(images, labels):
    """Give one batch for ever, without autotuning: its thread may take a minute to end."""
    options = tf.data.Options()
    options.autotune.enabled = False
    return tf.data.Dataset.from_tensors((images, labels)).repeat().with_options(options)


def compiled(precision):
    """Give the kit's network with the numbers of params.yaml."""
    p = params.load()
    keras.config.set_dtype_policy(precision)
    with make_strategy(replicas=1).scope():
        model = training_model(resnet50(p.network, classes=CLASSES, decay=p.weight_decay))
        model.compile(
            make_optimizer(model, p.optimizer, p.weight_decay, p.schedule.learning_rate),
            loss=ClassificationLoss(p.loss),
            metrics=metrics(),
        )
    return model


class SameBatch:
    """One batch over and over, in place of a TrainingData."""

    fingerprint = ""

    def __init__(self, images, labels):
        self.batch_size, self.dataset = len(labels), repeated(images, labels)

    def batches(self, start_step, image_size):
        return self.dataset

    def names(self, step):
        return []


def fit(model, images, labels, run_dir, *, epochs, steps, before_epoch, validate=1):
    """Call the kit's `fit` as notebook 02 does, on one batch over and over; give its history."""
    same, p = SameBatch(images, labels), params.load(None, {"checkpoint_minutes": 15})
    watching = [
        TensorBoard(run_dir, parameters={}),
        Progress(epochs=epochs, steps_per_epoch=steps, print_fn=lambda *texts, **options: None),
        ExpectedAccuracy(p.monitoring),
    ]
    return trainer.fit(
        model,
        same,
        same.dataset.take(validate),
        epochs=epochs,
        steps_per_epoch=steps,
        callbacks=[keras.callbacks.LearningRateScheduler(before_epoch), *watching],
        run_dir=run_dir,
        parameters={},
        saving=p.saving,
    ).history


def take_turns(precision, others):
    """Train in `fit`, the others' steps between its epochs; give images/s of each, a round each."""
    steps = {name: make(precision) for name, make in others.items()}
    rates = {name: [] for name in others}

    def others_turn(epoch):
        for name, step in steps.items():
            if step:
                step()  # as in `fit`, the first step does not count
                begin = time.perf_counter()
                for _ in range(STEPS):
                    step()
                rates[name].append(BATCH * STEPS / (time.perf_counter() - begin))
        return 0.1

    with tempfile.TemporaryDirectory() as run_dir:
        settings = {"epochs": ROUNDS + 1, "steps": STEPS + 1, "before_epoch": others_turn}
        history = fit(compiled(precision), *batch(), run_dir, **settings)
    # the first round compiles
    return {"kit": history["images_per_second"][1:]} | {n: r[1:] for n, r in rates.items()}


def keras_step(precision):
    """Give a step of keras.applications.ResNet50 with the same optimizer in a bare loop."""
    keras.config.set_dtype_policy(precision)
    model = keras.applications.ResNet50(weights=None, classifier_activation=None)
    optimizer = keras.optimizers.SGD(0.1, momentum=0.9)
    optimizer.build(model.trainable_variables)
    cross_entropy = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    images, labels = batch()
    images, labels = tf.constant(images, tf.float32), tf.constant(labels)

    @tf.function
    def step():
        with tf.GradientTape() as tape:
            loss = cross_entropy(labels, model(images, training=True))
        gradients = tape.gradient(loss, model.trainable_variables)
        optimizer.apply_gradients(zip(gradients, model.trainable_variables, strict=True))
        return loss

    return lambda: float(step())


def torch_step(precision):
    """Give a step of the same network in PyTorch, channels last; None where it is not installed."""
    if importlib.util.find_spec("torch") is None:
        print("torch is not installed, so its lines are missing")
        return None
    import torch
    from ways.torch_resnet import resnet50

    model = resnet50(CLASSES).to(memory_format=torch.channels_last).train()
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9, weight_decay=1e-4)
    images, labels = (torch.from_numpy(part) for part in batch())
    images = images.permute(0, 3, 1, 2).float().contiguous(memory_format=torch.channels_last)

    def step():
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "mixed_bfloat16"):
            logits = model(images)
        loss = torch.nn.functional.cross_entropy(logits.float(), labels)
        loss.backward()
        optimizer.step()
        return loss.item()

    return step


def overhead():
    """Give the seconds that an epoch takes longer than in Keras' bare `fit`, beside its seconds.

    Both train the same model and validate it, in turns; the kit saves, logs and writes as well, and
    its turn ends when the checkpoint is on the disk.
    """
    model = compiled("float32")
    images, labels = batch(EPOCH["batch_size"], EPOCH["side"])
    same = repeated(images, labels)
    begins, ours, theirs = [], [], []

    def begin(epoch):
        begins.append(time.perf_counter())
        return 0.1

    settings = {"steps": EPOCH["steps"], "before_epoch": begin, "validate": 10}
    with tempfile.TemporaryDirectory() as run_dir:
        for number in range(ROUNDS + 1):
            fit(model, images, labels, run_dir, epochs=number + 1, **settings)
            ours.append(time.perf_counter() - begins[-1])
            begins = [keras.callbacks.LearningRateScheduler(begin)]
            keras.Model.fit(
                model,
                same,
                validation_data=same.take(10),
                shuffle=False,
                steps_per_epoch=EPOCH["steps"],
                callbacks=begins,
                verbose=0,
            )
            theirs.append(time.perf_counter() - begins[-1])
    lost = [one - other for one, other in zip(ours, theirs, strict=True)]
    return {"ours": lost[1:], "theirs": ours[1:], "mark": 0.02, "unit": "s"}
