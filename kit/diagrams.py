"""Figures of notebook 03: how sure the network is, and how it takes images of another size."""

import numpy as np
from matplotlib.ticker import PercentFormatter

from kit.plots import DARK, DASHES, GREY, LIGHT, STYLE, new_figure


@STYLE
def reliability(calibration):
    """Draw accuracy against confidence, before and after the temperature.

    `calibration` is of `calibration.calibrate`. A dot's area is its share of the images; on the
    grey line the network is right as often as it says.
    """
    figure, [[axes]] = new_figure(7, 7)
    axes.plot([0, 1], [0, 1], color=GREY, lw=1.5, ls=DASHES[1])
    names = {"before": "as trained", "after": f"at temperature {calibration['temperature']:.2f}"}
    for (part, words), colour in zip(names.items(), (LIGHT, DARK), strict=True):
        rows = [row for row in calibration[part]["bins"] if row["images"]]
        sure, right = ([row[key] for row in rows] for key in ("confidence", "accuracy"))
        areas = 60 + 900 * np.array([row["images"] for row in rows]) / calibration["images"]
        text = f"{words}: error {calibration[part]['error']:.1%}"
        axes.scatter(sure, right, areas, color=colour, alpha=0.8, linewidths=0, label=text)
    axes.set(xlabel="confidence", ylabel="accuracy", xlim=(-0.03, 1.05), ylim=(-0.03, 1.05))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(PercentFormatter(1, decimals=0))
    axes.set_title(f"{calibration['images']:,} images", loc="left")
    for handle in figure.legend(loc="outside upper center").legend_handles:
        handle.set_sizes([120])
    return figure


@STYLE
def sizes(rows, *, training_size):
    """Draw top-1 against the side of the test crop, with the 95 % intervals.

    `rows` are {"image_size", "top1"}; the dashed line is the size of the training crops.
    """
    figure, [[axes]] = new_figure(8, 5)
    pixels = [row["image_size"] for row in rows]
    value, low, high = (
        np.array([row["top1"][key] for row in rows]) for key in ("value", "low", "high")
    )
    axes.errorbar(
        pixels,
        value,
        [value - low, high - value],
        color=DARK,
        marker="o",
        capsize=5,
        elinewidth=1.5,
    )
    text = f"size of the training crops, {training_size}"
    axes.axvline(training_size, color=LIGHT, ls=DASHES[1], label=text)
    axes.set(xlabel="side of the test crop, pixels", ylabel="top-1 accuracy")
    axes.set_xticks(pixels)
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    figure.legend(loc="outside upper center")
    return figure
