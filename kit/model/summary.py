"""The network by stages, in a few lines where Keras' summary has two hundred."""

import math


def by_stage(model, image_size):
    """Give lines of text: each stage, the shape that it gives for such images, its parameters.

    They are all weights, batch norm's moving statistics included, and those that training changes.
    """
    stages = {}
    for layer in model.layers:
        stages.setdefault(layer.name.split("_")[0], []).append(layer)
    lines = [f"{'':16}{'output':>16}{'layers':>9}{'parameters':>13}{'trainable':>13}"]
    side = image_size
    for name, layers in stages.items():
        with_kernel = [layer for layer in layers if hasattr(layer, "kernel")]
        if not with_kernel:
            continue
        for layer in with_kernel:  # padded by half the kernel, whether by a layer or by "same"
            if "shortcut" not in layer.name and hasattr(layer, "strides"):
                side = -(-side // layer.strides[0])
        if name == "stem":
            side = -(-side // 2)  # the max-pool
        channels = layers[-1].output.shape[-1]
        shape = f"{side} x {side} x {channels}" if len(layers[-1].output.shape) == 4 else channels
        lines.append(f"{name:16}{shape:>16}{len(with_kernel):>9}{_counts(layers)}")
    return "\n".join([*lines, f"{'all':16}{'':16}{'':9}{_counts(model.layers)}"])


def _counts(layers):
    kinds = ("weights", "trainable_weights")
    weights = [[w for layer in layers for w in getattr(layer, kind)] for kind in kinds]
    return "".join(f"{sum(math.prod(w.shape) for w in found):>13,}" for found in weights)
