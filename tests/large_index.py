"""A program that prints the memory of an index, its plan and a worker: see test_memory.py."""

import json
import re
import sys
from functools import partial
from pathlib import Path

from images import preparation

from kit.data import storage
from kit.data.manifest import ClassName
from kit.prep import writer
from kit.prep.sources import Image, Index
from kit.prep.workers import run_tasks

SHARD_IMAGES = 1251  # as ImageNet's, whatever the split's size
WRITTEN = 4  # shards, by two workers


def peak() -> float:
    """Give the most memory, in MiB, that this process has held since it began.

    Not by getrusage: there a process begins with the peak of the one that started it.
    """
    status = Path("/proc/self/status").read_text()
    return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) / 2**10


def make_index(raw_dir: str, images: int) -> Index:
    """Make an index of so many training images, each with its own name; the file is one."""
    classes = [ClassName(f"n{label:08d}", f"class {label}") for label in range(1000)]
    folders = [f"{raw_dir}/n{label:08d}" for label in range(1000)]
    made = [
        Image("train", n % 1000, folders[n % 1000], f"n{n % 1000:08d}_{n}.JPEG", 110_000 + n)
        for n in range(images)
    ]
    return Index("imagenet extracted", classes, made, [])


def write(task, shard, *, raw_dir, size) -> float:
    """Write the shard with the one image that exists in place of each; give the worker's peak."""
    images = [image._replace(container=raw_dir, name="a.jpg", size=size) for image in shard.images]
    task(shard._replace(images=images))
    return peak()


def main(raw_dir: str, data_dir: str, images: int, size: int) -> None:
    before = peak()
    index = make_index(raw_dir, images)
    indexed = peak()
    index.images.append(index.images[0]._replace(split="validation"))
    section = preparation(train_shards=images // SHARD_IMAGES)
    plans = writer.plan(index, section, seed=0)
    planned = peak()
    where = {"folder": storage.folder(data_dir), "root": raw_dir}
    task = partial(writer.write_shard, **where, classes=index.classes, preparation=section)
    task = partial(write, task, raw_dir=raw_dir, size=size)
    workers = list(run_tasks(task, plans[:WRITTEN], processes=2))
    found = {"index": indexed - before, "plan": planned - indexed, "worker": max(workers)}
    print(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
