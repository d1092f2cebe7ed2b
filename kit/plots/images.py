"""Figures that show images: augmented batches, boxes, mistakes, predictions."""

import math

import numpy as np
from matplotlib import colormaps
from matplotlib.cm import ScalarMappable
from matplotlib.patches import Rectangle

from kit.plots.style import DARK, LIGHT, PALE, STYLE, drawable, new_figure, short

HEAT = colormaps["inferno"]  # its lightness rises from end to end: it reads in greyscale too
LUMA = [0.299, 0.587, 0.114]  # of R, G and B in a grey image (ITU-R BT.601)


@STYLE
def image_grid(images, captions=(), *, boxes=(), columns=4, title=""):
    """Draw images in rows of `columns`, with a caption and any boxes each.

    `images` are [height, width, 3], pixels in [0, 255], of any sizes; `boxes` one [n, 4] an image,
    in [0, 1] in the order ymin, xmin, ymax, xmax.
    """
    columns = min(columns, len(images))
    rows = math.ceil(len(images) / columns)
    lines = max((caption.count("\n") + 1 for caption in captions), default=0)
    height = (2.3 + 0.3 * lines) * rows + 0.4 * bool(title)
    figure, grid = _panels(2.3 * columns, height, rows, columns)
    figure.suptitle(drawable(title))
    for axes, image in zip(grid.flat, images, strict=False):
        _show(axes, image)
    for axes, caption in zip(grid.flat, captions, strict=False):
        axes.set_title(drawable(caption), fontsize=12, loc="center")
    for axes, image, image_boxes in zip(grid.flat, images, boxes, strict=False):
        _draw_boxes(axes, image, image_boxes, LIGHT)
    return figure


def label_text(label, classes):
    """Name the class of a label, or with their shares the two largest of a mixed one.

    `label` is a number or a float vector over `classes`, each with a `name`.
    """
    if np.ndim(label) == 0:
        return classes[label].name
    first, second = np.argsort(label)[::-1][:2]
    if not label[second]:
        return classes[first].name
    return "\n".join(f"{classes[i].name} {label[i]:.0%}" for i in (first, second))


@STYLE
def crops(image, windows, *, boxes=()):
    """Draw an image with the windows of training crops (white) and its object's boxes (orange).

    Both are [n, 4] in [0, 1] in the order ymin, xmin, ymax, xmax.
    """
    height, width = np.shape(image)[:2]
    figure, [[axes]] = _panels(8, 8 * height / width + 0.6)
    _show(axes, image)
    _draw_boxes(axes, image, windows, "white")
    _draw_boxes(axes, image, boxes, LIGHT, thickness=5)
    of_object = ", box of the object (orange)" if len(boxes) else ""
    axes.set_title(f"{len(windows)} training crops (white){of_object}")
    return figure


@STYLE
def mistakes(images, heats, worst, names):
    """Draw the wrong answers of `scores.worst_mistakes`, each above its heat map of `gradcam`.

    The caption says what it is, what it was taken for and how surely.
    """
    captions = [
        f"{short(names[one['label']])}\ntaken for {short(names[one['prediction']], 12)}, "
        f"{one['probability']:.0%}"
        for one in worst
    ]
    title = "The most confident mistakes, and where the wrong class was seen"
    lit = [overlay(image, heat) for image, heat in zip(images, heats, strict=True)]
    figure = image_grid([*images, *lit], captions, columns=len(images), title=title)
    _heat_scale(figure, figure.axes[len(images) :])
    return figure


def suspicious(images, rows, names):
    """Draw the images of `suspicious.suspicious_labels`: their label, and what else they may be."""
    captions = [
        f"{short(names[row['label']])}, {row['probability']:.0%}\n"
        f"or {short(names[row['suggested']], 14)}, {row['suggested_probability']:.0%}?"
        for row in rows
    ]
    title = "Labels to be looked at: the label, and what the network takes it for"
    return image_grid(images, captions, title=title)


def overlay(image, heat):
    """Lay a heat map [height, width], in [0, 1], over an image [height, width, 3] made grey."""
    grey = np.dot(image, LUMA)[..., np.newaxis]
    return 0.5 * grey + 0.5 * 255 * HEAT(heat)[..., :3]


@STYLE
def confused_pairs(images, pairs, names):
    """Draw a row of images for each of `scores.confused_pairs`, which are in the order of its rows.

    The title says how many images of the class were taken for the other.
    """
    columns = max(len(pair["positions"]) for pair in pairs)
    figure, grid = _panels(2.3 * max(columns, 3), 2.7 * len(pairs) + 0.4, len(pairs), columns)
    figure.suptitle("The classes most often confused")
    images = iter(images)
    for row, pair in zip(grid, pairs, strict=True):
        label, prediction = (short(names[pair[key]], 24) for key in ("label", "prediction"))
        text = f"{label} taken for {prediction}: {pair['images']:,} of {pair['of']:,}"
        row[0].set_title(text)
        for axes, _ in zip(row, pair["positions"], strict=False):
            _show(axes, next(images))
    return figure


@STYLE
def predictions(originals, windows, seen, heats, answers, titles=(), *, truths=()):
    """Draw a row for each image: whole, as the network sees it, and its likeliest classes.

    `originals` are shown with their `windows` (ymin, xmin, ymax, xmax, in [0, 1]), which become
    what it has `seen`; that under the `heats` of `gradcam`; `answers` are of `Classifier.classify`.
    Where the `truths`, class names, are known, they stand in place of the titles.
    """
    rows = len(seen)
    figure, grid = new_figure(12, 3.1 * rows + 1.1, rows, 3, widths=[1.25, 1.1, 1.65])
    figure.suptitle("Predictions; the bar of the true class is dark" if truths else "Predictions")
    titles = [f"true class: {truth}" for truth in truths] or titles or [""] * rows
    drawn = zip(grid, originals, windows, seen, heats, strict=True)
    for (whole, crop, _), original, window, pixels, heat in drawn:
        for axes in (whole, crop):
            axes.set_axis_off()
        _show(whole, original)
        _draw_boxes(whole, original, window, LIGHT)
        _show(crop, overlay(pixels, heat))
    drawn = zip(grid[:, 2], answers, titles, truths or [None] * rows, strict=True)
    for axes, answer, title, truth in drawn:
        _draw_answer(axes, answer, truth)
        axes.set_title(drawable(title if len(title) <= 40 else f"…{title[-39:]}"))
    grid[0, 0].set_title("image and crop", fontsize=12, loc="center")
    grid[0, 1].set_title("evidence for the first class", fontsize=12, loc="center")
    grid[-1, -1].set_xlabel("probability")
    _heat_scale(figure, grid[-1, 1])
    return figure


def _draw_answer(axes, answer, truth):
    """Draw the probabilities of (class, probability) as bars, the true class's alone dark."""
    names, shares = zip(*answer, strict=True)
    colours = [DARK if truth in (None, name) else PALE for name in names]
    axes.barh(range(len(answer)), shares, height=0.7, color=colours)
    for place, share in enumerate(shares):
        axes.text(share + 0.015, place, f"{share:.1%}", va="center")
    axes.set_yticks(range(len(answer)), [short(name, 24) for name in names])
    axes.set(xlim=(0, 1.2), ylim=(len(answer) - 0.4, -0.6), xticks=[])
    axes.spines["bottom"].set_visible(False)
    axes.tick_params(left=False)
    axes.grid(visible=False)


def _panels(width, height, rows=1, columns=1):
    """Return a figure and its axes [rows, columns] for images."""
    figure, grid = new_figure(width, height, rows, columns)
    for axes in grid.flat:
        axes.set_axis_off()
    return figure, grid


def _heat_scale(figure, axes):
    bar = figure.colorbar(ScalarMappable(cmap=HEAT), ax=axes, location="bottom", shrink=0.6)
    bar.set_ticks([0, 1], labels=["none", "most"])


def _show(axes, image):
    axes.imshow(np.clip(np.rint(image), 0, 255).astype("uint8"))


def _draw_boxes(axes, image, boxes, colour, thickness=2.5):
    height, width = np.shape(image)[:2]
    for ymin, xmin, ymax, xmax in np.reshape(boxes, [-1, 4]):
        corner = xmin * width - 0.5, ymin * height - 0.5  # pixel 0 is drawn from -0.5 to 0.5
        size = (xmax - xmin) * width, (ymax - ymin) * height
        # a dark edge on both sides, to be seen on any image
        for line, edge in ((thickness + 2, "black"), (thickness, colour)):
            axes.add_patch(Rectangle(corner, *size, fill=False, ec=edge, lw=line, clip_on=False))
