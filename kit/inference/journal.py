"""The answers that an unfinished run has given: JSON lines, behind one that tells of the run."""

import json
import os
from itertools import islice

from kit.files import replacing


def begin_journal(journal, run):
    """Make the journal of this run, or keep the whole lines of the one that is there."""
    end, first = 0, json.dumps(run).encode() + b"\n"
    journal.touch()
    with journal.open("rb+") as file:
        for line in file:
            if not end and line != first and _is_whole(line):
                raise ValueError(
                    f'predictions: "{journal}" is of an unfinished run with another model, folder '
                    "or top_k; give them back to go on with it, name another file, or delete it"
                )
            if not _is_whole(line):
                break
            end += len(line)
        file.truncate(end)
    if not end:
        append_rows(journal, [run])


def _is_whole(line):
    try:
        return line.endswith(b"\n") and isinstance(json.loads(line), dict)
    except ValueError:
        return False


def read_rows(journal):
    """Give the rows, one after the other."""
    with journal.open("rb") as file:
        yield from map(json.loads, islice(file, 1, None))


def keep_rows(journal, stamps):
    """Drop the rows whose stamp is no longer that of {photo: stamp}; give the names of the kept."""
    names = set()
    with replacing(journal) as path, path.open("wb") as kept, journal.open("rb") as lines:
        kept.write(next(lines))
        for line in lines:
            row = json.loads(line)
            if row["stamp"] == stamps.get(row["photo"]):
                names.add(row["photo"])
                kept.write(line)
    return names


def append_rows(journal, rows):
    """Add rows, and come back once they are on the disk."""
    with journal.open("ab") as file:
        file.write(b"".join(json.dumps(row).encode() + b"\n" for row in rows))
        file.flush()
        os.fsync(file.fileno())
