import numpy as np
import pytest
from matplotlib.colors import to_hex

from kit import plots
from kit.pipeline import demand

RATES = {
    "read": 40000.0,
    "parse": 15000.0,
    "decode": 1640.0,
    "resize": 1480.0,
    "input": 1420.0,
    "transfer": 45000.0,
    "synthetic": 2375.0,
    "real": 1390.0,
}
ROUNDS = {stage: [1.1 * rate, 0.7 * rate, rate] for stage, rate in RATES.items()}
ROWS = demand.demand(supply=1420, cores=2, bytes_per_image=110_000)
TIMES = {
    name: {stage: dict(zip(("p50", "p90", "p99"), row, strict=True)) for stage, row in rows.items()}
    for name, rows in {
        "slow": {"decode_resize": (2, 3, 4), "forward": (70, 80, 90), "total": (73, 82, 93)},
        "quick": {"decode_resize": (2, 3, 4), "forward": (6, 7, 8), "total": (8, 9, 12)},
    }.items()
}
MEASURED = {"device": "CPU, 2 cores", "image_size": 224, "runs": 200, "forms": TIMES}
BATCHES = {"quick": {1: 100.0, 8: 120.0}, "slow": {1: 10.0, 8: 30.0}, "as slow": {1: 9.0, 8: 30.0}}
FIGURES = {
    "latency": lambda: plots.latency(MEASURED),
    "throughput": lambda: plots.batch_throughput(BATCHES, "CPU"),
    "waterfall": lambda: plots.waterfall(ROUNDS, "input-bound: yes"),
    "supply_and_demand": lambda: plots.supply_and_demand(ROWS, supply=1420),
}


def words(axes):
    return [label.get_text() for label in axes.get_yticklabels()]


def ends(axes, colour):
    """Give where the bars of a colour end, from top to bottom."""
    bars = [bar for bar in axes.patches if to_hex(bar.get_facecolor()) == colour]
    return [bar.get_x() + bar.get_width() for bar in bars]


def test_waterfall_falls_from_stage_to_stage():
    (axes,) = FIGURES["waterfall"]().axes
    assert ends(axes, plots.INPUT) == pytest.approx([40000, 15000, 1640, 1480, 1420])
    assert ends(axes, plots.NETWORK) == pytest.approx([45000, 2375, 1390])
    pale = ends(axes, plots.PALE)  # what was there before each stage
    assert pale[1:5] == pytest.approx([40000, 15000, 1640, 1480])
    assert pale[7] == pytest.approx(2375)
    whiskers = [list(line.get_xdata()) for line in axes.lines if line.get_marker() == "|"]
    assert whiskers == [[0.7 * rate, 1.1 * rate] for rate in RATES.values()]
    assert axes.get_title(loc="left") == "input-bound: yes"


def test_supply_and_demand_fills_the_dots_that_are_fed():
    (axes,) = FIGURES["supply_and_demand"]().axes
    dots = [line for line in axes.lines if line.get_marker() == "o"]
    full = [dot.get_xdata()[0] for dot in dots if dot.get_markerfacecolor() == plots.DARK]
    assert len(dots) == len(ROWS)
    assert full == [row["images_per_second"] for row in ROWS if row["images_per_second"] <= 1420]
    assert words(axes)[0] == "V100 16 GB, float32"
    (supply,) = [line for line in axes.lines if line.get_color() == plots.INPUT]
    assert list(supply.get_xdata()) == [1420, 1420]


def test_latency_stacks_the_median_stages_of_the_fastest_form_first():
    axes = plots.latency(MEASURED).axes[0]
    assert words(axes) == ["quick", "slow"]
    bars = [(bar.get_x(), bar.get_width()) for bar in axes.patches]
    assert bars == [(0, 2), (0, 2), (2, 6), (2, 70)]
    texts = [text.get_text() for text in axes.texts]
    assert texts == ["p50", "8.0", "73.0", "p90", "9.0", "82.0", "p99", "12.0", "93.0"]
    assert "224 x 224 pixels" in axes.get_title(loc="left")


def test_recipes_latency_stands_beside_those_of_its_image_size_alone():
    (line,) = plots.latency(MEASURED).axes[0].lines
    assert line.get_xdata()[0] == 11  # milliseconds, published with the 2018 recipe
    assert not plots.latency(MEASURED | {"image_size": 64}).axes[0].lines


def test_throughput_names_each_curve_beside_the_others():
    axes = plots.batch_throughput(BATCHES, "CPU").axes[0]
    assert [list(line.get_ydata()) for line in axes.lines] == [[10, 30], [9, 30], [100, 120]]
    assert [text.get_text() for text in axes.texts] == ["slow", "as slow", "quick"]
    bottom, top = axes.get_ylim()
    assert {10, 20, 50, 100} <= {tick for tick in axes.get_yticks() if bottom <= tick <= top}
    heights = [np.log(text.xyann[1]) for text in axes.texts]
    assert min(np.diff(heights)) > 0.1
