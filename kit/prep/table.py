"""Reads a table of images, labels.csv: path, label, and perhaps split and group of each."""

import csv
import io
import os
import unicodedata
from collections import Counter
from pathlib import Path
from typing import NamedTuple

from kit.data import folders, paths
from kit.data.folders import class_name, named
from kit.data.paths import Entry, printable
from kit.prep.splits import NAMES, split_name

TABLE = "labels.csv"
COLUMNS = ("path", "label", "split", "group")
MAX_BYTES = 2**29  # of a table; one of ImageNet's size has a hundred million


class Row(NamedTuple):
    file: Entry
    label: str
    split: str  # "" where the table does not say
    group: str  # "" where the table does not say


def find(raw_dir) -> str:
    """Give the path of the table that raw_dir is or holds, "" where there is none."""
    root = paths.resolve(raw_dir)
    if is_table(root):
        return root
    inner = paths.join(root, TABLE)
    return inner if paths.is_file(inner) else ""


def is_table(root: str) -> bool:
    return root.lower().endswith(".csv") and paths.is_file(root)


def root_of(raw_dir) -> str:
    """Give the folder from which the names of images count: raw_dir, or that of its table."""
    root = paths.resolve(raw_dir)
    return root.rpartition("/")[0] if is_table(root) else root


def read(path: str, skipped: folders.Skipped) -> list[Row]:
    """Read the table; paths in it are absolute, or relative to its own folder.

    Raises ValueError with all that is wrong with it, in one line: columns, cells, files that are
    not there, labels of one image, groups on two sides of the split.
    """
    table, problems = _read_cells(path), []
    columns = [name.strip().casefold() for name in (table[0] if table else [])]
    if unknown := [name for name in columns if name not in COLUMNS]:
        problems.append(f"unknown columns {named(unknown)} (known: {', '.join(COLUMNS)})")
    if missing := [name for name in ("path", "label") if columns.count(name) != 1]:
        problems.append(f"no column {named(missing)}")
    if not problems:
        cells = _check_cells(table[1:], columns, problems)
        folders.check_alike(path, [row["label"] for row in cells])
        rows = _find_files(path, cells, skipped, problems)
        _check_labels(rows, problems)
        if not problems:
            return rows
    raise ValueError(f"{printable(path)}: {'; '.join(problems)}: correct it, or rename the file")


def _read_cells(path: str) -> list[list[str]]:
    """Give the cells of each line; they are separated by what separates those of the first."""
    try:
        text = paths.read_file(path, MAX_BYTES).decode("utf-8-sig")
        separator = max(",;\t", key=text.partition("\n")[0].count)
        return list(csv.reader(io.StringIO(text, newline=""), delimiter=separator))
    except (ValueError, csv.Error) as error:
        raise ValueError(
            f"{printable(path)} cannot be read ({error}): save it as CSV in UTF-8"
        ) from None


def _check_cells(lines: list, columns: list[str], problems: list[str]) -> list[dict]:
    """Give the cells of each line by column; what is wrong goes to problems."""
    found, uneven, empty, strange = [], [], [], Counter()
    for number, line in enumerate(lines, 2):
        if not any(map(str.strip, line)):
            continue
        if len(line) != len(columns):
            uneven.append(str(number))
            continue
        cells = dict(zip(columns, map(str.strip, line), strict=True))
        if not cells["path"] or not cells["label"] or cells.get("split") == "":
            empty.append(str(number))
        elif "split" in cells and not split_name(cells["split"]):
            strange[cells["split"]] += 1
        else:
            found.append(cells)
    if uneven:
        problems.append(f"not {len(columns)} cells in line {named(uneven)}")
    if empty:
        problems.append(f"an empty cell in line {named(empty)}")
    if strange:
        problems.append(f"unknown splits {named(list(strange))} (known: {', '.join(NAMES)})")
    if not (found or problems):
        problems.append("no images")
    return found


def _find_files(path: str, cells: list[dict], skipped, problems: list[str]) -> list[Row]:
    """Find each file once; those that are not there, or listed in two ways, go to problems."""
    root, listings, rows = path.rpartition("/")[0], {}, {}
    absent, differ = [], []
    for row in cells:
        entry = _entry(root, row["path"].replace("\\", "/"), listings)
        if entry is None:
            absent.append(row["path"])
            continue
        if reason := folders.reason_to_skip(entry.name, entry.kind or "file"):
            skipped.append((entry.path, reason))
            continue
        split = split_name(row.get("split", ""))
        found = Row(entry, class_name(row["label"]), split, row.get("group", ""))
        if rows.setdefault(entry.path, found) is not found:
            skipped.append((entry.path, f"a second time in {path.rpartition('/')[2]}"))
            differ += [row["path"]] * (rows[entry.path] != found)
    found = {entry.path: entry.name for folder in listings.values() for entry in folder.values()}
    if unlisted := sum(not folders.reason_to_skip(found[at]) for at in found.keys() - rows.keys()):
        skipped.append((root, f"{unlisted:,} image files that the table does not list"))
    if absent:
        problems.append(f"{len(absent)} files that are not there: {named(absent)}")
    if differ:
        problems.append(f"files in two rows that differ: {named(differ)}")
    return list(rows.values())


def _entry(root: str, path: str, listings: dict[str, dict]) -> Entry | None:
    """Give the file's entry in its folder, which is listed once; macOS writes names in NFD."""
    if paths.is_remote(root) or paths.is_remote(path):
        whole = path if paths.is_remote(path) else paths.join(root, path)
    else:
        whole = os.path.normpath(Path(root, path))
    folder, _, name = whole.rpartition("/")
    if folder not in listings:
        entries = [entry for entry in paths.scan(folder) if entry.kind != "folder"]
        alike = {unicodedata.normalize("NFC", entry.name): entry for entry in entries}
        listings[folder] = alike | {entry.name: entry for entry in entries}
    found = listings[folder]
    return found.get(name) or found.get(unicodedata.normalize("NFC", name))


def _check_labels(rows: list[Row], problems: list[str]) -> None:
    counts = Counter(row.label for row in rows)
    if single := [label for label, count in counts.items() if count == 1]:
        problems.append(f"labels with one image: {named(sorted(single))}")
    if rows and len(counts) < 2:
        problems.append("one label, and telling apart takes two or more")
    trained = {row.label for row in rows if row.split in ("", "train")}
    if untrained := sorted(counts.keys() - trained):
        problems.append(f"labels without a row of the split train: {named(untrained)}")
    sides = {}
    for row in rows:
        sides.setdefault(row.group, set()).add(row.split)
    sides.pop("", None)
    if torn := [group for group, found in sides.items() if len(found) > 1]:
        problems.append(f"groups in more than one split: {named(sorted(torn))}")
