"""Classifies a folder of images: a table of the likeliest classes of each.

A journal beside the table takes the answers of each batch, and the table is written from it at the
end. A run that was killed goes on after its last whole line.
"""

import hashlib
import json
import os
import shutil
from collections import Counter
from pathlib import Path

import numpy as np

from kit import locks
from kit.data.folders import IMAGE_SUFFIXES
from kit.data.images import Form
from kit.data.paths import printable
from kit.files import naming_full_disk
from kit.inference import journal
from kit.inference.classifier import check_top_k, decoded_ahead, encoded, likeliest
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
    found = find_photos(photos, table, hidden=hidden)
    files = {(f.name if f == root else f.relative_to(root).as_posix()): f for f in found}
    check_top_k(top_k)
    check_table(table)
    lock = table.with_name(f".{table.name}.lock")
    with locks.holding(lock, f'predictions: "{table}" is being written'):
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
    answers = table.with_name(f".{table.name}.journal")
    metadata = classifier.metadata
    decides = json.dumps([metadata.get(name) for name in DECIDES]).encode()
    model = [metadata.get("sha256"), metadata.get("files"), hashlib.sha256(decides).hexdigest()]
    run = {"model": model, "photos": os.path.realpath(root), "top_k": top_k}
    stamps = {name: _stamp(file) for name, file in files.items()}
    done = journal.resume(answers, run, stamps)
    todo = {name: file for name, file in files.items() if name not in done}

    def answered():
        for rows in classify_files(classifier, todo, top_k):
            rows = [row | {"stamp": stamps[row["photo"]]} for row in rows]
            journal.append(answers, rows)
            yield from rows

    for _ in progress(answered(), len(todo)):
        pass
    write_table(table, journal.read(answers), classifier.classes, top_k, files)
    problems = {row["photo"]: row["problem"] for row in journal.read(answers) if row["problem"]}
    answers.unlink()
    return len(done), problems


def _stamp(file):
    """Return a file's size and time of change; an empty list for a dead link."""
    try:
        found = file.stat()
    except OSError:
        return []
    return [found.st_size, found.st_mtime_ns]


def classify_files(classifier, files, top_k):
    """Classify the files, {name: path}, and give the rows of a batch at a time, in their order.

    A row is {"photo": name, "problem": reason} and, where there is no problem, the `top_k`
    likeliest "labels" with their "probabilities".
    """
    for names, decoded in decoded_ahead(lambda name: _decode(classifier, files[name]), files):
        pixels = [square for square, problem in decoded if not problem]
        answers = iter(classifier.forward(np.stack(pixels)) if pixels else ())
        rows = [
            {"photo": name, "problem": problem}
            for name, (_, problem) in zip(names, decoded, strict=True)
        ]
        for row in rows:
            if not row["problem"]:
                shares = next(answers)
                row["labels"] = likeliest(shares, top_k)
                row["probabilities"] = shares[row["labels"]].tolist()
        yield rows


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
