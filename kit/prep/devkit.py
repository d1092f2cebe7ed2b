"""ImageNet's devkit: validation labels by ILSVRC's own numbers, and meta.mat, which explains them.

meta.mat is one MATLAB structure array of texts and numbers. scipy.io.loadmat reads it too, but a
damaged file makes it crash the whole process (SciPy 1.17), and it has no limit of size.
"""

import struct
import zlib
from collections.abc import Iterator

import numpy as np

from kit.data import paths
from kit.prep import archives

ARCHIVE = "ILSVRC2012_devkit_t12.tar.gz"
META = "meta.mat"
TRUTH = "ILSVRC2012_validation_ground_truth.txt"
MAX_BYTES = 2**22  # of each file; meta.mat has half a million
MAX_UNPACKED_BYTES = 2**23  # of what is compressed in meta.mat
MAX_PARTS = 2**18  # of an array in it; ImageNet's has 1,860 structures of 8 fields
FOLDERS = ("data", "ILSVRC2012_devkit_t12/data")

# MATLAB 5 MAT-file format: data types (of numbers: the place in this list), array classes.
NUMBERS = ["-", "i1", "u1", "i2", "u2", "i4", "u4", "f4", "-", "f8", "-", "-", "i8", "u8"]
TEXTS = {1: "latin-1", 2: "latin-1", 4: "utf-16-le", 16: "utf-8", 17: "utf-16-le"}
MATRIX, COMPRESSED = 14, 15
STRUCT, CHAR = 2, 4


def read_devkit(root: str) -> tuple[dict[str, str], list[str]] | None:
    """Give wnid -> name, and the wnid of each validation image in the order of their names.

    From the archive in `root`, or from its files extracted there; None where neither is.
    """
    files = _find(root)
    if not files:
        return None
    where = paths.printable(paths.join(root, ARCHIVE))
    missing = [name for name in (META, TRUTH) if name not in files]
    if missing:
        raise ValueError(f"devkit {where} lacks {' and '.join(missing)}: get it again")
    try:
        synsets = read_synsets(files[META])
        wnid_of = {int(synset["ILSVRC2012_ID"][0]): synset["WNID"] for synset in synsets}
        labels = [wnid_of[int(number)] for number in files[TRUTH].split()]
    except (ValueError, LookupError, TypeError, struct.error, zlib.error) as error:
        raise ValueError(f"devkit {where} cannot be read ({error!r}): get it again") from None
    return {synset["WNID"]: synset.get("words", "") for synset in synsets}, labels


def read_synsets(data: bytes) -> list[dict]:
    """Read the structure array of a meta.mat: a text or a list of numbers for each field.

    Raises ValueError, LookupError, TypeError, struct.error or zlib.error for what is none.
    Source: MAT-File Format, MathWorks, chapter 1 (level 5).
    """
    if data[126:128] != b"IM":
        raise ValueError("no little-endian MAT-file")
    left = MAX_UNPACKED_BYTES
    for kind, payload in _elements(memoryview(data)[128:]):
        if kind == COMPRESSED:
            payload = zlib.decompressobj().decompress(payload, left)
            left -= len(payload)
            if not left:
                raise ValueError(f"it unpacks to more than {MAX_UNPACKED_BYTES:,} bytes")
            kind, payload = next(_elements(memoryview(payload)), (0, b""))
        if kind == MATRIX and (structs := _read_structs(payload)):
            return structs
    raise ValueError("no structure in it")


def _find(root: str) -> dict[str, bytes]:
    archive = paths.join(root, ARCHIVE)
    if paths.is_file(archive):
        return archives.read_files(archive, {META: MAX_BYTES, TRUTH: MAX_BYTES})
    for folder in (root, *(paths.join(root, name) for name in FOLDERS)):
        if paths.is_file(paths.join(folder, TRUTH)):
            at = {name: paths.join(folder, name) for name in (META, TRUTH)}
            at = {name: path for name, path in at.items() if paths.is_file(path)}
            return {name: paths.read_file(path, MAX_BYTES) for name, path in at.items()}
    return {}


def _elements(data: memoryview) -> Iterator[tuple[int, memoryview]]:
    """Yield the type and the bytes of each element in turn."""
    at, parts = 0, 0
    while at < len(data):
        if (parts := parts + 1) > MAX_PARTS:
            raise ValueError(f"more than {MAX_PARTS:,} parts")
        kind, size = struct.unpack_from("<II", data, at)
        start, at = at + 8, at + 8 + (size if kind == COMPRESSED else -(-size // 8) * 8)
        if kind >> 16:  # four bytes or fewer stand in the tag itself
            kind, size, start, at = kind & 0xFFFF, kind >> 16, start - 4, start
        if start + size > len(data):
            raise ValueError("cut short")
        yield kind, data[start : start + size]


def _read_array(data: memoryview) -> tuple[int, list[tuple[int, memoryview]]]:
    """Give an array's class, and the elements behind its flags, dimensions and name."""
    (_, flags), _, _, *values = _elements(data)
    return flags[0], values


def _read_structs(data: memoryview) -> list[dict]:
    """Read a structure array as a dict for each structure; [] for an array of another class."""
    kind, elements = _read_array(data)
    if kind != STRUCT:
        return []
    (_, length), (_, names), *values = elements
    (width,) = struct.unpack("<i", length)
    if not 0 < width <= len(names):
        raise ValueError("a structure without fields")
    fields = [bytes(names[i : i + width]).split(b"\0")[0] for i in range(0, len(names), width)]
    cells = [_read_value(payload) for _, payload in values]
    return [
        dict(zip(map(bytes.decode, fields), cells[at : at + len(fields)], strict=True))
        for at in range(0, len(cells), len(fields))
    ]


def _read_value(data: memoryview) -> str | list | None:
    """Read a text or a list of numbers; None for what is not needed."""
    if not len(data):
        return None
    kind, elements = _read_array(data)
    if kind < CHAR:
        return None
    form, payload = elements[0]
    if kind == CHAR:
        return str(payload, TEXTS[form])
    return np.frombuffer(payload, f"<{NUMBERS[form]}").tolist()
