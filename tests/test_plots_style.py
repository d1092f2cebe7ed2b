import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.colors import to_rgb
from PIL import Image

from kit import plots
from tests import test_plots_speed
from tests.test_plots_evaluation import NAMES, per_class
from tests.test_plots_images import SQUARE
from tests.test_plots_training import HISTORY

FIGURES = {
    "curves": lambda: plots.curves(HISTORY, "accuracy", steps_per_epoch=100),
    "image_grid": lambda: plots.image_grid([SQUARE] * 3, ["a", "b", "c"], columns=2),
    "crops": lambda: plots.crops(SQUARE, [[0, 0, 1, 1]], boxes=[[0.2, 0.2, 0.5, 0.5]]),
    "mistakes": lambda: plots.mistakes(
        [SQUARE],
        [np.eye(len(SQUARE))],
        [{"label": 0, "prediction": 1, "probability": 0.9}],
        NAMES,
    ),
    "confusion": lambda: plots.confusion(np.eye(3, dtype=int), NAMES),
    "large confusion": lambda: plots.confusion(np.eye(100, dtype=int), ["class"] * 100),
    "class_accuracy": lambda: plots.class_accuracy(per_class([0.5, 1])),
    "class_balance": lambda: plots.class_balance({"train": [5, 6, 7]}, NAMES),
    "top_k": lambda: plots.predictions(
        [SQUARE], [[0, 0, 1, 1]], [SQUARE], [np.eye(len(SQUARE))], [[("cat", 0.9), ("dog", 0.1)]]
    ),
}
FIGURES |= test_plots_speed.FIGURES


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
