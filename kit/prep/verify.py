"""Every shard read again: ours against their manifest, those of others for what they are."""

import functools
import hashlib
import re
from collections import Counter
from contextlib import closing

import numpy as np
import tensorflow as tf

from kit.data import manifest, storage
from kit.data.manifest import REMEDY
from kit.data.paths import printable
from kit.files import hash_file
from kit.machine import cores
from kit.prep.workers import run_tasks
from kit.prep.writer import IMAGES_PER_WORKER

ANY_SHARD = re.compile(r"([A-Za-z]+)-(\d{5})-of-(\d{5})")
NEEDED = ("image/encoded", "image/class/label")  # of each record, to train on it

# A shard is unmixed when its chi-square lies this many deviations above its mean: by chance once in
# a thousand million mixed shards. A shard of one class out of ten does so from 8 records on.
MIXED_DEVIATIONS = 6


def verify(data_dir, *, processes, progress=lambda tasks, total: tasks) -> dict:
    """Read every record of every shard: checksums, count, labels, order, repeated images.

    With a manifest each shard must be as it says. Without one, as in shards that others made:
    what is missing and how labels count is reported. processes: 0 for one per core.

    Returns "splits" {split: {"shards", "images"}}; "labels" {"lowest", "highest", "distinct",
    "convention"} as on disk; "unmixed" and "sorted", shards whose classes are not mixed or stand in
    order; "missing", shards that a name's -of-NNNNN promises; "repeated", pairs of places (shard,
    record) with the same image. Raises ValueError naming shard and record of what is damaged.
    """
    folder = storage.folder(data_dir)
    ours = folder.size(manifest.MANIFEST) is not None
    expected = _read_expected(folder) if ours else {}
    names = list(expected) or _find_shards(folder)
    sizes = {name: folder.size(name) for name in names}
    found = {}
    processes = processes or min(cores(), 1 + sum(sizes.values()) // (IMAGES_PER_WORKER * 110_000))
    task = functools.partial(read_shard, folder=folder)
    with closing(run_tasks(task, names, processes=processes)) as tasks:
        for shard in progress(tasks, len(names)):
            found[shard["name"]] = shard
    shards = [found[name] for name in names]
    _check_damage(folder, shards, expected)
    return _report(shards) | {"missing": _missing(names)}


def read_shard(name: str, *, folder) -> dict:
    """Read one shard: records, sha256, labels on disk in order, a digest of each image, damage."""
    path = folder.path(name)
    labels, digests, damage = [], [], _check_frames(path)
    try:
        for record in tf.data.TFRecordDataset(path) if not damage else ():
            feature = tf.train.Example.FromString(record.numpy()).features.feature
            if absent := [key for key in NEEDED if key not in feature]:
                raise ValueError(f"{' and '.join(absent)} missing")
            labels.append(feature["image/class/label"].int64_list.value[0])
            encoded = feature["image/encoded"].bytes_list.value[0]
            digests.append(hashlib.sha256(encoded).digest()[:16])
    except tf.errors.DataLossError:
        damage = f"record {len(labels)} has another checksum"
    except Exception as error:  # protobuf's own, an empty list, a missing key
        damage = f"record {len(labels)} is no Example of an image ({printable(str(error))})"
    return {
        "name": name,
        "labels": np.asarray(labels, np.int64),
        "digests": np.asarray(digests, "V16"),
        "sha256": hash_file(path),
        "damage": damage,
    }


def deviations(histogram, totals) -> float:
    """Give how many deviations a shard's chi-square lies above its mean, were classes mixed.

    histogram: records by class of the shard; totals: of its split. The cube root of chi-square over
    its degrees of freedom is nearly normal (Wilson and Hilferty, 1931).
    """
    histogram, totals = np.asarray(histogram, float), np.asarray(totals, float)
    histogram, totals = histogram[totals > 0], totals[totals > 0]
    freedom = len(totals) - 1
    if freedom < 1 or not histogram.sum():
        return 0.0
    expected = totals * histogram.sum() / totals.sum()
    chi_square = ((histogram - expected) ** 2 / expected).sum()
    spread = 2 / (9 * freedom)
    return float(((chi_square / freedom) ** (1 / 3) - (1 - spread)) / spread**0.5)


def _read_expected(folder) -> dict[str, dict]:
    read = manifest.read_manifest(folder)
    for split in read["splits"]:
        manifest.shard_paths(folder, split)  # all there, all of the manifest's size
    offset = read["label_offset"]
    return {
        shard["name"]: shard | {"offset": offset}
        for part in read["splits"].values()
        for shard in part["shards"]
    }


def _find_shards(folder) -> list[str]:
    names = [name for name in folder.names() if ANY_SHARD.fullmatch(name)]
    if not names:
        raise FileNotFoundError(
            f"data_dir {folder} holds no shards (train-00000-of-01024 and so on): {REMEDY}"
        )
    return names


def _check_frames(path: str) -> str:
    """Give what is wrong with the records' lengths, "" if nothing.

    A length that lies would have TensorFlow ask for as much memory.
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
    problems = []
    for shard in shards:
        problem = shard["damage"] or _differs(shard, expected.get(shard["name"]))
        if problem:
            problems.append(f"{folder.path(shard['name'])}: {problem}")
    if problems:
        more = f" and {len(problems) - 3} more" if len(problems) > 3 else ""
        raise ValueError(f"{'; '.join(problems[:3])}{more}: delete these shards and {REMEDY}")


def _differs(shard: dict, entry: dict | None) -> str:
    """Give how a shard differs from its manifest's entry, "" if it does not or there is none."""
    if entry is None:
        return ""
    if shard["sha256"] != entry["sha256"]:
        return "has changed since it was written (another SHA-256)"
    labels = shard["labels"] - entry["offset"]
    if len(labels) and not 0 <= labels.min() <= labels.max() < len(entry["classes"]):
        return f"has labels from {labels.min()} to {labels.max()}, not of its classes"
    histogram = np.bincount(labels, minlength=len(entry["classes"])).tolist()
    if histogram != entry["classes"] or len(labels) != entry["records"]:
        return f"holds {len(labels)} records, and not the classes that its manifest says"
    return ""


def _report(shards: list[dict]) -> dict:
    splits, unmixed, in_order = {}, [], []
    for split in dict.fromkeys(ANY_SHARD.fullmatch(shard["name"])[1] for shard in shards):
        part = [shard for shard in shards if shard["name"].startswith(f"{split}-")]
        labels = [shard["labels"] for shard in part]
        splits[split] = {"shards": len(part), "images": sum(map(len, labels))}
        classes, positions = np.unique(np.concatenate(labels), return_inverse=True)
        totals = np.bincount(positions, minlength=len(classes))
        for shard in part:
            histogram = np.bincount(
                np.searchsorted(classes, shard["labels"]), minlength=len(totals)
            )
            if deviations(histogram, totals) > MIXED_DEVIATIONS:
                unmixed.append(shard["name"])
            if len(set(shard["labels"])) > 2 and (np.diff(shard["labels"]) >= 0).all():
                in_order.append(shard["name"])
    report = {"splits": splits, "labels": _describe_labels(shards)}
    return report | {"unmixed": unmixed, "sorted": in_order, "repeated": _find_repeated(shards)}


def _describe_labels(shards: list[dict]) -> dict:
    """Describe labels as on disk; the convention is named where the labels themselves show it."""
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
    digests = np.concatenate([shard["digests"] for shard in shards])
    counts = Counter(digests.tolist()) if len(digests) else {}
    twice = {digest for digest, count in counts.items() if count > 1}
    places = {}
    for shard in shards:
        for record, digest in enumerate(shard["digests"].tolist()):
            if digest in twice:
                places.setdefault(digest, []).append((shard["name"], record))
    return list(places.values())


def _missing(names: list[str]) -> list[str]:
    """List the shards that the names of the others promise."""
    series = {(m[1], m[3]) for m in map(ANY_SHARD.fullmatch, names)}
    promised = (
        f"{split}-{number:05d}-of-{of}" for split, of in sorted(series) for number in range(int(of))
    )
    return [name for name in promised if name not in names]
