"""The same ResNet-50 in the kit and in PyTorch: torchvision's, with the same values."""

import keras
import numpy as np

from kit.model import weights
from tests import networks, pytorch

NETWORK = {
    "classes": 10,
    "channel_means": [123.5, 116.75, 104.0],  # which no precision rounds
    "batch_norm_momentum": 0.9,  # PyTorch's 0.1 is 1 less this
}


def kit_network(version, *, stage_sizes=(3, 4, 6, 3), weight_decay=0.0):
    """Give the kit's network with random scales and shifts, and the statistics of some noise."""
    keras.utils.set_random_seed(0)
    changes = {"stage_sizes": stage_sizes, "weight_decay": weight_decay}
    network = networks.network(resnet_version=version, **NETWORK | changes)
    rng = np.random.default_rng(0)
    for weight in network.trainable_weights:
        if "norm" in weight.path:
            weight.assign(rng.normal(1 if weight.path.endswith("gamma") else 0, 0.2, weight.shape))
    norms = [layer for layer in network.layers if hasattr(layer, "momentum")]
    for norm in norms:
        norm.momentum = 0.0  # so that one batch's statistics take the old ones' place
    network(rng.integers(0, 256, (8, 64, 64, 3)).astype("uint8"), training=True)
    for norm in norms:
        norm.momentum = NETWORK["batch_norm_momentum"]
    return network


def in_double(network):
    """Copy a network of the kit in float64, which is then Keras' default, too.

    The rounding of float32 grows to some per cent of a gradient on its way through fifty batch
    norms of a few images, in PyTorch as in Keras, and would drown what is compared.
    """

    keras.config.set_floatx("float64")

    def double(layer):
        return type(layer).from_config(layer.get_config() | {"dtype": "float64"})

    copy = keras.models.clone_model(network, clone_function=double)
    copy.set_weights(network.get_weights())
    return copy


def torch_network(network):
    """Give torchvision's network with the values and in the version of the kit's."""
    import torch

    resnet = pytorch.torchvision().models.resnet
    blocks = [layer.name.split("_")[0] for layer in network.layers if layer.name.endswith("_add")]
    sizes = [blocks.count(f"stage{stage}") for stage in (1, 2, 3, 4)]
    theirs = resnet.ResNet(resnet.Bottleneck, sizes, num_classes=NETWORK["classes"])
    if network.name == "resnet50_v1":  # torchvision's is 1.5; a stride alone stands elsewhere
        for stage in (theirs.layer2, theirs.layer3, theirs.layer4):
            stage[0].conv1.stride, stage[0].conv2.stride = (2, 2), (1, 1)
    arrays = weights.to_torchvision(network, source(network))
    theirs.load_state_dict({name: torch.from_numpy(array) for name, array in arrays.items()})
    return theirs


def source(network):
    """Give the preprocessing of the kit itself: less the means, and not scaled."""
    return weights.Source("PyTorch", network.name, NETWORK["channel_means"], (1, 1, 1), 1e-5)


def torch_pixels(images, dtype):
    """Give uint8 [batch, height, width, 3] as [batch, 3, height, width], less the means."""
    import torch

    means = torch.tensor(NETWORK["channel_means"], dtype=dtype).view(3, 1, 1)
    return torch.tensor(images).permute(0, 3, 1, 2).to(dtype) - means


def torch_optimizer(network, kind, *, weight_decay, **settings):
    """Give an optimizer of the parameters whose decay falls on kernels alone."""
    parameters = list(network.parameters())
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.ndim == 1], "weight_decay": 0.0},
    ]
    return kind(groups, **settings)


def torch_steps(network, optimizer, batches, rates):
    """Train on each batch at its rate; give the cross-entropies."""
    import torch

    losses = []
    dtype = network.fc.weight.dtype
    network.train()
    for (images, labels), rate in zip(batches, rates, strict=True):
        for group in optimizer.param_groups:
            group["lr"] = rate
        logits = network(torch_pixels(images, dtype))
        loss = torch.nn.functional.cross_entropy(logits, torch.tensor(labels))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return np.array(losses)


def tensorflow_sgd(parameters, *, momentum, weight_decay):
    """Give TensorFlow's SGD: its velocity holds the rate, and PyTorch's does not.

    They differ once the rate changes.
    """
    import torch

    class SGD(torch.optim.Optimizer):
        @torch.no_grad()
        def step(self):
            for group in self.param_groups:
                for value in group["params"]:
                    velocity = self.state[value].setdefault("velocity", torch.zeros_like(value))
                    decay = weight_decay * value if value.ndim > 1 else 0
                    velocity.mul_(momentum).sub_(group["lr"] * (value.grad + decay))
                    value.add_(velocity)

    return SGD(parameters, {"lr": 0.0})
