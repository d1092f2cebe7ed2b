"""Twenty steps of training on N logical CPUs, and one in float64.

`python replicated_run.py REPLICAS FOLDER float32` writes what must not depend on N; with float64 in
its place, what must not depend on XLA.

A process has one number of replicas above one: TensorFlow takes the collective operations of a
second MirroredStrategy for the first's. So test_replicas.py trains on four in a process of its own.
"""

import contextlib
import os
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
import tensorflow as tf

from kit.model.resnet import resnet50
from kit.training.optimizers import decay_in_loss
from kit.training.schedule import LearningRateScheduler
from kit.training.step import TrainingModel, moving_statistics
from kit.training.strategy import make_strategy
from tests.networks import compile_as, compile_model, sections
from tests.parity.both import in_double
from tests.small_training import NETWORK, VALUES

STEPS, BATCH = 20, 8
BATCH_NORMS = ("per_replica", "synchronized")
CHANGES = {
    "stage_sizes": [1],
    "weight_decay": 1e-2,  # large, so that a wrong factor would show
    "learning_rate": 0.01,
    "epochs": STEPS,  # each a step, so that the history holds it
    "decay_epochs": [10],
}
FOUR_STAGES = {"stage_sizes": [1, 1, 1, 1], "width": 16}
RATE = 2**-7  # which float64 divides by without rounding


def batches():
    """Give images uint8 [steps, batch, 32, 32, 3] and labels int64 [steps, batch]."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (STEPS, BATCH, 32, 32, 3)).astype("uint8")
    return images, rng.integers(0, 6, (STEPS, BATCH))


def compiled(strategy, **changes):
    keras.utils.set_random_seed(0)
    return compile_model(
        strategy, **NETWORK | CHANGES | {"classes": 6, "deterministic": False} | changes
    )


def train(model, first=0, last=STEPS):
    """Train from one step to another, and give Keras' history of them.

    The validation of 14 images leaves replicas with fewer in the last batch, or with none.
    """
    images, labels = batches()
    scheduler = LearningRateScheduler(sections(**VALUES | CHANGES).schedule, steps_per_epoch=1)
    return model.fit(
        tf.data.Dataset.from_tensor_slices((images[first:], labels[first:])).repeat(),
        validation_data=tf.data.Dataset.from_tensor_slices(
            (np.concatenate(images)[:14], np.concatenate(labels)[:14])
        ).batch(BATCH),
        validation_freq=5,
        initial_epoch=first,
        epochs=last,
        steps_per_epoch=1,
        callbacks=[scheduler],
        shuffle=False,
        verbose=0,
    ).history


def result(model):
    """Train, and give {name: array} of all that must not depend on the number of replicas.

    The optimizer's velocities after the first step are its gradients times -learning_rate.
    """
    train(model, 0, 1)
    found = {name: velocity / -0.01 for name, velocity in velocities(model, "gradient")}
    found |= {name: np.array(values) for name, values in train(model, 1).items()}
    return found | dict(velocities(model, "velocity")) | {w.path: w.numpy() for w in model.weights}


def velocities(model, label):
    """Give (name, array) of SGD's velocity of each weight."""
    variables = model.optimizer.variables[2:]  # after the step and the learning rate
    for weight, velocity in zip(model.trainable_weights, variables, strict=True):
        yield f"{label} of {weight.path}", velocity.numpy()


def one_step_in_double(replicas):
    """Give loss, gradients and moving statistics of a step of four stages in float64."""
    images, labels = batches()
    data = tf.data.Dataset.from_tensors((images[0], labels[0]))
    changes = {"learning_rate": RATE, "batch_norm": "synchronized"}
    with floatx_again():
        model = compiled_in_double(replicas, **FOUR_STAGES | changes)
        found = {"loss": np.array(model.fit(data, verbose=0).history["loss"])}
    found |= {name: velocity / -RATE for name, velocity in velocities(model, "gradient")}
    return found | {variable.path: variable.numpy() for variable in moving_statistics(model)}


def twenty_steps_in_double(replicas, *, xla):
    """Give the result of the small network in float64, clipped and averaged, through XLA or not."""
    with floatx_again():
        return result(compiled_in_double(replicas, xla=xla, ema_decay=0.9, clip_grad_norm=1.0))


def compiled_in_double(replicas, *, width=4, xla=False, **changes):
    p = sections(**VALUES | CHANGES | changes)
    keras.utils.set_random_seed(0)
    with make_strategy(replicas=replicas).scope():
        decay = decay_in_loss(p.optimizer, p.weight_decay)
        network = in_double(resnet50(p.network, classes=6, decay=decay, width=width))
        model = TrainingModel(network.input, network.output)
        compile_as(model, p, xla=xla)
    return model


@contextlib.contextmanager
def floatx_again():
    """Undo what in_double sets, which has to last until the training's end."""
    floatx = keras.config.floatx()
    yield
    keras.config.set_floatx(floatx)


def losses_of_four_stages(replicas, *, rule="synchronized", rounded=None):
    """Give the cross-entropy of each of twenty steps, from weights whose last bits `rounded` moves.

    It is a seed; None: the weights as they are.
    """
    model = compiled(make_strategy(replicas=replicas), batch_norm=rule, **FOUR_STAGES)
    if rounded is not None:
        rng = np.random.default_rng(rounded)
        for weight in model.trainable_weights:
            side = rng.choice(np.float32([-np.inf, np.inf]), weight.shape)
            weight.assign(np.nextafter(weight.numpy(), side))
    return np.array(train(model)["cross_entropy"])


def results(replicas):
    """Give the result by each rule of batch norm."""
    return {
        rule: result(compiled(make_strategy(replicas=replicas), batch_norm=rule))
        for rule in BATCH_NORMS
    }


if __name__ == "__main__":
    replicas, folder, precision = int(sys.argv[1]), *sys.argv[2:]
    if precision == "float64":
        found = {str(xla): twenty_steps_in_double(replicas, xla=xla) for xla in (True, False)}
    else:
        found = results(replicas) | {"in_double": one_step_in_double(replicas)}
    for name, arrays in found.items():
        np.savez(f"{folder}/{name}.npz", **arrays)
