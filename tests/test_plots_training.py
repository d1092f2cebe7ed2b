import numpy as np
import pytest

from kit import plots

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


def words(labels):
    return [label.get_text() for label in labels]


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


def test_each_epoch_has_its_last_step_above_it():
    figure = plots.curves(HISTORY, "loss", steps_per_epoch=5004)
    (steps,) = figure.axes[0].child_axes
    figure.draw_without_rendering()
    epochs = words(figure.axes[0].get_xticklabels())
    assert {"0", "2", "4"} <= set(epochs)
    assert words(steps.get_xticklabels()) == [f"{5004 * int(epoch):,}" for epoch in epochs]


def test_curves_say_why_validation_may_do_better():
    assert "augmented" in plots.curves(HISTORY, "accuracy").get_supxlabel()
    assert not plots.curves(HISTORY, "learning_rate").get_supxlabel()
    alone = {"top1": HISTORY["top1"], "top5": HISTORY["top5"]}
    assert not plots.curves(alone, "loss").get_supxlabel()


def test_unknown_quantity_is_refused():
    with pytest.raises(ValueError, match='quantity: "speed" is not one of loss, cross_entropy'):
        plots.curves(HISTORY, "speed")


def test_class_balance_draws_the_counts_of_each_split():
    figure = plots.class_balance({"train": [5, 6, 7], "validation": [1, 2, 1]}, NAMES)
    train, validation = figure.axes
    assert [bar.get_width() for bar in train.patches] == [5, 6, 7]
    assert [bar.get_width() for bar in validation.patches] == [1, 2, 1]
    assert train.get_title(loc="left") == "train: 18 images"
