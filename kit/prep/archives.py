"""Reads tars in place: members are listed by offset, and none is extracted to disk."""

import gzip
import os
import re
import struct
import tarfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from kit.data import paths

BLOCK = 512  # bytes; headers and members begin at multiples of it
MAX_NAME_BYTES = 2**16  # of a member's long name or its pax header
MAX_UNPACKED_BYTES = 2**31  # of a .tar.gz; ImageNet's boxes have less than 1 GiB,
MAX_RATIO = 100  # times what is packed, and as many as
MAX_MEMBERS = 600_000  # members, which are listed in 5 s: 6 microseconds each
MAX_ALL_NAMES = 2**27  # characters of their names
# Name, size, checksum, type and prefix of the name, in a header: POSIX.1-1988, ustar.
HEADER = struct.Struct("100s 24x 12s 12x 8s c 188x 155s 12x")
BLANK = 8 * ord(" ")  # what the checksum's own bytes count for
REGULAR = (tarfile.REGTYPE, tarfile.AREGTYPE)
WITHOUT_DATA = (
    *(tarfile.LNKTYPE, tarfile.SYMTYPE),
    *(tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE),
)


class Header(NamedTuple):
    name: str
    type: bytes
    size: int  # bytes


class Member(NamedTuple):
    name: str
    problem: str  # why it cannot be read; "" for a regular file
    start: int  # of its first byte in the archive
    size: int  # bytes

    @property
    def base_name(self) -> str:
        return self.name.rpartition("/")[2]


def read_members(file, start: int = 0, end: int = MAX_UNPACKED_BYTES) -> Iterator[Member]:
    """List the members, folders left out, of the tar between two offsets of an open file.

    Only headers are read. Raises ValueError for what is no tar, and for a member that reaches
    beyond the end.
    """
    members, names = 0, 0
    extended = {}  # what a long name or a pax header says of the next member
    while header := _read_header(file, start, end):
        start += BLOCK
        size = header.size
        if header.type in (tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE):
            extended |= _read_extended(file, header)
        elif header.type not in (tarfile.GNUTYPE_LONGLINK, tarfile.XGLTYPE):
            size = 0 if header.type in WITHOUT_DATA else extended.get("size", size)
            name = extended.get("path", header.name)
            if not 0 <= size <= end - start:
                raise ValueError(f"{paths.printable(name)[:200]} claims {size:,} bytes")
            members, names = members + 1, names + len(name)
            if members > MAX_MEMBERS or names > MAX_ALL_NAMES:
                raise ValueError(f"{members:,} members with names of {names:,} characters")
            if header.type != tarfile.DIRTYPE:
                yield Member(name, _problem(name, header.type, extended), start, size)
            extended = {}
        start += -(-size // BLOCK) * BLOCK


class Unpacked(gzip.GzipFile):
    """A .gz that unpacks to at most MAX_UNPACKED_BYTES and MAX_RATIO times its size."""

    def __init__(self, fileobj):
        packed = fileobj.seek(0, os.SEEK_END)
        fileobj.seek(0)
        self.most = min(MAX_UNPACKED_BYTES, 2**24 + MAX_RATIO * packed)
        super().__init__(fileobj=fileobj)

    def seek(self, offset, whence=os.SEEK_SET):
        """Raise ValueError, and unpack nothing, for an offset beyond what may be there."""
        if offset > self.most:
            raise ValueError(f"it unpacks to more than {self.most:,} bytes")
        return super().seek(offset, whence)


@contextmanager
def open_tar(path: str):
    """Open a .tar or .tar.gz. Raises ValueError in one line for one that cannot be read."""
    try:
        with paths.open_file(path) as file:
            yield Unpacked(fileobj=file) if path.endswith(".gz") else file
    except (ValueError, EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise ValueError(
            f"archive {paths.printable(path)} cannot be read ({error}): get it again"
        ) from None


def read_files(path: str, wanted: dict[str, int]) -> dict[str, bytes]:
    """Read the members of a .tar.gz whose base names are `wanted` (name: most bytes)."""
    found = {}
    with open_tar(path) as file:
        for member in read_members(file):
            name = member.base_name
            if name in wanted and not member.problem:
                found[name] = read_member(file, member, wanted[name])
                if len(found) == len(wanted):
                    break
    return found


def read_member(file, member: Member, limit: int) -> bytes:
    """Read one member; ValueError when it has more than `limit` bytes or is cut short."""
    if member.size > limit:
        raise ValueError(f"{paths.printable(member.name)} has more than {limit:,} bytes")
    file.seek(member.start)
    data = file.read(member.size)
    if len(data) != member.size:
        raise ValueError(f"{paths.printable(member.name)} is cut short")
    return data


def _read_header(file, start: int, end: int) -> Header | None:
    """Read the header at `start`; None at the tar's end. Tarfile's own takes thrice as long."""
    file.seek(start)
    block = file.read(max(0, min(BLOCK, end - start)))
    if not block.strip(b"\0") and len(block) in (0, BLOCK):
        return None
    try:
        name, size, checksum, kind, prefix = HEADER.unpack(block)
        total = _number(checksum) - BLANK + sum(checksum)
        if (total + 1) % 65521 != zlib.adler32(block) & 0xFFFF:  # half of it is the sum, and one
            raise ValueError("another checksum")
        size = _number(size)
    except (ValueError, struct.error, tarfile.HeaderError) as error:
        raise ValueError(f"no tar header at byte {start:,}: {error}") from None
    if prefix[0] and kind not in tarfile.GNU_TYPES:
        name = prefix.partition(b"\0")[0] + b"/" + name
    name = name.partition(b"\0")[0].decode("utf-8", "surrogateescape")
    if size < 0:
        raise ValueError(f"{paths.printable(name)[:200]} claims {size:,} bytes")
    if kind == tarfile.AREGTYPE and name.endswith("/"):
        kind = tarfile.DIRTYPE
    return Header(name, kind, size)


def _number(field: bytes) -> int:
    """Read octal digits, or GNU's base 256 where the first bit is set."""
    return tarfile.nti(field) if field[0] > 127 else int(field.rstrip(b"\0 ") or b"0", 8)


def _read_extended(file, header: Header) -> dict:
    """Read a long name, or the path, size and "GNU.sparse." entries of a pax header."""
    if header.size > MAX_NAME_BYTES:
        raise ValueError(f"a header of {header.size:,} bytes")
    data = file.read(header.size)
    if header.type == tarfile.GNUTYPE_LONGNAME:
        return {"path": os.fsdecode(data.rstrip(b"\0"))}
    found = {}
    while data:  # lines such as "28 path=n01440764_1.JPEG\n", each headed by its own length
        length = re.match(rb"(\d{1,5}) ", data)
        end = int(length[1]) if length else 0
        if not length or not length.end() < end <= len(data):
            raise ValueError("a pax header that is none")
        key, _, value = os.fsdecode(data[length.end() : end - 1]).partition("=")
        if key == "path" or key.startswith("GNU.sparse."):
            found[key] = value
        elif key == "size" and re.fullmatch("[0-9]{1,20}", value):
            found[key] = int(value)
        data = data[end:]
    return found


def _problem(name: str, kind: bytes, extended: dict) -> str:
    if kind not in REGULAR or (extended and any("sparse" in key for key in extended)):
        return "a link, a device or a sparse file"
    if name.startswith("/") or (".." in name and ".." in name.split("/")):
        return "a path that leads out of the archive"
    return ""
