"""Some hundred steps of ResNet-50 in the kit and in PyTorch, from the same weights and batches.

`python tests/parity/head_to_head.py DATA_DIR FOLDER` trains on the shards in DATA_DIR and leaves
losses.csv and figures/loss.png in FOLDER.
"""

import csv
import os
import sys
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
import tensorflow as tf

from kit import plots
from kit.data import manifest
from kit.pipeline.dataset import training_dataset
from kit.training import schedule, trainer
from kit.training.strategy import make_strategy
from tests import small_training
from tests.parity import both

BESIDE = "PyTorch, other last bits"
STEPS, RATE, WARMUP = 200, 0.002, 0.1
NETWORK = small_training.NETWORK | {
    "classes": 10,
    "width": 64,
    "stage_sizes": [3, 4, 6, 3],
    "channel_means": both.NETWORK["channel_means"],
    "zero_gamma": True,
    "weight_decay": 1e-4,
    "momentum": 0.9,
}
IMAGES = small_training.IMAGES | {"batch_size": 16, "image_size": 64, "shuffle_shards": 8}
RATES = small_training.RATES | {
    "epochs": 1,
    "steps_per_epoch": STEPS,
    "learning_rate": RATE,
    "rate_decay": "cosine",
    "rate_every": "step",
    "warmup_epochs": WARMUP,
}


def batches(data_dir):
    """List the (images, labels) that the kit trains on."""
    return list(training_dataset(data_dir=data_dir, **IMAGES).take(STEPS).as_numpy_iterator())


def rates():
    """Give each step's rate: a line up to RATE, then half a cosine down to 0."""
    share = np.arange(STEPS) / STEPS
    down = (1 + np.cos(np.pi * (share - WARMUP) / (1 - WARMUP))) / 2
    return RATE * np.where(share < WARMUP, share / WARMUP, down)


def compare(data_dir):
    """Give {who: cross-entropy of each step}: the kit, PyTorch, and PyTorch a last bit beside.

    The latter starts from weights whose last bit is another: how far apart rounding takes two
    trainings is no property of either.
    """
    import torch

    data = batches(data_dir)
    keras.utils.set_random_seed(0)
    classes = len(manifest.class_names(data_dir))
    model = trainer.compile_model(make_strategy(replicas=1), **NETWORK | {"classes": classes})
    same, beside = both.torch_network(model), both.torch_network(model)
    with torch.no_grad():
        for value in beside.parameters():
            value.copy_(torch.nextafter(value, torch.tensor(torch.inf)))
    images, labels = (np.stack(part) for part in zip(*data, strict=True))
    history = model.fit(
        tf.data.Dataset.from_tensor_slices((images, labels)).repeat(),
        epochs=STEPS,
        steps_per_epoch=1,
        callbacks=[schedule.scheduler(**RATES)],
        shuffle=False,
        verbose=0,
    ).history
    found = {"kit": np.array(history["cross_entropy"])}
    for name, network in (("PyTorch", same), (BESIDE, beside)):
        sgd = both.tensorflow_sgd(
            network.parameters(), weight_decay=NETWORK["weight_decay"], momentum=0.9
        )
        found[name] = both.torch_steps(network, sgd, data, rates())
    return found


@plots.STYLE
def draw(losses, folder):
    """Write losses.csv and a figure of them, the differences from PyTorch's below."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "losses.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["step", *losses])
        rows.writerows([step, *row] for step, row in enumerate(zip(*losses.values(), strict=True)))
    figure, [[upper], [lower]] = plots.new_figure(8, 8, 2)
    for name, line in (
        ("PyTorch", {"color": plots.LIGHT, "lw": 4}),
        ("kit", {"color": plots.DARK}),
    ):
        upper.plot(losses[name], label=name, **line)
    for name, colour in ((BESIDE, plots.LIGHT), ("kit", plots.DARK)):
        apart = np.abs(losses[name] - losses["PyTorch"])
        lower.semilogy(np.maximum(apart, 1e-8), label=f"{name}, from PyTorch", color=colour)
    upper.set(ylabel="cross-entropy, nats")
    lower.set(xlabel="step", ylabel="difference, nats")
    for axes in (upper, lower):
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2)
    return plots.save(figure, folder, "loss")


if __name__ == "__main__":
    losses = compare(sys.argv[1])
    print(draw(losses, sys.argv[2]))
