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
    features = _serialize(
        {
            "image/height": _ints(height),
            "image/width": _ints(width),
            "image/filename": _bytes(printable(Path(filename).name).encode()),
        }
    )
    # The image is spliced in as the last entry of the map: the library would copy it four times.
    image = _field(1, _field(1, [encoded]))  # Feature.bytes_list.value
    entry = _field(1, [*_field(1, [b"image/encoded"]), *_field(2, image)])
    shared = _describe_class(on_disk, wnid, name)
    found = _describe_boxes(tuple(boxes), on_disk if boxes else 0)
    return b"".join(_field(1, [features, shared, found, *entry]))


@functools.lru_cache(maxsize=2**10)
def _describe_class(on_disk: int, wnid: str, name: str) -> bytes:
    """Give the entries that all images of a class share; entries of a map may be concatenated."""
    return _serialize(
        {
            "image/colorspace": _bytes(b"RGB"),  # for grey sources too, as the converter wrote
            "image/channels": _ints(3),
            "image/class/label": _ints(on_disk),
            "image/class/synset": _bytes(printable(wnid).encode()),
            "image/class/text": _bytes(printable(name).encode()),
            "image/format": _bytes(b"JPEG"),
        }
    )


@functools.lru_cache(maxsize=16)  # most images have none
def _describe_boxes(boxes: tuple, on_disk: int) -> bytes:
    ymin, xmin, ymax, xmax = zip(*boxes, strict=True) if boxes else ((), (), (), ())
    return _serialize(
        {
            "image/object/bbox/xmin": _floats(xmin),
            "image/object/bbox/xmax": _floats(xmax),
            "image/object/bbox/ymin": _floats(ymin),
            "image/object/bbox/ymax": _floats(ymax),
            "image/object/bbox/label": _ints(*[on_disk] * len(boxes)),
        }
    )


def _field(number: int, pieces: list[bytes]) -> list[bytes]:
    """Give a length-delimited field of a protocol buffer, in pieces that need only be joined."""
    length = sum(map(len, pieces))
    head = [number << 3 | 2]
    while length > 0x7F:
        head.append(length & 0x7F | 0x80)
        length >>= 7
    return [bytes([*head, length]), *pieces]


def _serialize(feature: dict) -> bytes:
    return tf.train.Features(feature=feature).SerializeToString(deterministic=True)


def _bytes(value: bytes) -> tf.train.Feature:
    return tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))


def _floats(values) -> tf.train.Feature:
    return tf.train.Feature(float_list=tf.train.FloatList(value=values))


def _ints(*values: int) -> tf.train.Feature:
    return tf.train.Feature(int64_list=tf.train.Int64List(value=values))
