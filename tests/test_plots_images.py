from types import SimpleNamespace

import numpy as np
from matplotlib.colors import to_hex
from PIL import Image

from kit import plots

NAMES = ["cat, house cat", "dog", "horse"]
SQUARE = np.zeros([20, 20, 3], "uint8")


def words(labels):
    return [label.get_text() for label in labels]


def test_boxes_are_drawn_where_they_are():
    image = np.zeros([20, 40, 3])
    figure = plots.image_grid([image, image], boxes=[[[0.25, 0.5, 0.75, 1.0]], []])
    first, second = figure.axes
    # ymin, xmin, ymax, xmax of 20 x 40 pixels; the first pixel's outer edge is at -0.5
    for patch in first.patches:
        np.testing.assert_allclose(patch.get_bbox().extents, [19.5, 4.5, 39.5, 14.5])
    assert len(second.patches) == 0


def test_grid_rounds_and_clips_pixels():
    image = np.full([2, 2, 3], [-3.0, 99.6, 300.0])
    shown = plots.image_grid([image]).axes[0].images[0].get_array()
    np.testing.assert_array_equal(shown[0, 0], [0, 100, 255])


def test_a_label_is_named_and_a_mixed_one_with_its_shares():
    classes = [SimpleNamespace(name=name) for name in ("cat", "dog", "horse")]
    assert plots.label_text(1, classes) == "dog"
    assert plots.label_text(np.float32([0, 0, 1]), classes) == "horse"
    assert plots.label_text(np.float32([0.3, 0, 0.7]), classes) == "horse 70%\ncat 30%"


def test_mistakes_say_what_is_what():
    worst = [{"label": 0, "prediction": 2, "probability": 0.973}]
    above, below, _ = plots.mistakes([SQUARE], [np.ones([20, 20])], worst, NAMES).axes
    assert above.get_title() == "cat\ntaken for horse, 97%"
    assert below.get_title() == ""


def test_confused_pairs_have_their_own_pictures_in_a_row_each():
    pairs = [
        {"label": 0, "prediction": 2, "images": 12, "of": 50, "positions": [7, 1]},
        {"label": 1, "prediction": 0, "images": 1, "of": 40, "positions": [3]},
    ]
    shades = [np.full([4, 4, 3], shade) for shade in (10, 20, 30)]
    first, second, third, empty = plots.confused_pairs(shades, pairs, NAMES).axes
    shown = [axes.images[0].get_array()[0, 0, 0] for axes in (first, second, third)]
    assert shown == [10, 20, 30] and not empty.images
    assert first.get_title(loc="left") == "cat taken for horse: 12 of 50"
    assert third.get_title(loc="left") == "dog taken for cat: 1 of 40"


def test_heat_maps_stand_below_their_images():
    image = np.full([2, 2, 3], 100)
    heats = [np.eye(2), np.ones([2, 2])]
    worst = [{"label": 0, "prediction": 2, "probability": 0.5}] * 2
    *panels, scale = plots.mistakes([image, image], heats, worst, NAMES).axes
    shown = [axes.images[0].get_array() for axes in panels]
    for found, expected in zip(
        shown, [image, image, *(plots.overlay(image, heat) for heat in heats)], strict=True
    ):
        np.testing.assert_array_equal(found, np.rint(expected))
    titles = [axes.get_title() for axes in panels]
    assert titles == ["cat\ntaken for horse, 50%"] * 2 + [""] * 2
    assert words(scale.get_xticklabels()) == ["none", "most"]


def test_heat_is_lighter_where_it_is_higher_in_greyscale_too():
    """By Pillow's conversion to grey, on images of any shade."""
    heat = np.linspace(0, 1, 256)[np.newaxis]
    for shade in (0, 128, 255):
        lit = plots.overlay(np.full([1, 256, 3], shade), heat)
        assert lit.min() >= 0 and lit.max() <= 255
        grey = np.asarray(Image.fromarray(lit.astype("uint8")).convert("L"), float)[0]
        assert np.diff(grey).min() >= -1  # rounded twice
        assert np.diff(grey[::16]).min() > 0
        assert grey[-1] - grey[0] > 90


def test_top_k_puts_the_likeliest_on_top():
    answers = [[("cat", 0.9), ("dog", 0.1)], [("dog", 0.75), ("cat", 0.25)]]
    photos, windows, heats = [SQUARE] * 2, [[0, 0, 1, 1], [0.25, 0, 0.75, 1]], [np.eye(20)] * 2
    figure = plots.predictions(photos, windows, photos, heats, answers, ["a.jpg", "b.jpg"])
    whole, _, second, _ = figure.axes[3:]
    np.testing.assert_allclose(whole.patches[0].get_bbox().extents, [-0.5, 4.5, 19.5, 14.5])
    assert words(second.get_yticklabels()) == ["dog", "cat"]
    assert [bar.get_width() for bar in second.patches] == [0.75, 0.25]
    assert second.yaxis.get_inverted()
    assert second.get_title(loc="left") == "b.jpg"


def test_predictions_name_the_true_class_and_mark_its_bar():
    answers = [[("cat", 0.9), ("dog", 0.1)], [("dog", 0.75), ("cat", 0.25)]]
    images, windows, heats = [SQUARE] * 2, [[0, 0, 1, 1]] * 2, [np.eye(20)] * 2
    names = ["a.jpg", "b.jpg"]
    axes = plots.predictions(
        images, windows, images, heats, answers, names, truths=["cat", "horse"]
    ).axes
    dark = [[to_hex(bar.get_facecolor()) == plots.DARK for bar in axes[i].patches] for i in (2, 5)]
    assert dark == [[True, False], [False, False]]
    titles = [axes[i].get_title(loc="left") for i in (2, 5)]
    assert titles == ["true class: cat", "true class: horse"]
