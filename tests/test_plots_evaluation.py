import numpy as np
import pytest

from kit import plots
from kit.evaluation import calibration

NAMES = ["cat, house cat", "dog", "horse"]


def texts(axes):
    return [text.get_text() for text in axes.texts]


def words(labels):
    return [label.get_text() for label in labels]


def per_class(accuracies):
    return [
        {"wnid": f"n{i}", "name": f"class {i}", "images": 100, "correct": round(100 * a), "top1": a}
        for i, a in enumerate(accuracies)
    ]


def test_confusion_shows_counts_and_shares_of_the_row():
    axes = plots.confusion([[3, 1, 0], [0, 0, 0], [0, 2, 1200]], NAMES).axes[0]
    placed = {(*text.get_position(), text.get_text()) for text in axes.texts}
    assert placed == {(0, 0, "3"), (1, 0, "1"), (1, 2, "2"), (2, 2, "1,200")}  # column, row
    share = axes.images[0].get_array()
    np.testing.assert_allclose(share, [[0.75, 0.25, 0], [0, 0, 0], [0, 2 / 1202, 1200 / 1202]])
    assert words(axes.get_yticklabels()) == ["cat", "dog", "horse"]
    assert axes.get_ylabel() == "true class"


def test_large_confusion_shows_every_cell_that_holds_images():
    matrix = np.diag(np.full(500, 40))
    matrix[7, 300] = 2
    axes = plots.confusion(matrix, ["class"] * 500).axes[0]
    (dots,) = axes.collections
    cells = {
        tuple(map(int, place)): n
        for place, n in zip(dots.get_offsets(), dots.get_array(), strict=True)
    }
    assert len(cells) == 501
    assert cells[300, 7] == 2  # column, row
    assert cells[9, 9] == 40


def test_class_accuracy_is_sorted_and_leaves_out_classes_without_images():
    rows = per_class([0.5, 0.9, 0.7])
    rows.append({"wnid": "n3", "name": "empty", "images": 0, "correct": 0, "top1": None})
    axes = plots.class_accuracy(rows).axes[0]
    assert words(axes.get_yticklabels()) == ["class 0", "class 2", "class 1"]
    assert [bar.get_width() for bar in axes.patches] == [0.5, 0.7, 0.9]
    assert texts(axes) == ["50 of 100", "70 of 100", "90 of 100"]
    assert axes.lines[0].get_xdata()[0] == pytest.approx(0.7)


def test_class_accuracy_of_many_classes_shows_both_ends():
    axes = plots.class_accuracy(per_class(np.arange(100) / 100)).axes[0]
    shown = [round(100 * bar.get_width()) for bar in axes.patches]
    assert shown == [*range(10), *range(90, 100)]
    assert "80 classes between" in texts(axes)


def test_reliability_draws_the_bins_that_hold_images():
    rng = np.random.default_rng(0)
    found = calibration.calibrate(
        rng.integers(3, size=200), rng.normal(0, 2, (200, 3)).astype("float32")
    )
    figure = plots.reliability(found)
    (axes,) = figure.axes
    for dots, part in zip(axes.collections, ("before", "after"), strict=True):
        filled = [row for row in found[part]["bins"] if row["images"]]
        expected = [[row["confidence"], row["accuracy"]] for row in filled]
        np.testing.assert_allclose(dots.get_offsets(), expected)
        assert np.argmax(dots.get_sizes()) == np.argmax([row["images"] for row in filled])
    words = [text.get_text() for text in figure.legends[0].get_texts()]
    assert words[0] == f"as trained: error {found['before']['error']:.1%}"


def test_sizes_are_drawn_with_their_intervals():
    rows = [
        {"image_size": 96, "top1": {"value": 0.5, "low": 0.4, "high": 0.7}},
        {"image_size": 128, "top1": {"value": 0.6, "low": 0.5, "high": 0.8}},
    ]
    (axes,) = plots.accuracy_by_size(rows, training_size=112).axes
    np.testing.assert_array_equal(axes.lines[0].get_xydata(), [[96, 0.5], [128, 0.6]])
    bars = [path.vertices for path in axes.collections[0].get_paths()]
    np.testing.assert_allclose(bars, [[[96, 0.4], [96, 0.7]], [[128, 0.5], [128, 0.8]]])
    assert any(line.get_xdata() == pytest.approx([112, 112]) for line in axes.lines[1:])
