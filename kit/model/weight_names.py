"""What each library calls the weights of a layer of the kit: the layer's name and their number."""

import re

PART = re.compile(r"stage(\d+)_block(\d+)_(\w+)")


def kit_name(layer, number):
    return f"{layer}/{number}"


def applications_name(layer, number):
    """Translate stage2_block1_norm2 to conv3_block1_2_bn; a shortcut's number is 0."""
    kind = "bn" if "norm" in layer else "conv"
    if layer == "logits":
        return f"predictions/{number}"
    if layer.startswith("stem"):
        return f"conv1_{kind}/{number}"
    stage, block, part = PART.fullmatch(layer).groups()
    digit = "0" if part.startswith("shortcut") else part[-1]
    return f"conv{int(stage) + 1}_block{block}_{digit}_{kind}/{number}"


def torchvision_name(layer, number):
    """Translate stage2_block1_norm2 to layer2.0.bn2; a shortcut is a downsample."""
    value = ("weight", "bias", "running_mean", "running_var")[number]
    if layer == "logits":
        return f"fc.{value}"
    if layer.startswith("stem"):
        return f"{'bn1' if 'norm' in layer else 'conv1'}.{value}"
    stage, block, part = PART.fullmatch(layer).groups()
    part = {"shortcut_conv": "downsample.0", "shortcut_norm": "downsample.1"}.get(part, part)
    return f"layer{stage}.{int(block) - 1}.{part.replace('norm', 'bn')}.{value}"
