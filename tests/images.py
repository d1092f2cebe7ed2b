"""Small image files and raw folders for the tests."""

import dataclasses
import io
from pathlib import Path

import numpy as np
from PIL import Image

from kit.prep import sources, writer
from kit.prep.sections import Preparation

PREPARATION = Preparation(
    demo_views=0,
    train_shards=2,
    validation_shards=1,
    validation_fraction=1 / 3,
    subset=False,
    check_md5=False,
    check="full",
    quarantine_budget=0.0,
    store_short_side=0,
    store_quality=90,
    apply_orientation=False,
    processes=1,
    spark_master="",
)
# What kit.data.manifest gives of a set, as far as a model is told of it.
MANIFEST = {
    "classes": [{"wnid": f"n{i}", "name": f"thing {i}"} for i in range(6)],
    "label_offset": 1,
    "parameters": {"store_short_side": 48, "store_quality": 90, "seed": 0},
    **dict.fromkeys(("source", "layout", "fingerprint", "kit_version"), ""),
    **{name: [] for name in ("reencoded", "quarantined", "skipped")},
    "splits": {"train": {"images": 8, "shards": [{}, {}]}},
}


def picture(height: int, width: int, seed: int = 0) -> Image.Image:
    """Give a smooth random RGB image: compression changes it little."""
    coarse = np.random.default_rng(seed).integers(0, 256, (3, 4, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.BICUBIC)


def jpeg(height, width, seed=0, mode="RGB", quality=90) -> bytes:
    return _encode(picture(height, width, seed).convert(mode), "JPEG", quality=quality)


def png(height, width, seed=0, mode="RGB") -> bytes:
    return _encode(picture(height, width, seed).convert(mode), "PNG")


def class_folders(root, classes=3, images=6, size=(48, 64)) -> Path:
    """Write a folder of `images` JPEGs for each of the classes class0, class1, ... in root."""
    for label in range(classes):
        folder = Path(root) / f"class{label}"
        folder.mkdir(parents=True)
        for number in range(images):
            data = jpeg(*size, seed=label * images + number)
            (folder / f"{label}_{number}.jpg").write_bytes(data)
    return Path(root)


def preparation(**changes) -> Preparation:
    """Give the parameters of a small preparation, with these changes."""
    return dataclasses.replace(PREPARATION, **changes)


def index_of(raw_dir, *, seed=0, **changes) -> sources.Index:
    return sources.read_index(raw_dir, preparation(**changes), seed=seed)


def prepare(raw_dir, data_dir, *, seed=0, progress=lambda tasks, total: tasks, **changes) -> dict:
    """Write the shards of raw_dir with `preparation(**changes)`; gives the manifest."""
    index = index_of(raw_dir, seed=seed, **changes)
    where = {"raw_dir": raw_dir, "data_dir": data_dir, "seed": seed}
    return writer.write_shards(index, preparation(**changes), **where, progress=progress)


def make_shards(tmp_path, classes=3, images=6, **changes) -> Path:
    """Prepare shards of small random images; a third of them is for validation."""
    raw_dir = class_folders(tmp_path / "raw", classes, images)
    prepare(raw_dir, tmp_path / "shards", **changes)
    return tmp_path / "shards"


def _encode(image: Image.Image, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()
