"""Figures of an evaluation: by class, by confidence, by image size."""

import numpy as np
from matplotlib import colormaps
from matplotlib.colors import ListedColormap, LogNorm

from kit.plots.style import (
    DARK,
    GREY,
    INPUT,
    LIGHT,
    MANY,
    NETWORK,
    PALE,
    STYLE,
    TRAINING,
    VALIDATION,
    new_figure,
    short,
)

NUMBERED_CLASSES = 20  # the counts in more cells than this squared cannot be read
FEW_TO_MANY = ListedColormap(colormaps["inferno_r"](np.linspace(0.22, 1, 256)))  # 1 is no white


@STYLE
def class_accuracy(per_class):
    """Draw the top-1 accuracy of each class, best first; of many classes, the best and the worst.

    `per_class` is that list of `scores.evaluate`. The dashed line is the mean of the classes.
    """
    known = sorted((row for row in per_class if row["images"]), key=lambda row: row["top1"])
    half = MANY // 3
    many = len(known) > MANY
    rows = known[:half] + known[-half:] if many else known
    places = [place + 2 * (many and place >= half) for place in range(len(rows))]
    figure, [[axes]] = new_figure(9, 2.1 + 0.36 * (places[-1] + 1))
    axes.barh(places, [row["top1"] for row in rows], height=0.75, color=VALIDATION)
    for place, row in zip(places, rows, strict=True):
        axes.text(1.03, place, f"{row['correct']:,} of {row['images']:,}", va="center", color=GREY)
    if many:
        text = f"{len(known) - len(rows):,} classes between"
        axes.text(0.01, half + 0.5, text, va="center", style="italic", color=GREY)
    mean = np.mean([row["top1"] for row in known])
    axes.axvline(mean, color=GREY, ls="--", label=f"mean of the classes, {mean:.1%}")
    axes.set_yticks(places, [short(row["name"], 24) for row in rows])
    axes.set(xlabel="top-1 accuracy", xlim=(0, 1.22), ylim=(-0.7, places[-1] + 0.7))
    axes.set_xticks(np.linspace(0, 1, 6))
    axes.xaxis.set_major_formatter("{x:.0%}")
    axes.grid(axis="y", visible=False)
    axes.set_title("Accuracy of each class, validation images")
    figure.legend(loc="outside lower center")
    return figure


@STYLE
def confusion(matrix, names):
    """Draw a confusion matrix [classes, classes], rows the true class.

    Up to MANY it is coloured by the share of the row and named, up to NUMBERED_CLASSES
    with its counts too; beyond, a dot per pair of classes is coloured by its count, on a log scale.
    """
    matrix = np.asarray(matrix)
    title = f"Confusion matrix: {matrix.sum():,} images, {np.trace(matrix):,} right"
    if len(matrix) > MANY:
        return _large_confusion(matrix, title)
    side = 4.5 + 0.5 * min(len(matrix), 10) + 0.2 * max(len(matrix) - 10, 0)
    figure, [[axes]] = new_figure(side + 1.2, side)
    share = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    picture = axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    ticks, words = range(len(matrix)), [short(name) for name in names]
    axes.set_xticks(ticks, words, rotation=45, ha="right", rotation_mode="anchor")
    axes.set_yticks(ticks, words)
    axes.set(title=title, xlabel="predicted class", ylabel="true class")
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    if len(matrix) <= NUMBERED_CLASSES:
        for row, column in np.argwhere(matrix):
            colour = "white" if share[row, column] > 0.5 else "black"
            count = f"{matrix[row, column]:,}"
            axes.text(column, row, count, color=colour, ha="center", va="center")
    bar = figure.colorbar(picture, shrink=0.7, format="{x:.0%}")
    bar.set_label("share of the true class")
    return figure


@STYLE
def one_vs_rest(curves, per_class, macro):
    """Draw the ROC curves and the precision-recall curves of `one_vs_rest.macro_curves`.

    The average of the classes, and the classes of the lowest average precision; `per_class` and
    `macro` of `scores.evaluate` name them and give the areas.
    """
    figure, [[left, right]] = new_figure(12, 7, 1, 2)
    looks = zip((DARK, LIGHT, NETWORK, INPUT), ("-", "--", "-.", ":"), strict=True)
    for curve, (colour, dashes) in zip(curves, looks, strict=False):
        found, name = macro, "average of the classes"
        if curve["label"] is not None:
            found = per_class[curve["label"]]
            name = f"class {short(found['name'], 24)}"
        area, precision = found["roc_auc"], found["average_precision"]
        text = f"{name}: ROC area {area:.3f}, average precision {precision:.3f}"
        for axes, kind in ((left, "roc"), (right, "precision_recall")):
            places = np.linspace(0, 1, len(curve[kind]))
            axes.plot(places, curve[kind], ls=dashes, color=colour, label=text, zorder=3)
    left.set(title="ROC: each class against all others", xlabel="false positive rate")
    left.set(ylabel="true positive rate")
    right.set(title="Precision and recall", xlabel="recall", ylabel="precision")
    for axes in (left, right):
        axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.04))
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter("{x:.0%}")
    figure.legend(handles=left.lines, loc="outside lower center")
    return figure


@STYLE
def reliability(calibration):
    """Draw accuracy against confidence, before and after the temperature.

    `calibration` is of `calibration.calibrate`. A dot's area is its share of the images; on the
    grey line the network is right as often as it says.
    """
    figure, [[axes]] = new_figure(7, 7.6)
    axes.plot([0, 1], [0, 1], color=GREY, lw=1.5, ls="--")
    names = {"before": "as trained", "after": f"at temperature {calibration['temperature']:.2f}"}
    for (part, words), colour in zip(names.items(), (PALE, VALIDATION), strict=True):
        rows = [row for row in calibration[part]["bins"] if row["images"]]
        sure, right = ([row[key] for row in rows] for key in ("confidence", "accuracy"))
        areas = 60 + 900 * np.array([row["images"] for row in rows]) / calibration["images"]
        text = f"{words}: error {calibration[part]['error']:.1%}"
        style = {"color": colour, "alpha": 0.8, "linewidths": 1.5, "edgecolors": VALIDATION}
        axes.scatter(sure, right, areas, label=text, **style)
    axes.set(xlabel="confidence", ylabel="accuracy", xlim=(-0.03, 1.05), ylim=(-0.03, 1.05))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter("{x:.0%}")
    axes.set_title(f"Confidence and accuracy of {calibration['images']:,} images")
    for handle in figure.legend(loc="outside lower center").legend_handles:
        handle.set_sizes([120])
    return figure


@STYLE
def accuracy_by_size(rows, *, training_size):
    """Draw top-1 against the side of the test crop, with the 95 % intervals.

    `rows` are {"image_size", "top1"}; the dashed line is the size of the training crops.
    """
    figure, [[axes]] = new_figure(8, 5.4)
    pixels = [row["image_size"] for row in rows]
    value, low, high = (
        np.array([row["top1"][key] for row in rows]) for key in ("value", "low", "high")
    )
    bars = [value - low, high - value]
    style = {"color": VALIDATION, "marker": "o", "capsize": 5, "elinewidth": 1.5}
    axes.errorbar(pixels, value, bars, label="validation, 95 % interval", **style)
    text = f"size of the training crops, {training_size}"
    axes.axvline(training_size, color=TRAINING, ls="--", label=text, zorder=1)
    axes.set(xlabel="side of the test crop, pixels", ylabel="top-1 accuracy")
    axes.set_title("Accuracy at other test sizes")
    axes.set_xticks(pixels)
    axes.yaxis.set_major_formatter("{x:.0%}")
    figure.legend(loc="outside lower center", ncols=2)
    return figure


def _large_confusion(matrix, title):
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
    axes.set(xlim=(-0.5, len(matrix) - 0.5), ylim=(len(matrix) - 0.5, -0.5), title=title)
    bar = figure.colorbar(dots, shrink=0.7, format="{x:g}")
    bar.set_label("images")
    bar.minorticks_off()
    return figure
