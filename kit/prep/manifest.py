"""The manifest of a set of shards: what data_dir holds, whether it is whole, how it comes about.

It is written last, by rename: without it nothing in data_dir counts as prepared.
"""

import hashlib
import json
import os
import re
from pathlib import Path

import numpy as np
import tensorflow as tf

from kit import ROOT
from kit.files import replacing
from kit.prep.records import parse_example
from kit.prep.sources import ClassName, Index, printable

MANIFEST = "manifest.json"
UNFINISHED = "unfinished.json"  # stands from before the first shard until the manifest
CLASSES = "classes.tsv"
SHARD_NAME = re.compile(r"(train|validation)-\d{5}-of-\d{5}")
REMEDY = "run notebook 01 (python -m kit run --only 01)"


def read_manifest(data_dir) -> dict:
    """Read manifest.json; raises FileNotFoundError or ValueError where there is none to read."""
    path = ROOT / data_dir / MANIFEST
    if not path.is_file():
        raise FileNotFoundError(
            f"data_dir {path.parent} holds no finished shards ({MANIFEST} is missing): {REMEDY}"
        )
    try:
        manifest = json.loads(path.read_bytes())
        manifest["fingerprint"]
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(
            f"{path} is no manifest of shards ({error}): name another data_dir, or delete it and "
            f"{REMEDY}"
        ) from None
    return manifest


def shard_paths(data_dir, split) -> list[str]:
    """Give the paths of the split's shards, all of them there and of the manifest's size."""
    paths = []
    for shard in read_manifest(data_dir)["splits"][split]["shards"]:
        path = ROOT / data_dir / shard["name"]
        if not path.is_file():
            raise FileNotFoundError(f"shard {path} of the manifest is missing: {REMEDY}")
        if path.stat().st_size != shard["bytes"]:
            raise ValueError(
                f"shard {path} has {path.stat().st_size} bytes, its manifest says "
                f"{shard['bytes']}: {REMEDY}"
            )
        paths.append(str(path))
    return paths


def class_names(data_dir) -> list[ClassName]:
    """Give the classes in the order of their labels."""
    return [ClassName(**name) for name in read_manifest(data_dir)["classes"]]


def verify(data_dir) -> dict:
    """Read every shard again: its hash, each record's checksum, the counts, the labels.

    Returns {split: {"shards", "images"}}. Raises ValueError naming the first shard that is not
    as the manifest says.
    """
    summary = {}
    for split, entry in read_manifest(data_dir)["splits"].items():
        paths = shard_paths(data_dir, split)
        for path, shard in zip(paths, entry["shards"], strict=True):
            _verify_shard(path, shard)
        summary[split] = {"shards": len(paths), "images": entry["images"]}
    return summary


def fingerprint(index: Index, root: Path, parameters: dict) -> str:
    """Give a hash of all that decides the shards; where raw_dir lies is no part of it."""
    digest = hashlib.sha256(json.dumps([parameters, index.classes], sort_keys=True).encode())
    for image in index.images:
        size = Path(image.path).stat().st_size
        names = [path.removeprefix(str(root)) for path in (image.path, image.boxes)]
        digest.update(os.fsencode(repr((image.split, image.label, size, names))))
    return digest.hexdigest()


def stands(folder: Path, head: dict) -> bool:
    """Tell whether this set stands whole in the folder; ValueError when another one does."""
    if not (folder / MANIFEST).exists():
        return False
    found = read_manifest(folder)
    if found["fingerprint"] != head["fingerprint"]:
        changes = [
            f"{name} {found['parameters'].get(name)}, not {value}"
            for name, value in head["parameters"].items()
            if found["parameters"].get(name) != value
        ]
        raise ValueError(
            f"data_dir {folder} holds the shards of {found['source']} with "
            f"{', '.join(changes) or 'other images'}: delete it or name another data_dir"
        )
    try:
        return all(shard_paths(folder, split) for split in found["splits"])
    except (FileNotFoundError, ValueError):
        return False  # a shard was lost or cut since: all are written again


def begin(folder: Path, head: dict) -> None:
    """Mark the folder as unfinished and clears what an interrupted run left in it."""
    folder.mkdir(parents=True, exist_ok=True)
    ours = (folder / MANIFEST).exists() or (folder / UNFINISHED).exists()
    if not ours and any(SHARD_NAME.fullmatch(path.name) for path in folder.iterdir()):
        raise ValueError(
            f"data_dir {folder} holds shards of which no {MANIFEST} tells: name another data_dir"
        )
    _write(folder / UNFINISHED, json.dumps(head["parameters"]))
    (folder / MANIFEST).unlink(missing_ok=True)
    clear(folder)


def finish(folder: Path, head: dict, shards: list[dict], found: int) -> dict:
    """Write classes.tsv and manifest.json for the written shards; returns the manifest.

    Raises RuntimeError unless written and quarantined images are together those found.
    """
    manifest = head | _summarise(shards, found)
    lines = ["label\twnid\tname"]
    for label, name in enumerate(manifest["classes"], start=manifest["label_offset"]):
        lines.append(f"{label}\t{name['wnid']}\t{name['name']}")
    _write(folder / CLASSES, "\n".join(lines) + "\n")
    _write(folder / MANIFEST, json.dumps(manifest, ensure_ascii=False))
    (folder / UNFINISHED).unlink()
    return manifest


def clear(folder: Path) -> None:
    """Remove all shards from the folder."""
    for path in folder.iterdir():
        if SHARD_NAME.fullmatch(path.name):
            path.unlink()


def remark(path: str, reason: str, root: Path) -> dict:
    """Give the manifest's entry for a file that is not simply taken over."""
    return {"file": printable(path.removeprefix(f"{root}{os.sep}")), "reason": reason}


def hash_file(path) -> str:
    """Give the file's SHA-256 in hexadecimal."""
    digest = hashlib.sha256()
    with Path(path).open("rb") as file:
        while block := file.read(2**20):
            digest.update(block)
    return digest.hexdigest()


def _verify_shard(path: str, shard: dict) -> None:
    if hash_file(path) != shard["sha256"]:
        raise ValueError(
            f"shard {path} has changed since it was written (another SHA-256): delete it and "
            f"{REMEDY}"
        )
    labels = [int(label) for label in tf.data.TFRecordDataset(path).map(_label)]
    histogram = np.bincount(labels, minlength=len(shard["classes"])).tolist()
    if histogram != shard["classes"] or len(labels) != shard["records"]:
        raise ValueError(
            f"shard {path} holds {len(labels)} records, by class {histogram}; its manifest says "
            f"{shard['records']}, {shard['classes']}: delete it and {REMEDY}"
        )


def _label(serialized) -> tf.Tensor:
    return parse_example(serialized)["label"]


def _summarise(shards: list[dict], found: int) -> dict:
    summary = {"splits": {}, "mended": [], "quarantined": []}
    for shard in shards:
        empty = {"images": 0, "quarantined": 0, "shards": []}
        split = summary["splits"].setdefault(shard.pop("split"), empty)
        split["images"] += shard["records"]
        split["quarantined"] += len(shard["quarantined"])
        summary["mended"] += shard.pop("mended")
        summary["quarantined"] += shard.pop("quarantined")
        split["shards"].append(shard)
    written = sum(split["images"] for split in summary["splits"].values())
    if written + len(summary["quarantined"]) != found:
        raise RuntimeError(
            f"{written} images written and {len(summary['quarantined'])} quarantined are not the "
            f"{found} found"
        )
    return summary


def _write(path: Path, text: str) -> None:
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
