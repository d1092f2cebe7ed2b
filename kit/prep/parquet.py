"""Reads Hugging Face's parquet files: a column `image` of bytes and path, a column `label`.

To read one image, its row group is read, usually a hundred images: parquet offers no finer access.
Tars are the better source on a slow disk.
"""

import functools
import re
from collections.abc import Iterator
from typing import NamedTuple

from kit.data import paths
from kit.data.paths import printable
from kit.files import json_object
from kit.prep.splits import SPLITS, split_name

MAX_LABEL = 2**20  # a name is kept for each number up to the largest; the largest sets have 2**18
MAX_GROUP_BYTES = 3 * 2**28  # of a row group's images, unpacked; they are held in memory
MAX_NAMES_BYTES = 2**26  # of the names in a batch of rows
MAX_NAME = 2**12  # characters; Linux' own limit of a path
NAME = re.compile(r"(.+)_(n\d{8})(\.\w+)", re.DOTALL)  # n01440764_10026_n01440764.JPEG


class Row(NamedTuple):
    label: int
    wnid: str  # that the image's path ends with, or ""
    name: str  # of the image's file, without it
    position: int  # from 0, in the parquet file


def find_files(root: str) -> dict[str, list[str]]:
    """List the parquet files of each split, by how their names begin; {} where there are none."""
    for folder in (root, paths.join(root, "data")):
        entries = [entry for entry in paths.scan(folder) if entry.name.endswith(".parquet")]
        found = {split: [] for split in SPLITS}
        for entry in entries:
            if split := split_name(re.split(r"[-.]", entry.name)[0]):
                found[split].append(entry.path)
        if found["train"]:
            return found
        if entries:
            raise FileNotFoundError(
                f"{folder} holds {printable(entries[0].name)} but no train-*.parquet: add it"
            )
    return {}


def read_rows(path: str) -> Iterator[Row]:
    """List the images of a parquet file; their bytes are not read. Raises ValueError."""
    stem = path.rpartition("/")[2].removesuffix(".parquet")
    position = 0
    try:
        file = _open(path)
        rows = _rows_within(file, range(file.num_row_groups), "image.path", MAX_NAMES_BYTES)
        for batch in file.iter_batches(rows, columns=["image.path", "label"]):
            if batch.nbytes > MAX_NAMES_BYTES:
                raise ValueError(f"row {position} or one near it has a name of many megabytes")
            names = batch.column("image").field("path").to_pylist()
            for name, label in zip(names, batch.column("label").to_pylist(), strict=True):
                if not isinstance(label, int) or not 0 <= label < MAX_LABEL:
                    raise ValueError(f"row {position} has the label {label!r}")
                if len(name or "") > MAX_NAME:
                    raise ValueError(f"row {position} has a name of {len(name):,} characters")
                name = (name or f"{stem}-{position}").rpartition("/")[2]
                found = NAME.fullmatch(name)
                wnid = found[2] if found else ""
                yield Row(label, wnid, found[1] + found[3] if found else name, position)
                position += 1
    except (ValueError, KeyError, OSError) as error:  # pyarrow's own errors are of these kinds
        raise ValueError(f"{printable(path)} cannot be read: {_line(error)}") from None


def has_labels(path: str) -> bool:
    """Tell whether the first image has a label: ImageNet's test images have -1."""
    try:
        first = next(_open(path).iter_batches(batch_size=1, columns=["label"]), None)
        return first is not None and first.column("label")[0].as_py() not in (None, -1)
    except (ValueError, KeyError, OSError):
        return True  # `read_rows` says what is wrong


def read_class_names(path: str) -> list[str]:
    """Give the names of the labels, as Hugging Face writes them in the file's head; [] if none."""
    head = (_open(path).schema_arrow.metadata or {}).get(b"huggingface", b"{}")
    try:
        names = json_object(head)["info"]["features"]["label"]["names"]
        return [str(name) for name in names]
    except (ValueError, LookupError, TypeError):
        return []


def read_image(path: str, position: int) -> bytes:
    """Read one image's bytes; raises OSError when the file does not hold it (any more)."""
    file = _open(path)
    try:
        for group in range(file.num_row_groups):
            rows = file.metadata.row_group(group).num_rows
            if position < rows:
                return _read_group(path, group)[position].as_py() or b""
            position -= rows
    except (ValueError, KeyError) as error:
        raise OSError(_line(error)) from None
    raise OSError("it has fewer rows than when it was listed")


@functools.lru_cache(maxsize=16)
def _open(path: str):
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise ModuleNotFoundError(
            f"{path} needs pyarrow ({error}): pip install -e '.[parquet]'"
        ) from None
    try:
        return pyarrow.parquet.ParquetFile(paths.open_file(path))
    except pyarrow.ArrowInvalid as error:
        raise ValueError(f"{printable(path)} cannot be read: {_line(error)}") from None


@functools.lru_cache(maxsize=1)
def _read_group(path: str, group: int):
    import pyarrow

    file, found = _open(path), []
    rows = _rows_within(file, [group], "image.bytes", MAX_GROUP_BYTES)
    for batch in file.iter_batches(rows, row_groups=[group], columns=["image.bytes"]):
        found.append(batch.column("image").field("bytes"))
        if sum(part.nbytes for part in found) > MAX_GROUP_BYTES:
            raise OSError(f"a row group of more than {MAX_GROUP_BYTES:,} bytes: write smaller ones")
    return pyarrow.chunked_array(found)


def _rows_within(file, groups, column: str, limit: int) -> int:
    """Give how many rows may be read at once: each may repeat the largest value of its group."""
    columns = (
        file.metadata.row_group(group).column(number)
        for group in groups
        for number in range(file.metadata.num_columns)
    )
    sizes = [of.total_uncompressed_size for of in columns if of.path_in_schema == column]
    return min(max(limit // max([1, *sizes]), 1), 2**14)


def _line(error: Exception) -> str:
    return printable(str(error).partition("\n")[0])[:200]
