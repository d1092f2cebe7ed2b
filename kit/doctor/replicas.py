"""Do several devices compute what one does? Asked on a tiny ResNet, in seconds."""

import contextlib

import keras
import numpy as np
import tensorflow as tf

from kit.training.strategy import make_strategy, mirrored
from kit.training.trainer import compile_model

STEPS = 2
TOLERANCE = 1e-4  # of the largest weight: float32, whose sums come in another order
TINY = {
    "classes": 4,
    "version": "1.5",
    "channel_means": [128.0, 128.0, 128.0],
    "batch_norm": "synchronized",  # only so does the batch's division change nothing
    "batch_norm_momentum": 0.9,
    "batch_norm_epsilon": 1e-5,
    "zero_gamma": False,
    "blur_pool": False,
    "drop_path": 0.0,
    "weight_decay": 1e-4,
    "weight_decay_skips": ["norm", "bias"],
    "learning_rate": 0.1,
    "momentum": 0.9,
    "precision": "float32",
    "optimizer": "sgd",
    "clip_norm": 0.0,
    "loss": "cross_entropy",
    "label_smoothing": 0.0,
    "target_threshold": 0.0,
    "ema_decay": 0.0,
    "width": 4,
    "stage_sizes": (1, 1),
}


def devices():
    """Name the devices that would train together: every GPU, or two logical CPUs."""
    return [f"GPU:{i}" for i in range(len(tf.config.list_physical_devices("GPU")))] or [
        "CPU:0",
        "CPU:1",
    ]


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
    one, all_of_them = _trained(None, replicas), _trained(replicas, replicas)
    largest = max(float(np.abs(weights).max()) for weights in one)
    apart = (np.abs(a - b).max() for a, b in zip(one, all_of_them, strict=True))
    return float(max(apart)) / largest


def _trained(replicas, images_for):
    keras.utils.set_random_seed(0)
    if replicas:
        strategy, device = make_strategy(replicas=replicas), contextlib.nullcontext()
    elif images_for > 1 and tf.config.list_physical_devices("GPU"):
        strategy, device = tf.distribute.get_strategy(), tf.device("GPU:0")
    else:
        strategy, device = mirrored(("CPU:0",)), contextlib.nullcontext()
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (STEPS * 4 * images_for, 32, 32, 3), dtype=np.uint8)
    labels = generator.integers(0, TINY["classes"], len(images))
    data = tf.data.Dataset.from_tensor_slices((images, labels)).batch(4 * images_for)
    with device:
        model = compile_model(strategy, **TINY)
        model.fit(data, verbose=0, shuffle=False)
    return [np.asarray(variable.value) for variable in model.trainable_variables]
