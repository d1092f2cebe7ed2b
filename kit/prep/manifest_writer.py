"""Writes the manifest of a set of shards.

Until it is written, a small file in unfinished/ for each finished shard says what a run that was
killed need not write again.
"""

import hashlib
import json
import re
from contextlib import suppress

import kit
from kit.data import manifest
from kit.data.manifest import CHANGES, MANIFEST, SHARD_NAME
from kit.data.paths import printable
from kit.data.records import LABEL_OFFSET
from kit.files import check_form, json_bytes, json_object, json_of, seal
from kit.prep import table
from kit.prep.reading import Index, state_of
from kit.prep.sections import Preparation

UNFINISHED = "unfinished"  # a folder, from before the first shard until after the manifest
STARTED = f"{UNFINISHED}/set.json"  # which set it is
SET = {"fingerprint": str, "parameters": dict, "source": str}
ENTRY = {"split": str, "boxes": int, **{kind: [{"file": str}] for kind in CHANGES}}
ENTRY |= manifest.SHARD
LEFTOVER = re.compile(  # temporary names of write_shard and storage.Remote; of kit.files
    rf"\.?({SHARD_NAME.pattern}|classes\.tsv|manifest\.json)\.[0-9a-f]+\.tmp"
    r"|\.(classes\.[0-9a-f]+\.tsv|manifest\.[0-9a-f]+\.json)"
)


def head(index: Index, preparation: Preparation, *, raw_dir, seed) -> dict:
    """Give what the manifest says before any shard is written."""
    root = table.root_of(raw_dir)
    parameters = preparation.shards | {"seed": seed}
    times = "".join(f"{image.changed} " for image in index.images)
    return {
        "kit_version": kit.__version__,
        "layout": index.layout,
        "source": printable(raw_dir),
        "label_offset": LABEL_OFFSET,
        "parameters": parameters,
        "fingerprint": fingerprint(index, root, parameters),
        "source_times": hashlib.sha256(times.encode()).hexdigest(),  # a cheap sign of a change
        "classes": [name._asdict() for name in index.classes],
        "skipped": [
            {"file": printable(path.removeprefix(f"{root}/")), "reason": reason}
            for path, reason in index.skipped
        ],
    }


def fingerprint(index: Index, root, parameters: dict) -> str:
    """Give a hash of all that decides the shards; the path of raw_dir is no part of it."""
    digest = hashlib.sha256(json.dumps([parameters, index.classes], sort_keys=True).encode())
    for image in index.images:
        state = (image.split, image.label, *state_of(image, root))
        digest.update(repr(state).encode())
    return digest.hexdigest()


def begin(folder, head: dict) -> tuple[dict, dict[str, dict]]:
    """Give what the set in the folder says of itself, and the entries of its shards by name.

    These are the shards that are finished already. Starts a new set in an empty folder, and removes
    what killed processes left behind. Raises ValueError when the folder holds another set, OSError
    when it cannot be written.
    """
    names = folder.names()
    if MANIFEST in names:
        found = manifest.read_manifest(folder)
        entries = _entries(found)
    elif folder.size(STARTED) is not None:
        found = _read_started(folder)
        entries = recorded(folder)
    elif any(SHARD_NAME.fullmatch(name) for name in names):
        raise ValueError(
            f"data_dir {folder} holds shards without a {MANIFEST}: name another data_dir"
        )
    else:
        found, entries = head, []
        _start(folder, head)
    _check_same(folder, found, head)
    for name in names:
        if LEFTOVER.fullmatch(name):
            folder.remove(name)
    whole = [entry for entry in entries if folder.size(entry["name"]) == entry["bytes"]]
    return found, {entry["name"]: entry for entry in whole}


def set_times(folder, found: dict, times: str) -> None:
    """Record other times of the files of the set that `found` describes; they hold the same."""
    name = MANIFEST if folder.size(MANIFEST) is not None else STARTED
    folder.write(name, json_bytes(seal(found | {"source_times": times})))


def _read_started(folder) -> dict:
    try:
        return json_of(folder.read(STARTED), SET)
    except ValueError as error:
        raise ValueError(
            f"{folder}/{STARTED} cannot be read ({error}): delete {folder}, or name another "
            "data_dir"
        ) from None


def record(folder, entry: dict) -> None:
    """Record that a shard is finished; the file has its name by now."""
    folder.write(f"{UNFINISHED}/{entry['name']}.json", json_bytes(entry))


def recorded(folder, wanted=None) -> list[dict]:
    """Give the entries of the shards recorded as finished: all, or those `wanted`.

    A shard whose record was cut off, as by a power cut, counts as not finished.
    """
    entries = []
    for file in folder.names(UNFINISHED):
        name = file.removesuffix(".json")
        if SHARD_NAME.fullmatch(name) and (wanted is None or name in wanted):
            with suppress(ValueError):
                entry = manifest.rename_old_keys(json_object(folder.read(f"{UNFINISHED}/{file}")))
                check_form(entry, ENTRY)
                entries.append(entry)
    return entries


def finish(folder, head: dict, entries: list[dict], found: int) -> dict:
    """Write classes.tsv and manifest.json for the written shards; returns the manifest.

    Raises RuntimeError unless written and quarantined images are together those found.
    """
    written = seal(head | _summarize(entries, found))
    folder.write(manifest.CLASSES, manifest.classes_table(written).encode())
    folder.write(MANIFEST, json_bytes(written))
    remove_records(folder)
    return written


def remove_records(folder) -> None:
    """Remove unfinished/: the set has its manifest."""
    for name in folder.names(UNFINISHED):
        folder.remove(f"{UNFINISHED}/{name}")
    folder.remove(UNFINISHED)  # even if it was empty: a run may have been killed just before this


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


def _start(folder, head: dict) -> None:
    keep = ("fingerprint", "source_times", "parameters", "source")
    try:
        folder.write(STARTED, json_bytes({name: head[name] for name in keep}))
    except OSError as error:
        raise type(error)(
            f"data_dir {folder} cannot be written ({error.strerror or error}): name another folder"
        ) from None


def _entries(written: dict) -> list[dict]:
    """Give back the shards' entries from which a manifest was made."""
    return [
        {"split": split}
        | shard
        | {kind: [i for i in written[kind] if i.get("shard") == shard["name"]] for kind in CHANGES}
        for split, part in written["splits"].items()
        for shard in part["shards"]
    ]


def _summarize(entries: list[dict], found: int) -> dict:
    splits, changes = {}, {kind: [] for kind in CHANGES}
    for entry in entries:
        empty = {"images": 0, "quarantined": 0, "shards": []}
        split = splits.setdefault(entry["split"], empty)
        split["images"] += entry["records"]
        split["quarantined"] += len(entry["quarantined"])
        for kind in CHANGES:
            changes[kind] += entry[kind]
        shard = {key: entry[key] for key in entry if key not in ("split", *CHANGES)}
        split["shards"].append(shard)
    written = sum(split["images"] for split in splits.values())
    if written + len(changes["quarantined"]) != found:
        raise RuntimeError(
            f"{written} images written and {len(changes['quarantined'])} quarantined are not the "
            f"{found} found"
        )
    return {"splits": splits, **changes}
