"""Figures of time and rates: latency of an image, throughput of the input and of GPUs."""

import math
from statistics import median

import numpy as np
from matplotlib import color_sequences
from matplotlib.ticker import LogLocator

from kit.plots.style import DARK, GREY, INPUT, NETWORK, PALE, STYLE, new_figure

LATENCY = {"decode_resize": ("decode and resize", INPUT), "forward": ("forward pass", NETWORK)}
RECIPE_MS, RECIPE_SIZE = 11, 224  # its published latency on a V100, preprocessing included; pixels
STAGES = {  # the first five each have those before them in them
    "read": "read and shuffle",
    "parse": "+ parse",
    "decode": "+ crop and decode",
    "resize": "+ resize and flip",
    "input": "+ augment and batch",
    "transfer": "transfer to the device",
    "synthetic": "training step alone",
    "real": "training on this input",
}
NETWORKS = ("transfer", "synthetic", "real")  # the device's part; the others are the CPU's


@STYLE
def latency(measured):
    """Draw what `latency.summarise` gives: each form's median stages, the fastest form on top.

    The 2018 recipe's latency stands beside those of its own image size alone.
    """
    forms = sorted(measured["forms"].items(), key=lambda row: row[1]["total"]["p50"])
    figure, [[axes]] = new_figure(11, 2.4 + 0.5 * len(forms))
    names, times = zip(*forms, strict=True)
    left = np.zeros(len(forms))
    for stage, (words, colour) in LATENCY.items():
        widths = [stages[stage]["p50"] for stages in times]
        axes.barh(range(len(forms)), widths, left=left, height=0.66, color=colour, label=words)
        left += widths
    for column, name in enumerate(times[0]["total"]):
        _at_right(axes, column, -0.9, name)
        for place, stages in enumerate(times):
            _at_right(axes, column, place, f"{stages['total'][name]:.1f}")
    if measured["image_size"] == RECIPE_SIZE:
        axes.axvline(RECIPE_MS, color=GREY, ls="--", lw=2, label="the 2018 recipe's, on a V100")
    axes.set_yticks(range(len(forms)), names)
    axes.set(xlabel="milliseconds, one image at a time", ylim=(len(forms) - 0.4, -0.6))
    size = f"{measured['image_size']} x {measured['image_size']} pixels"
    axes.set_title(f"Latency: {measured['device']}, {measured['runs']} images, {size}")
    axes.grid(axis="y", visible=False)
    figure.legend(loc="outside lower center", ncols=3, handlelength=1.5)
    return figure


@STYLE
def batch_throughput(rates, device):
    """Draw the forward pass' images/s against the batch, {name: {batch: rate}}, both logarithmic.

    Each line is named at its end; names that would touch are moved apart.
    """
    figure, [[axes]] = new_figure(10, 6)
    batches = list(next(iter(rates.values())))
    colours = dict(zip(rates, color_sequences["petroff10"], strict=False))
    low, high = (f(rate for row in rates.values() for rate in row.values()) for f in (min, max))
    gap, place = np.log(high / low) / 16, -np.inf
    for number, name in enumerate(sorted(rates, key=lambda name: rates[name][batches[-1]])):
        values = list(rates[name].values())
        axes.plot(batches, values, color=colours[name], marker="osD^vP*Xhd"[number % 10])
        place = max(np.log(values[-1]), place + gap)
        at = batches[-1] * 1.12, np.exp(place)
        axes.annotate(name, (batches[-1], values[-1]), at, color=colours[name], va="center")
    axes.set(xscale="log", yscale="log", xlabel="images at once", ylabel="images per second")
    axes.set_xticks(batches, batches, minor=False)
    axes.minorticks_off()
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))  # rates may lie within one decade
    axes.yaxis.set_major_formatter("{x:,.0f}")
    axes.set_title(f"Throughput of the forward pass: {device}")
    return figure


@STYLE
def waterfall(rounds, title):
    """Draw the images/s of each stage, {stage: [rate of each round]}, on a log scale.

    A bar ends at the median, its whisker spans the rounds. Beneath a stage that has the one before
    it in it, that one's rate is pale: the difference is what the stage costs.
    """
    figure, [[axes]] = new_figure(11, 6)
    rates = {stage: median(rounds[stage]) for stage in STAGES}
    floor = 10.0 ** math.floor(math.log10(min(map(min, rounds.values())) / 1.5))
    before = dict(zip([*STAGES][1:5], [*STAGES], strict=False)) | {"real": "synthetic"}
    for place, (stage, rate) in enumerate(rates.items()):
        colour = NETWORK if stage in NETWORKS else INPUT
        level = rates.get(before.get(stage), floor)
        axes.barh(place, level - floor, left=floor, height=0.7, color=PALE)
        axes.barh(place, rate - floor, left=floor, height=0.7, color=colour)
        spread = [min(rounds[stage]), max(rounds[stage])]
        axes.plot(spread, [place] * 2, "|-", color="black", lw=1.5)
        text = f"{rate:,.{0 if rate >= 10 else 1}f}"
        axes.text(1.02, place, text, transform=axes.get_yaxis_transform(), va="center")
    axes.set_yticks(range(len(STAGES)), STAGES.values())
    axes.axhline(4.5, color=GREY, lw=1)  # above it the CPU, below it the device
    _rates_on_x(axes, len(STAGES))
    axes.set_xlim(floor, 1.1 * max(map(max, rounds.values())))
    axes.set_title(title)
    return figure


@STYLE
def supply_and_demand(rows, *, supply):
    """Draw the images/s that each row of `demand.demand` asks for, and the line of the `supply`.

    A full dot is a number of GPUs that this machine's input feeds.
    """
    machines = list(dict.fromkeys((row["gpu"], row["precision"]) for row in rows))
    figure, [[axes]] = new_figure(11, 5.2)
    for place, machine in enumerate(machines):
        mine = [row for row in rows if (row["gpu"], row["precision"]) == machine]
        axes.plot([row["images_per_second"] for row in mine], [place] * len(mine), color=PALE)
        for row in mine:
            ink, fill = ("white", DARK) if row["fed"] else (DARK, "white")
            at = row["images_per_second"], place
            axes.plot(*at, "o", mec=DARK, mew=2, ms=21, mfc=fill)
            axes.text(*at, row["gpus"], color=ink, ha="center", va="center_baseline")
    label = f"what this machine's input gives: {supply:,.0f} images/s"
    axes.axvline(supply, color=INPUT, lw=4, zorder=0.9, label=label)
    axes.set_yticks(range(len(machines)), [", ".join(machine) for machine in machines])
    _rates_on_x(axes, len(machines))
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.minorticks_off()
    axes.set_title("What 1, 2, 4 and 8 GPUs take, as published")
    figure.legend(loc="outside lower center")
    return figure


def _rates_on_x(axes, rows):
    axes.set(xscale="log", xlabel="images per second", ylim=(rows - 0.4, -0.6))
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.grid(axis="y", visible=False)


def _at_right(axes, column, height, text):
    place, shift = (1, height), (60 + 62 * column, 0)
    how = {"xycoords": axes.get_yaxis_transform(), "textcoords": "offset points"}
    axes.annotate(text, place, shift, ha="right", va="center", **how)
