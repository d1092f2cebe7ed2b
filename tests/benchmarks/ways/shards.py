"""The photographs as files, as the kit's shards, and in memory."""

import functools
from pathlib import Path

import tensorflow as tf

from kit import params
from kit.data import manifest, records
from kit.prep import sources, writer
from ways.photographs import photographs

PHOTOGRAPHS, COPIES, CLASSES = 1000, 4, 10


def write_files(raw_dir: Path) -> list[Path]:
    """Write the photographs, each under COPIES names, and an image a class for validation."""
    paths = []
    encoded = photographs(PHOTOGRAPHS)
    for number in range(COPIES * PHOTOGRAPHS):
        path = raw_dir / "train" / f"class{number % CLASSES}" / f"{number:05d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encoded[number % PHOTOGRAPHS])
        paths.append(path)
    for path in paths[:CLASSES]:
        copy = raw_dir / "validation" / path.parent.name / path.name
        copy.parent.mkdir(parents=True)
        copy.write_bytes(path.read_bytes())
    return paths


def write_shards(files, data_dir: Path, side: int) -> Path:
    raw_dir = files[0].parents[2]
    changes = {"train_shards": 16, "validation_shards": 1, "check": "header"}
    preparation = params.load(None, changes | {"store_short_side": side}).preparation
    index = sources.read_index(raw_dir, preparation, seed=0)
    writer.write_shards(index, preparation, raw_dir=raw_dir, data_dir=data_dir, seed=0)
    return data_dir


@functools.cache
def in_memory(data_dir: Path) -> list[bytes]:
    """Give the first copy of each photograph, an Example, in the photographs' order."""
    found = tf.data.TFRecordDataset(manifest.shard_paths(data_dir, "train"))
    named = {records.parse_example(record)["filename"].numpy(): record.numpy() for record in found}
    return [named[name] for name in sorted(named)[:PHOTOGRAPHS]]


def encoded_of(data_dir: Path) -> list[bytes]:
    return [records.parse_example(record)["encoded"].numpy() for record in in_memory(data_dir)]
