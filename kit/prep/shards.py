"""Raw images to evenly sized, class-mixed TFRecord shards.

A shard is a pure function of its plan, so any process may write it at any time.
"""

import contextlib
import functools
import multiprocessing
import os
import random
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import NamedTuple

import tensorflow as tf

import kit
from kit import ROOT
from kit.prep import manifest, records
from kit.prep.manifest import class_names, read_manifest, shard_paths, verify  # noqa: F401
from kit.prep.sources import ClassName, Image, Index, printable, read_boxes

MAX_FILE_BYTES = 2**28  # of one image; ImageNet's largest has 15 million
IMAGES_PER_WORKER = 5000  # a worker takes about as long to start as to read their headers


class ShardPlan(NamedTuple):
    name: str  # such as train-00000-of-01024
    split: str
    images: list[Image]  # in the order of the records


def plan(index: Index, *, train_shards, validation_shards, seed) -> list[ShardPlan]:
    """Give which image stands in which shard at which place.

    Each split is shuffled once and cut into shards whose sizes differ by one at the most.
    Raises ValueError when a split has fewer images than shards.
    """
    plans = []
    for split, shards in (("train", train_shards), ("validation", validation_shards)):
        images = [image for image in index.images if image.split == split]
        if not 1 <= shards <= len(images):
            raise ValueError(
                f"{split}_shards: {shards} for {len(images)} {split} images: choose a number "
                f"from 1 to {len(images)}"
            )
        # Only random() is promised to give the same numbers in every version of Python.
        source = random.Random(f"{seed} {split}")
        order = [source.random() for _ in images]
        images = [image for _, image in sorted(zip(order, images, strict=True))]
        cuts = [len(images) * number // shards for number in range(shards + 1)]
        for number in range(shards):
            name = f"{split}-{number:05d}-of-{shards:05d}"
            plans.append(ShardPlan(name, split, images[cuts[number] : cuts[number + 1]]))
    return plans


def write_shards(
    index: Index,
    *,
    data_dir,
    raw_dir,
    train_shards,
    validation_shards,
    seed,
    check,
    quarantine_budget,
    processes,
    progress=lambda tasks, total: tasks,
) -> dict:
    """Write the shards, classes.tsv and, last, manifest.json to data_dir; returns the manifest.

    Does nothing where the same set stands already. check: "full" decodes every image once,
    "header" reads its first bytes. An unreadable image is quarantined; over the share
    `quarantine_budget` of them, preparation fails. processes: 0 for one per core.
    progress(tasks, total) wraps the stream of finished shards, as tqdm does.
    Raises ValueError for a bad parameter, too many unreadable images, or a data_dir that holds
    something else, and OSError naming the file that cannot be read or written.
    """
    _check_parameters(check, quarantine_budget, processes)
    folder, root = ROOT / data_dir, ROOT / raw_dir
    parameters = {"train_shards": train_shards, "validation_shards": validation_shards}
    plans = plan(index, **parameters, seed=seed)
    parameters |= {"seed": seed, "check": check}
    head = {
        "kit_version": kit.__version__,
        "layout": index.layout,
        "source": printable(raw_dir),
        "label_offset": records.LABEL_OFFSET,
        "parameters": parameters,
        "fingerprint": manifest.fingerprint(index, root, parameters),
        "classes": [name._asdict() for name in index.classes],
        "skipped": [manifest.remark(path, reason, root) for path, reason in index.skipped],
    }
    if manifest.stands(folder, head):
        return read_manifest(folder)
    manifest.begin(folder, head)
    task = functools.partial(
        write_shard, data_dir=folder, raw_dir=root, classes=index.classes, check=check
    )
    tasks = _run(task, plans, processes)
    shards = _collect(tasks, len(plans), quarantine_budget, len(index.images), progress, folder)
    return manifest.finish(folder, head, shards, len(index.images))


def write_shard(shard: ShardPlan, *, data_dir, raw_dir, classes, check) -> dict:
    """Write one shard, by rename, and returns its entry of the manifest.

    The entry also says its "split" and which files were "mended" and "quarantined", and why.
    """
    histogram = [0] * len(classes)
    remarks = {"mended": [], "quarantined": []}
    path = Path(data_dir) / shard.name
    temporary = path.with_name(f".{shard.name}.tmp")
    try:
        with tf.io.TFRecordWriter(str(temporary)) as writer:
            for image in shard.images:
                example, kind, reason = _read_example(image, classes[image.label], check)
                if kind:
                    remarks[kind].append(manifest.remark(image.path, reason, raw_dir))
                if example:
                    writer.write(example)
                    histogram[image.label] += 1
        entry = {
            "split": shard.split,
            "name": shard.name,
            "records": sum(histogram),
            "bytes": temporary.stat().st_size,
            "sha256": manifest.hash_file(temporary),
            "classes": histogram,
        }
        temporary.replace(path)
    except tf.errors.OpError as error:
        raise OSError(f"shard {path} cannot be written: {error.message}") from None
    finally:
        temporary.unlink(missing_ok=True)
    return entry | remarks


def _read_example(image: Image, name: ClassName, check: str) -> tuple[bytes, str, str]:
    """Give the serialized Example, and "mended" or "quarantined" with the reason if so."""
    boxes = read_boxes(image.boxes, name.wnid) if image.boxes else []
    path = Path(image.path)
    try:
        encoded, reason = records.mend(_read_bytes(path))
        header = records.read_header(encoded)
        if check == "full":
            records.check_decodes(encoded)
    except ValueError as error:
        return b"", "quarantined", str(error)
    example = records.encode_example(
        encoded=encoded,
        height=header.height,
        width=header.width,
        label=image.label,
        wnid=name.wnid,
        name=name.name,
        filename=path.name,
        boxes=boxes,
    )
    return example, "mended" if reason else "", reason


def _read_bytes(path: Path) -> bytes:
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise ValueError(f"a file of more than {MAX_FILE_BYTES:,} bytes")
        return path.read_bytes()
    except OSError as error:
        raise type(error)(f"{printable(path)} cannot be read ({error.strerror})") from None


def _check_parameters(check, quarantine_budget, processes) -> None:
    if check not in ("full", "header"):
        raise ValueError(f"check: {check!r} is neither 'full' nor 'header'")
    if not 0 <= quarantine_budget <= 1:
        raise ValueError(f"quarantine_budget: {quarantine_budget} is not between 0 and 1")
    if processes < 0:
        raise ValueError(f"processes: {processes} is negative: 0 stands for one per core")


def _run(task, plans: list[ShardPlan], processes: int) -> Iterator[dict]:
    """Yield each finished shard's entry, in order; closing the iterator cancels the rest."""
    images = sum(len(shard.images) for shard in plans)
    workers = processes or min(_cores(), 1 + images // IMAGES_PER_WORKER)
    workers = min(workers, len(plans))
    if workers == 1:
        yield from map(task, plans)
        return
    spawn = multiprocessing.get_context("spawn")  # TensorFlow does not survive a fork
    pool = ProcessPoolExecutor(workers, mp_context=spawn, initializer=_start_worker)
    try:
        yield from pool.map(task, plans)
    except BrokenProcessPool:
        raise ChildProcessError(
            f"one of {workers} worker processes died, perhaps for want of memory: lower processes"
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def _start_worker() -> None:
    tf.config.set_visible_devices([], "GPU")  # else each worker would claim the GPU's memory
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)


def _collect(tasks, total: int, budget: float, images: int, progress, folder: Path) -> list[dict]:
    """Give all shards' entries; ValueError as soon as too many images are unreadable."""
    shards, unreadable = [], []
    with contextlib.closing(tasks):
        for shard in progress(tasks, total):
            shards.append(shard)
            unreadable += shard["quarantined"]
            if len(unreadable) > budget * images:
                break
        else:
            return shards
    manifest.clear(folder)
    named = "; ".join(f"{item['file']} ({item['reason']})" for item in unreadable[:3])
    raise ValueError(
        f"{len(unreadable)} images found unreadable so far, over the quarantine_budget of {budget} "
        f"of {images}: {named}{' ...' if len(unreadable) > 3 else ''}: repair or remove them, or "
        "raise quarantine_budget"
    )
