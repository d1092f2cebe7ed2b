import numpy as np

from kit import pictures

NAMES = ["cat, house cat", "dog", "horse"]
SQUARE = np.zeros([20, 20, 3], "uint8")


def words(labels):
    return [label.get_text() for label in labels]


def test_boxes_are_drawn_where_they_are():
    image = np.zeros([20, 40, 3])
    figure = pictures.image_grid([image, image], boxes=[[[0.25, 0.5, 0.75, 1.0]], []])
    first, second = figure.axes
    # ymin, xmin, ymax, xmax of 20 x 40 pixels; the first pixel's outer edge is at -0.5
    for patch in first.patches:
        np.testing.assert_allclose(patch.get_bbox().extents, [19.5, 4.5, 39.5, 14.5])
    assert len(second.patches) == 0


def test_grid_rounds_and_clips_pixels():
    image = np.full([2, 2, 3], [-3.0, 99.6, 300.0])
    shown = pictures.image_grid([image]).axes[0].images[0].get_array()
    np.testing.assert_array_equal(shown[0, 0], [0, 100, 255])


def test_mistakes_say_what_is_what():
    worst = [{"label": 0, "prediction": 2, "probability": 0.973}]
    (axes,) = pictures.mistakes([SQUARE], worst, NAMES).axes
    assert axes.get_title() == "cat\ntaken for horse, 97%"


def test_top_k_puts_the_likeliest_on_top():
    answers = [[("cat", 0.9), ("dog", 0.1)], [("dog", 0.75), ("cat", 0.25)]]
    figure = pictures.top_k([SQUARE, SQUARE], answers, ["a.jpg", "b.jpg"])
    second = figure.axes[3]
    assert words(second.get_yticklabels()) == ["dog", "cat"]
    assert [bar.get_width() for bar in second.patches] == [0.75, 0.25]
    assert second.yaxis.get_inverted()
    assert second.get_title(loc="left") == "b.jpg"
