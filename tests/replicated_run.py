"""Twenty steps of training on N logical CPUs: `python replicated_run.py REPLICAS FOLDER`.

A process has one number of replicas above one: TensorFlow takes the collective operations of a
second MirroredStrategy for the first's. So test_replicas.py trains on four in a process of its own.
"""

import os
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
import tensorflow as tf

from kit.training.schedule import LearningRateScheduler
from kit.training.strategy import make_strategy
from tests.networks import compile_model, sections
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


def batches():
    """Give images uint8 [steps, batch, 32, 32, 3] and labels int64 [steps, batch]."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (STEPS, BATCH, 32, 32, 3)).astype("uint8")
    return images, rng.integers(0, 6, (STEPS, BATCH))


def compiled(strategy, **changes):
    keras.utils.set_random_seed(0)
    return compile_model(strategy, **NETWORK | CHANGES | {"classes": 6} | changes)


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


def results(replicas):
    """Give the result by each rule of batch norm."""
    return {
        rule: result(compiled(make_strategy(replicas=replicas), batch_norm=rule))
        for rule in BATCH_NORMS
    }


if __name__ == "__main__":
    for rule, arrays in results(int(sys.argv[1])).items():
        np.savez(f"{sys.argv[2]}/{rule}.npz", **arrays)
