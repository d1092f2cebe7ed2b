"""Reads and writes folders of shards, local or at a URL. A file is whole or absent."""

import os
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

from kit.data import paths
from kit.files import replacing

SETTLED = 2  # seconds in which all who look whether there is a file, and write it, are done


class Local:
    """A folder of this machine, or of a network file system that it mounts."""

    def __init__(self, data_dir):
        self.url = paths.resolve(data_dir)
        self.local = Path(self.url)

    def __str__(self) -> str:
        return self.url

    def path(self, name: str) -> str:
        """Give what TensorFlow opens to read the file."""
        return paths.join(self.url, name)

    def names(self, folder: str = "") -> list[str]:
        """List the files of the folder; none where there is no such folder."""
        entries = paths.scan(self.path(folder) if folder else self.url)
        return [entry.name for entry in entries if entry.kind == "file"]

    def size(self, name: str) -> int | None:
        """Give the file's bytes, or None where there is no such file."""
        try:
            return paths.size_of(self.path(name))
        except (FileNotFoundError, NotADirectoryError):
            return None

    def read(self, name: str) -> bytes:
        with paths.open_file(self.path(name)) as file:
            return file.read()

    def write(self, name: str, data: bytes) -> None:
        with replacing(self.local / name) as temporary:
            temporary.write_bytes(data)
            _flush(temporary)

    def put(self, name: str, temporary) -> None:
        """Move a finished file here: after a power cut it is whole or absent."""
        _flush(temporary)
        temporary.replace(self.local / name)
        _flush(self.local)

    def remove(self, name: str) -> None:
        """Remove the file, or the empty folder, if it is there."""
        path = self.local / name
        if path.is_dir():
            path.rmdir()
        elif os.path.lexists(path):  # a read-only disk refuses to remove even what is not there
            path.unlink(missing_ok=True)


class Remote(Local):
    """A folder at gs://, s3:// or hdfs://; needs fsspec and the protocol's package."""

    def __init__(self, url: str):
        self.url = paths.resolve(url)
        self.local = None

    def read(self, name: str) -> bytes:
        return paths.ask("cat_file", self.path(name))

    def write(self, name: str, data: bytes) -> None:
        with tempfile.TemporaryDirectory() as folder:
            temporary = Path(folder) / "file"
            temporary.write_bytes(data)
            self.put(name, temporary)

    def create(self, name: str, data: bytes) -> bool | None:
        """Write the file unless there is one; tell if it holds `data`, None where nobody may write.

        S3 and GCS let one alone make it. Others may let several that begin together, each over the
        one before: the last one's stays, if all are done within SETTLED seconds.
        """
        with paths.remote(self.path(name)) as (system, path):
            try:
                if not system.exists(path):
                    with suppress(FileExistsError):
                        system.pipe_file(path, data, mode="create")
                time.sleep(SETTLED)
                return system.cat_file(path) == data
            except FileNotFoundError:
                return False
            except PermissionError:
                return None

    def put(self, name: str, temporary) -> None:
        """Upload a finished file, then delete it here. It appears whole at the other end.

        An object store shows nothing before it has all; HDFS needs a rename for that.
        """
        url, temporary = self.path(name), Path(temporary)
        first = f"{url}.{uuid4().hex}.tmp" if url.startswith("hdfs:") else url
        size = temporary.stat().st_size
        with paths.remote(first) as (system, path):
            if first != url:
                system.makedirs(path.rpartition("/")[0], exist_ok=True)
            system.put_file(str(temporary), path)
        if (arrived := paths.size_of(first)) != size:
            raise OSError(f"{url}: {arrived:,} of {size:,} bytes arrived: start again")
        if first != url:
            self.remove(name)
            with paths.remote(url) as (system, path):
                system.mv(f"{path}{first.removeprefix(url)}", path)
        temporary.unlink()

    def remove(self, name: str) -> None:
        """Remove the file if it is there; folders come and go with their files."""
        if paths.is_file(self.path(name)):
            paths.ask("rm_file", self.path(name))


def folder(data_dir) -> Local:
    """Give the folder that data_dir names; a relative path means the repository's root."""
    if isinstance(data_dir, Local):
        return data_dir
    return Remote(data_dir) if paths.is_remote(data_dir) else Local(data_dir)


def check_readable(data_dir) -> None:
    """Raise ValueError for a folder whose files TensorFlow does not open: s3:// and hdfs://."""
    if paths.is_remote(data_dir) and not str(data_dir).startswith("gs://"):
        raise ValueError(
            f"data_dir {data_dir}: TensorFlow does not read from there: copy the shards to this "
            "machine by kit.data.staging.stage(data_dir), as notebook 02 does"
        )


def _flush(path) -> None:
    """Have the disk hold the file, or what the folder lists."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
