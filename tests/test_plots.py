import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.colors import to_rgb
from PIL import Image

from kit import pictures, plots

EPOCHS = 4
HISTORY = {
    key: list(np.linspace(0.1 * i, 0.9, EPOCHS))
    for i, key in enumerate(
        f"{prefix}{name}"
        for prefix in ("", "val_")
        for name in ("loss", "cross_entropy", "l2_loss", "top1", "top5")
    )
} | {"learning_rate": [0.1, 0.1, 0.01, 0.01], "images_per_second": [9.0, 10, 11, 10]}
NAMES = ["cat, house cat", "dog", "horse"]
SQUARE = np.zeros([20, 20, 3], "uint8")


def texts(axes):
    return [text.get_text() for text in axes.texts]


def words(labels):
    return [label.get_text() for label in labels]


def per_class(accuracies):
    return [
        {"wnid": f"n{i}", "name": f"class {i}", "images": 100, "correct": round(100 * a), "top1": a}
        for i, a in enumerate(accuracies)
    ]


FIGURES = {
    "curves": lambda: plots.curves(HISTORY, "accuracy", steps_per_epoch=100),
    "image_grid": lambda: pictures.image_grid([SQUARE] * 3, ["a", "b", "c"], columns=2),
    "crops": lambda: pictures.crops(SQUARE, [[0, 0, 1, 1]], boxes=[[0.2, 0.2, 0.5, 0.5]]),
    "mistakes": lambda: pictures.mistakes(
        [SQUARE],
        [np.eye(len(SQUARE))],
        [{"label": 0, "prediction": 1, "probability": 0.9}],
        NAMES,
    ),
    "confusion": lambda: plots.confusion(np.eye(3, dtype=int), NAMES),
    "large confusion": lambda: plots.confusion(np.eye(100, dtype=int), ["class"] * 100),
    "class_accuracy": lambda: plots.class_accuracy(per_class([0.5, 1])),
    "class_balance": lambda: plots.class_balance({"train": [5, 6, 7]}, NAMES),
    "top_k": lambda: pictures.top_k(
        [SQUARE], [[0, 0, 1, 1]], [SQUARE], [np.eye(len(SQUARE))], [[("cat", 0.9), ("dog", 0.1)]]
    ),
}


@pytest.mark.parametrize("name", FIGURES)
def test_figure_is_drawn_once_and_kept(name, tmp_path):
    figure = FIGURES[name]()
    assert plt.get_fignums() == []  # pyplot would show an open one after the cell, a second time
    path = plots.save(figure, tmp_path, "figure")
    assert path == tmp_path / "figures" / "figure.png"
    assert list(path.parent.iterdir()) == [path]
    pixels = np.asarray(Image.open(path).convert("L"))
    assert pixels.shape[1] == round(figure.get_figwidth() * plots.DPI)
    assert pixels.std() > 1


def test_style_does_not_leak():
    before = plt.rcParams["font.size"]
    plots.class_balance({"train": [5, 6, 7]}, NAMES)
    assert plt.rcParams["font.size"] == before


def test_colours_survive_greyscale():
    weights = 0.299, 0.587, 0.114  # luma of Rec. 601, what a grey print keeps
    dark, light, pale = (np.dot(weights, to_rgb(c)) for c in (plots.DARK, plots.LIGHT, plots.PALE))
    assert light - dark > 0.3
    assert pale - light > 0.1


@pytest.mark.parametrize("quantity", ["loss", "cross_entropy", "l2_loss"])
def test_curves_draw_training_and_validation(quantity):
    figure = plots.curves(HISTORY, quantity)
    training, validation = figure.axes[0].lines
    np.testing.assert_array_equal(training.get_xdata(), [1, 2, 3, 4])
    np.testing.assert_array_equal(training.get_ydata(), HISTORY[quantity])
    np.testing.assert_array_equal(validation.get_ydata(), HISTORY[f"val_{quantity}"])
    assert words(figure.legends[0].get_texts()) == ["training", "validation"]


def test_accuracy_curves_draw_top1_and_top5_of_both_splits():
    lines = {line.get_label(): line for line in plots.curves(HISTORY, "accuracy").axes[0].lines}
    for label, column in (
        ("top-1, training", "top1"),
        ("top-5, training", "top5"),
        ("top-1, validation", "val_top1"),
        ("top-5, validation", "val_top5"),
    ):
        np.testing.assert_array_equal(lines.pop(label).get_ydata(), HISTORY[column])
    assert not lines


def test_curves_read_rows_of_text_and_leave_gaps():
    rows = [{"loss": "3.5", "val_loss": ""}, {"loss": "2.5", "val_loss": "4.0"}]
    training, validation = plots.curves(rows, "loss").axes[0].lines
    np.testing.assert_array_equal(training.get_ydata(), [3.5, 2.5])
    np.testing.assert_array_equal(validation.get_ydata(), [np.nan, 4.0])


def test_quantity_of_one_split_is_one_line_without_legend():
    figure = plots.curves(HISTORY, "learning_rate")
    assert len(figure.axes[0].lines) == 1
    assert figure.legends == []


def test_second_axis_counts_steps():
    figure = plots.curves(HISTORY, "loss", steps_per_epoch=5000)
    (steps,) = figure.axes[0].child_axes
    figure.draw_without_rendering()
    np.testing.assert_allclose(steps.get_xlim(), np.multiply(figure.axes[0].get_xlim(), 5000))


def test_unknown_quantity_is_refused():
    with pytest.raises(ValueError, match='quantity: "speed" is not one of loss, cross_entropy'):
        plots.curves(HISTORY, "speed")


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


def test_class_balance_draws_the_counts_of_each_split():
    figure = plots.class_balance({"train": [5, 6, 7], "validation": [1, 2, 1]}, NAMES)
    train, validation = figure.axes
    assert [bar.get_width() for bar in train.patches] == [5, 6, 7]
    assert [bar.get_width() for bar in validation.patches] == [1, 2, 1]
    assert train.get_title() == "train: 18 images"
