"""Raw images to evenly sized, class-mixed TFRecord shards.

A shard is a pure function of its plan, so any process of any machine may write it at any time:
the rename to its name is the commit, and what is written twice is the same.
"""

import functools
import random
import tempfile
from contextlib import closing
from pathlib import Path
from typing import NamedTuple
from uuid import uuid4

import tensorflow as tf

import kit
from kit.data import paths, storage
from kit.data.images import prepare, read_header
from kit.data.manifest import CHANGES, MANIFEST, read_manifest
from kit.data.paths import printable
from kit.data.records import LABEL_OFFSET
from kit.files import hash_file
from kit.machine import cores
from kit.prep import imagenet, manifest_writer
from kit.prep.examples import encode_example
from kit.prep.reading import boxes_of, read_image, source_name
from kit.prep.sources import Image, Index
from kit.prep.workers import run_tasks

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
        keys = [source.random() for _ in images]
        images = [images[number] for number in sorted(range(len(images)), key=keys.__getitem__)]
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
    store_short_side,
    store_quality,
    quarantine_budget,
    processes,
    spark_master,
    progress=lambda tasks, total: tasks,
) -> dict:
    """Write the shards, classes.tsv and, last, manifest.json to data_dir; returns the manifest.

    Writes only the shards that do not stand already: none where the set is whole, the missing ones
    where a run was killed. check: "full" decodes every image once, "header" reads its first
    bytes. store_short_side: larger images are stored anew at it; 0 keeps all original bytes.
    An unreadable image is quarantined; over the share `quarantine_budget` of them, preparation
    fails. processes: 0 for one per core. spark_master: "" or a Spark cluster's address.
    progress(tasks, total) wraps the stream of finished shards, as tqdm does.
    Raises ValueError for a bad parameter, too many unreadable images, or a data_dir that holds
    something else, and OSError naming the file that cannot be read or written.
    """
    _check_parameters(check, store_short_side, store_quality, quarantine_budget, processes)
    folder = storage.folder(data_dir)
    parameters = {"train_shards": train_shards, "validation_shards": validation_shards}
    plans = plan(index, **parameters, seed=seed)
    store = {"check": check, "store_short_side": store_short_side, "store_quality": store_quality}
    head = _head(index, raw_dir, parameters | {"seed": seed} | store)
    done = manifest_writer.begin(folder, head)
    todo = [shard for shard in plans if shard.name not in done]
    if not todo and folder.size(MANIFEST):
        manifest_writer.remove_records(folder)
        return read_manifest(folder)
    task = functools.partial(
        write_shard, folder=folder, root=paths.resolve(raw_dir), classes=index.classes, **store
    )
    with closing(_run(task, todo, folder, processes, spark_master)) as tasks:
        shards = progress(tasks, len(todo))
        done |= _collect(shards, list(done.values()), quarantine_budget, len(index.images))
    entries = [done[shard.name] for shard in plans]
    if not any(entry["quarantined"] for entry in entries):
        imagenet.check_boxes(index, sum(entry["boxes"] for entry in entries))
    return manifest_writer.finish(folder, head, entries, len(index.images))


def write_shard(shard: ShardPlan, *, folder, root, classes, **store) -> dict:
    """Write one shard, whole or not at all, record that it is finished, and give its entry.

    The entry also says its "split" and which files were "reencoded" and "quarantined", and why.
    """
    temporary = Path(folder.local or tempfile.gettempdir()) / f".{shard.name}.{uuid4().hex}.tmp"
    entry = {"split": shard.split, "name": shard.name, "records": 0, "bytes": 0, "sha256": ""}
    entry |= {"classes": [0] * len(classes), "boxes": 0, "smaller": 0}
    entry |= {kind: [] for kind in CHANGES}
    try:
        with tf.io.TFRecordWriter(str(temporary)) as writer:
            for image in shard.images:
                if example := _named(image, entry, root, classes, **store):
                    writer.write(example)
        entry["bytes"] = temporary.stat().st_size
        entry["sha256"] = hash_file(temporary)
        folder.put(shard.name, temporary)
    except tf.errors.OpError as error:
        reason = printable(error.message)
        raise OSError(
            f"shard {folder.path(shard.name)} cannot be written: {reason}: what is finished is kept"
        ) from None
    finally:
        temporary.unlink(missing_ok=True)
    manifest_writer.record(folder, entry)
    return entry


def _named(image: Image, entry: dict, root: str, classes, **store) -> bytes:
    """Do as _read_example; an error that does not itself say which file it is of is made to."""
    try:
        return _read_example(image, entry, root, classes, **store)
    except (OSError, ValueError):
        raise
    except Exception as error:
        raise RuntimeError(
            f"{source_name(image, root)} cannot be prepared ({type(error).__name__}: {error})"
        ) from error


def _read_example(image: Image, entry: dict, root: str, classes, **store) -> bytes:
    """Give the serialized Example, b"" for an unreadable image; count it in the shard's entry."""
    try:
        data = read_image(image)
        original = read_header(data)
        encoded, header, reason, smaller = prepare(data, original, **store)
    except ValueError as error:
        entry["quarantined"].append(_note(image, root, str(error), entry["name"]))
        return b""
    boxes = boxes_of(image, classes, original.height, original.width)
    if reason:
        entry["reencoded"].append(_note(image, root, reason, entry["name"]))
    entry["records"] += 1
    entry["classes"][image.label] += 1
    entry["boxes"] += len(boxes)
    entry["smaller"] += smaller
    return encode_example(
        encoded=encoded,
        height=header.height,
        width=header.width,
        label=image.label,
        wnid=classes[image.label].wnid,
        name=classes[image.label].name,
        filename=image.name,
        boxes=boxes,
    )


def _note(image: Image, root: str, reason: str, shard: str) -> dict:
    return {"file": source_name(image, root), "reason": printable(reason), "shard": shard}


def _head(index: Index, raw_dir, parameters: dict) -> dict:
    """Give what the manifest says before any shard is written."""
    root = paths.resolve(raw_dir)
    return {
        "kit_version": kit.__version__,
        "layout": index.layout,
        "source": printable(raw_dir),
        "label_offset": LABEL_OFFSET,
        "parameters": parameters,
        "fingerprint": manifest_writer.fingerprint(index, root, parameters),
        "classes": [name._asdict() for name in index.classes],
        "skipped": [
            {"file": printable(path.removeprefix(f"{root}/")), "reason": reason}
            for path, reason in index.skipped
        ],
    }


def _check_parameters(check, short_side, quality, quarantine_budget, processes) -> None:
    if check not in ("full", "header"):
        raise ValueError(f"check: {check!r} is neither 'full' nor 'header'")
    if short_side < 0:
        raise ValueError(f"store_short_side: {short_side} is negative: 0 keeps the original bytes")
    if not 1 <= quality <= 100:
        raise ValueError(f"store_quality: {quality} is not between 1 and 100")
    if not 0 <= quarantine_budget <= 1:
        raise ValueError(f"quarantine_budget: {quarantine_budget} is not between 0 and 1")
    if processes < 0:
        raise ValueError(f"processes: {processes} is negative: 0 stands for one per core")


def _run(task, todo: list[ShardPlan], folder, processes: int, spark_master: str):
    """Give the stream of finished shards' entries, from this machine or from a cluster."""
    if spark_master:
        from kit.prep import spark

        return spark.run_tasks(task, todo, folder=folder, spark_master=spark_master)
    images = sum(len(shard.images) for shard in todo)
    processes = processes or min(cores(), 1 + images // IMAGES_PER_WORKER)
    return run_tasks(task, todo, processes=processes)


def _collect(tasks, done: list[dict], budget: float, images: int) -> dict[str, dict]:
    """Give the entries of `tasks` by name; ValueError as soon as too many images are unreadable."""
    found, unreadable = {}, [remark for entry in done for remark in entry["quarantined"]]
    for entry in tasks:
        found[entry["name"]] = entry
        unreadable += entry["quarantined"]
        if len(unreadable) > budget * images:
            break
    else:
        return found
    named = "; ".join(f"{item['file']} ({item['reason']})" for item in unreadable[:3])
    raise ValueError(
        f"{len(unreadable)} images found unreadable so far, over the quarantine_budget of {budget} "
        f"of {images}: {named}{' ...' if len(unreadable) > 3 else ''}: raise quarantine_budget to "
        "go on, or repair or remove them and begin anew in another data_dir"
    )
