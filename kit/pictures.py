"""Photographs as figures: augmented batches, boxes, mistakes, answers."""

import math

import numpy as np
from matplotlib.patches import Rectangle

from kit.plots import DARK, LIGHT, STYLE, new_figure, short


@STYLE
def image_grid(images, titles=(), *, boxes=(), columns=4):
    """Draw images in rows of `columns`, with a title and any boxes each.

    `images` are [height, width, 3], pixels in [0, 255], of any sizes; `boxes` one [n, 4] an image,
    in [0, 1] in the order ymin, xmin, ymax, xmax.
    """
    columns = min(columns, len(images))
    rows = math.ceil(len(images) / columns)
    lines = max((title.count("\n") + 1 for title in titles), default=0)
    figure, grid = new_figure(2.3 * columns, (2.3 + 0.3 * lines) * rows, rows, columns)
    for axes in grid.flat:
        axes.set_axis_off()
    for axes, image in zip(grid.flat, images, strict=False):
        _show(axes, image)
    for axes, title in zip(grid.flat, titles, strict=False):
        axes.set_title(title, fontsize=12)
    for axes, image, image_boxes in zip(grid.flat, images, boxes, strict=False):
        _draw_boxes(axes, image, image_boxes, LIGHT)
    return figure


@STYLE
def crops(image, windows, *, boxes=()):
    """Draw an image with the windows of training crops (white) and its object's boxes (orange).

    Both are [n, 4] in [0, 1] in the order ymin, xmin, ymax, xmax.
    """
    height, width = np.shape(image)[:2]
    figure, [[axes]] = new_figure(8, 8 * height / width + 0.6)
    axes.set_axis_off()
    _show(axes, image)
    _draw_boxes(axes, image, windows, "white")
    _draw_boxes(axes, image, boxes, LIGHT, thickness=5)
    of_object = ", box of the object (orange)" if len(boxes) else ""
    axes.set_title(f"{len(windows)} training crops (white){of_object}")
    return figure


def mistakes(images, worst, names, *, columns=4):
    """Draw the wrong answers of `evaluation.worst_mistakes` with what each is and was taken for."""
    titles = [
        f"{short(names[one['label']])}\ntaken for {short(names[one['prediction']], 12)}, "
        f"{one['probability']:.0%}"
        for one in worst
    ]
    return image_grid(images, titles, columns=columns)


@STYLE
def top_k(images, answers, titles=()):
    """Draw each photograph beside the classes that `Classifier.classify` gave it, best on top."""
    figure, grid = new_figure(10, 3.1 * len(images), len(images), 2, widths=[1, 1.9])
    for (photo, axes), image, answer in zip(grid, images, answers, strict=True):
        photo.set_axis_off()
        _show(photo, image)
        names, shares = zip(*answer, strict=True)
        axes.barh(range(len(answer)), shares, height=0.7, color=DARK)
        for place, share in enumerate(shares):
            axes.text(share + 0.015, place, f"{share:.1%}", va="center")
        axes.set_yticks(range(len(answer)), [short(name, 24) for name in names])
        axes.set(xlim=(0, 1.2), ylim=(len(answer) - 0.4, -0.6), xticks=[])
        axes.spines["bottom"].set_visible(False)
        axes.tick_params(left=False)
        axes.grid(visible=False)
    for (_, axes), title in zip(grid, titles, strict=False):
        axes.set_title(title, loc="left")
    grid[-1, 1].set_xlabel("probability")
    return figure


def _show(axes, image):
    axes.imshow(np.clip(np.rint(image), 0, 255).astype("uint8"))


def _draw_boxes(axes, image, boxes, colour, thickness=2.5):
    height, width = np.shape(image)[:2]
    for ymin, xmin, ymax, xmax in np.reshape(boxes, [-1, 4]):
        corner = xmin * width - 0.5, ymin * height - 0.5  # pixel 0 is drawn from -0.5 to 0.5
        size = (xmax - xmin) * width, (ymax - ymin) * height
        # a dark edge on both sides, to be seen on any photograph
        for line, edge in ((thickness + 2, "black"), (thickness, colour)):
            axes.add_patch(Rectangle(corner, *size, fill=False, ec=edge, lw=line, clip_on=False))
