"""Image bytes and boxes to tf.train.Example and back, as the Inception converter wrote them."""

import io
import warnings
from pathlib import Path
from typing import NamedTuple

import tensorflow as tf
from PIL import Image

from kit.prep.sources import printable

# Labels count from 1 on disk, from 0 in code; they meet in encode_example and parse_example.
LABEL_OFFSET = 1

# A quarter of a GiB of RGB, Pillow's own limit; ImageNet's largest image is under it.
MAX_PIXELS = 89_478_485

# What Pillow may try: its other formats include some that run other programs (EPS).
FORMATS = ("JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF")


class Header(NamedTuple):
    format: str  # "JPEG", "PNG", ... by the bytes, whatever the file is called
    height: int
    width: int
    components: int  # 1 grey or palette, 3 RGB or YCbCr, 4 CMYK, YCCK or with alpha


def read_header(data: bytes) -> Header:
    """Read format and size from an image's first bytes; nothing is decoded.

    Raises ValueError when the bytes are no image, or one of more than MAX_PIXELS.
    """
    with _open(data) as picture:
        # A phone's JPEG with a preview behind it is an MPO to Pillow, a JPEG to all decoders.
        kind = "JPEG" if picture.format == "MPO" else picture.format
        components = picture.layers if kind == "JPEG" else len(picture.getbands())
        return Header(kind, picture.height, picture.width, components)


def mend(data: bytes) -> tuple[bytes, str]:
    """Give a JPEG of one or three components, and why it is not the original ("" if it is).

    CMYK and YCCK JPEGs and all other formats become RGB JPEGs of quality 100. Goes by the
    bytes, not by names. Raises ValueError when they are no image or cannot be decoded.
    """
    header = read_header(data)
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

    ratio=8 decodes an eighth of each side: every byte is still read and checked, in half the time.
    """
    try:
        tf.io.decode_jpeg(encoded, channels=3, ratio=8)
    except tf.errors.InvalidArgumentError as error:
        raise ValueError("truncated or damaged: TensorFlow cannot decode it") from error


def encode_example(*, encoded, height, width, label, wnid, name, filename, boxes) -> bytes:
    """Give a serialized tf.train.Example with the Inception converter's 15 keys.

    encoded: a JPEG; label: from 0; boxes: (ymin, xmin, ymax, xmax) in [0, 1].
    Source: tensorflow/models, research/inception/inception/data/build_imagenet_data.py.
    """
    on_disk = label + LABEL_OFFSET
    ymin, xmin, ymax, xmax = zip(*boxes, strict=True) if boxes else ((), (), (), ())
    feature = {
        "image/height": _ints(height),
        "image/width": _ints(width),
        "image/colorspace": _bytes(b"RGB"),  # for grey sources too, as the converter wrote
        "image/channels": _ints(3),
        "image/class/label": _ints(on_disk),
        "image/class/synset": _bytes(printable(wnid).encode()),
        "image/class/text": _bytes(printable(name).encode()),
        "image/object/bbox/xmin": _floats(xmin),
        "image/object/bbox/xmax": _floats(xmax),
        "image/object/bbox/ymin": _floats(ymin),
        "image/object/bbox/ymax": _floats(ymax),
        "image/object/bbox/label": _ints(*[on_disk] * len(boxes)),
        "image/format": _bytes(b"JPEG"),
        "image/filename": _bytes(printable(Path(filename).name).encode()),
        "image/encoded": _bytes(encoded),
    }
    example = tf.train.Example(features=tf.train.Features(feature=feature))
    return example.SerializeToString(deterministic=True)


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
    if picture.width * picture.height > MAX_PIXELS:
        raise ValueError(f"{picture.width} x {picture.height} pixels, more than {MAX_PIXELS:,}")
    return picture


def _to_rgb(picture: Image.Image) -> Image.Image:
    if picture.mode.startswith("I"):  # 16 bits of grey: Pillow would clip where it should divide
        picture = picture.convert("I").point(lambda value: value / 256).convert("L")
    return picture.convert("RGB")


def _bytes(value: bytes) -> tf.train.Feature:
    return tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))


def _floats(values) -> tf.train.Feature:
    return tf.train.Feature(float_list=tf.train.FloatList(value=values))


def _ints(*values: int) -> tf.train.Feature:
    return tf.train.Feature(int64_list=tf.train.Int64List(value=values))
