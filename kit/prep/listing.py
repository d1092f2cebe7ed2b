"""Lists image files by class, or flat, in folders and in tars: names and sizes, no byte of them."""

from collections.abc import Iterator
from typing import NamedTuple

from kit.data import folders, paths
from kit.data.folders import Skipped, check_alike, class_name, named, reason_to_skip
from kit.prep import archives


class File(NamedTuple):
    name: str
    size: int  # bytes
    position: int = -1  # of its first byte in the tar; -1 for a file of its own
    changed: int | str = 0  # of the file, or the tar: as of paths.Entry


def list_classes(source: str, skipped: Skipped) -> Iterator[tuple[str, str, list[File]]]:
    """Yield class, container and files of each class folder, or each tar in a tar, by class.

    A class comes twice where two folders have its name, composed and decomposed. Raises ValueError
    for classes without images, and for those whose names print alike.
    """
    if source.endswith(".tar"):
        yield from _classes_in_tar(source, skipped)
    else:
        for folder, entries in folders.list_classes(source, skipped):
            yield class_name(folder.name), folder.path, _files(entries)


def list_flat(source: str, skipped: Skipped) -> list[File]:
    """List the images of a folder, or of a tar, sorted by name."""
    if not source.endswith(".tar"):
        return _files(folders.list_images(source, skipped)[1])
    with archives.open_tar(source) as file:
        return _files_in_tar(source, file, 0, file.seek(0, 2), paths.changed(source), skipped)


def has_classes(source: str) -> bool:
    """Tell whether the folder holds class folders."""
    return not source.endswith(".tar") and folders.has_classes(source)


def _files(entries: list[paths.Entry]) -> list[File]:
    return [File(entry.name, entry.size, changed=entry.changed) for entry in entries]


def _classes_in_tar(tar: str, skipped: Skipped):
    inner, empty, changed = {}, [], paths.changed(tar)
    with archives.open_tar(tar) as file:
        for member in archives.read_members(file, 0, file.seek(0, 2)):
            name = member.base_name
            if member.problem or not name.endswith(".tar"):
                skipped.append((paths.join(tar, member.name), member.problem or "not a tar"))
            else:
                inner[name.removesuffix(".tar")] = member
        check_alike(tar, list(inner))
        for wnid, member in sorted(inner.items()):
            path, end = paths.join(tar, member.name), member.start + member.size
            files = _files_in_tar(path, file, member.start, end, changed, skipped)
            if files:
                yield class_name(wnid), tar, files
            else:
                empty.append(member.name)
        if empty:
            raise ValueError(f"no image in {named(empty)}")


def _files_in_tar(path: str, file, start: int, end: int, changed, skipped) -> list[File]:
    """List images between two offsets; the last of several with one name wins, as in tar."""
    files = {}
    for member in archives.read_members(file, start, end):
        name = member.base_name
        if reason := member.problem or reason_to_skip(name):
            skipped.append((paths.join(path, member.name), reason))
            continue
        if name in files:
            skipped.append((paths.join(path, member.name), "a later file has the same name"))
        files[name] = File(name, member.size, member.start, changed)
    return sorted(files.values())
