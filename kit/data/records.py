"""Image bytes and boxes to tf.train.Example and back, as the Inception converter wrote them."""

import functools
import io
import struct
import warnings
from pathlib import Path
from typing import NamedTuple

import numpy as np
import tensorflow as tf
from PIL import Image

from kit.data.paths import printable

# Labels count from 1 on disk, from 0 in code; they meet in encode_example and parse_example.
LABEL_OFFSET = 1

# A quarter of a GiB of RGB, Pillow's own limit; ImageNet's largest image is under it.
MAX_PIXELS = 89_478_485

# What Pillow may try: its other formats include some that run other programs (EPS).
FORMATS = ("JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF")

# ITU-T T.81, table B.1: the markers that state a JPEG's size, and those that stand alone.
START_OF_FRAME = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
ALONE = frozenset((0x01, *range(0xD0, 0xD9)))
END_OF_HEADER = (0xD9, 0xDA)


class Header(NamedTuple):
    format: str  # "JPEG", "PNG", ... by the bytes, whatever the file is called
    height: int
    width: int
    components: int  # 1 grey or palette, 3 RGB or YCbCr, 4 CMYK, YCCK or with alpha


class Prepared(NamedTuple):
    encoded: bytes  # the JPEG to store
    header: Header  # of what is stored
    reason: str  # why it is not the original, "" if it is
    smaller: bool  # stored at store_short_side


def read_header(data: bytes) -> Header:
    """Read format and size from an image's first bytes; nothing is decoded.

    Raises ValueError when the bytes are no image, or one of more than MAX_PIXELS.
    """
    if data[:2] == b"\xff\xd8":
        header = _read_jpeg_header(data)
    else:
        with _open(data) as picture:
            bands = len(picture.getbands())
            header = Header(picture.format, picture.height, picture.width, bands)
    if header.height * header.width > MAX_PIXELS:
        raise ValueError(f"{header.width} x {header.height} pixels, more than {MAX_PIXELS:,}")
    return header


def prepare(data: bytes, header: Header, *, check, store_short_side, store_quality) -> Prepared:
    """Give what to store of an image whose header is known.

    Original bytes, unless the format wants mending, or the short side is over `store_short_side`
    (0: never) and the image is stored anew at that side with JPEG quality `store_quality`.
    check: "full" decodes, "header" does not unless it must. Raises ValueError for unreadable bytes.
    """
    encoded, reason = mend(data, header)
    smaller = 0 < store_short_side < min(header.height, header.width)
    if smaller:
        encoded = shrink(encoded, short_side=store_short_side, quality=store_quality)
    elif check == "full":
        check_decodes(encoded)
    return Prepared(encoded, read_header(encoded), reason, smaller)


def mend(data: bytes, header: Header | None = None) -> tuple[bytes, str]:
    """Give a JPEG of one or three components, and why it is not the original ("" if it is).

    CMYK and YCCK JPEGs and all other formats become RGB JPEGs of quality 100. Goes by the
    bytes, not by names. Raises ValueError when they are no image or cannot be decoded.
    """
    header = header or read_header(data)
    if header.format == "JPEG" and header.components in (1, 3):
        return data, ""
    buffer = io.BytesIO()
    with _open(data) as picture:
        try:
            _to_rgb(picture).save(buffer, "JPEG", quality=100, subsampling=0)
        except Exception as error:  # Pillow raises a dozen kinds on damaged bytes
            raise ValueError(f"{header.format} that cannot be decoded ({error})") from error
    return buffer.getvalue(), "CMYK JPEG" if header.format == "JPEG" else header.format


def check_decodes(encoded: bytes) -> None:
    """Raise ValueError for a JPEG that TensorFlow refuses, truncated ones included.

    An eighth of each side, without colour: every byte is still read and checked, in less time.
    """
    try:
        tf.raw_ops.DecodeJpeg(contents=encoded, channels=1, ratio=8)
    except tf.errors.InvalidArgumentError as error:
        raise ValueError("truncated or damaged: TensorFlow cannot decode it") from error


def shrink(encoded: bytes, *, short_side, quality) -> bytes:
    """Give the JPEG anew, grey or RGB as it was, with that short side in pixels.

    Raises ValueError when TensorFlow cannot decode it.
    """
    try:
        pixels = tf.io.decode_jpeg(encoded, dct_method="INTEGER_ACCURATE").numpy()
    except tf.errors.InvalidArgumentError as error:
        raise ValueError("truncated or damaged: TensorFlow cannot decode it") from error
    height, width = pixels.shape[:2]
    scale = short_side / min(height, width)
    picture = Image.fromarray(np.squeeze(pixels, -1) if pixels.shape[-1] == 1 else pixels)
    size = (max(short_side, round(width * scale)), max(short_side, round(height * scale)))
    buffer = io.BytesIO()
    picture.resize(size, Image.LANCZOS).save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


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


def parse_example(serialized) -> dict:
    """Read one serialized Example in a TensorFlow graph, or eagerly.

    Returns "encoded" and "filename" (scalar strings), "label" (int64 scalar, from 0) and
    "boxes" (float32 [n, 4]: ymin, xmin, ymax, xmax in [0, 1]; n may be 0).
    """
    sides = [f"image/object/bbox/{side}" for side in ("ymin", "xmin", "ymax", "xmax")]
    numbers = tf.io.FixedLenSequenceFeature([], tf.float32, allow_missing=True)
    found = tf.io.parse_single_example(
        serialized,
        {
            "image/encoded": tf.io.FixedLenFeature([], tf.string),
            "image/class/label": tf.io.FixedLenFeature([], tf.int64),
            "image/filename": tf.io.FixedLenFeature([], tf.string, default_value=""),
            **dict.fromkeys(sides, numbers),
        },
    )
    return {
        "encoded": found["image/encoded"],
        "label": found["image/class/label"] - LABEL_OFFSET,
        "boxes": tf.stack([found[side] for side in sides], axis=-1),
        "filename": found["image/filename"],
    }


def _read_jpeg_header(data: bytes) -> Header:
    """Walk from marker to marker to the start of frame: ITU-T T.81, B.1 and B.2.2."""
    at = 2
    while at + 10 <= len(data) and data[at] == 0xFF and data[at + 1] not in END_OF_HEADER:
        marker = data[at + 1]
        if marker in START_OF_FRAME:
            bits, height, width, components = struct.unpack_from(">BHHB", data, at + 4)
            if bits != 8 or not height or not width:
                raise ValueError(f"a JPEG of {width} x {height} pixels of {bits} bits")
            return Header("JPEG", height, width, components)
        if marker == 0xFF:  # a fill byte
            at += 1
        elif marker in ALONE:
            at += 2
        else:
            at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    raise ValueError("not an image: a JPEG that states no size")


def _open(data: bytes) -> Image.Image:
    if not data:
        raise ValueError("empty file")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of odd metadata; the size is checked below
            picture = Image.open(io.BytesIO(data), formats=FORMATS)
    except Image.DecompressionBombError as error:
        raise ValueError(f"more than {MAX_PIXELS:,} pixels") from error
    except Exception as error:  # Pillow raises a dozen kinds on damaged bytes
        raise ValueError("not an image") from error
    return picture


def _to_rgb(picture: Image.Image) -> Image.Image:
    if picture.mode.startswith("I"):  # 16 bits of grey: Pillow would clip where it should divide
        picture = picture.convert("I").point(lambda value: value / 256).convert("L")
    return picture.convert("RGB")


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
