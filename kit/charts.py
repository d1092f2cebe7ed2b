"""Figures of notebook 05: what the input gives, what GPUs ask, and where the two meet."""

import math

from matplotlib.ticker import FuncFormatter, MaxNLocator

from kit.plots import DARK, DASHES, GREY, LIGHT, PALE, STYLE, new_figure

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
    axes.xaxis.set_major_formatter(FuncFormatter(_thousands))
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
    axes.xaxis.set_major_formatter(FuncFormatter(_thousands))
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
    axes.yaxis.set_major_formatter(FuncFormatter(_thousands))
    figure.legend(loc="outside upper center", ncols=2)
    return figure


def _thousands(value, _):
    return f"{value:,.0f}"
