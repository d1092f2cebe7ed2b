"""Locks, so that one process at a time writes a folder or a table.

A lock is a file that names its owner: host, process and the process's start. The owner also holds
flock on it, which ends with the process, so that the lock of a process that was killed is taken
over, by one process only. Where a network disk has no flock, the process is looked for instead.
"""

import atexit
import errno
import fcntl
import hashlib
import json
import os
import socket
import tempfile
import time
from contextlib import contextmanager, suppress
from pathlib import Path

READ_ONLY = (errno.EROFS, errno.EACCES, errno.EPERM)

_kept: dict[Path, int | None] = {}


class InUse(OSError):
    """Another process holds the lock; the text says which, and what to do."""


@contextmanager
def holding(path, what: str):
    """Hold the lock file `path` within the block; its folder is made as needed.

    `what` begins the line of InUse, which is raised while another process, or this one, holds it:
    "data_dir /shards is being prepared". A folder that nobody may write to needs no lock.
    """
    path = Path(path)
    handle = _acquire(path, what)
    try:
        yield
    finally:
        _release(path, handle)


@contextmanager
def holding_remote(folder, name: str, what: str):
    """Hold the lock file `name` of a storage.Remote within the block, as `holding` does.

    Of several that begin together one holds it: see storage.Remote.create.
    """
    digest = hashlib.sha256(folder.path(name).encode()).hexdigest()[:16]
    own = json.dumps(_identity()).encode()
    with holding(Path(tempfile.gettempdir(), f".kit-{os.getuid()}-{digest}.lock"), what):
        while (made := folder.create(name, own)) is False:
            with suppress(FileNotFoundError):  # its owner has just removed it
                if _lives(record := _record(folder.read(name))):
                    raise InUse(_refusal(folder.path(name), what, record))
                folder.remove(name)  # the owner was of this host, where nobody else is here
        try:
            yield
        finally:
            if made:
                folder.remove(name)


def keep(path, what: str) -> None:
    """Hold the lock file until `release(path)` or the end of this process, which may call it again.

    Raises InUse as `holding` does.
    """
    path = Path(path).absolute()
    if path not in _kept:
        _kept[path] = _acquire(path, what)


def release(path) -> None:
    """Give up what `keep` holds; nothing where it holds nothing."""
    path = Path(path).absolute()
    if path in _kept:
        _release(path, _kept.pop(path))


def owner(path) -> str:
    """Name the living process that holds the lock file `path`; "" when nobody does."""
    try:
        record = _record(Path(path).read_bytes())
    except OSError:
        return ""
    return _named(record) if _lives(record) else ""


def mark(process: int | None = None) -> str:
    """Give 24 hexadecimal digits for a process, this one or another of this host.

    They stand for the host, its container, the process and its start.
    """
    process, numbers = process or os.getpid(), ""
    with suppress(OSError):  # containers of one name number their processes apart
        numbers = Path("/proc/self/ns/pid").readlink()
    host = hashlib.sha256(f"{socket.gethostname()} {numbers}".encode()).hexdigest()
    start = _start(process)
    start = -1 if start is None else int(start or 0)
    return f"{host[:8]}{process:08x}{start % 2**32:08x}"


def has_ended(marked: str) -> bool:
    """Tell that a `mark` is of a process of this host that is no more; False for other hosts'."""
    now = mark(int(marked[8:16], 16))
    return now[:8] == marked[:8] and now != marked


def _acquire(path: Path, what: str) -> int | None:
    """Give an open handle on the lock file, None where the disk is read-only for this process."""
    patience = 100  # looks at a lock whose new owner has not yet written its name
    while True:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            handle, made = _open(path)
        except FileNotFoundError:  # its owner has just removed it
            continue
        except OSError as error:
            if error.errno in READ_ONLY and not os.path.lexists(path):
                return None
            raise OSError(
                f"{path} cannot be made ({error.strerror}), which tells others that {what}"
            ) from None
        free, record = _flock(handle), _record(os.pread(handle, 4096, 0))
        patience -= 1
        if _is_at(path, handle) and (free or _lives(record) or patience <= 0):
            break
        os.close(handle)
        time.sleep(0.01)
    if not free or (not made and _lives(record)):
        os.close(handle)
        raise InUse(_refusal(path, what, record))
    try:
        os.ftruncate(handle, 0)
        os.pwrite(handle, json.dumps(_identity()).encode(), 0)
    except OSError as error:
        _release(path, handle)
        raise OSError(f"{path} cannot be written ({error.strerror}): make room") from None
    return handle


def _open(path: Path) -> tuple[int, bool]:
    """Open the file, following no link; tell whether it was made just now."""
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o644), True
    except FileExistsError:
        return os.open(path, os.O_RDWR | os.O_NOFOLLOW), False


def _flock(handle: int) -> bool:
    """Tell that no other process holds flock on the file, as far as its disk can know."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # this disk has no flock
        pass
    return True


def _is_at(path: Path, handle: int) -> bool:
    try:
        return os.path.samestat(path.lstat(), os.fstat(handle))
    except FileNotFoundError:
        return False


def _release(path: Path, handle: int | None) -> None:
    if handle is not None:
        with suppress(OSError):
            if _is_at(path, handle):
                path.unlink()
        os.close(handle)


def _identity() -> dict:
    own = os.getpid()
    since = time.strftime("%Y-%m-%d %H:%M")
    return {"host": socket.gethostname(), "process": own, "start": _start(own), "since": since}


def _record(text: bytes) -> dict:
    """Give what the lock says of its owner; {} of one that was killed as it wrote that."""
    try:
        record = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    whole = isinstance(record, dict) and record.keys() == _identity().keys()
    return record if whole else {}


def _lives(record: dict) -> bool:
    """Tell whether the owner lives, as far as this host can know: of another host's yes."""
    if not record or record["host"] != socket.gethostname():
        return bool(record)
    return _start(record["process"]) == record["start"]


def _start(process: int) -> str | None:
    """Give when a process of this host started, in the kernel's ticks; None when it has ended."""
    try:
        fields = Path(f"/proc/{process}/stat").read_text("ascii", "replace").rpartition(")")[2]
    except OSError:
        if Path("/proc/self/stat").exists():
            return None
        try:
            os.kill(process, 0)
        except ProcessLookupError:
            return None
        except PermissionError:
            pass
        return ""  # macOS has no /proc
    state, *others = fields.split()
    return None if state in "ZX" else others[18]


def _named(record: dict) -> str:
    return f"process {record['process']} of {record['host']} since {record['since']}"


def _refusal(path, what: str, record: dict) -> str:
    remedy = "wait until it has ended, or name another"
    if record and record["host"] != socket.gethostname():
        remedy += f"; if that process is gone, delete {path}"
    return f"{what} by {_named(record) if record else 'another process'}: {remedy}"


def _forget() -> None:
    """Leave the locks to the process that this one was forked from."""
    for handle in _kept.values():
        if handle is not None:
            os.close(handle)
    _kept.clear()


os.register_at_fork(after_in_child=_forget)


@atexit.register
def _release_all() -> None:
    for path in list(_kept):
        release(path)
