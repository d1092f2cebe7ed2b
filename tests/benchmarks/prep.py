"""Preparation: our shard tasks against the old converter's way, and against a plain copy."""

import functools
import multiprocessing
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import tensorflow as tf
from PIL import Image

from kit import params
from kit.data import storage
from kit.machine import cores
from kit.prep import reading, sources, writer
from kit.prep.examples import encode_example
from kit.prep.workers import start_worker

ROUNDS = 7
CLASSES, PHOTOGRAPHS, COPIES = 10, 100, 50  # 5,000 files,
SHARDS = 4  # in shards of ImageNet's own size
BYTES = 110_000  # ImageNet's mean file, of 0.2 megapixels
IMAGENET = 1_281_167 + 50_000
HALF_A_DAY = 12 * 3600  # seconds: what the 2018 recipe says that preparing ImageNet takes


def measure() -> dict:
    """Give each figure's rounds: images/s of ours and theirs; half a day is for all of ImageNet."""
    with tempfile.TemporaryDirectory() as scratch:
        raw_dir, data_dir = Path(scratch) / "raw", Path(scratch) / "shards"
        make_photographs(raw_dir)
        data_dir.mkdir()
        rates = take_turns(raw_dir, data_dir)
    rates["half_a_day"] = [IMAGENET / HALF_A_DAY] * ROUNDS
    marks = {
        "header_vs_decode": 5.0,
        "header_vs_copy": 0.5,
        "full_vs_decode": 1.2,
        "full_vs_half_a_day": 1.0,
    }
    figures = {}
    for name, mark in marks.items():
        ours, _, theirs = name.partition("_vs_")
        figures[name] = {"ours": rates[ours], "theirs": rates[theirs]}
        figures[name] |= {"mark": mark, "unit": "images/s"}
    return figures


def make_photographs(raw_dir: Path) -> None:
    """Write 5,000 JPEGs of about ImageNet's mean size: noisy crops of scikit-image's pictures."""
    from skimage import data

    names = ("astronaut", "chelsea", "coffee", "rocket", "retina")
    pictures = [Image.fromarray(getattr(data, name)()).convert("RGB") for name in names]
    rng = np.random.default_rng(0)
    for number in range(PHOTOGRAPHS):
        picture = pictures[number % len(pictures)]
        left, top = (int(rng.integers(0, side // 4)) for side in picture.size)
        box = (left, top, left + picture.width * 3 // 4, top + picture.height * 3 // 4)
        pixels = np.asarray(picture.resize((500, 400), Image.BICUBIC, box), float)
        pixels = (pixels + rng.normal(0, 9, pixels.shape)).clip(0, 255).astype(np.uint8)
        folder = raw_dir / f"class{number % CLASSES}"
        folder.mkdir(parents=True, exist_ok=True)
        encoded = encode_to_size(Image.fromarray(pixels))
        for copy in range(COPIES):
            (folder / f"{number}_{copy}.jpg").write_bytes(encoded)


def encode_to_size(picture: Image.Image) -> bytes:
    """Give the JPEG of the highest quality that is not larger than BYTES."""
    with tempfile.SpooledTemporaryFile(2**20) as file:
        for quality in range(96, 40, -2):
            file.seek(0)
            file.truncate()
            picture.save(file, "JPEG", quality=quality)
            if file.tell() <= BYTES:
                break
        file.seek(0)
        return file.read()


def take_turns(raw_dir: Path, data_dir: Path) -> dict[str, list[float]]:
    """Run each way once a round, all of them in the same processes, started beforehand."""
    changes = {"train_shards": SHARDS, "validation_shards": 1, "check": "header"}
    changes["validation_fraction"] = 0.001  # an image of each class; it is left out below
    header = params.load(None, changes).preparation
    index = sources.read_index(raw_dir, header, seed=0)
    plans = writer.plan(index, header, seed=0)[:SHARDS]
    common = {"folder": storage.folder(data_dir), "classes": index.classes}
    write = partial(writer.write_shard, **common, root=str(raw_dir))
    ways = {
        "header": partial(write, preparation=header),
        "full": partial(write, preparation=replace(header, check="full")),
        "decode": partial(convert_as_of_old, **common),
        "copy": partial(copy_bytes, folder=common["folder"]),
    }
    rates = {name: [] for name in ways}
    images = sum(len(shard.images) for shard in plans)
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(cores(), mp_context=spawn, initializer=start_worker) as pool:
        for turn in range(-1, ROUNDS):  # the first one warms up
            for name, way in ways.items():
                start = time.perf_counter()
                list(pool.map(way, plans))
                if turn >= 0:
                    rates[name].append(images / (time.perf_counter() - start))
    return rates


@functools.cache
def start_coder():
    """Give the function of the old converter's ImageCoder: a session that decodes to an array."""
    with tf.Graph().as_default():
        data = tf.compat.v1.placeholder(tf.string)
        image = tf.io.decode_jpeg(data, channels=3)
        return tf.compat.v1.Session().make_callable(image, [data])


def convert_as_of_old(shard, *, folder, classes) -> None:
    """Write a shard as build_imagenet_data.py does: each image is decoded for its size.

    Nothing is checked, hashed or flushed to disk.
    """
    decode = start_coder()
    with tf.io.TFRecordWriter(folder.path(shard.name)) as file:
        for image in shard.images:
            encoded = Path(image.path).read_bytes()
            height, width, _ = decode(encoded).shape
            example = encode_example(
                encoded=encoded,
                height=height,
                width=width,
                label=image.label,
                wnid=classes[image.label].wnid,
                name=classes[image.label].name,
                filename=image.name,
                boxes=[],
            )
            file.write(example)


def copy_bytes(shard, *, folder) -> None:
    """Put the same bytes into as many files, flushed to disk as ours are."""
    temporary = Path(folder.path(f".{shard.name}.copy"))
    with temporary.open("wb") as file:
        for image in shard.images:
            file.write(reading.read_image(image))
    folder.put(shard.name, temporary)
