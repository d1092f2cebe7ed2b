"""Files that are written whole or not at all.

The kit's own temporary names cannot be foreseen, and no link is followed. They begin with a dot and
name their process: what a killed one left goes with the next write into its folder from that host.
TensorFlow writes checkpoints and TensorBoard's logs, and papermill notebooks, under names that can
be foreseen: a run_dir in which others may make files lets them lead those writes elsewhere.
"""

import errno
import hashlib
import json
import os
import re
import shutil
import tempfile
from contextlib import contextmanager, suppress
from pathlib import Path
from secrets import token_hex

from kit import locks

FULL = (errno.ENOSPC, errno.EDQUOT)
SEAL = "contents_sha256"  # the key of a JSON file that holds the SHA-256 of the others
KINDS = {dict: "an object", list: "a list", str: "text", int: "a whole number", float: "a number"}
KINDS |= {bool: "true or false"}
REMEDY = "make room, and run the same again"
TEMPORARY = re.compile(r"\..+\.([0-9a-f]{24})[0-9a-f]{16}(\.[^.]+)?", re.DOTALL)  # see _unique


@contextmanager
def replacing(path):
    """Give a temporary path beside `path`, renamed to it when the block ends without an error.

    A reader never sees half a file, and a failed or killed write leaves the old file as it was.
    Folders are made as needed. A full disk raises OSError with `path` and the remedy.
    """
    path = Path(path)
    with naming_full_disk(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = temporary_beside(path)
        try:
            yield temporary
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


@contextmanager
def replacing_folder(path):
    """Give an empty folder beside `path`, as `replacing` does a file."""
    path = Path(path)
    with naming_full_disk(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{_unique(path.parent)}")
        temporary.mkdir()
        try:
            yield temporary
            shutil.rmtree(path, ignore_errors=True)
            temporary.replace(path)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def naming_full_disk(path):
    """Raise OSError naming `path` and the remedy for a full disk, whichever library's error it is.

    Others, HDF5's and TensorFlow's among them, say so in their text alone.
    """
    try:
        yield
    except Exception as error:
        full = [reason for reason in map(os.strerror, FULL) if reason in str(error)]
        if not full or REMEDY in str(error):
            raise
        raise OSError(f"{path} cannot be written ({full[0]}): {REMEDY}") from error


def temporary_beside(path) -> Path:
    """Make an empty file beside `path`, under a name that nobody can foresee; follow no link to it.

    The name begins with a dot and keeps the suffix, which Keras and matplotlib read.
    """
    path = Path(path)
    suffix = path.suffix if len(path.suffix) < 20 else ""
    name = f".{path.stem[:40]}.{_unique(path.parent)}{suffix}"  # 255 bytes at most
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
    os.close(os.open(path.with_name(name), flags, 0o666))  # less what the umask takes away
    return path.with_name(name)


def _unique(folder: Path) -> str:
    """Give 40 hexadecimal digits for a temporary name: the process's mark, and chance.

    Removes from the folder what bears the mark of a process of this host that has ended.
    """
    with suppress(OSError):  # the folder cannot be listed
        for path in folder.iterdir():
            if (found := TEMPORARY.fullmatch(path.name)) and locks.has_ended(found[1]):
                shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    return locks.mark() + token_hex(8)


def check_writable(path) -> None:
    """Raise OSError unless a file can be written at `path`; makes none of its folders."""
    if Path(path).is_dir():
        raise IsADirectoryError(0, "it is a folder")
    if long := [part for part in Path(path).parts if len(os.fsencode(part)) > 255]:
        raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG), long[0])
    folder = Path(path).parent
    while not os.path.lexists(folder):
        folder = folder.parent
    with tempfile.TemporaryFile(dir=folder):
        pass


@contextmanager
def plain_path(path):
    """Give a path to the same file that TensorFlow does not take for a pattern of names.

    Where it has one of * ? [ ] and the backslash, it leads through a link that ends with the block;
    also for letters beyond ASCII, of which C++ libraries take none under an ASCII locale.
    """
    path = Path(path).absolute()
    if str(path).isascii() and not set(str(path)) & set("*?[]\\"):
        yield str(path)
        return
    with tempfile.TemporaryDirectory() as folder:
        link = Path(folder) / "link"
        link.symlink_to(path.parent)
        yield str(link / path.name)


def write_json(path, values: dict) -> None:
    """Write a dict as JSON (`json_bytes`), whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_bytes(json_bytes(values))


def read_json(path, needed=None, *, remedy: str) -> dict:
    """Read a file that holds a JSON object of the form `needed` (see `check_form`).

    Raises ValueError in one line, with the remedy, for any other.
    """
    try:
        values = json_object(Path(path).read_bytes())
        check_form(values, needed or {})
    except ValueError as error:
        raise ValueError(f"{path} cannot be read ({error}): {remedy}") from None
    return values


def json_object(data: bytes) -> dict:
    """Give the JSON object that the bytes hold; ValueError, in one line, where they hold none."""
    return json_of(data, {})


def json_of(data: bytes, form):
    """Give the value of JSON that the bytes hold; ValueError, in one line, for another form."""
    try:
        values = json.loads(data.decode())
    except (ValueError, RecursionError) as error:
        raise ValueError(" ".join(str(error).split())[:200] or "it is empty") from None
    check_form(values, form)
    return values


def check_form(value, form, name: str = "it") -> None:
    """Raise ValueError, naming the place, unless a value of JSON has the form.

    A form is a type; {key: form} for an object with at least these keys; [form] for a list of any
    length. A whole number stands for a float, too, and true for no number.
    """
    kind = type(form) if isinstance(form, dict | list) else form
    kinds = (int, float) if kind is float else kind
    if not isinstance(value, kinds) or (isinstance(value, bool) and kind is not bool):
        raise ValueError(f"{name} is {str(value)[:40]!r}, not {KINDS[kind]}")
    if isinstance(form, dict):
        for key, inner in form.items():
            if key not in value:
                raise ValueError(f"{name} lacks {key}")
            check_form(value[key], inner, key if name == "it" else f"{name}: {key}")
    elif isinstance(form, list):
        for number, element in enumerate(value):
            check_form(element, form[0], f"{name}[{number}]")


def seal(values: dict) -> dict:
    """Give the values of a JSON file with a SHA-256 of them, which `check_seal` compares."""
    return values | {SEAL: _digest(values)}


def check_seal(values: dict) -> None:
    """Raise ValueError when the values were edited since `seal`; older files have no seal."""
    if values.get(SEAL, found := _digest(values)) != found:
        raise ValueError("it was edited since it was written")


def _digest(values: dict) -> str:
    rest = {key: value for key, value in values.items() if key != SEAL}
    rest = json.loads(json_bytes(rest))  # as it will be read: a tuple is a list
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def json_bytes(values: dict) -> bytes:
    """Give a dict as JSON in UTF-8, a line for each of its keys. ValueError for NaN and infinity.

    So a list of a thousand classes, or their confusion matrix, is a line and not a million.
    """
    lines = [
        f" {json.dumps(key)}: {json.dumps(value, ensure_ascii=False, allow_nan=False)}"
        for key, value in values.items()
    ]
    text = "{\n" + ",\n".join(lines) + "\n}\n"
    return text.encode(errors="backslashreplace")  # what UTF-8 cannot hold of a path: \udce9


def hash_file(path) -> str:
    """Give the file's SHA-256 in hexadecimal."""
    digest = hashlib.sha256()
    with Path(path).open("rb") as file:
        while block := file.read(2**20):
            digest.update(block)
    return digest.hexdigest()
