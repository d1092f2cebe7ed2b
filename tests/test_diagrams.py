import numpy as np
import pytest

from kit import diagrams
from kit.evaluation import calibration


def test_reliability_draws_the_bins_that_hold_images():
    rng = np.random.default_rng(0)
    found = calibration.calibrate(
        rng.integers(3, size=200), rng.normal(0, 2, (200, 3)).astype("float32")
    )
    figure = diagrams.reliability(found)
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
    (axes,) = diagrams.sizes(rows, training_size=112).axes
    np.testing.assert_array_equal(axes.lines[0].get_xydata(), [[96, 0.5], [128, 0.6]])
    bars = [path.vertices for path in axes.collections[0].get_paths()]
    np.testing.assert_allclose(bars, [[[96, 0.4], [96, 0.7]], [[128, 0.5], [128, 0.8]]])
    assert any(line.get_xdata() == pytest.approx([112, 112]) for line in axes.lines[1:])
