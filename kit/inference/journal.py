"""The answers of an unfinished run, as JSON lines; the first line identifies the run.

A killed run may leave a part of a line at the end: it counts as not written.
"""

import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from kit.files import check_form, json_object, naming_full_disk, replacing

ROW = {"photo": str, "problem": str, "stamp": [int]}
ANSWER = {"labels": [int], "probabilities": [float]}  # where there is no problem


def resume(journal: Path, run: dict, stamps: dict) -> set[str]:
    """Begin the journal of a run, or go on with the one that is there; give the images it holds.

    An answer is dropped when `stamps`, {image: stamp}, has another stamp for its image, or none.
    Raises ValueError for the journal of another run, which is left as it is.
    """
    first, done = json.dumps(run).encode() + b"\n", set()
    with replacing(journal) as path, path.open("wb") as kept:
        kept.write(first)
        for number, (line, row) in enumerate(_whole_lines(journal)):
            if not number and line != first:
                raise ValueError(
                    f'predictions: "{journal}" is of an unfinished run with another model, folder '
                    "or top_k; give them back to go on with it, name another file, or delete it"
                )
            if number and row["stamp"] == stamps.get(row["photo"]):
                done.add(row["photo"])
                kept.write(line)
    return done


def append(journal: Path, rows: Iterable[dict]) -> None:
    """Add rows, and return once they are on the disk."""
    with naming_full_disk(journal), journal.open("ab") as file:
        file.write(b"".join(json.dumps(row).encode() + b"\n" for row in rows))
        file.flush()
        os.fsync(file.fileno())


def read(journal: Path) -> Iterator[dict]:
    """Give the rows, one after the other."""
    lines = _whole_lines(journal)
    next(lines)  # states what the run is
    yield from (row for _, row in lines)


def _whole_lines(journal):
    """Give each line with its row, up to the first that is not whole; none without a journal."""
    if not journal.exists():
        return
    with journal.open("rb") as lines:
        for number, line in enumerate(lines):
            try:
                row = json_object(line)
                check_form(row, {} if not number else ROW if row.get("problem") else ROW | ANSWER)
            except ValueError:
                return
            if not line.endswith(b"\n"):
                return
            yield line, row
