"""Figures that show images: augmented batches, boxes, mistakes, predictions."""

import math

import numpy as np
from matplotlib.patches import Rectangle

from kit.plots.style import DARK, LIGHT, STYLE, new_figure, short


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
    figure, [[axes]] = new_figure(8, 8 * height / width + 0.6)
    axes.set_axis_off()
    _show(axes, image)
    _draw_boxes(axes, image, windows, "white")
    _draw_boxes(axes, image, boxes, LIGHT, thickness=5)
    of_object = ", box of the object (orange)" if len(boxes) else ""
    axes.set_title(f"{len(windows)} training crops (white){of_object}")
    return figure


def mistakes(images, heats, worst, names):
    """Draw the wrong answers of `scores.worst_mistakes`, each above its heat map.

    The title says what it is, what it was taken for and how surely.
    """
    titles = [
        f"{short(names[one['label']])}\ntaken for {short(names[one['prediction']], 12)}, "
        f"{one['probability']:.0%}"
        for one in worst
    ]
    return heat_maps(images, heats, titles)


@STYLE
def confused_pairs(images, pairs, names):
    """Draw a row of images for each of `scores.confused_pairs`, which are in the order of its rows.

    The title says how many images of the class were taken for the other.
    """
    columns = max(len(pair["positions"]) for pair in pairs)
    figure, grid = new_figure(2.3 * max(columns, 3), 2.7 * len(pairs), len(pairs), columns)
    for axes in grid.flat:
        axes.set_axis_off()
    images = iter(images)
    for row, pair in zip(grid, pairs, strict=True):
        label, prediction = (short(names[pair[key]], 24) for key in ("label", "prediction"))
        text = f"{label} taken for {prediction}: {pair['images']:,} of {pair['of']:,}"
        row[0].set_title(text, loc="left")
        for axes, _ in zip(row, pair["positions"], strict=False):
            _show(axes, next(images))
    return figure


def heat_maps(images, heats, titles=()):
    """Draw each image, and below it the same one lit where `gradcam` is high: [height, width]."""
    lit = [_lit(image, heat) for image, heat in zip(images, heats, strict=True)]
    return image_grid([*images, *lit], titles, columns=len(images))


@STYLE
def predictions(photographs, windows, images, heats, answers, titles=()):
    """Draw a row for each photograph: whole, as the network sees it, and what it takes it for.

    Whole with the window (ymin, xmin, ymax, xmax, in [0, 1]) that becomes the image of `images`;
    that image, lit where `gradcam` is high; and `Classifier.classify`'s answer, best on top.
    """
    rows = len(images)
    figure, grid = new_figure(12, 3.1 * rows, rows, 3, widths=[1.3, 1, 1.7])
    for (photo, seen, axes), photograph, window, image, heat, answer in zip(
        grid, photographs, windows, images, heats, answers, strict=True
    ):
        for panel in (photo, seen):
            panel.set_axis_off()
        _show(photo, photograph)
        _draw_boxes(photo, photograph, window, LIGHT)
        _show(seen, _lit(image, heat))
        names, shares = zip(*answer, strict=True)
        axes.barh(range(len(answer)), shares, height=0.7, color=DARK)
        for place, share in enumerate(shares):
            axes.text(share + 0.015, place, f"{share:.1%}", va="center")
        axes.set_yticks(range(len(answer)), [short(name, 24) for name in names])
        axes.set(xlim=(0, 1.2), ylim=(len(answer) - 0.4, -0.6), xticks=[])
        axes.spines["bottom"].set_visible(False)
        axes.tick_params(left=False)
        axes.grid(visible=False)
    for (*_, axes), title in zip(grid, titles, strict=False):
        axes.set_title(title if len(title) <= 40 else f"…{title[-39:]}", loc="left")
    grid[0, 0].set_title("photograph and crop", fontsize=12)
    grid[0, 1].set_title("what speaks for it", fontsize=12)
    grid[-1, -1].set_xlabel("probability")
    return figure


def _lit(image, heat):
    """Darken an image where `heat` [height, width], in [0, 1], is low."""
    return image * (0.2 + 0.8 * heat[..., None])


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
