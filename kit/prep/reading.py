"""The index of raw images, and the bytes and boxes of one image, from the file that it names.

Any process may read an image, also on another machine that sees the same files.
"""

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from kit import muted
from kit.data import images, paths
from kit.data.images import MAX_FILE_BYTES
from kit.data.manifest import ClassName
from kit.data.paths import printable
from kit.prep import boxes, parquet, table


class Image(NamedTuple):  # small, because ImageNet has 1.3 million
    split: str  # "train", "validation" or "test"
    label: int  # from 0
    container: str  # the folder, tar or parquet file that holds it: absolute path or URL
    name: str  # of its file there
    size: int  # bytes, as listed; of the whole file when that is a parquet
    position: int = -1  # first byte in a tar, row in a parquet file; -1: a file of its own
    changed: int | str = 0  # when the file did, as listed: paths.Entry
    boxes: str | bytes = ""  # path of its XML file, or packed as in boxes.py; "": none

    @property
    def path(self) -> str:
        return f"{self.container}/{self.name}"

    @property
    def in_parquet(self) -> bool:
        return self.position >= 0 and self.container.endswith(".parquet")


@dataclass(frozen=True)
class Index:
    layout: str
    classes: list[ClassName]  # sorted by wnid
    images: list[Image]  # training first, then validation and test, each by class and name
    skipped: list[tuple[str, str]]  # path and reason of each file that cannot be an image
    missing: list[str] = field(default_factory=list)  # what could be there, in a line each
    expect_boxes: int = 0  # ImageNet's number of them, where it must be met


def read_image(image) -> bytes:
    """Read the image's encoded bytes.

    Raises ValueError for a file that is too large to be one, and OSError in one line for what
    cannot be read, or has changed since it was listed.
    """
    if image.size > MAX_FILE_BYTES and not image.in_parquet:
        raise ValueError(f"a file of more than {MAX_FILE_BYTES:,} bytes")
    try:
        if image.in_parquet:
            return parquet.read_image(image.container, image.position)
        if image.position < 0:
            data = paths.read_file(image.path, MAX_FILE_BYTES)
        else:
            data = paths.read_range(image.container, image.position, image.size)
    except OSError as error:
        kind = type(error) if type(error).__module__ == "builtins" else OSError
        reason = error.strerror or error
        raise kind(f"{printable(image.path)} cannot be read ({reason})") from None
    if len(data) != image.size:
        raise OSError(
            f"{printable(image.path)} had {image.size:,} bytes when it was listed and has "
            f"{len(data):,} now: do not change raw_dir while it is read, and start again"
        )
    return data


def preview(image) -> np.ndarray:
    """Give what can be seen of a re-encoded or quarantined image: uint8 [height, width, 3].

    As much of a truncated JPEG as there is; a grey square where nothing can be decoded.
    """
    try:
        encoded, _ = images.to_jpeg(read_image(image))
        with muted():  # libjpeg would complain of what is missing
            return tf.io.decode_jpeg(
                encoded, channels=3, try_recover_truncated=True, acceptable_fraction=0.01
            ).numpy()
    except (OSError, ValueError, tf.errors.InvalidArgumentError):
        return np.full([64, 64, 3], 128, np.uint8)


def boxes_of(image, classes, height, width) -> list[tuple[float, float, float, float]]:
    """Give the image's boxes: (ymin, xmin, ymax, xmax), each in [0, 1]; [] where there are none.

    height, width: of the original image, in whose pixels Kaggle's CSV has them. Raises
    ValueError, naming the file, for a box file that cannot be read.
    """
    packed = image.boxes
    if isinstance(packed, str) and packed:
        try:
            data = paths.read_file(packed, boxes.MAX_XML_BYTES)
            packed = boxes.from_xml(data, classes[image.label].wnid)
        except (ValueError, OSError) as error:
            raise ValueError(
                f"boxes {printable(image.boxes)} cannot be read ({error}): correct or delete the "
                "file"
            ) from None
    return boxes.scale(packed, height, width) if packed else []


def find_images(index, changes: list[dict], raw_dir) -> list:
    """Give the images that `changes` name: entries of a manifest's "reencoded", "quarantined"."""
    files, root = {change["file"] for change in changes}, table.root_of(raw_dir)
    return [image for image in index.images if files and source_name(image, root) in files]


def source_name(image, root: str) -> str:
    """Give the image's path within raw_dir, in one line of UTF-8."""
    return printable(image.path.removeprefix(f"{root}/"))


def state_of(image, root: str) -> tuple:
    """Give what identifies the image, without the path of raw_dir, whatever the locale."""

    def within(path):
        known = path.removeprefix(root).encode("utf-8", "surrogateescape")
        return known.decode("utf-8", "surrogateescape")

    found = within(image.boxes) if isinstance(image.boxes, str) else image.boxes
    return within(image.path), image.position, image.size, found
