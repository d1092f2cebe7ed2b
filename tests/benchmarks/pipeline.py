"""The input pipeline against other ways to the same batches: make bench PART=pipeline.

All of them crop, resize, flip and subtract the mean of the same photographs, with as many threads
or processes as there are cores; ours leaves the mean to the model, whose first layer it is. From
memory: from tensors, or from files that the system holds in its cache; names with _disk: from files
that were dropped from that cache before each round. DALI and PyTorch are left out where they are
not installed (pip install -e '.[bench]'). MINUTES=10 in the environment also watches the memory for
so long. For stored_320_pixels and resident less is better. with_ stands for our own batches with an
augmentation or `antialias`, against them without.
"""

import multiprocessing
import os
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
from ways import dali, pillow, resident, tf_data
from ways.shards import COPIES, write_files, write_shards

from kit.machine import cores

ROUNDS, SECONDS, WARM = 5, 1.0, 3  # a round measures each way for so long, after so many batches
LIMIT = 6  # levels that the mean pixel may differ between two libraries, one of which smooths
PIXELS = 0.02  # at most this share of 255 levels may a stored image's crop differ in the mean
MARKS = {  # ours, theirs, how many times faster ours is to be
    "vs_plain_tf_data": ("ours", "plain", 1.35),
    "vs_dali_cpu": ("ours", "dali", 1.5),
    "vs_pillow": ("ours", "pillow", 5.0),
    "vs_torch_dataloader": ("ours", "torch", 5.0),
    "vs_decode_bound": ("ours", "bound", 0.85),
    "stored_320": ("stored", "ours", 1.25),
}
CHANGES = {  # what an augmentation or a smoother resize leaves of the rate, without a mark
    "with_antialias": {"antialias": True},
    "with_rand_augment": {"augmentation": "rand_augment"},
    "with_trivial_augment": {"augmentation": "trivial_augment"},
    "with_erasing": {"random_erasing": 0.1},
    "with_mixup": {"mixup": 0.2},
    "with_cutmix": {"cutmix": 1.0},
    "with_repeated_3": {"repeated_augmentation": 3, "batch_size": 99},
}
MARKS |= {name: (name, "ours", None) for name in CHANGES}


def measure() -> dict:
    """Give each figure's rounds: images/s, of ours and theirs."""
    spawn = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as scratch, ProcessPoolExecutor(cores(), spawn) as pool:
        files = write_files(Path(scratch) / "raw")
        originals = write_shards(files, Path(scratch) / "shards", 0)
        stored = write_shards(files, Path(scratch) / "stored", 320)
        ways = tensorflow_ways(originals, stored) | other_ways(files, originals, pool)
        rates = take_turns(ways, Path(scratch))
        figures = compare(rates)
        pixels = tf_data.pixel_differences(originals, stored)
        levels = {"ours": pixels, "theirs": [255.0] * len(pixels), "unit": "levels"}
        figures["stored_320_pixels"] = levels | {"mark": PIXELS}
        if minutes := float(os.environ.get("MINUTES", 0)):
            data = tf_data.training_data(originals, shuffle_shards=8)
            peak, bound = resident.run(data, minutes)
            figures["resident"] = {"ours": [peak], "theirs": [bound], "mark": 1.0, "unit": "GiB"}
    return figures


def compare(rates: dict) -> dict:
    """Give the figures of the ways that were measured; say which were not."""
    figures = {}
    for name, (ours, theirs, mark) in MARKS.items():
        for place in ("", "_disk"):
            if {ours + place, theirs + place} <= set(rates):
                pair = {"ours": rates[ours + place], "theirs": rates[theirs + place]}
                figures[name + place] = pair | {"mark": mark, "unit": "images/s"}
        if theirs not in rates:
            print(f"{name}: left out, {theirs} is not installed")
    return figures


def take_turns(ways: dict, folder: Path) -> dict[str, list[float]]:
    """Measure each way once a round; give its images/s of each round."""
    rates = {name: [] for name in ways}
    for _ in range(ROUNDS):
        for name, start in ways.items():
            if name.endswith("_disk"):
                forget(folder)
            rates[name].append(rate(start()))
    return rates


def rate(batches) -> float:
    """Give images/s of an iterator over the images of each batch, once it runs evenly."""
    for _ in range(WARM):
        next(batches)
    images, start = 0, time.perf_counter()
    while (spent := time.perf_counter() - start) < SECONDS:
        images += next(batches)
    batches.close()
    return images / spent


def forget(folder: Path) -> None:
    """Drop the folder's files from the system's cache."""
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def tensorflow_ways(originals, stored) -> dict:
    ways = {"bound": partial(tf_data.bound, originals)}
    for place, memory in (("", True), ("_disk", False)):
        ways |= {
            f"ours{place}": partial(tf_data.ours, originals, memory),
            f"plain{place}": partial(tf_data.plain, originals, memory),
            f"stored{place}": partial(tf_data.ours, stored, memory),
        }
    changed = {
        name: partial(tf_data.ours, originals, True, **changes) for name, changes in CHANGES.items()
    }
    return ways | changed


def other_ways(files, originals, pool) -> dict:
    """Give the ways without TensorFlow that are installed; each starts its workers once."""
    windows = np.tile(tf_data.windows(originals), (COPIES, 1))
    photographs = pillow.Photographs(
        files, windows, COPIES * tf_data.flips(originals), tf_data.SIZE
    )
    check_pixels(photographs, originals)
    ways = {"pillow": partial(pillow.processes, pool, cores(), photographs)}
    if pillow.has_torch():
        loader = pillow.torch_loader(photographs, workers=cores())
        ways["torch"] = partial(pillow.torch_batches, loader)
    if dali.installed():
        ways["dali"] = partial(dali.batches, photographs, threads=cores())
    return ways | {f"{name}_disk": way for name, way in ways.items()}


def check_pixels(photographs, originals) -> None:
    """Raise RuntimeError unless all make the same of a photograph, but for Pillow's smoothing."""
    theirs = [photographs[number] for number in range(tf_data.BATCH)]
    batches = {"ours": tf_data.first_images(originals) - pillow.MEANS}
    if dali.installed():
        batches["DALI's"] = dali.first_batch(photographs)
    for name, images in batches.items():
        differences = np.abs(images - theirs).mean(axis=(1, 2, 3))
        if differences.mean() > LIMIT:
            raise RuntimeError(f"{name} are {differences.mean():.1f} levels from Pillow's")
