import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.cbook import is_math_text
from matplotlib.colors import to_rgb
from matplotlib.text import Text
from PIL import Image

from kit import plots
from kit.plots import style
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


@pytest.mark.parametrize("name", FIGURES)
def test_figure_has_a_title(name):
    figure = FIGURES[name]()
    titles = [axes.get_title(loc) for axes in figure.axes for loc in ("left", "center")]
    assert figure.get_suptitle() or any(titles)


CURVES = [
    {"label": label, "roc": [0, 0.5, 1], "precision_recall": [1, 0.5, 0.25]}
    for label in (None, 3, 1, 0)
]
AREAS = {"roc_auc": 0.5, "average_precision": 0.5}
ODD_NAMES = ["Ba$$in", "US $5 to $10", "a [1]", "日本", "😀", "two\twords"]
ODD_NAMES += [
    r"$\frac{1}{",
    r"a\$b",
    "_under_",
    "line\nfeed",
    "[x",
    "❤️ 👩‍🚀",
    "العربية",
    "\x07\udcff",
    ",",
]
NUMBER = len(ODD_NAMES)
SUSPECT = {"position": 0, "label": 0, "probability": 0.1, "suggested": 6}
PAIR = {"label": 3, "prediction": 4, "images": 1, "of": 2, "positions": [1]}
ANSWER = [(name, 0.1) for name in ODD_NAMES]
ODD_ROWS = [
    row | {"name": name} for row, name in zip(per_class([0.5] * NUMBER), ODD_NAMES, strict=True)
]
OF_CLASSES = {
    "one_vs_rest": lambda: plots.one_vs_rest(CURVES, [row | AREAS for row in ODD_ROWS], AREAS),
    "suspicious": lambda: plots.suspicious(
        [SQUARE] * NUMBER,
        [SUSPECT | {"suggested": n, "suggested_probability": 0.9} for n in range(NUMBER)],
        ODD_NAMES,
    ),
    "confusion": lambda: plots.confusion(np.eye(NUMBER, dtype=int), ODD_NAMES),
    "class_balance": lambda: plots.class_balance({"train": range(NUMBER)}, ODD_NAMES),
    "class_accuracy": lambda: plots.class_accuracy(ODD_ROWS),
    "image_grid": lambda: plots.image_grid([SQUARE] * NUMBER, ODD_NAMES, title="".join(ODD_NAMES)),
    "mistakes": lambda: plots.mistakes(
        [SQUARE], [np.eye(20)], [{"label": 3, "prediction": 4, "probability": 0.9}], ODD_NAMES
    ),
    "confused_pairs": lambda: plots.confused_pairs([SQUARE], [PAIR], ODD_NAMES),
    "predictions": lambda: plots.predictions(
        [SQUARE], [[0, 0, 1, 1]], [SQUARE], [np.eye(20)], [ANSWER], truths=["日本"]
    ),
    "file names": lambda: plots.predictions(
        [SQUARE], [[0, 0, 1, 1]], [SQUARE], [np.eye(20)], [ANSWER], ["$日\udcff.jpg"]
    ),
}


@pytest.mark.parametrize("name", OF_CLASSES)
@pytest.mark.filterwarnings("error")
def test_class_names_of_any_script_are_drawn_without_a_warning(name, tmp_path):
    figure = OF_CLASSES[name]()
    plots.save(figure, tmp_path, "figure")
    assert not [text.get_text() for text in figure.findobj(Text) if is_math_text(text.get_text())]


def test_a_class_whose_name_begins_with_an_underscore_stands_in_the_legend():
    """matplotlib leaves such labels out."""
    rows = [row | AREAS | {"name": f"_{row['name']}"} for row in ODD_ROWS]
    (legend,) = plots.one_vs_rest(CURVES, rows, AREAS).legends
    assert len(legend.get_texts()) == len(CURVES)


def test_class_names_keep_what_a_font_can_draw():
    axes = OF_CLASSES["confusion"]().axes[0]
    shown = [label.get_text() for label in axes.get_yticklabels()]
    drawable = [0, 1, 2, 6, 7, 8, 10]  # by the font that ships with matplotlib
    drawn = [shown[number].replace(r"\$", "$") for number in drawable]  # as matplotlib does
    assert drawn == [ODD_NAMES[number] for number in drawable]
    assert shown[9] == "line feed"
    assert shown[4] == "😀"
    assert style.short("$" * 30).replace(r"\$", "$") == "$" * 17 + "…"
    assert style.drawable("x日\t\ny") in ("x日□\ny", "x□□\ny")  # has this machine the font?


def test_style_does_not_leak():
    before = plt.rcParams["font.size"]
    plots.class_balance({"train": [5, 6, 7]}, NAMES)
    assert plt.rcParams["font.size"] == before


def test_colours_survive_greyscale():
    weights = 0.299, 0.587, 0.114  # luma of Rec. 601, what a grey print keeps
    dark, light, pale = (np.dot(weights, to_rgb(c)) for c in (plots.DARK, plots.LIGHT, plots.PALE))
    assert light - dark > 0.3
    of_input, of_network = (np.dot(weights, to_rgb(c)) for c in (plots.INPUT, plots.NETWORK))
    assert of_input - of_network > 0.3
    assert pale - light > 0.1
