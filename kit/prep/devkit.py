"""ImageNet's devkit: validation labels by ILSVRC's own numbers, and meta.mat, which explains them.

meta.mat is one MATLAB structure array of short texts and numbers. SciPy would read it, at a hundred
times the size of what is needed here.
"""

import struct
import zlib
from array import array

from kit.data import paths
from kit.prep import archives

ARCHIVE = "ILSVRC2012_devkit_t12.tar.gz"
META = "meta.mat"
TRUTH = "ILSVRC2012_validation_ground_truth.txt"
MAX_BYTES = 2**26  # of each file, unpacked; meta.mat has half a million
FOLDERS = ("data", "ILSVRC2012_devkit_t12/data")

# MATLAB 5 MAT-file format: data types, array classes.
NUMBERS = {1: "b", 2: "B", 3: "h", 4: "H", 5: "i", 6: "I", 7: "f", 9: "d", 12: "q", 13: "Q"}
TEXTS = {1: "latin-1", 2: "latin-1", 4: "utf-16{}", 16: "utf-8", 17: "utf-16{}"}
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
    order = {b"IM": "<", b"MI": ">"}[data[126:128]]
    at = 128
    while at < len(data):
        kind, payload, at = _element(memoryview(data), at, order)
        if kind == COMPRESSED:
            payload = zlib.decompressobj().decompress(payload, MAX_BYTES)
            kind, payload, _ = _element(memoryview(payload), 0, order)
        if kind == MATRIX:
            value = _matrix(payload, order)
            if isinstance(value, list) and value and isinstance(value[0], dict):
                return value
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


def _element(data, at: int, order: str) -> tuple[int, memoryview, int]:
    """Read the element at `at`: its type, its bytes, and where the next one begins."""
    kind, size = struct.unpack_from(f"{order}II", data, at)
    if kind >> 16:  # four bytes or fewer stand in the tag itself
        return kind & 0xFFFF, data[at + 4 : at + 4 + (kind >> 16)], at + 8
    start = at + 8
    if start + size > len(data):
        raise ValueError("cut short")
    end = start + size
    return kind, data[start:end], end if kind == COMPRESSED else start + -(-size // 8) * 8


def _matrix(data, order: str, nested: bool = False):
    """Read an array: a list of dicts, a text, a list of numbers; None for what is not needed."""
    if not len(data):
        return None
    _, flags, at = _element(data, 0, order)
    kind = struct.unpack_from(f"{order}I", flags)[0] & 0xFF
    _, _, at = _element(data, at, order)  # dimensions: what follows says how many there are
    _, _, at = _element(data, at, order)  # name
    if kind == STRUCT and not nested:
        return _structs(data, at, order)
    if kind == STRUCT or kind < CHAR:
        return None
    form, payload, _ = _element(data, at, order)
    if kind == CHAR:
        return str(payload, TEXTS[form].format("-le" if order == "<" else "-be"))
    numbers = array(NUMBERS[form], bytes(payload))
    if struct.pack("=H", 1) != struct.pack(f"{order}H", 1):
        numbers.byteswap()
    return list(numbers)


def _structs(data, at: int, order: str) -> list[dict]:
    _, length, at = _element(data, at, order)
    _, names, at = _element(data, at, order)
    (width,) = struct.unpack(f"{order}i", length)
    if not 0 < width <= len(names):
        raise ValueError("a structure without fields")
    fields = [bytes(names[i : i + width]).split(b"\0")[0] for i in range(0, len(names), width)]
    structs = []
    while at < len(data):
        entry = {}
        for field in fields:
            _, payload, at = _element(data, at, order)
            entry[field.decode()] = _matrix(payload, order, nested=True)
        structs.append(entry)
    return structs
