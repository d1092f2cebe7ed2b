"""Finds images of validation and test that stand almost alike in another split: a leak.

Copies that were resized, saved again or made grey; for equal bytes a checksum is enough.
"""

import io
from collections.abc import Iterator
from contextlib import ExitStack, closing
from functools import partial
from typing import NamedTuple

import numpy as np
import tensorflow as tf
from PIL import Image

from kit.data import storage
from kit.data.manifest import class_names, read_manifest, shard_paths
from kit.data.records import parse_example
from kit.prep.workers import run_tasks, take_turn

SIDE = 16  # so many rows of so many comparisons: 256 bits
# Of 256 bits. Of 300 photographs saved at quality 75, or at half the size, 99 in 100 differ from
# themselves by no more; of 5.8 million pairs of other photographs, of clothes on plain ground, one
# did, and that was a copy. With 64 bits 227 pairs were within 2.
NEAR = 20
LARGEST = 200_000  # images of a set that is searched: a minute to compare, three to hash on a core
BLOCK = 2**22  # comparisons at a time: 32 MiB


class Place(NamedTuple):
    split: str
    shard: str
    record: int


class Pair(NamedTuple):
    distance: int  # bits that differ, of 256
    image: Place  # in validation or test
    other: Place  # the nearest in the splits before it


def find(data_dir, *, processes, progress=lambda tasks, total: tasks) -> list[Pair] | None:
    """Find each image of validation and test of which train, or validation, has almost the same.

    The nearest pairs come first; an image is named with its nearest only. None for a set of more
    than LARGEST images, which is not searched. processes: 0 for one per core.
    """
    folder, splits = storage.folder(data_dir), read_manifest(data_dir)["splits"]
    images = sum(part["images"] for part in splits.values())
    if images > LARGEST:
        return None
    names = {shard["name"]: split for split, part in splits.items() for shard in part["shards"]}
    for split in splits:
        shard_paths(folder, split)  # all there
    task = partial(_hash_shard, folder)
    with closing(run_tasks(task, list(names), processes=processes, images=images)) as tasks:
        hashes = dict(progress(tasks, len(names)))
    places = [Place(names[name], name, n) for name in names for n in range(len(hashes[name]))]
    codes = np.concatenate([hashes[name] for name in names])
    pairs, start = [], 0
    for split in splits:
        end = start + splits[split]["images"]
        found = _nearest(codes[start:end], codes[:start])
        for at, (other, distance) in enumerate(zip(*found, strict=True), start):
            if distance <= NEAR:
                pairs.append(Pair(int(distance), places[at], places[other]))
        start = end
    return sorted(pairs)


def difference_hash(encoded: bytes) -> np.ndarray:
    """Give an image's 256 bits, four uint64: is each of 16 x 16 squares darker than the next?

    The difference hash of Krawetz ("Kind of Like That", The Hacker Factor Blog, 2013), finer.
    """
    with ExitStack() as stack, Image.open(io.BytesIO(encoded)) as picture:
        take_turn(stack, picture.width * picture.height)
        picture.draft("L", (4 * SIDE, 4 * SIDE))  # a JPEG is decoded no larger than needed
        small = picture.convert("L").resize((SIDE + 1, SIDE), Image.BOX)
    grey = np.asarray(small, np.int16)
    return np.packbits(grey[:, 1:] > grey[:, :-1]).view(np.uint64)


def read(data_dir, places: list[Place]) -> Iterator[tuple[np.ndarray, str]]:
    """Give the images at these places: pixels, uint8 RGB; split, class and file in two lines."""
    folder, classes = storage.folder(data_dir), class_names(data_dir)
    for place in places:
        records = tf.data.TFRecordDataset(folder.path(place.shard)).skip(place.record)
        example = {key: found.numpy() for key, found in parse_example(next(iter(records))).items()}
        name, file = classes[example["label"]].name, example["filename"].decode("utf-8", "replace")
        with Image.open(io.BytesIO(example["encoded"])) as picture:
            yield np.asarray(picture.convert("RGB")), f"{place.split}: {name}\n{file}"


def _hash_shard(folder, name: str) -> tuple[str, np.ndarray]:
    records = tf.data.TFRecordDataset(folder.path(name)).map(parse_example)
    found = [difference_hash(record["encoded"].numpy()) for record in records]
    return name, np.array(found, np.uint64).reshape(-1, SIDE * SIDE // 64)


def _nearest(codes: np.ndarray, others: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Give for each code which of the others is the nearest, and how many bits differ."""
    found = np.zeros(len(codes), int), np.full(len(codes), 256)
    rows = max(1, BLOCK // max(1, len(others)))
    for start in range(0, len(codes) if len(others) else 0, rows):
        part = codes[start : start + rows, None]
        distances = np.bitwise_count(part ^ others).sum(2, dtype=np.uint16)
        found[0][start : start + rows] = distances.argmin(1)
        found[1][start : start + rows] = distances.min(1)
    return found
