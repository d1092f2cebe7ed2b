"""Figures of the training images by class, and of a training run."""

import numpy as np
from matplotlib.ticker import FuncFormatter, MaxNLocator, PercentFormatter

from kit.plots.style import DARK, DASHES, LIGHT, NAMED_CLASSES, ROUND, STYLE, new_figure, short

SPLITS = {"": ("training", LIGHT), "val_": ("validation", DARK)}
QUANTITIES = {
    "loss": ("total loss", {"": "loss"}),
    "cross_entropy": ("cross-entropy, nats", {"": "cross_entropy"}),
    "l2_loss": ("L2 loss", {"": "l2_loss"}),
    "accuracy": ("accuracy", {"top-1, ": "top1", "top-5, ": "top5"}),
    "learning_rate": ("learning rate", {"": "learning_rate"}),
    "images_per_second": ("images per second", {"": "images_per_second"}),
}


@STYLE
def class_balance(histograms, names):
    """Draw how many images each class has; of many classes, the counts alone, largest first.

    `histograms` maps a split to its counts [classes]. Each split has its own scale, from zero.
    """
    many = len(names) > NAMED_CLASSES
    height = 4.5 if many else 1.8 + 0.36 * len(names)
    figure, grid = new_figure(10, height, 1, len(histograms), sharey=not many)
    for axes, (split, counts) in zip(grid.flat, histograms.items(), strict=True):
        colour = LIGHT if split == "train" else DARK
        axes.set_title(f"{split}: {sum(counts):,} images")
        if many:
            axes.fill_between(range(1, len(counts) + 1), sorted(counts, reverse=True), color=colour)
            axes.set(xlabel="classes, largest first", ylabel="images", ylim=(0, None))
            continue
        axes.barh(range(len(counts)), counts, height=0.75, color=colour)
        axes.set_yticks(range(len(names)), [short(name, 24) for name in names])
        axes.xaxis.set_major_locator(MaxNLocator(4, integer=True, steps=ROUND))
        axes.set(xlabel="images", ylim=(len(names) - 0.4, -0.6))
        axes.grid(axis="y", visible=False)
    return figure


@STYLE
def curves(history, quantity, *, steps_per_epoch=0):
    """Draw one quantity of a training run against the epoch, training and validation.

    `history` maps a column to its values, or is the rows of history.csv (text or numbers; an empty
    cell is a gap); `quantity` is one of QUANTITIES. `steps_per_epoch` adds an axis of steps.
    """
    if quantity not in QUANTITIES:
        raise ValueError(f'quantity: "{quantity}" is not one of {", ".join(QUANTITIES)}')
    label, columns = QUANTITIES[quantity]
    history = _columns(history)
    figure, [[axes]] = new_figure(8, 5)
    for prefix, (split, colour) in SPLITS.items():
        for (kind, column), dashes in zip(columns.items(), DASHES, strict=False):
            values = history.get(prefix + column, np.array([]))
            if np.isfinite(values).any():
                epochs = np.arange(1, len(values) + 1)
                marker = "o" if len(values) <= 30 else None
                text = kind + split
                axes.plot(epochs, values, ls=dashes, color=colour, marker=marker, label=text)
    axes.set(xlabel="epoch", ylabel=label)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1, steps=ROUND))
    if quantity == "accuracy":
        axes.set_ylim(0, 1.02)
        axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    if quantity == "learning_rate":
        axes.set_yscale("log")
    if steps_per_epoch:
        _count_steps(axes, steps_per_epoch)
    if len(axes.lines) > 1:
        figure.legend(loc="outside upper center", ncols=2)
    return figure


def _count_steps(axes, steps_per_epoch):
    """Add an axis of steps on top of the epochs."""
    top = axes.secondary_xaxis(
        "top",
        functions=(lambda epoch: epoch * steps_per_epoch, lambda step: step / steps_per_epoch),
    )
    top.set_xlabel("step")
    top.xaxis.set_major_locator(MaxNLocator(6, integer=True, min_n_ticks=1))
    top.xaxis.set_major_formatter(FuncFormatter(lambda step, _: f"{step:,.0f}"))


def _columns(history):
    """Turn rows of history.csv, or a mapping of lists, into float arrays; an empty cell is NaN."""
    if not isinstance(history, dict):
        history = {key: [row[key] for row in history] for key in (history[0] if history else ())}
    return {
        key: np.array([np.nan if value in ("", None) else float(value) for value in values])
        for key, values in history.items()
    }
