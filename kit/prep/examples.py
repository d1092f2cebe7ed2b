"""Serializes tf.train.Example records as the Inception converter wrote them."""

import functools
from pathlib import Path

import tensorflow as tf

from kit.data.paths import printable
from kit.data.records import LABEL_OFFSET


def encode_example(*, encoded, height, width, label, wnid, name, filename, boxes) -> bytes:
    """Give a serialized tf.train.Example with the Inception converter's 15 keys.

    encoded: a JPEG; label: from 0; boxes: (ymin, xmin, ymax, xmax) in [0, 1].
    Source: tensorflow/models, research/inception/inception/data/build_imagenet_data.py.
    """
    on_disk = label + LABEL_OFFSET
    file = printable(Path(filename).name).encode()
    own = _serialize(
        int64={"image/height": [height], "image/width": [width]}, bytes={"image/filename": [file]}
    )
    # The image is spliced in as the last entry of the map: the library would copy it four times.
    image = _field(1, _field(1, [encoded]))  # Feature.bytes_list.value
    entry = _field(1, [*_field(1, [b"image/encoded"]), *_field(2, image)])
    shared = _describe_class(on_disk, wnid, name)
    found = _describe_boxes(tuple(boxes), on_disk if boxes else 0)
    return b"".join(_field(1, [own, shared, found, *entry]))


@functools.lru_cache(maxsize=2**10)
def _describe_class(on_disk: int, wnid: str, name: str) -> bytes:
    """Give the entries that all images of a class share; entries of a map may be concatenated."""
    return _serialize(
        bytes={
            "image/colorspace": [b"RGB"],  # for grey sources too, as the converter wrote
            "image/class/synset": [printable(wnid).encode()],
            "image/class/text": [printable(name).encode()],
            "image/format": [b"JPEG"],
        },
        int64={"image/channels": [3], "image/class/label": [on_disk]},
    )


@functools.lru_cache(maxsize=16)  # most images have none
def _describe_boxes(boxes: tuple, on_disk: int) -> bytes:
    sides = zip(*boxes, strict=True) if boxes else [()] * 4
    keys = (f"image/object/bbox/{side}" for side in ("ymin", "xmin", "ymax", "xmax"))
    return _serialize(
        float=dict(zip(keys, sides, strict=True)),
        int64={"image/object/bbox/label": [on_disk] * len(boxes)},
    )


def _field(number: int, pieces: list[bytes]) -> list[bytes]:
    """Give a length-delimited field of a protocol buffer, in pieces that need only be joined."""
    length = sum(map(len, pieces))
    head = [number << 3 | 2]
    while length > 0x7F:
        head.append(length & 0x7F | 0x80)
        length >>= 7
    return [bytes([*head, length]), *pieces]


def _serialize(**lists: dict) -> bytes:
    """Serialize features by kind of value: {"bytes" or "float" or "int64": {key: values}}."""
    feature = {
        key: tf.train.Feature(**{f"{kind}_list": {"value": values}})
        for kind, entries in lists.items()
        for key, values in entries.items()
    }
    return tf.train.Features(feature=feature).SerializeToString(deterministic=True)
