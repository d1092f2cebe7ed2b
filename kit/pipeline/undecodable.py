"""Names an image that cannot be decoded: TensorFlow's own error does not say which one it was."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import tensorflow as tf

from kit.data import manifest
from kit.data.folders import named
from kit.data.paths import printable
from kit.data.records import parse_example

WORDS = ("jpeg", "decode", "a strip of")  # of TensorFlow's errors, and of preprocessing.py's


@contextmanager
def naming_undecodable(data_dir):
    """Run the block; a failed decode becomes a ValueError that names shards, records and files.

    The shards are read once more for it, at some thousand images a second. Without
    data_dir, and where all images can be decoded, TensorFlow's error stays.
    """
    try:
        yield
    except tf.errors.InvalidArgumentError as error:
        if not data_dir or not any(word in str(error).lower() for word in WORDS):
            raise
        splits = manifest.read_manifest(data_dir)["splits"]
        paths = [path for split in splits for path in manifest.shard_paths(data_dir, split)]
        found = [line for path in paths for line in _undecodable(path)]
        if not found:
            raise
        raise ValueError(
            f"{len(found)} images of data_dir cannot be decoded: {named(found)}: prepare it again "
            "with check: full"
        ) from error


def _undecodable(path: str) -> Iterator[str]:
    """Yield a line for each record whose image cannot be decoded."""
    from kit.data import images  # imports Pillow, without which one can train

    for number, example in enumerate(map(parse_example, tf.data.TFRecordDataset(path))):
        encoded, file = example["encoded"].numpy(), os.fsdecode(example["filename"].numpy())
        try:
            images.read_header(encoded)
            images.check_decodes(encoded)
        except ValueError as error:
            yield f"shard {Path(path).name}, record {number} ({printable(file)}): {error}"
