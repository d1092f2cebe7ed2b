"""Figures of time and rates.

Notebook 04: what a photograph takes in each form of the network. Notebook 05: what the input gives,
what GPUs ask, and where the two meet.
"""

import math

import numpy as np
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator

from kit.plots.style import DARK, DASHES, GREY, LIGHT, PALE, STYLE, new_figure, thousands

INPUT = {
    "read": "read, cached",
    "parse": "+ parse",
    "decode": "+ crop and decode",
    "resize": "+ resize and flip",
    "input": "+ shuffle and batch",
}
DEVICE = {
    "transfer": "transfer to the device",
    "synthetic": "training step alone",
    "real": "training on this input",
}

CLASSIFYING = {"decode_resize": ("decode and resize", LIGHT), "forward": ("forward", DARK)}
RECIPE_MS, RECIPE_SIZE = 11, 224  # its published latency on a V100, preprocessing included; pixels


@STYLE
def latency(measured):
    """Draw what `latency.summarise` gives: each form's median stages, the fastest form on top.

    The recipe's latency stands beside those of its own image size alone.
    """
    forms = sorted(measured["forms"].items(), key=lambda row: row[1]["total"]["p50"])
    figure, [[axes]] = new_figure(11, 2.2 + 0.5 * len(forms))
    for place, (_, stages) in enumerate(forms):
        left = 0
        for stage, (words, colour) in CLASSIFYING.items():
            width = stages[stage]["p50"]
            label = words if not place else None
            axes.barh(place, width, left=left, height=0.66, color=colour, label=label)
            left += width
        for column, value in enumerate(stages["total"].values()):
            _at_right(axes, column, place, f"{value:.1f}")
    for column, mark in enumerate(forms[0][1]["total"]):
        _at_right(axes, column, -0.9, mark)
    if measured["image_size"] == RECIPE_SIZE:
        axes.axvline(RECIPE_MS, color=GREY, ls=DASHES[1], lw=2, label="the recipe's, on a V100")
    axes.set_yticks(range(len(forms)), [name for name, _ in forms])
    axes.set(xlabel="milliseconds, one photograph at a time", ylim=(len(forms) - 0.4, -0.6))
    size = f"{measured['image_size']} x {measured['image_size']} pixels"
    axes.set_title(f"{measured['device']}, {measured['runs']} photographs, {size}", loc="left")
    axes.grid(axis="y", visible=False)
    figure.legend(loc="outside upper center", ncols=3, handlelength=1.5)
    return figure


@STYLE
def batch_throughput(rates, title):
    """Draw the forward pass' images/s against the batch, {name: {batch: rate}}, both logarithmic.

    Each line is named at its end; names that would touch are moved apart.
    """
    figure, [[axes]] = new_figure(10, 6)
    batches = list(next(iter(rates.values())))
    ends = sorted(rates, key=lambda name: rates[name][batches[-1]])
    low, high = (f(rate for row in rates.values() for rate in row.values()) for f in (min, max))
    gap, place = np.log(high / low) / 16, -np.inf
    for number, name in enumerate(ends):
        values = list(rates[name].values())
        style = {"color": (DARK, LIGHT, GREY)[number % 3], "marker": "osD^v"[number % 5]}
        axes.plot(batches, values, **style)
        place = max(np.log(values[-1]), place + gap)
        at = batches[-1] * 1.12, np.exp(place)
        axes.annotate(name, (batches[-1], values[-1]), at, color=style["color"], va="center")
    axes.set(xscale="log", yscale="log", xlabel="images at once", ylabel="images per second")
    axes.set_xticks(batches, batches, minor=False)
    axes.minorticks_off()
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))  # rates may lie within one decade
    axes.yaxis.set_major_formatter(FuncFormatter(thousands))
    axes.set_title(title, loc="left")
    return figure


@STYLE
def waterfall(rates, title):
    """Draw the images/s of each stage on a log scale.

    Each stage of INPUT has those above it in it, and the pale bar shows what it costs. Of DEVICE,
    the first two stand alone, and the last, all together, is compared with the step alone.
    """
    figure, [[axes]] = new_figure(11, 6)
    names = [*INPUT.values(), *DEVICE.values()]
    stages = [*INPUT, *DEVICE]
    floor = 10.0 ** math.floor(math.log10(min(rates.values()) / 1.5))
    levels = {stage: rates[before] for before, stage in zip(INPUT, [*INPUT][1:], strict=False)}
    levels["real"] = rates["synthetic"]
    for place, stage in enumerate(stages):
        colour = LIGHT if stage in INPUT else DARK
        axes.barh(place, levels.get(stage, floor) - floor, left=floor, height=0.7, color=PALE)
        axes.barh(place, rates[stage] - floor, left=floor, height=0.7, color=colour)
        text = f"{rates[stage]:,.{0 if rates[stage] >= 10 else 1}f}"
        axes.text(1.02, place, text, transform=axes.get_yaxis_transform(), va="center")
    axes.set_yticks(range(len(stages)), names)
    axes.axhline(len(INPUT) - 0.5, color=GREY, lw=1)  # above it the CPU, below it the device
    axes.set(xscale="log", xlabel="images per second", ylim=(len(stages) - 0.4, -0.6))
    axes.set_xlim(floor, 1.1 * max(rates.values()))
    axes.xaxis.set_major_formatter(FuncFormatter(thousands))
    axes.set_title(title, loc="left")
    axes.grid(axis="y", visible=False)
    return figure


@STYLE
def supply_and_demand(rows, *, supply, remedies):
    """Draw the images/s that each row of `demand.demand` asks for, and below what is supplied.

    A full dot is a number of GPUs that this machine's `supply` feeds; `remedies` are rows of
    `demand.remedies`, pale where they are computed.
    """
    machines = list(dict.fromkeys((row["gpu"], row["precision"]) for row in rows))
    names = [", ".join(machine) for machine in machines]
    figure, [[axes]] = new_figure(12, 7.2)
    for place, machine in enumerate(machines):
        mine = [row for row in rows if (row["gpu"], row["precision"]) == machine]
        axes.plot([row["images_per_second"] for row in mine], [place] * len(mine), color=PALE)
        for row in mine:
            ink, fill = ("white", DARK) if row["fed"] else (DARK, "white")
            place_of = row["images_per_second"], place
            axes.plot(*place_of, "o", mec=DARK, mew=2, ms=21, mfc=fill)
            axes.text(*place_of, row["gpus"], color=ink, ha="center", va="center_baseline")
    floor = min(supply, *(row["images_per_second"] for row in rows)) / 1.5
    bars = [("this machine's input", supply, DARK)]
    for row in remedies:
        colour = LIGHT if row["kind"] == "measured" else PALE
        bars.append((f"{row['remedy']} ({row['kind']})", row["images_per_second"], colour))
    for place, (name, rate, colour) in enumerate(bars, start=len(machines)):
        names.append(name)
        axes.barh(place, rate - floor, left=floor, height=0.62, color=colour)
        axes.text(rate * 1.06, place, f"{rate:,.0f}", va="center")
    axes.axvline(supply, color=DARK, lw=2, ls=DASHES[1], zorder=0.9)
    axes.axhline(len(machines) - 0.5, color=GREY, lw=1)
    axes.set_yticks(range(len(names)), names)
    axes.set(xscale="log", xlabel="images per second", ylim=(len(names) - 0.4, -0.7))
    axes.set_xlim(left=floor)
    axes.set_title("What 1, 2, 4 and 8 GPUs take, and what this machine gives", loc="left")
    axes.xaxis.set_major_formatter(FuncFormatter(thousands))
    axes.grid(axis="y", visible=False)
    return figure


@STYLE
def knee(rows, title, *, supply, of, measured=()):
    """Draw what consumers get against their number, from rows of `demand.knee`.

    `supply` is the pipeline's images/s; `of` names the consumers; `measured` holds (number,
    images/s) of real runs, drawn as dots.
    """
    figure, [[axes]] = new_figure(9, 5.4)
    counts = [row["consumers"] for row in rows]
    asked = [row["demand"] for row in rows]
    axes.plot(counts, asked, color=GREY, ls=DASHES[1], lw=2, label="what they could take")
    axes.axhline(supply, color=LIGHT, label=f"what the input gives, {supply:,.0f}/s")
    got = [row["images_per_second"] for row in rows]
    axes.plot(counts, got, color=DARK, lw=3.5, label="what they get, simulated")
    if measured:
        style = {"color": DARK, "mfc": "white", "mew": 2.5, "ms": 12, "ls": "none"}
        axes.plot(*zip(*measured, strict=True), "o", label="what they get, measured", **style)
    axes.set(xlabel=of, ylabel="images per second")
    axes.set_title(title, loc="left")
    axes.set_ylim(0, 1.12 * max(*asked, *[rate for _, rate in measured]))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.yaxis.set_major_formatter(FuncFormatter(thousands))
    figure.legend(loc="outside upper center", ncols=2)
    return figure


def _at_right(axes, column, height, text):
    axes.annotate(
        text,
        (1, height),
        (60 + 62 * column, 0),
        xycoords=axes.get_yaxis_transform(),
        textcoords="offset points",
        ha="right",
        va="center",
    )
