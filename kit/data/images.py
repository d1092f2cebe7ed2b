"""Encoded images: their headers, their limits, and the JPEG that is stored of each.

Preparation, evaluation and inference treat an image file by these same functions.
"""

import functools
import io
import logging
import re
import tempfile
import warnings
from contextlib import nullcontext
from typing import NamedTuple

import numpy as np
from PIL import ExifTags, Image, JpegImagePlugin, PngImagePlugin, UnidentifiedImageError

from kit import muted
from kit.data import jpeg
from kit.data.paths import printable

MAX_FILE_BYTES = 2**28  # of one image; ImageNet's largest has 15 million
MAX_PIXELS = 89_478_485  # Pillow's own limit, a quarter of a GiB of RGB; ImageNet's are smaller

MAX_ASPECT = 100  # long side over short; evaluation resizes the short side, and then cuts the long
BACKGROUND = (255, 255, 255)  # behind transparent pixels: white, as most viewers show them

# What Pillow may try: its other formats include some that run other programs (EPS).
FORMATS = ("JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF", "AVIF")
HEIF = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")  # "brands"
warnings.filterwarnings("ignore", module=r"PIL\.")  # of odd metadata, without a name, and so
logging.getLogger("PIL").setLevel(logging.CRITICAL)
Image.core.set_block_size(2**26)  # bytes; smaller blocks stay with the thread that has freed them
PngImagePlugin.MAX_TEXT_CHUNK = 2**26  # bytes of a text or profile; editors exceed Pillow's 1 MiB
# What libjpeg prints, without a name, of a JPEG that it decodes nevertheless (its jerror.h).
COMPLAINT = re.compile(
    "^(?:Corrupt JPEG|Premature end|Inconsistent progr|Invalid SOS|Unknown Adobe|Warning: ).*", re.M
)

# Where a note on how to turn the image may stand; Pillow itself turns TIFF and HEIC.
NOTES = (b"Exif", b"EXIF", b"eXIf", b"Raw profile type", b"adobe.com/xap", b"irot", b"imir")
NOTED = ("JPEG", "PNG", "WEBP", "AVIF")
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class Header(NamedTuple):
    format: str  # "JPEG", "PNG", ... by the bytes, whatever the file is called
    height: int
    width: int
    components: int  # 1 grey or palette, 3 RGB or YCbCr, 4 CMYK, YCCK or with alpha


class Form(NamedTuple):
    """How images are stored: parameters, and keys of manifest.json and model.json."""

    store_short_side: int = 0  # pixels; larger images are resized to it; 0: no limit
    store_quality: int = 90  # of the JPEGs that are resized
    apply_orientation: bool = False  # turn the image as EXIF says


class Prepared(NamedTuple):
    encoded: bytes  # the JPEG to store
    header: Header  # of what is stored
    reason: str  # why it was re-encoded, such as "CMYK JPEG"; "" if it was not
    resized: bool  # to store_short_side
    orientation: int  # EXIF's number of how it was turned; 1: not at all


def form_of(values) -> Form:
    """Give the form that a manifest's parameters or model.json states; older ones state less."""
    return Form(**{name: values[name] for name in Form._fields if values.get(name) is not None})


def read_header(data: bytes) -> Header:
    """Read format and size from an image's first bytes; nothing is decoded.

    Raises ValueError when the bytes are no image, and for one of more than MAX_PIXELS, beyond
    MAX_ASPECT or of a kind that jpeg.read_frame refuses.
    """
    if data[:2] == b"\xff\xd8":
        header = Header("JPEG", *jpeg.read_frame(data)[:3])
    else:
        with _open(data) as picture:
            bands = len(picture.getbands())
            header = Header(picture.format, picture.height, picture.width, bands)
    check_sides(header.height, header.width)
    if header.format == "WEBP" and header.height * header.width > MAX_PIXELS // 2:
        # which is decoded thrice at once
        raise ValueError(f"a WebP of more than {MAX_PIXELS // 2:,} pixels")
    return header


def check_sides(height: int, width: int) -> None:
    """Raise ValueError for an image of more than MAX_PIXELS, or for a strip beyond MAX_ASPECT."""
    if height * width > MAX_PIXELS:
        raise ValueError(f"{width} x {height} pixels, more than {MAX_PIXELS:,}")
    if max(height, width) > MAX_ASPECT * min(height, width):
        raise ValueError(f"a strip of {width} x {height} pixels, over {MAX_ASPECT} : 1")


def prepare(data: bytes, header: Header, form: Form, *, check) -> Prepared:
    """Give what to store of an image whose header is known.

    The original bytes, except that an image which is turned, and other formats than JPEG, are
    re-encoded, and that one whose short side is over the form's is resized to it.
    check: "full" decodes every image, and re-encodes a JPEG of which libjpeg complains, or it would
    in each epoch; "header" decodes only those that change. Raises ValueError for bytes that cannot
    be read.
    """
    orientation = orientation_of(data, header) if form.apply_orientation else 1
    encoded, reason = to_jpeg(data, header, orientation)
    resized = 0 < form.store_short_side < min(header.height, header.width)
    if resized:
        encoded = shrink(encoded, short_side=form.store_short_side, quality=form.store_quality)
    elif check == "full" and (complaint := check_decodes(encoded)):
        encoded, reason = _rewrite(encoded, "JPEG"), f"damaged in part ({complaint})"
    return Prepared(encoded, read_header(encoded), reason, resized, orientation)


def prepare_for(metadata: dict, data: bytes, *, check="header") -> bytes:
    """Give the JPEG that preparation stored of such an image for the model of `metadata`.

    That is its model.json. Raises ValueError as `prepare` does.
    """
    return prepare(data, read_header(data), form_of(metadata), check=check).encoded


def orientation_of(data: bytes, header: Header) -> int:
    """Give EXIF's number, 1 to 8, of how the camera was held; 1 where nothing is noted.

    1 for TIFF and HEIC too, which Pillow turns by itself.
    """
    if header.format not in NOTED or not any(note in data for note in NOTES):
        return 1
    try:
        with _open(data) as picture:
            noted = picture.getexif().get(ExifTags.Base.Orientation)
    except Exception:  # a damaged note spoils no image
        return 1
    return noted if noted in TURNS else 1


def to_jpeg(data: bytes, header: Header | None = None, orientation: int = 1) -> tuple[bytes, str]:
    """Give a JPEG of one or three components, and why it is not the original ("" if it is).

    CMYK and YCCK JPEGs and all other formats become RGB JPEGs of quality 100, on BACKGROUND where
    they are transparent. A JPEG that is turned keeps its quality. The bytes decide, not the file's
    name. Raises ValueError when they are no image or cannot be decoded.
    """
    header = header or read_header(data)
    if header.format != "JPEG":
        return _rewrite(data, header.format, orientation), header.format
    if header.components not in (1, 3):
        return _rewrite(data, "JPEG", orientation), "CMYK JPEG"
    if orientation == 1:
        return data, ""
    return _rewrite(data, "JPEG", orientation), f"orientation {orientation} in EXIF"


def _rewrite(data: bytes, kind: str, orientation: int = 1) -> bytes:
    buffer = io.BytesIO()
    with muted() if kind == "TIFF" else nullcontext(), _open(data) as picture:  # libtiff complains
        try:
            plain = kind == "JPEG" and picture.mode in ("L", "RGB")
            options = _quality_of(picture) if plain else {"quality": 100, "subsampling": 0}
            found = picture if plain else _to_rgb(picture)
            if orientation != 1:
                found = found.transpose(TURNS[orientation])
            found.save(buffer, "JPEG", **options)
        except Exception as error:  # Pillow raises a dozen kinds on damaged bytes
            raise ValueError(
                f"{kind} that cannot be decoded ({printable(str(error))[:200]})"
            ) from error
    return buffer.getvalue()


def check_decodes(encoded: bytes) -> str:
    """Give what libjpeg complains of as TensorFlow decodes a JPEG; "" for nothing.

    As training decodes, but an eighth of each side: every byte is still read, in less memory.
    Raises ValueError for a JPEG that training cannot decode, truncated ones included.
    """
    import tensorflow as tf

    with tempfile.TemporaryFile() as heard:
        try:
            with muted(heard.fileno()):
                tf.raw_ops.DecodeJpeg(contents=encoded, channels=3, ratio=8)
        except tf.errors.OpError as error:
            raise ValueError("truncated or damaged: TensorFlow cannot decode it") from error
        heard.seek(0)
        found = COMPLAINT.search(heard.read().decode("ascii", "replace"))
    return re.sub(r"\b(0x[\da-f]+|\d+)", "N", found[0]) if found else ""  # as one reason


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


def _open(data: bytes) -> Image.Image:
    if not data:
        raise ValueError("empty file")
    is_heif = data[4:8] == b"ftyp" and data[8:12] in HEIF and b"avif" not in data[8:64]
    formats = _heif() if is_heif else FORMATS
    try:
        return Image.open(io.BytesIO(data), formats=formats)
    except Image.DecompressionBombError as error:
        raise ValueError(f"more than {MAX_PIXELS:,} pixels") from error
    except UnidentifiedImageError as error:
        raise ValueError("not an image") from error
    except Exception as error:  # Pillow raises a dozen kinds on damaged bytes
        reason = printable(str(error))[:200]
        raise ValueError(f"not an image that can be read ({reason})") from error


@functools.cache
def _heif() -> tuple[str, ...]:
    """Let Pillow read HEIC; ValueError with the remedy where the package is missing."""
    try:
        import pillow_heif
    except ImportError:
        raise ValueError(
            "HEIC, for which pillow-heif is missing: pip install -e '.[heic]'"
        ) from None
    pillow_heif.register_heif_opener()
    return ("HEIF",)


def _quality_of(picture: Image.Image) -> dict:
    """Give Pillow's options to write a JPEG at the quality of the one that was opened."""
    halved = JpegImagePlugin.get_sampling(picture) == 2  # both ways: 4:2:0
    return {"qtables": picture.quantization, "subsampling": 2 if halved else 0}


def _to_rgb(picture: Image.Image) -> Image.Image:
    """Give 8 bits of RGB, on BACKGROUND; ValueError for pixels whose white is not stated."""
    if picture.mode in ("F", "I"):
        raise ValueError("pixels of 32 bits, whose white is not stated: save it with 8 or 16")
    if picture.mode.startswith("I"):  # 16 bits of grey: Pillow would clip where it should divide
        picture = picture.convert("I").point(lambda value: value / 256).convert("L")
    if not picture.has_transparency_data:
        return picture.convert("RGB")
    layer = picture if picture.mode == "RGBA" else picture.convert("RGBA")
    whole = Image.new("RGB", layer.size, BACKGROUND)
    whole.paste(layer, mask=layer)
    return whole
