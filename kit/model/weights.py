"""ResNet-50 weights of other libraries into the kit's network, and into torchvision's layout."""

from pathlib import Path
from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf

from kit.files import replacing
from kit.model.metadata import other_classes
from kit.model.resnet import resnet50
from kit.model.sections import CAFFE_MEANS, PYTORCH_MEANS
from kit.model.weight_files import read, saved_layers
from kit.model.weight_names import applications_name, kit_name, torchvision_name


class Source(NamedTuple):
    """Whose weights, for which version of the network, and for which pixels."""

    name: str
    network: str  # the model's name
    channel_means: tuple  # R, G, B, subtracted from pixels in [0, 255],
    deviations: tuple  # that are then divided by these
    epsilon: float  # of batch norm
    bgr: bool = False

    @property
    def scale(self):
        return np.mean(self.deviations)

    @property
    def ratios(self):
        return np.divide(self.deviations, self.scale)


# torchvision/transforms/_presets.py and timm/data/constants.py, times 255
TORCHVISION = Source(
    "torchvision or timm", "resnet50_v1_5", PYTORCH_MEANS, (58.395, 57.12, 57.375), 1e-5
)
# keras/src/applications/resnet.py and imagenet_utils.py, mode "caffe"
APPLICATIONS = Source(
    "keras.applications", "resnet50_v1", CAFFE_MEANS, (1, 1, 1), 1.001e-5, bgr=True
)


class Loaded(NamedTuple):
    """What `read_into` has read: whose weights, and why the last layer's are not, if so."""

    source: str
    anew: str

    def __str__(self):
        rest = f", but of the last layer, which starts anew: {self.anew}" * bool(self.anew)
        return f"weights of {self.source} are loaded{rest}"


def read_into(model, path, classes=None):
    """Put the weights in a file into the model, and say what they were.

    The file is of a ResNet-50 by torchvision or timm (.pth, .safetensors), keras.applications (.h5,
    .keras) or the kit (.keras, .weights.h5; the latter can't tell for which version and means). The
    model then gives the logits of that library after its own preprocessing. The last layer stays as
    it was when the file has none, one of another number of classes, or one of other names than
    `classes`, the data's, where a model.json beside a .keras file tells them.

    Raises FileNotFoundError, and ValueError for weights of another network, naming the first that
    does not fit, and for other channel_means. The model then is as it was.
    """
    weights, source = matched(model, Path(path))
    anew = "the file has none for so many classes"
    if ("logits", 0) in weights:
        anew = other_classes(Path(path), [name for _, name in classes or ()])
    if anew:
        weights = {key: value for key, value in weights.items() if key[0] != "logits"}
    put(model, weights, source)
    return Loaded(source.name, anew)


def check_fits(path, network):
    """Raise what `read_into` would of this file and the section `network`.

    The number of classes need not be that of the file. The network is built in a graph that is
    never run, so that no device is touched: how they are shared may still be undecided.
    """
    with tf.Graph().as_default():
        model = resnet50(network, classes=1)
    matched(model, Path(path))


def matched(model, path):
    """Give what of a file goes into the model, {(layer, number): array}, and the Source of it.

    Raises as `read_into` does.
    """
    arrays = read(path)
    try:
        source, arrays, name_of = recognised(model, arrays, path)
        return fitting(model, arrays, name_of), source
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def put(model, weights, source):
    """Put {(layer, number): array} for the source's pixels and epsilon into the model."""
    weights = prepared(
        weights,
        scale=source.scale,
        ratios=source.ratios,
        bgr=source.bgr,
        epsilons=(source.epsilon, epsilon_of(model)),
    )
    ours = variables(model)
    for key, value in weights.items():
        ours[key].assign(value.astype("float32"))


def write_torchvision(model, path):
    """Write the model's weights as torchvision's and timm's ResNet-50 load them.

    After torchvision's preprocessing that network then gives the model's logits. `path` ends in
    .pth, which takes PyTorch, or in .safetensors. Raises ValueError where torchvision has no such
    network, and for other channel_means.
    """
    path = Path(path)
    if path.suffix not in (".pth", ".safetensors"):
        raise ValueError(f"{path}: its name must end in .pth or in .safetensors")
    check_network(model, TORCHVISION)
    arrays = to_torchvision(model, TORCHVISION)
    with replacing(path) as temporary:
        if path.suffix == ".pth":
            import torch

            torch.save({name: torch.from_numpy(array) for name, array in arrays.items()}, temporary)
        else:
            from safetensors.numpy import save_file

            save_file(arrays, temporary)


def to_torchvision(model, source):
    """Give the state dict {name: array} of torchvision's network for the source's pixels."""
    weights = prepared(
        {key: variable.numpy() for key, variable in variables(model).items()},
        scale=1 / source.scale,
        ratios=1 / source.ratios,
        bgr=source.bgr,
        epsilons=(epsilon_of(model), source.epsilon),
    )
    arrays = in_torchvision_layout(weights)
    norms = [name.removesuffix("running_var") for name in arrays if name.endswith("running_var")]
    return arrays | {f"{norm}num_batches_tracked": np.array(0) for norm in norms}


def in_torchvision_layout(values):
    """Give {name: array} of {(layer, number): array}, kernels as PyTorch orders their axes."""
    axes = {4: (3, 2, 0, 1), 2: (1, 0)}
    return {
        torchvision_name(*key): np.ascontiguousarray(value.transpose(axes.get(value.ndim)), "f4")
        for key, value in values.items()
    }


def variables(model):
    """Give {(layer, number): variable} of the network's weights."""
    return {
        (layer.name, number): variable
        for layer in model.layers
        for number, variable in enumerate(layer.weights)
    }


def recognised(model, arrays, path):
    """Tell the source of the arrays, and which function names its arrays; mend what is its own.

    Raises ValueError unless the model is the source's network.
    """
    if "stem_conv/0" in arrays:
        return kits_own(model, path), arrays, kit_name
    if "conv1_conv/0" in arrays:
        check_network(model, APPLICATIONS)
        return APPLICATIONS, without_biases(arrays), applications_name
    check_network(model, TORCHVISION)
    return TORCHVISION, arrays, torchvision_name


def kits_own(model, path):
    """Describe the network in a .keras file of the kit, or the model where the file can't tell."""
    ours = {layer.name for layer in model.layers}
    means, epsilon = channel_means(model), epsilon_of(model)
    if path.suffix == ".keras":
        layers = saved_layers(path)
        for name in sorted(ours ^ set(layers)):
            if not name.endswith("_drop"):
                whose = "this network" if name in ours else "the file"
                raise ValueError(f"{name} is in {whose} alone: weights of another network")
        means = tuple(-offset for offset in layers["subtract_means"]["offset"])
        epsilon = next(c["epsilon"] for c in layers.values() if "epsilon" in c)
    source = Source("the kit", model.name, means, (1, 1, 1), epsilon)
    check_network(model, source)
    return source


def check_network(model, source):
    """Raise ValueError unless the model is the source's network, and subtracts its means."""
    if model.name != source.network:
        version = source.network.removeprefix("resnet50_v").replace("_", ".")
        raise ValueError(
            f'{source.name} has ResNet-50 in version "{version}": set resnet_version to that'
        )
    if source.name != "the kit" and any("_blur" in layer.name for layer in model.layers):
        raise ValueError(f"{source.name} has no blur_pool: set it to false")
    if not np.allclose(channel_means(model), source.channel_means, rtol=0, atol=1e-3):
        raise ValueError(
            f"channel_means: {list(channel_means(model))} are not those of {source.name}: "
            f"set them to {list(source.channel_means)}"
        )


def channel_means(model):
    return tuple(-offset for offset in model.get_layer("subtract_means").offset)


def epsilon_of(model):
    norms = keras.layers.BatchNormalization
    return next(layer.epsilon for layer in model.layers if isinstance(layer, norms))


def fitting(model, arrays, name_of):
    """Give {(layer, number): array} for the model; raise ValueError for the first that is amiss.

    A last layer of another number of classes is left out, and so is one that is not there.
    """
    wanted = {name_of(*key): key for key in variables(model)}
    shapes = {key: tuple(variable.shape) for key, variable in variables(model).items()}
    for name in arrays:
        if name not in wanted and not name.endswith("num_batches_tracked"):
            raise ValueError(f"{name} has no place in this network: weights of another one")
    head = [name for name, (layer, _) in wanted.items() if layer == "logits"]
    if any(n not in arrays or arrays[n].shape[-1] != shapes[wanted[n]][-1] for n in head):
        wanted = {name: key for name, key in wanted.items() if name not in head}
    for name, key in wanted.items():
        if name not in arrays:
            raise ValueError(f"{name} is missing: weights of another network")
        if arrays[name].shape != shapes[key]:
            raise ValueError(
                f"{name} is {arrays[name].shape}, not {shapes[key]}: weights of another network"
            )
    return {key: arrays[name] for name, key in wanted.items()}


def prepared(weights, *, scale, ratios, bgr, epsilons):
    """Give the weights for pixels that are `scale` times `ratios` as large, in each channel.

    The stem's kernel takes the ratios, and the channels' order; its batch norm takes the scale, so
    that the kernel's norm stays, for that decides how fast it learns. `epsilons` are the batch
    norms' before and after.
    """
    changed = dict(weights)
    kernel = weights["stem_conv", 0]
    changed["stem_conv", 0] = (kernel[:, :, ::-1] if bgr else kernel) / ratios[:, None]
    for (layer, number), value in weights.items():
        factor = scale if layer == "stem_norm" else 1
        if number == 2:  # the moving mean
            changed[layer, 2] = value * factor
        if number == 3:  # the moving variance
            variance = value.astype("float64") + epsilons[0]
            changed[layer, 3] = variance * factor**2 - epsilons[1]
    return changed


def without_biases(arrays):
    """Let each batch norm's moving mean take the bias of the convolution before it."""
    left = dict(arrays)
    for name, bias in arrays.items():
        mean = name.replace("_conv/1", "_bn/2")
        if name != mean and mean in arrays and arrays[mean].shape == bias.shape:
            left[mean] = left[mean] - left.pop(name)
    return left
