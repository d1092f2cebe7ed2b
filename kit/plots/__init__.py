"""Figures in one style: each function draws one and returns it, and `save` writes it to a file."""

# ruff: noqa: F401, I001

from kit.plots.evaluation import accuracy_by_size, class_accuracy, confusion, one_vs_rest
from kit.plots.evaluation import reliability
from kit.plots.images import confused_pairs, crops, image_grid, label_text, mistakes, overlay
from kit.plots.images import predictions, suspicious
from kit.plots.speed import batch_throughput, latency, supply_and_demand, waterfall
from kit.plots.style import DARK, DPI, GREY, INPUT, LIGHT, NETWORK, PALE, STYLE, TRAINING
from kit.plots.style import VALIDATION, new_figure, save
from kit.plots.training import class_balance, curves
