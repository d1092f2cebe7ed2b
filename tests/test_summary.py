"""The table of stages beside numbers that are known, and beside what the network really gives."""

import keras
import numpy as np
import pytest

from kit.model import summary
from kit.training.step import training_model
from tests.networks import network


def rows(model, image_size):
    """Give {stage: (output, layers with a kernel, parameters, of them trainable)}."""
    lines = summary.by_stage(model, image_size).splitlines()
    assert lines[0].split() == ["output", "layers", "parameters", "trainable"]
    assert len({len(line) for line in lines}) == 1  # in columns
    found = {}
    for name, *output, layers, parameters, trainable in map(str.split, lines[1:-1]):
        found[name] = " ".join(output), int(layers), number(parameters), number(trainable)
    name, *totals = lines[-1].split()
    return found | {name: tuple(map(number, totals))}


def number(text):
    return int(text.replace(",", ""))


def test_the_stages_are_those_of_the_paper_with_torchvisions_parameters():
    """He et al. 2015, table 1; the parameters of torchvision's resnet50, module by module.

    Its 53 batch norms also keep a mean and a variance for each of their 26,560 channels.
    """
    assert rows(network(classes=1000), 224) == {
        "stem": ("56 x 56 x 64", 1, 9_536 + 2 * 64, 9_536),
        "stage1": ("56 x 56 x 256", 10, 215_808 + 2 * 1_408, 215_808),
        "stage2": ("28 x 28 x 512", 13, 1_219_584 + 2 * 3_584, 1_219_584),
        "stage3": ("14 x 14 x 1024", 19, 7_098_368 + 2 * 10_240, 7_098_368),
        "stage4": ("7 x 7 x 2048", 10, 14_964_736 + 2 * 11_264, 14_964_736),
        "logits": ("1000", 1, 2_049_000, 2_049_000),
        "all": (25_557_032 + 2 * 26_560, 25_557_032),
    }


def test_what_is_frozen_still_counts():
    found = rows(training_model(network(width=4), freeze="body"), 64)
    whole = rows(network(width=4), 64)
    head = found.pop("logits")
    assert head == whole.pop("logits") and head[2] == head[3] > 0
    assert found.pop("all") == (whole.pop("all")[0], head[3])
    assert found == {name: (*row[:3], 0) for name, row in whole.items()}


@pytest.mark.parametrize("changes", [{}, {"blur_pool": True}, {"resnet_version": "2"}])
@pytest.mark.parametrize("image_size", [33, 64, 75])
def test_the_sides_are_those_that_the_network_gives(changes, image_size):
    model = network(width=4, stage_sizes=(1, 1, 2, 1), **changes)
    last = {layer.name.split("_")[0]: layer for layer in model.layers if layer.name != "logits"}
    names = [name for name in last if name == "stem" or name.startswith("stage")]
    outputs = keras.Model(model.input, [last[name].output for name in names])
    images = np.zeros([1, image_size, image_size, 3], np.uint8)
    found = rows(model, image_size)
    for name, output in zip(names, outputs(images), strict=True):
        assert found[name][0] == " x ".join(map(str, output.shape[1:])), name
