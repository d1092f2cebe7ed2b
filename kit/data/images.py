"""Encoded images: their headers, their limits, and the JPEG that is stored of each.

Preparation, evaluation and inference treat an image file by these same functions.
"""

import io
import struct
import warnings
from typing import NamedTuple

import numpy as np
from PIL import Image

MAX_FILE_BYTES = 2**28  # of one image; ImageNet's largest has 15 million
MAX_PIXELS = 89_478_485  # Pillow's own limit, a quarter of a GiB of RGB; ImageNet's are smaller

STORE_QUALITY = 90  # params.yaml's store_quality, for a model.json that does not state it

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
    reason: str  # why it was re-encoded, such as "CMYK JPEG"; "" if it was not
    resized: bool  # to store_short_side


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


def prepare(data: bytes, header: Header, *, check, short_side, quality) -> Prepared:
    """Give what to store of an image whose header is known.

    The original bytes, except that other formats than JPEG are re-encoded, and that an image whose
    short side is over `short_side` (0: no limit) is resized to it, at JPEG quality `quality`.
    check: "full" decodes every image, "header" only those that change. Raises ValueError for bytes
    that cannot be read.
    """
    encoded, reason = to_jpeg(data, header)
    resized = 0 < short_side < min(header.height, header.width)
    if resized:
        encoded = shrink(encoded, short_side=short_side, quality=quality)
    elif check == "full":
        check_decodes(encoded)
    return Prepared(encoded, read_header(encoded), reason, resized)


def prepare_for(metadata: dict, data: bytes, *, check="header") -> bytes:
    """Give the JPEG that preparation stored of such an image for the model of `metadata`.

    That is its model.json. Raises ValueError as `prepare` does.
    """
    short_side = metadata.get("store_short_side") or 0
    quality = metadata.get("store_quality") or STORE_QUALITY
    header = read_header(data)
    return prepare(data, header, check=check, short_side=short_side, quality=quality).encoded


def to_jpeg(data: bytes, header: Header | None = None) -> tuple[bytes, str]:
    """Give a JPEG of one or three components, and why it is not the original ("" if it is).

    CMYK and YCCK JPEGs and all other formats become RGB JPEGs of quality 100. The bytes decide,
    not the file's name. Raises ValueError when they are no image or cannot be decoded.
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
    import tensorflow as tf

    try:
        tf.raw_ops.DecodeJpeg(contents=encoded, channels=1, ratio=8)
    except tf.errors.InvalidArgumentError as error:
        raise ValueError("truncated or damaged: TensorFlow cannot decode it") from error


def shrink(encoded: bytes, *, short_side, quality) -> bytes:
    """Re-encode a JPEG, grey or RGB as it was, at that short side in pixels.

    Raises ValueError when it cannot be decoded.
    """
    with _open(encoded) as original:
        try:
            picture = Image.fromarray(np.asarray(original))  # the pixels alone, without comments
        except Exception as error:  # Pillow raises a dozen kinds on damaged bytes
            raise ValueError("truncated or damaged") from error
    scale = short_side / min(picture.size)
    size = [round(side * scale) for side in picture.size]
    buffer = io.BytesIO()
    picture.resize(size, Image.LANCZOS).save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


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
