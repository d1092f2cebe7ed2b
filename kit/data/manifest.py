"""The manifest of a set of shards: what data_dir holds, whether it is whole, how it comes about.

It is written last, by rename: without it nothing in data_dir counts as prepared. Until then a
journal, one small file per finished shard in unfinished/, says what need not be written again.
"""

import hashlib
import json
import os
import re

from kit.data import storage
from kit.data.paths import printable
from kit.prep.reading import state_of
from kit.prep.sources import ClassName, Index

MANIFEST = "manifest.json"
CLASSES = "classes.tsv"
JOURNAL = "unfinished"  # a folder, from before the first shard until after the manifest
STARTED = f"{JOURNAL}/set.json"  # which set the journal is of
SHARD_NAME = re.compile(r"(train|validation)-\d{5}-of-\d{5}")
LEFTOVER = re.compile(  # temporary names of shards.write_shard and storage.Remote; of kit.files
    rf"\.?({SHARD_NAME.pattern}|classes\.tsv|manifest\.json)\.[0-9a-f]+\.tmp"
    r"|\.(classes\.[0-9]+\.tsv|manifest\.[0-9]+\.json)"
)
REMARKS = ("mended", "quarantined")
REMEDY = "run notebook 01 (python -m kit run --only 01)"


def read_manifest(data_dir) -> dict:
    """Read manifest.json; raises FileNotFoundError or ValueError where there is none to read."""
    folder = storage.folder(data_dir)
    if folder.size(MANIFEST) is None:
        raise FileNotFoundError(
            f"data_dir {folder} holds no finished shards ({MANIFEST} is missing): {REMEDY}"
        )
    try:
        manifest = json.loads(folder.read(MANIFEST))
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
    """Give what a model trained on the shards must tell of them, without their long lists."""
    splits = manifest["splits"].items()
    return {
        **{name: manifest[name] for name in ("source", "layout", "fingerprint", "kit_version")},
        "images": {split: part["images"] for split, part in splits},
        "shards": {split: len(part["shards"]) for split, part in splits},
        **{name: len(manifest[name]) for name in (*REMARKS, "skipped")},
        "parameters": manifest["parameters"],
    }


def class_names(data_dir) -> list[ClassName]:
    """Give the classes in the order of their labels."""
    return [ClassName(**name) for name in read_manifest(data_dir)["classes"]]


def fingerprint(index: Index, root, parameters: dict) -> str:
    """Give a hash of all that decides the shards; where raw_dir lies is no part of it."""
    digest = hashlib.sha256(json.dumps([parameters, index.classes], sort_keys=True).encode())
    for image in index.images:
        state = (image.split, image.label, *state_of(image, root))
        digest.update(os.fsencode(repr(state)))
    return digest.hexdigest()


def begin(folder, head: dict) -> dict[str, dict]:
    """Give the entries, by name, of the set's shards that stand already, whole by their size.

    Marks a new folder as unfinished, and removes what killed processes left behind. Raises
    ValueError when the folder holds another set, OSError when it cannot be written.
    """
    names = folder.names()
    if MANIFEST in names:
        found = read_manifest(folder)
        entries = _entries(found)
    elif folder.size(STARTED) is not None:
        found = json.loads(folder.read(STARTED))
        entries = entered(folder)
    elif any(SHARD_NAME.fullmatch(name) for name in names):
        raise ValueError(
            f"data_dir {folder} holds shards of which no {MANIFEST} tells: name another data_dir"
        )
    else:
        found, entries = head, []
        _write_first(folder, head)
    _check_same(folder, found, head)
    for name in names:
        if LEFTOVER.fullmatch(name):
            folder.remove(name)
    return {
        entry["name"]: entry for entry in entries if folder.size(entry["name"]) == entry["bytes"]
    }


def enter(folder, entry: dict) -> None:
    """Enter a shard, which stands under its name by now, in the journal."""
    folder.write(f"{JOURNAL}/{entry['name']}.json", json.dumps(entry).encode())


def entered(folder, wanted=None) -> list[dict]:
    """Give the entries of the journal, all or those of the shards `wanted`."""
    names = [name.removesuffix(".json") for name in folder.names(JOURNAL)]
    return [
        json.loads(folder.read(f"{JOURNAL}/{name}.json"))
        for name in names
        if SHARD_NAME.fullmatch(name) and (wanted is None or name in wanted)
    ]


def finish(folder, head: dict, entries: list[dict], found: int) -> dict:
    """Write classes.tsv and manifest.json for the written shards; returns the manifest.

    Raises RuntimeError unless written and quarantined images are together those found.
    """
    manifest = head | _summarise(entries, found)
    lines = ["label\twnid\tname"]
    for label, name in enumerate(manifest["classes"], start=manifest["label_offset"]):
        lines.append(f"{label}\t{name['wnid']}\t{name['name']}")
    folder.write(CLASSES, ("\n".join(lines) + "\n").encode())
    folder.write(MANIFEST, json.dumps(manifest, ensure_ascii=False).encode())
    close(folder)
    return manifest


def close(folder) -> None:
    """Remove the journal of a set that has its manifest."""
    for name in folder.names(JOURNAL):
        folder.remove(f"{JOURNAL}/{name}")
    folder.remove(JOURNAL)  # even if it was empty: a run may have been killed just before this


def _check_form(manifest: dict) -> None:
    """Raise one of several errors unless the manifest has what the kit reads of it."""
    manifest["fingerprint"], manifest["parameters"].items()
    for name in manifest["classes"]:
        ClassName(**name)
    for kind in REMARKS:
        [remark["reason"] for remark in manifest[kind]]
    for split, part in manifest["splits"].items():
        if not isinstance(part["images"], int):
            raise ValueError(f"{split}: {part['images']!r} images")
        for shard in part["shards"]:
            numbers = [shard["bytes"], shard["records"], *shard["classes"]]
            # A name is opened as a file of data_dir: no other folder must be reached by it.
            if not SHARD_NAME.fullmatch(shard["name"]) or not isinstance(shard["sha256"], str):
                raise ValueError(f"{split}: a shard named {shard['name']!r}")
            if not all(isinstance(number, int) and number >= 0 for number in numbers):
                raise ValueError(f"{shard['name']}: a number that counts nothing")


def _check_same(folder, found: dict, head: dict) -> None:
    if found["fingerprint"] == head["fingerprint"]:
        return
    changes = [
        f"{name} {found['parameters'].get(name)}, not {value}"
        for name, value in head["parameters"].items()
        if found["parameters"].get(name) != value
    ]
    raise ValueError(
        f"data_dir {folder} holds the shards of {found['source']} with "
        f"{', '.join(changes) or 'other images'}: delete it or name another data_dir"
    )


def _write_first(folder, head: dict) -> None:
    keep = ("fingerprint", "parameters", "source")
    try:
        folder.write(STARTED, json.dumps({name: head[name] for name in keep}).encode())
    except OSError as error:
        raise type(error)(
            f"data_dir {folder} cannot be written ({error.strerror or error}): name another folder"
        ) from None


def _entries(manifest: dict) -> list[dict]:
    """Give back the shards' entries from which the manifest was made."""
    return [
        {"split": split}
        | shard
        | {kind: [r for r in manifest[kind] if r.get("shard") == shard["name"]] for kind in REMARKS}
        for split, part in manifest["splits"].items()
        for shard in part["shards"]
    ]


def _summarise(entries: list[dict], found: int) -> dict:
    summary = {"splits": {}, **{kind: [] for kind in REMARKS}}
    for entry in entries:
        empty = {"images": 0, "quarantined": 0, "shards": []}
        split = summary["splits"].setdefault(entry["split"], empty)
        split["images"] += entry["records"]
        split["quarantined"] += len(entry["quarantined"])
        for kind in REMARKS:
            summary[kind] += entry[kind]
        left = ("split", *REMARKS)
        split["shards"].append({key: entry[key] for key in entry if key not in left})
    written = sum(split["images"] for split in summary["splits"].values())
    if written + len(summary["quarantined"]) != found:
        raise RuntimeError(
            f"{written} images written and {len(summary['quarantined'])} quarantined are not the "
            f"{found} found"
        )
    return summary
