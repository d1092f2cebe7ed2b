"""Lists a folder of class folders: names and sizes of image files. No file is opened."""

import importlib.util
import unicodedata
from collections.abc import Iterator

from kit.data import paths
from kit.data.paths import Entry, printable

IMAGE_SUFFIXES = frozenset(
    (".jpeg", ".jpg", ".jpe", ".jfif", ".png", ".gif", ".bmp", ".webp", ".tif", ".tiff", ".avif")
)
# What people keep beside images, or take for images, and what to do about it.
REMEDIES = {
    **dict.fromkeys((".heic", ".heif"), "pip install -e '.[heic]', or convert it to JPEG"),
    **dict.fromkeys((".jp2", ".j2k", ".jxl", ".psd", ".svg"), "convert it to PNG or JPEG"),
    **dict.fromkeys((".cr2", ".cr3", ".nef", ".arw", ".dng", ".raf", ".orf"), "develop it to JPEG"),
    **dict.fromkeys((".mp4", ".mov", ".avi", ".mkv"), "a film: save some of its frames as images"),
    **dict.fromkeys((".zip", ".rar", ".7z", ".tar", ".gz", ".tgz"), "an archive: extract it"),
}
# Of macOS, Windows, Synology and Linux: names of files and folders that are nobody's images.
SYSTEM = frozenset(
    (
        *("__macosx", "thumbs.db", "ehthumbs.db", "desktop.ini", "$recycle.bin"),
        *("system volume information", "@eadir", "lost+found"),
    )
)
LONGEST_SUFFIX = 8  # characters that are shown of an unknown ending

Skipped = list[tuple[str, str]]  # path and reason; each function appends to it


def list_classes(parent: str, skipped: Skipped) -> Iterator[tuple[Entry, list[Entry]]]:
    """Yield each class folder, sorted by the name of its class, with its image files.

    Raises ValueError for class folders without images, and for those whose names print alike.
    """
    folders, strays = list_images(parent, skipped)
    skipped += [(file.path, "not in a class folder") for file in strays]
    check_alike(parent, [folder.name for folder in folders])
    empty = []
    for folder in sorted(folders, key=lambda folder: class_name(folder.name)):
        deeper, files = list_images(folder.path, skipped)
        skipped += [(entry.path, "a folder within a class folder") for entry in deeper]
        if files:
            yield folder, files
        else:
            empty.append(folder.path)
    if empty:
        raise ValueError(
            f"class folder {printable(empty[0])} holds no image: add some, or remove it"
            if len(empty) == 1
            else f"class folders {named(empty)} hold no image: add some, or remove them"
        )


def list_images(folder: str, skipped: Skipped) -> tuple[list[Entry], list[Entry]]:
    """Give the folders and the image files in a folder; all else is skipped, with the reason."""
    folders, files = [], []
    for entry in paths.scan(folder):
        if reason := reason_to_skip(entry.name, entry.kind):
            skipped.append((entry.path, reason))
        else:
            (folders if entry.kind == "folder" else files).append(entry)
    return folders, files


def has_classes(folder: str) -> bool:
    """Tell whether the folder holds class folders."""
    return bool(list_images(folder, [])[0])


def class_name(folder: str) -> str:
    """Give the class that a folder's name means: in NFC, which macOS does not write, on one line.

    The Unicode Standard, Annex 15: "é" is one letter or a letter and an accent, and looks the same.
    """
    return printable(unicodedata.normalize("NFC", folder))


def check_alike(where: str, names: list[str]) -> None:
    """Raise ValueError for names that differ in NFC and yet print alike, as by a tab or newline."""
    spellings = {}
    for name in names:
        spellings.setdefault(class_name(name), set()).add(unicodedata.normalize("NFC", name))
    alike = sorted(repr(name) for found in spellings.values() if len(found) > 1 for name in found)
    if alike:
        raise ValueError(
            f"{printable(where)} has classes whose names print alike: {named(alike)}: rename them"
        )


def reason_to_skip(name: str, kind: str = "file") -> str:
    """Say why a file or folder is not read, by its name and kind; "" if it is."""
    if name.startswith("."):
        return "hidden"
    if name.casefold() in SYSTEM:
        return "of the operating system"
    if kind == "folder":
        return ""
    if kind != "file":
        return "not a regular file"
    suffix = "." + name.rpartition(".")[2].lower() if "." in name else ""
    heic = suffix in (".heic", ".heif") and importlib.util.find_spec("pillow_heif") is not None
    if suffix in IMAGE_SUFFIXES or heic:
        return ""
    if suffix in REMEDIES:
        return f"{suffix}: {REMEDIES[suffix]}"
    shown = suffix if len(suffix) <= LONGEST_SUFFIX and suffix[1:].isalnum() else ""
    return f"not an image by its name{f' ({shown})' * bool(shown)}"


def named(items, most: int = 5) -> str:
    """Name the first of several things in one line, and say how many more there are."""
    shown = ", ".join(printable(item) for item in items[:most])
    return f"{shown} and {len(items) - most} more" if len(items) > most else shown
