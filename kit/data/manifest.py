"""Reads the manifest of a set of shards: its splits, shards, classes and what was done to images.

The manifest is written last, by rename: a folder without one holds no finished set.
"""

import re
from collections import Counter
from collections.abc import Iterator
from itertools import groupby
from operator import itemgetter
from typing import NamedTuple

from kit.data import storage
from kit.data.paths import printable
from kit.files import check_form, check_seal, json_object

MANIFEST = "manifest.json"
CLASSES = "classes.tsv"
SHARD_NAME = re.compile(r"(train|validation|test)-\d{5}-of-\d{5}")
CHANGES = ("reencoded", "quarantined")  # lists of images, each with its reason
REASONS = 12  # that are told apart of each kind
SHARD = {"name": str, "records": int, "bytes": int, "sha256": str, "classes": [int]}
FORM = {
    "fingerprint": str,
    "parameters": dict,
    "label_offset": int,
    "classes": [{"wnid": str, "name": str}],
    "splits": dict,
    **{kind: [{"reason": str}] for kind in (*CHANGES, "skipped")},
}
SPLIT = {"images": int, "shards": [SHARD]}
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
    path, remedy = f"{folder}/{MANIFEST}", f"name another data_dir, or delete it and {REMEDY}"
    try:
        manifest = rename_old_keys(json_object(folder.read(MANIFEST)))
        check_form(manifest, FORM)
        _check(manifest)
    except ValueError as error:
        why = printable(str(error))
        raise ValueError(f"{path} is no manifest of shards ({why}): {remedy}") from None
    return manifest


def shard_paths(data_dir, split) -> list[str]:
    """Give the paths of the split's shards, all of them there and of the manifest's size."""
    storage.check_readable(data_dir)
    folder, manifest = storage.folder(data_dir), read_manifest(data_dir)
    if split not in manifest["splits"]:
        raise ValueError(f"data_dir {folder} has no split {split!r}: {REMEDY}")
    for shard in manifest["splits"][split]["shards"]:
        path, size = folder.path(shard["name"]), folder.size(shard["name"])
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


def classes_table(manifest) -> str:
    """Give what classes.tsv holds: a line for each label as on disk, wnid and class name."""
    labels = enumerate(manifest["classes"], start=manifest["label_offset"])
    rows = [f"{label}\t{name['wnid']}\t{name['name']}\n" for label, name in labels]
    return "".join(["label\twnid\tname\n", *rows])


def _check(manifest: dict) -> None:
    """Raise ValueError unless the manifest is as it was written, and its counts agree."""
    for split, part in manifest["splits"].items():
        check_form(part, SPLIT, f"splits: {split}")
        for shard in part["shards"]:
            _check_shard(shard, split, len(manifest["classes"]))
        names = Counter(shard["name"] for shard in part["shards"])
        if twice := [name for name in names if names[name] > 1]:
            raise ValueError(f"{twice[0]} is listed twice")
        if part["images"] != sum(shard["records"] for shard in part["shards"]):
            raise ValueError(f"{split}: {part['images']} images are not those of its shards")
    check_seal(manifest)


def _check_shard(shard: dict, split: str, classes: int) -> None:
    # A name is opened as a file of data_dir: no other folder must be reached by it.
    match = SHARD_NAME.fullmatch(shard["name"])
    if not match or match[1] != split:
        raise ValueError(f"{split}: a shard named {shard['name']!r}")
    if min(shard["bytes"], shard["records"], *shard["classes"]) < 0:
        raise ValueError(f"{shard['name']}: a number that is no count")
    if len(shard["classes"]) != classes or sum(shard["classes"]) != shard["records"]:
        raise ValueError(f"{shard['name']}: its counts of classes are not those of its records")
