"""What evaluation shows the network of an image, by Pillow and NumPy: TensorFlow is not imported.

The pixels are those of kit/pipeline/preprocessing.py, bit for bit.
"""

import io

import numpy as np
from PIL import Image

from kit.data.images import check_sides

STRIP = 2048  # rows


def evaluation_square(encoded, *, image_size, resize_side, antialias=False):
    """Give what `preprocessing.evaluation_pixels` gives of one JPEG: uint8 [size, size, 3].

    Only the square is computed, not the whole resized image. Raises ValueError for a damaged JPEG,
    and as `resized_sides` does.
    """
    pixels = decode_jpeg(encoded)
    sides = resized_sides(*pixels.shape[:2], resize_side, antialias)
    begin = centre(sides, image_size, antialias)
    if antialias:
        for first, side in zip(begin, sides, strict=True):  # the rows, then the columns as rows
            pixels = _averages(pixels, first, image_size, side).swapaxes(0, 1)
        return np.rint(pixels).astype(np.uint8)
    (above, below, down), (left, right, across) = (
        _neighbours(first, image_size, old, new)
        for first, old, new in zip(begin, pixels.shape, sides, strict=False)
    )
    rows = pixels[above[0] : below[-1] + 1]  # none twice, as neighbours share rows
    start, end = (rows.take(columns, axis=1).astype(np.float32) for columns in (left, right))
    rows = start + (end - start) * across[:, np.newaxis]
    top, bottom = rows[above - above[0]], rows[below - above[0]]
    square = top + (bottom - top) * down[:, np.newaxis, np.newaxis]
    return np.rint(square, out=square).astype(np.uint8)


def decode_jpeg(encoded):
    """Decode a JPEG, grey or RGB, with the accurate transform: uint8 [height, width, 3].

    Raises ValueError for what is truncated or damaged.
    """
    try:
        with Image.open(io.BytesIO(encoded), formats=("JPEG",)) as picture:
            return _pixels(picture if picture.mode == "RGB" else picture.convert("RGB"))
    except Exception as error:  # Pillow raises a dozen kinds on damaged bytes
        raise ValueError("truncated or damaged") from error


def _pixels(picture):
    """Give a picture's pixels, a large one's in strips: NumPy holds what it takes over twice."""
    width, height = picture.size
    if height <= STRIP:
        return np.asarray(picture)
    pixels = np.empty([height, width, 3], np.uint8)
    for top in range(0, height, STRIP):
        end = min(top + STRIP, height)
        pixels[top:end] = np.asarray(picture.crop((0, top, width, end)))
    return pixels


def evaluation_window(height, width, *, image_size, resize_side, antialias=False):
    """Give what evaluation cuts: float64 [ymin, xmin, ymax, xmax], shares of the image."""
    sides = np.array(short_side_size(height, width, resize_side, antialias))
    begin = centre(sides, image_size, antialias)
    return np.concatenate([begin, begin + image_size]) / np.tile(sides, 2)


def resized_sides(height, width, resize_side, antialias=False):
    """Give int [height, width] of the resized image; ValueError as `check_sides` raises."""
    check_sides(height, width)
    return np.array(short_side_size(height, width, resize_side, antialias), int)


def short_side_size(height, width, side, antialias=False, math=np):
    """Give (height, width) when the short side becomes `side`, float64.

    The long one is rounded to the nearest pixel; with `antialias` it is cut off to whole pixels, as
    in torchvision's Resize. `math` is tf.math for tensors.
    """
    short = math.minimum(height, width)
    if antialias:
        return math.floor(side * height / short), math.floor(side * width / short)
    return math.rint(height * (side / short)), math.rint(width * (side / short))


def centre(sides, size, antialias=False):
    """Give where the central `size` pixels of `sides` begin, integers like those.

    Half of an odd margin is rounded down; with `antialias` to the even number, as in torchvision's
    CenterCrop.
    """
    margin = sides - size
    return margin // 2 + (margin % 4 // 3 if antialias else 0)


def _neighbours(begin, count, old, new):
    """Give the two pixels of `old` between which each of `count` of `new` lies, and how far on.

    Pixel centres are at half integers, and what is outside repeats the edge: TensorFlow's
    ResizeBilinear with half_pixel_centers, in its float32.
    """
    half, ratio = np.float32(0.5), np.float32(old) / np.float32(new)
    at = (np.arange(begin, begin + count, dtype=np.float32) + half) * ratio - half
    low = np.floor(at)
    first, second = (np.clip(index, 0, old - 1).astype(int) for index in (low, low + 1))
    return first, second, at - low


def _averages(pixels, begin, count, new):
    """Give `count` rows from `begin` on of the image resized to `new` rows, float32.

    Each is the average of the rows that it stands for, weighed by a triangle around its centre:
    TensorFlow's ScaleAndTranslate with antialias, in its float32 and its order.
    """
    old, half, one = len(pixels), np.float32(0.5), np.float32(1)
    ratio = one / (np.float32(new) / np.float32(old))
    reach = max(ratio, one)
    centres = (np.arange(begin, begin + count, dtype=np.float32) + half) * ratio
    first = np.clip(np.ceil(centres - reach - half), 0, old - 1).astype(int)
    last = np.clip(np.floor(centres + reach - half), 0, old - 1).astype(int)
    rows = first + np.arange((last - first).max() + 1)[:, np.newaxis]
    away = np.abs((rows.astype(np.float32) + half - centres) * (one / reach))
    weights = np.where((away < 1) & (rows <= last), one - away, np.float32(0))
    weights *= one / sum(weights)
    parts = zip(weights[..., np.newaxis, np.newaxis], np.minimum(rows, old - 1), strict=True)
    return sum(weight * pixels[row] for weight, row in parts)
