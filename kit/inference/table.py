"""The table of a classified folder: a row for each image, as CSV or parquet."""

import csv
import os
import unicodedata
from collections import Counter
from itertools import islice
from pathlib import Path

from kit.data.cells import harmless
from kit.data.paths import printable, utf8
from kit.files import check_writable, replacing

KINDS = (".csv", ".parquet")
ROWS = 10_000  # of a parquet file's row groups
NAME_BYTES = 200  # file systems take 255, and what is written beside the table has longer names


def check_table(predictions):
    """Raise ValueError or OSError, in one line, when a table cannot be written there."""
    path = Path(predictions)
    if path.suffix not in KINDS:
        raise ValueError(f'predictions: "{path}" ends neither in .csv nor in .parquet')
    if len(os.fsencode(path.name)) > NAME_BYTES:
        text = f'"{printable(path)}" has a name of more than {NAME_BYTES} bytes'
        raise ValueError(f"predictions: {text}; take a shorter one")
    if path.suffix == ".parquet":
        _pyarrow()
    try:
        check_writable(path)
    except OSError as error:
        text = f'"{path}" cannot be written ({error.strerror})'
        raise OSError(f"predictions: {text}; name another file") from None


def write_table(path, rows, classes, top_k, photos):
    """Write the table, whole or not at all, of rows of `batch.classify_folder`'s journal.

    Raises ValueError, with no table written, unless there is one row for each name in `photos`.
    """
    columns = {"photo": str, "problem": str}
    for rank in range(1, min(top_k, len(classes)) + 1):
        columns |= {f"label_{rank}": int, f"name_{rank}": str, f"probability_{rank}": float}
    missing = Counter(list(photos))

    def cells():
        for row in rows:
            missing[row["photo"]] -= 1
            yield _cells(row, classes, len(columns))

    write = _write_csv if path.suffix == ".csv" else _write_parquet
    with replacing(path) as temporary:
        write(temporary, cells(), columns)
        if wrong := [name for name, count in missing.items() if count]:
            raise ValueError(
                f"predictions: {len(wrong)} of {len(photos)} images have no row or several, such "
                f"as {printable(wrong[0])}; {path} is not written: run again"
            )


def _cells(row, classes, count):
    cells = [_writable(row["photo"]), row["problem"]]
    for label, share in zip(row.get("labels", ()), row.get("probabilities", ()), strict=True):
        cells += [label, classes[label]["name"], float(f"{share:.6g}")]
    return cells + [None] * (count - len(cells))


def _writable(name):
    """Give a name as it is, but U+FFFD for what UTF-8 cannot hold and for control characters.

    The odd spaces and joiners of real names stay: with them the file is found again.
    """
    return "".join("\ufffd" if unicodedata.category(c) == "Cc" else c for c in utf8(name))


def _write_csv(path, rows, columns):
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(map(harmless, row) for row in rows)


def _write_parquet(path, rows, columns):
    pyarrow = _pyarrow()
    kinds = {str: pyarrow.string(), int: pyarrow.int32(), float: pyarrow.float32()}
    schema = pyarrow.schema([(name, kinds[kind]) for name, kind in columns.items()])
    with pyarrow.parquet.ParquetWriter(path, schema) as writer:
        while group := list(islice(rows, ROWS)):
            table = [dict(zip(columns, row, strict=True)) for row in group]
            writer.write_table(pyarrow.Table.from_pylist(table, schema))


def _pyarrow():
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        remedy = "pip install -e '.[parquet]', or name a .csv"
        raise ValueError(f"predictions: .parquet needs pyarrow ({error}): {remedy}") from None
    return pyarrow
