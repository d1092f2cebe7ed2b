"""Image files: headers, limits, re-encoding, and damage found by decoding."""

import io
import struct

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from kit.data import images
from tests.images import jpeg, picture, png


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
    assert images.read_header(data) == expected


def test_header_needs_no_pixels():
    data = jpeg(30, 40)
    scan = data.index(b"\xff\xda")
    assert images.read_header(data[: scan + 14]) == ("JPEG", 30, 40, 3)


def test_huge_claim_is_refused_before_any_decode():
    data = bytearray(jpeg(30, 40))
    place = start_of_frame(data)
    data[place : place + 4] = struct.pack(">HH", 60000, 60000)
    with pytest.raises(ValueError, match="60000 x 60000 pixels, more than 89,478,485"):
        images.to_jpeg(bytes(data))
    data[place : place + 4] = struct.pack(">HH", 10000, 10000)
    with pytest.raises(ValueError, match="10000 x 10000 pixels, more than 89,478,485"):
        images.to_jpeg(bytes(data))


@pytest.mark.parametrize(
    ("data", "words"),
    [(b"", "empty file"), (b"\x00" * 100, "not an image"), (b"<html></html>", "not an image")],
)
def test_bytes_that_are_no_image_are_refused(data, words):
    with pytest.raises(ValueError, match=words):
        images.read_header(data)


def test_programs_in_image_formats_are_not_run():
    with pytest.raises(ValueError, match="not an image"):
        images.to_jpeg(saved(picture(9, 7), "EPS"))


# Re-encoding


@pytest.mark.parametrize("data", [jpeg(30, 40), jpeg(30, 40, mode="L")])
def test_original_bytes_are_kept(data):
    assert images.to_jpeg(data) == (data, "")


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
    encoded, why = images.to_jpeg(data)
    assert why == reason
    assert images.read_header(encoded) == ("JPEG", 30, 40, 3)
    assert np.abs(pixels(encoded) - np.asarray(picture(30, 40))).mean() < 2


@pytest.mark.parametrize("transform", [0, 2])  # CMYK, YCCK
def test_four_components_become_what_tensorflow_makes_of_them(transform):
    data = bytearray(jpeg(30, 40, mode="CMYK"))
    data[data.index(b"Adobe") + 11] = transform
    encoded, _ = images.to_jpeg(bytes(data))
    expected = tf.io.decode_jpeg(bytes(data), channels=3).numpy().astype(int)
    assert np.abs(pixels(encoded) - expected).mean() < 2


def test_sixteen_bits_of_grey_become_eight():
    deep = np.linspace(0, 65535, 64 * 64).astype(np.uint16).reshape(64, 64)
    encoded, _ = images.to_jpeg(saved(Image.fromarray(deep), "PNG"))
    assert np.abs(pixels(encoded)[..., 0] - (deep >> 8)).max() < 4


def test_truncated_png_is_refused():
    data = png(30, 40)
    with pytest.raises(ValueError, match="PNG that cannot be decoded"):
        images.to_jpeg(data[: len(data) // 2])


@pytest.mark.parametrize("share", [0.4, 0.8, 0.98])
def test_check_finds_truncated_jpegs(share):
    data = jpeg(64, 64)
    images.check_decodes(data)
    with pytest.raises(ValueError, match="truncated or damaged"):
        images.check_decodes(data[: int(len(data) * share)])
