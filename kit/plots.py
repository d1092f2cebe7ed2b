"""Figures in one style. Each function draws and returns one; a notebook shows it, `save` keeps it.

Two colours that stay apart in greyscale: light for training, dark for validation.
"""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.colors import ListedColormap, LogNorm
from matplotlib.ticker import FuncFormatter, MaxNLocator, PercentFormatter

from kit.files import replacing

DARK, LIGHT, PALE, GREY = "#0b4f8a", "#f2a03d", "#d3dbe3", "#6b6b6b"
DASHES = ("-", (0, (4, 1.5)))  # top-1, top-5
SPLITS = {"": ("training", LIGHT), "val_": ("validation", DARK)}
DPI = 120
STYLE = plt.rc_context(
    {
        "font.size": 14,
        "axes.titlesize": 14,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "axes.axisbelow": True,
        "grid.color": "#e3e3e3",
        "lines.linewidth": 2.5,
        "lines.markersize": 6,
        "legend.frameon": False,
        "figure.dpi": 80,
        "figure.constrained_layout.w_pad": 0.1,
        "figure.constrained_layout.h_pad": 0.1,
    }
)
QUANTITIES = {
    "loss": ("total loss", {"": "loss"}),
    "cross_entropy": ("cross-entropy, nats", {"": "cross_entropy"}),
    "l2_loss": ("L2 loss", {"": "l2_loss"}),
    "accuracy": ("accuracy", {"top-1, ": "top1", "top-5, ": "top5"}),
    "learning_rate": ("learning rate", {"": "learning_rate"}),
    "images_per_second": ("images per second", {"": "images_per_second"}),
}
NAMED_CLASSES = 30  # more class names than this on an axis cannot be read,
NUMBERED_CLASSES = 20  # nor the counts in more cells than this squared
FEW_TO_MANY = ListedColormap(plt.get_cmap("inferno_r")(np.linspace(0.22, 1, 256)))  # 1 is no white
ROUND = [1, 2, 5, 10]  # steps between ticks


def save(figure, run_dir, name):
    """Write run_dir/figures/name.png, whole or not at all, and give its path."""
    path = Path(run_dir) / "figures" / f"{name}.png"
    with replacing(path) as temporary:
        # without the version of matplotlib in it, the same figure is the same file
        figure.savefig(temporary, dpi=DPI, metadata={"Software": None})
    return path


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


@STYLE
def confusion(matrix, names):
    """Draw a confusion matrix [classes, classes], rows the true class.

    Up to NAMED_CLASSES it is coloured by the share of the row and named, up to NUMBERED_CLASSES
    with its counts too; beyond, a dot per pair of classes is coloured by its count, on a log scale.
    """
    matrix = np.asarray(matrix)
    classes = len(matrix)
    if classes > NAMED_CLASSES:
        return _large_confusion(matrix)
    side = 4.5 + 0.5 * min(classes, 10) + 0.2 * max(classes - 10, 0)
    figure, [[axes]] = new_figure(side + 1.2, side)
    share = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    picture = axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    ticks, words = range(classes), [short(name) for name in names]
    axes.set_xticks(ticks, words, rotation=45, ha="right", rotation_mode="anchor")
    axes.set_yticks(ticks, words)
    axes.set(xlabel="predicted class", ylabel="true class")
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    if classes <= NUMBERED_CLASSES:
        for row, column in np.argwhere(matrix):
            colour = "white" if share[row, column] > 0.5 else "black"
            count = f"{matrix[row, column]:,}"
            axes.text(column, row, count, color=colour, ha="center", va="center")
    bar = figure.colorbar(picture, shrink=0.7, format=PercentFormatter(1, decimals=0))
    bar.set_label("share of the true class")
    return figure


@STYLE
def class_accuracy(per_class):
    """Draw the top-1 accuracy of each class, best first; of many classes, the best and the worst.

    `per_class` is that list of `scores.evaluate`. The dashed line is the mean of the classes.
    """
    known = sorted((row for row in per_class if row["images"]), key=lambda row: row["top1"])
    half = NAMED_CLASSES // 3
    many = len(known) > NAMED_CLASSES
    rows = known[:half] + known[-half:] if many else known
    places = [place + 2 * (many and place >= half) for place in range(len(rows))]
    figure, [[axes]] = new_figure(9, 1.8 + 0.36 * (places[-1] + 1))
    axes.barh(places, [row["top1"] for row in rows], height=0.75, color=DARK)
    for place, row in zip(places, rows, strict=True):
        axes.text(1.03, place, f"{row['correct']:,} of {row['images']:,}", va="center", color=GREY)
    if many:
        text = f"{len(known) - len(rows):,} classes between"
        axes.text(0.01, half + 0.5, text, va="center", style="italic", color=GREY)
    mean = np.mean([row["top1"] for row in known])
    axes.axvline(mean, color=LIGHT, ls=DASHES[1], label=f"mean of the classes, {mean:.1%}")
    axes.set_yticks(places, [short(row["name"], 24) for row in rows])
    axes.set(xlabel="top-1 accuracy", xlim=(0, 1.22), ylim=(-0.7, places[-1] + 0.7))
    axes.set_xticks(np.linspace(0, 1, 6))
    axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axes.grid(axis="y", visible=False)
    figure.legend(loc="outside upper center")
    return figure


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


def new_figure(width, height, rows=1, columns=1, *, sharey=False, widths=None):
    """A figure and its axes [rows, columns].

    Closed at once, so that a notebook shows it once: as the value of its cell.
    """
    figure, axes = plt.subplots(
        rows,
        columns,
        figsize=(width, height),
        layout="constrained",
        sharey=sharey,
        width_ratios=widths,
        squeeze=False,
    )
    plt.close(figure)
    return figure, axes


def _large_confusion(matrix):
    """Dots, not cells: a cell of 1,000 classes is under a pixel, and the mistakes are rare."""
    figure, [[axes]] = new_figure(10, 8.5)
    rows, columns = np.nonzero(matrix)
    counts = matrix[rows, columns]
    order = np.argsort(counts, kind="stable")  # the large ones on top
    dots = axes.scatter(
        columns[order],
        rows[order],
        c=counts[order],
        s=max(1.8, 480 / len(matrix)) ** 2,  # points squared; the axes are some 480 points wide
        marker="s",
        linewidths=0,
        cmap=FEW_TO_MANY,
        norm=LogNorm(1, max(2, matrix.max())),
    )
    axes.set(xlabel="predicted class, number", ylabel="true class, number", aspect="equal")
    axes.set(xlim=(-0.5, len(matrix) - 0.5), ylim=(len(matrix) - 0.5, -0.5))
    bar = figure.colorbar(dots, shrink=0.7, format=FuncFormatter(lambda value, _: f"{value:g}"))
    bar.set_label("images")
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


def short(name, width=18):
    """The first of a class's synonyms, cut to `width` characters."""
    name = name.split(",")[0]
    return name if len(name) <= width else name[: width - 1] + "…"
