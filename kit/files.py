"""Files that are written whole or not at all."""

import hashlib
import json
import os
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(path):
    """Give a temporary path beside `path`, renamed to it when the block ends without an error.

    A reader never sees half a file, and a failed or killed write leaves the old file as it was.
    Folders are made as needed. The temporary name keeps the suffix: Keras and matplotlib read it.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def check_writable(path) -> None:
    """Raise OSError unless a file can be written at `path`; makes none of its folders."""
    if Path(path).is_dir():
        raise IsADirectoryError(0, "it is a folder")
    folder = Path(path).parent
    while not os.path.lexists(folder):
        folder = folder.parent
    probe = folder / f".{os.getpid()}.tmp"
    probe.touch()
    probe.unlink()


def write_json(path, values: dict) -> None:
    """Write a dict as JSON (`json_bytes`), whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_bytes(json_bytes(values))


def json_bytes(values: dict) -> bytes:
    """Give a dict as JSON in UTF-8, a line for each of its keys. ValueError for NaN and infinity.

    So a list of a thousand classes, or their confusion matrix, is a line and not a million.
    """
    lines = [
        f" {json.dumps(key)}: {json.dumps(value, ensure_ascii=False, allow_nan=False)}"
        for key, value in values.items()
    ]
    text = "{\n" + ",\n".join(lines) + "\n}\n"
    return text.encode(errors="backslashreplace")  # what UTF-8 cannot hold of a path: \udce9


def hash_file(path) -> str:
    """Give the file's SHA-256 in hexadecimal."""
    digest = hashlib.sha256()
    with Path(path).open("rb") as file:
        while block := file.read(2**20):
            digest.update(block)
    return digest.hexdigest()
