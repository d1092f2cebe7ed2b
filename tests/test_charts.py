import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.colors import to_hex
from PIL import Image

from kit import charts, plots
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
ROWS = demand.demand(supply=1420, cores=2, bytes_per_image=110_000)
DECODING = {"original": 1500, "stored": 1900, "scaled": 1540}
REMEDIES = demand.remedies(supply=1420, decoding=DECODING)
KNEE = demand.knee(supply=1000, batch_size=32, step_seconds=0.128, consumers=8)
FIGURES = {
    "waterfall": lambda: charts.waterfall(RATES, "input-bound: yes"),
    "supply_and_demand": lambda: charts.supply_and_demand(ROWS, supply=1420, remedies=REMEDIES),
    "knee": lambda: charts.knee(KNEE, "", supply=1000, of="consumers", measured=[(1, 240)]),
}


@pytest.mark.parametrize("name", FIGURES)
def test_figure_is_drawn_once_and_kept(name, tmp_path):
    figure = FIGURES[name]()
    assert plt.get_fignums() == []
    pixels = np.asarray(Image.open(plots.save(figure, tmp_path, name)).convert("L"))
    assert pixels.std() > 1


def words(axes):
    return [label.get_text() for label in axes.get_yticklabels()]


def ends(axes, colour):
    """Give where the bars of a colour end, from top to bottom."""
    bars = [bar for bar in axes.patches if to_hex(bar.get_facecolor()) == colour]
    return [bar.get_x() + bar.get_width() for bar in bars]


def test_waterfall_falls_from_stage_to_stage():
    (axes,) = FIGURES["waterfall"]().axes
    assert ends(axes, plots.LIGHT) == pytest.approx([40000, 15000, 1640, 1480, 1420])
    assert ends(axes, plots.DARK) == pytest.approx([45000, 2375, 1390])
    pale = ends(axes, plots.PALE)  # what was there before each stage
    assert pale[1:5] == pytest.approx([40000, 15000, 1640, 1480])
    assert pale[7] == pytest.approx(2375)
    assert axes.get_title(loc="left") == "input-bound: yes"


def test_supply_and_demand_fills_the_dots_that_are_fed():
    (axes,) = FIGURES["supply_and_demand"]().axes
    dots = [line for line in axes.lines if line.get_marker() == "o"]
    full = [dot.get_xdata()[0] for dot in dots if dot.get_markerfacecolor() == plots.DARK]
    assert len(dots) == len(ROWS)
    assert full == [row["images_per_second"] for row in ROWS if row["images_per_second"] <= 1420]
    assert words(axes)[0] == "V100 16 GB, float32"
    assert words(axes)[-1] == "scaled decode (measured)"
    assert ends(axes, plots.LIGHT) == [row["images_per_second"] for row in REMEDIES[2:]]


def test_knee_shows_the_simulation_and_the_real_run():
    lines = {line.get_label(): line for line in FIGURES["knee"]().axes[0].lines}
    np.testing.assert_allclose(
        lines["what they get, simulated"].get_ydata(), [250, 500, 750] + [1000] * 5
    )
    np.testing.assert_allclose(lines["what they could take"].get_ydata(), 250 * np.arange(1, 9))
    np.testing.assert_allclose(lines["what they get, measured"].get_xydata(), [[1, 240]])
