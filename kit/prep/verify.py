"""Reads every shard back: the kit's own against their manifest, others for what they hold."""

import hashlib
import re
from collections import Counter
from contextlib import closing
from functools import partial

import numpy as np
import tensorflow as tf
from scipy.stats import chisquare

from kit.data import storage
from kit.data.folders import named
from kit.data.manifest import CLASSES, MANIFEST, REMEDY, classes_table, read_manifest, shard_paths
from kit.data.paths import printable
from kit.files import hash_file
from kit.prep.workers import run_tasks

ANY_SHARD = re.compile(r"([A-Za-z]+)-(\d{5})-of-(\d{5})")
NEEDED = ("image/encoded", "image/class/label")  # of each record, to train on it
NAMES = ("image/class/synset", "image/class/text")
BYTES = 110_000  # of an image, as ImageNet has them

# A shard is unmixed when no more than this share of mixed shards would be as uneven. A shard of one
# class out of ten is from 8 records on.
UNMIXED = 1e-10


def verify(data_dir, *, processes, progress=lambda tasks, total: tasks) -> dict:
    """Read every record of every shard: checksums, count, labels, order, repeated images.

    With a manifest each shard must be as it says. Without one, as in shards that others made:
    what is missing and how labels count is reported. processes: 0 for one per core.

    Returns "splits" {split: {"shards", "images"}}; "labels" {"lowest", "highest", "distinct",
    "convention"} as on disk; "unmixed" and "sorted", the shards whose classes are not mixed or come
    in order; "missing", shards that a name's -of-NNNNN promises; "repeated", lists of (shard,
    record) with the same image. Raises ValueError naming shard and record of what is damaged.
    """
    folder = storage.folder(data_dir)
    expected = _read_expected(folder) if folder.size(MANIFEST) is not None else {}
    names = list(expected) or [name for name in folder.names() if ANY_SHARD.fullmatch(name)]
    if not names:
        raise FileNotFoundError(
            f"data_dir {folder} holds no shards (train-00000-of-01024 and so on): {REMEDY}"
        )
    images = sum(map(folder.size, names)) // BYTES
    task = partial(read_shard, folder=folder)
    with closing(run_tasks(task, names, processes=processes, images=images)) as tasks:
        found = {shard["name"]: shard for shard in progress(tasks, len(names))}
    shards = [found[name] for name in names]
    _check_damage(folder, shards, expected)
    splits = {}
    for shard in shards:
        splits.setdefault(ANY_SHARD.fullmatch(shard["name"])[1], []).append(shard)
    return {
        "splits": {
            split: {"shards": len(part), "images": sum(len(shard["labels"]) for shard in part)}
            for split, part in splits.items()
        },
        "labels": _describe_labels(shards),
        "unmixed": [name for part in splits.values() for name in _find_unmixed(part)],
        "sorted": [
            shard["name"]
            for shard in shards
            if len(set(shard["labels"])) > 2 and (np.diff(shard["labels"]) >= 0).all()
        ],
        "repeated": _find_repeated(shards),
        "missing": _find_missing(names),
    }


def read_shard(name: str, *, folder) -> dict:
    """Read one shard: sha256, labels on disk in order, classes, digests of images, damage.

    Classes are triples of a label on disk, wnid and class name.
    """
    path = folder.path(name)
    labels, digests, classes, damage = [], [], set(), _check_frames(path)
    try:
        for record in tf.data.TFRecordDataset(path) if not damage else ():
            feature = tf.train.Example.FromString(record.numpy()).features.feature
            if absent := [key for key in NEEDED if key not in feature]:
                raise ValueError(f"{' and '.join(absent)} missing")
            labels.append(feature["image/class/label"].int64_list.value[0])
            texts = (feature[key].bytes_list.value[0].decode() for key in NAMES if key in feature)
            classes.add((labels[-1], *texts))
            encoded = feature["image/encoded"].bytes_list.value[0]
            digests.append(hashlib.sha256(encoded).digest()[:16])
    except tf.errors.DataLossError:
        damage = f"record {len(labels)} has another checksum"
    except Exception as error:  # protobuf's own, an empty list, a missing key
        damage = f"record {len(labels)} is no Example of an image ({printable(str(error))})"
    return {
        "name": name,
        "labels": np.asarray(labels, np.int64),
        "names": classes,
        "digests": np.asarray(digests, "V16"),
        "sha256": hash_file(path),
        "damage": damage,
    }


def is_unmixed(histogram, totals) -> bool:
    """Tell whether a shard is too uneven to come from a mixed split, by a chi-square test.

    histogram: records by class of the shard; totals: of its split, none of them 0.
    """
    share = np.sum(histogram) / np.sum(totals)
    return bool(share and chisquare(histogram, np.multiply(totals, share)).pvalue < UNMIXED)


def _read_expected(folder) -> dict[str, dict]:
    read = read_manifest(folder)
    for split in read["splits"]:
        shard_paths(folder, split)  # all there, all of the manifest's size
    table = classes_table(read)
    if folder.size(CLASSES) is not None and folder.read(CLASSES) != table.encode():
        raise ValueError(f"{folder}/{CLASSES} does not have the classes of {MANIFEST}: {REMEDY}")
    names = {
        (label, printable(name["wnid"]), printable(name["name"]))
        for label, name in enumerate(read["classes"], start=read["label_offset"])
    }
    return {
        shard["name"]: shard | {"offset": read["label_offset"], "names": names}
        for part in read["splits"].values()
        for shard in part["shards"]
    }


def _check_frames(path: str) -> str:
    """Give what is wrong with the records' lengths, "" if nothing.

    TensorFlow would ask for as much memory as a false length says.
    """
    with tf.io.gfile.GFile(path, "rb") as file:
        end, at, record = file.size(), 0, 0
        while at < end:
            file.seek(at)
            length = int.from_bytes(file.read(8), "little")
            at += length + 16  # its own 8 bytes, and two checksums of 4
            if at > end:
                return f"record {record} is cut off or states a false length"
            record += 1
    return ""


def _check_damage(folder, shards: list[dict], expected: dict) -> None:
    problems = [
        f"{folder.path(shard['name'])}: {problem}"
        for shard in shards
        if (problem := shard["damage"] or _differs(shard, expected.get(shard["name"])))
    ]
    if problems:
        raise ValueError(f"{named(problems, 3)}: delete these shards and {REMEDY}")


def _differs(shard: dict, entry: dict | None) -> str:
    """Give how a shard differs from its manifest's entry, "" if it does not or there is none."""
    if entry is None:
        return ""
    if shard["sha256"] != entry["sha256"]:
        return "has changed since it was written (another SHA-256)"
    if others := shard["names"] - entry["names"]:
        label, *names = min(others, key=str)
        return f"calls label {label} {' '.join(map(str, names))}, and its manifest does not"
    labels = shard["labels"] - entry["offset"]
    if len(labels) and not 0 <= labels.min() <= labels.max() < len(entry["classes"]):
        return f"has labels from {labels.min()} to {labels.max()}, not of its classes"
    histogram = np.bincount(labels, minlength=len(entry["classes"])).tolist()
    if histogram != entry["classes"] or len(labels) != entry["records"]:
        return f"holds {len(labels)} records, and not the classes that its manifest says"
    return ""


def _find_unmixed(shards: list[dict]) -> list[str]:
    labels = [shard["labels"] for shard in shards]
    classes, places = np.unique(np.concatenate(labels), return_inverse=True)
    totals = np.bincount(places, minlength=len(classes))
    places = np.split(places, np.cumsum([len(part) for part in labels])[:-1])
    return [
        shard["name"]
        for shard, part in zip(shards, places, strict=True)
        if is_unmixed(np.bincount(part, minlength=len(classes)), totals)
    ]


def _describe_labels(shards: list[dict]) -> dict:
    used = np.unique(np.concatenate([shard["labels"] for shard in shards]))
    if not len(used):
        return {"lowest": None, "highest": None, "distinct": 0, "convention": "no record"}
    lowest, highest = int(used[0]), int(used[-1])
    convention = "unclear: labels start elsewhere than 0 or 1, or some between are not used"
    if len(used) == highest - lowest + 1 and lowest in (0, 1):
        convention = f"{lowest}-based, {len(used)} classes"
        if (lowest, highest) == (0, 1000):
            convention = "0-based, 1001 classes: 0 is used as if it were one"
        elif (lowest, highest) == (1, 1000):
            convention += " (1001 outputs where 0 stands for the background)"
    return {"lowest": lowest, "highest": highest, "distinct": len(used), "convention": convention}


def _find_repeated(shards: list[dict]) -> list[list[tuple[str, int]]]:
    counts = Counter(digest for shard in shards for digest in shard["digests"].tolist())
    found = {}
    for shard in shards:
        for record, digest in enumerate(shard["digests"].tolist()):
            if counts[digest] > 1:
                found.setdefault(digest, []).append((shard["name"], record))
    return list(found.values())


def _find_missing(names: list[str]) -> list[str]:
    series = {(m[1], m[3]) for m in map(ANY_SHARD.fullmatch, names)}
    promised = (
        f"{split}-{number:05d}-of-{of}" for split, of in sorted(series) for number in range(int(of))
    )
    return [name for name in promised if name not in names]
