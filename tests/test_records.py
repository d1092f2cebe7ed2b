"""Headers, mended images, and Examples against a parser of the wire format written here."""

import io
import struct

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from kit.data import records
from tests.images import jpeg, picture, png

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


def pixels(data):
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).astype(int)


def saved(image, kind, **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def start_of_frame(data):
    """Returns the offset of a baseline JPEG's height: two bytes, the width's two follow."""
    return data.index(b"\xff\xc0") + 5


# Header


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (jpeg(30, 40), ("JPEG", 30, 40, 3)),
        (jpeg(30, 40, mode="L"), ("JPEG", 30, 40, 1)),
        (jpeg(30, 40, mode="CMYK"), ("JPEG", 30, 40, 4)),
        (png(31, 17), ("PNG", 31, 17, 3)),
        (png(31, 17, mode="RGBA"), ("PNG", 31, 17, 4)),
        (saved(picture(9, 7), "GIF"), ("GIF", 9, 7, 1)),
        (saved(picture(9, 7), "BMP"), ("BMP", 9, 7, 3)),
        (
            saved(picture(9, 7), "MPO", save_all=True, append_images=[picture(9, 7, 1)]),
            ("JPEG", 9, 7, 3),
        ),
    ],
)
def test_header_tells_format_and_size(data, expected):
    assert records.read_header(data) == expected


def test_header_needs_no_pixels():
    data = jpeg(30, 40)
    scan = data.index(b"\xff\xda")
    assert records.read_header(data[: scan + 14]) == ("JPEG", 30, 40, 3)


def test_huge_claim_is_refused_before_any_decode():
    data = bytearray(jpeg(30, 40))
    place = start_of_frame(data)
    data[place : place + 4] = struct.pack(">HH", 60000, 60000)
    with pytest.raises(ValueError, match="60000 x 60000 pixels, more than 89,478,485"):
        records.mend(bytes(data))
    data[place : place + 4] = struct.pack(">HH", 10000, 10000)
    with pytest.raises(ValueError, match="10000 x 10000 pixels, more than 89,478,485"):
        records.mend(bytes(data))


@pytest.mark.parametrize(
    ("data", "words"),
    [(b"", "empty file"), (b"\x00" * 100, "not an image"), (b"<html></html>", "not an image")],
)
def test_bytes_that_are_no_image_are_refused(data, words):
    with pytest.raises(ValueError, match=words):
        records.read_header(data)


def test_programs_in_image_formats_are_not_run():
    with pytest.raises(ValueError, match="not an image"):
        records.mend(saved(picture(9, 7), "EPS"))


# Mending


@pytest.mark.parametrize("data", [jpeg(30, 40), jpeg(30, 40, mode="L")])
def test_original_bytes_are_kept(data):
    assert records.mend(data) == (data, "")


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (png(30, 40), "PNG"),
        (png(30, 40, mode="RGBA"), "PNG"),
        (saved(picture(30, 40), "WEBP", lossless=True), "WEBP"),
        (jpeg(30, 40, mode="CMYK", quality=100), "CMYK JPEG"),
    ],
)
def test_other_formats_become_rgb_jpegs_of_the_same_pixels(data, reason):
    encoded, why = records.mend(data)
    assert why == reason
    assert records.read_header(encoded) == ("JPEG", 30, 40, 3)
    assert np.abs(pixels(encoded) - np.asarray(picture(30, 40))).mean() < 2


@pytest.mark.parametrize("transform", [0, 2])  # CMYK, YCCK
def test_four_components_become_what_tensorflow_makes_of_them(transform):
    data = bytearray(jpeg(30, 40, mode="CMYK"))
    data[data.index(b"Adobe") + 11] = transform
    encoded, _ = records.mend(bytes(data))
    expected = tf.io.decode_jpeg(bytes(data), channels=3).numpy().astype(int)
    assert np.abs(pixels(encoded) - expected).mean() < 2


def test_sixteen_bits_of_grey_become_eight():
    deep = np.linspace(0, 65535, 64 * 64).astype(np.uint16).reshape(64, 64)
    encoded, _ = records.mend(saved(Image.fromarray(deep), "PNG"))
    assert np.abs(pixels(encoded)[..., 0] - (deep >> 8)).max() < 4


def test_truncated_png_is_refused():
    data = png(30, 40)
    with pytest.raises(ValueError, match="PNG that cannot be decoded"):
        records.mend(data[: len(data) // 2])


@pytest.mark.parametrize("share", [0.4, 0.8, 0.98])
def test_check_finds_truncated_jpegs(share):
    data = jpeg(64, 64)
    records.check_decodes(data)
    with pytest.raises(ValueError, match="truncated or damaged"):
        records.check_decodes(data[: int(len(data) * share)])


# Examples


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
    found = wire(records.encode_example(**EXAMPLE))
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
    found = wire(records.encode_example(**EXAMPLE | {"boxes": []}))
    assert len(found) == 15
    for key in ("xmin", "xmax", "ymin", "ymax"):
        assert found[f"image/object/bbox/{key}"] == ("float", [])
    assert found["image/object/bbox/label"] == ("int", [])


def test_file_name_that_is_not_text_becomes_utf8():
    example = records.encode_example(**EXAMPLE | {"filename": "/raw/caf\udce9\n.jpg"})
    assert wire(example)["image/filename"] == ("bytes", ["caf\ufffd\ufffd.jpg".encode()])


@pytest.mark.parametrize("boxes", [[], EXAMPLE["boxes"][:1], EXAMPLE["boxes"]])
@pytest.mark.parametrize("in_map", [False, True])
def test_parsed_example_is_the_encoded_one(boxes, in_map):
    serialized = records.encode_example(**EXAMPLE | {"boxes": boxes})
    if in_map:
        (found,) = tf.data.Dataset.from_tensors(serialized).map(records.parse_example)
    else:
        found = records.parse_example(serialized)
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
    found = records.parse_example(example.SerializeToString())
    assert found["label"].numpy() == 999
    assert found["boxes"].shape == (0, 4)
