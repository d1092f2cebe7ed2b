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
from kit.training.schedule import LearningRateScheduler
from kit.training.strategy import make_strategy
from tests.networks import compile_model, sections, training_data
from tests.parity import both

BESIDE = "PyTorch, other last bits"
STEPS, RATE, WARMUP = 200, 0.002, 0.1
VALUES = {
    "channel_means": both.NETWORK["channel_means"],
    "batch_norm_momentum": both.NETWORK["batch_norm_momentum"],
    "zero_gamma": True,
    "batch_size": 16,
    "image_size": 64,
    "deterministic": True,
    "base_batch_size": 0,
    "learning_rate": RATE,
    "epochs": STEPS,  # each a step, so that the history holds it
    "schedule": "cosine",
    "schedule_update": "step",
    "warmup_epochs": WARMUP,
}


def batches(data_dir):
    """List the (images, labels) that the kit trains on."""
    return list(training_data(data_dir, **VALUES).batches().take(STEPS).as_numpy_iterator())


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

    data, p = batches(data_dir), sections(**VALUES)
    keras.utils.set_random_seed(0)
    classes = len(manifest.class_names(data_dir))
    model = compile_model(make_strategy(replicas=1), **VALUES, classes=classes)
    same, beside = both.torch_network(model), both.torch_network(model)
    with torch.no_grad():
        for value in beside.parameters():
            value.copy_(torch.nextafter(value, torch.tensor(torch.inf)))
    images, labels = (np.stack(part) for part in zip(*data, strict=True))
    history = model.fit(
        tf.data.Dataset.from_tensor_slices((images, labels)).repeat(),
        epochs=STEPS,
        steps_per_epoch=1,
        callbacks=[LearningRateScheduler(p.schedule, steps_per_epoch=1)],
        shuffle=False,
        verbose=0,
    ).history
    found = {"kit": np.array(history["cross_entropy"])}
    for name, network in (("PyTorch", same), (BESIDE, beside)):
        sgd = both.tensorflow_sgd(
            network.parameters(),
            weight_decay=p.weight_decay.weight_decay,
            momentum=p.optimizer.momentum,
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
    figure, [[upper], [lower]] = plots.new_figure(9, 8, 2)
    for name, line in (
        ("PyTorch", {"color": plots.INPUT, "lw": 5}),
        ("kit", {"color": plots.NETWORK, "lw": 1.5}),
    ):
        upper.plot(losses[name], label=name, **line)
    for name, colour in ((BESIDE, plots.INPUT), ("kit", plots.NETWORK)):
        apart = np.abs(losses[name] - losses["PyTorch"])
        lower.semilogy(np.maximum(apart, 1e-8), label=name, color=colour, lw=1.5)
    upper.set(title="Training loss of the kit and of PyTorch", ylabel="cross-entropy, nats")
    lower.set(title="Distance from PyTorch", xlabel="step", ylabel="difference, nats")
    upper.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=2)
    lower.legend(loc="lower right")
    return plots.save(figure, folder, "loss")


if __name__ == "__main__":
    losses = compare(sys.argv[1])
    print(draw(losses, sys.argv[2]))
