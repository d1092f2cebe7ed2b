"""The table of stages beside numbers that are known, and beside what the network really gives."""

import keras
import numpy as np
import pytest

from kit.model import summary
from tests.networks import network


def rows(model, image_size):
    """Give {stage: (output, layers with a kernel, parameters)}."""
    lines = summary.by_stage(model, image_size).splitlines()
    assert lines[0].split() == ["output", "layers", "parameters"]
    assert len({len(line) for line in lines}) == 1  # in columns
    found = {}
    for name, *output, layers, parameters in map(str.split, lines[1:-1]):
        found[name] = " ".join(output), int(layers), int(parameters.replace(",", ""))
    name, total = lines[-1].split()
    return found | {name: int(total.replace(",", ""))}


def test_the_stages_are_those_of_the_paper_with_torchvisions_parameters():
    """He et al. 2015, table 1; the parameters of torchvision's resnet50, module by module."""
    assert rows(network(classes=1000), 224) == {
        "stem": ("56 x 56 x 64", 1, 9_408 + 128),
        "stage1": ("56 x 56 x 256", 10, 215_808),
        "stage2": ("28 x 28 x 512", 13, 1_219_584),
        "stage3": ("14 x 14 x 1024", 19, 7_098_368),
        "stage4": ("7 x 7 x 2048", 10, 14_964_736),
        "logits": ("1000", 1, 2_049_000),
        "all": 25_557_032,
    }


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
