"""Training: steps of the kit's `fit` against plain Keras and PyTorch, and what an epoch loses.

The kit trains inside its own `fit`, all callbacks on; at the beginning of each of its epochs the
others take their turn. Every network is a ResNet-50 of 1,000 classes on the same 224 px images. Of
overhead_share, the seconds of an epoch that are neither steps nor validation beside all of its
seconds, less is better.
"""

import importlib.util
import tempfile
import time

import keras
import tensorflow as tf
from ways import kit_fit

from kit.training.strategy import make_strategy

ROUNDS, STEPS = 4, 4
EPOCH = {"steps": 30, "batch_size": 32, "side": 64}  # a short one: what it loses weighs more
EPOCHS = 8  # the first compiles, and the last has no next one
BATCH, SIDE, CLASSES = 16, 224, 1000
MARKS = {"vs_keras_applications": 1.1, "vs_torch_fp32": 1.15, "vs_torch_bf16": 1.0}


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
    return kit_fit.random_batch(batch_size=batch_size, side=side, classes=CLASSES)


def compiled(precision):
    return kit_fit.compiled(make_strategy(replicas=1), precision=precision)


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
        turns = [keras.callbacks.LearningRateScheduler(others_turn)]
        settings = {"epochs": ROUNDS + 1, "steps": STEPS + 1, "callbacks": turns}
        history = kit_fit.fit(compiled(precision), *batch(), run_dir, **settings)
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
    """Give, of each epoch, the seconds between steps and validation, and all of its seconds.

    Both are of the same epoch, so that a machine that slows down does so for both. The kit saves,
    logs and writes; where the disk is slow, the next epoch waits for this one's checkpoint.
    """
    epochs = kit_fit.Epochs()
    images = batch(EPOCH["batch_size"], EPOCH["side"])
    settings = {"epochs": EPOCHS, "steps": EPOCH["steps"], "validate": 10}
    with tempfile.TemporaryDirectory() as run_dir:
        kit_fit.fit(compiled("float32"), *images, run_dir, callbacks=[epochs], **settings)
    return {"ours": epochs.between[1:], "theirs": epochs.seconds[1:], "mark": 0.02, "unit": "s"}
