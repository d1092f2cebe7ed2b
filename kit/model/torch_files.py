"""PyTorch's files of weights (.pth) as NumPy arrays, without PyTorch.

torch.save pickles the names and shapes of a state dict; its numbers stand beside the pickle, in
members of a zip, or after it in files of before PyTorch 1.6. The unpickler makes nothing but
tensors: a file that names any other class or function is refused.
"""

import io
import math
import pickle
import zipfile
from collections import OrderedDict
from typing import NamedTuple

import numpy as np

from kit.model.foreign_files import MAX_BYTES, open_zip

MAGIC = 0x1950A86A20F9469CFC6C  # torch/serialization.py: the first pickle of the older files
MAX_PICKLE_BYTES = 2**22  # of names and shapes; a ResNet-50's have 0.05 million
DTYPES = {
    "FloatStorage": "<f4",
    "DoubleStorage": "<f8",
    "HalfStorage": "<f2",
    "LongStorage": "<i8",
    "IntStorage": "<i4",
}


class Tensor(NamedTuple):
    """Where the numbers of a tensor stand: a storage's (dtype, key), and what part of it."""

    storage: tuple
    offset: int
    shape: tuple
    strides: tuple  # in numbers


def rebuild(storage, offset, shape, strides, *flags):
    return Tensor(storage, offset, tuple(shape), tuple(strides))


class Unpickler(pickle.Unpickler):
    """An unpickler of state dicts alone."""

    def find_class(self, module, name):
        if module == "torch" and name in DTYPES:
            return DTYPES[name]
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return rebuild
        raise pickle.UnpicklingError(f"it names {module}.{name}, which is no part of a state dict")

    def persistent_load(self, saved):
        _, dtype, key, *_ = saved
        return dtype, key


def read_state(path):
    """Return {name: array} of the state dict in a file, axes in PyTorch's order.

    Raises pickle.UnpicklingError for a file that holds anything else.
    """
    read = read_zip if zipfile.is_zipfile(path) else read_older
    with path.open("rb") as file:
        state, storages = read(file)
    wrong = [name for name, value in state.items() if not isinstance(value, Tensor)]
    if wrong:
        raise pickle.UnpicklingError(f"{wrong[0]} is no tensor: save the state dict alone")
    sizes = (math.prod(t.shape) * np.dtype(t.storage[0]).itemsize for t in state.values())
    if sum(sizes) > MAX_BYTES:  # a stride of 0 repeats one number
        raise pickle.UnpicklingError(f"its tensors claim more than {MAX_BYTES:,} bytes")
    return {name: array_of(tensor, storages(tensor.storage)) for name, tensor in state.items()}


def read_zip(file):
    """Return the state dict of tensors, and the function from a storage to its numbers."""
    archive = open_zip(file)
    folder = next(n for n in archive.namelist() if n.endswith("data.pkl")).removesuffix("data.pkl")
    if archive.getinfo(f"{folder}data.pkl").file_size > MAX_PICKLE_BYTES:
        raise pickle.UnpicklingError(f"its pickle has more than {MAX_PICKLE_BYTES:,} bytes")
    state = Unpickler(archive.open(f"{folder}data.pkl")).load()
    stored = {tensor.storage for tensor in state.values() if isinstance(tensor, Tensor)}
    numbers = {s: np.frombuffer(archive.read(f"{folder}data/{s[1]}"), s[0]) for s in stored}
    return state, numbers.get


def read_older(file):
    """Return the same of a file of before PyTorch 1.6: pickles, then each storage's numbers."""
    head = io.BytesIO(file.read(MAX_PICKLE_BYTES))
    if Unpickler(head).load() != MAGIC:
        raise pickle.UnpicklingError("it was not written by torch.save")
    _version, _system = Unpickler(head).load(), Unpickler(head).load()
    state, keys = Unpickler(head).load(), Unpickler(head).load()
    file.seek(head.tell())
    dtypes = {t.storage[1]: t.storage[0] for t in state.values() if isinstance(t, Tensor)}
    numbers = {}
    for key in keys:
        dtype = np.dtype(dtypes[key])
        count = int.from_bytes(file.read(8), "little")
        numbers[dtypes[key], key] = np.frombuffer(file.read(count * dtype.itemsize), dtype)
    return state, numbers.get


def array_of(tensor, numbers):
    """Return a tensor's array; ValueError unless it lies within its storage."""
    steps = [(size - 1) * step for size, step in zip(tensor.shape, tensor.strides, strict=True)]
    within = min(tensor.offset, *steps, 0) >= 0 and tensor.offset + sum(steps) < len(numbers)
    if not within and 0 not in tensor.shape:
        raise pickle.UnpicklingError("a tensor reaches beyond its numbers: the file is damaged")
    strides = [step * numbers.itemsize for step in tensor.strides]
    part = numbers[tensor.offset :]
    return np.lib.stride_tricks.as_strided(part, tensor.shape, strides).copy()
