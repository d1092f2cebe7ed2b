"""Figures of the training images by class, and of a training run."""

import numpy as np
from matplotlib.ticker import FixedLocator, MaxNLocator, NullFormatter

from kit.plots.style import GREY, MANY, STYLE, TRAINING, VALIDATION, new_figure, short

SPLITS = {"": ("training", TRAINING), "val_": ("validation", VALIDATION)}
QUANTITIES = {  # title, axis, lines
    "loss": ("Loss: cross-entropy + L2 loss", "loss", {"": "loss"}),
    "cross_entropy": ("Cross-entropy", "cross-entropy, nats", {"": "cross_entropy"}),
    "l2_loss": ("L2 loss", "L2 loss", {"": "l2_loss"}),
    "accuracy": ("Accuracy", "accuracy", {"top-1, ": "top1", "top-5, ": "top5"}),
    "learning_rate": ("Learning rate", "learning rate", {"": "learning_rate"}),
    "images_per_second": ("Training speed", "images per second", {"": "images_per_second"}),
}
COMPARED = ("loss", "cross_entropy", "accuracy")
WHY_BETTER = (  # the first question that people ask of these curves
    "Training is scored on augmented images, which are harder, and during the epoch;\n"
    "validation on plain centre crops, and after it. So validation may do better."
)


@STYLE
def class_balance(histograms, names):
    """Draw how many images each class has; of many classes, the counts alone, largest first.

    `histograms` maps a split to its counts [classes]. Each split has its own scale, from zero.
    """
    many = len(names) > MANY
    height = 4.8 if many else 2.1 + 0.36 * len(names)
    figure, grid = new_figure(10, height, 1, len(histograms), sharey=not many)
    figure.suptitle("Images of each class")
    for axes, (split, counts) in zip(grid.flat, histograms.items(), strict=True):
        colour = TRAINING if split == "train" else VALIDATION
        axes.set_title(f"{split}: {sum(counts):,} images")
        if many:
            axes.fill_between(range(1, len(counts) + 1), sorted(counts, reverse=True), color=colour)
            axes.set(xlabel="classes, largest first", ylabel="images", ylim=(0, None))
            continue
        axes.barh(range(len(counts)), counts, height=0.75, color=colour)
        axes.set_yticks(range(len(names)), [short(name, 24) for name in names])
        axes.xaxis.set_major_locator(MaxNLocator(4, integer=True, steps=[1, 2, 5, 10]))
        axes.set(xlabel="images", ylim=(len(names) - 0.4, -0.6))
        axes.grid(axis="y", visible=False)
    return figure


@STYLE
def curves(history, quantity, *, steps_per_epoch=0):
    """Draw one quantity of a training run, training and validation; epoch N is after N epochs.

    `history` maps a column to its values, or is the rows of history.csv (text or numbers; an empty
    cell is a gap); `quantity` is one of QUANTITIES. `steps_per_epoch` adds an axis of steps.
    """
    if quantity not in QUANTITIES:
        raise ValueError(f'quantity: "{quantity}" is not one of {", ".join(QUANTITIES)}')
    title, label, columns = QUANTITIES[quantity]
    figure, [[axes]] = new_figure(10, 5.2)
    _draw_lines(axes, _columns(history), columns)
    axes.set(title=title, xlabel="epoch", ylabel=label, xlim=(0, None))
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True, min_n_ticks=1, steps=[1, 2, 5, 10]))
    if quantity == "accuracy":
        axes.set_ylim(0, 1.02)
        axes.yaxis.set_major_formatter("{x:.0%}")
    if quantity == "learning_rate":
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_formatter(NullFormatter())
    if steps_per_epoch:
        _count_steps(axes, steps_per_epoch)
    if len(axes.lines) > 1:
        figure.legend(loc="outside right upper")
        if quantity in COMPARED:
            figure.supxlabel(WHY_BETTER, fontsize=11, color=GREY, x=0.01, ha="left")
    return figure


def _draw_lines(axes, history, columns):
    for prefix, (split, colour) in SPLITS.items():
        for (kind, column), dashes in zip(columns.items(), ("-", "--"), strict=False):
            values = history.get(prefix + column, np.array([]))
            if np.isfinite(values).any():
                epochs = np.arange(1, len(values) + 1)
                marker = "o" if len(values) <= 30 else None
                label = kind + split
                axes.plot(epochs, values, ls=dashes, color=colour, marker=marker, label=label)


def _count_steps(axes, steps_per_epoch):
    """Add an axis of steps on top, with a tick above each tick of the epochs."""
    top = axes.secondary_xaxis(
        "top",
        functions=(lambda epoch: epoch * steps_per_epoch, lambda step: step / steps_per_epoch),
    )
    top.set_xlabel("step")
    top.xaxis.set_major_locator(FixedLocator(steps_per_epoch * axes.get_xticks()))
    top.xaxis.set_major_formatter("{x:,.0f}")


def _columns(history):
    """Turn rows of history.csv, or a mapping of lists, into float arrays; an empty cell is NaN."""
    if not isinstance(history, dict):
        history = {key: [row[key] for row in history] for key in (history[0] if history else ())}
    return {
        key: np.array([np.nan if value in ("", None) else float(value) for value in values])
        for key, values in history.items()
    }
