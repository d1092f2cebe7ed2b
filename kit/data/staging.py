"""Copies shards from s3:// or hdfs://, which TensorFlow does not read, to this machine."""

import shutil
from concurrent.futures import ThreadPoolExecutor

from kit.data import paths, storage
from kit.data.manifest import CLASSES, MANIFEST, read_manifest
from kit.files import temporary_beside
from kit.locks import holding

STAGED_DIR = "data/staged"
LOCK = ".staging.lock"
IN_PROGRESS = "staging.json"  # the manifest of the shards that are being copied
DOWNLOADS = 8  # at once


def stage(data_dir, progress=lambda shards, total: shards) -> str:
    """Copy the shards to a folder of this machine, where need be, and give the path to read.

    The folder is data/staged/ and the URL. Shards that an earlier run has copied stay; the others
    appear by rename once their size is the manifest's. TensorFlow itself reads gs://.
    progress(shards, total) wraps the stream of copied shards. Raises ValueError or OSError, in one
    line, for a set that is not whole or does not fit.
    """
    source = storage.folder(data_dir)
    if source.local or str(source).startswith("gs://"):
        return str(data_dir)
    splits = read_manifest(source)["splits"]
    target = storage.folder(_staged_path(str(source)))
    with holding(target.local / LOCK, f"data_dir {data_dir} is being copied to {target}"):
        _copy(source, target, splits, progress)
    return str(target)


def _copy(source, target, splits: dict, progress) -> None:
    _begin(target, source.read(MANIFEST))
    shards = [shard for part in splits.values() for shard in part["shards"]]
    shards = [shard for shard in shards if target.size(shard["name"]) != shard["bytes"]]
    _check_room(target, sum(shard["bytes"] for shard in shards))
    pool = ThreadPoolExecutor(DOWNLOADS)
    try:
        arriving = pool.map(lambda shard: _fetch(source, target, shard), shards)
        for _ in progress(arriving, len(shards)):
            pass
    finally:
        pool.shutdown(cancel_futures=True)
    for name in (CLASSES, MANIFEST):
        target.write(name, source.read(name))


def _staged_path(url: str) -> str:
    protocol, _, rest = url.partition("://")
    parts = [protocol, *rest.split("/")]
    if {"", ".", ".."} & set(parts):
        raise ValueError(f"data_dir {url} names no folder: write for example s3://bucket/shards")
    return "/".join((STAGED_DIR, *parts))


def _begin(target, text: bytes) -> None:
    """Keep the manifest `text`; remove what is of another set, or was left by a killed process."""
    same = target.size(IN_PROGRESS) is not None and target.read(IN_PROGRESS) == text
    for name in target.names():
        if name != LOCK and (name.endswith(".tmp") or not same):
            target.remove(name)
    if not same:
        target.write(IN_PROGRESS, text)


def _check_room(target, size: int) -> None:
    free = shutil.disk_usage(target.local).free
    if size > free:
        raise OSError(
            f"{target} has room for {free / 2**30:.1f} GiB, and the shards have "
            f"{size / 2**30:.1f} GiB: free some, or make {STAGED_DIR} a link to a larger disk"
        )


def _fetch(source, target, shard: dict) -> str:
    temporary = temporary_beside(target.local / f"{shard['name']}.tmp")
    try:
        paths.ask("get_file", source.path(shard["name"]), str(temporary))
        if (size := temporary.stat().st_size) != shard["bytes"]:
            raise ValueError(
                f"shard {source.path(shard['name'])} has {size} bytes, its manifest says "
                f"{shard['bytes']}: prepare the shards again"
            )
        target.put(shard["name"], temporary)
    finally:
        temporary.unlink(missing_ok=True)
    return shard["name"]
