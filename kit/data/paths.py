"""Files by path or by URL: local folders, gs://, s3:// and hdfs:// are read by the same calls.

fsspec, and the package of the protocol, are needed for URLs only.
"""

import errno
import os
import re
import stat
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from kit import ROOT

REMOTE = re.compile(r"(gs|s3|hdfs)://")
LONE = re.compile("[\ud800-\udc7f\udd00-\udfff]")  # surrogates that stand for no byte
STATES = ("ETag", "etag", "mtime", "modification_time")  # of a file, as S3, GCS and HDFS say
EXTRAS = {"gs": "gcs", "s3": "s3", "hdfs": "hdfs"}  # protocol -> extra of pyproject.toml


class Entry(NamedTuple):
    name: str
    path: str
    kind: str  # "folder", "file", or "" for a device, a pipe, a link that leads nowhere
    size: int  # bytes
    changed: int | str = 0  # when: nanoseconds, or the mark of this state that the server gives


def resolve(path) -> str:
    """Give an absolute path, or the URL as it is; a relative path means the repository's root."""
    return str(path).rstrip("/") if is_remote(path) else str(ROOT / path)


def is_remote(path) -> bool:
    return bool(REMOTE.match(str(path)))


def join(folder: str, *names: str) -> str:
    return "/".join((folder, *names))


def scan(folder: str) -> list[Entry]:
    """List a folder, sorted by name; empty when there is no such folder."""
    if is_remote(folder):
        return _scan_remote(folder)
    if not Path(folder).is_dir():
        return []
    with os.scandir(folder) as entries:
        return sorted(map(_entry, entries))


def exists(path: str) -> bool:
    return ask("exists", path) if is_remote(path) else Path(path).exists()


def is_folder(path: str) -> bool:
    return ask("isdir", path) if is_remote(path) else Path(path).is_dir()


def is_file(path: str) -> bool:
    return ask("isfile", path) if is_remote(path) else Path(path).is_file()


def size_of(path: str) -> int:
    return ask("size", path) if is_remote(path) else Path(path).stat().st_size


def changed(path: str) -> int | str:
    """Give when a file changed, as its Entry has it."""
    return _state(ask("info", path)) if is_remote(path) else Path(path).stat().st_mtime_ns


def open_file(path: str):
    """Open a file for reading: a binary file object that can seek.

    Raises OSError for a pipe or a device, for which plain opening could wait for ever.
    """
    return ask("open", path, "rb") if is_remote(path) else open(path, "rb", opener=_open_regular)


def read_file(path: str, limit: int) -> bytes:
    """Read a whole file; ValueError when it has more than `limit` bytes."""
    with open_file(path) as file:
        size = file.seek(0, os.SEEK_END)
        if size > limit:
            raise ValueError(f"a file of more than {limit:,} bytes")
        file.seek(0)
        return file.read(size)


def read_range(path: str, start: int, length: int) -> bytes:
    """Read bytes from the middle of a file; fewer than `length` where it ends before."""
    if is_remote(path):
        return ask("cat_file", path, start=start, end=start + length)
    with open_file(path) as file:
        file.seek(start)
        return file.read(length)


def ask(method: str, url: str, *arguments, **options):
    """Call a method of the URL's file system (fsspec's) on it; errors as of `remote`."""
    with remote(url) as (system, path):
        return getattr(system, method)(path, *arguments, **options)


@contextmanager
def remote(url: str):
    """Give fsspec's file system of the URL, and the path there; what fails becomes one line.

    Raises FileNotFoundError, OSError, or ModuleNotFoundError naming the extra to install.
    """
    protocol = url.partition("://")[0]
    try:
        import fsspec

        yield fsspec.url_to_fs(url, use_listings_cache=False)
    except ImportError as error:
        raise ModuleNotFoundError(
            f"{url} needs the packages of {protocol}:// ({error}): pip install -e "
            f"'.[{EXTRAS[protocol]}]'"
        ) from None
    except FileNotFoundError:
        raise FileNotFoundError(f"{printable(url)} is not there") from None
    except Exception as error:  # each protocol's library has kinds of its own
        raise OSError(
            f"{printable(url)} cannot be reached ({printable(str(error))[:300]}): check the "
            "address, the network and your credentials"
        ) from error


def printable(text) -> str:
    """Give a path or name as one line of UTF-8; what that cannot hold becomes U+FFFD."""
    known = utf8(text)
    return "".join(letter if letter.isprintable() else "\ufffd" for letter in known)


def utf8(text) -> str:
    """Give a path or name as UTF-8 can write it, whatever the locale; else with U+FFFD."""
    text = LONE.sub("\ufffd", os.fspath(text))
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def _open_regular(path: str, flags: int) -> int:
    handle = os.open(path, flags | getattr(os, "O_NONBLOCK", 0))
    if stat.S_ISREG(os.fstat(handle).st_mode):
        return handle
    os.close(handle)
    raise OSError(errno.EINVAL, "not a regular file", path)


def _entry(entry: os.DirEntry) -> Entry:
    with suppress(OSError):  # renamed since by another process; a link to itself; a closed folder
        if entry.is_dir():
            return Entry(entry.name, entry.path, "folder", 0)
        if entry.is_file():
            found = entry.stat()
            return Entry(entry.name, entry.path, "file", found.st_size, found.st_mtime_ns)
    return Entry(entry.name, entry.path, "", 0)


def _state(item: dict) -> str:
    return next((str(item[key]) for key in STATES if item.get(key)), "")


def _scan_remote(folder: str) -> list[Entry]:
    entries = []
    if is_folder(folder):
        for item in ask("ls", folder, detail=True):
            name = item["name"].rstrip("/").rpartition("/")[2]
            kind = "folder" if item["type"] == "directory" else "file"
            # An object of the folder's own name, or one that ends in "/", only marks a folder.
            if name and not item["name"].endswith("/") and item["name"] != folder.split("://")[1]:
                found = Entry(name, join(folder, name), kind, item["size"] or 0, _state(item))
                entries.append(found)
    return sorted(entries)
