"""Image files by class, or flat, in folders and in tars: their names and sizes, no byte of them."""

from collections.abc import Iterator
from typing import NamedTuple

from kit.data import paths
from kit.data.paths import printable
from kit.prep import archives

IMAGE_SUFFIXES = frozenset((".jpeg", ".jpg", ".png", ".gif", ".bmp", ".webp", ".tif", ".tiff"))

Skipped = list[tuple[str, str]]  # path and reason; each function adds to it


class File(NamedTuple):
    name: str
    size: int  # bytes
    place: int  # its first byte in the tar; -1 for a file of its own


def list_classes(where: str, skipped: Skipped) -> Iterator[tuple[str, str, list[File]]]:
    """Give class, container and files of each class folder, or each tar in a tar, sorted by name.

    Raises ValueError for a class without images.
    """
    if where.endswith(".tar"):
        return _classes_in_tar(where, skipped)
    return _classes_in_folder(where, skipped)


def list_flat(where: str, skipped: Skipped) -> list[File]:
    """List the images of a folder, or of a tar, sorted by name."""
    if not where.endswith(".tar"):
        _, files = _sift(paths.scan(where), skipped)
        return files
    with archives.open_tar(where) as file:
        return _files_in_tar(where, file, 0, file.seek(0, 2), skipped)


def has_classes(where: str) -> bool:
    """Tell whether the folder holds class folders."""
    return not where.endswith(".tar") and any(
        entry.kind == "folder" and not entry.name.startswith(".") for entry in paths.scan(where)
    )


def _classes_in_folder(parent: str, skipped: Skipped):
    folders, strays = _sift(paths.scan(parent), skipped)
    skipped += [(paths.join(parent, file.name), "not in a class folder") for file in strays]
    for folder in folders:
        deeper, files = _sift(paths.scan(folder.path), skipped)
        skipped += [(entry.path, "a folder within a class folder") for entry in deeper]
        if not files:
            raise ValueError(
                f"class folder {printable(folder.path)} holds no image: add some, or remove it"
            )
        yield folder.name, folder.path, files


def _sift(entries: list[paths.Entry], skipped: Skipped) -> tuple[list[paths.Entry], list[File]]:
    """Part folders and image files; all else is skipped, with the reason."""
    folders, files = [], []
    for entry in entries:
        if entry.kind == "folder" and not entry.name.startswith("."):
            folders.append(entry)
        elif reason := _why_not(entry.name) if entry.kind == "file" else "not a regular file":
            skipped.append((entry.path, "hidden" if entry.name.startswith(".") else reason))
        else:
            files.append(File(entry.name, entry.size, -1))
    return folders, files


def _classes_in_tar(tar: str, skipped: Skipped):
    with archives.open_tar(tar) as file:
        inner = {}
        for member in archives.read_members(file, 0, file.seek(0, 2)):
            name = archives.base_name(member)
            if member.problem or not name.endswith(".tar"):
                skipped.append((paths.join(tar, member.name), member.problem or "not a tar"))
            else:
                inner[name.removesuffix(".tar")] = member
        for wnid, member in sorted(inner.items()):
            end = member.start + member.size
            files = _files_in_tar(paths.join(tar, member.name), file, member.start, end, skipped)
            if not files:
                raise ValueError(f"{printable(member.name)} holds no image")
            yield wnid, tar, files


def _files_in_tar(path: str, file, start: int, end: int, skipped: Skipped) -> list[File]:
    """List images between two offsets; of several of one name the last counts, as tar has it."""
    files = {}
    for member in archives.read_members(file, start, end):
        name = archives.base_name(member)
        if reason := member.problem or _why_not(name):
            skipped.append((paths.join(path, member.name), reason))
            continue
        if name in files:
            skipped.append((paths.join(path, member.name), "a later file has the same name"))
        files[name] = File(name, member.size, member.start)
    return sorted(files.values())


def _why_not(name: str) -> str:
    if name.startswith("."):
        return "hidden"
    suffix = "." + name.rpartition(".")[2].lower()
    return "" if suffix in IMAGE_SUFFIXES else "not an image by its name"
