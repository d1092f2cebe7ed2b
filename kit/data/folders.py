"""Lists a folder of class folders: names and sizes of image files. No file is opened."""

from collections.abc import Iterator

from kit.data import paths
from kit.data.paths import Entry, printable

IMAGE_SUFFIXES = frozenset((".jpeg", ".jpg", ".png", ".gif", ".bmp", ".webp", ".tif", ".tiff"))

Skipped = list[tuple[str, str]]  # path and reason; each function appends to it


def list_classes(parent: str, skipped: Skipped) -> Iterator[tuple[Entry, list[Entry]]]:
    """Yield each class folder, sorted by name, with its image files.

    Raises ValueError for a class folder without images.
    """
    folders, strays = list_images(parent, skipped)
    skipped += [(file.path, "not in a class folder") for file in strays]
    for folder in folders:
        deeper, files = list_images(folder.path, skipped)
        skipped += [(entry.path, "a folder within a class folder") for entry in deeper]
        if not files:
            raise ValueError(
                f"class folder {printable(folder.path)} holds no image: add some, or remove it"
            )
        yield folder, files


def list_images(folder: str, skipped: Skipped) -> tuple[list[Entry], list[Entry]]:
    """Give the folders and the image files in a folder; all else is skipped, with the reason."""
    folders, files = [], []
    for entry in paths.scan(folder):
        if entry.kind == "folder" and not entry.name.startswith("."):
            folders.append(entry)
        elif reason := reason_to_skip(entry.name, entry.kind):
            skipped.append((entry.path, reason))
        else:
            files.append(entry)
    return folders, files


def has_classes(folder: str) -> bool:
    """Tell whether the folder holds class folders."""
    return bool(list_images(folder, [])[0])


def reason_to_skip(name: str, kind: str = "file") -> str:
    """Say why a file cannot be an image, by its name and kind; "" if it can."""
    if name.startswith("."):
        return "hidden"
    if kind != "file":
        return "not a regular file"
    suffix = "." + name.rpartition(".")[2].lower()
    return "" if suffix in IMAGE_SUFFIXES else "not an image by its name"
