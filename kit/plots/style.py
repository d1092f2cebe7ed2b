"""The style of all figures: colours, sizes, and how a figure is made and saved."""

from pathlib import Path

import matplotlib.pyplot as plt

from kit.files import replacing

DARK, LIGHT, PALE, GREY = "#0b4f8a", "#f2a03d", "#d3dbe3", "#6b6b6b"
DASHES = ("-", (0, (4, 1.5)))  # top-1, top-5
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
NAMED_CLASSES = 30  # more class names than this on an axis cannot be read
ROUND = [1, 2, 5, 10]  # steps between ticks


def save(figure, run_dir, name):
    """Write run_dir/figures/name.png, whole or not at all, and give its path."""
    path = Path(run_dir) / "figures" / f"{name}.png"
    with replacing(path) as temporary:
        # without the version of matplotlib in it, the same figure is the same file
        figure.savefig(temporary, dpi=DPI, metadata={"Software": None})
    return path


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


def short(name, width=18):
    """The first of a class's synonyms, cut to `width` characters."""
    name = name.split(",")[0]
    return name if len(name) <= width else name[: width - 1] + "…"


def thousands(value, _):
    return f"{value:,.0f}"
