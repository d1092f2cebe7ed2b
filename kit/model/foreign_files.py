"""Refuses files of weights that read other files, or unpack to more than they should.

What these functions raise is one of UNREADABLE.
"""

import contextlib
import io
import json
import math
import os
import zipfile
from pathlib import Path

import h5py

MAX_BYTES = 2**29  # of all numbers; ResNet-50 for 1,000 classes has 102 million in float32
MAX_OBJECTS = 100_000  # of an HDF5 file; Keras' has some 700
MAX_DIRECTORY_BYTES = 2**24  # of a zip's list of members: 300,000 at the most; PyTorch's have 600
MAX_CONFIG_BYTES = 2**22  # of config.json; Keras' has 0.2 million
MAX_CONFIG_OBJECTS = 5000  # layers, and what they are made of; 866 in Keras' ResNet-50

UNREADABLE = (
    *(OSError, ValueError, LookupError, AttributeError, RuntimeError, TypeError, EOFError),
    *(ArithmeticError, MemoryError, StopIteration, zipfile.BadZipFile),
)


def check_size(path) -> None:
    """Raise ValueError for a file of more than MAX_BYTES."""
    if os.stat(path).st_size > MAX_BYTES:  # noqa: PTH116 a text does too
        raise ValueError(f"a file of more than {MAX_BYTES:,} bytes")


def open_zip(file) -> zipfile.ZipFile:
    """Open a zip; ValueError when its members unpack to more than MAX_BYTES, or are many.

    Their names are told by the zip's end, before any is read: 6 microseconds each.
    """
    with contextlib.nullcontext(file) if hasattr(file, "read") else Path(file).open("rb") as opened:
        end = zipfile._EndRecData(opened)
    if end and end[zipfile._ECD_SIZE] > MAX_DIRECTORY_BYTES:
        raise ValueError(f"its list of members has more than {MAX_DIRECTORY_BYTES:,} bytes")
    archive = zipfile.ZipFile(file)
    if sum(member.file_size for member in archive.infolist()) > MAX_BYTES:
        raise ValueError(f"it unpacks to more than {MAX_BYTES:,} bytes")
    return archive


def read_config(archive: zipfile.ZipFile) -> bytes:
    """Read the config.json of a .keras file; ValueError when it is too large to be one."""
    if archive.getinfo("config.json").file_size > MAX_CONFIG_BYTES:
        raise ValueError(f"its config.json has more than {MAX_CONFIG_BYTES:,} bytes")
    return archive.read("config.json")


def check_keras(path) -> None:
    """Raise what `open_zip`, `read_config` and `open_h5` do of a .keras file.

    ValueError, too, for a model of more than MAX_CONFIG_OBJECTS, which take up to 20 ms each, and,
    before any memory is taken, for layers of more numbers than the file holds.
    """
    check_size(path)
    numbers = 0
    with open_zip(path) as archive:
        config = _config_of(read_config(archive))
        for name in archive.namelist():
            if name.endswith(".h5"):
                with open_h5(io.BytesIO(archive.read(name))) as h5:
                    numbers += _numbers_in(h5)
    asked = _numbers_of(config)
    if asked > numbers:
        raise ValueError(f"its layers have {asked:,} numbers, and the file holds {numbers:,}")


def _config_of(text: bytes):
    objects = []

    def count(found):
        objects.append("class_name" in found)
        if found.get("unroll"):
            raise ValueError("it has a layer that is unrolled, step by step")
        return found

    config = json.loads(text, object_hook=count)
    if sum(objects) > MAX_CONFIG_OBJECTS:
        raise ValueError(f"its model has more than {MAX_CONFIG_OBJECTS:,} layers and parts of them")
    return config


def _numbers_in(h5: h5py.File) -> int:
    found = []
    h5.visititems(lambda _, item: found.append(getattr(item, "size", 0) or 0))
    return sum(found)


def _numbers_of(config) -> int:
    """Count the numbers of a saved model, built in a graph that never runs: it takes no memory."""
    import keras
    import tensorflow as tf

    with tf.Graph().as_default():
        model = keras.saving.deserialize_keras_object(config | {"compile_config": None})
    return sum(math.prod(weight.shape) for weight in model.weights)  # no state of random seeds


def open_h5(file) -> h5py.File:
    """Open an HDF5 file whose data are all in it, and in memory have MAX_BYTES at the most.

    Raises ValueError, before any data are read, for links to other places or files, data in
    external files, virtual data, what are no numbers, and shapes that claim more.
    """
    h5 = h5py.File(file)
    left = [MAX_OBJECTS, MAX_BYTES]

    def problem(name, link):  # to raise in it would confuse h5py
        left[0] -= 1
        if not isinstance(link, h5py.HardLink):
            return f"{name[:200]} is a link to another place or file"
        found = h5.get(name)
        if isinstance(found, h5py.Dataset):
            if found.external or found.is_virtual:
                return f"{name[:200]} has its numbers in another file"
            if found.dtype.hasobject:  # many may refer to one place of any length
                return f"{name[:200]} holds texts, references or lists, not numbers"
            left[1] -= _bytes_of(found)
        if min(left) < 0:
            return f"it claims more than {MAX_BYTES:,} bytes or {MAX_OBJECTS:,} objects"
        return None

    if found := h5.visititems_links(problem):
        h5.close()
        raise ValueError(found)
    return h5


def _bytes_of(data: h5py.Dataset) -> int:
    """Give the bytes that reading takes: of all numbers, and at least of one whole chunk."""
    return max(math.prod(data.shape or (0,)), math.prod(data.chunks or (0,))) * data.dtype.itemsize


def check_onnx(path) -> None:
    """Raise ValueError for an ONNX file whose numbers are in another file."""
    import onnx

    check_size(path)
    messages = [onnx.load(path, load_external_data=False)]
    while messages:
        message = messages.pop()
        if isinstance(message, onnx.TensorProto) and (
            message.external_data or message.data_location == onnx.TensorProto.EXTERNAL
        ):
            raise ValueError(f"{message.name[:200]} has its numbers in another file")
        for field, value in message.ListFields():
            if field.message_type:
                messages += [value] if hasattr(value, "ListFields") else value
