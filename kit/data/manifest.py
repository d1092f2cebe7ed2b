"""Reads the manifest of a set of shards: its splits, shards, classes and what was done to images.

The manifest is written last, by rename: a folder without one holds no finished set.
"""

import json
import re
from collections import Counter
from collections.abc import Iterator
from itertools import groupby
from operator import itemgetter
from typing import NamedTuple

from kit.data import storage
from kit.data.paths import printable

MANIFEST = "manifest.json"
CLASSES = "classes.tsv"
SHARD_NAME = re.compile(r"(train|validation|test)-\d{5}-of-\d{5}")
CHANGES = ("reencoded", "quarantined")  # lists of images, each with its reason
REASONS = 12  # that are told apart of each kind
REMEDY = "run notebook 01 (python -m kit run --recipe NAME --only 01)"


class ClassName(NamedTuple):
    wnid: str  # WordNet's id, or the folder's name
    name: str


def read_manifest(data_dir) -> dict:
    """Read manifest.json; raises FileNotFoundError or ValueError where there is none to read."""
    folder = storage.folder(data_dir)
    if folder.size(MANIFEST) is None:
        raise FileNotFoundError(
            f"data_dir {folder} holds no finished shards ({MANIFEST} is missing): {REMEDY}"
        )
    try:
        manifest = rename_old_keys(json.loads(folder.read(MANIFEST)))
        _check_form(manifest)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise ValueError(
            f"{folder}/{MANIFEST} is no manifest of shards ({printable(str(error))}): name another "
            f"data_dir, or delete it and {REMEDY}"
        ) from None
    return manifest


def shard_paths(data_dir, split) -> list[str]:
    """Give the paths of the split's shards, all of them there and of the manifest's size."""
    storage.check_readable(data_dir)
    folder, manifest = storage.folder(data_dir), read_manifest(data_dir)
    if split not in manifest["splits"]:
        raise ValueError(f"data_dir {folder} has no split {split!r}: {REMEDY}")
    for shard in manifest["splits"][split]["shards"]:
        size = folder.size(shard["name"])
        path = folder.path(shard["name"])
        if size is None:
            raise FileNotFoundError(f"shard {path} of the manifest is missing: {REMEDY}")
        if size != shard["bytes"]:
            raise ValueError(
                f"shard {path} has {size} bytes, its manifest says {shard['bytes']}: {REMEDY}"
            )
    return [folder.path(shard["name"]) for shard in manifest["splits"][split]["shards"]]


def summary(manifest) -> dict:
    """Give what model.json says of the shards that a model was trained on: counts, no lists."""
    splits = manifest["splits"].items()
    return {
        **{name: manifest[name] for name in ("source", "layout", "fingerprint", "kit_version")},
        "images": {split: part["images"] for split, part in splits},
        "shards": {split: len(part["shards"]) for split, part in splits},
        **{name: len(manifest[name]) for name in (*CHANGES, "skipped")},
        "parameters": manifest["parameters"],
    }


def outcomes(manifest) -> list[tuple[str, str, int]]:
    """Count the images by what was done to them and why: rows of (outcome, reason, images).

    "read" are those written and those quarantined. The rarest of many reasons are one row.
    """
    written = sum(part["images"] for part in manifest["splits"].values())
    shards = [shard for part in manifest["splits"].values() for shard in part["shards"]]
    rows = [
        ("read", "", written + len(manifest["quarantined"])),
        ("written", "", written),
        ("resized", "", sum(shard.get("smaller", 0) for shard in shards)),
    ]
    for kind in (*CHANGES, "skipped"):
        reasons = Counter(image["reason"] for image in manifest[kind]) or Counter({"": 0})
        name = kind.replace("reencoded", "re-encoded")
        rows += [(name, reason, count) for reason, count in sorted(reasons.most_common(REASONS))]
        if rest := sum(count for _, count in reasons.most_common()[REASONS:]):
            rows.append((name, "other reasons", rest))
    return rows


def told(manifest) -> Iterator[tuple[str, str]]:
    """Give the rows of `outcomes`, a line for each outcome: "skipped", "3: hidden 1; a link 2"."""
    for outcome, rows in groupby(outcomes(manifest), itemgetter(0)):
        rows = list(rows)
        reasons = "; ".join(f"{reason} {count:,}" for _, reason, count in rows if reason)
        yield outcome, f"{sum(row[2] for row in rows):,}{f': {reasons}' * bool(reasons)}"


def class_counts(manifest) -> dict[str, list[int]]:
    """Count each split's images of each class, in the order of their labels."""
    return {
        split: [sum(of) for of in zip(*(s["classes"] for s in part["shards"]), strict=True)]
        for split, part in manifest["splits"].items()
    }


def class_names(data_dir) -> list[ClassName]:
    """Give the classes in the order of their labels."""
    return [ClassName(**name) for name in read_manifest(data_dir)["classes"]]


def rename_old_keys(found: dict) -> dict:
    """Rename the keys that the first versions of the kit wrote: "mended" is now "reencoded"."""
    return {"reencoded" if key == "mended" else key: value for key, value in found.items()}


def _check_form(manifest: dict) -> None:
    """Raise one of several errors unless the manifest has what the kit reads of it."""
    manifest["fingerprint"], manifest["parameters"].items()
    for name in manifest["classes"]:
        ClassName(**name)
    for kind in CHANGES:
        [image["reason"] for image in manifest[kind]]
    for split, part in manifest["splits"].items():
        if not isinstance(part["images"], int):
            raise ValueError(f"{split}: {part['images']!r} images")
        for shard in part["shards"]:
            numbers = [shard["bytes"], shard["records"], *shard["classes"]]
            # A name is opened as a file of data_dir: no other folder must be reached by it.
            if not SHARD_NAME.fullmatch(shard["name"]) or not isinstance(shard["sha256"], str):
                raise ValueError(f"{split}: a shard named {shard['name']!r}")
            if not all(isinstance(number, int) and number >= 0 for number in numbers):
                raise ValueError(f"{shard['name']}: a number that is no count")
