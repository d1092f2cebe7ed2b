"""Image files: headers, limits, re-encoding, and damage found by decoding."""

import io
import itertools
import random
import struct

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageOps

from kit.data import images
from kit.data.jpeg import MAX_SCANS
from tests import jpegs
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


def decodes(data, **options):
    try:
        tf.raw_ops.DecodeJpeg(contents=data, channels=3, **options)
        tf.io.decode_and_crop_jpeg(data, [3, 5, 17, 22], channels=3)
    except tf.errors.InvalidArgumentError:
        return False
    return True


def accepted(data, check):
    try:
        images.prepare(data, images.read_header(data), images.Form(), check=check)
    except ValueError:
        return False
    return True


def test_check_accepts_the_samplings_that_training_decodes():
    """Luma of three columns to two of chroma, say, which libjpeg cannot scale."""
    factors = list(itertools.product(range(1, 5), repeat=2))
    samplings = list(itertools.product(factors, repeat=3))
    samples = [((3, 1), (2, 1), (2, 1)), ((2, 2), (1, 1), (1, 1))]
    samples += random.Random(0).sample(samplings, 300)
    files = [jpegs.grey_blocks(samplings=sampling) for sampling in samples]
    found = [accepted(data, "full") for data in files]
    assert found == [decodes(data) for data in files]
    assert found[:2] == [False, True] and sum(found) > 10


@pytest.mark.parametrize("marker", sorted(set(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}))
def test_the_header_names_kinds_of_jpeg_that_are_not_decoded(marker):
    data = jpegs.grey_blocks(marker=marker)
    if marker in (0xC0, 0xC1, 0xC9):  # the rest would also need other scans to be whole
        assert accepted(data, "full") and decodes(data)
    elif marker in (0xC2, 0xCA):
        assert images.read_header(data)[1:3] == (24, 40)
    else:
        with pytest.raises(ValueError, match=rf"JPEG \(SOF{marker - 0xC0}\), which TensorFlow"):
            images.read_header(data)
        assert not decodes(data)


def test_scans_are_counted_and_no_others():
    most = jpegs.many_scans(64, 64, MAX_SCANS)
    assert images.read_header(most) == ("JPEG", 64, 64, 1) and accepted(most, "full")
    with pytest.raises(ValueError, match="a JPEG of more than 50 scans"):
        images.read_header(jpegs.many_scans(64, 64, MAX_SCANS + 1))
    film = most + b"\xff\xda\0\x02" * 1000  # what phones append, after the image's end
    assert accepted(film, "full")
    hidden = jpegs.many_scans(64, 64, MAX_SCANS + 1).replace(
        b"\xff\xda", jpegs.segment(0xFE, b"\xff\xd9") + b"\xff\xda", 1
    )  # the end of the image in a comment
    with pytest.raises(ValueError, match="more than 50 scans"):
        images.read_header(hidden)


def test_scans_of_a_sequential_jpeg_are_counted_too():
    parts = jpegs.grey_blocks().partition(b"\xff\xda")
    one = jpegs.segment(0xDA, b"\1\1\0\0\x3f\0") + bytes(4)
    with pytest.raises(ValueError, match="more than 50 scans"):
        images.read_header(parts[0] + one * 60 + b"\xff\xd9")


# Strips


@pytest.mark.parametrize(("height", "width"), [(1, 1500), (60_000, 1), (2, 201)])
def test_strips_are_refused_by_their_header(height, width):
    with pytest.raises(ValueError, match=f"a strip of {width} x {height} pixels"):
        images.read_header(jpeg(height, width))


def test_the_longest_strip_is_read():
    assert accepted(jpeg(2, 200), "full")


# Pixels


@pytest.mark.parametrize("kind", ["F", "I"])
def test_pixels_of_32_bits_are_refused_with_the_reason(kind):
    deep = np.linspace(0, 1, 48).reshape(6, 8).astype("float32" if kind == "F" else "int32")
    with pytest.raises(ValueError, match="pixels of 32 bits, whose white is not stated"):
        images.to_jpeg(saved(Image.fromarray(deep), "TIFF"))


def behind(mode, hidden):
    """A picture that is transparent but for a square, with something hidden behind."""
    visible = np.zeros([48, 64], bool)
    visible[16:32, 16:48] = True
    seen, hidden = np.full([48, 64, 3], (200, 30, 60)), np.full([48, 64, 3], hidden)
    rgb = Image.fromarray(np.where(visible[..., None], seen, hidden).astype(np.uint8))
    alpha = Image.fromarray(visible.astype(np.uint8) * 255)
    if mode == "RGBA":
        rgb.putalpha(alpha)
        return saved(rgb, "PNG"), seen, visible
    if mode == "LA":
        grey = rgb.convert("L")
        seen = np.full([48, 64, 3], np.asarray(grey)[20, 20])
        grey.putalpha(alpha)
        return saved(grey, "PNG"), seen, visible
    key = tuple(np.asarray(rgb)[0, 0].tolist())  # a colour, or its place in a palette, is clear
    if mode == "P":
        rgb = rgb.quantize(4)
        key = int(np.asarray(rgb)[0, 0])
    return saved(rgb, "PNG", transparency=key), seen, visible


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "RGB"])
@pytest.mark.parametrize("hidden", [0, 120])
def test_transparent_pixels_are_white_whatever_hides_behind(mode, hidden):
    data, seen, visible = behind(mode, hidden)
    encoded, _ = images.to_jpeg(data)
    expected = np.where(visible[..., None], seen, 255)
    assert np.abs(pixels(encoded) - expected).mean() < 2


def test_half_transparent_pixels_let_half_of_the_white_through():
    layer = Image.new("RGBA", (40, 30), (0, 100, 200, 128))
    encoded, _ = images.to_jpeg(saved(layer, "PNG"))
    expected = 255 + (np.array([0, 100, 200]) - 255) * 128 / 255
    assert np.abs(pixels(encoded) - expected).max() <= 2


def test_large_texts_and_profiles_of_a_png_are_no_obstacle():
    from PIL.PngImagePlugin import PngInfo

    info = PngInfo()
    info.add_text("history", "x" * 2**23, zip=True)
    data = saved(picture(9, 7), "PNG", pnginfo=info, icc_profile=bytes(2**23))
    assert images.read_header(data) == ("PNG", 9, 7, 3)
    info.add_text("history", "x" * 2**27, zip=True)
    with pytest.raises(ValueError, match="not an image that can be read .*too large"):
        images.read_header(saved(picture(9, 7), "PNG", pnginfo=info))


def test_avif_is_read_whatever_it_is_called():
    encoded, why = images.to_jpeg(saved(picture(30, 40), "AVIF", quality=95))
    assert why == "AVIF"
    assert np.abs(pixels(encoded) - np.asarray(picture(30, 40))).mean() < 5


@pytest.mark.slow
def test_heic_is_read_where_its_package_is(monkeypatch):
    heif = pytest.importorskip("pillow_heif")
    data = io.BytesIO()
    heif.from_pillow(picture(64, 48)).save(data, quality=95)
    images._heif.cache_clear()
    encoded, why = images.to_jpeg(data.getvalue())
    assert why == "HEIF"
    assert np.abs(pixels(encoded) - np.asarray(picture(64, 48))).mean() < 5


def test_heic_without_its_package_names_the_remedy(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pillow_heif", None)
    images._heif.cache_clear()
    with pytest.raises(ValueError, match=r"pillow-heif is missing: pip install -e '\.\[heic\]'"):
        images.read_header(b"\0\0\0\x18ftypheic" + bytes(40))
    images._heif.cache_clear()


# Orientation


def noted(orientation, kind, mode="RGB", size=(48, 80), **options):
    exif = Image.Exif()
    exif[274] = orientation
    return saved(picture(*size).convert(mode), kind, exif=exif, **options)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("JPEG", {"quality": 90}),
        ("JPEG", {"quality": 90, "mode": "L"}),
        ("JPEG", {"quality": 75, "size": (37, 51), "subsampling": "4:2:2"}),
        ("PNG", {}),
        ("WEBP", {"lossless": True}),
        ("AVIF", {"quality": 95}),
        ("TIFF", {}),
    ],
)
def test_images_are_turned_as_pillow_turns_them(orientation, kind, options):
    data = noted(orientation, kind, **options)
    found = images.prepare(
        data, images.read_header(data), images.Form(apply_orientation=True), check="full"
    )
    with Image.open(io.BytesIO(data)) as shown:
        expected = np.asarray(ImageOps.exif_transpose(shown).convert("RGB")).astype(int)
    assert found.header[1:3] == expected.shape[:2]
    assert np.abs(pixels(found.encoded) - expected).mean() < 3
    assert images.orientation_of(found.encoded, found.header) == 1
    if kind == "JPEG":
        assert bool(found.reason) == (orientation != 1)
        assert found.header.components == (1 if options.get("mode") == "L" else 3)
        assert len(found.encoded) < 1.3 * len(data)  # at the quality that it had


def test_a_turned_image_is_stored_at_its_short_side_once():
    form = images.Form(store_short_side=24, apply_orientation=True)
    data = noted(6, "JPEG", quality=95)
    found = images.prepare(data, images.read_header(data), form, check="full")
    assert (found.header[1:3], found.resized, found.orientation) == ((40, 24), True, 6)


@pytest.mark.parametrize("orientation", [1, 6])
def test_images_stay_as_they_are_unless_they_are_to_be_turned(orientation):
    data = noted(orientation, "JPEG")
    form = images.Form(apply_orientation=orientation == 1)
    assert images.prepare(data, images.read_header(data), form, check="full").encoded == data


@pytest.mark.parametrize("note", [b"", b"II*\0", b"MM\0*\0\0\0\x08\xff\xff" * 3, b"\xff" * 50])
def test_a_damaged_note_turns_nothing(note):
    data = saved(picture(48, 80), "JPEG", exif=b"Exif\0\0" + note)
    form = images.Form(apply_orientation=True)
    assert images.prepare(data, images.read_header(data), form, check="full").encoded == data
