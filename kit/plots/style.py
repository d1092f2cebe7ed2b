"""The style of all figures: colours, fonts, and how a figure is made and saved."""

import functools
from pathlib import Path

import matplotlib.pyplot as plt
from matplotlib import font_manager

from kit.files import replacing

DARK, LIGHT, PALE, GREY = "#0b4f8a", "#f2a03d", "#d3dbe3", "#6b6b6b"
TRAINING, VALIDATION = LIGHT, DARK  # each has one colour in all figures, and is told from the
INPUT, NETWORK = "#8edad0", "#7a5cad"  # other of its pair in greyscale too
DPI = 120
FONT = "DejaVu Sans"  # ships with matplotlib
# for class names in other scripts, where the machine has one of them
FALLBACK_FONTS = """Noto Sans CJK JP, Noto Sans CJK SC, Noto Sans JP, Noto Sans SC, Noto Sans KR,
Hiragino Sans, PingFang SC, Yu Gothic, Microsoft YaHei, Malgun Gothic, WenQuanYi Zen Hei,
Noto Sans Devanagari, Noto Sans Thai, Arial Unicode MS, Noto Emoji, Segoe UI Emoji, Symbola"""
INSTALLED = set(font_manager.get_font_names())
FONTS = [FONT, *(n for n in FALLBACK_FONTS.replace("\n", " ").split(", ") if n in INSTALLED)]
NO_GLYPH = "□"
STYLE = plt.rc_context(
    {
        "font.family": FONTS,
        "font.size": 14,
        "axes.titlesize": 14,
        "axes.titlelocation": "left",
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "axes.axisbelow": True,
        "grid.color": "#e3e3e3",
        "lines.linewidth": 2.5,
        "lines.markersize": 6,
        "legend.frameon": False,
        "figure.dpi": 80,
        "figure.titlesize": 14,
        "figure.constrained_layout.w_pad": 0.1,
        "figure.constrained_layout.h_pad": 0.1,
    }
)
MANY = 30  # more class names than this on an axis cannot be read


def save(figure, run_dir, name):
    """Write run_dir/figures/name.png, whole or not at all, and return its path."""
    path = Path(run_dir) / "figures" / f"{name}.png"
    with replacing(path) as temporary:
        # without the version of matplotlib in it, the same figure is the same file
        figure.savefig(temporary, dpi=DPI, metadata={"Software": None})
    return path


def new_figure(width, height, rows=1, columns=1, *, sharey=False, widths=None):
    """Return a figure and its axes [rows, columns].

    Closed at once, so that a notebook shows it once: as the value of its cell.
    """
    figure = plt.figure(figsize=(width, height), layout="constrained")
    plt.close(figure)
    axes = figure.subplots(rows, columns, sharey=sharey, width_ratios=widths, squeeze=False)
    return figure, axes


def short(name, width=18):
    """Return the first of a class's synonyms, drawable in one line, cut to `width` characters."""
    name = " ".join(name.split(",")[0].split()) or " ".join(name.split())
    return drawable(name if len(name) <= width else name[: width - 1] + "…")


def drawable(text):
    """Return text as matplotlib takes it: dollars are no mathematics, NO_GLYPH for want of a font.

    matplotlib would warn of each character that no font has, at each drawing.
    """
    known = _glyphs()
    text = "".join(c if c == "\n" or ord(c) in known else NO_GLYPH for c in text)
    return text.replace("$", r"\$")


@functools.cache
def _glyphs():
    paths = map(font_manager.findfont, FONTS)
    return frozenset().union(*(font_manager.get_font(path).get_charmap() for path in paths))
