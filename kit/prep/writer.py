"""Writes raw images to evenly sized, class-mixed TFRecord shards.

A shard is a pure function of its plan, so any process of any machine may write it at any time:
the rename to its name is the commit, and what is written twice is the same.
"""

import hashlib
import random
import tempfile
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path
from typing import NamedTuple

import tensorflow as tf

from kit.data import paths, storage
from kit.data.folders import named
from kit.data.images import form_of, prepare, read_header
from kit.data.manifest import CHANGES, MANIFEST, read_manifest
from kit.data.paths import printable
from kit.files import hash_file, temporary_beside
from kit.locks import holding, holding_remote
from kit.prep import imagenet, manifest_writer, table
from kit.prep.boxes import turn
from kit.prep.examples import encode_example
from kit.prep.reading import Image, Index, boxes_of, read_image, source_name
from kit.prep.sections import Preparation
from kit.prep.workers import run_tasks, take_turn

LOCK = ".preparation.lock"  # in data_dir


class ShardPlan(NamedTuple):
    name: str  # such as train-00000-of-01024
    split: str
    images: list[Image]  # in the order of the records


def plan(index: Index, preparation: Preparation, *, seed) -> list[ShardPlan]:
    """Decide which image is written to which shard, in which order.

    Each split is shuffled once and cut into shards whose sizes differ by one at the most. A test
    split, where there is one, gets as many as validation, or one for each image.
    Raises ValueError when a split has fewer images than shards.
    """
    tested = sum(image.split == "test" for image in index.images)
    return [
        *_plan_split(index, "train", preparation.train_shards, seed),
        *_plan_split(index, "validation", preparation.validation_shards, seed),
        *_plan_split(index, "test", min(preparation.validation_shards, tested), seed),
    ]


def _plan_split(index: Index, split: str, shards: int, seed: int) -> list[ShardPlan]:
    images = [image for image in index.images if image.split == split]
    if shards > len(images):
        raise ValueError(
            f"{split}_shards: {shards} for {len(images)} {split} images: choose a number "
            f"from 1 to {len(images)}"
        )
    # Only random() is promised to give the same numbers in every version of Python.
    source = random.Random(f"{seed} {split}")
    images.sort(key=lambda image: source.random())
    cuts = [len(images) * number // max(1, shards) for number in range(shards + 1)]
    return [
        ShardPlan(f"{split}-{number:05d}-of-{shards:05d}", split, images[start:end])
        for number, (start, end) in enumerate(zip(cuts, cuts[1:], strict=False))
    ]


def write_shards(
    index: Index,
    preparation: Preparation,
    *,
    raw_dir,
    data_dir,
    seed,
    progress=lambda tasks, total: tasks,
) -> dict:
    """Write the shards, classes.tsv and, last, manifest.json to data_dir; returns the manifest.

    Writes only the missing shards: none of a finished set, the rest of a set whose writing was
    interrupted. An image that cannot be read is quarantined; more than `quarantine_budget` of them
    are an error. progress(tasks, total) wraps the stream of finished shards, as tqdm does.
    Raises ValueError for more shards than images, too many unreadable images, or a data_dir that
    holds something else, also where files of raw_dir have other times and other bytes than those
    that the shards were written from, and OSError naming the file that cannot be read or written,
    or another process that prepares data_dir.
    """
    folder = storage.folder(data_dir)
    plans = plan(index, preparation, seed=seed)
    head = manifest_writer.head(index, preparation, raw_dir=raw_dir, seed=seed)
    root, what = table.root_of(raw_dir), f"data_dir {folder} is being prepared"
    task = partial(
        write_shard, folder=folder, root=root, classes=index.classes, preparation=preparation
    )
    with holding(folder.local / LOCK, what) if folder.local else holding_remote(folder, LOCK, what):
        return _write_missing(index, plans, preparation, folder, head, task, progress)


def _write_missing(index, plans, preparation, folder, head, task, progress) -> dict:
    found, done = manifest_writer.begin(folder, head)
    times = head["source_times"]
    if done and found.get("source_times", times) != times:  # the first versions knew no times
        _check_sources(folder, [shard for shard in plans if shard.name in done], done, progress)
        manifest_writer.set_times(folder, found, times)
    todo = [shard for shard in plans if shard.name not in done]
    if not todo and folder.size(MANIFEST):
        manifest_writer.remove_records(folder)
        return read_manifest(folder)
    with closing(_run(task, todo, folder, preparation)) as tasks:
        shards = progress(tasks, len(todo))
        _collect(shards, done, preparation.quarantine_budget, len(index.images))
    entries = [done[shard.name] for shard in plans]
    if not any(entry["quarantined"] for entry in entries):
        imagenet.check_boxes(index, sum(entry["boxes"] for entry in entries))
    return manifest_writer.finish(folder, head, entries, len(index.images))


def write_shard(shard: ShardPlan, *, folder, root, classes, preparation: Preparation) -> dict:
    """Write one shard, whole or not at all, record that it is finished, and give its entry.

    The entry also says its "split" and which files were "reencoded" and "quarantined", and why.
    """
    temporary = temporary_beside(Path(folder.local or tempfile.gettempdir()) / f"{shard.name}.tmp")
    entry = {"split": shard.split, "name": shard.name, "records": 0, "bytes": 0, "sha256": ""}
    entry |= {"source_sha256": "", "classes": [0] * len(classes), "boxes": 0, "smaller": 0}
    entry |= {kind: [] for kind in CHANGES}
    try:
        _write_records(temporary, shard, entry, root, classes, preparation)
        entry |= {"bytes": temporary.stat().st_size, "sha256": hash_file(temporary)}
        folder.put(shard.name, temporary)
    except tf.errors.OpError as error:
        reason = printable(error.message)
        raise OSError(
            f"shard {folder.path(shard.name)} cannot be written: {reason}: finished shards are kept"
        ) from None
    finally:
        temporary.unlink(missing_ok=True)
    manifest_writer.record(folder, entry)
    return entry


def _write_records(path: Path, shard: ShardPlan, entry, root, classes, preparation) -> None:
    with tf.io.TFRecordWriter(str(path)) as file:
        for image in shard.images:
            try:
                with ExitStack() as stack:
                    example = _read_example(image, entry, root, classes, preparation, stack)
                    if example:
                        file.write(example)
                    del example  # in its turn
            except (OSError, ValueError):  # they name the file
                raise
            except Exception as error:
                raise RuntimeError(
                    f"{source_name(image, root)} cannot be prepared "
                    f"({type(error).__name__}: {error})"
                ) from error


def _read_example(image: Image, entry: dict, root: str, classes, preparation, stack) -> bytes:
    """Give the serialized Example, b"" for an unreadable image; count it in the shard's entry.

    A large image has its turn (`take_turn`) until `stack` ends.
    """

    def note(kind, reason):
        file = {"file": source_name(image, root), "reason": printable(reason)}
        entry[kind].append(file | {"shard": entry["name"]})

    wnid, name = classes[image.label]
    try:
        take_turn(stack, 0 if image.in_parquet else image.size)
        data = read_image(image)
        entry["source_sha256"] = _chained(entry["source_sha256"], data)
        original = read_header(data)
        take_turn(stack, original.height * original.width)
        prepared = prepare(data, original, form_of(vars(preparation)), check=preparation.check)
    except (ValueError, OSError) as error:
        if isinstance(error, OSError) and paths.is_remote(image.path):  # of the network
            raise
        note("quarantined", str(error).removeprefix(f"{printable(image.path)} "))
        return b""
    encoded, header, reason, resized, orientation = prepared
    boxes = turn(boxes_of(image, classes, original.height, original.width), orientation)
    if reason:
        note("reencoded", reason)
    entry["records"] += 1
    entry["classes"][image.label] += 1
    entry["boxes"] += len(boxes)
    entry["smaller"] += resized
    return encode_example(
        encoded=encoded,
        height=header.height,
        width=header.width,
        label=image.label,
        wnid=wnid,
        name=name,
        filename=image.name,
        boxes=boxes,
    )


def _chained(digest: str, data: bytes) -> str:
    found = hashlib.sha256(digest.encode())  # of all images before
    found.update(data)
    return found.hexdigest()


def hash_source(shard: ShardPlan) -> tuple[str, str]:
    """Give the shard's name and its "source_sha256", as its images are now."""
    digest = ""
    for image in shard.images:
        try:
            digest = _chained(digest, read_image(image))
        except (ValueError, OSError) as error:  # unreadable, perhaps as when the shard was written
            if isinstance(error, OSError) and paths.is_remote(image.path):
                raise
    return shard.name, digest


def _check_sources(folder, shards: list[ShardPlan], done: dict, progress) -> None:
    """Raise ValueError for shards that were written from other bytes than raw_dir holds now."""
    images = sum(len(shard.images) for shard in shards)
    with closing(run_tasks(hash_source, shards, processes=0, images=images)) as tasks:
        found = dict(progress(tasks, len(shards)))
    other = [name for name in found if found[name] != done[name].get("source_sha256", found[name])]
    if other:
        raise ValueError(
            f"data_dir {folder} holds shards of images that have changed since: {named(other)}: "
            "delete it or name another data_dir"
        )


def _run(task, todo: list[ShardPlan], folder, preparation: Preparation):
    if preparation.spark_master:
        from kit.prep import spark

        return spark.run_tasks(task, todo, folder=folder, spark_master=preparation.spark_master)
    images = sum(len(shard.images) for shard in todo)
    return run_tasks(task, todo, processes=preparation.processes, images=images)


def _collect(tasks, done: dict, budget: float, images: int) -> None:
    """Add the entries of `tasks` to `done`; ValueError as soon as too many are unreadable."""
    unreadable = [image for entry in done.values() for image in entry["quarantined"]]
    for entry in tasks:
        done[entry["name"]] = entry
        unreadable += entry["quarantined"]
        if len(unreadable) > budget * images:
            names = named([f"{image['file']} ({image['reason']})" for image in unreadable], 3)
            raise ValueError(
                f"{len(unreadable)} images found unreadable so far, over the quarantine_budget of "
                f"{budget} of {images}: {names}: raise quarantine_budget to go on, or repair or "
                "remove them and start again with another data_dir"
            )
