"""Arrays out of the files in which libraries keep weights, by name.

Nothing that a file could make run is run: a pickle may name tensors alone, and no layer is made.
"""

import io
import pickle

from kit.files import json_of
from kit.model import foreign_files, torch_files
from kit.model.sections import WEIGHT_FILES


def read(path):
    """Give {name: array} of a file of weights, kernels as [height, width, channels, filters].

    PyTorch's names are those of the state dict, Keras' are "layer/number". Raises
    FileNotFoundError, and ValueError for a file that is damaged or of another kind.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; take one of {', '.join(READERS)}")
    if path.suffix not in READERS:
        raise ValueError(f"{path}: weights are read of {', '.join(READERS)} alone")
    try:
        foreign_files.check_size(path)
        return READERS[path.suffix](path)
    except ModuleNotFoundError as error:
        raise ValueError(f"{path}: pip install {error.name} to read it") from None
    except UNREADABLE as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ValueError(f"{path}: no weights can be read of it ({reason})") from None


def read_torch(path):
    return {name: transposed(array) for name, array in torch_files.read_state(path).items()}


def read_safetensors(path):
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        return {name: transposed(array) for name, array in load_file(path).items()}
    except SafetensorError as error:
        raise OSError(error) from None


def transposed(array):
    """Turn PyTorch's order of axes into Keras'."""
    return array.transpose({4: (2, 3, 1, 0), 2: (1, 0)}.get(array.ndim))


def read_keras(path):
    with foreign_files.open_zip(path) as archive:
        return read_h5(io.BytesIO(archive.read("model.weights.h5")))


def read_h5(file):
    """Read the weights that Keras writes now, or wrote before version 3."""
    with foreign_files.open_h5(file) as h5:
        if "layer_names" in h5.attrs:
            layers = {name: h5[name] for name in h5.attrs["layer_names"]}
            return {
                f"{text(name)}/{number}": layer[variable][()]
                for name, layer in layers.items()
                for number, variable in enumerate(layer.attrs["weight_names"])
            }
        return {
            f"{text(layer['vars'].attrs['name'])}/{number}": array[()]
            for layer in h5["layers"].values()
            for number, array in layer["vars"].items()
        }


def text(name):
    return name.decode() if isinstance(name, bytes) else name


READERS = dict(zip(WEIGHT_FILES, (read_keras, read_h5, read_safetensors, read_torch), strict=True))
CONFIG = {"config": {"layers": [{"config": {"name": str}}]}}  # of a network, in config.json
UNREADABLE = (*foreign_files.UNREADABLE, pickle.UnpicklingError)


def saved_layers(path):
    """Give {name: configuration} of the layers in a .keras file, as plain values.

    Raises ValueError for another configuration than a network's.
    """
    with foreign_files.open_zip(path) as archive:
        config = foreign_files.read_config(archive)
    try:
        layers = json_of(config, CONFIG)["config"]["layers"]
    except ValueError as error:
        raise ValueError(f"{path}: its config.json is no network's ({error})") from None
    return {layer["config"]["name"]: layer["config"] for layer in layers}
