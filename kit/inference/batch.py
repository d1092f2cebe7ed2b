"""A folder of photographs in; a table of the likeliest classes of each, CSV or parquet, out.

The answers of each batch are added to a journal beside the table, which is made of it at the end. A
run that was stopped, in whatever way, goes on behind the last whole line of the journal, and looks
again at the photographs that have changed since.
"""

import csv
import hashlib
import json
import os
import shutil
import unicodedata
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path

import numpy as np

from kit.data.folders import IMAGE_SUFFIXES
from kit.data.paths import printable
from kit.files import replacing
from kit.inference.classifier import BATCH, THREADS, check_top_k, encoded, likeliest
from kit.inference.journal import append_rows, begin_journal, keep_rows, read_rows

KINDS = (".csv", ".parquet")
ROWS = 10_000  # of a parquet file's row groups
# of the metadata, what the answers depend on besides the network
DECIDES = ("image_size", "resize_side", "store_short_side", "store_quality", "classes")


def find_photos(photos, table=None):
    """List the files in a folder and its folders, sorted; or the one file that `photos` is.

    What is hidden (its name begins with a dot) is passed over, and so is the file `table`. A linked
    folder is not followed, as it may lead round in a circle, and another may be unreadable: each is
    in the list itself, so that it gets a row which says so. Raises FileNotFoundError when `photos`
    is not there, ValueError when there is no such folder and no file has the name of an image.
    """
    root = Path(photos)
    if not str(photos) or not root.exists():
        raise FileNotFoundError(
            f'photos: "{photos}" is not there; name an image or a folder of images'
        )
    if root.is_file():
        return [root]
    found, closed = [], []
    for folder, folders, names in os.walk(root, onerror=lambda e: closed.append(Path(e.filename))):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [Path(folder, name) for name in names if not name.startswith(".")]
        closed.extend(filter(Path.is_symlink, (Path(folder, name) for name in folders)))
    if not closed and not any(file.suffix.lower() in IMAGE_SUFFIXES for file in found):
        raise ValueError(
            f'photos: no image in "{photos}" ({", ".join(sorted(IMAGE_SUFFIXES))}); '
            "name an image or a folder of images"
        )
    own = table and Path(table).resolve()
    return sorted(path for path in found + closed if path.resolve() != own)


def write_photos(examples, photos):
    """Write the images of `dataset.encoded_examples` as files into the folder; give the folder.

    It is emptied first: each begins with its number, for the names may not differ.
    """
    photos = Path(photos)
    shutil.rmtree(photos, ignore_errors=True)
    photos.mkdir(parents=True)
    for number, example in enumerate(examples.as_numpy_iterator()):
        name = Path(os.fsdecode(example["filename"])).name
        (photos / f"{number:02}_{name}").write_bytes(example["encoded"])
    return photos


def check_table(predictions):
    """Raise ValueError or OSError, in one line, when a table cannot be written there."""
    path = Path(predictions)
    if path.suffix not in KINDS:
        raise ValueError(f'predictions: "{path}" ends neither in .csv nor in .parquet')
    if path.suffix == ".parquet":
        _pyarrow()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir():
            raise IsADirectoryError(0, "it is a folder")
        probe = path.with_name(f".{path.name}.{os.getpid()}")
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise OSError(
            f'predictions: "{path}" cannot be written ({error.strerror}); name another file'
        ) from None


def classify_folder(classifier, photos, *, predictions, top_k, progress=lambda rows, total: rows):
    """Classify each file of `find_photos`, and write a table with one row for each.

    `predictions` is the table, .csv or .parquet, with the columns photo (the path within the
    folder), problem (why it could not be classified; empty if it was), and of the `top_k` likeliest
    classes label_1 (from 0), name_1, probability_1, label_2, ... progress(rows, total) wraps the
    stream of answers, as tqdm does. After a kill the same call goes on where it was.

    Gives {"photos": rows of the table, "resumed": how many of them an earlier run had done,
    "problems": reason by photo, "readable": the paths of the others}. Raises as `find_photos` and
    `check_table` do, and ValueError for a `top_k` under 1, when what is there was begun with
    another model, folder or top_k, and, with the table written, when no file could be classified.
    """
    files, root, table = find_photos(photos, predictions), Path(photos), Path(predictions)
    check_top_k(top_k)
    check_table(table)
    told = classifier.metadata
    decides = json.dumps([told.get(name) for name in DECIDES]).encode()
    model = [told.get("sha256"), told.get("files"), hashlib.sha256(decides).hexdigest()]
    journal = table.with_name(f".{table.name}.journal")
    begin_journal(journal, {"model": model, "photos": str(root.resolve()), "top_k": top_k})
    names = {_name(file, root): file for file in files}
    stamps = {name: _stamp(file) for name, file in names.items()}
    done = keep_rows(journal, stamps)
    todo = {name: file for name, file in names.items() if name not in done}
    for _ in progress(_answer(classifier, todo, stamps, top_k, journal), len(todo)):
        pass
    _write(table, read_rows(journal), classifier.classes, top_k)
    problems = {row["photo"]: row["problem"] for row in read_rows(journal) if row["problem"]}
    journal.unlink()
    photos = len(done) + len(todo)
    if problems and len(problems) == photos:
        name, reason = next(iter(problems.items()))
        raise ValueError(
            f"photos: none of {photos} can be classified, as {printable(name)} ({reason}); give "
            f"JPEG, PNG, WebP or BMP; {table} says why of each"
        )
    readable = [file for name, file in names.items() if name not in problems]
    resumed = len(done)
    return {"photos": photos, "resumed": resumed, "problems": problems, "readable": readable}


def _name(file, root):
    return file.name if file == root else file.relative_to(root).as_posix()


def _stamp(file):
    """Give by what a changed file is known; nothing of what is not there, as of a dead link."""
    try:
        found = file.stat()
    except OSError:
        return []
    return [found.st_size, found.st_mtime_ns]


def _answer(classifier, files, stamps, top_k, journal):
    """Classify the files, {name: path}, and give each answer once it stands in the journal."""
    looked = _look_ahead(classifier, files)
    while batch := list(islice(looked, BATCH)):
        pixels = [square for _, square, problem in batch if not problem]
        found = iter(classifier.forward(np.stack(pixels)) if pixels else ())
        rows = []
        for name, _, problem in batch:
            row = {"photo": name, "problem": problem, "stamp": stamps[name]}
            if not problem:
                shares = next(found)
                row["labels"] = likeliest(shares, top_k)
                row["probabilities"] = shares[row["labels"]].tolist()
            rows.append(row)
        append_rows(journal, rows)
        yield from rows


def _look_ahead(classifier, files):
    """Give (name, pixels, problem) in order; two batches are decoded while the network is busy."""
    with ThreadPoolExecutor(THREADS) as pool:
        waiting = deque()
        for name, file in files.items():
            waiting.append((name, pool.submit(_look, classifier, file)))
            if len(waiting) > 2 * BATCH:
                name, result = waiting.popleft()
                yield name, *result.result()
        for name, result in waiting:
            yield name, *result.result()


def _look(classifier, file):
    """Give what the network sees of a file and "", or None and the reason, in one line."""
    try:
        if file.is_dir():
            os.scandir(file).close()  # raises the reason where it is unreadable
            return None, "a linked folder, which is not followed"
        if not file.is_file():
            return None, "not a regular file"
        return classifier.pixels(encoded(file)), ""
    except OSError as error:
        return None, printable(error.strerror or str(error))
    except ValueError as error:
        return None, printable(str(error))


def _write(table, rows, classes, top_k):
    """Write the table, whole or not at all."""
    columns = {"photo": str, "problem": str}
    for place in range(1, min(top_k, len(classes)) + 1):
        columns |= {f"label_{place}": int, f"name_{place}": str, f"probability_{place}": float}
    filled = (_fill(row, classes, columns) for row in rows)
    with replacing(table) as temporary:
        if table.suffix == ".csv":
            with temporary.open("w", newline="", encoding="utf-8") as file:
                writer = csv.writer(file, lineterminator="\n")
                writer.writerow(columns)
                writer.writerows(filled)
        else:
            _write_parquet(temporary, filled, columns)


def _fill(row, classes, columns):
    cells = [_writable(row["photo"]), row["problem"]]
    for label, share in zip(row.get("labels", ()), row.get("probabilities", ()), strict=True):
        cells += [label, classes[label]["name"], float(f"{share:.6g}")]
    return cells + [None] * (len(columns) - len(cells))


def _writable(name):
    """Give a name as it is, but U+FFFD for what UTF-8 cannot hold and for control characters.

    The odd spaces and joiners of real names stay: with them the file is found again.
    """
    known = os.fsencode(name).decode("utf-8", "replace")
    return "".join("\ufffd" if unicodedata.category(c) == "Cc" else c for c in known)


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
        raise ValueError(
            f"predictions: .parquet needs pyarrow ({error}): pip install -e '.[parquet]', or name "
            "a .csv"
        ) from None
    return pyarrow
