"""JPEGs like ImageNet's: mean 110 KB and 0.2 megapixels, half 4:4:4 and half 4:2:0, some grey."""

import io

import numpy as np
from PIL import Image

SOURCES = ("astronaut", "chelsea", "coffee", "rocket", "retina")  # of scikit-image's pictures


def photographs(number: int) -> list[bytes]:
    """Give so many JPEGs: noisy crops of scikit-image's pictures, the same every time."""
    from skimage import data

    pictures = [Image.fromarray(getattr(data, name)()).convert("RGB") for name in SOURCES]
    rng = np.random.default_rng(0)
    return [photograph(pictures[n % len(pictures)], rng, 2 * (n % 2)) for n in range(number)]


def photograph(picture: Image.Image, rng, subsampling: int) -> bytes:
    """Give a JPEG of a random part of the picture: most 500 x 375, a tenth of any size."""
    sides = (375, 500) if rng.random() < 0.85 else sorted(rng.integers(150, 900, 2))
    height, width = sides if rng.random() < 0.75 else sides[::-1]
    scale = rng.uniform(0.5, 1) * min(picture.width / width, picture.height / height)
    left = rng.uniform(0, picture.width - scale * width)
    top = rng.uniform(0, picture.height - scale * height)
    box = (left, top, left + scale * width, top + scale * height)
    pixels = np.asarray(picture.resize((int(width), int(height)), Image.BICUBIC, box), float)
    pixels = pixels + rng.uniform(3, 14) * rng.normal(size=(*pixels.shape[:2], 1))
    pixels = (pixels + rng.normal(0, 3, pixels.shape)).clip(0, 255).astype(np.uint8)
    image = Image.fromarray(pixels).convert("L" if rng.random() < 0.023 else "RGB")
    buffer = io.BytesIO()
    quality = int(rng.integers(88, 98))
    image.save(buffer, "JPEG", quality=quality, subsampling=0 if image.mode == "L" else subsampling)
    return buffer.getvalue()
