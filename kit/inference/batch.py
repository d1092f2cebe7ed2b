"""Classifies a folder of images: a table of the likeliest classes of each.

The answers of each batch are appended to a journal beside the table, which is written from it at
the end. A run that was killed goes on after the last whole line of the journal, and classifies
images again that have changed since.
"""

import hashlib
import json
import os
import shutil
from collections import Counter, deque
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np

from kit import locks
from kit.data.folders import IMAGE_SUFFIXES
from kit.data.images import Form
from kit.data.paths import printable
from kit.files import naming_full_disk
from kit.inference import journal
from kit.inference.classifier import BATCH, THREADS, check_top_k, encoded, likeliest
from kit.inference.table import check_table, write_table
from kit.model.metadata import RESIZE

# metadata that the answers depend on besides the network
DECIDES = ("image_size", *RESIZE, *Form._fields, "classes")


def find_photos(photos, table=None, *, hidden=None):
    """List the files in a folder and its folders, sorted; or the one file that `photos` is.

    Hidden files and folders, whose names begin with a dot, are added to the list `hidden` instead;
    the file `table` is skipped. A linked folder, which may lead round in a circle, and an
    unreadable one are listed themselves, so that the table has a row which says so. Raises
    FileNotFoundError when `photos` is not there, ValueError when there is no such folder and no
    file has the name of an image.
    """
    root = Path(photos)
    if not str(photos) or not root.exists():
        raise FileNotFoundError(
            f'photos: "{photos}" is not there; name an image or a folder of images'
        )
    if root.is_file():
        return [root]
    found, closed = _walk(root, [] if hidden is None else hidden)
    if not closed and not any(file.suffix.lower() in IMAGE_SUFFIXES for file in found):
        raise ValueError(
            f'photos: no image in "{photos}" ({", ".join(sorted(IMAGE_SUFFIXES))}); '
            "name an image or a folder of images"
        )
    own = table and os.path.realpath(table)  # Path.resolve raises for a link to itself
    return sorted(path for path in found + closed if os.path.realpath(path) != own)


def _walk(root, hidden):
    """Give the files that are not hidden, and the folders that are not entered."""
    found, closed = [], []
    for folder, folders, names in os.walk(root, onerror=lambda e: closed.append(Path(e.filename))):
        hidden += [Path(folder, name) for name in folders + names if name.startswith(".")]
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [Path(folder, name) for name in names if not name.startswith(".")]
        closed.extend(filter(Path.is_symlink, (Path(folder, name) for name in folders)))
    return found, closed


def write_photos(examples, photos):
    """Write the images of `dataset.encoded_examples` as files into the folder: {path: label}.

    It is emptied first. Each name begins with the image's number, for names may not differ, and
    ends as the image's does: of 255 bytes, the most that there may be, the first give way.
    """
    photos = Path(photos)
    shutil.rmtree(photos, ignore_errors=True)
    photos.mkdir(parents=True)
    labels = {}
    for number, example in enumerate(examples.as_numpy_iterator()):
        begin, name = f"{number:02}_".encode(), example["filename"].rpartition(b"/")[2]
        path = photos / os.fsdecode(begin + name[-(255 - len(begin)) :])
        with naming_full_disk(path):
            path.write_bytes(example["encoded"])
        labels[path] = int(example["label"])
    return labels


def classify_folder(classifier, photos, *, predictions, top_k=5, progress=lambda rows, total: rows):
    """Classify each file of `find_photos`, and write a table with one row for each.

    `predictions` is the table, .csv or .parquet, with the columns photo (the path within the
    folder), problem (why it could not be classified; empty if it was), and of the `top_k` likeliest
    classes label_1 (from 0), name_1, probability_1, label_2, ... progress(rows, total) wraps the
    stream of answers, as tqdm does. After a kill the same call goes on where it was.

    Gives {"photos": rows of the table, "resumed": how many of them an earlier run had done,
    "problems": reason by photo, "readable": the paths of the others, "reasons": number of files by
    what became of them}. Raises as `find_photos` and `check_table` do, locks.InUse while another
    process writes the table, and ValueError for a `top_k` under 1, when what is there was begun
    with another model, folder or top_k, and, with the table written, when no file could be
    classified.
    """
    root, table, hidden = Path(photos), Path(predictions), []
    files = {_name(file, root): file for file in find_photos(photos, table, hidden=hidden)}
    check_top_k(top_k)
    check_table(table)
    with locks.holding(_beside(table, "lock"), f'predictions: "{table}" is being written'):
        resumed, problems = _classify(classifier, files, root, table, top_k, progress)
    if problems and len(problems) == len(files):
        name, reason = next(iter(problems.items()))
        raise ValueError(
            f"photos: none of {len(files)} can be classified, as {printable(name)} ({reason}); "
            f"give JPEG, PNG, WebP or BMP; {table} says why of each"
        )
    readable = [file for name, file in files.items() if name not in problems]
    reasons = Counter(reason.partition(" (")[0] for reason in problems.values())
    reasons.update(["hidden"] * len(hidden))
    return {
        "photos": len(files),
        "resumed": resumed,
        "problems": problems,
        "readable": readable,
        "reasons": {"classified": len(readable), **reasons},
    }


def _classify(classifier, files, root, table, top_k, progress):
    """Write the table of the files, {name: path}: how many were done before, and the problems."""
    answers = _beside(table, "journal")
    run = {"model": _identity(classifier), "photos": os.path.realpath(root), "top_k": top_k}
    stamps = {name: _stamp(file) for name, file in files.items()}
    done = journal.resume(answers, run, stamps)
    todo = {name: file for name, file in files.items() if name not in done}
    for _ in progress(_answer(classifier, todo, stamps, top_k, answers), len(todo)):
        pass
    write_table(table, journal.read(answers), classifier.classes, top_k, files)
    problems = {row["photo"]: row["problem"] for row in journal.read(answers) if row["problem"]}
    answers.unlink()
    return len(done), problems


def _beside(table, kind):
    return table.with_name(f".{table.name}.{kind}")


def _identity(classifier):
    """Return what identifies a model."""
    metadata = classifier.metadata
    decides = json.dumps([metadata.get(name) for name in DECIDES]).encode()
    return [metadata.get("sha256"), metadata.get("files"), hashlib.sha256(decides).hexdigest()]


def _name(file, root):
    return file.name if file == root else file.relative_to(root).as_posix()


def _stamp(file):
    """Return a file's size and time of change; an empty list for a dead link."""
    try:
        found = file.stat()
    except OSError:
        return []
    return [found.st_size, found.st_mtime_ns]


def _answer(classifier, files, stamps, top_k, answers):
    """Classify the files, {name: path}, and give each answer once the journal holds it."""
    for rows in classify_files(classifier, files, top_k):
        rows = [row | {"stamp": stamps[row["photo"]]} for row in rows]
        journal.append(answers, rows)
        yield from rows


def classify_files(classifier, files, top_k):
    """Classify the files, {name: path}, and give the rows of a batch at a time, in their order.

    A row is {"photo": name, "problem": reason} and, where there is no problem, the `top_k`
    likeliest "labels" with their "probabilities".
    """
    for names, decoded in _decode_ahead(classifier, files):
        pixels = [square for square, problem in decoded if not problem]
        shares = iter(classifier.forward(np.stack(pixels)) if pixels else ())
        rows = []
        for name, (_, problem) in zip(names, decoded, strict=True):
            rows.append({"photo": name, "problem": problem})
            if not problem:
                rows[-1] |= _likeliest(next(shares), top_k)
        yield rows


def _likeliest(shares, top_k):
    labels = likeliest(shares, top_k)
    return {"labels": labels, "probabilities": shares[labels].tolist()}


def _decode_ahead(classifier, files):
    """Give (names, results of `_decode`) for each batch, while two more are being decoded."""
    names, batches = iter(files), deque()
    with ThreadPoolExecutor(THREADS) as pool:
        while batch := list(islice(names, BATCH)):
            decoded = pool.map(partial(_decode, classifier), [files[name] for name in batch])
            batches.append((batch, decoded))
            if len(batches) > 2:
                batch, decoded = batches.popleft()
                yield batch, list(decoded)
        for batch, decoded in batches:
            yield batch, list(decoded)


def _decode(classifier, file):
    """Give what the network sees of a file and "", or None and the reason, in one line."""
    try:
        if file.is_dir():
            os.scandir(file).close()  # raises the reason where it is unreadable
            return None, "a linked folder, which is not followed"
        if not os.path.lexists(file):
            return None, "it is not there"
        if not file.is_file():
            return None, "not a regular file"
        return classifier.decode(encoded(file)), ""
    except OSError as error:
        return None, printable(error.strerror or str(error))
    except ValueError as error:
        return None, printable(str(error))
