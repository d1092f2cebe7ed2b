"""Do several devices compute what one does? Asked on a tiny ResNet, in seconds."""

import contextlib

import keras
import numpy as np
import tensorflow as tf

from kit import params
from kit.model.resnet import resnet50
from kit.training.losses import ClassificationLoss
from kit.training.optimizers import make_optimizer
from kit.training.step import training_model
from kit.training.strategy import make_strategy, mirrored

STEPS = 2
CLASSES = 4
TOLERANCE = 1e-4  # of the largest weight: float32, whose sums come in another order
TINY = {
    "stage_sizes": [1, 1],
    "batch_norm": "synchronized",  # only so does the batch's division change nothing
    "batch_norm_momentum": 0.9,
}


def devices():
    """Name the devices that would train together: every GPU, or two logical CPUs."""
    gpus = len(tf.config.list_physical_devices("GPU"))
    return [f"GPU:{number}" for number in range(gpus)] or ["CPU:0", "CPU:1"]


def sum_of_ones(replicas):
    """Give, for each replica, what it holds after an all-reduce that adds a one of each.

    Raises ValueError as `make_strategy` does.
    """
    strategy = make_strategy(replicas=replicas)

    @tf.function
    def reduce():
        def ones():
            context = tf.distribute.get_replica_context()
            return context.all_reduce(tf.distribute.ReduceOp.SUM, tf.ones([1024]))

        return strategy.run(ones)

    held = strategy.experimental_local_results(reduce())
    return [sorted(set(np.unique(values.numpy()).tolist())) for values in held]


def difference(replicas):
    """Train two steps on one device and on all; give how far the weights are apart.

    As a share of the largest weight. A single GPU is compared with the CPU.
    """
    tf.config.experimental.enable_tensor_float_32_execution(False)
    return _apart(_trained(None, replicas), _trained(replicas, replicas))


def xla_difference(replicas):
    """Train two steps through XLA and without; give how far the weights are apart, as above."""
    tf.config.experimental.enable_tensor_float_32_execution(False)
    without, with_xla = (
        _trained(replicas, replicas, batch_norm="per_replica", xla=xla) for xla in (False, True)
    )
    return _apart(without, with_xla)


def _apart(one, other):
    largest = max(float(np.abs(weights).max()) for weights in one)
    return float(max(np.abs(a - b).max() for a, b in zip(one, other, strict=True))) / largest


def _trained(replicas, images_for, *, xla=False, **changes):
    keras.utils.set_random_seed(0)
    if replicas:
        strategy, device = make_strategy(replicas=replicas), contextlib.nullcontext()
    elif images_for > 1 and tf.config.list_physical_devices("GPU"):
        strategy, device = tf.distribute.get_strategy(), tf.device("GPU:0")
    else:
        strategy, device = mirrored(("CPU:0",)), contextlib.nullcontext()
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (STEPS * 4 * images_for, 32, 32, 3), dtype=np.uint8)
    labels = generator.integers(0, CLASSES, len(images))
    data = tf.data.Dataset.from_tensor_slices((images, labels)).batch(4 * images_for)
    p = params.load(overrides=TINY | changes)
    with device, strategy.scope():
        model = training_model(resnet50(p.network, classes=CLASSES, decay=p.weight_decay, width=4))
        optimizer = make_optimizer(model, p.optimizer, p.weight_decay, p.schedule.learning_rate)
        model.compile(optimizer, loss=ClassificationLoss(p.loss), xla=xla)
    with device:
        model.fit(data, verbose=0, shuffle=False)
    return [np.asarray(variable.value) for variable in model.trainable_variables]
