"""tf.train.Examples against a parser of the wire format written here."""

import struct

import numpy as np
import pytest
import tensorflow as tf

from kit.data.records import parse_example
from kit.prep.examples import encode_example

EXAMPLE = {
    "encoded": b"\xff\xd8 not parsed",
    "height": 30,
    "width": 40,
    "label": 6,
    "wnid": "n00000007",
    "name": "cock, Hähne",
    "filename": "n00000007_12.JPEG",
    "boxes": [(0.1, 0.2, 0.5, 0.75), (0.0, 0.0, 1.0, 1.0)],
}


def read_varint(data, at):
    value = shift = 0
    while True:
        value |= (data[at] & 0x7F) << shift
        shift += 7
        at += 1
        if data[at - 1] < 0x80:
            return value, at


def read_fields(data):
    """Yields (number, bytes) of a message whose fields are all length-delimited."""
    at = 0
    while at < len(data):
        key, at = read_varint(data, at)
        assert key & 7 == 2
        length, at = read_varint(data, at)
        yield key >> 3, data[at : at + length]
        at += length


def read_values(feature):
    """Returns (kind, values) of a Feature: bytes_list = 1, float_list = 2, int64_list = 3."""
    ((kind, body),) = read_fields(feature)
    if kind == 1:
        return "bytes", [value for _, value in read_fields(body)]
    packed = b"".join(value for _, value in read_fields(body))
    if kind == 2:
        return "float", list(struct.unpack(f"<{len(packed) // 4}f", packed))
    values, at = [], 0
    while at < len(packed):
        value, at = read_varint(packed, at)
        values.append(value)
    return "int", values


def wire(serialized):
    """Reads a tf.train.Example by the protocol buffers' wire format, without their library."""
    ((_, features),) = read_fields(serialized)
    entries = (dict(read_fields(entry)) for _, entry in read_fields(features))
    return {entry[1].decode(): read_values(entry[2]) for entry in entries}


def test_example_has_the_converters_15_keys():
    found = wire(encode_example(**EXAMPLE))
    for side, values in {
        "ymin": (0.1, 0),
        "xmin": (0.2, 0),
        "ymax": (0.5, 1),
        "xmax": (0.75, 1),
    }.items():
        kind, numbers = found.pop(f"image/object/bbox/{side}")
        assert kind == "float"
        np.testing.assert_array_equal(numbers, np.float32(values))
    assert found == {
        "image/height": ("int", [30]),
        "image/width": ("int", [40]),
        "image/colorspace": ("bytes", [b"RGB"]),
        "image/channels": ("int", [3]),
        "image/class/label": ("int", [7]),  # from 1 on disk
        "image/class/synset": ("bytes", [b"n00000007"]),
        "image/class/text": ("bytes", ["cock, Hähne".encode()]),
        "image/object/bbox/label": ("int", [7, 7]),
        "image/format": ("bytes", [b"JPEG"]),
        "image/filename": ("bytes", [b"n00000007_12.JPEG"]),
        "image/encoded": ("bytes", [b"\xff\xd8 not parsed"]),
    }


def test_example_without_boxes_keeps_their_keys_empty():
    found = wire(encode_example(**EXAMPLE | {"boxes": []}))
    assert len(found) == 15
    for key in ("xmin", "xmax", "ymin", "ymax"):
        assert found[f"image/object/bbox/{key}"] == ("float", [])
    assert found["image/object/bbox/label"] == ("int", [])


def test_file_name_that_is_not_text_becomes_utf8():
    example = encode_example(**EXAMPLE | {"filename": "/raw/caf\udce9\n.jpg"})
    assert wire(example)["image/filename"] == ("bytes", ["caf\ufffd\ufffd.jpg".encode()])


@pytest.mark.parametrize("boxes", [[], EXAMPLE["boxes"][:1], EXAMPLE["boxes"]])
@pytest.mark.parametrize("in_map", [False, True])
def test_parsed_example_is_the_encoded_one(boxes, in_map):
    serialized = encode_example(**EXAMPLE | {"boxes": boxes})
    if in_map:
        (found,) = tf.data.Dataset.from_tensors(serialized).map(parse_example)
    else:
        found = parse_example(serialized)
    assert found["encoded"].numpy() == EXAMPLE["encoded"]
    assert found["filename"].numpy() == b"n00000007_12.JPEG"
    assert found["label"].dtype == tf.int64
    assert found["label"].numpy() == 6
    assert found["boxes"].dtype == tf.float32
    expected = np.asarray(boxes, np.float32).reshape(-1, 4)
    np.testing.assert_array_equal(found["boxes"].numpy(), expected)


def test_example_of_others_without_boxes_or_name_is_read():
    feature = {
        "image/encoded": tf.train.Feature(bytes_list=tf.train.BytesList(value=[b"x"])),
        "image/class/label": tf.train.Feature(int64_list=tf.train.Int64List(value=[1000])),
    }
    example = tf.train.Example(features=tf.train.Features(feature=feature))
    found = parse_example(example.SerializeToString())
    assert found["label"].numpy() == 999
    assert found["boxes"].shape == (0, 4)
